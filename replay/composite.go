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

// maxCuts bounds how many ways to cut layers back are tried for all composites
// of a quote: each of them alone first, then several together.
const maxCuts = 4 << 20

// layer is a set of logs that extend registers in common: the tracks they
// extend, and every state of these: states[n] is without the last n entries.
type layer struct {
	tracks []*track
	states []state
}

// state is how many of each track's events have happened.
type state []int

// matchComposite finds how much of the logs a composite stands for, and with
// that the value of each of its registers.
func (r *Reconciler) matchComposite(c rtmr.Composite) (found bool) {
	if !c.Digest.Alg.Available() {
		return false
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
	s := &compositeSearch{Composite: c, values: rtmr.Values{}, at: map[*track]int{}, budget: maxCuts / len(r.quoted.Composites)}
	for _, t := range r.composed(c) {
		s.set(t, t.events)
	}
	if found = s.hit() || s.cutOne(layers) || s.cutSeveral(layers); found {
		s.settle(r.composed(c))
	}
	return found
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
		l.states = append(l.states, slices.Clone(now))
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
	}
}

func (p place) after(q place) bool {
	return p.log > q.log || p.log == q.log && p.entry > q.entry
}

// after returns the track's value after n events.
func (t *track) after(n int) []byte {
	size := t.Alg.Size()
	if t.history == nil {
		value := t.start
		if t.events == 0 {
			value = t.Register.ResetValue(t.Alg)
		}
		t.history = slices.Clone(value)
		v := slices.Clone(value)
		for i := range t.events {
			t.Alg.Extend(v, t.digests[i*size:][:size])
			t.history = append(t.history, v...)
		}
	}
	return t.history[n*size:][:size]
}

// compositeSearch tries states of layers.
type compositeSearch struct {
	rtmr.Composite
	values rtmr.Values
	at     map[*track]int
	budget int // how many cuts are tried of one layer, and how many of several
	left   int // of them, for the layers that are being cut
}

// set puts a track to its value after n events.
func (s *compositeSearch) set(t *track, n int) {
	if s.values[t.Alg] == nil {
		s.values[t.Alg] = map[rtmr.Register]rtmr.Hex{}
	}
	s.values[t.Alg][t.Register] = t.after(n)
	s.at[t] = n
}

func (s *compositeSearch) hit() bool {
	sum, err := s.Of(s.values)
	return err == nil && bytes.Equal(sum, s.Digest.Sum)
}

// cut puts a layer's tracks to their values before its last n entries.
func (s *compositeSearch) cut(l *layer, n int) {
	for i, t := range l.tracks {
		s.set(t, l.states[n][i])
	}
}

// most is how many entries there are to be cut off a layer.
func (l *layer) most() int { return len(l.states) - 1 }

// cutOne tries each layer's prefixes, the longest first.
func (s *compositeSearch) cutOne(layers []*layer) bool {
	s.left = s.budget
	for _, l := range layers {
		for n := 1; n <= l.most() && s.left > 0; n++ {
			s.left--
			if s.cut(l, n); s.hit() {
				return true
			}
		}
		s.cut(l, 0)
	}
	return false
}

// cutSeveral tries prefixes of two layers together, then of all.
func (s *compositeSearch) cutSeveral(layers []*layer) bool {
	var groups [][]*layer
	for i, a := range layers {
		for _, b := range layers[:i] {
			groups = append(groups, []*layer{a, b})
		}
	}
	if len(layers) > 2 {
		groups = append(groups, layers)
	}
	for _, group := range groups {
		s.left = s.budget / len(groups)
		if s.cutTogether(group) {
			return true
		}
		for _, l := range group {
			s.cut(l, 0)
		}
	}
	return false
}

// cutTogether cuts layers back together, those first that lose the fewest
// entries in all: a log runs on for a moment.
func (s *compositeSearch) cutTogether(layers []*layer) bool {
	most := 0
	for _, l := range layers {
		most += l.most()
	}
	for n := 2; n <= most && s.left > 0; n++ {
		if s.spread(layers, n, most) {
			return true
		}
	}
	return false
}

// spread tries every way to cut n entries off the layers, of which they have
// most together.
func (s *compositeSearch) spread(layers []*layer, n, most int) bool {
	if len(layers) == 0 {
		s.left--
		return s.hit()
	}
	l, rest := layers[0], layers[1:]
	most -= l.most()
	for own := max(0, n-most); own <= min(n, l.most()) && s.left > 0; own++ {
		if s.cut(l, own); s.spread(rest, n-own, most) {
			return true
		}
	}
	return false
}

// settle gives each track the value at which the composite fits. Of two that
// hold a register at two moments, the later one stands for more of the log.
func (s *compositeSearch) settle(tracks []*track) {
	for _, t := range tracks {
		n := s.at[t]
		if t.quoted != nil && t.matched >= n {
			continue
		}
		t.quoted = slices.Clone(s.values[t.Alg][t.Register])
		if t.matched = n; n > 0 {
			t.last = t.order[n-1]
		}
	}
}
