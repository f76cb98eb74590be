package replay_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

var pcr10 = rtmr.MustParse("pcr10")

// trailsOf records what logs extend, in the given banks.
func trailsOf(t testing.TB, profile string, banks []rtmr.Alg, logs ...testlogs.Log) (all []*replay.Trail) {
	t.Helper()
	opts := ima.Options{Banks: banks}
	if profile != "" {
		var err error
		if opts.Profile, err = ima.ParseProfile(profile); err != nil {
			t.Fatal(err)
		}
	}
	trail := func(reg rtmr.Register, alg rtmr.Alg) *replay.Trail {
		for _, x := range all {
			if x.Register == reg && x.Alg == alg {
				return x
			}
		}
		all = append(all, &replay.Trail{Register: reg, Alg: alg, Start: reg.StartValue(alg)})
		return all[len(all)-1]
	}
	locality := uint8(0)
	for n, l := range logs {
		src, err := openLog(l, opts)
		if err != nil {
			t.Fatalf("%s: %v", l.Name, err)
		}
		for m, err := range src.Measurements() {
			if err != nil {
				t.Fatalf("%s: %v", l.Name, err)
			}
			if m.Locality != 0 {
				locality = m.Locality
			}
			if m.NoAction || m.Register.IsZero() || m.Register.Static() {
				continue
			}
			s := &replay.Step{Log: n, Entry: m.Index, Offset: m.Offset}
			if m.Entry != nil {
				s.Type, s.Detail = strings.Clone(m.Entry.Type()), strings.Clone(m.Entry.Detail())
			}
			if e, ok := m.Entry.(*ima.Entry); ok {
				s.Violation = e.Violation()
				_, s.Aggregate = e.BootAggregate()
				s.SHA1 = slices.Clone(e.TemplateHash(rtmr.SHA1))
				if s.Violation {
					s.SHA1 = slices.Repeat([]byte{0xFF}, rtmr.SHA1.Size())
				}
			}
			for _, d := range m.Digests {
				if !slices.Contains(banks, d.Alg) {
					continue
				}
				x := trail(m.Register, d.Alg)
				x.Digests = append(x.Digests, d.Sum...)
				x.Steps = append(x.Steps, s)
			}
		}
	}
	for _, x := range all {
		if x.Register == pcr0 && locality != 0 {
			x.Start[len(x.Start)-1] = locality
		}
	}
	return all
}

// listOf is a synthetic list of n entries in pcr10: each digest is of its
// number and its bank.
func listOf(n int, banks ...rtmr.Alg) (all []*replay.Trail) {
	var steps []*replay.Step
	for i := range n {
		steps = append(steps, &replay.Step{Entry: i, Offset: int64(100 * i), Type: "ima-ng", Detail: fmt.Sprintf("/usr/bin/tool-%d", i),
			SHA1: digestOf(rtmr.SHA1, i), Aggregate: i == 0})
	}
	for _, alg := range banks {
		x := &replay.Trail{Register: pcr10, Alg: alg, Start: pcr10.StartValue(alg), Steps: steps}
		for i := range n {
			x.Digests = append(x.Digests, digestOf(alg, i)...)
		}
		all = append(all, x)
	}
	return all
}

func digestOf(alg rtmr.Alg, i int) []byte {
	return alg.AppendHash(nil, binary.BigEndian.AppendUint64([]byte(alg.String()), uint64(i)))
}

// extended is what a machine extended: the digests of a trail, one by one.
type extended [][]byte

func extendedOf(x *replay.Trail) (all extended) {
	for i := range x.Steps {
		all = append(all, x.Digests[i*x.Alg.Size():][:x.Alg.Size()])
	}
	return all
}

// value folds by the hash alone.
func (e extended) value(x *replay.Trail) []byte {
	v := slices.Clone(x.Start)
	for _, d := range e {
		v = x.Alg.AppendHash(nil, slices.Concat(v, d))
	}
	return v
}

// hardware returns the registers of a machine that extended what edit makes of
// each trail's digests.
func hardware(trails []*replay.Trail, edit func(x *replay.Trail, e extended) extended) rtmr.Values {
	values := rtmr.Values{}
	for _, x := range trails {
		if values[x.Alg] == nil {
			values[x.Alg] = map[rtmr.Register]rtmr.Hex{}
		}
		values[x.Alg][x.Register] = edit(x, slices.Clone(extendedOf(x))).value(x)
	}
	return values
}

func unedited(_ *replay.Trail, e extended) extended { return e }

func explain(t testing.TB, trails []*replay.Trail, quoted rtmr.Values, opts replay.SearchOptions) replay.SearchResult {
	t.Helper()
	if opts.Budget == 0 {
		opts.Budget = 20 * time.Second
	}
	r := replay.Explain(context.Background(), trails, quoted, opts)
	for _, x := range r.Found {
		t.Logf("%s proven=%v: %s", x.Kind, x.Proven, x.Text)
	}
	return r
}

// proven returns the one proven explanation.
func proven(t testing.TB, r replay.SearchResult) replay.Explanation {
	t.Helper()
	if len(r.Found) == 0 || !r.Found[0].Proven || len(r.Found) > 1 && r.Found[1].Proven {
		t.Fatalf("%d found, expected one that is proven; not tried: %q", len(r.Found), r.NotTried)
	}
	return r.Found[0]
}

// tamper are the edits that a property test makes to what was extended at
// position i, and the finding that each must lead to.
var tamper = []struct {
	name string
	kind replay.FaultKind
	room int // entries it takes
	edit func(e extended, i int, alg rtmr.Alg) extended
}{
	{"missing", replay.FaultMissing, 1, func(e extended, i int, _ rtmr.Alg) extended { return slices.Delete(e, i, i+1) }},
	{"repeated", replay.FaultRepeated, 1, func(e extended, i int, _ rtmr.Alg) extended { return slices.Insert(e, i, e[i]) }},
	{"swapped", replay.FaultSwapped, 2, func(e extended, i int, _ rtmr.Alg) extended {
		e[i], e[i+1] = e[i+1], e[i]
		return e
	}},
	{"swapped_apart", replay.FaultSwappedApart, 4, func(e extended, i int, _ rtmr.Alg) extended {
		e[i], e[i+3] = e[i+3], e[i]
		return e
	}},
	{"moved_later", replay.FaultMoved, 4, func(e extended, i int, _ rtmr.Alg) extended {
		d := e[i]
		return slices.Insert(slices.Delete(e, i, i+1), i+3, d)
	}},
	{"zeros", replay.FaultUnloggedZeros, 0, func(e extended, i int, alg rtmr.Alg) extended {
		return slices.Insert(e, i, make([]byte, alg.Size()))
	}},
	{"separator", replay.FaultUnloggedSeparator, 0, func(e extended, i int, alg rtmr.Alg) extended {
		return slices.Insert(e, i, alg.AppendHash(nil, make([]byte, 4)))
	}},
	{"block", replay.FaultBlockMissing, 3, func(e extended, i int, _ rtmr.Alg) extended { return slices.Delete(e, i, i+3) }},
}

// TestExplainRealLogs edits what real machines extended, one register at a
// time, and asks for the entry.
func TestExplainRealLogs(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for _, m := range testlogs.Machines(t) {
		t.Run(m.Name, func(t *testing.T) {
			var banks []rtmr.Alg
			for alg := range m.Held {
				if alg.Available() {
					banks = append(banks, alg)
				}
			}
			slices.Sort(banks)
			trails := trailsOf(t, m.Profile, banks, m.Logs...)
			if len(m.Differ) == 0 {
				if got := replay.Explain(t.Context(), trails, m.Held, replay.SearchOptions{}); len(got.Found)+len(got.NotTried) > 0 {
					t.Errorf("the log as it is: %+v", got.Found)
				}
			}
			byRegister := map[rtmr.Register][]*replay.Trail{}
			for _, x := range trails {
				byRegister[x.Register] = append(byRegister[x.Register], x)
			}
			for reg, of := range byRegister {
				if len(of[0].Steps) < 6 {
					continue
				}
				for range 2 {
					k := r.IntN(len(tamper))
					i := r.IntN(len(of[0].Steps) - tamper[k].room)
					t.Run(fmt.Sprintf("%s_%s_%d", reg, tamper[k].name, i), func(t *testing.T) { checkTamper(t, of, k, i) })
				}
			}
		})
	}
}

// checkTamper makes one edit in all banks, and holds what Explain finds against
// it: the same entry, or one whose edit folds alike.
func checkTamper(t *testing.T, trails []*replay.Trail, k, i int) {
	t.Helper()
	x0 := trails[0]
	before := extendedOf(x0)
	after := tamper[k].edit(slices.Clone(before), i, x0.Alg)
	if len(after) <= len(before) && slices.EqualFunc(after, before[:len(after)], slices.Equal[[]byte]) ||
		slices.EqualFunc(after, before, slices.Equal[[]byte]) {
		return // it is the log, or one that is ahead
	}
	quoted := hardware(trails, func(x *replay.Trail, e extended) extended { return tamper[k].edit(e, i, x.Alg) })
	got := proven(t, explain(t, trails, quoted, replay.SearchOptions{}))
	if len(got.Banks) != len(trails) {
		t.Errorf("proven in %v of %d banks", got.Banks, len(trails))
	}
	if got.Matched != len(after) {
		t.Errorf("matched %d, expected %d", got.Matched, len(after))
	}
	strict := sameKind(got.Kind, tamper[k].kind) && got.First <= i && i <= got.Last && got.Ahead == 0
	if strict {
		return
	}
	// Entries alike, and logs that are ahead, make some edits the same as others.
	if remade, ok := remake(before, &got, x0.Alg); hasTwins(after) || got.Ahead > 0 {
		if ok && !slices.EqualFunc(remade[:got.Matched], after, slices.Equal[[]byte]) {
			t.Errorf("%s at %d is not what was extended", got.Kind, got.First)
		}
		return
	}
	t.Errorf("found %s at %d to %d with %d ahead, expected %s at %d", got.Kind, got.First, got.Last, got.Ahead, tamper[k].kind, i)
}

// sameKind reports whether a kind is another's name where it has a closer one.
func sameKind(got, want replay.FaultKind) bool {
	switch got {
	case replay.FaultViolationMissing:
		return want == replay.FaultMissing
	case replay.FaultBootAggregate:
		return want == replay.FaultMissing || want == replay.FaultRepeated
	case replay.FaultHeadMissing, replay.FaultKexec, replay.FaultLogMissing:
		return want == replay.FaultMissing || want == replay.FaultBlockMissing
	}
	return got == want
}

// remake makes the edit that was found by the test's own means, if it has any.
func remake(before extended, x *replay.Explanation, alg rtmr.Alg) (e extended, ok bool) {
	for _, t := range tamper {
		fits := len(x.Edits) == 1 && (t.kind != replay.FaultBlockMissing || x.Last == x.First+2) &&
			t.kind != replay.FaultSwappedApart && t.kind != replay.FaultMoved
		if t.kind == x.Kind && fits {
			return t.edit(slices.Clone(before), x.First, alg), true
		}
	}
	return nil, false
}

// hasTwins reports whether entries are alike, those put in included.
func hasTwins(e extended) bool {
	seen := map[string]bool{}
	for _, d := range e {
		if seen[string(d)] {
			return true
		}
		seen[string(d)] = true
	}
	return false
}

// TestExplainEverywhere makes each edit at each position of a synthetic list.
func TestExplainEverywhere(t *testing.T) {
	trails := listOf(12, rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512)
	for k := range tamper {
		for i := range 12 - tamper[k].room {
			t.Run(fmt.Sprintf("%s_%d", tamper[k].name, i), func(t *testing.T) { checkTamper(t, trails, k, i) })
		}
	}
}

// TestExplainHopeless: a random value is explained by nothing, and within the
// budget.
func TestExplainHopeless(t *testing.T) {
	trails := listOf(3000, rtmr.SHA256)
	random := sha256.Sum256([]byte("no such value"))
	quoted := rtmr.Values{rtmr.SHA256: {pcr10: random[:]}}
	for _, budget := range []time.Duration{50 * time.Millisecond, 500 * time.Millisecond} {
		r := explain(t, trails, quoted, replay.SearchOptions{Budget: budget})
		if r.Elapsed > budget+250*time.Millisecond {
			t.Errorf("took %v of %v", r.Elapsed, budget)
		}
		for _, x := range r.Found {
			if x.Proven {
				t.Errorf("proven: %s", x.Text)
			}
		}
		if len(r.Found) == 0 || len(r.NotTried) == 0 || r.Tried == 0 || r.Folds == 0 {
			t.Errorf("%+v", r)
		}
		t.Logf("%d tried, %d folds, not tried: %s", r.Tried, r.Folds, strings.Join(r.NotTried, "\n"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if r := replay.Explain(ctx, trails, quoted, replay.SearchOptions{}); r.Elapsed > time.Second {
		t.Errorf("cancelled, and took %v", r.Elapsed)
	}
}
