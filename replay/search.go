package replay

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tallystick/rtmr"
)

// search is the state of Explain: goals, and the jobs that may reach them.
type search struct {
	ctx      context.Context
	opts     SearchOptions
	tapes    []*tape
	others   []*tape // of the candidates' trails
	single   []item  // the candidates one by one
	goals    []*goal
	quoted   rtmr.Values
	matching map[rtmr.Register][]rtmr.Alg // banks that need no explanation
	jobs     []*job
	themes   []*theme
	result   SearchResult
}

// job is one set of hypotheses about one goal, in units that any worker may
// take, the likelier ones first.
type job struct {
	goal  *goal
	name  string  // what it tries, in words
	of    *tape   // the goal's tape when it was planned
	cost  float64 // nanoseconds, about
	units int
	run   func(p *prober, unit int) // nil for what is never tried

	// base, if not nil, is a fault that is taken for granted: the job's edits
	// are of the tape that it makes.
	base    whole
	likely  bool // it is tried first
	several bool // it tries more faults than one
	theme   *theme
}

// rank orders jobs. Several faults are tried late, so that where one of them
// would do, that one has been found.
func (j *job) rank() float64 {
	switch {
	case j.likely:
		return 0
	case j.several:
		return 50 * j.cost
	}
	return j.cost
}

// theme is what jobs of one name try together.
type theme struct {
	goal         *goal
	name         string
	tried, units int
}

func newSearch(ctx context.Context, trails []*Trail, quoted rtmr.Values, opts SearchOptions) *search {
	s := &search{ctx: ctx, opts: opts, tapes: tapesOf(trails), quoted: quoted, matching: map[rtmr.Register][]rtmr.Alg{}}
	s.setCandidates()
	s.setGoals(quoted)
	for _, g := range s.goals {
		s.plan(g)
	}
	return s
}

// setCandidates makes tapes of them: digests without an entry, one tape a bank.
func (s *search) setCandidates() {
	s.others = slices.DeleteFunc(tapesOf(s.opts.CandidateTrails), func(t *tape) bool { return len(t.steps) == 0 })
	for _, t := range s.others {
		for i := range t.steps {
			s.single = append(s.single, item{of: t, step: i, n: 1})
		}
	}
	for _, d := range s.opts.Candidates {
		if !d.Alg.Available() || len(d.Sum) != d.Alg.Size() {
			continue
		}
		t := &tape{steps: []*Step{nil}, banks: []*strip{{alg: d.Alg, size: d.Alg.Size(), digests: d.Sum}}}
		s.single = append(s.single, item{of: t, n: 1})
	}
}

// run does the jobs until the goals are reached or the context ends. A goal
// that earlier quotes stand before, and that nothing leads to through them, is
// searched once more without them.
func (s *search) run() {
	s.drain()
	for _, g := range s.goals {
		if !g.solved && len(g.via) > 0 && s.ctx.Err() == nil {
			g.passed, g.via = len(g.via), nil
			s.plan(g)
		}
	}
	s.drain()
}

// drain does the jobs, cheapest first.
func (s *search) drain() {
	for len(s.jobs) > 0 && s.ctx.Err() == nil {
		slices.SortStableFunc(s.jobs, func(a, b *job) int {
			return cmp.Or(btoi(a.goal.follows)-btoi(b.goal.follows), cmp.Compare(a.rank(), b.rank()))
		})
		j := s.jobs[0]
		s.jobs = s.jobs[1:]
		if j.goal.solved || j.of != j.goal.tape {
			j.theme.units -= j.units
			continue
		}
		base, t := s.open(j)
		if t == nil {
			j.theme.units -= j.units
			continue
		}
		if hits := s.work(j, t); len(hits) > 0 {
			s.hit(j, base, t, hits)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// open makes the tape that a job edits; nil where its base changes nothing.
func (s *search) open(j *job) (base *edit, t *tape) {
	if j.base == nil {
		return nil, j.of
	}
	base = &edit{locality: -1}
	if !j.base(j.of, base) || base.splices[0].from < j.goal.floor {
		return nil, nil
	}
	t = j.of.apply(base)
	for _, alg := range j.goal.banks() {
		if t.bank(alg) == nil {
			return nil, nil
		}
	}
	a, b := t.bank(j.goal.alg), j.of.bank(j.goal.alg)
	if slices.Equal(a.start, b.start) && slices.Equal(a.digests, b.digests) {
		return nil, nil
	}
	return base, t
}

// work tries a job's units on all processors, and returns the edits found in the first
// unit in which one is, so that what is found does not depend on who is faster: units
// are begun in order, and one that is before a hit is tried to its end.
func (s *search) work(j *job, t *tape) (hits []*edit) {
	if j.run == nil {
		return nil
	}
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		next   int // unit
		folded atomic.Int64
	)
	for _, b := range t.banks {
		b.fold()
	}
	best := j.units // of the hits
	workers := make([]worker, min(runtime.GOMAXPROCS(0), j.units))
	found := func(w *worker, e *edit) {
		mu.Lock()
		defer mu.Unlock()
		if w.unit > best {
			return
		}
		if w.unit < best {
			hits, best = nil, w.unit
		}
		kept := &edit{}
		kept.set(e)
		hits = append(hits, kept)
		for i := range workers {
			if workers[i].unit >= best {
				workers[i].stop.Store(true)
			}
		}
	}
	begin := func(w *worker) bool {
		mu.Lock()
		defer mu.Unlock()
		w.unit = next
		next++
		return w.unit < best && !w.stop.Load() // stopped: the context ended
	}
	for i := range workers {
		w := &workers[i]
		wg.Go(func() {
			p := newProber(j.goal, t, &w.stop, func(e *edit) { found(w, e) })
			done, last := 0, uint64(0)
			for begin(w) {
				j.run(p, w.unit)
				p.flush()
				if !w.stop.Load() {
					done++
				}
				folded.Add(int64(p.folds - last))
				last = p.folds
			}
			mu.Lock()
			defer mu.Unlock()
			s.result.Tried += p.tried
			j.theme.tried += done
		})
	}
	s.await(&wg, workers, &folded)
	s.result.Folds += uint64(folded.Load())
	return hits
}

// worker tries units, one after another.
type worker struct {
	unit int         // its present one, under work's lock
	stop atomic.Bool // it is to try no more
}

// await waits for the workers, tells of progress, and stops them when the
// context ends.
func (s *search) await(wg *sync.WaitGroup, workers []worker, folded *atomic.Int64) {
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	left := s.ctx.Done()
	for {
		select {
		case <-finished:
			return
		case <-left:
			for i := range workers {
				workers[i].stop.Store(true)
			}
			left = nil
		case <-tick.C:
			if s.opts.Progress != nil {
				s.opts.Progress(s.result.Folds+uint64(folded.Load()), s.total())
			}
		}
	}
}

// total estimates the folds of all jobs, those that are done included.
func (s *search) total() uint64 {
	total := float64(s.result.Folds)
	for _, j := range s.jobs {
		if j.run != nil && !j.goal.solved {
			total += j.cost / foldTime(j.goal.alg)
		}
	}
	return uint64(min(total, 1<<62))
}

// hit takes the edits that a unit of a job found on a tape. They are several only if
// they amount to the same.
func (s *search) hit(j *job, base *edit, t *tape, hits []*edit) {
	e := slices.MinFunc(hits, func(a, b *edit) int {
		return cmp.Or(cmp.Compare(len(a.faults), len(b.faults)), cmp.Compare(a.faults[0].at, b.faults[0].at))
	})
	g := j.goal
	if base != nil {
		g.edits = append(g.edits, s.describe(j.of, base)...)
	}
	g.edits = append(g.edits, s.describe(t, e)...)
	edited := t.apply(e)
	if !g.take(edited) {
		s.plan(g) // an earlier quote's value is reached, and this one's not yet
		return
	}
	x := &Explanation{Register: g.reg, Proven: true, Banks: g.banks(), Edits: g.edits, Matched: g.matched, Ahead: len(edited.steps) - g.matched}
	for _, o := range s.goals {
		switch {
		case o.digest != nil && g.digest != nil && o.digest.of == g.digest.of:
			o.solved = true // the composite is explained
		case o.solved || o.reg != g.reg || o.orig != g.orig:
		case o.take(edited):
			x.Banks = append(x.Banks, o.banks()...)
		case o.tape == edited: // up to an earlier quote's value
			o.edits = g.edits
			s.plan(o)
		case o.digest == nil:
			x.Against = append(x.Against, o.alg)
		}
	}
	slices.Sort(x.Banks)
	x.Banks = slices.Compact(x.Banks)
	x.Against = append(x.Against, s.contradicting(g, edited)...)
	s.conclude(x, g)
	s.result.Found = append(s.result.Found, *x)
}

// contradicting returns the banks that fold to their values without the edits
// and not with them. Digests that are altered may be so in one bank alone.
func (s *search) contradicting(g *goal, edited *tape) (banks []rtmr.Alg) {
	if !slices.ContainsFunc(g.edits, func(e Edit) bool { return !e.Kind.ofOneBank() }) {
		return nil
	}
	for _, alg := range s.matching[g.reg] {
		was, is := g.orig.bank(alg), edited.bank(alg)
		if was != nil && is != nil && is.find(s.quoted[alg][g.reg], min(1, len(edited.steps))) < 0 {
			banks = append(banks, alg)
		}
	}
	return banks
}
