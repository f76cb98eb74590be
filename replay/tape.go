package replay

import (
	"bytes"
	"slices"

	"tallystick/rtmr"
)

// tape is what one register's log extends, in all banks that hold the same
// entries: what edits are made to. It is never changed; an edit makes another.
type tape struct {
	reg   rtmr.Register
	steps []*Step // nil where an edit put in something that no log has
	banks []*strip
}

// strip is a tape in one bank.
type strip struct {
	alg     rtmr.Alg
	size    int
	start   []byte
	digests []byte // size bytes a step
	prefix  []byte // values after 0, 1, .. steps, size bytes each; see fold
}

// tapesOf joins the trails of one register that have the same steps. A bank
// that lacks an entry which the others have is a tape of its own.
func tapesOf(trails []*Trail) (all []*tape) {
	for _, t := range trails {
		size := t.Alg.Size()
		if !t.Alg.Available() || len(t.Start) != size || len(t.Digests) != size*len(t.Steps) {
			continue
		}
		i := slices.IndexFunc(all, func(x *tape) bool { return x.reg == t.Register && slices.Equal(x.steps, t.Steps) })
		if i < 0 {
			i, all = len(all), append(all, &tape{reg: t.Register, steps: t.Steps})
		}
		if all[i].bank(t.Alg) == nil {
			all[i].banks = append(all[i].banks, &strip{alg: t.Alg, size: size, start: t.Start, digests: t.Digests})
		}
	}
	return all
}

// bank returns the tape in one bank, nil if it has no digests there.
func (t *tape) bank(alg rtmr.Alg) *strip {
	for _, s := range t.banks {
		if s.alg == alg {
			return s
		}
	}
	return nil
}

// in returns what step i extends in a bank.
func (s *strip) in(i int) []byte { return s.digests[i*s.size : (i+1)*s.size] }

// run returns what the steps from one to another, not included, extend.
func (s *strip) run(from, to int) []byte { return s.digests[from*s.size : to*s.size] }

// after returns the value after the first n steps; fold must have been called.
func (s *strip) after(n int) []byte { return s.prefix[n*s.size : (n+1)*s.size] }

// fold computes all values, once. It is not safe to call concurrently.
func (s *strip) fold() {
	if s.prefix != nil {
		return
	}
	s.prefix = make([]byte, 0, len(s.digests)+s.size)
	s.prefix = append(s.prefix, s.start...)
	value := slices.Clone(s.start)
	for i := range len(s.digests) / s.size {
		s.alg.Extend(value, s.in(i))
		s.prefix = append(s.prefix, value...)
	}
}

// find returns after how many steps the value is first the wanted one, from a
// number of steps on, or -1.
func (s *strip) find(want []byte, from int) int {
	s.fold()
	for n := from; n*s.size < len(s.prefix); n++ {
		if bytes.Equal(s.after(n), want) {
			return n
		}
	}
	return -1
}

// form is how an item differs from what its entry extends by the log.
type form uint8

const (
	asLogged   form = iota
	paddedSHA1      // what the entry extends into the SHA-1 bank, padded with zeros
	computed        // what the entry's own data give, where that is another digest
	zeros           // the forms from here on are of no entry
	ones
	ones20 // 20 × 0xFF, padded with zeros
	separator0
	separatorF
	separatorError
)

// item is what an edit puts into a tape: a run of steps, of the same tape or
// of another one, or a single digest of another form.
type item struct {
	of   *tape // nil for the tape that is edited
	step int
	n    int // how many steps; 1 unless the form is asLogged
	form form
}

func own(step, n int) item     { return item{step: step, n: n} }
func made(f form) item         { return item{n: 1, step: -1, form: f} }
func (it item) entry() bool    { return it.form < zeros }
func as(step int, f form) item { return item{step: step, n: 1, form: f} }

// digests returns what the item extends in a bank; nil if that is not known.
// buf is for one digest that is not in the tape.
func (it *item) digests(t *tape, alg rtmr.Alg, buf *[rtmr.MaxDigestSize]byte) []byte {
	if it.of != nil {
		t = it.of
	}
	if it.form == asLogged {
		if s := t.bank(alg); s != nil {
			return s.run(it.step, it.step+it.n)
		}
		return nil
	}
	out := buf[:alg.Size()]
	clear(out)
	switch it.form {
	case paddedSHA1:
		sha1 := t.steps[it.step].SHA1
		if len(sha1) != rtmr.SHA1.Size() {
			return nil
		}
		copy(out, sha1)
	case computed:
		for _, d := range t.steps[it.step].Computed {
			if d.Alg == alg && len(d.Sum) == alg.Size() {
				return d.Sum
			}
		}
		return nil
	case ones:
		fill(out)
	case ones20:
		fill(out[:min(rtmr.SHA1.Size(), len(out))])
	case separator0, separatorF, separatorError:
		// TCG PFP 1.06 §10.4.1, EV_SEPARATOR: the digest is of 00000000 or
		// FFFFFFFF, and of 00000001 after an error.
		return alg.AppendHash(out[:0], map[form][]byte{
			separator0: {0, 0, 0, 0}, separatorF: {0xFF, 0xFF, 0xFF, 0xFF}, separatorError: {1, 0, 0, 0}}[it.form])
	}
	return out
}

func fill(b []byte) {
	for i := range b {
		b[i] = 0xFF
	}
}

// splice replaces the steps from one to another, not included.
type splice struct {
	from, to int
	put      []item
}

// edit is one hypothesis: splices in rising order, none overlapping another,
// and perhaps another start of PCR 0.
type edit struct {
	faults   []fault // what it supposes, for the report
	splices  []splice
	locality int8 // the start's last byte; -1 to leave the start as it is
	cut      bool // what follows the splices is ahead of the quote, and not folded
}

// reset makes it the edit that changes nothing.
func (e *edit) reset() { e.truncate(0); e.locality, e.cut = -1, false }

// truncate leaves the first n faults, of one splice each.
func (e *edit) truncate(n int) { e.faults, e.splices = e.faults[:n], e.splices[:n] }

// add appends a fault of one splice. It does not allocate once the edit has
// been as large before.
func (e *edit) add(f fault, from, to int, put ...item) {
	e.faults = append(e.faults, f)
	if n := len(e.splices); n < cap(e.splices) {
		e.splices = e.splices[:n+1] // with the room that its items had
	} else {
		e.splices = append(e.splices, splice{})
	}
	sp := &e.splices[len(e.splices)-1]
	sp.from, sp.to, sp.put = from, to, append(sp.put[:0], put...)
}

// set makes it a copy of another edit.
func (e *edit) set(o *edit) {
	e.reset()
	for _, sp := range o.splices {
		e.add(fault{}, sp.from, sp.to, sp.put...)
	}
	e.faults = append(e.faults[:0], o.faults...)
	e.locality, e.cut = o.locality, o.cut
}

// least is how many steps the edited tape needs to show the last splice at all.
// An edit that is proven by less is another one's, with a log that is ahead.
func (e *edit) least() int {
	n, at := 0, 0
	for k, sp := range e.splices {
		n += sp.from - at
		at = sp.to
		for i, it := range sp.put {
			if k == len(e.splices)-1 && i == len(sp.put)-1 {
				return n + 1
			}
			n += it.n
		}
	}
	return n
}

// end is behind the last splice.
func (e *edit) end() int {
	if n := len(e.splices); n > 0 {
		return e.splices[n-1].to
	}
	return 0
}

// fault is one supposition of an edit.
type fault struct {
	kind FaultKind
	at   int // the position of the blamed step, or where something was put
	n    int // how many steps are blamed, or how far one moved
	with item
	reg  rtmr.Register // whose log it is, if another's
	log  int           // for faults of whole logs; -1 for all of them
}

// apply returns the edited tape, in those banks in which all digests are known.
func (t *tape) apply(e *edit) *tape {
	out := &tape{reg: t.reg}
	at := 0
	for _, sp := range e.splices {
		out.steps = append(out.steps, t.steps[at:sp.from]...)
		for _, it := range sp.put {
			out.steps = append(out.steps, it.steps(t)...)
		}
		at = sp.to
	}
	out.steps = append(out.steps, t.steps[at:]...)
	for _, s := range t.banks {
		if edited := s.apply(t, e); edited != nil {
			out.banks = append(out.banks, edited)
		}
	}
	return out
}

func (it *item) steps(t *tape) []*Step {
	if it.of != nil {
		t = it.of
	}
	if !it.entry() {
		return []*Step{nil}
	}
	return t.steps[it.step : it.step+it.n]
}

func (s *strip) apply(t *tape, e *edit) *strip {
	var buf [rtmr.MaxDigestSize]byte
	out := &strip{alg: s.alg, size: s.size, start: s.start, digests: make([]byte, 0, len(s.digests)+s.size)}
	if e.locality >= 0 {
		out.start = make([]byte, s.size)
		out.start[s.size-1] = byte(e.locality)
	}
	at := 0
	for _, sp := range e.splices {
		out.digests = append(out.digests, s.run(at, sp.from)...)
		for i := range sp.put {
			d := sp.put[i].digests(t, s.alg, &buf)
			if d == nil && sp.put[i].n > 0 {
				return nil
			}
			out.digests = append(out.digests, d...)
		}
		at = sp.to
	}
	out.digests = append(out.digests, s.run(at, len(t.steps))...)
	return out
}
