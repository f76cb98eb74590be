package launch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The entries of the GUIDed table that AMD's launch is made by (edk2
// OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc).
var (
	hashTableEntry   = MustGUID("7255371f-3a3b-4b04-927b-1da6efa8d454") // le32 address, le32 size
	resetBlockEntry  = MustGUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e") // le32: IP, and base of CS
	sevMetadataEntry = MustGUID("dc886566-984a-4798-a75e-5585a7bf67cc") // le32: how far before the end the metadata begin
	svsmInfoEntry    = MustGUID("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd") // le32: the entry point's offset in an SVSM image
)

// SectionType is the kind of a section of an image's SEV metadata.
type SectionType uint32

// The kinds of sections (edk2 OvmfPkg/ResetVector/X64/OvmfSevMetadata.nasm.inc).
const (
	SectionMemory       SectionType = 1    // memory that the firmware uses before it can validate any
	SectionSecrets      SectionType = 2    // the secrets page
	SectionCPUID        SectionType = 3    // the CPUID page
	SectionSVSMCAA      SectionType = 4    // the calling area of an SVSM
	SectionKernelHashes SectionType = 0x10 // where the table of hashes goes
)

var sectionNames = map[SectionType]string{
	SectionMemory: "SNP_SEC_MEM", SectionSecrets: "SNP_SECRETS", SectionCPUID: "CPUID",
	SectionSVSMCAA: "SVSM_CAA", SectionKernelHashes: "SNP_KERNEL_HASHES",
}

// String returns edk2's name.
func (t SectionType) String() string {
	if name, ok := sectionNames[t]; ok {
		return name
	}
	return fmt.Sprintf("section type %#x", uint32(t))
}

// Section is memory that an image wants to be there, and added to the guest, when
// it starts.
type Section struct {
	Offset int // of the section's descriptor in the image
	GPA    uint32
	Size   uint32 // in bytes
	Type   SectionType
}

// end is where the section ends; it may be at 4 GiB.
func (s Section) end() uint64 { return uint64(s.GPA) + uint64(s.Size) }

const (
	metadataHeader = 16 // "ASEV", le32 size with this header, le32 version, le32 number of sections
	sectionSize    = 12 // le32 address, le32 size, le32 type
)

// errNoMetadata is for an image that is no firmware for SEV-SNP.
var errNoMetadata = errors.New("the image's GUIDed table has no SEV metadata (" + sevMetadataEntry.String() + "): SEV-SNP guests cannot be launched with it")

// ParseSections reads the SEV metadata of an OVMF image, which its GUIDed table
// points to. Each section is whole pages, none goes beyond 4 GiB, and no two of
// them have memory in common: the firmware processor adds a page once.
//
// The errors give the offset in the image. They wrap ErrNoTable where the image has
// no GUIDed table.
func ParseSections(image []byte) ([]Section, error) {
	table, err := ParseTable(image)
	if err != nil {
		return nil, err
	}
	return sections(image, table)
}

func sections(image []byte, table Table) ([]Section, error) {
	entry, ok := table.Find(sevMetadataEntry)
	if !ok {
		return nil, errNoMetadata
	}
	before, err := entry.u32("the SEV metadata's offset from the end")
	if err != nil {
		return nil, err
	}
	if before < metadataHeader || int64(before) > int64(len(image)) {
		return nil, fmt.Errorf("offset %#x: the SEV metadata begin %d bytes before the end, expected %d to %d", entry.Offset, before, metadataHeader, len(image))
	}
	start := len(image) - int(before)
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(image[at:]) }
	size, version, count := u32(start+4), u32(start+8), u32(start+12)
	switch {
	case string(image[start:start+4]) != "ASEV":
		return nil, fmt.Errorf("offset %#x: SEV metadata: signature %q, expected \"ASEV\"", start, image[start:start+4])
	case version != 1:
		return nil, fmt.Errorf("offset %#x: SEV metadata: version %d, expected 1", start+8, version)
	case size < metadataHeader || size > before:
		return nil, fmt.Errorf("offset %#x: SEV metadata: size %d, expected %d to %d", start+4, size, metadataHeader, before)
	case uint64(count)*sectionSize > uint64(size)-metadataHeader:
		return nil, fmt.Errorf("offset %#x: SEV metadata: %d sections, and their size, %d, has room for %d", start+12, count, size, (size-metadataHeader)/sectionSize)
	}
	all := make([]Section, count)
	for i := range all {
		at := start + metadataHeader + i*sectionSize
		all[i] = Section{at, u32(at), u32(at + 4), SectionType(u32(at + 8))}
		if err := all[i].check(); err != nil {
			return nil, err
		}
	}
	return all, checkDisjoint(all)
}

func (s Section) check() error {
	switch {
	case s.GPA%PageSize != 0:
		return fmt.Errorf("offset %#x: %s at %#x, expected a page's address", s.Offset, s.Type, s.GPA)
	case s.Size == 0 || s.Size%PageSize != 0:
		return fmt.Errorf("offset %#x: %s has %#x bytes, expected whole pages of %#x", s.Offset, s.Type, s.Size, PageSize)
	case s.end() > fourGiB:
		return fmt.Errorf("offset %#x: %s at %#x has %#x bytes, expected to end by 4 GiB", s.Offset, s.Type, s.GPA, s.Size)
	case (s.Type == SectionSecrets || s.Type == SectionCPUID) && s.Size != PageSize:
		return fmt.Errorf("offset %#x: %s has %#x bytes, expected one page", s.Offset, s.Type, s.Size)
	}
	return nil
}

func checkDisjoint(all []Section) error {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b Section) int { return cmp.Compare(a.GPA, b.GPA) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.end() > uint64(b.GPA) {
			return fmt.Errorf("offset %#x: %s at %#x overlaps %s, which is at %#x and has %#x bytes", b.Offset, b.Type, b.GPA, a.Type, a.GPA, a.Size)
		}
	}
	return nil
}

// fourGiB is where a firmware image ends.
const fourGiB = 1 << 32

// imageAddress is where an image begins that ends at some address. It is whole
// pages: QEMU takes no other flash.
func imageAddress(image []byte, end uint64) (gpa uint64, err error) {
	size := uint64(len(image))
	if size == 0 || size%PageSize != 0 {
		return 0, fmt.Errorf("the image has %#x bytes, expected whole pages of %#x", size, PageSize)
	}
	if size > end {
		return 0, fmt.Errorf("the image has %#x bytes, expected %#x at most", size, end)
	}
	return end - size, nil
}

// resetAddress is where processors other than the first start in an SEV-ES or
// SEV-SNP guest: bits 0 to 15 are their IP, the others CS's base.
func resetAddress(table Table) (uint32, error) {
	entry, ok := table.Find(resetBlockEntry)
	if !ok {
		return 0, fmt.Errorf("the image's GUIDed table has no SEV-ES reset block (%s): SEV-ES and SEV-SNP guests cannot be launched with it", resetBlockEntry)
	}
	address, err := entry.u32("the SEV-ES reset address")
	if err == nil && address == 0 {
		err = fmt.Errorf("offset %#x: the SEV-ES reset address is zero", entry.Offset)
	}
	return address, err
}

// parseTable reads the GUIDed table, or what stood in its place before there was
// one.
func parseTable(image []byte) (Table, error) {
	table, err := ParseTable(image)
	end := len(image) - tableAfter
	if !errors.Is(err, ErrNoTable) || end < entryHeader || guidAt(image, end-len(GUID{})) != resetBlockEntry {
		return table, err
	}
	size := int(binary.LittleEndian.Uint16(image[end-entryHeader:]))
	if size < entryHeader || size > end {
		return nil, fmt.Errorf("offset %#x: the SEV-ES reset block's size is %d, expected %d to %d", end-entryHeader, size, entryHeader, end)
	}
	return entries(image, end-size, end)
}
