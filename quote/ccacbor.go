package quote

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"
)

// cborReader takes one CBOR item after another (RFC 8949). The first one that is
// not as expected ends it: what is read after that is zero, and err says where.
//
// A decoder into Go structures is not used because an error has to name the
// offset and the claim, and because it must not matter what such a decoder makes
// of a map with a label twice, of a text in place of bytes, or of lengths that are
// indefinite: all of that is an error here, as in the tokens' own profile
// (draft-ffm-rats-cca-token, Token Encoding and Signing: definite lengths).
type cborReader struct {
	data []byte
	off  int // of the next item
	base int // data's offset in the file
	err  error
}

// The major types (RFC 8949 §3.1).
const (
	cborUint = iota
	cborNegative
	cborBytes
	cborText
	cborArray
	cborMap
	cborTag
	cborSimple

	cborNull = cborSimple<<5 | 22 // an item's first byte
)

var cborNames = [...]string{"an unsigned integer", "a negative integer", "bytes", "text", "an array", "a map", "a tag", "a simple value"}

// Bounds that no token comes near: of a map's or an array's items, and of how
// deep what is skipped may be nested.
const (
	cborMostItems = 256
	cborDeepest   = 16
)

func (r *cborReader) fail(at int, field, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("offset %d: %s: %s", r.base+at, field, fmt.Sprintf(format, args...))
	}
}

// peek returns the next item's first byte, which has its major type in the three
// highest bits; ok is false at the end, or after an error.
func (r *cborReader) peek() (initial byte, ok bool) {
	if r.err != nil || r.off >= len(r.data) {
		return 0, false
	}
	return r.data[r.off], true
}

// head reads an item's major type and argument.
func (r *cborReader) head(field string) (major byte, argument uint64) {
	at := r.off
	initial, ok := r.peek()
	if !ok {
		r.fail(at, field, "the data end, expected a CBOR item")
		return 0, 0
	}
	r.off++
	major, argument = initial>>5, uint64(initial&0x1F)
	if argument < 24 {
		return major, argument
	}
	if argument > 27 {
		r.fail(at, field, "begins %#02x, expected a CBOR item of definite length", initial)
		return 0, 0
	}
	size := 1 << (argument - 24)
	if len(r.data)-r.off < size {
		r.fail(at, field, "a length of %d bytes, and %d are left", size, len(r.data)-r.off)
		return 0, 0
	}
	var wide [8]byte
	copy(wide[8-size:], r.data[r.off:r.off+size])
	r.off += size
	return major, binary.BigEndian.Uint64(wide[:])
}

// expect reads the head of an item of one major type.
func (r *cborReader) expect(field string, want byte) (argument uint64) {
	at := r.off
	major, argument := r.head(field)
	if r.err == nil && major != want {
		r.fail(at, field, "%s, expected %s", cborNames[major], cborNames[want])
	}
	if r.err != nil {
		return 0
	}
	return argument
}

// string reads as many bytes as a head said.
func (r *cborReader) string(at int, field string, n uint64) []byte {
	if left := len(r.data) - r.off; n > uint64(left) {
		r.fail(at, field, "takes %d bytes, and %d are left", n, left)
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.off:][:n:n]
	r.off += int(n)
	return b
}

// bytes reads a byte string; sizes are those that it may have, any if there are none.
func (r *cborReader) bytes(field string, sizes ...int) []byte {
	at := r.off
	b := r.string(at, field, r.expect(field, cborBytes))
	if r.err == nil && len(sizes) > 0 && !slices.Contains(sizes, len(b)) {
		r.fail(at, field, "%d bytes, expected %s", len(b), sizeList(sizes))
		return nil
	}
	return b
}

func sizeList(sizes []int) (list string) {
	for i, n := range sizes {
		switch {
		case i > 0 && i == len(sizes)-1:
			list += " or "
		case i > 0:
			list += ", "
		}
		list += fmt.Sprint(n)
	}
	return list
}

// text reads a text string.
func (r *cborReader) text(field string) string {
	at := r.off
	b := r.string(at, field, r.expect(field, cborText))
	if !utf8.Valid(b) {
		r.fail(at, field, "text that is no UTF-8")
		return ""
	}
	return string(b)
}

// uint reads an unsigned integer up to a limit.
func (r *cborReader) uint(field string, most uint64) uint64 {
	at := r.off
	n := r.expect(field, cborUint)
	if n > most {
		r.fail(at, field, "%d, expected at most %d", n, most)
		return 0
	}
	return n
}

// int reads an integer of 32 bits or less, as all labels and algorithms are.
func (r *cborReader) int(field string) int64 {
	at := r.off
	major, n := r.head(field)
	switch {
	case r.err != nil:
		return 0
	case major > cborNegative:
		r.fail(at, field, "%s, expected an integer", cborNames[major])
		return 0
	case n > 1<<31:
		r.fail(at, field, "an integer beyond 32 bits")
		return 0
	case major == cborNegative:
		return -1 - int64(n)
	}
	return int64(n)
}

// array reads an array's head and returns how many items follow.
func (r *cborReader) array(field string) int { return r.items(field, cborArray) }

func (r *cborReader) items(field string, major byte) int {
	at := r.off
	n := r.expect(field, major)
	if left := len(r.data) - r.off; n > uint64(left) || n > cborMostItems {
		r.fail(at, field, "%d items in %d bytes, expected %d at most", n, left, cborMostItems)
		return 0
	}
	return int(n)
}

// tag reads a tag and returns its number.
func (r *cborReader) tag(field string) uint64 { return r.expect(field, cborTag) }

// each reads a map. For each entry whose label is an integer, value reads what
// the label is of, and reports whether it did; unread are the labels of the rest,
// which are skipped. A label that comes twice is an error.
func (r *cborReader) each(field string, value func(label int64) bool) (unread []string) {
	seen := map[any]bool{}
	for range r.items(field, cborMap) {
		at := r.off
		label, shown := r.label(field)
		if r.err == nil && seen[label] {
			r.fail(at, field, "label %s comes twice", shown)
		}
		if r.err != nil {
			return nil
		}
		seen[label] = true
		if number, ok := label.(int64); !ok || !value(number) {
			unread = append(unread, shown)
			r.skip(field+"'s "+shown, cborDeepest)
		}
	}
	return unread
}

// label reads a map's label: an int64 or a string, and how it is shown.
func (r *cborReader) label(field string) (label any, shown string) {
	if initial, ok := r.peek(); ok && initial>>5 == cborText {
		text := r.text(field + "'s label")
		return text, quoted(text)
	}
	number := r.int(field + "'s label")
	return number, fmt.Sprint(number)
}

// skip reads an item and what is in it.
func (r *cborReader) skip(field string, depth int) {
	at := r.off
	if depth == 0 {
		r.fail(at, field, "nested deeper than %d", cborDeepest)
		return
	}
	major, n := r.head(field)
	switch major {
	case cborBytes, cborText:
		if b := r.string(at, field, n); major == cborText && !utf8.Valid(b) {
			r.fail(at, field, "text that is no UTF-8")
		}
	case cborArray, cborMap:
		if n > uint64(len(r.data)-r.off) {
			r.fail(at, field, "%d items in %d bytes", n, len(r.data)-r.off)
		}
		if major == cborMap {
			n *= 2
		}
		for range n {
			if r.err != nil {
				return
			}
			r.skip(field, depth-1)
		}
	case cborTag:
		r.skip(field, depth-1)
	case cborSimple:
		// One byte may not spell a simple value below 32 (RFC 8949 §3.3).
		if initial := r.data[at]; r.err == nil && initial == 0xF8 && n < 32 {
			r.fail(at, field, "the simple value %d in two bytes", n)
		}
	}
}

// nested returns a byte string's content as items of their own.
func (r *cborReader) nested(field string) *cborReader {
	b := r.bytes(field)
	return &cborReader{data: b, base: r.base + r.off - len(b), err: r.err}
}

// end makes what stands behind the last item an error.
func (r *cborReader) end(structure string) error {
	if left := len(r.data) - r.off; left > 0 {
		r.fail(r.off, "the end", "%d bytes follow %s", left, structure)
	}
	return r.err
}
