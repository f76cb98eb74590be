package ima

import (
	"fmt"
	"io"
	"slices"

	"tallystick/rtmr"
)

// batchSize is how much of a list is parsed and hashed in one go.
const batchSize = DetectSize

// batch is a run of whole records, hashed together.
type batch struct {
	buf     []byte
	len     int   // bytes read into buf
	offset  int64 // of buf[0] in the list
	index   int   // of the first entry
	last    bool  // the source has ended
	used    int   // bytes of whole records
	entries []Entry
	at      []int
	digests []rtmr.Digest // banks, then hashes, for each entry
	sums    []byte
	flat    []byte        // template data of the template "ima", whose records interrupt it
	err     error         // what stopped the list behind this batch's entries
	done    chan struct{} // holds one value when the batch is hashed
}

func newBatch() *batch { return &batch{done: make(chan struct{}, 1)} }

// start makes b the batch behind prev, with prev's unfinished record in it.
func (b *batch) start(prev *batch) {
	rest := prev.buf[prev.used:prev.len]
	b.offset = prev.offset + int64(prev.used)
	b.index = prev.index + len(prev.entries)
	b.last, b.err = prev.last, nil
	if size := max(len(rest), batchSize); len(b.buf) < size {
		b.buf = make([]byte, size)
	}
	b.len = copy(b.buf, rest)
}

// read fills the buffer; where an unfinished record already does, it grows to
// twice of what has arrived.
func (b *batch) read(src io.Reader) {
	if b.last {
		return
	}
	if b.len == len(b.buf) {
		b.buf = append(b.buf, make([]byte, len(b.buf))...)
	}
	n, err := io.ReadFull(src, b.buf[b.len:])
	b.len += n
	if err != nil {
		b.last = true
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			b.err = err
		}
	}
}

// cut parses the batch's records; more says that the list goes on behind it.
func (r *Reader) cut(b *batch) (more bool) {
	b.entries, b.at, b.used, b.flat = b.entries[:0], b.at[:0], 0, b.flat[:0]
	for b.used < b.len {
		b.entries = append(b.entries, Entry{template: r.template, data: b.flat[len(b.flat):]})
		e := &b.entries[len(b.entries)-1]
		n, fault := r.layout.parse(b.buf[b.used:b.len], e)
		if n == 0 {
			b.entries = b.entries[:len(b.entries)-1]
			if fault != nil {
				b.err = fault.syntaxError(b.offset+int64(b.used), b.index+len(b.entries))
				return false
			}
			break
		}
		if r.template = e.template; r.template == templateIMA {
			b.keepFlat(len(e.data))
		}
		b.at = append(b.at, b.used)
		b.used += n
	}
	if b.last && b.used < b.len && b.err == nil {
		b.err = &SyntaxError{Offset: b.offset + int64(b.used), Entry: b.index + len(b.entries), Field: "record",
			Err: fmt.Errorf("the list ends %d bytes into it: %w", b.len-b.used, io.ErrUnexpectedEOF)}
	}
	return !b.last && b.err == nil
}

// keepFlat keeps n bytes that parse put behind b.flat, which holds less than
// the batch's records do.
func (b *batch) keepFlat(n int) {
	if cap(b.flat) < len(b.buf) {
		b.flat = make([]byte, 0, len(b.buf)) // the entry has memory of its own
		return
	}
	b.flat = b.flat[:len(b.flat)+n]
}

// hash computes what each entry of the batch hashes to and extends.
func (r *Reader) hash(b *batch) {
	b.digests, b.sums = b.digests[:0], b.sums[:0]
	size := 0
	for _, a := range r.hashes {
		size += a.Size()
	}
	for _, a := range r.banks {
		size += a.Size()
	}
	b.sums = slices.Grow(b.sums, size*len(b.entries))
	b.digests = slices.Grow(b.digests, (len(r.hashes)+len(r.banks))*len(b.entries))
	for i := range b.entries {
		e := &b.entries[i]
		start := len(b.digests)
		for _, a := range r.hashes {
			at := len(b.sums)
			b.sums = e.appendHash(b.sums, a)
			b.digests = append(b.digests, rtmr.Digest{Alg: a, Sum: b.sums[at:]})
		}
		e.computed = b.digests[start:len(b.digests):len(b.digests)]
		for _, a := range r.banks {
			b.digests = append(b.digests, r.extended(b, e, a))
		}
	}
}

// extended returns what the kernel extended for an entry into a bank: the
// recorded hash in the list's own bank, the recomputed one in the others.
func (r *Reader) extended(b *batch, e *Entry, a rtmr.Alg) rtmr.Digest {
	padded := r.opts.Profile.padded(a)
	violation := e.Violation()
	if !violation && !padded {
		if a == r.layout.alg {
			return e.recorded
		}
		return rtmr.Digest{Alg: a, Sum: e.hash(a)}
	}
	at := len(b.sums)
	b.sums = b.sums[:at+a.Size()]
	sum := b.sums[at:]
	if violation {
		r.opts.Profile.fillViolation(sum)
	} else {
		clear(sum)
		if r.layout.alg == rtmr.SHA1 {
			copy(sum, e.recorded.Sum)
		} else {
			copy(sum, e.hash(rtmr.SHA1))
		}
	}
	return rtmr.Digest{Alg: a, Sum: sum}
}
