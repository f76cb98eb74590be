package launch

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// PageType is the kind of a page that is added to an SEV-SNP guest: PAGE_TYPE of
// SNP_LAUNCH_UPDATE (AMD SEV-SNP Firmware ABI Specification 56860, §8.17).
type PageType uint8

// The kinds of pages. The content is measured of the first two.
const (
	PageNormal     PageType = 1
	PageVMSA       PageType = 2 // a processor's registers at its start
	PageZero       PageType = 3
	PageUnmeasured PageType = 4
	PageSecrets    PageType = 5 // filled by the firmware processor
	PageCPUID      PageType = 6 // filled by the hypervisor, checked by the firmware processor
)

// String returns the specification's word in lower case.
func (t PageType) String() string {
	names := [...]string{"-", "normal", "vmsa", "zero", "unmeasured", "secrets", "cpuid"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// pageInfoSize is PAGE_INFO's size in bytes.
const pageInfoSize = 0x70

// pages folds pages into a launch digest: for each, the digest is SHA-384 of a
// PAGE_INFO (56860, §8.17.2), which has
//
//	0x00  DIGEST_CUR     48 bytes, the launch digest before; zeros at first
//	0x30  CONTENTS       48 bytes, SHA-384 of the page; zeros where it is not measured
//	0x60  LENGTH         le16, 0x70
//	0x62  PAGE_TYPE      1 byte
//	0x63  IMI_PAGE       1 byte, of a migration agent's image: 0 here
//	0x64  VMPL1_PERMS..  4 bytes, what lower levels may do with it: 0 under every VMM
//	0x68  GPA            le64
type pages struct {
	digest [48]byte
	parts  []Part
}

// add folds one page. sum is the SHA-384 of its content, nil if that is not
// measured.
func (p *pages) add(typ PageType, gpa uint64, sum []byte) {
	var info [pageInfoSize]byte
	copy(info[0x00:], p.digest[:])
	copy(info[0x30:], sum)
	binary.LittleEndian.PutUint16(info[0x60:], pageInfoSize)
	info[0x62] = byte(typ)
	binary.LittleEndian.PutUint64(info[0x68:], gpa)
	p.digest = sha512.Sum384(info[:])
}

// content adds pages whose content is measured: whole pages, of the type normal or
// VMSA. Of the type VMSA all have the same address.
func (p *pages) content(name string, typ PageType, gpa uint64, content []byte) {
	next := gpa
	for page := range slices.Chunk(content, PageSize) {
		sum := sha512.Sum384(page)
		p.add(typ, next, sum[:])
		if typ != PageVMSA {
			next += PageSize
		}
	}
	p.part(Part{Name: name, Type: typ, GPA: gpa, Size: uint64(len(content)), Content: contentDigest(content)})
}

// without adds pages of which place and type are measured, and no content.
func (p *pages) without(name string, typ PageType, gpa, size uint64) {
	for at := uint64(0); at < size; at += PageSize {
		p.add(typ, gpa+at, nil)
	}
	p.part(Part{Name: name, Type: typ, GPA: gpa, Size: size})
}

func (p *pages) part(part Part) {
	part.Digest = slices.Clone(p.digest[:])
	p.parts = append(p.parts, part)
}

func (p *pages) measurement() *Measurement {
	return &Measurement{Alg: rtmr.SHA384, Digest: slices.Clone(p.digest[:]), Parts: p.parts}
}
