package cel

// maxIndices bounds how many indices are told apart. There are 24 PCRs and 5
// CC-MRs; NV indices are an attacker's choice.
const maxIndices = 256

// recNums follows the two ways in which record numbers count.
type recNums struct {
	next map[Index]uint64 // CEL: from 0 for each index
	last uint64           // go-eventlog: from 0 through the log
	any  bool
}

func newRecNums() recNums { return recNums{next: make(map[Index]uint64)} }

// follows reports whether a record numbered n may come next.
func (r *recNums) follows(x Index, n uint64) bool {
	return n == r.next[x] || (r.any && n == r.last+1)
}

func (r *recNums) saw(x Index, n uint64) {
	r.last, r.any = n, true
	if _, ok := r.next[x]; ok || len(r.next) < maxIndices {
		r.next[x] = n + 1
	}
}
