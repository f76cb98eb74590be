package replay

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// Quoted is what a quote says of registers: their values, or digests over
// values that it does not tell.
type Quoted struct {
	Values     rtmr.Values
	Composites []rtmr.Composite
}

// Banks returns the banks of the quoted registers that logs can extend, in order.
func (q *Quoted) Banks() (banks []rtmr.Alg) {
	for _, s := range q.selected() {
		if !s.Register.Static() && !slices.Contains(banks, s.Alg) {
			banks = append(banks, s.Alg)
		}
	}
	return banks
}

// selected returns every quoted register in every bank, once, in order.
func (q *Quoted) selected() (all []rtmr.Selected) {
	for alg, bank := range q.Values {
		for reg := range bank {
			all = append(all, rtmr.Selected{Alg: alg, Register: reg})
		}
	}
	for _, c := range q.Composites {
		all = append(all, c.Selection...)
	}
	slices.SortFunc(all, compareSelected)
	return slices.Compact(all)
}

func compareSelected(a, b rtmr.Selected) int {
	return cmp.Or(cmp.Compare(a.Alg, b.Alg), a.Register.Compare(b.Register))
}

// Status is what came of holding a register's log against its quoted value.
type Status string

// The statuses. Unlogged, Mismatch and, if the verifier is strict, LogAhead are
// failures.
const (
	Match    Status = "match"     // the whole log folds to the quoted value
	LogAhead Status = "log-ahead" // a prefix does: the log ran on after the quote
	Mismatch Status = "mismatch"  // no prefix does
	Unlogged Status = "unlogged"  // the register moved, and no log explains it
	Reset    Status = "reset"     // at its reset value, and no log claims otherwise
	Static   Status = "static"    // measured at launch, in no log, and held against nothing
)

// Outcome is a quoted register in a bank, beside what the logs fold to.
type Outcome struct {
	Register rtmr.Register `json:"register"`
	Alg      rtmr.Alg      `json:"alg"`
	Status   Status        `json:"status"`
	Quoted   rtmr.Hex      `json:"quoted,omitempty"`   // nil where the quote has a digest over it that nothing fits
	Replayed rtmr.Hex      `json:"replayed,omitempty"` // by the whole log
	Events   int           `json:"events"`             // in the logs
	Matched  int           `json:"matched"`            // of them, those that the quoted value stands for
	Expected rtmr.Hex      `json:"expected,omitempty"` // by the verifier (Options.Expect)
	Text     string        `json:"text,omitempty"`     // what is wrong, in words
}

// Unexpected reports whether the quoted value is another than the verifier expects,
// whatever the logs fold to.
func (o *Outcome) Unexpected() bool { return o.Expected != nil && !bytes.Equal(o.Quoted, o.Expected) }

// Coverage is how far the quote vouches for one log's events in one register.
type Coverage struct {
	Log        int // from 0, in the order of the folds
	Register   rtmr.Register
	Quoted     bool // the quote carries the register
	Events     int
	Undigested int // of them, those that have no digest in any quoted bank
	Vouched    int // of them, those that the quoted values stand for, in every quoted bank that they have a digest in
}

// Reconciler is a Fold that holds every register against what a quote says of
// it, in one pass. Where all is quoted by value it keeps no entries.
type Reconciler struct {
	*Fold
	quoted Quoted
	tracks []*track // one a quoted register and bank
	others []*track // of registers that are not quoted, if trails are kept
	keep   bool     // the trails

	counts []map[rtmr.Register]logged // of each log
	step   *Step                      // of the entry that is being folded
}

// logged are a log's events in a register.
type logged struct{ events, undigested int }

// family returns the kind of run-time registers that are quoted, into which
// PCR-indexed logs go; KindNone where PCRs are.
func (q *Quoted) family() (kind rtmr.Kind) {
	for _, s := range q.selected() {
		switch k := s.Register.Kind(); k {
		case rtmr.KindPCR:
			return rtmr.KindNone
		case rtmr.KindRTMR, rtmr.KindREM:
			kind = k
		}
	}
	return kind
}

// NewReconciler returns a Reconciler of what a quote says. opts.Banks and
// opts.Into are overridden by the quote's, and so is opts.MRTD. With trails set, it
// keeps what Explain needs: the digests, and some hundred bytes an entry.
func NewReconciler(quoted Quoted, opts Options, trails bool) *Reconciler {
	quoted.Composites = distinct(quoted.Composites)
	opts.Banks, opts.Into = quoted.Banks(), quoted.family()
	if v := quoted.Values[rtmr.SHA384][rtmr.MRTD]; v != nil {
		opts.MRTD = v
	}
	r := &Reconciler{Fold: New(opts), quoted: quoted, keep: trails}
	r.Fold.watch = r
	for _, s := range quoted.selected() {
		t := &track{Selected: s, quoted: quoted.Values[s.Alg][s.Register], matched: -1}
		t.composed = slices.ContainsFunc(quoted.Composites, func(c rtmr.Composite) bool { return slices.Contains(c.Selection, s) })
		r.tracks = append(r.tracks, t)
	}
	return r
}

// distinct leaves out composites that come again.
func distinct(all []rtmr.Composite) (out []rtmr.Composite) {
	for _, c := range all {
		again := func(o rtmr.Composite) bool { return c.Digest.Equal(o.Digest) && slices.Equal(c.Selection, o.Selection) }
		if !slices.ContainsFunc(out, again) {
			out = append(out, c)
		}
	}
	return out
}

// track follows one register in one bank.
type track struct {
	rtmr.Selected
	quoted   []byte // nil if only a composite is quoted
	composed bool   // a composite is over it
	start    []byte // before the first event; nil without one
	value    []byte // after the last one
	events   int
	matched  int   // how many events the quoted value stands for; -1 if that is not known
	byLog    []int // events of each log
	first    place // of the first event
	last     place // of the last event that the quoted value stands for

	digests []byte // of all events, if trails are kept or a composite wants them
	history []byte // the value before the first event and after each, once it was asked for
	steps   []*Step
	order   []place // if composed: where in the logs each event is
}

// place is an entry's place in the logs.
type place struct{ log, entry int32 }

// track finds what is followed; nil if nothing of the register is. There are a
// few dozen at most.
func (r *Reconciler) track(reg rtmr.Register, alg rtmr.Alg) *track {
	for _, tracks := range [][]*track{r.tracks, r.others} {
		for _, t := range tracks {
			if t.Register == reg && t.Alg == alg {
				return t
			}
		}
	}
	return nil
}

// event counts an entry of a register, whatever its banks.
func (r *Reconciler) event(reg rtmr.Register, digests []rtmr.Digest) {
	for len(r.counts) < max(r.Fold.logs, 1) {
		r.counts = append(r.counts, map[rtmr.Register]logged{})
	}
	n := r.counts[len(r.counts)-1][reg]
	n.events++
	if !slices.ContainsFunc(digests, func(d rtmr.Digest) bool { return r.track(reg, d.Alg) != nil }) {
		n.undigested++
	}
	r.counts[len(r.counts)-1][reg] = n
	r.step = nil
}

// before notes where a register starts: a log may set PCR 0's locality first.
func (r *Reconciler) before(c *cell) {
	if c.events > 0 {
		return
	}
	t := r.track(c.reg, c.alg)
	if t == nil && r.keep {
		t = &track{Selected: rtmr.Selected{Alg: c.alg, Register: c.reg}, matched: -1}
		r.others = append(r.others, t)
	}
	if t != nil {
		t.start = slices.Clone(c.value)
	}
}

// after looks whether an extend made the register's value the quoted one.
func (r *Reconciler) after(c *cell, m *rtmr.Measurement, d rtmr.Digest) {
	t := r.track(c.reg, c.alg)
	if t == nil {
		return
	}
	t.events++
	t.byLog = append(t.byLog, make([]int, len(r.counts)-len(t.byLog))...)
	t.byLog[len(r.counts)-1]++
	at := place{int32(len(r.counts) - 1), int32(m.Index)}
	if t.events == 1 {
		t.first = at
	}
	if t.matched < 0 && bytes.Equal(c.value, t.quoted) {
		t.matched, t.last = t.events, at
	}
	if t.composed || r.keep {
		t.digests = append(t.digests, sized(d)...)
	}
	if t.composed {
		t.order = append(t.order, at)
	}
	if r.keep {
		t.steps = append(t.steps, r.stepOf(m))
	}
	t.value = c.value
}

// sized returns a digest's bytes, with zeros where a log has fewer than the
// algorithm's. (No reader delivers more.)
func sized(d rtmr.Digest) []byte {
	if size := d.Alg.Size(); len(d.Sum) != size {
		return append(slices.Clone(d.Sum), make([]byte, size)...)[:size]
	}
	return d.Sum
}

// Outcomes returns a status for every register of every bank that the quote
// carries.
func (r *Reconciler) Outcomes() []Outcome {
	var unplaced []rtmr.Composite
	for _, c := range r.quoted.Composites {
		if !r.matchComposite(c) {
			unplaced = append(unplaced, c)
		}
	}
	for _, c := range unplaced { // another digest that fits does not make up for it
		for _, t := range r.composed(c) {
			t.quoted, t.matched = nil, -1
		}
	}
	out := []Outcome{}
	for _, t := range r.tracks {
		out = append(out, r.outcome(t))
	}
	return out
}

func (r *Reconciler) outcome(t *track) Outcome {
	o := Outcome{Register: t.Register, Alg: t.Alg, Quoted: t.quoted, Events: t.events, Matched: max(t.matched, 0),
		Expected: r.opts.Expect[t.Alg][t.Register]}
	if !t.Alg.Available() {
		o.Status, o.Text = Unlogged, fmt.Sprintf("the bank %s cannot be computed here", t.Alg)
		return o
	}
	reset := t.Register.ResetValue(t.Alg)
	o.Replayed = slices.Clone(t.value)
	if t.events == 0 {
		o.Replayed = reset
	}
	switch {
	case t.Register.Static():
		o.Status, o.Replayed = Static, nil
		o.judgeStatic()
	case t.events > 0 && t.matched == t.events:
		o.Status = Match
	case t.matched > 0:
		o.Status = LogAhead
		o.Text = fmt.Sprintf("%s of the log came after the quote", counted(t.events-t.matched, "event", "events"))
	case t.quoted == nil:
		o.Status = Mismatch
		o.Text = "the quote signs one digest over its registers, which the logs do not give, nor any of their prefixes that was tried: which register parts cannot be told without their values (--values)"
	case t.events > 0 && bytes.Equal(t.quoted, reset) && r.beganLater(t):
		o.Status = LogAhead
		o.Text = "all of its log came after the quote"
	case t.events > 0 && bytes.Equal(t.quoted, reset):
		o.Status = Mismatch
		o.Text = fmt.Sprintf("the register is at its reset value: none of the %s was extended into it", counted(t.events, "logged event", "logged events"))
	case t.events > 0:
		o.Status = Mismatch
		o.Text = fmt.Sprintf("no prefix of the log's %s folds to the quoted value", counted(t.events, "event", "events"))
	case bytes.Equal(t.quoted, reset):
		o.Status = Reset
	case o.Expected != nil && !o.Unexpected() && r.events(t.Register) == 0:
		o.Status, o.Text = Match, "no log has an event of it, and it is the expected value"
	default:
		o.Status, o.Text = Unlogged, r.unlogged(t)
	}
	return o
}

// beganLater reports whether a register's first event came after the quote, as
// another register tells whose log it shares. Without such a witness a log of a
// register at rest is one of measurements that were never extended.
func (r *Reconciler) beganLater(t *track) bool {
	return slices.ContainsFunc(r.tracks, func(u *track) bool {
		return u.matched > 0 && u.matched < u.events && u.last.log == t.first.log && t.first.after(u.last)
	})
}

// judgeStatic holds a launch measurement against the one that was expected.
func (o *Outcome) judgeStatic() {
	if o.Expected == nil {
		return
	}
	o.Replayed, o.Status = o.Expected, Match
	if o.Unexpected() {
		o.Status, o.Text = Mismatch, "the launch measurement is not the expected one"
	}
}

// unlogged says why a register that moved has no events in its bank.
func (r *Reconciler) unlogged(t *track) string {
	if n := r.events(t.Register); n > 0 {
		return fmt.Sprintf("the register moved; the logs have %s of it, and none in this bank", counted(n, "event", "events"))
	}
	return "the register moved, and no log has an event of it"
}

// events counts those that all logs have of a register, in any bank.
func (r *Reconciler) events(reg rtmr.Register) (n int) {
	for _, counts := range r.counts {
		n += counts[reg].events
	}
	return n
}

// Coverage returns, for each log and each register that it has events of, how
// many of them the quote vouches for. It is to be called after Outcomes.
func (r *Reconciler) Coverage() (all []Coverage) {
	for log, counts := range r.counts {
		for reg, n := range counts {
			if reg.IsZero() || reg.Static() {
				continue
			}
			c := Coverage{Log: log, Register: reg, Events: n.events}
			late := 0
			for _, t := range r.tracks {
				if t.Register == reg {
					c.Quoted, c.Undigested = true, n.undigested
					late = max(late, t.late(log, n.events-n.undigested))
				}
			}
			if c.Quoted {
				c.Vouched = c.Events - c.Undigested - late
			}
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Coverage) int {
		return cmp.Or(cmp.Compare(a.Log, b.Log), a.Register.Compare(b.Register))
	})
	return all
}

// late returns how many of a log's events that have digests the quoted value
// does not stand for: all of them if it stands for another log, or the bank
// moved without one.
func (t *track) late(log, digested int) int {
	if t.events == 0 && !bytes.Equal(t.quoted, t.Register.ResetValue(t.Alg)) {
		return digested
	}
	if log >= len(t.byLog) {
		return 0
	}
	before := 0
	for _, n := range t.byLog[:log] {
		before += n
	}
	return t.byLog[log] - min(max(t.matched-before, 0), t.byLog[log])
}
