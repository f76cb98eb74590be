package launch

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"tallystick/rtmr"
)

// PageOrder is the order in which a VMM adds and extends a section's pages, which
// the TDX module leaves to it and MRTD tells apart.
type PageOrder uint8

const (
	// PageByPage adds a page and extends it, and then goes on to the next: KVM from
	// Linux 6.16 (arch/x86/kvm/vmx/tdx.c, tdx_gmem_post_populate), Google's, and the
	// kernels that QEMU 9 was patched for.
	PageByPage PageOrder = iota
	// SectionTwice adds all pages of a section, and then extends them: the kernels
	// that QEMU 8 was patched for.
	SectionTwice
)

// TDVFMeasured is what a section gave to MRTD.
type TDVFMeasured struct {
	TDVFSection
	Added    int // pages: TDH.MEM.PAGE.ADD
	Extended int // chunks of 256 bytes: TDH.MR.EXTEND
}

// MRTD folds the sections, in their order in the metadata, into the TD's
// build-time measurement, 48 bytes.
//
// It is one SHA-384 over what the TDX module hashes (Intel TDX module base
// specification, "MRTD: build-time measurement register"). TDH.MEM.PAGE.ADD
// gives 128 bytes, "MEM.PAGE.ADD" at 0, the page's address, le64, at 16, the rest
// zero. TDH.MR.EXTEND gives 128 bytes, "MR.EXTEND" at 0 and the chunk's address
// at 16, and the chunk's 256 bytes. A page's content counts only where
// Attributes has MR.EXTEND, and a page of a section with PAGE.AUG is not added.
//
// hob, where it is not nil, is what the TD_HOB section holds, which is extended if
// the section says so; everything follows from it zero.
func (t *TDVF) MRTD(order PageOrder) (mrtd rtmr.Hex, parts []TDVFMeasured, err error) {
	return t.mrtd(order, false, nil)
}

// mrtd is MRTD. With all, sections are extended whatever their attributes say, and
// hob is what TD_HOB begins with.
func (t *TDVF) mrtd(order PageOrder, all bool, hob []byte) (mrtd rtmr.Hex, parts []TDVFMeasured, err error) {
	m := builder{digest: sha512.New384(), order: order}
	for i := range t.Sections {
		s := &t.Sections[i]
		if all && s.Attributes&TDVFPageAug == 0 {
			extended := *s
			extended.Attributes |= TDVFExtend
			s = &extended
		}
		content, err := t.content(s, all, hob)
		if err != nil {
			return nil, nil, fmt.Errorf("section %d (%s): %w", i, s.Type, err)
		}
		m.section(s, content)
		parts = append(parts, TDVFMeasured{t.Sections[i], m.added, m.extended})
	}
	return m.digest.Sum(nil), parts, nil
}

// content returns what a section's memory begins with, where it is extended; what
// follows is zero.
func (t *TDVF) content(s *TDVFSection, all bool, hob []byte) ([]byte, error) {
	if s.Attributes&TDVFExtend == 0 {
		return nil, nil
	}
	switch s.Type {
	case TDVFBFV, TDVFCFV:
		if uint64(s.RawDataSize) != s.MemoryDataSize {
			return nil, fmt.Errorf("it is extended, and RawDataSize %#x is not MemoryDataSize %#x: what fills the rest is the VMM's", s.RawDataSize, s.MemoryDataSize)
		}
		return t.data(s), nil
	case TDVFTDHOB:
		if hob == nil {
			return nil, errors.New("it is extended, and what is in it is the VMM's")
		}
		if uint64(len(hob)) > s.MemoryDataSize {
			return nil, fmt.Errorf("the list takes %d bytes, and it has %d", len(hob), s.MemoryDataSize)
		}
		return hob, nil
	case TDVFTempMem:
		if all {
			return nil, nil
		}
	}
	return nil, errors.New("it is extended, and what is in it is the VMM's, as a payload is")
}

// builder is MRTD while the TD is built.
type builder struct {
	digest          hash.Hash
	order           PageOrder
	added, extended int // of the last section
}

func (m *builder) section(s *TDVFSection, content []byte) {
	m.added, m.extended = 0, 0
	for page := s.MemoryAddress; page < s.end(); page += PageSize {
		if s.Attributes&TDVFPageAug == 0 {
			m.add(page)
		}
		if m.order == PageByPage {
			m.extendPage(s, page, content)
		}
	}
	for page := s.MemoryAddress; m.order == SectionTwice && page < s.end(); page += PageSize {
		m.extendPage(s, page, content)
	}
}

func (m *builder) add(page uint64) {
	m.digest.Write(extension("MEM.PAGE.ADD", page))
	m.added++
}

func (m *builder) extendPage(s *TDVFSection, page uint64, content []byte) {
	if s.Attributes&TDVFExtend == 0 {
		return
	}
	for at := page; at < page+PageSize; at += chunkBytes {
		m.digest.Write(extension("MR.EXTEND", at))
		var chunk [chunkBytes]byte
		if from := at - s.MemoryAddress; from < uint64(len(content)) {
			copy(chunk[:], content[from:])
		}
		m.digest.Write(chunk[:])
		m.extended++
	}
}

const chunkBytes = 256

func extension(leaf string, gpa uint64) []byte {
	var b [128]byte
	copy(b[:], leaf)
	binary.LittleEndian.PutUint64(b[16:], gpa)
	return b[:]
}
