package launch_test

import (
	"encoding/binary"
	"testing"

	"tallystick/quote/launch"
)

// image is an OVMF image of the test's own making.
type image struct {
	pages    int
	sections []launch.Section // nil: no SEV metadata
	hashes   [2]uint32        // address and size of the place for kernel hashes
	reset    uint32           // 0: no SEV-ES reset block
	extra    []entry
	noTable  bool
}

type entry struct {
	guid string
	data []byte
}

// The GUIDs of edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc.
const (
	footerGUID   = "96b582de-1fb2-45f7-baea-a366c55a082d"
	hashesGUID   = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	resetGUID    = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
	metadataGUID = "dc886566-984a-4798-a75e-5585a7bf67cc"
	svsmGUID     = "a789a612-0597-4c4b-a49f-cbb1fe9d1ddd"
)

// amdSev is an image like edk2's OvmfPkg/AmdSev, for measured direct boot: its
// sections, with addresses as they are there.
func amdSev() image {
	return image{
		pages: 16,
		sections: []launch.Section{
			{GPA: 0x800000, Size: 0x9000, Type: launch.SectionMemory},
			{GPA: 0x80A000, Size: 0x3000, Type: launch.SectionMemory},
			{GPA: 0x80D000, Size: 0x1000, Type: launch.SectionSecrets},
			{GPA: 0x80E000, Size: 0x1000, Type: launch.SectionCPUID},
			{GPA: 0x80F000, Size: 0x1000, Type: launch.SectionSVSMCAA},
			{GPA: 0x811000, Size: 0xF000, Type: launch.SectionMemory},
			{GPA: 0x810000, Size: 0x1000, Type: launch.SectionKernelHashes},
		},
		hashes: [2]uint32{0x810C00, 0x400},
		reset:  0x80B004,
	}
}

// generic is an image like edk2's OvmfPkgX64: no place for kernel hashes.
func generic() image {
	i := amdSev()
	i.sections = i.sections[:6]
	i.hashes = [2]uint32{}
	return i
}

const (
	afterTable = 32
	headerSize = 18
)

// build lays the image out: a pattern, and at its end the metadata, the GUIDed
// table and the reset code.
func (i image) build() []byte {
	b := make([]byte, i.pages*launch.PageSize)
	for at := range b {
		b[at] = byte(at>>12*31 + at>>4*7 + at)
	}
	if i.noTable {
		return b
	}
	le := binary.LittleEndian
	metadata := len(b) - 0x800
	entries := i.extra
	if i.sections != nil {
		copy(b[metadata:], "ASEV")
		le.PutUint32(b[metadata+4:], uint32(16+12*len(i.sections)))
		le.PutUint32(b[metadata+8:], 1)
		le.PutUint32(b[metadata+12:], uint32(len(i.sections)))
		for n, s := range i.sections {
			at := metadata + 16 + 12*n
			le.PutUint32(b[at:], s.GPA)
			le.PutUint32(b[at+4:], s.Size)
			le.PutUint32(b[at+8:], uint32(s.Type))
		}
		entries = append(entries, entry{metadataGUID, le.AppendUint32(nil, 0x800)})
	}
	entries = append(entries, entry{hashesGUID, le.AppendUint32(le.AppendUint32(nil, i.hashes[0]), i.hashes[1])})
	if i.reset != 0 {
		entries = append(entries, entry{resetGUID, le.AppendUint32(nil, i.reset)})
	}
	return withTable(b, entries)
}

// withTable writes the GUIDed table over the image's end.
func withTable(b []byte, entries []entry) []byte {
	size := headerSize
	for _, e := range entries {
		size += len(e.data) + headerSize
	}
	table := make([]byte, 0, size)
	put := func(data []byte, size int, guid string) {
		table = append(table, data...)
		table = binary.LittleEndian.AppendUint16(table, uint16(size))
		g := launch.MustGUID(guid)
		table = append(table, g[:]...)
	}
	for _, e := range entries {
		put(e.data, len(e.data)+headerSize, e.guid)
	}
	put(nil, size, footerGUID)
	copy(b[len(b)-afterTable-size:], table)
	return b
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// early is generic before edk2 had a section for an SVSM.
func early() image {
	i := generic()
	i.sections = append(i.sections[:4:4], i.sections[5])
	return i
}
