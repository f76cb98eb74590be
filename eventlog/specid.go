package eventlog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

const specIDSignature = "Spec ID Event03\x00"

// SpecID is the header of a crypto-agile log: TCG_EfiSpecIDEvent
// (TCG PFP 1.06 §10.4.5.1), the data of its first record.
type SpecID struct {
	PlatformClass uint32
	VersionMinor  uint8
	VersionMajor  uint8
	Errata        uint8
	UintnSize     uint8 // 1: u32, 2: u64
	Banks         []Bank
	VendorInfo    []byte // with whatever a vendor appended behind it

	unsigned bool // isAgentHeader
}

// Bank is an algorithm of a log and its digests' size in bytes.
type Bank struct {
	Alg  rtmr.Alg
	Size int
}

// ParseSpecID parses the header's event data:
//
//	signature[16] | u32 class | u8 minor, major, errata, uintnSize |
//	u32 n | n × {u16 alg, u16 size} | u8 vendorInfoSize | vendorInfo
//
// all little-endian. Bytes behind the vendor information are kept with it; a
// missing vendorInfoSize is accepted, and so are zeros for the signature and
// what follows up to n, as CoCo's agent has them.
func ParseSpecID(data []byte) (SpecID, error) {
	const fixed = len(specIDSignature) + 4 + 4 + 4
	unsigned := isAgentHeader(data)
	if len(data) < fixed || !unsigned && string(data[:len(specIDSignature)]) != specIDSignature {
		return SpecID{}, fmt.Errorf("no %q signature", specIDSignature[:len(specIDSignature)-1])
	}
	s := SpecID{
		unsigned:      unsigned,
		PlatformClass: binary.LittleEndian.Uint32(data[16:]),
		VersionMinor:  data[20],
		VersionMajor:  data[21],
		Errata:        data[22],
		UintnSize:     data[23],
	}
	n := binary.LittleEndian.Uint32(data[24:])
	if n == 0 || n > maxBanks || int(n)*4 > len(data)-fixed {
		return SpecID{}, fmt.Errorf("%d algorithms, expected 1 to %d in %d bytes", n, maxBanks, len(data)-fixed)
	}
	at := fixed
	for range n {
		b := Bank{
			Alg:  rtmr.Alg(binary.LittleEndian.Uint16(data[at:])),
			Size: int(binary.LittleEndian.Uint16(data[at+2:])),
		}
		if want := b.Alg.Size(); b.Size == 0 || (want != 0 && b.Size != want) {
			return SpecID{}, fmt.Errorf("digest size of %s is %d, expected %d", b.Alg, b.Size, want)
		}
		s.Banks = append(s.Banks, b)
		at += 4
	}
	if at < len(data) {
		s.VendorInfo = data[at+1:]
	}
	return s, nil
}

// declares reports whether the header has a bank of the algorithm; without a
// header nothing needs to be declared.
func (s *SpecID) declares(a rtmr.Alg) bool {
	return len(s.Banks) == 0 || slices.ContainsFunc(s.Banks, func(b Bank) bool { return b.Alg == a })
}

// digestSize returns the size of an algorithm's digests in this log, or 0 if
// neither the header nor the algorithm's name tells it.
func (s *SpecID) digestSize(a rtmr.Alg) int {
	for _, b := range s.Banks {
		if b.Alg == a {
			return b.Size
		}
	}
	return a.Size()
}
