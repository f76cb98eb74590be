package replay

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"hash"
	"sync/atomic"

	"tallystick/internal/lanes"
	"tallystick/rtmr"
)

// prober tries edits of one goal's tape, as fast as it can: one worker's.
//
// All edits leave a tail of the log as it is, so an edit is folded only up to
// its last splice, and is then a value with a tail to come. As many of these as
// the hash has lanes are folded side by side, and every value on the way is
// held against the wanted one.
type prober struct {
	goal  *goal
	tape  *tape
	strip *strip
	want  []byte
	word  uint64 // its first eight bytes
	stop  *atomic.Bool
	found func(e *edit) // called with an edit that is proven

	tried, folds uint64
	edit         edit // for callers to build in
	group        *lanes.Group
	lanes        []lane
	n            int // lanes that are filled
	comp         composer
	trunk        trunk
}

// trunk is what edits share that differ in their last splice alone: the values
// behind the splice before it.
type trunk struct {
	splices int    // how many are in it; 0 for no trunk
	at      int    // the first value's position
	values  []byte // at this and the next positions
}

// grow makes the trunk of an edit, over at most so many steps behind it.
func (p *prober) grow(e *edit, most int) {
	p.trunk.splices = 0
	if p.goal.digest != nil {
		return
	}
	l := &p.lanes[p.n]
	if !p.begin(e, l) {
		return
	}
	s, at := p.strip, e.end()
	to := min(at+most, len(p.tape.steps))
	p.trunk = trunk{splices: len(e.splices), at: at, values: append(p.trunk.values[:0], l.value[:s.size]...)}
	for i := at; i < to; i++ {
		lanes.Fold(s.alg, &l.value, s.in(i), p.word)
		p.trunk.values = append(p.trunk.values, l.value[:s.size]...)
	}
	p.folds += uint64(to - at)
}

// lane is an edit whose tail is still to be folded.
type lane struct {
	edit  edit
	value [rtmr.MaxDigestSize]byte
	at    int // how many steps of the tape are folded into it
}

func newProber(g *goal, t *tape, stop *atomic.Bool, found func(*edit)) *prober {
	p := &prober{goal: g, tape: t, strip: t.bank(g.alg), stop: stop, found: found}
	if g.digest != nil {
		p.comp.init(g, t)
		return p
	}
	p.want = g.target()
	p.word = binary.LittleEndian.Uint64(p.want)
	p.group = lanes.New(p.strip.alg, p.word)
	p.lanes = make([]lane, p.group.Lanes())
	return p
}

// try folds an edit. What it finds may come only with a later try, or flush.
func (p *prober) try(e *edit) {
	if len(e.splices) > 0 && e.splices[0].from < p.goal.floor {
		return
	}
	p.tried++
	if p.goal.digest != nil {
		p.comp.try(p, e)
		return
	}
	l := &p.lanes[p.n]
	if p.begin(e, l) && !e.cut {
		l.edit.set(e)
		if p.n++; p.n == len(p.lanes) {
			p.flush()
		}
	}
}

// begin folds an edit up to its last splice into a lane.
func (p *prober) begin(e *edit, l *lane) (ok bool) {
	var buf [rtmr.MaxDigestSize]byte
	s, first := p.strip, 0
	copy(l.value[:s.size], s.after(e.splices[0].from))
	if n := len(e.splices) - 1; n > 0 && n == p.trunk.splices {
		first = n
		copy(l.value[:s.size], p.trunk.values[(e.splices[n].from-p.trunk.at)*s.size:])
	}
	for k := first; k < len(e.splices); k++ {
		sp := &e.splices[k]
		if k > first && p.scan(&l.value, s.run(e.splices[k-1].to, sp.from)) {
			p.confirm(e)
		}
		for i := range sp.put {
			d := sp.put[i].digests(p.tape, s.alg, &buf)
			if d == nil {
				return false
			}
			if p.scan(&l.value, d) {
				p.confirm(e)
			}
		}
	}
	if len(e.splices[len(e.splices)-1].put) == 0 && p.is(&l.value) {
		p.confirm(e)
	}
	l.at = e.end()
	return true
}

// is reports whether a value looks like the wanted one.
func (p *prober) is(value *[rtmr.MaxDigestSize]byte) bool {
	return binary.LittleEndian.Uint64(value[:]) == p.word && bytes.Equal(value[:p.strip.size], p.want)
}

// scan folds digests into a value and reports whether one on the way looked
// like the wanted one.
func (p *prober) scan(value *[rtmr.MaxDigestSize]byte, digests []byte) (hit bool) {
	p.folds += uint64(len(digests) / p.strip.size)
	return lanes.Fold(p.strip.alg, value, digests, p.word)
}

// maxRun is how many steps are folded before looking whether to stop.
const maxRun = 4096

// flush folds the tails of all lanes that are filled.
func (p *prober) flush() {
	if p.n == 0 {
		return
	}
	filled := p.lanes[:p.n]
	p.n = 0
	at := 0
	for i := range filled {
		at = max(at, filled[i].at)
	}
	for i := range filled {
		l := &filled[i]
		if p.scan(&l.value, p.strip.run(l.at, at)) {
			p.confirm(&l.edit)
		}
		p.group.Set(i, l.value[:p.strip.size])
	}
	for to := len(p.tape.steps); at < to && !p.stop.Load(); {
		n := min(to-at, maxRun)
		hits := p.group.Fold(p.strip.run(at, at+n), len(filled))
		for i := range filled {
			if hits>>i&1 != 0 {
				p.confirm(&filled[i].edit)
			}
		}
		at += n
		p.folds += uint64(n * len(filled))
	}
}

// confirm folds a whole edited tape by another way, and reports it if it does
// reach the goal.
func (p *prober) confirm(e *edit) {
	whole := *e
	if e.cut { // what is ahead of the quote stays in the log
		whole.splices = append([]splice(nil), e.splices...)
		last := &whole.splices[len(whole.splices)-1]
		last.to = last.from
		whole.cut = false
	}
	if n := p.goal.reach(p.tape.apply(&whole)); n >= 0 && n >= whole.least() {
		p.found(&whole)
	}
}

// whole tries an edit of a whole log: its tail is all of it.
func (p *prober) whole(e *edit) {
	if len(e.splices) > 0 && e.splices[0].from < p.goal.floor || e.locality >= 0 && p.goal.floor > 0 {
		return
	}
	p.tried++
	edited := p.tape.apply(e)
	p.folds += uint64(len(edited.steps))
	if p.goal.reach(edited) >= 0 {
		p.found(e)
	}
}

// composer folds edits for a goal that is a digest over several registers.
// Every value has to be hashed with the others, so lanes gain little.
type composer struct {
	data   []byte
	hash   midstate
	strips []*strip // one a slot
	values [][rtmr.MaxDigestSize]byte
}

func (c *composer) init(g *goal, t *tape) {
	c.data = append([]byte(nil), g.digest.data...)
	c.hash.init(g.digest.Digest.Alg, c.data[:g.digest.slots[0].offset])
	for _, sl := range g.digest.slots {
		s := t.bank(sl.alg)
		c.strips = append(c.strips, s)
	}
	c.values = make([][rtmr.MaxDigestSize]byte, len(c.strips))
}

func (c *composer) try(p *prober, e *edit) {
	for k, s := range c.strips {
		copy(c.values[k][:s.size], s.after(e.splices[0].from))
	}
	hit := c.hit(p)
	for i := range e.splices {
		sp := &e.splices[i]
		if i > 0 {
			hit = c.run(p, e.splices[i-1].to, sp.from) || hit
		}
		for k := range sp.put {
			h, ok := c.put(p, &sp.put[k])
			if !ok {
				return
			}
			hit = hit || h
		}
	}
	if !e.cut {
		hit = c.run(p, e.end(), len(p.tape.steps)) || hit
	}
	if hit {
		p.confirm(e)
	}
}

// put extends an item into every bank; ok is false where a digest is not known.
func (c *composer) put(p *prober, it *item) (hit, ok bool) {
	if it.of == nil && it.form == asLogged {
		return c.run(p, it.step, it.step+it.n), true
	}
	var buf [rtmr.MaxDigestSize]byte
	for k, s := range c.strips {
		d := it.digests(p.tape, s.alg, &buf)
		if len(d) != s.size {
			return false, false
		}
		s.alg.Extend(c.values[k][:s.size], d)
	}
	p.folds += uint64(len(c.strips))
	return c.hit(p), true
}

func (c *composer) run(p *prober, from, to int) (hit bool) {
	for i := from; i < to; i++ {
		if i%maxRun == 0 && p.stop.Load() {
			return hit
		}
		for k, s := range c.strips {
			s.alg.Extend(c.values[k][:s.size], s.in(i))
		}
		hit = c.hit(p) || hit
	}
	p.folds += uint64((to - from) * len(c.strips))
	return hit
}

func (c *composer) hit(p *prober) bool {
	for k, sl := range p.goal.digest.slots {
		copy(c.data[sl.offset:], c.values[k][:c.strips[k].size])
	}
	return bytes.Equal(c.hash.of(c.data[p.goal.digest.slots[0].offset:]), p.goal.digest.Digest.Sum)
}

// midstate is a hash of data whose beginning does not change.
type midstate struct {
	hash  hash.Hash
	saved []byte // the state after the beginning; nil if the hash cannot tell
	start []byte
	sum   [rtmr.MaxDigestSize]byte
}

func (m *midstate) init(alg rtmr.Alg, start []byte) {
	m.hash, m.start = alg.New(), start
	m.hash.Write(start)
	if h, ok := m.hash.(encoding.BinaryMarshaler); ok {
		m.saved, _ = h.MarshalBinary()
	}
}

// of returns the hash of the beginning and the rest, valid until the next call.
func (m *midstate) of(rest []byte) []byte {
	h, ok := m.hash.(encoding.BinaryUnmarshaler)
	if m.saved == nil || !ok || h.UnmarshalBinary(m.saved) != nil {
		m.hash.Reset()
		m.hash.Write(m.start)
	}
	m.hash.Write(rest)
	return m.hash.Sum(m.sum[:0])
}
