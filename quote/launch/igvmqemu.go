package launch

// heldPages are the run of page data that QEMU has read of an IGVM file and not yet
// added (backends/igvm.c, qigvm_process_mem_page): it adds a run when the next page
// data does not go on with it, and at the end of the file. Parameters are added when
// their insertion is read, and so before a run that is still held back.
type heldPages struct {
	pages []pageOf
	last  igvmHeader // of the last page
}

// goOnWith tells whether the page data of a header goes on with the run: it is the
// next directive, and the next page of memory, and has the same mask, flags and
// type. Both have data, or neither has.
func (r *heldPages) goOnWith(h igvmHeader) bool {
	return len(r.pages) > 0 &&
		h.directive == r.last.directive+1 &&
		h.u64(0) == r.last.u64(0)+PageSize &&
		h.u32(8) == r.last.u32(8) &&
		h.u32(16) == r.last.u32(16) &&
		h.u16(20) == r.last.u16(20) &&
		withoutData(h) == withoutData(r.last)
}

func withoutData(h igvmHeader) bool { return h.u32(12) == 0 }

// hold takes a page into the run.
func (r *heldPages) hold(h igvmHeader, p pageOf) {
	r.pages, r.last = append(r.pages, p), h
}

// inDoubt tells whether versions of QEMU hold different pages now: Coconut's, before
// QEMU could read IGVM files, has each page without data in a run of its own.
func (r *heldPages) inDoubt() bool { return len(r.pages) > 1 && withoutData(r.last) }

// release adds the run.
func (l *igvmLoader) release() {
	for _, p := range l.held.pages {
		l.add(p)
	}
	l.held.pages = l.held.pages[:0]
}
