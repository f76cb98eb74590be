package replay

import (
	"hash/maphash"
	"iter"

	"tallystick/rtmr"
)

// Parts joins lists that were read one after another while the kernel went on
// measuring and somebody trimmed its list, so that a part may begin with what
// the part before ends with. It keeps eight bytes an entry. The zero value has
// no parts yet.
type Parts struct {
	seed maphash.Seed
	keys []uint64 // of all entries so far, in order
}

// Overlap reads a list and returns how many of its first entries are the last
// of the parts before: the most that fit. An error ends the list: who folds it
// meets that again.
//
// The kernel lists a measurement once, but a violation as often as it happens
// (ima_queue.c, ima_add_template_entry). So where nothing but violations would
// be in both, sure is false, and the parts are taken not to overlap.
func (p *Parts) Overlap(list iter.Seq2[rtmr.Measurement, error]) (entries int, sure bool) {
	if p.keys == nil {
		p.seed = maphash.MakeSeed()
	}
	var next []uint64
	violations := 0 // at the list's beginning
	for m, err := range list {
		if err != nil {
			break
		}
		if v, ok := m.Entry.(interface{ Violation() bool }); ok && v.Violation() && violations == len(next) {
			violations++
		}
		next = append(next, p.key(&m))
	}
	entries = overlap(p.keys, next)
	sure = entries == 0 || entries > violations
	if !sure {
		entries = 0
	}
	p.keys = append(p.keys, next[entries:]...)
	return entries, sure
}

// key stands for an entry: its register, type and data. The digests are left
// out, for parts of one list may be from different banks' files.
func (p *Parts) key(m *rtmr.Measurement) uint64 {
	var h maphash.Hash
	h.SetSeed(p.seed)
	h.WriteString(m.Register.String())
	h.WriteString(m.Entry.Type())
	h.Write(m.Entry.Data())
	return h.Sum64()
}

// overlap returns the length of the longest end of a that b begins with, by
// the prefix function of Knuth, Morris and Pratt over b, run through a.
func overlap(a, b []uint64) int {
	if len(b) == 0 {
		return 0
	}
	fail := make([]int, len(b)) // of b[:i+1]: its longest end that it begins with
	matched := 0
	advance := func(k uint64) {
		for matched > 0 && (matched == len(b) || b[matched] != k) {
			matched = fail[matched-1]
		}
		if b[matched] == k {
			matched++
		}
	}
	for i := 1; i < len(b); i++ {
		advance(b[i])
		fail[i] = matched
	}
	matched = 0
	for _, k := range a[max(0, len(a)-len(b)):] {
		advance(k)
	}
	return matched
}
