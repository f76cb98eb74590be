package replay

import (
	"slices"
	"sort"
)

// maxTable bounds the longest-common-subsequence table of one gap, in cells.
// A gap of n × m cells costs at most √maxTable / 2 cells for each of its
// n + m entries, so all gaps together cost at most 128 for each entry.
const maxTable = 1 << 16

// alignment matches equal keys of two sequences, in order in both.
//
// Keys that occur once in both are anchors; of those, the longest chain that
// rises in both sequences is kept (patience sorting). Where nothing repeats
// that is the most that can be kept, and an IMA list hardly repeats: the
// kernel drops duplicates. A gap between two anchors is matched by longest
// common subsequence if its table is small. A larger one, which has no key
// that is unique, is matched k-th occurrence with k-th occurrence, by the
// longest chain again. The work is O((N+M) log (N+M)) whatever the sequences.
type alignment struct {
	a, b  []uint64
	match []int // for each of a its partner in b, or -1
	table []uint16
	work  int // keys looked at, comparisons made
}

// gap is a range of each sequence: a[a0:a1] and b[b0:b1].
type gap struct{ a0, a1, b0, b1 int }

func (g gap) empty() bool { return g.a0 == g.a1 || g.b0 == g.b1 }

// link is a pair of places that have the same key.
type link struct{ a, b int }

func newAlignment(a, b []uint64) *alignment {
	al := &alignment{a: a, b: b, match: make([]int, len(a))}
	for i := range al.match {
		al.match[i] = -1
	}
	g := al.trim(gap{0, len(a), 0, len(b)})
	al.keep(g, al.chain(al.unique(g)), al.fill)
	return al
}

// fill matches what lies between two anchors.
func (al *alignment) fill(g gap) {
	g = al.trim(g)
	switch {
	case g.empty():
	case g.a1-g.a0 <= maxTable/(g.b1-g.b0):
		al.subsequence(g)
	default:
		al.keep(g, al.chain(al.occurrences(g)), func(g gap) { al.trim(g) })
	}
}

// keep matches a chain's links and calls between for the gaps that they leave.
func (al *alignment) keep(g gap, chain []link, between func(gap)) {
	a0, b0 := g.a0, g.b0
	for _, l := range chain {
		al.match[l.a] = l.b
		between(gap{a0, l.a, b0, l.b})
		a0, b0 = l.a+1, l.b+1
	}
	between(gap{a0, g.a1, b0, g.b1})
}

// trim matches the ends that both have in common and returns what is left.
func (al *alignment) trim(g gap) gap {
	for !g.empty() && al.a[g.a0] == al.b[g.b0] {
		al.match[g.a0] = g.b0
		g.a0, g.b0 = g.a0+1, g.b0+1
		al.work++
	}
	for !g.empty() && al.a[g.a1-1] == al.b[g.b1-1] {
		g.a1, g.b1 = g.a1-1, g.b1-1
		al.match[g.a1] = g.b1
		al.work++
	}
	return g
}

// unique links the keys that occur once in each sequence, in a's order.
func (al *alignment) unique(g gap) (links []link) {
	type seen struct{ inA, inB, at int }
	keys := make(map[uint64]seen, g.b1-g.b0)
	for j := g.b0; j < g.b1; j++ {
		s := keys[al.b[j]]
		keys[al.b[j]] = seen{0, s.inB + 1, j}
	}
	for _, k := range al.a[g.a0:g.a1] {
		if s, ok := keys[k]; ok {
			s.inA++
			keys[k] = s
		}
	}
	for i := g.a0; i < g.a1; i++ {
		if s := keys[al.a[i]]; s.inA == 1 && s.inB == 1 {
			links = append(links, link{i, s.at})
		}
	}
	al.work += 2*(g.a1-g.a0) + g.b1 - g.b0
	return links
}

// occurrences links each key's k-th occurrence in a with its k-th in b.
func (al *alignment) occurrences(g gap) (links []link) {
	places := make(map[uint64][]int)
	for j := g.b0; j < g.b1; j++ {
		places[al.b[j]] = append(places[al.b[j]], j)
	}
	for i := g.a0; i < g.a1; i++ {
		if p := places[al.a[i]]; len(p) > 0 {
			links = append(links, link{i, p[0]})
			places[al.a[i]] = p[1:]
		}
	}
	al.work += g.a1 - g.a0 + g.b1 - g.b0
	return links
}

// chain returns the longest run of links, which are in a's order, that is in
// b's order too.
func (al *alignment) chain(links []link) []link {
	var ends []int // the link at which a chain of each length can end earliest
	before := make([]int, len(links))
	for i, l := range links {
		n := sort.Search(len(ends), func(k int) bool {
			al.work++
			return links[ends[k]].b > l.b
		})
		before[i] = -1
		if n > 0 {
			before[i] = ends[n-1]
		}
		if n == len(ends) {
			ends = append(ends, i)
		} else {
			ends[n] = i
		}
	}
	if len(ends) == 0 {
		return nil
	}
	out := make([]link, 0, len(ends))
	for i := ends[len(ends)-1]; i >= 0; i = before[i] {
		out = append(out, links[i])
	}
	slices.Reverse(out)
	return out
}

// subsequence matches a longest common subsequence. The cell of (i, j) is its
// length in what is behind a[i] and b[j].
func (al *alignment) subsequence(g gap) {
	n, m := g.a1-g.a0, g.b1-g.b0
	width := m + 1
	al.table = slices.Grow(al.table[:0], (n+1)*width)[:(n+1)*width]
	clear(al.table)
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			at := i*width + j
			if al.a[g.a0+i] == al.b[g.b0+j] {
				al.table[at] = al.table[at+width+1] + 1
			} else {
				al.table[at] = max(al.table[at+width], al.table[at+1])
			}
		}
	}
	al.work += n * m
	for i, j := 0, 0; i < n && j < m; {
		switch at := i*width + j; {
		case al.a[g.a0+i] == al.b[g.b0+j]:
			al.match[g.a0+i] = g.b0 + j
			i, j = i+1, j+1
		case al.table[at+width] >= al.table[at+1]:
			i++
		default:
			j++
		}
	}
}
