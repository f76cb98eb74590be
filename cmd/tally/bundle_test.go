package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"

	"tallystick/evidence"
	"tallystick/fixtures"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// bundleVerdict reconciles a bundle alone.
func bundleVerdict(t *testing.T, b *evidence.Bundle, args ...string) (reconcileJSON, int) {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := files(t, map[string][]byte{"evidence.cmw": data})
	return verdictIn(t, dir, append([]string{"reconcile", "--json", "evidence.cmw"}, args...)...)
}

// bundleSays is bundleVerdict for what may be an error: it returns the report, and
// what was said in it or on stderr.
func bundleSays(t *testing.T, b *evidence.Bundle, args ...string) (report reconcileJSON, said string) {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tally", append([]string{"reconcile", "--json", "evidence.cmw"}, args...)...)
	cmd.Dir = files(t, map[string][]byte{"evidence.cmw": data})
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, _ := cmd.Output()
	if len(out) > 0 {
		strictly(t, out, &report)
	}
	return report, report.Text + stderr.String()
}

// endorsed are the arguments by which a verifier ties a fixture's key to its TPM:
// its own record of an activation, and the roots; the EK's certificate is bundled.
func endorsed(t *testing.T, q testlogs.TPMQuote) []string {
	t.Helper()
	cert, err := x509.ParseCertificate(q.EKCert)
	if err != nil {
		t.Fatal(err)
	}
	dir := files(t, map[string][]byte{"activation": q.Activation, "roots": q.EKRoots})
	return []string{
		"--nonce", hex.EncodeToString(q.Nonce), "--at", cert.NotBefore.Add(24 * time.Hour).Format(time.RFC3339),
		"--activation", filepath.Join(dir, "activation"), "--ek-roots", filepath.Join(dir, "roots"),
	}
}

// TestBundleFixtures: the evidence of every machine of the lab's as one file, with
// nothing beside it but what the verifier has of its own.
func TestBundleFixtures(t *testing.T) {
	for _, m := range fixtureMachines(t) {
		if slices.ContainsFunc(m.Logs[1:], func(l testlogs.Log) bool { return l.Format != "ima" }) {
			continue // the helper reads binary lists
		}
		for _, q := range m.Quotes {
			if q.Activation == nil || !strings.Contains(q.Name, "ecc") {
				continue
			}
			t.Run(m.Name+"/"+q.Name, func(t *testing.T) {
				t.Parallel()
				b := testlogs.TPMBundle(m, q)
				b.Statement.Kernel = kernelOf(t, m)
				report, status := bundleVerdict(t, b, endorsed(t, q)...)
				if report.Verdict != "reconciled" || status != 0 || report.Quote.Kind != "tpm" || report.Quote.Chain != "verified" || report.Quote.Nonce != "match" {
					t.Errorf("%s (%s), status %d, %+v", report.Verdict, report.Text, status, report.Quote)
				}
				for _, o := range report.Registers {
					if want := m.Held[o.Alg][o.Register]; !slices.Equal(o.Quoted, want) {
						t.Errorf("%s is %s, read from the TPM as %s", o.Register, o.Quoted, want)
					}
				}
			})
		}
	}
}

// kernelOf is a fixture's kernel, as the bundle's sender would say.
func kernelOf(t *testing.T, m testlogs.Machine) string {
	t.Helper()
	folder, _, _ := strings.Cut(strings.TrimPrefix(m.Name, "fixtures/"), "+")
	var p fixtures.Provenance
	if err := json.Unmarshal(testlogs.Read(t, testlogs.Fixture(t, folder, "provenance.json")), &p); err != nil {
		t.Fatal(err)
	}
	return p.Kernel
}

// sigMachine is a machine's evidence of the bank sha256.
func sigMachine(t *testing.T) (testlogs.Machine, testlogs.TPMQuote) {
	t.Helper()
	m := fixtureMachine(t, "sig-6.12+ima.bin")
	i := slices.IndexFunc(m.Quotes, func(q testlogs.TPMQuote) bool { return q.Name == "quote-ecc-sha256" })
	return m, m.Quotes[i]
}

// TestBundleForged: whatever a sender does to a TPM's bundle, it is not reconciled.
func TestBundleForged(t *testing.T) {
	m, q := sigMachine(t)
	other := fixtureMachine(t, "violations-7.3+ima.bin")
	otherQuote := other.Quotes[slices.IndexFunc(other.Quotes, func(o testlogs.TPMQuote) bool { return o.Name == q.Name })]
	args := endorsed(t, q)
	pcr10 := rtmr.MustParse("pcr10")
	for name, c := range map[string]struct {
		edit    func(b *evidence.Bundle)
		verdict string
		text    string
	}{
		"a list of another machine": {func(b *evidence.Bundle) { b.IMAList = other.Logs[1].Data }, "diverged", "what is quoted of pcr10"},
		"a boot log of another":     {func(b *evidence.Bundle) { b.BootLog = other.Logs[0].Data }, "diverged", "what is quoted of pcr"},
		"an altered entry": {func(b *evidence.Bundle) {
			b.IMAList = bytes.Replace(b.IMAList, []byte("/opt/one"), []byte("/opt/eno"), 1)
		}, "diverged", "pcr10"},
		"without the list": {func(b *evidence.Bundle) {
			b.IMAList, b.Statement.Logs = nil, b.Statement.Logs[:1]
		}, "diverged", "no log explains how pcr10 moved"},
		"logs in the other order": {func(b *evidence.Bundle) { // each register has its own, so nothing is lost
			slices.Reverse(b.Statement.Logs)
		}, "reconciled", ""},
		"logs in each other's place": {func(b *evidence.Bundle) { b.BootLog, b.IMAList = b.IMAList, b.BootLog }, "", "tally: ima-list: entry 0, "},
		"another machine's quote": {func(b *evidence.Bundle) {
			b.Attest, b.Signature = otherQuote.Attest, otherQuote.Signature
		}, "untrusted", "signature"},
		"another machine's quote and key": {func(b *evidence.Bundle) {
			b.Attest, b.Signature, b.Public = otherQuote.Attest, otherQuote.Signature, otherQuote.Key
		}, "untrusted", "activation record"},
		"another machine's certificate": {func(b *evidence.Bundle) { b.EKCertificate = otherQuote.EKCert }, "untrusted", "ekPublic is another key"},
		"other values": {func(b *evidence.Bundle) {
			b.Values = rtmr.Values{rtmr.SHA256: {}}
			for r, v := range m.Held[rtmr.SHA256] {
				b.Values.Set(rtmr.SHA256, r, v)
			}
			b.Values.Set(rtmr.SHA256, pcr10, make([]byte, 32))
		}, "untrusted", "binding"},
		"values without a quote": {func(b *evidence.Bundle) {
			b.Attest, b.Signature, b.Public, b.EKCertificate = nil, nil, nil, nil
		}, "", "--ek-roots was given, and a list of values without a quote is not held against it"},
		"the list called a copy, with a journal of nothing": {func(b *evidence.Bundle) {
			b.Journal = testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA256}, pcr10).Journal()
			b.Statement.Logs[1].Role = evidence.Checked
			b.Statement.Logs = append(b.Statement.Logs, evidence.LogRole{Item: evidence.ItemJournal, Role: evidence.Folded})
		}, "diverged", "no log explains how pcr10 moved"},
		"another list called a copy, with a journal of it": {func(b *evidence.Bundle) {
			g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA256}, pcr10)
			g.IMA(t, other.Logs[1].Data, pcr10)
			b.IMAList, b.Journal = other.Logs[1].Data, g.Journal()
			b.Statement.Logs[1].Role = evidence.Checked
			b.Statement.Logs = append(b.Statement.Logs, evidence.LogRole{Item: evidence.ItemJournal, Role: evidence.Folded})
		}, "diverged", "pcr10"},
		"the list folded twice, by way of a journal": {func(b *evidence.Bundle) {
			g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA256}, pcr10)
			g.IMA(t, b.IMAList, pcr10)
			b.Journal = g.Journal()
			b.Statement.Logs = append(b.Statement.Logs, evidence.LogRole{Item: evidence.ItemJournal, Role: evidence.Folded})
		}, "diverged", "nothing vouches for cel-journal: all its events would have come after the quote"}, //
		"a statement of another nonce":  {func(b *evidence.Bundle) { b.Statement.Nonce = []byte{1} }, "reconciled", ""},
		"a statement of another kernel": {func(b *evidence.Bundle) { b.Statement.Kernel = "4.19.0" }, "diverged", "pcr10"},
	} {
		t.Run(name, func(t *testing.T) {
			b := testlogs.TPMBundle(m, q)
			c.edit(b)
			report, said := bundleSays(t, b, args...)
			if report.Verdict != c.verdict || !strings.Contains(said, c.text) {
				t.Errorf("%s (%s), expected %s (%s)", report.Verdict, said, c.verdict, c.text)
			}
		})
	}
}

// TestBundleUnasked: what a bundle brings is worth nothing by itself, and what it
// brings is not given again.
func TestBundleUnasked(t *testing.T) {
	m, q := sigMachine(t)
	b := testlogs.TPMBundle(m, q)
	report, status := bundleVerdict(t, b)
	if report.Verdict != "untrusted" || status != 1 || report.Quote.Chain != "missing" || report.Quote.Nonce != "not-checked" {
		t.Errorf("alone: %s (%s), %+v", report.Verdict, report.Text, report.Quote)
	}
	own := files(t, map[string][]byte{"key": q.Key, "signature": q.Signature, "values": []byte(`{"sha256":{"pcr0":"` + strings.Repeat("0", 64) + `"}}`)})
	report, status = bundleVerdict(t, b, "--key", filepath.Join(own, "key"))
	if report.Verdict != "reconciled" || status != 0 || report.Quote.Nonce != "not-checked" {
		t.Errorf("with the key: %s (%s), %+v", report.Verdict, report.Text, report.Quote)
	}
	if !slices.Contains(report.Quote.Facts, struct{ Name, Value string }{"stated nonce", hex.EncodeToString(q.Nonce)}) {
		t.Errorf("facts %v", report.Quote.Facts)
	}
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dir := files(t, map[string][]byte{"evidence.cmw": data})
	for want, args := range map[string][]string{
		"--signature was given, and the bundle has its own":             {"--signature", filepath.Join(own, "signature")},
		"--values was given, and evidence.cmw has its own":              {"--values", filepath.Join(own, "values"), "--quote", "evidence.cmw"},
		"--tdx-roots was given, and a bundle's TPM quote is not held":   {"--tdx-roots", filepath.Join(own, "key")},
		"evidence.cmw: an evidence bundle, which is no log: tally reco": {"--quote", filepath.Join(own, "values"), "evidence.cmw"},
	} {
		args = append([]string{"reconcile"}, args...)
		if !slices.Contains(args, "evidence.cmw") {
			args = append(args, "evidence.cmw")
		}
		cmd := exec.Command("tally", args...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), want) {
			t.Errorf("%q: status %d, %s, expected %q", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
}

// TestBundleSigned: a real quote of a real TD, with its boot log, as one file.
func TestBundleSigned(t *testing.T) {
	folder := filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel")
	b := &evidence.Bundle{
		TDQuote: testlogs.Read(t, filepath.Join(folder, "cos-113-tdx-quote.dat")), BootLog: testlogs.Read(t, filepath.Join(folder, "ccel_data.dat")),
		Statement: evidence.Statement{Logs: []evidence.LogRole{{Item: evidence.ItemBootLog, Role: evidence.Folded}}},
	}
	report, status := bundleVerdict(t, b, "--at", "2026-11-24T00:00:00Z")
	if report.Verdict != "reconciled" || status != 0 || report.Quote.Kind != "tdx" || report.Quote.Chain != "verified" {
		t.Errorf("%s (%s), %+v", report.Verdict, report.Text, report.Quote)
	}
}

// tdGuest is a TD's evidence: firmware extended the boot log, the helper the IMA
// list's entries. The quote is a real one with its RTMRs and REPORTDATA put in
// their place, so that its signature is not good any more.
func tdGuest(t *testing.T) (*testlogs.Guest, *evidence.Bundle) {
	t.Helper()
	folder := filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel")
	b := &evidence.Bundle{
		BootLog: testlogs.Read(t, filepath.Join(folder, "ccel_data.dat")),
		IMAList: testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry("/bin/sh"), testlogs.IMAEntry("/bin/ls"), testlogs.IMAEntry("/bin/cat")),
		Statement: evidence.Statement{
			Device: rtmr.Description{Kind: "tdx"},
			Logs: []evidence.LogRole{
				{Item: evidence.ItemBootLog, Role: evidence.Folded}, {Item: evidence.ItemIMAList, Role: evidence.Checked},
				{Item: evidence.ItemJournal, Role: evidence.Folded},
			},
		},
	}
	g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA384}, rtmrs()...)
	g.Boot(t, b.BootLog, false)
	g.IMA(t, b.IMAList, rtmr.MustParse("rtmr2"))
	b.Journal, b.TDQuote = g.Journal(), tdQuote(t, g)
	return g, b
}

// rtmrs are a TD's run-time registers.
func rtmrs() (registers []rtmr.Register) {
	for i := range rtmr.NumRTMRs {
		r, _ := rtmr.Index(i).RTMR()
		registers = append(registers, r)
	}
	return registers
}

func tdQuote(t *testing.T, g *testlogs.Guest) []byte {
	t.Helper()
	const rtmr0, reportData = 376, 568
	q := bytes.Clone(testdata.RawQuote)
	for r, value := range g.Values(t)[rtmr.SHA384] {
		copy(q[rtmr0+48*r.Index():], value)
	}
	clear(q[reportData:][:64])
	copy(q[reportData:], []byte{0xca, 0xfe})
	return q
}

// TestBundleTD: the list is held against the journal, and the journal against the
// quote.
func TestBundleTD(t *testing.T) {
	late := testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry("/bin/late"))
	record := len(late) - len("late") + len("sh") // of /bin/sh
	list := func(b *evidence.Bundle, data ...[]byte) { b.IMAList = slices.Concat(data...) }
	for name, c := range map[string]struct {
		edit    func(b *evidence.Bundle)
		args    []string
		verdict string
		text    string
		copy    copyJSON
	}{
		"whole":         {func(b *evidence.Bundle) {}, nil, "reconciled", "all 3 quoted values", copyJSON{"cel-journal", 3, 0, false, nil}},
		"another nonce": {func(b *evidence.Bundle) { b.TDQuote[568] = 1 }, nil, "untrusted", "nonce: REPORTDATA is 01fe", copyJSON{"cel-journal", 3, 0, false, nil}},
		"the list is ahead": {func(b *evidence.Bundle) { list(b, b.IMAList, late) }, nil, "reconciled",
			"cel-journal has no copy of 1 event at the end of ima-list, so nothing vouches for that part", copyJSON{"cel-journal", 3, 1, false, nil}},
		"the list is ahead, strictly": {func(b *evidence.Bundle) { list(b, b.IMAList, late) }, []string{"--strict"}, "diverged",
			"ima-list ran on after cel-journal", copyJSON{"cel-journal", 3, 1, false, nil}},
		"an entry is missing in the list": {func(b *evidence.Bundle) { list(b, b.IMAList[record:]) }, nil, "diverged",
			"ima-list and its copy in cel-journal part", copyJSON{"cel-journal", 0, 0, true, nil}},
		"the last entry is missing in the list": {func(b *evidence.Bundle) { list(b, b.IMAList[:2*record]) }, nil, "diverged",
			"ima-list and its copy in cel-journal part", copyJSON{"cel-journal", 2, 0, true, nil}},
		"entries of the list are swapped": {func(b *evidence.Bundle) {
			list(b, b.IMAList[record:2*record], b.IMAList[:record], b.IMAList[2*record:])
		}, nil, "diverged",
			"ima-list and its copy in cel-journal part", copyJSON{"cel-journal", 0, 0, true, nil}},
		"an entry of the list is altered": {func(b *evidence.Bundle) {
			list(b, bytes.Replace(b.IMAList, []byte("/bin/ls"), []byte("/bin/sl"), 1))
		}, nil, "diverged", "1 entry contradicts its own data or the boot log; ima-list and its copy", copyJSON{"cel-journal", 1, 0, true, nil}},
		"another list": {func(b *evidence.Bundle) { list(b, late, late) }, nil, "diverged",
			"ima-list and its copy in cel-journal part", copyJSON{"cel-journal", 0, 0, true, nil}},
		"the journal is cut": {func(b *evidence.Bundle) {
			g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA384}, rtmr.MustParse("rtmr2"))
			g.IMA(t, b.IMAList[:2*record], rtmr.MustParse("rtmr2"))
			b.Journal = g.Journal()
		}, nil, "diverged", "the logs do not fold to what is quoted of rtmr2", copyJSON{"cel-journal", 2, 1, false, nil}},
		"an entry of the journal is altered": {func(b *evidence.Bundle) {
			b.Journal = bytes.Replace(b.Journal, []byte("/bin/ls"), []byte("/bin/sl"), 1)
		}, nil, "diverged", "1 entry contradicts its own data", copyJSON{"cel-journal", 1, 0, true, nil}},
		"in a register that no rule gives": {func(b *evidence.Bundle) {
			g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA384}, rtmrs()...)
			g.Boot(t, b.BootLog, false)
			g.IMA(t, b.IMAList, rtmr.MustParse("rtmr3"))
			b.Journal, b.TDQuote = g.Journal(), tdQuote(t, g)
		}, nil, "reconciled", "the entries that ima-list has for pcr10 are in rtmr3, where no rule puts them",
			copyJSON{"cel-journal", 3, 0, false, []moveJSON{{"pcr10", "rtmr3"}}}},
		"the boot log is called a copy": {func(b *evidence.Bundle) { b.Statement.Logs[0].Role = evidence.Checked }, nil, "diverged",
			"no log explains how rtmr0, rtmr1 moved", copyJSON{"cel-journal", 3, 0, false, nil}},
	} {
		t.Run(name, func(t *testing.T) {
			_, b := tdGuest(t)
			c.edit(b)
			report, status := bundleVerdict(t, b, append(c.args, "--nonce", "cafe", "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z")...)
			if report.Verdict != c.verdict || !strings.Contains(report.Text, c.text) || (status == 0) != (c.verdict == "reconciled") {
				t.Errorf("%s (%s), status %d, expected %s (%s)", report.Verdict, report.Text, status, c.verdict, c.text)
			}
			i := slices.IndexFunc(report.Logs, func(l logJSON) bool { return l.Path == "ima-list" })
			if i < 0 || report.Logs[i].Copy == nil || !reflect.DeepEqual(*report.Logs[i].Copy, c.copy) {
				t.Errorf("logs %+v, expected %+v of ima-list", report.Logs, c.copy)
			}
			for _, f := range report.Findings {
				if path := report.Logs[f.Log].Path; f.Kind == "copy" && (path != "ima-list") != (name == "the last entry is missing in the list") {
					t.Errorf("the finding is of %s", path)
				}
			}
		})
	}
	t.Run("the list is folded too", func(t *testing.T) {
		_, b := tdGuest(t)
		b.Statement.Logs[1].Role = evidence.Folded
		report, _ := bundleVerdict(t, b, "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z")
		if report.Verdict != "diverged" || !strings.Contains(report.Text, "nothing vouches for cel-journal") {
			t.Errorf("%s (%s)", report.Verdict, report.Text)
		}
	})
}

// TestBundleForeign: somebody else extended a register, and the journal says so. The
// verdict is diverged all the same, with where and how much of the rest is proven.
func TestBundleForeign(t *testing.T) {
	rtmr2 := rtmr.MustParse("rtmr2")
	digest := []rtmr.Digest{{Alg: rtmr.SHA384, Sum: bytes.Repeat([]byte{7}, 48)}}
	list := func(names ...string) (data []byte) {
		for _, name := range names {
			data = append(data, testlogs.IMA(binary.LittleEndian, crypto.SHA1, testlogs.IMAEntry(name))...)
		}
		return data
	}
	for name, c := range map[string]struct {
		do      func(g *testlogs.Guest, b *evidence.Bundle)
		kind    string
		entry   int
		proven  bool
		text    string
		bootLog bool
	}{
		"between two entries": {func(g *testlogs.Guest, b *evidence.Bundle) {
			if err := g.Device.Extend(t.Context(), rtmr2, digest); err != nil {
				t.Fatal(err)
			}
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: g.Values(t)})
			g.IMA(t, list("/bin/after", "/bin/more"), rtmr2)
		}, "foreign", 4, true, "from the value that, as cel-journal says, the register had at its entry 4, when others had extended it, it folds on to the quoted value by 2 events", true},
		"behind what was journaled before": {func(g *testlogs.Guest, b *evidence.Bundle) {
			if err := g.Device.Extend(t.Context(), rtmr2, digest); err != nil {
				t.Fatal(err)
			}
			before := g.Values(t)
			g.IMA(t, list("/bin/after"), rtmr2)
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: before, Behind: map[rtmr.Register]int{rtmr2: 1}})
		}, "foreign", 5, true, "folds on to the quoted value by 1 event", true},
		"and by a reset": {func(g *testlogs.Guest, b *evidence.Bundle) {
			g.Device = rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmrs()...)
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: rtmr.Values{rtmr.SHA384: {rtmr2: make([]byte, 48)}}})
			g.IMA(t, list("/bin/after"), rtmr2)
		}, "foreign", 4, true, "the register had at its entry 4, when it had been reset, it folds on to the quoted value by 1 event: nothing that was extended before is in it any more", false},
		"and nothing after": {func(g *testlogs.Guest, b *evidence.Bundle) {
			if err := g.Device.Extend(t.Context(), rtmr2, digest); err != nil {
				t.Fatal(err)
			}
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: g.Values(t)})
		}, "foreign", 4, false, "cel-journal says that the register had the quoted value at its entry 4", true},
		"and the journal does not say so": {func(g *testlogs.Guest, b *evidence.Bundle) {
			if err := g.Device.Extend(t.Context(), rtmr2, digest); err != nil {
				t.Fatal(err)
			}
		}, "mismatch", -1, true, "no prefix of the log", true},
		"and a base that lies": {func(g *testlogs.Guest, b *evidence.Bundle) {
			if err := g.Device.Extend(t.Context(), rtmr2, digest); err != nil {
				t.Fatal(err)
			}
			g.Base(t, &evidence.Base{Reason: evidence.Foreign, Registers: rtmr.Values{rtmr.SHA384: {rtmr2: make([]byte, 48)}}})
			g.IMA(t, list("/bin/after"), rtmr2)
		}, "mismatch", -1, true, "no prefix of the log", true},
		"before the journal": {func(g *testlogs.Guest, b *evidence.Bundle) {
			g.Base(t, &evidence.Base{Reason: evidence.AtStart, Registers: g.Values(t)})
			g.IMA(t, list("/bin/after"), rtmr2)
		}, "before-journal", 4, true, "the register had when it began, it folds on to the quoted value by 1 event", false},
	} {
		t.Run(name, func(t *testing.T) {
			g, b := tdGuest(t)
			c.do(g, b)
			b.Journal, b.TDQuote = g.Journal(), tdQuote(t, g)
			b.IMAList, b.Statement.Logs = nil, slices.Delete(b.Statement.Logs, 1, 2)
			if !c.bootLog {
				b.BootLog, b.Statement.Logs = nil, b.Statement.Logs[1:]
			}
			report, status := bundleVerdict(t, b, "--insecure-skip-signature", "--at", "2026-06-01T00:00:00Z")
			if report.Verdict != "diverged" || status != 1 {
				t.Fatalf("%s (%s), status %d", report.Verdict, report.Text, status)
			}
			for _, o := range report.Registers {
				if o.Register != rtmr2 {
					continue
				}
				entry := -1
				if o.Finding != nil && o.Finding.Entry != nil {
					entry = *o.Finding.Entry
				}
				if o.Finding == nil || o.Finding.Kind != c.kind || entry != c.entry || o.Finding.Proven != c.proven || !strings.Contains(o.Finding.Text, c.text) {
					t.Errorf("%+v with entry %d, expected %s at %d: %s", o.Finding, entry, c.kind, c.entry, c.text)
				}
			}
		})
	}
}
