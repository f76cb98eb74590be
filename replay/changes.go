package replay

import (
	"slices"

	"tallystick/rtmr"
)

// pairing is one register's chain in both logs and which entries go together.
type pairing struct {
	register rtmr.Register
	a, b     *chain
	match    []int // for each entry of a its partner in b, or -1
	lone     [2][]*lone
}

// lone is an entry that the alignment left without a partner.
type lone struct {
	in      *pairing
	entry   chained
	gap     int // how many pairs of the alignment come before it
	kind    ChangeKind
	partner *lone
}

// compare finds the differences of what both logs measured.
func (c *comparison) compare(d *Difference) {
	var all []*pairing
	for _, reg := range c.registers() {
		p := newPairing(reg, c.sides[0].chains[reg], c.sides[1].chains[reg])
		d.Registers = append(d.Registers, p.parts())
		p.pairWithin()
		all = append(all, p)
	}
	pairAcross(all)
	for _, p := range all {
		d.Changes = append(d.Changes, c.changes(p)...)
	}
	p := newPairing(rtmr.Register{}, &c.sides[0].unmeasured, &c.sides[1].unmeasured)
	p.pairWithin()
	d.Unmeasured = c.changes(p)
}

// registers returns those that either log extends, in order.
func (c *comparison) registers() []rtmr.Register {
	var out []rtmr.Register
	for i := range c.sides {
		other := c.sides[1-i].chains
		for reg, ch := range c.sides[i].chains {
			if other[reg] == nil {
				other[reg] = &chain{register: reg}
			}
			if len(ch.entries)+len(other[reg].entries) > 0 {
				out = append(out, reg)
			}
		}
	}
	slices.SortFunc(out, rtmr.Register.Compare)
	return slices.Compact(out)
}

// newPairing aligns what is the same in digest, type and data first, and then
// what is the same in digest alone: among violations, which all extend the
// same, those of one file go together. Chains of the same digests throughout
// are aligned one to one, for there the register has no other order.
func newPairing(reg rtmr.Register, a, b *chain) *pairing {
	p := &pairing{register: reg, a: a, b: b}
	if p.agree() == len(a.entries) && len(a.entries) == len(b.entries) {
		p.match = make([]int, len(a.entries))
		for i := range p.match {
			p.match[i] = i
		}
		return p
	}
	whole := func(e chained) uint64 { return e.whole }
	key := func(e chained) uint64 { return uint64(e.key) }
	p.match = newAlignment(mapEntries(a.entries, whole), mapEntries(b.entries, whole)).match
	p.alignGaps(key)
	return p
}

func mapEntries(entries []chained, key func(chained) uint64) []uint64 {
	out := make([]uint64, len(entries))
	for i, e := range entries {
		out[i] = key(e)
	}
	return out
}

// alignGaps aligns by another key what lies between the pairs there are.
func (p *pairing) alignGaps(key func(chained) uint64) {
	for g := range p.gaps() {
		if g.empty() {
			continue
		}
		within := newAlignment(mapEntries(p.a.entries[g.a0:g.a1], key), mapEntries(p.b.entries[g.b0:g.b1], key))
		for i, j := range within.match {
			if j >= 0 {
				p.match[g.a0+i] = g.b0 + j
			}
		}
	}
}

// gaps yields what lies before, between and behind the pairs, empty or not.
// The pairs of a gap that has been yielded may change.
func (p *pairing) gaps() func(yield func(gap) bool) {
	return func(yield func(gap) bool) {
		g := gap{}
		for i, j := range append(slices.Clip(p.match), len(p.b.entries)) {
			if j < 0 {
				continue
			}
			g.a1, g.b1 = i, j
			if !yield(g) {
				return
			}
			g.a0, g.b0 = i+1, j+1
		}
	}
}

// agree returns how many entries from the first have the same digests.
func (p *pairing) agree() int {
	if p.a.locality != p.b.locality {
		return 0
	}
	n := min(len(p.a.entries), len(p.b.entries))
	for i := range n {
		if p.a.entries[i].key != p.b.entries[i].key {
			return i
		}
	}
	return n
}

func (p *pairing) parts() RegisterDifference {
	n := p.agree()
	return RegisterDifference{Register: p.register, Agree: n, A: p.a.side(n), B: p.b.side(n)}
}

func (ch *chain) side(agree int) RegisterSide {
	s := RegisterSide{Events: len(ch.entries), Locality: ch.locality, Value: ch.value}
	if agree < len(ch.entries) {
		index := ch.entries[agree].index
		s.Parts = &index
	}
	return s
}

// pairWithin pairs what the alignment left: the same measurement at another
// place, then the same subject with another digest, nearby before far off.
func (p *pairing) pairWithin() {
	n := 0
	for g := range p.gaps() {
		for _, e := range p.a.entries[g.a0:g.a1] {
			p.lone[0] = append(p.lone[0], &lone{in: p, entry: e, gap: n, kind: Removed})
		}
		for _, e := range p.b.entries[g.b0:g.b1] {
			p.lone[1] = append(p.lone[1], &lone{in: p, entry: e, gap: n, kind: Added})
		}
		n++
	}
	type near struct {
		subject uint64
		gap     int
	}
	a, b := p.lone[0], p.lone[1]
	pairUp(a, b, Moved, func(l *lone) (uint64, bool) { return l.entry.whole, true })
	pairUp(a, b, Moved, func(l *lone) (uint32, bool) { return l.entry.key, true })
	pairUp(a, b, Changed, func(l *lone) (near, bool) { return near{l.entry.subject, l.gap}, l.entry.subject != 0 })
	pairUp(a, b, Changed, func(l *lone) (uint64, bool) { return l.entry.subject, l.entry.subject != 0 })
}

// pairAcross pairs the same measurement in two registers.
func pairAcross(all []*pairing) {
	var a, b []*lone
	for _, p := range all {
		a, b = append(a, p.lone[0]...), append(b, p.lone[1]...)
	}
	pairUp(a, b, Moved, func(l *lone) (uint64, bool) { return l.entry.whole, true })
	pairUp(a, b, Moved, func(l *lone) (uint32, bool) { return l.entry.key, true })
}

// pairUp makes partners of those without one that have the same key, the
// first of a with the first of b, and so on. ok is false for no key.
func pairUp[K comparable](a, b []*lone, kind ChangeKind, key func(*lone) (k K, ok bool)) {
	waiting := map[K][]*lone{}
	for _, l := range b {
		if k, ok := key(l); ok && l.partner == nil {
			waiting[k] = append(waiting[k], l)
		}
	}
	for _, l := range a {
		k, ok := key(l)
		if !ok || l.partner != nil || len(waiting[k]) == 0 {
			continue
		}
		other := waiting[k][0]
		waiting[k] = waiting[k][1:]
		l.partner, other.partner = other, l
		l.kind, other.kind = kind, kind
	}
}

// changes returns a register's changes in the order of the aligned logs: in a
// gap what A has before what B has. A pair stands where A has it.
func (c *comparison) changes(p *pairing) (out []Change) {
	a, b := p.lone[0], p.lone[1]
	n := 0
	for g := range p.gaps() {
		for ; len(a) > 0 && a[0].gap == n; a = a[1:] {
			ch := Change{Kind: a[0].kind, A: c.logged(a[0].in, a[0].entry)}
			if other := a[0].partner; other != nil {
				ch.B = c.logged(other.in, other.entry)
			}
			out = append(out, ch)
		}
		for ; len(b) > 0 && b[0].gap == n; b = b[1:] {
			if b[0].partner == nil {
				out = append(out, Change{Kind: Added, B: c.logged(p, b[0].entry)})
			}
		}
		if g.a1 < len(p.a.entries) {
			x, y := p.a.entries[g.a1], p.b.entries[g.b1]
			if x.whole != y.whole {
				out = append(out, Change{Kind: OtherData, A: c.logged(p, x), B: c.logged(p, y)})
			}
		}
		n++
	}
	return out
}

func (c *comparison) logged(p *pairing, e chained) *Logged {
	l := &Logged{Index: e.index, Register: p.register}
	if !p.register.IsZero() {
		l.Digest = rtmr.Hex(c.keys[e.key])
	}
	return l
}
