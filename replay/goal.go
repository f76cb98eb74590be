package replay

import (
	"bytes"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// goal is what a register's log should have folded to and did not: a value in
// one bank, or a digest over it and other registers.
type goal struct {
	name    string // "pcr10 in sha256", for what was not tried
	reg     rtmr.Register
	alg     rtmr.Alg // the bank that is searched
	orig    *tape    // as the logs have it
	follows bool     // another bank of the register is searched first

	want   []byte    // the register's value, if it is quoted
	via    [][]byte  // earlier quotes' values, to be passed before it
	passed int       // how many of those were given up
	digest *composed // else

	tape    *tape  // perhaps edited, up to an earlier quote's value
	edits   []Edit // that made it so
	floor   int    // its first so many steps are known to be in the register
	solved  bool
	matched int // after so many extends, if solved
}

// composed is a digest over many registers, all known but one.
type composed struct {
	rtmr.Composite
	of    int    // the composite's index
	data  []byte // what is hashed, with room for the register's values
	slots []slot
}

// slot is where a bank's value of the register stands in the hashed data.
type slot struct {
	alg    rtmr.Alg
	offset int
}

// newComposed returns a composite with one register open; ok is false where a
// value is missing that no log tells.
func newComposed(c rtmr.Composite, of int, open rtmr.Register, values rtmr.Values) (d *composed, ok bool) {
	if !c.Digest.Alg.Available() {
		return nil, false
	}
	d = &composed{Composite: c, of: of}
	for _, s := range c.Selection {
		value := values[s.Alg][s.Register]
		if s.Register == open {
			d.slots = append(d.slots, slot{s.Alg, len(d.data)})
		}
		if value == nil {
			return nil, false
		}
		d.data = append(d.data, value...)
	}
	return d, len(d.slots) > 0
}

// folds tells whether a composite's bank is on a tape at all.
func (d *composed) folds(t *tape) bool {
	return !slices.ContainsFunc(d.slots, func(s slot) bool { return t.bank(s.alg) == nil })
}

// hit hashes the data as they stand.
func (d *composed) hit(data []byte) bool {
	var buf [rtmr.MaxDigestSize]byte
	return bytes.Equal(d.Digest.Alg.AppendHash(buf[:0], data), d.Digest.Sum)
}

// reach returns after how many steps a tape, from the floor on, is what the
// goal wants, or -1. A log that is ahead from its first step on reaches nothing.
func (g *goal) reach(t *tape) int {
	from := max(g.floor, min(1, len(t.steps)))
	if g.digest == nil {
		s := t.bank(g.alg)
		if s == nil {
			return -1
		}
		return s.find(g.target(), from)
	}
	if !g.digest.folds(t) {
		return -1
	}
	data := slices.Clone(g.digest.data)
	for n := from; n <= len(t.steps); n++ {
		for _, sl := range g.digest.slots {
			s := t.bank(sl.alg)
			s.fold()
			copy(data[sl.offset:], s.after(n))
		}
		if g.digest.hit(data) {
			return n
		}
	}
	return -1
}

// target is the value to be reached next: an earlier quote's, or the quote's.
func (g *goal) target() []byte {
	if len(g.via) > 0 {
		return g.via[0]
	}
	return g.want
}

// banks are the banks that the goal speaks of.
func (g *goal) banks() (all []rtmr.Alg) {
	if g.digest == nil {
		return []rtmr.Alg{g.alg}
	}
	for _, s := range g.digest.slots {
		all = append(all, s.alg)
	}
	return all
}

// take goes along an edited tape over the targets that it reaches. If the last
// one is not among them, but others are, the tape is the goal's from then on.
func (g *goal) take(edited *tape) (solved bool) {
	for {
		n := g.reach(edited)
		if n < 0 {
			return false
		}
		g.tape = edited
		if len(g.via) == 0 {
			g.solved, g.matched = true, n
			return true
		}
		g.floor, g.via = n, g.via[1:]
	}
}

// bound takes earlier values of the register, oldest first. The last of them
// that the log folds to is the floor; those after it have to be passed.
func (g *goal) bound(earlier []rtmr.Values) {
	if len(g.tape.banks) == 0 {
		return
	}
	for _, values := range earlier {
		for _, s := range g.tape.banks {
			value := values[s.alg][g.reg]
			if value == nil {
				continue
			}
			if n := s.find(value, 0); n >= 0 {
				g.floor, g.via = max(g.floor, n), nil
			} else if s.alg == g.alg && g.digest == nil && !bytes.Equal(value, g.want) {
				g.via = append(g.via, value)
			}
		}
	}
}

func goalName(reg rtmr.Register, banks []rtmr.Alg) string {
	return fmt.Sprintf("%s in %s", reg, bankNames(banks))
}
