//go:build !windows

package main

import (
	"crypto/sha512"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tallystick/evidence"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// ownEntry is an entry of this project's content.
type ownEntry struct{ kind, data string }

func (e ownEntry) Type() string                            { return e.kind }
func (e ownEntry) Detail() string                          { return e.data }
func (e ownEntry) Data() []byte                            { return []byte(e.data) }
func (e ownEntry) Verify(rtmr.Digest) (rtmr.Check, []byte) { return rtmr.CannotCheck, nil }

// TestIncidents: what the journal itself admits stands in the verdict, in words and in
// JSON, and --strict lets none of it pass.
func TestIncidents(t *testing.T) {
	rtmr2 := rtmr.MustParse("rtmr2")
	own := func(g *testlogs.Guest, kind, data string) {
		sum := sha512.Sum384([]byte(data))
		g.Extend(t, rtmr.Measurement{Register: rtmr2, Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: sum[:]}}, Entry: ownEntry{kind, data}})
	}
	args := []string{"--nonce", "cafe", "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z"}
	for name, c := range map[string]struct {
		do   func(g *testlogs.Guest)
		text string // of the sentence
		want incidentsJSON
	}{
		"none": {func(*testlogs.Guest) {}, "", incidentsJSON{}},
		"extends by another process": {func(g *testlogs.Guest) {
			own(g, "other", `{"pid":666,"comm":"evil"}`)
			own(g, "other", "{\"pid\":667,\"comm\":\"e\x1b[31m\"}")
		}, "cel-journal itself tells of 2 extends by other processes than the helper", incidentsJSON{
			map[string]int{"other": 2}, []incidentJSON{
				{4, "other", "rtmr2", `another process than the helper extended it: {"pid":666,"comm":"evil"}`},
				{5, "other", "rtmr2", `another process than the helper extended it: {"pid":667,"comm":"e\x1b[31m"}`},
			}}},
		"a gap and something later versions know": {func(g *testlogs.Guest) {
			g.Note(t, "gap", `{"after":3}`)
			g.Note(t, "later", `{}`)
		}, "cel-journal itself tells of 1 x gap, 1 x later", incidentsJSON{
			map[string]int{"gap": 1, "later": 1}, []incidentJSON{{4, "gap", "", `{"after":3}`}, {5, "later", "", "{}"}}}},
		"gaps and what was left out, extended": {func(g *testlogs.Guest) {
			own(g, "own:gap", `{"after":3}`)
			own(g, "own:left-out", `{"register":"pcr16"}`)
		}, "cel-journal itself tells of 1 x gap, 1 x left-out", incidentsJSON{
			map[string]int{"gap": 1, "left-out": 1}, []incidentJSON{{4, "gap", "rtmr2", `{"after":3}`}, {5, "left-out", "rtmr2", `{"register":"pcr16"}`}}}},
		"words that no digest is of": {func(g *testlogs.Guest) {
			own(g, "container", `{"name":"nginx, sealed"}`)
			own(g, "app:container", `{"name":"nginx"}`)
		}, "cel-journal itself tells of 1 entry whose words nothing ties to the digest", incidentsJSON{
			map[string]int{"unbound": 1}, []incidentJSON{{4, "unbound", "rtmr2", `container: nothing ties these words to the digest: {"name":"nginx, sealed"}`}}}},
		"a base that changes nothing": {func(g *testlogs.Guest) {
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: g.Values(t), Unknown: map[rtmr.Register]int{rtmr2: 2}})
		}, "cel-journal itself tells of 1 time that others extended what is in no log, or that registers were reset", incidentsJSON{
			map[string]int{"base": 1}, []incidentJSON{{4, "base", "",
				"others extended rtmr0, rtmr1, rtmr2, and by what is not known; rtmr3 had been reset; of the last 2 in rtmr2 it is not known whether they were extended"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			g, b := tdGuest(t)
			c.do(g)
			b.Journal, b.TDQuote = g.Journal(), tdQuote(t, g)
			report, status := bundleVerdict(t, b, args...)
			if report.Verdict != "reconciled" || status != 0 || !strings.Contains(report.Text, c.text) {
				t.Errorf("%s (%s), expected %q", report.Verdict, report.Text, c.text)
			}
			i := slices.IndexFunc(report.Logs, func(l logJSON) bool { return l.Path == "cel-journal" })
			got := report.Logs[i].Incidents
			if len(c.want.First) == 0 {
				if got != nil {
					t.Errorf("%+v, expected none", got)
				}
				return
			}
			if got == nil || !slices.Equal(got.First, c.want.First) || len(got.Counts) != len(c.want.Counts) {
				t.Fatalf("%+v, expected %+v", got, c.want)
			}
			report, status = bundleVerdict(t, b, append(args, "--strict")...)
			if report.Verdict != "diverged" || status != 1 || !strings.Contains(report.Text, c.text+", which --strict forbids") {
				t.Errorf("strictly: %s (%s)", report.Verdict, report.Text)
			}
			said := bundleText(t, b, args...)
			for _, i := range c.want.First {
				if !strings.Contains(said, "it says: entry ") || !strings.Contains(said, i.Text) {
					t.Errorf("%q is not said:\n%s", i.Text, said)
				}
			}
		})
	}
}

// bundleText is what reconcile prints of a bundle for people.
func bundleText(t *testing.T, b *evidence.Bundle, args ...string) string {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tally", append([]string{"reconcile", "evidence.cmw"}, args...)...)
	cmd.Dir = files(t, map[string][]byte{"evidence.cmw": data})
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// TestIncidentsMany: a journal full of them is counted, and not printed whole.
func TestIncidentsMany(t *testing.T) {
	g, b := tdGuest(t)
	for range 100 {
		g.Note(t, "gap", `{"text":"`+strings.Repeat("x", 10000)+`"}`)
	}
	b.Journal = g.Journal()
	said := bundleText(t, b, "--nonce", "cafe", "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z")
	if !strings.Contains(said, "100 x gap") || !strings.Contains(said, "84 more") || len(said) > 16<<10 {
		t.Errorf("%d bytes:\n%.3000s", len(said), said)
	}
}

// TestNoKernelList: a bundle without the kernel's list is reconciled, and says so.
func TestNoKernelList(t *testing.T) {
	args := []string{"--nonce", "cafe", "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z"}
	_, b := tdGuest(t)
	const said = "no list of the kernel's came with it"
	if report, _ := bundleVerdict(t, b, args...); report.Verdict != "reconciled" || strings.Contains(report.Text, said) {
		t.Errorf("with it: %s (%s)", report.Verdict, report.Text)
	}
	b.IMAList, b.Statement.Logs = nil, slices.Delete(b.Statement.Logs, 1, 2)
	if report, _ := bundleVerdict(t, b, args...); report.Verdict != "reconciled" || !strings.Contains(report.Text, said) {
		t.Errorf("without: %s (%s)", report.Verdict, report.Text)
	}
}
