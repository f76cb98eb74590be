package replay_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"tallystick/replay"
)

// checkMatch fails unless match pairs equal keys and rises in both sequences,
// and returns how many it pairs.
func checkMatch(t *testing.T, a, b []uint64, match []int) (n int) {
	t.Helper()
	last := -1
	for i, j := range match {
		switch {
		case j < 0:
			continue
		case j <= last:
			t.Fatalf("a[%d] is matched with b[%d], behind b[%d]", i, j, last)
		case a[i] != b[j]:
			t.Fatalf("a[%d] = %d is matched with b[%d] = %d", i, a[i], j, b[j])
		}
		last = j
		n++
	}
	return n
}

// common is the length of a longest common subsequence, by the textbook.
func common(a, b []uint64) int {
	above := make([]int, len(b)+1)
	for _, x := range a {
		row := make([]int, len(b)+1)
		for j, y := range b {
			if x == y {
				row[j+1] = above[j] + 1
			} else {
				row[j+1] = max(row[j], above[j+1])
			}
		}
		above = row
	}
	return above[len(b)]
}

// Where nothing repeats, or little of it, as many entries stay in place as can.
func TestAlignKeepsTheMost(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		a := permutation(r, 1+r.IntN(60))
		b := slices.Clone(a)
		r.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
		b = b[:r.IntN(len(b)+1)]
		match, _ := replay.Align(a, b)
		if got, want := checkMatch(t, a, b, match), common(a, b); got != want {
			t.Fatalf("%v and %v: %d in place, the most is %d", a, b, got, want)
		}
	}
	for range 300 { // nothing is unique in both: the table decides
		a, b := draw(r, r.IntN(60), 3), draw(r, r.IntN(60), 3)
		a, b = append(a, a...), append(b, b...)
		match, _ := replay.Align(a, b)
		if got, want := checkMatch(t, a, b, match), common(a, b); got != want {
			t.Fatalf("%v and %v: %d in place, the most is %d", a, b, got, want)
		}
	}
}

func permutation(r *rand.Rand, n int) []uint64 {
	out := make([]uint64, n)
	for i, v := range r.Perm(n) {
		out[i] = uint64(v)
	}
	return out
}

func draw(r *rand.Rand, n, of int) []uint64 {
	out := make([]uint64, n)
	for i := range out {
		out[i] = uint64(r.IntN(of))
	}
	return out
}

// The work grows as the lists do, whatever they are: not as their product.
func TestAlignWork(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	edited := func(n int) (a, b []uint64) {
		a = permutation(r, n)
		for i, x := range a {
			switch r.IntN(10) {
			case 0:
			case 1:
				b = append(b, uint64(n+i))
			case 2:
				b = append(b, x, uint64(2*n+i))
			default:
				b = append(b, x)
			}
		}
		for i := range b[:max(0, len(b)-50)] {
			if r.IntN(4) == 0 {
				j := i + r.IntN(50)
				b[i], b[j] = b[j], b[i]
			}
		}
		return a, b
	}
	for name, lists := range map[string]func(n int) (a, b []uint64){
		"edited_and_reordered": edited,
		"permuted":             func(n int) (a, b []uint64) { return permutation(r, n), permutation(r, n) },
		"reversed": func(n int) (a, b []uint64) {
			a = permutation(r, n)
			b = slices.Clone(a)
			slices.Reverse(b)
			return a, b
		},
		"ten_kinds_only":   func(n int) (a, b []uint64) { return draw(r, n, 10), draw(r, n, 10) },
		"each_a_few_times": func(n int) (a, b []uint64) { return draw(r, n, n/3), draw(r, n, n/3) },
		"one_kind_only":    func(n int) (a, b []uint64) { return make([]uint64, n), make([]uint64, n/2) },
		"gaps_as_large_as_the_table": func(n int) (a, b []uint64) {
			for anchor := uint64(10); len(a) < n; anchor++ {
				a, b = append(append(a, draw(r, 256, 5)...), anchor), append(append(b, draw(r, 256, 5)...), anchor)
			}
			return a, b
		},
		"short_against_long": func(n int) (a, b []uint64) { return draw(r, n, 100), draw(r, 300, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{20_000, 200_000} {
				a, b := lists(n)
				match, work := replay.Align(a, b)
				checkMatch(t, a, b, match)
				if most := 160 * (len(a) + len(b)); work > most {
					t.Errorf("%d and %d entries took %d steps, expected at most %d", len(a), len(b), work, most)
				}
			}
		})
	}
}
