package attester_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/bpf/attester"
	"tallystick/eventlog"
	"tallystick/fixtures"
	"tallystick/ima"
	"tallystick/lab"
	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// registers are the kernel's own, new ones.
func registers(t *testing.T) *bpf.Registers {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0755"); err != nil {
		t.Skip("no BPF: cannot mount a BPF file system:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	r, err := bpf.Open(bpf.Options{Path: filepath.Join(dir, "tallystick")})
	if errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, rtmr.ErrDenied) {
		t.Skip("no BPF:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// demoFile is a file of a machine whose logs and TPM's values are known.
func demoFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := fixtures.Demo.ReadFile(fixtures.DemoDir + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// demoLogs are the machine's boot log and IMA list, in the registers' banks.
func demoLogs(t *testing.T) (logs []iter.Seq2[rtmr.Measurement, error]) {
	t.Helper()
	boot, err := eventlog.NewReader(bytes.NewReader(demoFile(t, "boot.bin")), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := ima.NewReader(bytes.NewReader(demoFile(t, "ima.bin")), ima.Options{Banks: bpf.Banks})
	if err != nil {
		t.Fatal(err)
	}
	return append(logs, boot.Measurements(), list.Measurements())
}

// extends are what the logs extend.
func extends(t *testing.T) (entries []bpf.Entry) {
	t.Helper()
	for _, log := range demoLogs(t) {
		for m, err := range log {
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if m.NoAction {
				continue
			}
			e := bpf.Entry{Register: m.Register}
			for _, d := range m.Digests {
				e.Digests = append(e.Digests, rtmr.Digest{Alg: d.Alg, Sum: slices.Clone(d.Sum)})
			}
			entries = append(entries, e)
		}
	}
	return entries
}

// TestRegisters: the kernel's registers, extended by a machine's logs, hold what
// its TPM held; their quotes are verified, with their values told and with the
// logs' own; and a quote from before the end says so.
func TestRegisters(t *testing.T) {
	r, a := registers(t), newAttester(t)
	entries := extends(t)
	early := len(entries) - 100
	var quotes []*attester.Quote
	var held rtmr.Values
	for _, part := range [][]bpf.Entry{entries[:early], entries[early:]} {
		if _, err := r.ExtendBatch(context.Background(), part); err != nil {
			t.Fatal(err)
		}
		snapshot, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		held = snapshot.Values()
		q, err := a.Quote(held, slices.Concat(all(rtmr.SHA384), all(rtmr.SHA1), all(rtmr.SHA256)), []byte("nonce"))
		if err != nil {
			t.Fatal(err)
		}
		quotes = append(quotes, q)
	}
	checkHeld(t, held)

	late := opened(t, quotes[1])
	if err := late.Bind(held); err != nil {
		t.Fatal(err)
	}
	if binding, _ := late.Link(quote.Binding); binding.Status != quote.Verified || !late.Trusted() {
		t.Errorf("%v", late.Links)
	}
	for what, c := range map[string]struct {
		quoted replay.Quoted
		pcr10  replay.Status
	}{
		"values told":    {replay.Quoted{Values: late.Values}, replay.Match},
		"values found":   {replay.Quoted{Composites: late.Composites}, replay.Match},
		"an early quote": {replay.Quoted{Composites: opened(t, quotes[0]).Composites}, replay.LogAhead},
	} {
		checkOutcomes(t, what, c.quoted, c.pcr10)
	}
}

func opened(t *testing.T, q *attester.Quote) *quote.Quote {
	t.Helper()
	read, err := quote.Open(q.Attest, quote.Options{Signature: q.Signature, Key: q.Public, Nonce: []byte("nonce"), AcceptSelfAsserted: true})
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// checkHeld compares with what the machine's TPM held.
func checkHeld(t *testing.T, held rtmr.Values) {
	t.Helper()
	want, err := quote.ParseValues(demoFile(t, "values.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, alg := range bpf.Banks {
		for i := range rtmr.NumPCRs {
			if !bytes.Equal(held[alg][pcr(i)], want[alg][pcr(i)]) {
				t.Errorf("%s:%s is %s, the TPM held %s", alg, pcr(i), held[alg][pcr(i)], want[alg][pcr(i)])
			}
		}
	}
}

// checkOutcomes folds the logs beside a quote: every register is explained, and
// pcr10 has that status in each bank.
func checkOutcomes(t *testing.T, what string, quoted replay.Quoted, pcr10 replay.Status) {
	t.Helper()
	rec := replay.NewReconciler(quoted, replay.Options{}, false)
	for _, log := range demoLogs(t) {
		if _, err := rec.Fold.Log(log); err != nil {
			t.Fatal(err)
		}
	}
	outcomes := rec.Outcomes()
	if len(outcomes) != 3*rtmr.NumPCRs {
		t.Errorf("%s: %d registers", what, len(outcomes))
	}
	for _, o := range outcomes {
		want := []replay.Status{replay.Match, replay.Reset}
		if o.Register == pcr(10) {
			want = []replay.Status{pcr10}
		}
		if !slices.Contains(want, o.Status) {
			t.Errorf("%s: %s:%s: %s, expected %v (%s)", what, o.Alg, o.Register, o.Status, want, o.Text)
		}
	}
}

// TestLab runs the tests that a kernel has a part in on the oldest one of the lab's.
func TestLab(t *testing.T) {
	const kernel = "6.1"
	m := lab.Machine{Kernel: kernel, Firmware: lab.SeaBIOS, TPM: lab.NoTPM}
	m.Files = map[string][]byte{"/attester.test": lab.BuildTest(t, "./bpf/attester", kernel)}
	g := m.Start(t)
	r := g.Exec(lab.Command{Args: []string{"/attester.test", "-test.v", "-test.run", "TestProcess|TestUserNamespace|TestRegisters|TestQuote"}})
	out := string(r.Stdout) + string(r.Stderr)
	t.Logf("%s\n%s", g.Release(), out)
	if r.Status != 0 || strings.Contains(out, "SKIP") || !strings.Contains(out, "--- PASS: TestRegisters ") || !strings.Contains(out, "--- PASS: TestProcess/locked ") {
		t.Errorf("status %d", r.Status)
	}
	g.Stop()
}
