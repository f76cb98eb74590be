package evidence_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"tallystick/evidence"
)

// split returns the bundle's logs as parts, and the bundle without them.
func split(b *evidence.Bundle) (*evidence.Bundle, []evidence.Part) {
	var parts []evidence.Part
	take := func(key string, data []byte) {
		if len(data) > 0 {
			parts = append(parts, evidence.Part{Key: key, Size: int64(len(data)), Content: iotest.OneByteReader(bytes.NewReader(data))})
		}
	}
	take(evidence.ItemJournal, b.Journal)
	take(evidence.ItemIMAList, b.IMAList)
	for i, journal := range b.Damaged {
		take(evidence.DamagedItem(i+1), journal)
	}
	take(evidence.ItemBootLog, b.BootLog)
	rest := *b
	rest.Journal, rest.IMAList, rest.BootLog, rest.Damaged = nil, nil, nil, nil
	return &rest, parts
}

// TestStream: what is streamed is, to the byte, what veraison's library makes of the
// bundle in memory, whatever the sizes: those at which a CBOR head grows too.
func TestStream(t *testing.T) {
	bundles := []*evidence.Bundle{tdBundle(), tpmBundle()}
	for _, size := range []int{1, 23, 24, 255, 256, 65535, 65536, 70000} {
		b := tdBundle()
		b.Journal = bytes.Repeat([]byte{'j'}, size)
		b.Damaged[1] = b.Journal[:(size+1)/2]
		bundles = append(bundles, b)
	}
	for _, b := range bundles {
		want := marshal(t, b)
		rest, parts := split(b)
		s, err := rest.Stream(parts...)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		n, err := s.WriteTo(&got)
		if err != nil || n != s.Size() || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d bytes of %d, %v: %.100x, expected %.100x", n, s.Size(), err, got.Bytes(), want)
		}
	}
}

// endless is a part that never ends, and counts what is read of it.
type endless struct{ read int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.read += int64(len(p))
	return len(p), nil
}

// TestStreamBounded: a part of 8 GiB, whose head has eight bytes, is neither kept nor
// read ahead.
func TestStreamBounded(t *testing.T) {
	const size = 8 << 30
	b := tdBundle()
	b.Journal = nil
	content := new(endless)
	s, err := b.Stream(evidence.Part{Key: evidence.ItemJournal, Size: size, Content: content})
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	w := &limited{left: 1 << 20, err: full}
	if n, err := s.WriteTo(w); !errors.Is(err, full) || n >= s.Size() || content.read > 2<<20 {
		t.Errorf("%d bytes, %v; %d were read", n, err, content.read)
	}
	if !bytes.Contains(w.data, []byte("\x6bcel-journal\x83\x78\x22application/vnd.tallystick.cel-tlv\x5b\x00\x00\x00\x02\x00\x00\x00\x00")) {
		t.Errorf("%.900q", w.data)
	}
}

// limited is a writer that takes so many bytes.
type limited struct {
	left int
	err  error
	data []byte
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(l.left, len(p))
	l.left -= n
	l.data = append(l.data, p[:n]...)
	if n < len(p) {
		return n, l.err
	}
	return n, nil
}

func TestStreamFails(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		from io.Reader
		want error
	}{
		{"too short", strings.NewReader("two"), io.ErrUnexpectedEOF},
		{"it cannot be read", io.MultiReader(strings.NewReader("two"), iotest.ErrReader(broken)), broken},
	} {
		b := tdBundle()
		b.Journal = nil
		s, err := b.Stream(evidence.Part{Key: evidence.ItemJournal, Size: 4, Content: c.from})
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.WriteTo(io.Discard)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "cel-journal: 3 of 4 bytes") || n >= s.Size() {
			t.Errorf("%s: %d of %d bytes, %v", c.name, n, s.Size(), err)
		}
	}
}

func TestStreamRefuses(t *testing.T) {
	part := func(key string, size int64) evidence.Part {
		return evidence.Part{Key: key, Size: size, Content: new(endless)}
	}
	for want, parts := range map[string][]evidence.Part{
		"cel-journal comes twice":             {part("cel-journal", 1)},
		"damaged-journal-1 comes twice":       {part("damaged-journal-1", 1)},
		"boot-log of 0 bytes":                 {part("boot-log", 0)},
		`"statement" is no part`:              {part("statement", 1)},
		`"td-quote" is no part`:               {part("td-quote", 1)},
		`"damaged-journal-2" is no part, or`:  {part("damaged-journal-2", 1)},
		`"damaged-journal-10" is no part, or`: {part("damaged-journal-10", 1)},
	} {
		if _, err := tdBundle().Stream(parts...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
	b, parts := split(tdBundle())
	b.Statement.Logs = b.Statement.Logs[1:]
	if _, err := b.Stream(parts...); err == nil || !strings.Contains(err.Error(), "boot-log has no role") {
		t.Errorf("a part without a role: %v", err)
	}
}
