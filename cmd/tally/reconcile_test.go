package main

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// reconcileJSON is the shape of reconcile --json and explain --json.
type reconcileJSON struct {
	Verdict, Text string
	Quote         quoteJSON
	Logs          []logJSON
	Registers     []struct {
		Register         rtmr.Register
		Alg              rtmr.Alg
		Status           string
		Quoted, Replayed rtmr.Hex
		Events, Matched  int
		Text             string
		Finding          *findingJSON
	}
	Uncovered, Undigested []uncoveredJSON
	Findings              []findingOfEntryJSON
	Search                *json.RawMessage
	Error                 string
}

type uncoveredJSON struct {
	Log      int
	Register string
	Events   int
}

type quoteJSON struct {
	Kind                                                 string
	Version                                              int
	Signature, Chain, Collateral, Nonce, Binding, Policy string
	Links                                                []struct{ Name, Status, Text string }
	Facts                                                []struct{ Name, Value string }
	Inside                                               *quoteJSON
	Warnings                                             []string
}

type findingJSON struct {
	Kind       string
	Log, Entry *int
	Proven     bool
	Text       string
	Also       []findingJSON
}

// files writes files into a new folder and returns a function that names them.
func files(t *testing.T, contents map[string][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, data := range contents {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// verdictIn runs tally in a folder and reads the JSON that it prints.
func verdictIn(t *testing.T, dir string, args ...string) (report reconcileJSON, status int) {
	t.Helper()
	cmd := exec.Command("tally", args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("tally %s: %s", strings.Join(args, " "), stderr.String())
	}
	strictly(t, out, &report)
	return report, cmd.ProcessState.ExitCode()
}

// evidenceOf lays out a machine's logs and one of its TPM's quotes, and returns
// the arguments that reconcile them.
func evidenceOf(t *testing.T, m testlogs.Machine, q testlogs.TPMQuote) (dir string, args []string) {
	t.Helper()
	values, err := json.Marshal(rtmr.Values{q.Bank: m.Held[q.Bank]})
	if err != nil {
		t.Fatal(err)
	}
	contents := map[string][]byte{"quote": q.Attest, "signature": q.Signature, "key": q.Key, "values": values}
	args = []string{"reconcile", "--json", "--quote", "quote", "--signature", "signature", "--key", "key", "--nonce", hex.EncodeToString(q.Nonce)}
	if m.Profile != "" {
		args = append(args, "--profile", m.Profile)
	}
	for i, l := range m.Logs {
		name := fmt.Sprintf("log%d", i)
		contents[name] = l.Data
		args = append(args, name)
	}
	return files(t, contents), args
}

// fixtureMachines are those of the project's own, which are always there.
func fixtureMachines(t *testing.T) []testlogs.Machine {
	t.Helper()
	all := testlogs.Machines(t)
	return slices.DeleteFunc(all, func(m testlogs.Machine) bool { return !strings.HasPrefix(m.Name, "fixtures/") })
}

// fixtureMachine is one of them, by its folder and its lists.
func fixtureMachine(t *testing.T, name string) testlogs.Machine {
	t.Helper()
	all := fixtureMachines(t)
	i := slices.IndexFunc(all, func(m testlogs.Machine) bool { return m.Name == "fixtures/"+name })
	if i < 0 {
		t.Fatalf("no machine %s", name)
	}
	return all[i]
}

// TestReconcileFixtures: every quote of every machine of the lab's is reconciled
// with its logs, with its values told and without, and the registers come out at
// what was read from the TPM.
func TestReconcileFixtures(t *testing.T) {
	for _, m := range fixtureMachines(t) {
		for _, q := range m.Quotes {
			t.Run(m.Name+"/"+q.Name, func(t *testing.T) {
				t.Parallel()
				dir, args := evidenceOf(t, m, q)
				for _, more := range [][]string{nil, {"--values", "values"}} {
					report, status := verdictIn(t, dir, append(slices.Clone(args), more...)...)
					if report.Verdict != "reconciled" || status != 0 {
						t.Fatalf("%s (%s), status %d", report.Verdict, report.Text, status)
					}
					if report.Quote.Kind != "tpm" || report.Quote.Signature != "verified" || report.Quote.Nonce != "match" {
						t.Errorf("quote: %+v", report.Quote)
					}
					if len(report.Registers) != q.PCRs {
						t.Errorf("%d registers, expected pcr0 to pcr%d", len(report.Registers), q.PCRs-1)
					}
					for _, o := range report.Registers {
						if want := m.Held[o.Alg][o.Register]; !slices.Equal(o.Quoted, want) || o.Matched != o.Events {
							t.Errorf("%s: %s at %s with %d of %d, read from the TPM as %s", o.Register, o.Status, o.Quoted, o.Matched, o.Events, want)
						}
					}
				}
			})
		}
	}
}

// TestReconcileEndorsed: with a record of an activation, the attestation key leads
// to the authority that made the TPM; with another TPM's it does not.
func TestReconcileEndorsed(t *testing.T) {
	seen := map[string]bool{} // a machine has several boots' worth of logs, and the same quotes
	var last *testlogs.TPMQuote
	for _, m := range fixtureMachines(t) {
		for _, q := range m.Quotes {
			if q.Activation == nil || seen[string(q.Activation)] {
				continue
			}
			seen[string(q.Activation)] = true
			cert, err := x509.ParseCertificate(q.EKCert)
			if err != nil {
				t.Fatal(err)
			}
			dir, args := evidenceOf(t, m, q)
			args = append(args, "--at", cert.NotBefore.Add(24*time.Hour).Format(time.RFC3339))
			endorsed := func(q testlogs.TPMQuote) []string {
				more := files(t, map[string][]byte{"activation": q.Activation, "cert": q.EKCert, "roots": q.EKRoots})
				return append(slices.Clone(args), "--activation", filepath.Join(more, "activation"),
					"--ek-cert", filepath.Join(more, "cert"), "--ek-roots", filepath.Join(more, "roots"))
			}
			report, status := verdictIn(t, dir, endorsed(q)...)
			if report.Verdict != "reconciled" || status != 0 || report.Quote.Chain != "verified" {
				t.Errorf("%s/%s: %s (%s), chain %s", m.Name, q.Name, report.Verdict, report.Text, report.Quote.Chain)
			}
			if last != nil {
				report, status := verdictIn(t, dir, endorsed(*last)...)
				if report.Verdict != "untrusted" || status != 1 {
					t.Errorf("%s/%s with another's activation: %s (%s)", m.Name, q.Name, report.Verdict, report.Text)
				}
			}
			last = &q
		}
	}
	if len(seen) == 0 {
		t.Error("no record of an activation")
	}
}

// TestReconcileForged: whatever is wrong with the quote, nothing is reconciled.
func TestReconcileForged(t *testing.T) {
	m, other := fixtureMachine(t, "ng-small-6.1+ima.bin"), fixtureMachine(t, "violations-7.3+ima.bin")
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i] ^= 1
		return b
	}
	for _, q := range m.Quotes {
		for name, forge := range map[string]func(q *testlogs.TPMQuote) (link string){
			"wrong nonce": func(q *testlogs.TPMQuote) string { q.Nonce = flip(q.Nonce, 0); return "nonce" },
			"wrong key": func(q *testlogs.TPMQuote) string {
				i := slices.IndexFunc(other.Quotes, func(o testlogs.TPMQuote) bool { return o.Name == q.Name })
				q.Key = other.Quotes[i].Key
				return "signature"
			},
			"flipped signature": func(q *testlogs.TPMQuote) string {
				q.Signature = flip(q.Signature, len(q.Signature)-1)
				return "signature"
			},
			"flipped digest": func(q *testlogs.TPMQuote) string {
				q.Attest = flip(q.Attest, len(q.Attest)-1)
				return "signature"
			},
		} {
			t.Run(q.Name+"/"+name, func(t *testing.T) {
				t.Parallel()
				forged := q
				link := forge(&forged)
				dir, args := evidenceOf(t, m, forged)
				report, status := verdictIn(t, dir, args...)
				if report.Verdict != "untrusted" || status != 1 {
					t.Errorf("%s (%s), status %d", report.Verdict, report.Text, status)
				}
				for _, l := range report.Quote.Links {
					if (l.Status == "failed") != (l.Name == link) {
						t.Errorf("%s is %s: %s", l.Name, l.Status, l.Text)
					}
				}
			})
		}
	}
}

// TestReconcileForgedValues: values that the quote does not sign are not believed.
func TestReconcileForgedValues(t *testing.T) {
	m := fixtureMachine(t, "ng-small-6.1+ima.bin")
	forged := m
	forged.Held = rtmr.Values{}
	for alg, bank := range m.Held {
		forged.Held[alg] = map[rtmr.Register]rtmr.Hex{}
		for reg, v := range bank {
			forged.Held[alg][reg] = v
		}
		forged.Held[alg][rtmr.MustParse("pcr10")] = make([]byte, alg.Size())
	}
	dir, args := evidenceOf(t, forged, m.Quotes[0])
	report, status := verdictIn(t, dir, append(args, "--values", "values")...)
	if report.Verdict != "untrusted" || report.Quote.Binding != "failed" || status != 1 {
		t.Errorf("%s, binding %s (%s), status %d", report.Verdict, report.Quote.Binding, report.Text, status)
	}
}

// TestReconcileFlags: a flag that would have no effect is an error, for what it
// asks for was not checked; and no file's name reaches a terminal as it is.
func TestReconcileFlags(t *testing.T) {
	m := fixtureMachine(t, "ng-small-6.1+ima.bin")
	dir, args := evidenceOf(t, m, m.Quotes[0])
	for _, name := range []string{"empty", "\x1b[2J\nRECONCILED"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--nonce", ""}, "--nonce is empty"},
		{[]string{"--hcl", "empty"}, "empty: the file is empty"},
		{[]string{"--mrtd", strings.Repeat("00", 48)}, "it carries no MRTD"},
		{[]string{"--collateral", "."}, "--collateral was given, and a TPM's quote without --hcl is not held against it"},
		{[]string{"--values", "-", "-"}, "standard input can be one of the files, not two"},
		{[]string{"\x1b[2J\nRECONCILED"}, `tally: \x1b[2J\nRECONCILED: the file is empty`},
	} {
		for _, command := range []string{"reconcile", "explain"} {
			cmd := exec.Command("tally", slices.Concat([]string{command}, args[1:], c.flags)...)
			cmd.Dir = dir
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, _ := cmd.Output()
			if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(stderr.String(), c.want) || strings.ContainsRune(string(out)+stderr.String(), '\x1b') {
				t.Errorf("%s %q: %q, status %d, expected %q and 2", command, c.flags, stderr.String(), cmd.ProcessState.ExitCode(), c.want)
			}
		}
	}
}

// TestReconcileUndigested: an entry of a quoted register with a digest in another
// bank alone. The register matches without it, and nothing vouches for it.
func TestReconcileUndigested(t *testing.T) {
	record := func(n int, alg rtmr.Alg) string {
		return fmt.Sprintf(`{"recnum":%d,"pcr":10,"digests":[{"hashAlg":%q,"digest":"%x"}],"content_type":"pcclient_std","content":{"event_type":"EV_IPL","event_data":"00"}}`,
			n, alg, make([]byte, alg.Size()))
	}
	dir := files(t, map[string][]byte{
		"log":    fmt.Appendf(nil, "[%s,%s]", record(0, rtmr.SHA256), record(1, rtmr.SHA1)),
		"values": fmt.Appendf(nil, `{"sha256":{"pcr10":"%x"}}`, sha256.Sum256(make([]byte, 64))),
	})
	report, status := verdictIn(t, dir, "reconcile", "--json", "--insecure-skip-signature", "--values", "values", "log")
	if report.Verdict != "diverged" || status != 1 || report.Registers[0].Status != "match" || !strings.Contains(report.Text, "nothing vouches for 1 event of log in pcr10") {
		t.Errorf("%s (%s), status %d, %s", report.Verdict, report.Text, status, report.Registers[0].Status)
	}
	if len(report.Undigested) != 1 || report.Undigested[0] != (uncoveredJSON{0, "pcr10", 1}) {
		t.Errorf("undigested %v", report.Undigested)
	}
}

// TestReconcileLogAhead: a quote of an earlier moment, which --strict refuses.
func TestReconcileLogAhead(t *testing.T) {
	m := fixtureMachine(t, "ng-small-6.1+ima.bin")
	m.Logs = slices.Clone(m.Logs)
	late := testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry("/usr/bin/late"))
	m.Logs[1].Data = slices.Concat(m.Logs[1].Data, late)
	dir, args := evidenceOf(t, m, m.Quotes[0])
	report, status := verdictIn(t, dir, args...)
	if report.Verdict != "reconciled" || status != 0 || !strings.Contains(report.Text, "1 event of log1 came after the quote") {
		t.Errorf("%s (%s), status %d", report.Verdict, report.Text, status)
	}
	if report, status := verdictIn(t, dir, append(args, "--strict")...); report.Verdict != "diverged" || status != 1 {
		t.Errorf("--strict: %s (%s), status %d", report.Verdict, report.Text, status)
	}
}
