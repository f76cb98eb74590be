package eventlog

import (
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf16"
)

// fields takes little-endian fields one after another from event data. A field
// that the data are too short for is zero and makes the rest bad.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) bytes(n uint64) []byte {
	if f.bad || n > uint64(len(f.rest)) {
		f.bad = true
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) u8() uint8 {
	if b := f.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if b := f.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if b := f.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (f *fields) guid() (g guid) {
	copy(g[:], f.bytes(16))
	return g
}

// guid is an EFI_GUID: its first three groups are little-endian.
type guid [16]byte

func (g guid) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x",
		binary.LittleEndian.Uint32(g[0:]), binary.LittleEndian.Uint16(g[4:]),
		binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// utf16Text decodes UTF-16LE up to a NUL or the end; a lone last byte is left out.
func utf16Text(b []byte) string {
	units := make([]uint16, 0, min(len(b)/2, maxDetail))
	for ; len(b) >= 2 && len(units) < maxDetail; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// isUTF16 reports whether b is readable as UTF-16LE: printable characters, at
// least half of them ASCII so that few binary data pass, then only zeros. An
// odd length is accepted, as logs have lines cut one byte short.
func isUTF16(b []byte) bool {
	ascii, n := 0, 0
	for ; len(b) >= 2; b = b[2:] {
		u := rune(binary.LittleEndian.Uint16(b))
		if u == 0 {
			break
		}
		if !unicode.IsPrint(u) && !unicode.IsSpace(u) && !utf16.IsSurrogate(u) {
			return false
		}
		if u < 0x80 {
			ascii++
		}
		n++
	}
	return n > 0 && 2*ascii >= n && (len(b) == 0 || allAre(b, 0))
}
