package quote

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"tallystick/rtmr"
)

// S390Image is a Secure Execution image: its header, and what the header's digests
// are over, computed anew from the image's pages. They are equal in an image that the
// Ultravisor will start: see Check.
type S390Image struct {
	Header        *S390Header
	Components    []S390Component
	PLD, ALD, TLD rtmr.Hex // 64 bytes, of the pages here
	Pages         uint64   // of all components, 4096 bytes each
}

// S390Component is a part of an image that the Ultravisor unpacks: kernel, command
// line, initrd, or the loader that comes last. It is encrypted with the image's own key.
type S390Component struct {
	Tweak   uint64 // of its first page's encryption, in the upper half
	Address uint64 // in the guest's memory and in the image: the image is loaded at 0
	Size    uint64 // in bytes, whole pages
}

const (
	s390BlockList = 8   // IPL parameter list header
	s390BlockHead = 128 // IPL parameter block of the type PV, up to its components
	s390BlockType = 5   // PV
)

// ParseS390Image reads an image as genprotimg and pvimg make it, and hashes its pages:
// PLD is the SHA-512 of the pages, ALD of their addresses (be64 each), TLD of the
// tweaks that they are encrypted with (16 bytes each, big-endian: the component's, and
// 4096 more for each page). Components stand in the image's IPL parameter block: the
// page before the header, or where the image's metadata has it (s390-tools,
// genprotimg/src/pv/pv_comp.c and pv_ipib.c). The error names the offset and the
// field.
func ParseS390Image(data []byte) (*S390Image, error) {
	if bytes.HasPrefix(data, []byte(s390HeaderMagic)) {
		return nil, errors.New("a Secure Execution header without its image")
	}
	at, err := findS390Header(data)
	if err != nil {
		return nil, err
	}
	i := &S390Image{}
	if i.Header, _, err = parseS390Header(data[at:], at); err != nil {
		return nil, err
	}
	block := uint64(at) - s390HeaderPage
	if hasS390Metadata(data) {
		block = binary.BigEndian.Uint64(data[s390MetadataAt+20:])
	}
	if i.Components, err = parseS390Components(data, block); err != nil {
		return nil, err
	}
	i.hash(data)
	return i, nil
}

// parseS390Components reads the IPL parameter block at an offset in the image. Their
// sizes together are those of the image at most.
func parseS390Components(data []byte, at uint64) (all []S390Component, err error) {
	if at >= uint64(len(data)) {
		return nil, fmt.Errorf("offset %d: the IPL parameter block is to stand at %d, and the image has %d bytes", s390MetadataAt+20, at, len(data))
	}
	f := bigEndian(data[at:])
	f.base = int(at)
	f.bytes("IPL parameter list header", s390BlockList)
	f.u32("the block's length")
	if kind := f.u8("the block's type"); f.err == nil && kind != s390BlockType {
		f.fail(s390BlockList+4, "the block's type", "%d, expected %d (PV)", kind, s390BlockType)
	}
	f.bytes("the block's parameters", 103)
	n := f.u32("number of components")
	f.bytes("the header's address and size", 16)
	left := uint64(len(data))
	for i := range n {
		at := f.off
		c := S390Component{Tweak: f.u64("tweak"), Address: f.u64("address"), Size: f.u64("size")}
		if f.err == nil && (c.Size == 0 || c.Size > left || (c.Size|c.Address)%s390HeaderPage != 0 || c.Address > uint64(len(data))-c.Size) {
			f.fail(at, fmt.Sprintf("component %d", i), "%d bytes at %d, expected whole pages in an image of %d, of which %d are left", c.Size, c.Address, len(data), left)
		}
		if f.err != nil {
			return nil, f.err
		}
		left -= c.Size
		all = append(all, c)
	}
	if len(all) == 0 && f.err == nil {
		f.fail(s390BlockList+108, "number of components", "none, expected one at least")
	}
	return all, f.err
}

// hash computes the digests.
func (i *S390Image) hash(data []byte) {
	pages, addresses, tweaks := sha512.New(), sha512.New(), sha512.New()
	for _, c := range i.Components {
		pages.Write(data[c.Address:][:c.Size])
		for at := uint64(0); at < c.Size; at += s390HeaderPage {
			addresses.Write(binary.BigEndian.AppendUint64(nil, c.Address+at))
			tweaks.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, c.Tweak), at))
			i.Pages++
		}
	}
	i.PLD, i.ALD, i.TLD = pages.Sum(nil), addresses.Sum(nil), tweaks.Sum(nil)
}

// Check reports what of the image is not as its header has it: then the Ultravisor
// does not start it, and no guest that did was of this file.
func (i *S390Image) Check() error {
	h := i.Header
	if i.Pages != h.Pages {
		return fmt.Errorf("the image's components have %d pages, its header's NEP is %d", i.Pages, h.Pages)
	}
	for _, d := range []struct {
		name      string
		have, own rtmr.Hex
	}{{"PLD", i.PLD, h.PLD}, {"ALD", i.ALD, h.ALD}, {"TLD", i.TLD, h.TLD}} {
		if !bytes.Equal(d.have, d.own) {
			return fmt.Errorf("%s of the image's pages is %s, its header has %s", d.name, d.have, d.own)
		}
	}
	return nil
}

// s390Pages tells whether the image that the header came in is the header's. It is
// nil where a header was given alone.
func s390Pages(image []byte) *Link {
	if len(image) == 0 || bytes.HasPrefix(image, []byte(s390HeaderMagic)) {
		return nil
	}
	i, err := ParseS390Image(image)
	if err != nil {
		return &Link{Binding, NotChecked, "the header was taken out of its image, whose pages cannot be held against it: " + err.Error()}
	}
	if err := i.Check(); err != nil {
		return &Link{Binding, Failed, err.Error()}
	}
	return &Link{Binding, Verified, fmt.Sprintf("the %d pages of the given image, their addresses and tweaks hash to its header's PLD, ALD and TLD", i.Pages)}
}
