package replay

import (
	"slices"

	"tallystick/rtmr"
)

// stepOf returns the step of an entry, one for all its banks.
func (r *Reconciler) stepOf(m *rtmr.Measurement) *Step {
	if r.step != nil {
		return r.step
	}
	s := &Step{Log: len(r.counts) - 1, Entry: m.Index, Offset: m.Offset}
	r.step = s
	for _, d := range m.Digests {
		if d.Alg == rtmr.SHA1 {
			s.SHA1 = slices.Clone(d.Sum)
		}
	}
	if m.Entry == nil {
		return s
	}
	s.Type, s.Detail = shortened(m.Entry.Type()), shortened(m.Entry.Detail())
	if v, ok := m.Entry.(interface{ Violation() bool }); ok {
		s.Violation = v.Violation()
	}
	if a, ok := m.Entry.(aggregator); ok {
		_, s.Aggregate = a.BootAggregate()
	}
	for _, d := range m.Digests {
		if check, computed := m.Entry.Verify(d); check == rtmr.Contradicts {
			s.Computed = append(s.Computed, rtmr.Digest{Alg: d.Alg, Sum: slices.Clone(computed)})
		}
	}
	return s
}

// Trails returns what the logs extend into each register that can change: the
// quoted ones, of which those without events have a trail of no steps, and the
// others that the logs extend. It is empty unless NewReconciler was told to keep
// them.
func (r *Reconciler) Trails() (all []*Trail) {
	if !r.keep {
		return nil
	}
	for _, t := range slices.Concat(r.tracks, r.others) {
		if t.Register.Static() || !t.Alg.Available() {
			continue
		}
		start := t.start
		if start == nil {
			start = t.Register.StartValue(t.Alg)
		}
		all = append(all, &Trail{Register: t.Register, Alg: t.Alg, Start: start, Digests: t.digests, Steps: t.steps})
	}
	return all
}
