package replay

import (
	"fmt"
	"math"
	"slices"
)

// How far searches go before they look everywhere.
const (
	nearEnd      = 512 // entries at the log's end, where most faults are
	nearEndPairs = 128
	unitSize     = 32 // positions that a worker takes at once
	shortMove    = 8  // how far apart two entries are looked for first
	shortBlock   = 32
	closePairs   = 64 // how far apart two faults are looked for first
	closeTriples = 8  // and three of them
)

// basic are the faults of which several are tried at once.
var basic = slices.Concat(swaps, doubled, foreign[:1])

// plan makes the jobs of a goal, for its tape as it is. What the jobs try
// together is everything that Explain says it tries; the budget cuts it.
func (s *search) plan(g *goal) {
	n := len(g.tape.steps)
	wholes := s.wholes(g.tape)
	s.add(&job{goal: g, name: "profiles, and faults of whole logs", likely: true, units: len(wholes),
		cost: float64(len(wholes)) * float64(n+1) * 4 * g.foldTime(),
		run: func(p *prober, unit int) {
			if p.edit.reset(); wholes[unit](p.tape, &p.edit) {
				p.whole(&p.edit)
			}
		}})
	near := max(g.floor, n-nearEnd)
	all := slices.Concat(swaps, doubled, foreign, alters) // 11 of them
	s.sweep(g, fmt.Sprintf("single faults in the last %d entries", n-near), nil, all, near, n)
	s.add(capped(g))
	s.sweep(g, "swaps of neighbours", nil, swaps, g.floor, near-1)
	s.sweep(g, "entries not extended, or extended twice", nil, doubled, g.floor, near-1)
	s.sweep(g, "altered digests of one bank, and digests of zeros or separators that no log has", nil, slices.Concat(foreign, alters), g.floor, near-1)
	s.beginnings(g)
	if n := len(g.tape.sections()); n > maxOrdered {
		s.add(&job{goal: g, name: fmt.Sprintf("other orders of the %d logs", n), cost: math.Inf(1)})
	}
	s.planCandidates(g)
	s.planDistances(g)
	s.planSeveral(g, wholes)
}

func (s *search) add(j *job) {
	if j.run == nil {
		j.units = 1
	}
	if j.units <= 0 {
		return
	}
	j.of = j.goal.tape
	i := slices.IndexFunc(s.themes, func(t *theme) bool { return t.goal == j.goal && t.name == j.name })
	if i < 0 {
		i, s.themes = len(s.themes), append(s.themes, &theme{goal: j.goal, name: j.name})
	}
	j.theme = s.themes[i]
	j.theme.units += j.units
	s.jobs = append(s.jobs, j)
}

// foldTime is about what a step takes, in nanoseconds.
func (g *goal) foldTime() (ns float64) {
	if g.digest == nil {
		return foldTime(g.alg)
	}
	for _, s := range g.digest.slots {
		ns += foldTime(s.alg)
	}
	return ns + foldTime(g.digest.Digest.Alg)*float64(len(g.digest.data))/64
}

// tails is how many steps follow the positions from one to another, included.
func (g *goal) tails(from, to int) float64 {
	n := float64(len(g.tape.steps))
	return float64(max(to-from+1, 0)) * max(n-float64(from+to)/2, 1)
}

// sweep plans to try local faults at the positions from one to another,
// included, from the last one on.
func (s *search) sweep(g *goal, name string, base whole, locals []local, from, to int) {
	s.add(&job{goal: g, name: name, base: base, several: base != nil, units: (to - from + unitSize) / unitSize,
		cost: float64(len(locals)) * g.tails(from, to) * g.foldTime(),
		run: func(p *prober, unit int) {
			last := to - unit*unitSize
			if base != nil { // which may have changed how many steps there are
				last += len(p.tape.steps) - len(g.tape.steps)
			}
			for _, l := range locals {
				for i := last; i > max(last-unitSize, from-1) && !p.stop.Load(); i-- {
					if p.edit.reset(); l.make(p.tape, p.strip, i, &p.edit) {
						p.try(&p.edit)
					}
				}
			}
		}})
}

// beginnings plans the fault that the register begins with a later entry. It
// comes after the single ones, which are likelier.
func (s *search) beginnings(g *goal) {
	n := len(g.tape.steps)
	if g.floor > 0 {
		return
	}
	s.sweep(g, "a beginning of the log that was not extended", nil, []local{{1, headMissing}}, 2, n-1)
	if last := len(s.jobs) - 1; n > 2 {
		s.jobs[last].cost *= float64(len(doubled) + 1)
	}
}

// capped is the fault of a log that is ahead of a quote which was taken after a
// digest that no log has: Windows caps a bank so before it goes on. Whatever
// single fault near the end explains without that is likelier.
func capped(g *goal) *job {
	n := len(g.tape.steps)
	return &job{goal: g, name: "digests of zeros or separators at the register's end", units: n - g.floor + 1,
		cost: 12 * (g.tails(max(g.floor, n-nearEnd), n) + float64(n)) * g.foldTime(),
		run: func(p *prober, unit int) {
			i := n - unit
			for _, l := range foreign {
				p.edit.reset()
				l.make(p.tape, p.strip, i, &p.edit)
				p.edit.splices[0].to, p.edit.cut = n, true
				p.try(&p.edit)
			}
		}}
}

func (s *search) planCandidates(g *goal) {
	sameRegister := slices.ContainsFunc(s.others, func(t *tape) bool { return t.reg == g.reg })
	var locals []local
	for _, c := range s.single {
		if c.of.bank(g.alg) == nil || sameRegister && !c.of.reg.IsZero() && c.of.reg != g.reg {
			continue
		}
		locals = append(locals, inserted(c), replacedBy(c))
	}
	n := len(g.tape.steps)
	if len(locals) > 0 {
		near := max(g.floor, n-nearEnd)
		s.sweep(g, "candidates at the log's end", nil, locals, near, n)
		s.sweep(g, "candidates anywhere in the log", nil, locals, g.floor, near-1)
	}
}

// planDistances plans faults that take up several steps: short ones, then all.
func (s *search) planDistances(g *goal) {
	n := len(g.tape.steps)
	moves := func(d int) []local { return []local{swappedApart(d), movedEarlier(d), movedLater(d)} }
	blocks := func(d int) []local { return []local{{d, blockMissing(d).make}} }
	s.distances(g, fmt.Sprintf("entries swapped or moved over up to %d others", shortMove), moves, 2, min(shortMove, n-1))
	s.distances(g, "entries swapped or moved over longer distances", moves, shortMove+1, n-1)
	s.distances(g, fmt.Sprintf("up to %d entries in a row not extended", shortBlock), blocks, 2, min(shortBlock, n-1))
	s.distances(g, "longer rows of entries not extended", blocks, shortBlock+1, n-1)
}

// distances plans faults of all sizes from one to another, included, at all
// positions; small sizes first.
func (s *search) distances(g *goal, name string, locals func(d int) []local, from, to int) {
	n := len(g.tape.steps)
	chunks := (n - g.floor + unitSize) / unitSize
	sizes := max(to-from+1, 0)
	s.add(&job{goal: g, name: name, units: sizes * chunks,
		cost: float64(sizes*len(locals(from))) * g.tails(g.floor, n) * g.foldTime(),
		run: func(p *prober, unit int) {
			last := n - unit%chunks*unitSize
			for _, l := range locals(from + unit/chunks) {
				for i := last; i > max(last-unitSize, g.floor-1) && !p.stop.Load(); i-- {
					if p.edit.reset(); l.make(p.tape, p.strip, i, &p.edit) {
						p.try(&p.edit)
					}
				}
			}
		}})
}

// planSeveral plans several faults at once: one of a whole log and another, and
// basic ones near each other, then anywhere.
func (s *search) planSeveral(g *goal, wholes []whole) {
	n := len(g.tape.steps)
	if s.opts.MaxEdits < 2 {
		s.add(&job{goal: g, name: "more than one fault at once", cost: math.Inf(1)})
		return
	}
	for _, w := range wholes {
		s.twoWholes(g, w)
		near := max(g.floor, n-nearEnd)
		s.sweep(g, "a fault of a whole log, and one in the last entries", w, basic, near, n)
		s.sweep(g, "a fault of a whole log, and one before the last entries", w, basic, g.floor, near-1)
	}
	near := max(g.floor, n-nearEndPairs)
	s.several(g, fmt.Sprintf("two faults in the last %d entries", n-near), 2, near, n, 0, closePairs)
	s.several(g, fmt.Sprintf("two faults within %d entries", closePairs), 2, g.floor, near-1, 0, closePairs)
	s.several(g, fmt.Sprintf("two faults more than %d entries apart", closePairs), 2, g.floor, n, closePairs+1, n)
	if s.opts.MaxEdits > 2 {
		s.several(g, fmt.Sprintf("three faults within %d entries of each other", closeTriples), 3, g.floor, n, 0, closeTriples)
		s.add(&job{goal: g, name: fmt.Sprintf("three or more faults that are further than %d entries apart", closeTriples), cost: math.Inf(1)})
		return
	}
	s.add(&job{goal: g, name: "more than two faults at once", cost: math.Inf(1)})
}

// twoWholes plans a second fault of a whole log behind a first.
func (s *search) twoWholes(g *goal, first whole) {
	n := float64(len(g.tape.steps))
	var second []whole
	s.add(&job{goal: g, name: "two faults of whole logs", base: first, several: true, units: 1, cost: 64 * (n + 1) * 4 * g.foldTime(),
		run: func(p *prober, _ int) {
			second = s.wholes(p.tape)
			for _, w := range second {
				if p.stop.Load() {
					return
				}
				if p.edit.reset(); w(p.tape, &p.edit) {
					p.whole(&p.edit)
				}
			}
		}})
}

// several plans basic faults in rising order, the first one at the positions
// from one to another, and each next one at least and at most so many steps
// behind the one before.
func (s *search) several(g *goal, name string, faults, from, to, least, most int) {
	n := len(g.tape.steps)
	width := float64(min(most, n) - least + 1)
	if width <= 0 {
		return
	}
	cost := float64(len(basic)) * g.tails(from, to) * g.foldTime()
	for range faults - 1 {
		cost *= width * float64(len(basic)) / 2
	}
	const size = 4
	s.add(&job{goal: g, name: name, several: true, units: (to - from + size) / size, cost: cost,
		run: func(p *prober, unit int) {
			last := to - unit*size
			for i := last; i > max(last-size, from-1); i-- {
				p.edit.reset()
				p.combine(i, i, faults, least, most)
			}
		}})
}

// combine tries all ways to add so many basic faults at the positions from one
// to another, included.
func (p *prober) combine(from, to, faults, least, most int) {
	k := len(p.edit.splices)
	for i := min(to, len(p.tape.steps)); i >= from && !p.stop.Load(); i-- {
		for _, l := range basic {
			if !l.make(p.tape, p.strip, i, &p.edit) {
				continue
			}
			if faults == 1 {
				p.try(&p.edit)
			} else {
				end := p.edit.end()
				if faults == 2 {
					p.grow(&p.edit, most)
				}
				p.combine(end+least, end+most, faults-1, least, most)
				p.trunk.splices = 0
			}
			p.edit.truncate(k)
		}
	}
}
