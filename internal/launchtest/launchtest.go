// Package launchtest makes OVMF images for tests: a pattern, and at its end what
// hypervisors read of an image, at the offsets and with the GUIDs of edk2
// OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc. It shares no code with the
// readers that are tested with it, but for GUIDs.
package launchtest

import (
	"encoding/binary"

	"tallystick/quote/launch"
)

// Image is what is in an image.
type Image struct {
	Pages    int
	Sections []launch.Section // nil: no SEV metadata
	Hashes   [2]uint32        // address and size of the place for kernel hashes
	Reset    uint32           // 0: no SEV-ES reset block
	Extra    []Entry          // before the others in the GUIDed table
	NoTable  bool
}

// Entry is an entry of the GUIDed table.
type Entry struct {
	GUID string
	Data []byte
}

// The entries' GUIDs.
const (
	Footer   = "96b582de-1fb2-45f7-baea-a366c55a082d"
	Hashes   = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	Reset    = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
	Metadata = "dc886566-984a-4798-a75e-5585a7bf67cc"
	SVSMInfo = "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"
)

const (
	AfterTable  = 32    // bytes behind the GUIDed table
	EntryHeader = 18    // an entry's size and GUID
	MetadataEnd = 0x800 // the SEV metadata begin so far before the end
)

// AmdSev is an image like edk2's OvmfPkg/AmdSev, for measured direct boot, with the
// sections that are there, at their addresses.
func AmdSev() Image {
	return Image{
		Pages: 16,
		Sections: []launch.Section{
			{GPA: 0x800000, Size: 0x9000, Type: launch.SectionMemory},
			{GPA: 0x80A000, Size: 0x3000, Type: launch.SectionMemory},
			{GPA: 0x80D000, Size: 0x1000, Type: launch.SectionSecrets},
			{GPA: 0x80E000, Size: 0x1000, Type: launch.SectionCPUID},
			{GPA: 0x80F000, Size: 0x1000, Type: launch.SectionSVSMCAA},
			{GPA: 0x811000, Size: 0xF000, Type: launch.SectionMemory},
			{GPA: 0x810000, Size: 0x1000, Type: launch.SectionKernelHashes},
		},
		Hashes: [2]uint32{0x810C00, 0x400},
		Reset:  0x80B004,
	}
}

// Generic is an image like edk2's OvmfPkgX64: no place for kernel hashes.
func Generic() Image {
	i := AmdSev()
	i.Sections = i.Sections[:6]
	i.Hashes = [2]uint32{}
	return i
}

// Early is Generic from before edk2 had a section for an SVSM.
func Early() Image {
	i := Generic()
	i.Sections = append(i.Sections[:4:4], i.Sections[5])
	return i
}

// Build lays the image out.
func (i Image) Build() []byte {
	b := make([]byte, i.Pages*launch.PageSize)
	for at := range b {
		b[at] = byte(at>>12*31 + at>>4*7 + at)
	}
	if i.NoTable {
		return b
	}
	entries := i.Extra
	if i.Sections != nil {
		putMetadata(b[len(b)-MetadataEnd:], i.Sections)
		entries = append(entries, Entry{Metadata, binary.LittleEndian.AppendUint32(nil, MetadataEnd)})
	}
	entries = append(entries, Entry{Hashes, numbers(i.Hashes[:]...)})
	if i.Reset != 0 {
		entries = append(entries, Entry{Reset, numbers(i.Reset)})
	}
	return WithTable(b, entries)
}

func numbers(all ...uint32) (b []byte) {
	for _, n := range all {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func putMetadata(b []byte, sections []launch.Section) {
	metadata := append([]byte("ASEV"), numbers(uint32(16+12*len(sections)), 1, uint32(len(sections)))...)
	for _, s := range sections {
		metadata = append(metadata, numbers(s.GPA, s.Size, uint32(s.Type))...)
	}
	copy(b, metadata)
}

// WithTable writes a GUIDed table over an image's end.
func WithTable(b []byte, entries []Entry) []byte {
	size := EntryHeader
	for _, e := range entries {
		size += len(e.Data) + EntryHeader
	}
	table := make([]byte, 0, size)
	put := func(data []byte, size int, guid string) {
		table = append(table, data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(size))
		g := launch.MustGUID(guid)
		table = append(table, g[:]...)
	}
	for _, e := range entries {
		put(e.Data, len(e.Data)+EntryHeader, e.GUID)
	}
	put(nil, size, Footer)
	copy(b[len(b)-AfterTable-size:], table)
	return b
}

// SVSM is an image like Coconut SVSM's, with sections of its own.
func SVSM() Image {
	return Image{
		Pages: 8,
		Sections: []launch.Section{
			{GPA: 0x9000, Size: 0x1000, Type: launch.SectionSecrets},
			{GPA: 0xA000, Size: 0x1000, Type: launch.SectionCPUID},
			{GPA: 0xB000, Size: 0x5000, Type: launch.SectionMemory},
		},
		Extra: []Entry{{SVSMInfo, numbers(0x4000)}},
	}
}
