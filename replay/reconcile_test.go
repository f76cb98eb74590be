package replay_test

import (
	"bytes"
	"crypto/sha256"
	"iter"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// reconcile folds logs and holds them against what is quoted.
func reconcile(t testing.TB, quoted replay.Quoted, logs ...iter.Seq2[rtmr.Measurement, error]) *replay.Reconciler {
	t.Helper()
	r := replay.NewReconciler(quoted, replay.Options{}, false)
	for _, l := range logs {
		if _, err := r.Log(l); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// machineLogs opens a machine's logs, IMA lists in all banks that TPMs have.
func machineLogs(t testing.TB, m testlogs.Machine) (logs []iter.Seq2[rtmr.Measurement, error]) {
	t.Helper()
	opts := ima.Options{Banks: []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}}
	if m.Profile != "" {
		var err error
		if opts.Profile, err = ima.ParseProfile(m.Profile); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range m.Logs {
		src, err := openLog(l, opts)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, src.Measurements())
	}
	return logs
}

// TestReconcileMachines holds every real machine's logs against the values that
// its TPM or quote gave: each register that its logs tell of matches, but for
// those that are another boot's, and what no log tells of is at its reset value.
func TestReconcileMachines(t *testing.T) {
	for _, m := range testlogs.Machines(t) {
		t.Run(m.Name, func(t *testing.T) {
			r := reconcile(t, replay.Quoted{Values: m.Held}, machineLogs(t, m)...)
			matched := 0
			for _, o := range r.Outcomes() {
				switch {
				case slices.Contains(m.Differ, o.Register):
					if o.Status != replay.Mismatch {
						t.Errorf("%s %s of another boot: %s", o.Alg, o.Register, o.Status)
					}
				case o.Status == replay.Match && o.Matched == o.Events && o.Events > 0:
					matched++
				case o.Status != replay.Reset || o.Events > 0:
					t.Errorf("%s %s: %s (%s), %d of %d events", o.Alg, o.Register, o.Status, o.Text, o.Matched, o.Events)
				}
			}
			if matched < 2 {
				t.Errorf("only %d registers matched", matched)
			}
		})
	}
}

// composite is what a TPMS_ATTEST signs, as go-tpm reads it.
func composite(t testing.TB, attest []byte, alg rtmr.Alg) rtmr.Composite {
	t.Helper()
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](attest)
	if err != nil {
		t.Fatal(err)
	}
	info, err := a.Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	c := rtmr.Composite{Digest: rtmr.Digest{Alg: alg, Sum: info.PCRDigest.Buffer}}
	for _, sel := range info.PCRSelect.PCRSelections {
		for i := range rtmr.NumPCRs {
			if sel.PCRSelect[i/8]>>(i%8)&1 == 1 {
				reg, _ := rtmr.PCR(i).Register()
				c.Selection = append(c.Selection, rtmr.Selected{Alg: rtmr.Alg(sel.Hash), Register: reg})
			}
		}
	}
	return c
}

// TestReconcileComposite holds the lab's machines' logs against their TPMs' signed
// digests, no value told: the registers must come out at the values that were
// read beside the quote. The lists in which measuring went on are cut back.
func TestReconcileComposite(t *testing.T) {
	n := 0
	for _, m := range testlogs.Machines(t) {
		for _, q := range m.Quotes {
			n++
			c := composite(t, q.Attest, rtmr.SHA256)
			r := reconcile(t, replay.Quoted{Composites: []rtmr.Composite{c}}, machineLogs(t, m)...)
			for _, o := range r.Outcomes() {
				if o.Status != replay.Match && o.Status != replay.LogAhead && o.Status != replay.Reset {
					t.Errorf("%s %s: %s %s: %s", m.Name, q.Name, o.Alg, o.Register, o.Status)
				}
				if want := m.Held[o.Alg][o.Register]; !bytes.Equal(o.Quoted, want) {
					t.Errorf("%s %s: %s %s is placed at %s, read from the TPM as %s", m.Name, q.Name, o.Alg, o.Register, o.Quoted, want)
				}
			}
		}
	}
	if n < 6*8 {
		t.Errorf("only %d quotes", n)
	}
}

// extend is one event of a register in SHA-256.
func extend(i int, reg string, b byte) rtmr.Measurement {
	sum := sha256.Sum256([]byte{b})
	return rtmr.Measurement{Index: i, Register: rtmr.MustParse(reg), Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: sum[:]}}}
}

// after is a register's value after events, by crypto/sha256.
func after(events ...byte) rtmr.Hex {
	v := make([]byte, 32)
	for _, b := range events {
		d := sha256.Sum256([]byte{b})
		s := sha256.Sum256(append(v, d[:]...))
		v = s[:]
	}
	return v
}

func TestReconcileStatus(t *testing.T) {
	logs := []rtmr.Measurement{extend(0, "pcr10", 1), extend(1, "pcr10", 2), extend(2, "pcr10", 3)}
	ones := rtmr.Hex(bytes.Repeat([]byte{0xFF}, 32))
	for _, c := range []struct {
		name, register string
		quoted         rtmr.Hex
		status         replay.Status
		matched        int
	}{
		{"whole log", "pcr10", after(1, 2, 3), replay.Match, 3},
		{"log ran on", "pcr10", after(1, 2), replay.LogAhead, 2},
		{"other order", "pcr10", after(2, 1, 3), replay.Mismatch, 0},
		{"log behind", "pcr10", after(1, 2, 3, 4), replay.Mismatch, 0},
		{"logged and never extended", "pcr10", after(), replay.Mismatch, 0},
		{"moved without a log", "pcr11", after(1), replay.Unlogged, 0},
		{"at rest", "pcr11", after(), replay.Reset, 0},
		{"DRTM register at rest is ones", "pcr17", ones, replay.Reset, 0},
		{"DRTM register after a launch nobody logged", "pcr17", after(), replay.Unlogged, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			reg := rtmr.MustParse(c.register)
			r := reconcile(t, replay.Quoted{Values: rtmr.Values{rtmr.SHA256: {reg: c.quoted}}}, log(logs...))
			o := r.Outcomes()[0]
			if o.Status != c.status || o.Matched != c.matched {
				t.Errorf("%s with %d matched (%s), expected %s with %d", o.Status, o.Matched, o.Text, c.status, c.matched)
			}
		})
	}
}

// TestReconcileEveryBank: a bank that matches says nothing about another.
func TestReconcileEveryBank(t *testing.T) {
	m := extend(0, "pcr4", 1)
	m.Digests = append(m.Digests, rtmr.Digest{Alg: rtmr.SHA1, Sum: bytes.Repeat([]byte{7}, 20)})
	pcr4 := rtmr.MustParse("pcr4")
	weak := rtmr.SHA1.AppendHash(nil, append(make([]byte, 20), bytes.Repeat([]byte{7}, 20)...))
	r := reconcile(t, replay.Quoted{Values: rtmr.Values{rtmr.SHA1: {pcr4: weak}, rtmr.SHA256: {pcr4: after(2)}, rtmr.SHA384: {pcr4: make([]byte, 48)}}}, log(m))
	var got []replay.Status
	for _, o := range r.Outcomes() {
		got = append(got, o.Status)
	}
	// SHA-384: never extended, and the log has no event of it in that bank.
	if want := []replay.Status{replay.Match, replay.Mismatch, replay.Reset}; !slices.Equal(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
	if c := r.Coverage(); c[0].Vouched != 0 {
		t.Errorf("%d events are vouched for, though a bank differs", c[0].Vouched)
	}
}

// compositeOf is a digest over registers in SHA-256, by crypto/sha256.
func compositeOf(registers []string, values ...rtmr.Hex) rtmr.Composite {
	c := rtmr.Composite{Digest: rtmr.Digest{Alg: rtmr.SHA256}}
	sum := sha256.New()
	for i, reg := range registers {
		c.Selection = append(c.Selection, rtmr.Selected{Alg: rtmr.SHA256, Register: rtmr.MustParse(reg)})
		sum.Write(values[i])
	}
	c.Digest.Sum = sum.Sum(nil)
	return c
}

// TestReconcileCompositeThreeAhead: three layers ran on, and two by many
// entries, the second by more than the first or less.
func TestReconcileCompositeThreeAhead(t *testing.T) {
	lists := [][]byte{make([]byte, 100), make([]byte, 3000), make([]byte, 3000)}
	registers := []string{"pcr7", "pcr10", "pcr14"}
	var logs []iter.Seq2[rtmr.Measurement, error]
	for i, list := range lists {
		var events []rtmr.Measurement
		for k := range list {
			list[k] = byte(17*i + k)
			events = append(events, extend(k, registers[i], list[k]))
		}
		logs = append(logs, log(events...))
	}
	for _, ahead := range [][3]int{{1, 1, 1}, {1, 2, 30}, {0, 50, 3}, {0, 3, 50}, {0, 1, 900}, {90, 0, 700}, {0, 0, 2999}} {
		var values []rtmr.Hex
		for i, list := range lists {
			values = append(values, after(list[:len(list)-ahead[i]]...))
		}
		r := reconcile(t, replay.Quoted{Composites: []rtmr.Composite{compositeOf(registers, values...)}}, logs...)
		for i, o := range r.Outcomes() {
			if o.Events-o.Matched != ahead[i] || !bytes.Equal(o.Quoted, values[i]) {
				t.Errorf("%v: %s: %s, %d of %d", ahead, o.Register, o.Status, o.Matched, o.Events)
			}
		}
	}
}

// TestReconcileCompositesContradict: two quotes of a register, of which the log
// explains one. It must not pass for the other's sake, in either order.
func TestReconcileCompositesContradict(t *testing.T) {
	events := log(extend(0, "pcr10", 1), extend(1, "pcr10", 2), extend(2, "pcr11", 3))
	good := compositeOf([]string{"pcr10"}, after(1, 2))
	older := compositeOf([]string{"pcr10", "pcr11"}, after(1), after())
	bad := compositeOf([]string{"pcr10"}, after(7))
	for name, c := range map[string]struct {
		composites []rtmr.Composite
		status     replay.Status
		matched    int
	}{
		"the second is unexplained": {[]rtmr.Composite{good, bad}, replay.Mismatch, 0},
		"the first is unexplained":  {[]rtmr.Composite{bad, good}, replay.Mismatch, 0},
		"the second is older":       {[]rtmr.Composite{good, older}, replay.Match, 2},
		"the first is older":        {[]rtmr.Composite{older, good}, replay.Match, 2},
	} {
		r := reconcile(t, replay.Quoted{Composites: c.composites}, events)
		if o := r.Outcomes()[0]; o.Status != c.status || o.Matched != c.matched {
			t.Errorf("%s: %s, %d matched, expected %s, %d", name, o.Status, o.Matched, c.status, c.matched)
		}
	}
}

// TestReconcileCompositeTwoAhead: two lists ran on after the quote, which signs
// a digest over both their registers and one that nothing extended.
func TestReconcileCompositeTwoAhead(t *testing.T) {
	boot := log(extend(0, "pcr0", 9))
	list := log(extend(0, "pcr10", 1), extend(1, "pcr10", 2), extend(2, "pcr10", 3), extend(3, "pcr11", 8))
	app := log(extend(0, "pcr15", 4), extend(1, "pcr15", 5))
	c := compositeOf([]string{"pcr15", "pcr0", "pcr16", "pcr11", "pcr10"}, after(4), after(9), after(), after(), after(1, 2))
	r := reconcile(t, replay.Quoted{Composites: []rtmr.Composite{c}}, boot, list, app)
	want := map[string]struct {
		status  replay.Status
		matched int
	}{
		"pcr0": {replay.Match, 1}, "pcr10": {replay.LogAhead, 2}, "pcr15": {replay.LogAhead, 1}, "pcr16": {replay.Reset, 0},
		"pcr11": {replay.LogAhead, 0}, // its only event is behind the place where pcr10's log is cut
	}
	for _, o := range r.Outcomes() {
		if w := want[o.Register.String()]; o.Status != w.status || o.Matched != w.matched {
			t.Errorf("%s: %s with %d matched, expected %s with %d", o.Register, o.Status, o.Matched, w.status, w.matched)
		}
	}
	c.Digest.Sum = after(77)
	for _, o := range reconcile(t, replay.Quoted{Composites: []rtmr.Composite{c}}, boot, list, app).Outcomes() {
		if o.Status != replay.Mismatch || o.Quoted != nil {
			t.Errorf("a digest that nothing gives: %s is %s at %s", o.Register, o.Status, o.Quoted)
		}
	}
}

// TestReconcileCoverage: events of a register that the quote omits are vouched
// for by nothing, and those after the quote are not either, nor those that have
// digests in other banks alone, though the register matches without them.
func TestReconcileCoverage(t *testing.T) {
	boot := log(extend(0, "pcr0", 9), extend(1, "pcr14", 9))
	gap := extend(1, "pcr10", 8)
	gap.Digests[0] = rtmr.Digest{Alg: rtmr.SHA1, Sum: make([]byte, 20)}
	list := log(extend(0, "pcr10", 1), gap, extend(2, "pcr10", 2))
	quoted := replay.Quoted{Values: rtmr.Values{rtmr.SHA256: {
		rtmr.MustParse("pcr0"): after(9), rtmr.MustParse("pcr10"): after(1),
	}}}
	r := reconcile(t, quoted, boot, list)
	r.Outcomes()
	want := []replay.Coverage{
		{Log: 0, Register: rtmr.MustParse("pcr0"), Quoted: true, Events: 1, Vouched: 1},
		{Log: 0, Register: rtmr.MustParse("pcr14"), Events: 1},
		{Log: 1, Register: rtmr.MustParse("pcr10"), Quoted: true, Events: 3, Undigested: 1, Vouched: 1},
	}
	if got := r.Coverage(); !slices.Equal(got, want) {
		t.Errorf("got %v, expected %v", got, want)
	}

	// An entry that was extended in one of two quoted banks is vouched for in that.
	quoted.Values[rtmr.SHA256][rtmr.MustParse("pcr10")] = after(1, 2)
	quoted.Values[rtmr.SHA1] = map[rtmr.Register]rtmr.Hex{rtmr.MustParse("pcr10"): rtmr.SHA1.AppendHash(nil, make([]byte, 40))}
	r = reconcile(t, quoted, boot, list)
	r.Outcomes()
	want[2].Undigested, want[2].Vouched = 0, 3
	if got := r.Coverage(); !slices.Equal(got, want) {
		t.Errorf("in two banks: got %v, expected %v", got, want)
	}
}

// TestReconcileCoverageOfTD: a TD has no register for some PCRs, and no log
// extends its MRTD: a log of these alone is not vouched for.
func TestReconcileCoverageOfTD(t *testing.T) {
	rest := rtmr.Values{rtmr.SHA384: {rtmr.MustParse("rtmr0"): make([]byte, 48)}}
	r := reconcile(t, replay.Quoted{Values: rest}, log(extend(0, "pcr0", 1), extend(1, "pcr23", 2), extend(2, "pcr23", 3)))
	want := []replay.Coverage{{Register: rtmr.MustParse("pcr0"), Events: 1}, {Register: rtmr.MustParse("pcr23"), Events: 2}}
	if got := r.Coverage(); !slices.Equal(got, want) {
		t.Errorf("got %v, expected %v", got, want)
	}
}

// TestReconcileLaunch: no log tells MRTD; it is judged by an expected value alone.
func TestReconcileLaunch(t *testing.T) {
	mrtd := bytes.Repeat([]byte{5}, 48)
	quoted := replay.Quoted{Values: rtmr.Values{rtmr.SHA384: {rtmr.MRTD: mrtd}}}
	for want, expected := range map[replay.Status][]byte{replay.Static: nil, replay.Match: mrtd, replay.Mismatch: make([]byte, 48)} {
		r := replay.NewReconciler(quoted, replay.Options{Expect: rtmr.Values{rtmr.SHA384: {rtmr.MRTD: expected}}}, false)
		if o := r.Outcomes()[0]; o.Status != want {
			t.Errorf("%s, expected %s", o.Status, want)
		}
	}
}
