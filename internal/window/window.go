// Package window reads a stream through a buffer that grows only as bytes
// arrive, so that a length field in hostile input cannot make a parser
// allocate more than twice what the input really holds.
package window

import "io"

// Reader hands out the stream's next bytes without copying them.
type Reader struct {
	src      io.Reader
	buf      []byte
	pos, end int
	off      int64
	err      error
}

// New returns a Reader whose buffer begins at size bytes.
func New(src io.Reader, size int) *Reader {
	return &Reader{src: src, buf: make([]byte, size)}
}

// Offset is the stream offset of the next byte.
func (w *Reader) Offset() int64 { return w.off }

// Peek returns the next n bytes, valid until the next Peek. Where the stream
// ends earlier it returns what is left with io.ErrUnexpectedEOF, or with
// io.EOF if nothing is; other errors are those of the source.
func (w *Reader) Peek(n int) ([]byte, error) {
	for w.end-w.pos < n && w.err == nil {
		w.fill(n)
	}
	if have := w.end - w.pos; have < n {
		err := w.err
		if err == io.EOF && have > 0 {
			err = io.ErrUnexpectedEOF
		}
		return w.buf[w.pos:w.end], err
	}
	return w.buf[w.pos : w.pos+n], nil
}

// Skip moves past n bytes that Peek has returned.
func (w *Reader) Skip(n int) {
	w.pos += n
	w.off += int64(n)
}

// fill reads once, after making room towards n unread bytes.
func (w *Reader) fill(n int) {
	if w.pos > 0 && w.pos+n > len(w.buf) {
		w.end = copy(w.buf, w.buf[w.pos:w.end])
		w.pos = 0
	}
	if w.end == len(w.buf) { // full of bytes that did arrive: double
		w.buf = append(w.buf, make([]byte, min(n, 2*len(w.buf))-len(w.buf))...)
	}
	k, err := w.src.Read(w.buf[w.end:])
	w.end += k
	w.err = err
	if k == 0 && err == nil {
		w.err = w.readAgain()
	}
}

// readAgain bounds the empty reads that a source may return, as bufio does.
func (w *Reader) readAgain() error {
	for range 100 {
		k, err := w.src.Read(w.buf[w.end:])
		w.end += k
		if k > 0 || err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}
