package quote

import (
	"encoding/binary"
	"fmt"
)

// tpmBuffer reads the fields of a TPM 2.0 structure, which are big-endian and
// packed. The first field that does not fit ends it: what is read after that
// is zero, and err says where.
//
// Structures are read by it and not by go-tpm where an error has to name an
// offset: go-tpm's does not, and its reader takes a structure that is cut off
// before a TPM2B's size for one with an empty TPM2B, and lets bytes follow.
type tpmBuffer struct {
	data []byte
	off  int // of the next field
	err  error
}

func (b *tpmBuffer) fail(at int, field, format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("offset %d: %s: %s", at, field, fmt.Sprintf(format, args...))
	}
}

func (b *tpmBuffer) bytes(field string, n int) []byte {
	left := len(b.data) - b.off
	if b.err == nil && n > left {
		b.fail(b.off, field, "takes %d bytes, and %d are left", n, left)
	}
	if b.err != nil {
		return nil
	}
	b.off += n
	return b.data[b.off-n : b.off : b.off]
}

func (b *tpmBuffer) u8(field string) uint8 {
	if v := b.bytes(field, 1); v != nil {
		return v[0]
	}
	return 0
}

func (b *tpmBuffer) u16(field string) uint16 {
	if v := b.bytes(field, 2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (b *tpmBuffer) u32(field string) uint32 {
	if v := b.bytes(field, 4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (b *tpmBuffer) u64(field string) uint64 {
	if v := b.bytes(field, 8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// sized reads a TPM2B: a 16-bit size, and as many bytes.
func (b *tpmBuffer) sized(field string) []byte {
	n := b.u16(field + "'s size")
	return b.bytes(field, int(n))
}

// end is an error if a field was, or if bytes follow the last one.
func (b *tpmBuffer) end() error {
	if left := len(b.data) - b.off; left > 0 {
		b.fail(b.off, "the end", "%d bytes follow the structure", left)
	}
	return b.err
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
