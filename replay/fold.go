package replay

import (
	"cmp"
	"fmt"
	"hash"
	"iter"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// Options chooses what a Fold keeps and checks.
type Options struct {
	// Banks are the banks to fold; nil for all that the logs carry.
	Banks []rtmr.Alg
	// Into puts a PCR's measurements into the run-time register of the UEFI
	// rule (rtmr.PCR.CC): KindRTMR for a TD's, KindREM for a realm's. KindNone
	// leaves them in the PCR. With KindREM, a TD's registers are a realm's too: a CC
	// log in SHA-384 does not say whose it is.
	Into rtmr.Kind
	// MRTD is a TD's launch measurement, SHA-384, over which its boot_aggregate
	// may be; nil if not known.
	MRTD []byte
	// Expect is what the verifier wants the quoted registers to be, beside what the
	// logs say; nil for nothing. A Fold alone takes no notice of it.
	Expect rtmr.Values
	// SkipVerify leaves the entries' data unchecked.
	SkipVerify bool
}

// Fold is the state of a replay: each register's value in each bank.
type Fold struct {
	opts     Options
	cells    []cell
	findings []Finding
	dropped  int
	unfolded map[rtmr.Alg]int
	static   int
	logs     int    // that have begun
	checks   Checks // of the log that is being folded

	booted     bool // a boot_aggregate has been seen: what follows is no boot log
	aggregates int  // boot_aggregate entries that the boot registers proved

	watch *Reconciler // that holds the registers against a quote; or nil
}

type cell struct {
	reg    rtmr.Register
	alg    rtmr.Alg
	value  []byte
	events int
	hash   hash.Hash // one for all cells of an algorithm
	boot   bool      // extended, under its own name, before IMA's boot_aggregate
}

// extend is rtmr.Alg.Extend, with a hash that is kept.
func (c *cell) extend(digest []byte) {
	c.hash.Reset()
	c.hash.Write(c.value)
	c.hash.Write(digest)
	c.value = c.hash.Sum(c.value[:0])
	c.events++
}

// Value is a register's value in a bank, and how many events made it.
type Value struct {
	Register rtmr.Register `json:"register"`
	Alg      rtmr.Alg      `json:"alg"`
	Value    rtmr.Hex      `json:"value"`
	Events   int           `json:"events"`
}

// Finding is an entry whose recorded digest its own data contradict, or a
// boot_aggregate that the boot log beside it does.
type Finding struct {
	Kind     string        `json:"kind"` // "digest", "boot_aggregate", or "copy" of CompareCopy
	Log      int           `json:"log"`  // the entry's log, from 0 in the order of Fold.Log's calls
	Entry    int           `json:"entry"`
	Offset   int64         `json:"offset"`
	Register rtmr.Register `json:"register"`
	Alg      rtmr.Alg      `json:"alg,omitzero"` // of the digests; 0 without
	Type     string        `json:"type"`
	Detail   string        `json:"detail"`
	Recorded rtmr.Hex      `json:"recorded"`
	Computed rtmr.Hex      `json:"computed"` // or copied
	Text     string        `json:"text"`     // what is wrong, in words
}

// Checks counts a log's entries by whether their own data explain their
// digests. Entries that extend nothing are not counted.
type Checks struct {
	Verified      int `json:"verified"`
	Contradicting int `json:"contradicting"`
	Uncheckable   int `json:"uncheckable"`
}

// maxFindings bounds what is kept; the rest are counted.
const maxFindings = 1000

// New returns a Fold of registers at their reset values.
func New(opts Options) *Fold {
	return &Fold{opts: opts, unfolded: map[rtmr.Alg]int{}}
}

// Log folds one log, a layer above those before it. It returns the log's own
// error; what the log yielded before has been folded.
func (f *Fold) Log(log iter.Seq2[rtmr.Measurement, error]) (events int, err error) {
	f.logs++
	f.checks = Checks{}
	for m, err := range log {
		if err != nil {
			return events, err
		}
		f.Add(&m)
		events++
	}
	return events, nil
}

// Add folds one measurement.
func (f *Fold) Add(m *rtmr.Measurement) {
	if m.Locality != 0 {
		f.startLocality(m)
	}
	if m.NoAction || m.Register.IsZero() {
		return
	}
	if !f.opts.SkipVerify && m.Entry != nil {
		f.verify(m)
	}
	reg := m.Register
	if f.opts.Into != rtmr.KindNone && reg.Kind() == rtmr.KindPCR {
		reg, _ = rtmr.PCR(reg.Index()).CC()
	}
	if f.opts.Into == rtmr.KindREM {
		reg = reg.Realm()
	}
	if reg.IsZero() || reg.Static() {
		f.static++
		if f.watch != nil {
			f.watch.event(m.Register, nil)
		}
		return
	}
	if f.watch != nil {
		f.watch.event(reg, m.Digests)
	}
	for _, d := range m.Digests {
		if len(f.opts.Banks) > 0 && !slices.Contains(f.opts.Banks, d.Alg) {
			continue
		}
		if !d.Alg.Available() {
			f.unfolded[d.Alg]++
			continue
		}
		c := f.cell(reg, d.Alg)
		c.boot = c.boot || !f.booted && reg == m.Register
		if f.watch != nil {
			f.watch.before(c)
		}
		c.extend(d.Sum)
		if f.watch != nil {
			f.watch.after(c, m, d)
		}
	}
}

// verify holds an entry's digests against its data, those of banks that are
// not folded too: a lie is one in any bank.
func (f *Fold) verify(m *rtmr.Measurement) {
	f.checkAggregate(m)
	var said rtmr.Check
	for _, d := range m.Digests {
		check, computed := m.Entry.Verify(d)
		if check == rtmr.Contradicts {
			f.report(m, "digest", "the data do not hash to the recorded digest", d, computed)
		}
		said = max(said, check) // Contradicts is above Verified
	}
	switch said {
	case rtmr.Verified:
		f.checks.Verified++
	case rtmr.Contradicts:
		f.checks.Contradicting++
	default:
		f.checks.Uncheckable++
	}
}

// Checks returns the counts of the log that was folded last.
func (f *Fold) Checks() Checks { return f.checks }

// maxText bounds what is kept of an entry's texts: with maxFindings, a few MB.
const maxText = 4 << 10

// shortened returns a copy of at most maxText bytes of a text.
func shortened(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + " .."
	}
	return strings.Clone(s)
}

// report keeps a finding about an entry.
func (f *Fold) report(m *rtmr.Measurement, kind, text string, recorded rtmr.Digest, computed []byte) {
	if len(f.findings) == maxFindings {
		f.dropped++
		return
	}
	f.findings = append(f.findings, Finding{
		Kind: kind, Log: max(f.logs-1, 0), Entry: m.Index, Offset: m.Offset, Register: m.Register, Alg: recorded.Alg,
		Type: shortened(m.Entry.Type()), Detail: shortened(m.Entry.Detail()),
		Recorded: slices.Clone(recorded.Sum), Computed: slices.Clone(computed), Text: text,
	})
}

// startLocality sets where PCR 0 begins, in every bank that the entry has or
// that comes later. It has no effect once PCR 0 has been extended.
func (f *Fold) startLocality(m *rtmr.Measurement) {
	algs := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512, rtmr.SHA3256, rtmr.SHA3384, rtmr.SHA3512}
	for _, a := range algs {
		if c := f.cell(m.Register, a); c.events == 0 {
			c.value[len(c.value)-1] = m.Locality
		}
	}
}

// cell finds or makes a register's state. There are a few dozen at most, and
// a log dwells on one, so the last ones are looked at first.
func (f *Fold) cell(reg rtmr.Register, alg rtmr.Alg) *cell {
	for i := len(f.cells) - 1; i >= 0; i-- {
		if c := &f.cells[i]; c.reg == reg && c.alg == alg {
			return c
		}
	}
	c := cell{reg: reg, alg: alg, value: reg.StartValue(alg)}
	if i := slices.IndexFunc(f.cells, func(c cell) bool { return c.alg == alg }); i >= 0 {
		c.hash = f.cells[i].hash
	} else {
		c.hash = alg.New()
	}
	f.cells = append(f.cells, c)
	return &f.cells[len(f.cells)-1]
}

// Registers returns the registers that events extended, in order.
func (f *Fold) Registers() []Value {
	out := []Value{}
	for _, c := range f.cells {
		if c.events > 0 {
			out = append(out, Value{c.reg, c.alg, slices.Clone(c.value), c.events})
		}
	}
	slices.SortFunc(out, func(a, b Value) int {
		return cmp.Or(cmp.Compare(a.Alg, b.Alg), a.Register.Compare(b.Register))
	})
	return out
}

// Values returns the same by bank and register.
func (f *Fold) Values() rtmr.Values {
	out := rtmr.Values{}
	for _, v := range f.Registers() {
		out.Set(v.Alg, v.Register, v.Value)
	}
	return out
}

// Findings returns the entries that contradict themselves, the first 1000.
func (f *Fold) Findings() []Finding { return f.findings }

// Warnings returns what the fold had to leave out.
func (f *Fold) Warnings() (out []string) {
	for alg, n := range f.unfolded {
		out = append(out, fmt.Sprintf("%d digests in %s were read and not folded: that algorithm cannot be computed here", n, alg))
	}
	slices.Sort(out)
	for _, alg := range f.opts.Banks {
		folded := slices.ContainsFunc(f.cells, func(c cell) bool { return c.alg == alg && c.events > 0 })
		if !folded && f.unfolded[alg] == 0 {
			out = append(out, fmt.Sprintf("no log has digests in %s: nothing was folded in that bank", alg))
		}
	}
	if f.static > 0 {
		out = append(out, fmt.Sprintf("%d events are of registers that no event can extend (mrtd, rim, launch, or a PCR without a run-time register) and were not folded", f.static))
	}
	if f.dropped > 0 {
		out = append(out, fmt.Sprintf("%d more entries contradict themselves than are listed", f.dropped))
	}
	return out
}
