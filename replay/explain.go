package replay

import (
	"context"
	"slices"
	"time"

	"tallystick/rtmr"
)

// Explanation says why a register's log does not fold to what the hardware
// holds: proven by folding the edited log to it, or, where nobody could, an
// observation that bounds the fault.
type Explanation struct {
	Kind     FaultKind     `json:"kind"`
	Register rtmr.Register `json:"register"`
	// Proven says that the log with the edits folds to the quoted value in each
	// of Banks. What is not proven is where a fault may be, and what would tell.
	Proven bool       `json:"proven"`
	Banks  []rtmr.Alg `json:"banks"`
	// Against are the banks of the register that the edit does not explain:
	// those that fold without it, or that want another one.
	Against []rtmr.Alg `json:"against,omitempty"`

	// The blamed entry, of the first edit; Log and Entry are -1 if there is none.
	Log    int    `json:"log"`
	Entry  int    `json:"entry"`
	Offset int64  `json:"offset"`
	Type   string `json:"type,omitempty"`
	Detail string `json:"detail,omitempty"`
	// First and Last are the positions among the register's events, from 0,
	// between which the fault is: of several entries alike, any may be it.
	First int `json:"first"`
	Last  int `json:"last"`

	// Matched is how many extends the edited log needs to reach the quoted
	// value, and Ahead how many of its entries come after that.
	Matched int    `json:"matched"`
	Ahead   int    `json:"ahead"`
	Edits   []Edit `json:"edits,omitempty"` // all of them, in order; nil if not proven
	Text    string `json:"text"`            // one sentence
}

// Edit is one difference between a log and what was extended.
type Edit struct {
	Kind   FaultKind `json:"kind"`
	Log    int       `json:"log"` // and Entry are -1 if no single entry is blamed
	Entry  int       `json:"entry"`
	Offset int64     `json:"offset"`
	Type   string    `json:"type,omitempty"`
	Detail string    `json:"detail,omitempty"`
	First  int       `json:"first"`
	Last   int       `json:"last"`
	Text   string    `json:"text"` // a clause: "entry 17 (..) was extended twice"
}

// SearchOptions bound a search. The zero value tries up to two faults at once
// for a minute.
type SearchOptions struct {
	MaxEdits int           // at once; 0 for 2
	Budget   time.Duration // 0 for 60 s
	// Composites are quoted digests over several registers; each is taken to be
	// wrong by one register, while the others hold what their logs fold to.
	Composites []rtmr.Composite
	// Earlier are older quotes' values of the same boot, oldest first. The
	// fault is behind those that a part of the log folds to; those that none does
	// are to be passed on the way, if that can be.
	Earlier []rtmr.Values
	// Candidates are digests that may have been extended and not logged, and
	// CandidateTrails logs that may hold such entries, or that were extended
	// before or after.
	Candidates      []rtmr.Digest
	CandidateTrails []*Trail
	// LogNames are what texts call the logs; those without one are "log 0", ..
	LogNames []string
	// Progress, if not nil, is told now and then how many folds are done, and
	// how many there are at most: the budget may end them. It is called from
	// Explain's own goroutine.
	Progress func(done, total uint64)
}

// SearchResult is what a search found, and what it cost.
type SearchResult struct {
	Found    []Explanation // the proven ones first
	Tried    uint64        // edits
	Folds    uint64        // hashes
	Elapsed  time.Duration
	NotTried []string // what the budget left out, in words
}

// Explain searches the edits of logs that make them fold to what was quoted,
// cheapest first, for every quoted register whose trail does not. Registers
// without a trail, and banks whose hash cannot be computed, are left out. It
// returns within the budget, or soon after the context ends.
//
// A proven explanation was folded to the quoted value; nothing is guessed. What
// cannot be proven, since it would take a digest that nobody has, is told with
// the positions where it may be.
func Explain(ctx context.Context, trails []*Trail, quoted rtmr.Values, opts SearchOptions) SearchResult {
	if opts.MaxEdits <= 0 {
		opts.MaxEdits = 2
	}
	if opts.Budget <= 0 {
		opts.Budget = time.Minute
	}
	began := time.Now()
	ctx, cancel := context.WithDeadline(ctx, began.Add(opts.Budget))
	defer cancel()

	s := newSearch(ctx, trails, quoted, opts)
	s.run()
	s.result.Found = append(s.result.Found, s.observations()...)
	s.result.NotTried = s.leftOut()
	s.result.Elapsed = time.Since(began)
	return s.result
}

// setGoals finds what the logs, as they are, do not fold to.
func (s *search) setGoals(quoted rtmr.Values) {
	values := rtmr.Values{}
	for _, t := range s.tapes {
		for _, b := range t.banks {
			b.fold()
			if values[b.alg] == nil {
				values[b.alg] = map[rtmr.Register]rtmr.Hex{}
			}
			values[b.alg][t.reg] = b.after(len(t.steps))
			if want := quoted[b.alg][t.reg]; len(want) == b.size {
				s.setValueGoal(t, b, want)
			}
		}
	}
	for i, c := range s.opts.Composites {
		s.setCompositeGoals(i, c, values)
	}
	for _, g := range s.goals {
		g.bound(s.opts.Earlier)
	}
	s.lead()
}

func (s *search) setValueGoal(t *tape, b *strip, want []byte) {
	if t.matches(b, want) {
		s.matching[t.reg] = append(s.matching[t.reg], b.alg)
		return
	}
	s.goals = append(s.goals, &goal{name: goalName(t.reg, []rtmr.Alg{b.alg}), reg: t.reg, alg: b.alg, orig: t, tape: t, want: want})
}

// matches reports whether a register needs no explanation: the log, or a part
// of it that is not empty, folds to the value.
func (t *tape) matches(b *strip, want []byte) bool {
	if len(t.steps) == 0 {
		return slices.Equal(want, b.start) || slices.Equal(want, t.reg.ResetValue(b.alg))
	}
	return b.find(want, 1) >= 0
}

// setCompositeGoals sets one goal for each register that may be the one that
// is wrong. It sets none if a composite fits, or would if one log ran ahead.
func (s *search) setCompositeGoals(of int, c rtmr.Composite, values rtmr.Values) {
	var goals []*goal
	full := rtmr.Values{}
	for _, sel := range c.Selection {
		if full[sel.Alg] == nil {
			full[sel.Alg] = map[rtmr.Register]rtmr.Hex{}
		}
		full[sel.Alg][sel.Register] = sel.Register.ResetValue(sel.Alg)
		if v := values[sel.Alg][sel.Register]; v != nil && len(s.tapeOf(sel).steps) > 0 {
			full[sel.Alg][sel.Register] = v
		}
	}
	for _, t := range s.tapes {
		d, ok := newComposed(c, of, t.reg, full)
		if !ok || !d.folds(t) {
			continue
		}
		g := &goal{reg: t.reg, orig: t, tape: t, digest: d}
		g.alg = d.slots[0].alg
		g.name = goalName(t.reg, g.banks()) + " under the quote's digest"
		if g.reach(t) >= 0 {
			return
		}
		goals = append(goals, g)
	}
	s.goals = append(s.goals, goals...)
}

func (s *search) tapeOf(sel rtmr.Selected) *tape {
	i := slices.IndexFunc(s.tapes, func(t *tape) bool { return t.reg == sel.Register && t.bank(sel.Alg) != nil })
	return s.tapes[i]
}

// lead leaves one bank of each register to be searched first, the cheapest:
// what is found there is tried in the others before they are searched.
func (s *search) lead() {
	for _, g := range s.goals {
		g.follows = g.digest == nil && slices.ContainsFunc(s.goals, func(o *goal) bool {
			return o.digest == nil && o.reg == g.reg && o != g && cheaper(o.alg, g.alg)
		})
	}
}

// foldTime is about what a fold takes, in nanoseconds, when many are folded
// side by side.
func foldTime(alg rtmr.Alg) float64 {
	switch alg {
	case rtmr.SHA1:
		return 10
	case rtmr.SHA256:
		return 30
	case rtmr.SHA384:
		return 50
	}
	return 400
}

func cheaper(a, b rtmr.Alg) bool {
	return foldTime(a) < foldTime(b) || foldTime(a) == foldTime(b) && a < b
}
