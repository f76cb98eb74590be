package evidence

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/veraison/cmw"
)

// Part is an item that is read when the bundle is written, as a log is that need not
// be in memory. Size is how many bytes Content has, 1 or more: that fewer come is an
// error of WriteTo, and more are not read.
type Part struct {
	Key     string // ItemBootLog, ItemIMAList, ItemJournal or one of DamagedItem
	Size    int64
	Content io.Reader
}

// DamagedItem returns the key of the nth journal that was put aside, from 1.
func DamagedItem(n int) string { return fmt.Sprintf("%s%d", damaged, n) }

// Stream is a bundle that is to be written once, in memory that does not grow with
// its parts.
type Stream struct {
	pieces []Part // in the order of the file, with the frame between them
	size   int64
}

// Stream returns the bundle with parts beside what it holds. It is an error if they do
// not go together.
func (b *Bundle) Stream(parts ...Part) (*Stream, error) {
	if err := b.check(parts...); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	items, err := b.Items()
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	parts = slices.Clone(parts)
	for _, item := range items {
		parts = append(parts, Part{item.Key, int64(len(item.Value)), bytes.NewReader(item.Value)})
	}
	slices.SortFunc(parts, func(a, b Part) int { return compareKeys(a.Key, b.Key) })
	for i := range parts[1:] {
		if parts[i].Key == parts[i+1].Key {
			return nil, fmt.Errorf("bundle: %s comes twice", parts[i].Key)
		}
	}
	s := &Stream{}
	frame := appendText(appendText(appendHead(nil, 5, int64(len(parts)+1)), cmw.CmwCType), arc+version)
	for _, p := range parts {
		typ, _ := mediaType(p.Key)
		frame = appendText(appendHead(appendText(frame, p.Key), 4, 3), typ)
		s.add("frame", appendHead(frame, 2, p.Size))
		s.pieces, s.size = append(s.pieces, p), s.size+p.Size
		frame = appendHead(nil, 0, int64(cmw.Evidence)) // which ends the record
	}
	s.add("frame", frame)
	return s, nil
}

func (s *Stream) add(name string, data []byte) {
	s.pieces = append(s.pieces, Part{name, int64(len(data)), bytes.NewReader(data)})
	s.size += int64(len(data))
}

// Size is how many bytes WriteTo writes.
func (s *Stream) Size() int64 { return s.size }

// WriteTo writes the bundle. After an error what was written is no bundle: it is
// shorter than Size.
func (s *Stream) WriteTo(w io.Writer) (n int64, err error) {
	buf := make([]byte, 32<<10)
	for _, p := range s.pieces {
		// Without w's ReadFrom, which may splice, and without the part's WriteTo.
		k, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(p.Content, p.Size), buf)
		n += k
		if err == nil && k < p.Size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return n, fmt.Errorf("bundle: %s: %d of %d bytes: %w", p.Key, k, p.Size, err)
		}
	}
	return n, nil
}

// appendHead appends the head of a CBOR item, its argument as short as can be
// (RFC 8949 §3, §4.2.1).
func appendHead(dst []byte, major byte, n int64) []byte {
	switch m := major << 5; {
	case n < 24:
		return append(dst, m|byte(n))
	case n < 1<<8:
		return append(dst, m|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, m|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, m|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, m|27), uint64(n))
	}
}

func appendText(dst []byte, text string) []byte {
	return append(appendHead(dst, 3, int64(len(text))), text...)
}

// checkParts reports what cannot be a part.
func checkParts(parts []Part) error {
	damaged := 0
	for _, p := range parts {
		switch {
		case p.Size <= 0:
			return fmt.Errorf("%s of %d bytes, expected 1 or more", p.Key, p.Size)
		case isLog(p.Key):
		case p.Key == DamagedItem(damaged+1) && damaged < MaxDamaged:
			damaged++
		default:
			return fmt.Errorf("%q is no part, or not the next", p.Key)
		}
	}
	return nil
}
