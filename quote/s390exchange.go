package quote

import (
	"bytes"
	"fmt"
)

// The most that the kernel's device takes of each part, in bytes
// (arch/s390/include/uapi/asm/uvdevice.h, UVIO_ATT_*). A measurement and additional
// data of other sizes than the request asks for are told by the links.
const (
	s390MaxRequest    = 0x100000
	s390MaxOutput     = 0x8000 // measurement, and additional data
	s390MaxUserData   = 0x100
	s390CUIDSize      = 16
	s390ExchangeSize  = 0x40
	s390ExchangeMagic = "pvattest"
	s390Version1      = 0x0100 // of the exchange file, the request and the header alike
)

// S390Exchange is the file by which pvattest, of s390-tools, takes an attestation
// request to a Secure Execution guest, and the guest's response back. Nothing in it
// has been checked. Open checks it. The slices point into the data that was parsed.
//
// Version 1 is a header of 64 bytes, integers big-endian: "pvattest", be32 version
// 0x0100, be32 size of the file, 8 reserved bytes, and five entries of be32 size and
// be32 offset in the file: the attestation request control block (ARCB), the
// measurement, the additional data, the user data and the configuration's unique id
// (s390-tools, pvattest/src/exchange_format.c). A size of 0 is an absent part; an
// offset of 0 beside a size is a part to come, as a request has it, and nil here.
type S390Exchange struct {
	Version     uint32 // 0x0100
	Request     []byte // the ARCB, as ParseS390Request reads it: up to 1 MiB
	Measurement []byte // 64 bytes in a response
	Additional  []byte // what the request's flags asked for: up to 32 KiB
	UserData    []byte // by the guest: up to 256 bytes
	CUID        []byte // 16 bytes, the configuration unique id of that instance of the guest
}

func isS390Exchange(data []byte) bool { return bytes.HasPrefix(data, []byte(s390ExchangeMagic)) }

// ParseS390Exchange reads an exchange file: a request, or a response. The error names
// the offset and the field, and wraps ErrUnsupported where the version is not read here.
func ParseS390Exchange(data []byte) (*S390Exchange, error) {
	f := bigEndian(data)
	if magic := f.bytes("magic", 8); f.err == nil && string(magic) != s390ExchangeMagic {
		f.fail(0, "magic", "%x, expected %q", magic, s390ExchangeMagic)
	}
	e := &S390Exchange{Version: f.u32("version")}
	if f.err == nil && e.Version != s390Version1 {
		return nil, fmt.Errorf("%w: offset 8: version %#x, expected %#x", ErrUnsupported, e.Version, s390Version1)
	}
	if size := f.u32("size"); f.err == nil && uint64(size) != uint64(len(data)) {
		f.fail(12, "size", "%d, and the file has %d bytes", size, len(data))
	}
	f.u64("reserved")
	for _, part := range []struct {
		name string
		most uint32
		into *[]byte
	}{
		{"serialized ARCB", s390MaxRequest, &e.Request}, {"measurement", s390MaxOutput, &e.Measurement},
		{"additional data", s390MaxOutput, &e.Additional}, {"user data", s390MaxUserData, &e.UserData},
		{"config UID", s390CUIDSize, &e.CUID},
	} {
		*part.into = f.entry(part.name, part.most)
	}
	if f.err != nil {
		return nil, f.err
	}
	if n := len(e.CUID); n != 0 && n != s390CUIDSize {
		return nil, fmt.Errorf("offset 56: config UID: %d bytes, expected %d", n, s390CUIDSize)
	}
	return e, nil
}

// entry reads a part's size and offset, and returns the part, or nil if it is not in
// the file.
func (f *fields) entry(name string, most uint32) []byte {
	at := f.off
	size, offset := f.u32(name+"'s size"), f.u32(name+"'s offset")
	switch left := uint64(len(f.data)); {
	case f.err != nil || size == 0 || offset == 0:
		return nil
	case size > most:
		f.fail(at, name, "%d bytes, expected %d at most", size, most)
	case offset < s390ExchangeSize:
		f.fail(at+4, name, "stands at %d, within the header of %d bytes", offset, s390ExchangeSize)
	case uint64(offset)+uint64(size) > left:
		f.fail(at, name, "%d bytes at %d, and the file has %d", size, offset, left)
	default:
		return f.data[offset:][:size:size]
	}
	return nil
}
