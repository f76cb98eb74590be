package replay

// Align aligns two sequences of keys and returns each of a's partners in b, or
// -1, and how much work it was.
func Align(a, b []uint64) (match []int, work int) {
	al := newAlignment(a, b)
	return al.match, al.work
}
