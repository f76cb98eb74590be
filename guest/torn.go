//go:build linux

package guest

import (
	"bytes"
	"encoding/binary"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/rtmr"
)

// A record in TLV is four fields: its number in 8 bytes, its index in 1 or 4, its
// digests, and its content; each with a type of 1 byte before it and a length of 4
// (TCG CEL-IM, and what cel.Writer makes of it).
const (
	fieldHeader  = 1 + 4
	fieldRecNum  = 0
	fieldDigests = 3
)

// tear is what the part of a record at a journal's end tells of the record.
type tear struct {
	register rtmr.Register // zero where it has none, or is not known
	digests  []rtmr.Digest // nil where they are not whole
}

// parseTear reads a part of a record. A process that died within write(2) leaves a
// record's first bytes, as this package writes them, and nothing behind them; ok is
// false for anything else, such as a length that was altered and takes the records
// after it for a part of its own.
func parseTear(b []byte) (t tear, ok bool) {
	if holdsRecord(b) {
		return t, false
	}
	r := fields{b, true}
	r.field(func(kind byte) bool { return kind == fieldRecNum }, 8)
	index := r.field(isIndex, 1, 4)
	if index == nil {
		return t, r.ok
	}
	t.register = registerOf(b[8+fieldHeader], index)
	digests, whole := r.nested(fieldDigests)
	for len(digests.rest) > 0 && digests.ok {
		alg := rtmr.Alg(digests.rest[0])
		sum := digests.field(func(kind byte) bool { return alg.Available() }, alg.Size())
		if sum == nil { // the last, of which this is a part
			return tear{register: t.register}, r.ok && digests.ok && !whole
		}
		t.digests = append(t.digests, rtmr.Digest{Alg: alg, Sum: sum})
	}
	if !whole {
		t.digests = nil
	}
	return t, r.ok && digests.ok
}

// holdsRecord reports whether another record begins within the part of one.
func holdsRecord(b []byte) bool {
	begin := []byte{fieldRecNum, 0, 0, 0, 8}
	for at := 1; at < len(b); at++ {
		i := bytes.Index(b[at:], begin)
		if i < 0 {
			return false
		}
		at += i
		r := fields{b[at:], true}
		number := r.field(func(kind byte) bool { return kind == fieldRecNum }, 8)
		// No journal has as many records as 2⁴⁰.
		if number == nil || binary.BigEndian.Uint64(number)>>40 != 0 || len(r.rest) == 0 {
			continue
		}
		if index := r.field(isIndex, 1, 4); index != nil && len(r.rest) > 0 && r.rest[0] == fieldDigests {
			return true
		}
	}
	return false
}

func isIndex(kind byte) bool {
	return kind == byte(cel.PCRIndex) || kind == byte(cel.NVIndex) || kind == byte(cel.CCIndex)
}

func registerOf(kind byte, index []byte) (r rtmr.Register) {
	number := uint32(0)
	for _, b := range index {
		number = number<<8 | uint32(b)
	}
	switch cel.IndexKind(kind) {
	case cel.PCRIndex:
		r, _ = rtmr.PCR(number).Register()
	case cel.CCIndex:
		r, _ = eventlog.CCMRIndex(number).Register()
	}
	return r
}

// fields reads what there is of a sequence of fields. ok is false once one is not as
// it has to be.
type fields struct {
	rest []byte
	ok   bool
}

// head reads a field's type and length. some is false where they are not whole.
func (f *fields) head(is func(kind byte) bool) (length uint32, some bool) {
	if !f.ok || len(f.rest) == 0 {
		return 0, false
	}
	if f.ok = is(f.rest[0]); !f.ok || len(f.rest) < fieldHeader {
		f.rest = nil
		return 0, false
	}
	length = binary.BigEndian.Uint32(f.rest[1:])
	f.rest = f.rest[fieldHeader:]
	return length, true
}

// field returns a field's value, which has one of the sizes; nil where it is not whole.
func (f *fields) field(is func(kind byte) bool, sizes ...int) []byte {
	length, some := f.head(is)
	if !some {
		return nil
	}
	for _, size := range sizes {
		if int(length) != size {
			continue
		}
		if len(f.rest) < size {
			f.rest = nil
			return nil
		}
		value := f.rest[:size]
		f.rest = f.rest[size:]
		return value
	}
	f.ok = false
	return nil
}

// nested returns what there is of a field that is fields itself, and whether that is
// all of it.
func (f *fields) nested(kind byte) (in fields, whole bool) {
	length, some := f.head(func(k byte) bool { return k == kind })
	n := min(int(length), len(f.rest))
	whole = some && n == int(length)
	in, f.rest = fields{f.rest[:n], true}, f.rest[n:]
	return in, whole
}
