package ima

import (
	"fmt"
	"hash"
	"io"
	"slices"

	"tallystick/rtmr"
)

// batchSize is how much of a list is parsed and hashed in one go.
const batchSize = 128 << 10

// batch is a run of whole records, hashed together.
type batch struct {
	buf      []byte
	len      int   // bytes read into buf
	offset   int64 // of buf[0] in the list
	index    int   // of the first entry
	last     bool  // the source has ended
	used     int   // bytes of whole records
	records  []record
	template string        // of the last record
	flat     []byte        // template data of the template "ima", whose records interrupt it
	hashes   []hash.Hash   // one in each algorithm that is asked for
	sums     []byte        // the hashes of each entry
	err      error         // what stopped the list behind this batch's entries
	done     chan struct{} // holds one value when the batch is hashed
}

// record is where an entry stands in its batch. Batches go from core to core,
// so it holds no more than what is not found again at once.
type record struct {
	template string
	at       int32 // of the record in buf
	data     int32 // of the template data in buf, or in flat
	size     int32 // of the template data
	md5      bool  // as in Entry
	named    bool
}

func newBatch() *batch { return &batch{done: make(chan struct{}, 1)} }

// start makes b the batch behind prev, with prev's unfinished record in it.
func (b *batch) start(prev *batch) {
	rest := prev.buf[prev.used:prev.len]
	b.offset = prev.offset + int64(prev.used)
	b.index = prev.index + len(prev.records)
	b.template = prev.template
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
func (b *batch) cut(l layout) (more bool) {
	records, flat, at := b.records[:0], b.flat[:0], 0
	e := Entry{template: b.template}
	for at < b.len {
		e = Entry{template: e.template, data: flat[len(flat):]}
		n, fault := l.parse(b.buf[at:b.len], &e)
		if fault != nil {
			b.err = fault.syntaxError(b.offset+int64(at), b.index+len(records))
		}
		if n == 0 {
			break
		}
		rec := record{template: e.template, at: int32(at), size: int32(len(e.data)), md5: e.md5, named: e.named}
		at += n
		if e.template == templateIMA {
			rec.data = int32(len(flat))
			flat = append(slices.Grow(flat, b.len-at+len(e.data)), e.data...)
		} else {
			rec.data = int32(at - len(e.data))
		}
		records = append(records, rec)
	}
	b.records, b.flat, b.used, b.template = records, flat, at, e.template
	if b.last && b.used < b.len && b.err == nil {
		b.err = &SyntaxError{Offset: b.offset + int64(b.used), Entry: b.index + len(b.records), Field: "record",
			Err: fmt.Errorf("the list ends %d bytes into it: %w", b.len-b.used, io.ErrUnexpectedEOF)}
	}
	return !b.last && b.err == nil
}

// entry points e, which has the list's layout, at the batch's i-th entry.
func (b *batch) entry(i int, l layout, e *Entry) {
	rec := &b.records[i]
	data := b.buf
	if rec.template == templateIMA {
		data = b.flat
	}
	head, end := b.buf[rec.at:], rec.data+rec.size
	e.template = rec.template
	e.data = data[rec.data:end:end]
	e.md5, e.named = rec.md5, rec.named
	e.pcr = l.order.uint32(head)
	e.recorded.Sum = head[4 : 4+l.alg.Size() : 4+l.alg.Size()]
}

// hash computes what each entry of the batch hashes to.
func (b *batch) hash(l layout, algs []rtmr.Alg) {
	for len(b.hashes) < len(algs) {
		b.hashes = append(b.hashes, algs[len(b.hashes)].New())
	}
	size := 0
	for _, a := range algs {
		size += a.Size()
	}
	sums, hashes := slices.Grow(b.sums[:0], size*len(b.records)), b.hashes
	e := l.entry()
	var buf [20 + imaNameSize]byte
	for i := range b.records {
		b.entry(i, l, &e)
		data := e.hashed(&buf)
		for _, h := range hashes {
			h.Reset()
			h.Write(data)
			sums = h.Sum(sums)
		}
	}
	b.sums = sums
}
