package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// TDVFSectionType says what a TDVF section is for.
type TDVFSectionType uint32

// The types of the TDVF design guide (section 11) and of td-shim, which has more.
const (
	TDVFBFV TDVFSectionType = iota // boot firmware volume: code
	TDVFCFV                        // configuration firmware volume: variables
	TDVFTDHOB
	TDVFTempMem
	TDVFPermMem
	TDVFPayload
	TDVFPayloadParam
	TDVFTDInfo
	TDVFTDParams
)

var sectionTypes = []string{"BFV", "CFV", "TD_HOB", "TempMem", "PermMem", "Payload", "PayloadParam", "TD_INFO", "TD_PARAMS"}

// String returns the design guide's name, or the number.
func (t TDVFSectionType) String() string {
	if int64(t) < int64(len(sectionTypes)) {
		return sectionTypes[t]
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// The bits of TDVFSection.Attributes.
const (
	TDVFExtend  = 1 << 0 // MR.EXTEND: the content is measured, not the place alone
	TDVFPageAug = 1 << 1 // PAGE.AUG: the TD accepts the pages itself, so they are not added
)

// TDVFSection is one section of a TDVF image: where it lies in the image and where in
// the TD's memory.
type TDVFSection struct {
	DataOffset, RawDataSize       uint32 // in the image
	MemoryAddress, MemoryDataSize uint64 // whole pages, below 4 GiB
	Type                          TDVFSectionType
	Attributes                    uint32
}

func (s *TDVFSection) end() uint64 { return s.MemoryAddress + s.MemoryDataSize }

// TDVF is a firmware image for a TD, with what its metadata say.
type TDVF struct {
	Image    []byte
	Offset   int // of the metadata descriptor in the image
	Sections []TDVFSection
}

// ErrNoTDVF is wrapped by the error for an image that has no TDX metadata: it is
// other firmware, or was built without TDX.
var ErrNoTDVF = errors.New("no TDX metadata")

var tdxMetadataOffset = MustGUID("e47a6535-984a-4798-865e-4685a7bf8ec2")

const (
	tdvfSignature   = "TDVF"
	tdvfVersion     = 1
	tdvfDescriptor  = 16 // signature, length, version, number of sections
	tdvfSectionSize = 32
	tdvfTop         = 1 << 32 // where the image ends in memory, and no section goes beyond
)

// ParseTDVF reads the TDX metadata of an image (Intel TDX Virtual Firmware Design
// Guide, section 11; QEMU hw/i386/tdvf.c). The image is the whole one: of a build
// that comes in two files, the variables and then the code.
//
// The GUIDed table's entry e47a6535-.. is a le32, the descriptor's distance from
// the end of the image. The descriptor is "TDVF", then length, version 1 and the
// number of sections, le32 each, and 32 bytes a section: DataOffset and
// RawDataSize (le32), MemoryAddress and MemoryDataSize (le64), Type and
// Attributes (le32).
//
// The error wraps ErrNoTable or ErrNoTDVF where there are no metadata; others
// give the offset in the image, the section and the field. It is an error if a
// section's data are not in the image, or do not fit its memory, if its memory is
// not made of whole pages below 4 GiB, or is another's too, and if BFV or CFV
// have no data, or TD_HOB and TempMem have.
func ParseTDVF(image []byte) (*TDVF, error) {
	at, err := findDescriptor(image)
	if err != nil {
		return nil, err
	}
	t := &TDVF{Image: image, Offset: at}
	count, err := readDescriptor(image, at)
	if err != nil {
		return nil, err
	}
	for i := range count {
		offset := at + tdvfDescriptor + i*tdvfSectionSize
		s := readTDVFSection(image[offset:])
		if err := t.check(&s); err != nil {
			return nil, fmt.Errorf("offset %#x: section %d (%s): %w", offset, i, s.Type, err)
		}
		t.Sections = append(t.Sections, s)
	}
	if len(t.of(TDVFBFV)) == 0 {
		return nil, fmt.Errorf("offset %#x: no section is a BFV, expected one at least", at)
	}
	return t, nil
}

func findDescriptor(image []byte) (at int, err error) {
	table, err := ParseTable(image)
	if err != nil {
		return 0, err
	}
	entry, ok := table.Find(tdxMetadataOffset)
	if !ok {
		return 0, fmt.Errorf("%w: the GUIDed table has no entry %s", ErrNoTDVF, tdxMetadataOffset)
	}
	fromEnd, err := entry.u32("the offset of the TDX metadata")
	if err != nil {
		return 0, err
	}
	if fromEnd < tdvfDescriptor || int64(fromEnd) > int64(len(image)) {
		return 0, fmt.Errorf("offset %#x: the TDX metadata are %d bytes before the image's end, expected %d to %d", entry.Offset, fromEnd, tdvfDescriptor, len(image))
	}
	return len(image) - int(fromEnd), nil
}

// readDescriptor returns the number of sections, all of which are in the image.
func readDescriptor(image []byte, at int) (sections int, err error) {
	d := image[at:]
	if got := string(d[:4]); got != tdvfSignature {
		return 0, fmt.Errorf("%w: offset %#x: signature %q, expected %q", ErrNoTDVF, at, got, tdvfSignature)
	}
	le := binary.LittleEndian
	length, version, count := le.Uint32(d[4:]), le.Uint32(d[8:]), le.Uint32(d[12:])
	if version != tdvfVersion {
		return 0, fmt.Errorf("offset %#x: version %d, expected %d", at+8, version, tdvfVersion)
	}
	if count == 0 || int64(count) > int64(len(d)-tdvfDescriptor)/tdvfSectionSize {
		return 0, fmt.Errorf("offset %#x: %d sections, expected 1 to %d, as many as fit into the image", at+12, count, (len(d)-tdvfDescriptor)/tdvfSectionSize)
	}
	if expected := tdvfDescriptor + tdvfSectionSize*count; length != expected {
		return 0, fmt.Errorf("offset %#x: length %d, expected %d for %d sections", at+4, length, expected, count)
	}
	return int(count), nil
}

func readTDVFSection(b []byte) TDVFSection {
	le := binary.LittleEndian
	return TDVFSection{
		DataOffset: le.Uint32(b), RawDataSize: le.Uint32(b[4:]),
		MemoryAddress: le.Uint64(b[8:]), MemoryDataSize: le.Uint64(b[16:]),
		Type: TDVFSectionType(le.Uint32(b[24:])), Attributes: le.Uint32(b[28:]),
	}
}

// check holds a section against the image and the sections before it.
func (t *TDVF) check(s *TDVFSection) error {
	if end := uint64(s.DataOffset) + uint64(s.RawDataSize); end > uint64(len(t.Image)) {
		return fmt.Errorf("DataOffset %#x and RawDataSize %#x end at %#x, beyond the image's %#x bytes: is it the code alone, without the variables before it?", s.DataOffset, s.RawDataSize, end, len(t.Image))
	}
	if uint64(s.RawDataSize) > s.MemoryDataSize {
		return fmt.Errorf("RawDataSize %#x, expected MemoryDataSize %#x at most", s.RawDataSize, s.MemoryDataSize)
	}
	if s.MemoryAddress%PageSize != 0 {
		return fmt.Errorf("MemoryAddress %#x, expected a multiple of %#x", s.MemoryAddress, PageSize)
	}
	if s.MemoryDataSize%PageSize != 0 {
		return fmt.Errorf("MemoryDataSize %#x, expected a multiple of %#x", s.MemoryDataSize, PageSize)
	}
	if s.MemoryAddress > tdvfTop || s.MemoryDataSize > tdvfTop-s.MemoryAddress {
		return fmt.Errorf("MemoryAddress %#x and MemoryDataSize %#x end above 4 GiB, expected below", s.MemoryAddress, s.MemoryDataSize)
	}
	switch s.Type {
	case TDVFBFV, TDVFCFV:
		if s.RawDataSize == 0 {
			return errors.New("RawDataSize is 0, expected data")
		}
	case TDVFTDHOB, TDVFTempMem:
		if s.RawDataSize != 0 {
			return fmt.Errorf("RawDataSize %#x, expected 0", s.RawDataSize)
		}
	}
	if s.Type == TDVFTDHOB && len(t.of(TDVFTDHOB)) > 0 {
		return errors.New("the second one, expected one at most")
	}
	for i := range t.Sections {
		if other := &t.Sections[i]; s.MemoryAddress < other.end() && other.MemoryAddress < s.end() {
			return fmt.Errorf("memory %#x to %#x is section %d's (%s) too", s.MemoryAddress, s.end(), i, other.Type)
		}
	}
	return nil
}

// of returns the sections of some types, in order.
func (t *TDVF) of(types ...TDVFSectionType) (out []*TDVFSection) {
	for i := range t.Sections {
		if slices.Contains(types, t.Sections[i].Type) {
			out = append(out, &t.Sections[i])
		}
	}
	return out
}

// data is what the image has for a section.
func (t *TDVF) data(s *TDVFSection) []byte {
	return t.Image[s.DataOffset:][:s.RawDataSize]
}
