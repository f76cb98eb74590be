package ima

import "encoding/binary"

// byteOrder is the byte order of a list's integers. A binary.ByteOrder is an
// interface, and a call through it costs more than the load that it makes.
type byteOrder bool

const (
	littleEndian byteOrder = false
	bigEndian    byteOrder = true
)

// orderOf returns o's byteOrder; nil is little-endian.
func orderOf(o binary.ByteOrder) byteOrder {
	return o != nil && o.Uint16([]byte{0, 1}) == 1
}

func (o byteOrder) standard() binary.ByteOrder {
	if o == bigEndian {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (o byteOrder) uint32(b []byte) uint32 {
	if o == bigEndian {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (o byteOrder) uint16(b []byte) uint16 {
	if o == bigEndian {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (o byteOrder) appendUint32(b []byte, n uint32) []byte {
	if o == bigEndian {
		return binary.BigEndian.AppendUint32(b, n)
	}
	return binary.LittleEndian.AppendUint32(b, n)
}
