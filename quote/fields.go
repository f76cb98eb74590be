package quote

import (
	"encoding/binary"
	"fmt"
)

// fields takes one field after another off a packed structure. The first one
// that does not fit ends it: what is read after that is zero, and err says
// where.
//
// TPM structures are read by it and not by go-tpm where an error has to name an
// offset: go-tpm's does not, and its reader takes a structure that is cut off
// before a TPM2B's size for one with an empty TPM2B, and lets bytes follow.
type fields struct {
	data  []byte
	off   int // of the next field
	base  int // data's offset in the file
	order binary.ByteOrder
	err   error
}

// littleEndian reads Intel's structures, bigEndian the TPM's.
func littleEndian(data []byte) *fields { return &fields{data: data, order: binary.LittleEndian} }
func bigEndian(data []byte) *fields    { return &fields{data: data, order: binary.BigEndian} }

func (f *fields) fail(at int, field, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("offset %d: %s: %s", f.base+at, field, fmt.Sprintf(format, args...))
	}
}

func (f *fields) bytes(field string, n int64) []byte {
	left := len(f.data) - f.off
	if n > int64(left) {
		f.fail(f.off, field, "takes %d bytes, and %d are left", n, left)
	}
	if f.err != nil {
		return nil
	}
	b := f.data[f.off:][:n:n]
	f.off += int(n)
	return b
}

func (f *fields) u8(field string) uint8 {
	if v := f.bytes(field, 1); v != nil {
		return v[0]
	}
	return 0
}

func (f *fields) u16(field string) uint16 {
	if v := f.bytes(field, 2); v != nil {
		return f.order.Uint16(v)
	}
	return 0
}

func (f *fields) u32(field string) uint32 {
	if v := f.bytes(field, 4); v != nil {
		return f.order.Uint32(v)
	}
	return 0
}

func (f *fields) u64(field string) uint64 {
	if v := f.bytes(field, 8); v != nil {
		return f.order.Uint64(v)
	}
	return 0
}

// sized reads a TPM2B: a 16-bit size, and as many bytes.
func (f *fields) sized(field string) []byte {
	n := f.u16(field + "'s size")
	return f.bytes(field, int64(n))
}

// nested returns the next n bytes as a structure of its own.
func (f *fields) nested(field string, n uint32) *fields {
	base := f.base + f.off
	return &fields{data: f.bytes(field, int64(n)), base: base, order: f.order, err: f.err}
}

// end makes bytes behind the structure's last field an error.
func (f *fields) end(structure string) error {
	if left := len(f.data) - f.off; left > 0 {
		f.fail(f.off, "the end", "%d bytes follow %s", left, structure)
	}
	return f.err
}

// unwrap2B returns what a TPM2B holds, if the data are one: if its size is
// that of all that follows it. Otherwise it returns the data as they are, and
// from is 0.
func unwrap2B(data []byte) (inner []byte, from int) {
	if len(data) >= 2 && int(binary.BigEndian.Uint16(data)) == len(data)-2 {
		return data[2:], 2
	}
	return data, 0
}
