package replay

import "bytes"

// FaultKind names a fault, in JSON too.
type FaultKind string

// The faults of single entries.
const (
	FaultMissing           FaultKind = "missing"                // in the log, and not extended
	FaultViolationMissing  FaultKind = "violation-not-extended" // a FaultMissing that is an IMA violation
	FaultRepeated          FaultKind = "repeated"               // extended twice, one after the other
	FaultSwapped           FaultKind = "swapped"                // extended in the other order than its neighbour
	FaultSwappedApart      FaultKind = "swapped-apart"          // two entries extended in each other's place
	FaultMoved             FaultKind = "moved"                  // extended earlier or later than logged
	FaultAltered           FaultKind = "altered"                // another digest was extended in a bank
	FaultBlockMissing      FaultKind = "block-missing"          // several entries in a row not extended
	FaultHeadMissing       FaultKind = "head-missing"           // the register begins with a later entry
	FaultUnloggedZeros     FaultKind = "unlogged-zeros"         // a digest of zeros that no log has
	FaultUnloggedSeparator FaultKind = "unlogged-separator"
	FaultUnloggedEntry     FaultKind = "unlogged-entry" // an entry that the log lacks
	FaultReplaced          FaultKind = "replaced"       // another entry was extended in its place
)

// local is a fault of one place, by the tape's position: nothing is known
// where it would not change what bank s extends.
type local struct {
	reach int // how many steps it takes up at most, from its position on
	make  func(t *tape, s *strip, i int, e *edit) (ok bool)
}

// same reports whether two steps extend the same, so that nothing tells them
// apart.
func (s *strip) same(i, j int) bool { return bytes.Equal(s.in(i), s.in(j)) }

func missing(t *tape, s *strip, i int, e *edit) bool {
	if i >= len(t.steps) {
		return false
	}
	e.add(fault{kind: FaultMissing, at: i, n: 1}, i, i+1)
	return true
}

func repeated(t *tape, s *strip, i int, e *edit) bool {
	if i >= len(t.steps) {
		return false
	}
	e.add(fault{kind: FaultRepeated, at: i, n: 1}, i+1, i+1, own(i, 1))
	return true
}

func swapped(t *tape, s *strip, i int, e *edit) bool {
	if i+1 >= len(t.steps) || s.same(i, i+1) {
		return false
	}
	e.add(fault{kind: FaultSwapped, at: i, n: 2}, i, i+2, own(i+1, 1), own(i, 1))
	return true
}

// altered returns the fault that a step extended a digest of another form.
func altered(f form) local {
	return local{1, func(t *tape, s *strip, i int, e *edit) bool {
		if i >= len(t.steps) {
			return false
		}
		it := as(i, f)
		if !it.alters(t, s, i) {
			return false
		}
		e.add(fault{kind: FaultAltered, at: i, n: 1, with: it}, i, i+1, it)
		return true
	}}
}

// alters reports whether the item is known and another digest than step i's.
func (it *item) alters(t *tape, s *strip, i int) bool {
	if it.of == nil && it.entry() && t.steps[i] == nil {
		return false
	}
	var buf [64]byte
	d := it.digests(t, s.alg, &buf)
	return d != nil && !bytes.Equal(d, s.in(i))
}

// unlogged returns the fault that something was extended that no log has.
func unlogged(k FaultKind, f form) local {
	return local{0, func(t *tape, s *strip, i int, e *edit) bool {
		e.add(fault{kind: k, at: i, with: made(f)}, i, i, made(f))
		return true
	}}
}

// movedLater and the others below are by how many steps apart.
func movedLater(d int) local {
	return local{d + 1, func(t *tape, s *strip, i int, e *edit) bool {
		if i+d >= len(t.steps) {
			return false
		}
		e.add(fault{kind: FaultMoved, at: i, n: d}, i, i+d+1, own(i+1, d), own(i, 1))
		return true
	}}
}

func movedEarlier(d int) local {
	return local{d + 1, func(t *tape, s *strip, i int, e *edit) bool {
		if i+d >= len(t.steps) {
			return false
		}
		e.add(fault{kind: FaultMoved, at: i + d, n: -d}, i, i+d+1, own(i+d, 1), own(i, d))
		return true
	}}
}

func swappedApart(d int) local {
	return local{d + 1, func(t *tape, s *strip, i int, e *edit) bool {
		if i+d >= len(t.steps) || s.same(i, i+d) {
			return false
		}
		e.add(fault{kind: FaultSwappedApart, at: i, n: d}, i, i+d+1, own(i+d, 1), own(i+1, d-1), own(i, 1))
		return true
	}}
}

func blockMissing(d int) local {
	return local{d, func(t *tape, s *strip, i int, e *edit) bool {
		if i+d > len(t.steps) {
			return false
		}
		e.add(fault{kind: FaultBlockMissing, at: i, n: d}, i, i+d)
		return true
	}}
}

func headMissing(t *tape, s *strip, i int, e *edit) bool {
	if i < 2 || i >= len(t.steps) {
		return false
	}
	e.add(fault{kind: FaultHeadMissing, at: 0, n: i}, 0, i)
	return true
}

// inserted and replacedBy are faults of an entry that a candidate tells.
func inserted(c item) local {
	return local{0, func(t *tape, s *strip, i int, e *edit) bool {
		if c.of.bank(s.alg) == nil {
			return false
		}
		e.add(fault{kind: FaultUnloggedEntry, at: i, with: c}, i, i, c)
		return true
	}}
}

func replacedBy(c item) local {
	return local{1, func(t *tape, s *strip, i int, e *edit) bool {
		if i >= len(t.steps) || !c.alters(t, s, i) {
			return false
		}
		e.add(fault{kind: FaultReplaced, at: i, n: 1, with: c}, i, i+1, c)
		return true
	}}
}

// The groups of local faults that are searched together.
var (
	swaps   = []local{{2, swapped}}
	doubled = []local{{1, missing}, {1, repeated}}
	alters  = []local{altered(zeros), altered(ones), altered(paddedSHA1), altered(computed)}
	foreign = []local{
		unlogged(FaultUnloggedZeros, zeros), unlogged(FaultUnloggedSeparator, separator0),
		unlogged(FaultUnloggedSeparator, separatorF), unlogged(FaultUnloggedSeparator, separatorError)}
)
