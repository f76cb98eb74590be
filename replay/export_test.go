package replay

// Align aligns two sequences of keys and returns each of a's partners in b, or
// -1, and how much work it was.
func Align(a, b []uint64) (match []int, work int) {
	al := newAlignment(a, b)
	return al.match, al.work
}

// BootAggregates returns how many boot_aggregate entries the folded boot
// registers proved. Those that they contradict are findings.
func (f *Fold) BootAggregates() int { return f.aggregates }
