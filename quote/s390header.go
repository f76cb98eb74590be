package quote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"tallystick/rtmr"
)

// An image's header is found by its own magic on a page, or by the metadata that
// images of later s390-tools have at a fixed place.
const (
	s390HeaderMagic   = "IBMSecEx"
	s390MetadataMagic = "SeImgLnx"
	s390MetadataAt    = 0xC000
	s390HeaderHead    = 0x1A0
	s390MaxHeader     = 0x2000
	s390SearchedPages = 0x18 // pvextract-hdr looks at the pages 0x14 to 0x17
)

// S390Header is the header of a Secure Execution image as its bytes say. Nothing in
// it has been checked: the measurement is over the digests and the tag, so a guest
// whose measurement verifies by this header runs the header's image. The slices point
// into the data that was parsed.
//
// Integers are big-endian: "IBMSecEx", be32 version 0x0100, be32 size (PHS), 12 bytes
// IV, 4 reserved, be64 number of key slots (NKS), be64 size of the encrypted area
// (SEA), be64 number of encrypted pages (NEP), be64 flags (PCF), the customer's public
// key of 160 bytes, PLD, ALD and TLD of 64 bytes each, slots of 80 bytes, the encrypted
// area, and the tag of 16 bytes (s390-tools, include/libpv/se-hdr.h).
type S390Header struct {
	Version       uint32     // 0x0100
	Flags         uint64     // PCF, bit 0 the highest
	Pages         uint64     // NEP, of the image's components
	PLD, ALD, TLD rtmr.Hex   // 64 bytes: SHA-512 over the image's pages, their addresses, their tweaks
	Tag           rtmr.Hex   // 16 bytes, of AES-256-GCM over the header by its owner's key
	HostKeyHashes []rtmr.Hex // PHKH, 32 bytes each: the hosts that can unpack the image
}

// ParseS390Header reads a header alone, as pvextract-hdr and pvimg write it, or
// finds it in an image. The error names the offset and the field, and wraps
// ErrUnsupported where the version is not read here.
func ParseS390Header(data []byte) (*S390Header, error) {
	if bytes.HasPrefix(data, []byte(s390HeaderMagic)) {
		h, size, err := parseS390Header(data, 0)
		if err == nil && size < len(data) {
			return nil, fmt.Errorf("offset %d: %d bytes follow the header", size, len(data)-size)
		}
		return h, err
	}
	at, err := findS390Header(data)
	if err != nil {
		return nil, err
	}
	h, _, err := parseS390Header(data[at:], at)
	return h, err
}

// findS390Header returns where an image's header begins.
func findS390Header(image []byte) (int, error) {
	if hasS390Metadata(image) {
		at := binary.BigEndian.Uint64(image[s390MetadataAt+8:])
		if at >= uint64(len(image)) || !bytes.HasPrefix(image[at:], []byte(s390HeaderMagic)) {
			return 0, fmt.Errorf("offset %d: the image's metadata has its header at %d, and there is no %q", s390MetadataAt+8, at, s390HeaderMagic)
		}
		return int(at), nil
	}
	for page := 1; page < s390SearchedPages && page*s390HeaderPage < len(image); page++ {
		if at := page * s390HeaderPage; bytes.HasPrefix(image[at:], []byte(s390HeaderMagic)) {
			return at, nil
		}
	}
	return 0, fmt.Errorf("%d bytes that begin %.8x: neither a Secure Execution header (%q) nor an image with one on its first %d pages", len(image), image, s390HeaderMagic, s390SearchedPages)
}

// hasS390Metadata reports whether an image has metadata: 8 bytes magic, be64 offset of
// the header, be32 version, be64 offset of the IPL parameter block (s390-tools,
// rust/pv/src/brcb.rs).
func hasS390Metadata(image []byte) bool {
	return len(image) >= s390MetadataAt+28 && bytes.HasPrefix(image[s390MetadataAt:], []byte(s390MetadataMagic))
}

func parseS390Header(data []byte, base int) (h *S390Header, size int, err error) {
	f := bigEndian(data)
	f.base = base
	f.bytes("magic", 8)
	h = &S390Header{Version: f.u32("version")}
	if f.err == nil && h.Version != s390Version1 {
		return nil, 0, fmt.Errorf("%w: offset %d: a header of version %#x, expected %#x", ErrUnsupported, base+8, h.Version, s390Version1)
	}
	declared := f.u32("PHS")
	f.bytes("IV and reserved", 16)
	slots, encrypted := f.u64("NKS"), f.u64("SEA")
	h.Pages = f.u64("NEP")
	h.Flags = f.u64("PCF")
	f.bytes("customer public key", 2*s390CoordSize)
	h.PLD, h.ALD, h.TLD = f.bytes("PLD", 64), f.bytes("ALD", 64), f.bytes("TLD", 64)
	if f.err != nil {
		return nil, 0, f.err
	}
	// Each is below the header's most, so that no sum overflows.
	if want := s390HeaderHead + slots*s390SlotSize + encrypted + s390TagSize; max(slots, encrypted, uint64(declared)) > s390MaxHeader || want != uint64(declared) {
		return nil, 0, fmt.Errorf("offset %d: PHS: %d bytes, expected %d of the head, %d key slots of %d, SEA %d and the tag, and %d at most",
			base+12, declared, s390HeaderHead, slots, s390SlotSize, encrypted, s390MaxHeader)
	}
	for i := range slots {
		h.HostKeyHashes = append(h.HostKeyHashes, f.bytes(fmt.Sprintf("PHKH of key slot %d", i), 32))
		f.bytes(fmt.Sprintf("key slot %d", i), s390KeySize+s390TagSize)
		if f.err != nil {
			return nil, 0, f.err
		}
	}
	f.bytes("the encrypted area", int64(encrypted))
	h.Tag = f.bytes("the tag", s390TagSize)
	if len(h.HostKeyHashes) == 0 && f.err == nil {
		return nil, 0, errors.New("NKS: no key slot, expected one at least")
	}
	return h, f.off, f.err
}
