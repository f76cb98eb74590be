package replay

import (
	"bytes"
	"slices"

	"tallystick/rtmr"
)

// A composite is one digest over many registers. If the logs' own values do not
// give it, a log may have run on after the quote: so prefixes are tried. Logs
// that share no register are independent layers, each cut back by itself; logs
// that share one are one sequence.

// maxCuts bounds how many pairs of prefixes of two layers are tried.
const maxCuts = 4 << 20

// layer is a set of logs that extend registers in common: the tracks they
// extend, and every state of these, the newest first.
type layer struct {
	tracks []*track
	states []state
}

// state is how many of each track's events have happened.
type state []int

// matchComposite finds how much of the logs a composite stands for, and with
// that the value of each of its registers.
func (r *Reconciler) matchComposite(c rtmr.Composite) {
	if !c.Digest.Alg.Available() {
		return
	}
	var layers []*layer
	for _, t := range r.composed(c) {
		if t.events > 0 {
			layers = join(layers, t)
		}
	}
	for _, l := range layers {
		l.unwind()
	}
	s := &compositeSearch{Composite: c, r: r, values: rtmr.Values{}, hist: map[*track][]byte{}}
	for _, t := range r.composed(c) {
		s.hist[t] = t.history()
		s.set(t, t.events)
	}
	if s.hit() || s.cutOne(layers) || s.cutTwo(layers) {
		s.settle(r.composed(c))
	}
}

// composed returns the tracks that a composite selects.
func (r *Reconciler) composed(c rtmr.Composite) (all []*track) {
	for _, sel := range c.Selection {
		if t := r.track(sel.Register, sel.Alg); t != nil && sel.Alg.Available() && !slices.Contains(all, t) {
			all = append(all, t)
		}
	}
	return all
}

// join puts a track into the layer whose logs it shares, and joins layers that
// have now become one.
func join(layers []*layer, t *track) []*layer {
	own := &layer{tracks: []*track{t}}
	rest := layers[:0]
	for _, l := range layers {
		if slices.ContainsFunc(l.tracks, t.sharesLog) {
			own.tracks = append(own.tracks, l.tracks...)
		} else {
			rest = append(rest, l)
		}
	}
	return append(rest, own)
}

func (t *track) sharesLog(u *track) bool {
	for i := range min(len(t.byLog), len(u.byLog)) {
		if t.byLog[i] > 0 && u.byLog[i] > 0 {
			return true
		}
	}
	return false
}

// unwind lists the layer's states from the whole back to its beginning, one an
// entry: an entry extends all its banks at once.
func (l *layer) unwind() {
	now := make(state, len(l.tracks))
	for i, t := range l.tracks {
		now[i] = t.events
	}
	for {
		last := place{-1, -1}
		for i, t := range l.tracks {
			if now[i] > 0 && t.order[now[i]-1].after(last) {
				last = t.order[now[i]-1]
			}
		}
		if last.log < 0 {
			return
		}
		for i, t := range l.tracks {
			if now[i] > 0 && t.order[now[i]-1] == last {
				now[i]--
			}
		}
		l.states = append(l.states, slices.Clone(now))
	}
}

func (p place) after(q place) bool {
	return p.log > q.log || p.log == q.log && p.entry > q.entry
}

// history returns the track's value before the first event and after each.
func (t *track) history() []byte {
	size := t.Alg.Size()
	value := t.start
	if t.events == 0 {
		return t.Register.ResetValue(t.Alg)
	}
	out := slices.Clone(value)
	v := slices.Clone(value)
	for i := range t.events {
		t.Alg.Extend(v, t.digests[i*size:][:size])
		out = append(out, v...)
	}
	return out
}

// compositeSearch tries states of layers.
type compositeSearch struct {
	rtmr.Composite
	r      *Reconciler
	values rtmr.Values
	hist   map[*track][]byte
	at     map[*track]int
}

// set puts a track to its value after n events.
func (s *compositeSearch) set(t *track, n int) {
	if s.values[t.Alg] == nil {
		s.values[t.Alg] = map[rtmr.Register]rtmr.Hex{}
	}
	if s.at == nil {
		s.at = map[*track]int{}
	}
	size := t.Alg.Size()
	s.values[t.Alg][t.Register] = s.hist[t][n*size:][:size]
	s.at[t] = n
}

func (s *compositeSearch) hit() bool {
	sum, err := s.Of(s.values)
	return err == nil && bytes.Equal(sum, s.Digest.Sum)
}

func (s *compositeSearch) put(l *layer, st state) {
	for i, t := range l.tracks {
		s.set(t, st[i])
	}
}

func (s *compositeSearch) restore(l *layer) {
	for _, t := range l.tracks {
		s.set(t, t.events)
	}
}

// cutOne tries each layer's prefixes, the longest first.
func (s *compositeSearch) cutOne(layers []*layer) bool {
	for _, l := range layers {
		for _, st := range l.states {
			if s.put(l, st); s.hit() {
				return true
			}
		}
		s.restore(l)
	}
	return false
}

// cutTwo tries prefixes of two layers together.
func (s *compositeSearch) cutTwo(layers []*layer) bool {
	tries := 0
	for i, a := range layers {
		for _, b := range layers[:i] {
			for _, sa := range a.states {
				s.put(a, sa)
				for _, sb := range b.states {
					if tries++; tries > maxCuts {
						return false
					}
					if s.put(b, sb); s.hit() {
						return true
					}
				}
			}
			s.restore(a)
			s.restore(b)
		}
	}
	return false
}

// settle gives each track the value at which the composite fits.
func (s *compositeSearch) settle(tracks []*track) {
	for _, t := range tracks {
		n := s.at[t]
		t.quoted = slices.Clone(s.values[t.Alg][t.Register])
		if t.matched = n; n > 0 {
			t.last = t.order[n-1]
		}
	}
}
