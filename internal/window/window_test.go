package window_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"tallystick/internal/readertest"
	"tallystick/internal/window"
)

// emptyReads gives (0, nil) so many times before each byte.
type emptyReads struct {
	src         io.Reader
	times, left int
}

func (r *emptyReads) Read(p []byte) (int, error) {
	if r.left > 0 {
		r.left--
		return 0, nil
	}
	r.left = r.times
	return r.src.Read(p[:min(len(p), 1)])
}

var errBroken = errors.New("errBroken")

// sources give the same bytes in different ways.
var sources = map[string]func(b []byte) io.Reader{
	"whole":                      func(b []byte) io.Reader { return bytes.NewReader(b) },
	"one byte a read":            func(b []byte) io.Reader { return iotest.OneByteReader(bytes.NewReader(b)) },
	"half of what is asked":      func(b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) },
	"the end with the last data": func(b []byte) io.Reader { return iotest.DataErrReader(bytes.NewReader(b)) },
	"empty reads":                func(b []byte) io.Reader { return &emptyReads{src: bytes.NewReader(b), times: 3} },
}

// FuzzReader: however the source gives them, and however the caller asks for
// them, the bytes are those of the source.
func FuzzReader(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), []byte{0x44, 0x10, 0x8f, 0x01}, uint8(3))
	f.Add(bytes.Repeat([]byte("tally"), 100), []byte{0xff, 0x0f, 0xf0, 0xff, 0xff}, uint8(16))
	f.Fuzz(func(t *testing.T, log, steps []byte, size uint8) {
		for name, source := range sources {
			w := window.New(source(log), 1+int(size))
			at := 0
			for _, step := range steps { // peek 8 × the high half, skip 8 × the low half
				n := 8 * int(step>>4)
				b, err := w.Peek(n)
				want := log[at:min(at+n, len(log))]
				if !bytes.Equal(b, want) || (err == nil) != (len(want) == n) || (err == io.EOF) != (len(want) < n && len(want) == 0) {
					t.Fatalf("%s: Peek(%d) at %d of %d gives %q, %v", name, n, at, len(log), b, err)
				}
				skip := min(8*int(step&0xF), len(b))
				w.Skip(skip)
				if at += skip; w.Offset() != int64(at) {
					t.Fatalf("%s: offset %d, expected %d", name, w.Offset(), at)
				}
			}
		}
	})
}

// TestPeekAllocation: what is asked for costs memory only as it arrives.
func TestPeekAllocation(t *testing.T) {
	const size, arrived = 1 << 10, 100 << 10
	for name, source := range sources {
		src := source(make([]byte, arrived))
		var b []byte
		var err error
		used := readertest.Allocated(func() { b, err = window.New(src, size).Peek(1 << 40) })
		if len(b) != arrived || err != io.ErrUnexpectedEOF {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		if used > 8*arrived { // a buffer of less than twice that, those before it, and the zeros appended
			t.Errorf("%s: %d bytes allocated for %d", name, used, arrived)
		}
	}
}

// TestPeekDoesNotGrow: a window that is peeked in steps keeps its first buffer.
func TestPeekDoesNotGrow(t *testing.T) {
	const size = 4 << 10
	w := window.New(bytes.NewReader(make([]byte, 1<<20)), size)
	used := readertest.Allocated(func() {
		for err := error(nil); err == nil; {
			if _, err = w.Peek(1000); err == nil {
				w.Skip(999)
			}
		}
	})
	if used > size || w.Offset() < 1<<20-1000 {
		t.Errorf("%d bytes allocated in walking to offset %d", used, w.Offset())
	}
}

// TestSourceError: the source's error is given as it is, when what came before
// it does not suffice, and again.
func TestSourceError(t *testing.T) {
	w := window.New(io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(errBroken)), 2)
	for _, step := range []struct {
		n    int
		want string
		err  error
	}{{2, "ab", nil}, {3, "abc", nil}, {4, "abc", errBroken}, {1, "a", nil}, {4, "abc", errBroken}} {
		b, err := w.Peek(step.n)
		if string(b) != step.want || err != step.err {
			t.Errorf("Peek(%d): %q, %v, expected %q, %v", step.n, b, err, step.want, step.err)
		}
	}
	w.Skip(3)
	if b, err := w.Peek(1); len(b) != 0 || err != errBroken {
		t.Errorf("behind the last byte: %q, %v", b, err)
	}
}

// TestNoProgress: a source that gives neither bytes nor an error ends.
func TestNoProgress(t *testing.T) {
	b, err := window.New(&emptyReads{src: bytes.NewReader([]byte("ab")), times: 1 << 30, left: 0}, 8).Peek(2)
	if string(b) != "a" || err != io.ErrNoProgress {
		t.Errorf("%q, %v", b, err)
	}
}
