package launchtest

import (
	"encoding/binary"
	"hash/crc32"

	"tallystick/quote/launch"
)

// IGVM makes an IGVM file, header by header. Its methods return it.
type IGVM struct {
	headers []byte
	data    []byte
	fixes   []int // where in headers an offset into data is, which is relative until Build
}

// SNPMask and TDXMask are the bits of the platforms.
const (
	SNPMask = 1 << 0
	TDXMask = 1 << 1
)

// NewIGVM makes a file for SEV-SNP and TDX, without directives.
func NewIGVM() *IGVM {
	f := &IGVM{}
	f.Header(1, append(numbers(TDXMask), 0, 3, 1, 0), make([]byte, 8))
	f.Header(1, append(numbers(SNPMask), 2, 2, 1, 0), make([]byte, 8))
	return f.Header(0x101, numbers(0x30000, 0, SNPMask, 0)) // the guest's policy
}

// Header adds a variable header of a type.
func (f *IGVM) Header(typ uint32, fields ...[]byte) *IGVM {
	var data []byte
	for _, field := range fields {
		data = append(data, field...)
	}
	f.headers = append(f.headers, numbers(typ, uint32(len(data)))...)
	f.headers = append(f.headers, data...)
	for len(f.headers)%8 != 0 {
		f.headers = append(f.headers, 0)
	}
	return f
}

// reference is the offset of data that is put into the file; 0 for nil.
func (f *IGVM) reference(at int, content []byte) uint32 {
	if content == nil {
		return 0
	}
	f.fixes = append(f.fixes, len(f.headers)+8+at)
	offset := len(f.data)
	f.data = append(f.data, content...)
	return uint32(offset)
}

// Page adds page data of a type; flags are 1 for 2 MiB, 2 for unmeasured, 4 for
// shared.
func (f *IGVM) Page(gpa uint64, mask, flags uint32, typ uint16, content []byte) *IGVM {
	return f.Header(0x302, address(gpa), numbers(mask, f.reference(12, content), flags, uint32(typ)))
}

// Area adds a parameter area, and a parameter that fills it.
func (f *IGVM) Area(index uint32, size uint64) *IGVM {
	return f.Header(0x301, address(size), numbers(index, 0)).Header(0x307, numbers(index, 0))
}

// Insert adds an area's insertion.
func (f *IGVM) Insert(gpa uint64, mask, index uint32) *IGVM {
	return f.Header(0x303, address(gpa), numbers(mask, index))
}

// Context adds a processor.
func (f *IGVM) Context(gpa uint64, mask uint32, index uint16, vmsa []byte) *IGVM {
	return f.Header(0x304, address(gpa), numbers(mask, f.reference(12, vmsa), uint32(index)))
}

// IDBlock adds an ID block for a launch digest.
func (f *IGVM) IDBlock(mask uint32, digest []byte) *IGVM {
	return f.Header(0x30B, numbers(mask, 0), digest, make([]byte, 1000))
}

// Build lays the file out, with the checksum.
func (f *IGVM) Build() []byte {
	const fixed = 24
	start := fixed + len(f.headers)
	b := append([]byte("IGVM"), numbers(1, fixed, uint32(len(f.headers)), uint32(start+len(f.data)), 0)...)
	b = append(b, f.headers...)
	le := binary.LittleEndian
	for _, at := range f.fixes {
		le.PutUint32(b[fixed+at:], le.Uint32(b[fixed+at:])+uint32(start))
	}
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b))
	return append(b, f.data...)
}

// Checksum writes a built file's checksum anew, after its headers were changed.
func Checksum(b []byte) []byte {
	le := binary.LittleEndian
	le.PutUint32(b[20:], 0)
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[:le.Uint32(b[8:])+le.Uint32(b[12:])]))
	return b
}

func address(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// Pattern is a page that differs from others by its seed.
func Pattern(seed byte) []byte {
	b := make([]byte, launch.PageSize)
	for i := range b {
		b[i] = seed + byte(i*3+i>>8)
	}
	return b
}

// Coconut is like the files that Coconut SVSM's igvmbuilder makes for QEMU, in its
// order (build, with --sort): first what is no page, and so the parameters, whose
// insertions are for all platforms; then pages by their address, of which some have
// no data, and the first processor as the last of them.
func Coconut() *IGVM {
	f := NewIGVM()
	f.Header(0x305, address(0x900000), numbers(SNPMask|TDXMask, 0x10000, 0, 0)) // required memory
	f.Area(1, 0x3000).Area(0, 0x1000)
	f.Insert(0x80A000, SNPMask|TDXMask, 1)
	f.Insert(0x809000, SNPMask|TDXMask, 0)
	f.Page(0x800000, SNPMask|TDXMask, 0, 0, Pattern(1))
	f.Page(0x801000, SNPMask|TDXMask, 0, 0, Pattern(2))
	f.Page(0x802000, SNPMask|TDXMask, 0, 0, nil)
	f.Page(0x803000, SNPMask|TDXMask, 0, 0, nil)
	f.Page(0x806000, SNPMask, 0, 1, nil)
	f.Page(0x807000, SNPMask, 0, 2, Pattern(3))
	f.Page(0x808000, SNPMask, 2, 0, nil)
	f.Page(0xFFFFF000, TDXMask, 0, 0, Pattern(9))
	return f.Context(0xFFFFFFFFF000, SNPMask, 0, Pattern(4))
}

// Interleaved has parameters among the pages, and a page behind the processor: what
// QEMU holds back for them differs by what stands between two pages.
func Interleaved() *IGVM {
	f := NewIGVM()
	f.Area(0, 0x2000).Area(1, 0x1000).Area(2, 0x1000).Area(3, 0x1000)
	f.Page(0x10000, SNPMask, 0, 0, Pattern(1))
	f.Page(0x11000, SNPMask, 0, 0, Pattern(2)) // goes on
	f.Insert(0x80000, SNPMask, 0)
	f.Page(0x12000, SNPMask, 0, 0, Pattern(3)) // not the next directive
	f.Page(0x13000, SNPMask|TDXMask, 0, 0, Pattern(4))
	f.Header(0x80000400, []byte{1, 2, 3}) // unknown, and optional
	f.Page(0x14000, SNPMask|TDXMask, 0, 0, Pattern(5))
	f.Page(0x15000, TDXMask, 0, 0, Pattern(6)) // no page of SEV-SNP's
	f.Insert(0x82000, TDXMask, 1)
	f.Insert(0x83000, SNPMask, 2)
	f.Page(0x15000, SNPMask|TDXMask, 0, 0, nil) // no data
	f.Context(0xFFFFFFFFF000, SNPMask, 0, Pattern(7))
	f.Insert(0x84000, SNPMask, 3)
	f.Page(0x16000, SNPMask|TDXMask, 2, 0, nil) // other flags
	f.Page(0x17000, SNPMask|TDXMask, 2, 1, nil) // another type
	f.Page(0x20000, SNPMask|TDXMask, 2, 1, nil) // not the next address
	return f.Page(0x21000, SNPMask, 2, 1, nil)  // another mask
}
