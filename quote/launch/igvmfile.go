package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// The types of headers (igvm_defs, IgvmVariableHeaderType) that tell what is
// measured.
const (
	igvmSupportedPlatform = 0x001
	igvmParameterArea     = 0x301
	igvmPageData          = 0x302
	igvmParameterInsert   = 0x303
	igvmVPContext         = 0x304
	igvmIDBlock           = 0x30B

	igvmOptional = 1 << 31 // a loader that does not know the header leaves it out
)

// igvmSections are the types of headers that there are. Those of a section stand
// before those of the next.
var igvmSections = [...]struct{ first, last uint32 }{
	{igvmSupportedPlatform, 0x001},
	{0x101, 0x106}, // initialization
	{0x301, 0x313}, // directives
}

const igvmDirectives = 2 // their section

// igvmSection is the section of a type of header; -1 if the type is unknown.
func igvmSection(typ uint32) int {
	for i, s := range igvmSections {
		if typ >= s.first && typ <= s.last {
			return i
		}
	}
	return -1
}

// igvmFile is an IGVM file: a fixed header, variable headers, and data.
type igvmFile struct {
	data    []byte
	start   int // of the data that headers refer to
	headers []igvmHeader
}

// igvmHeader is a variable header. Numbers in it are little-endian.
type igvmHeader struct {
	offset    int // in the file
	typ       uint32
	data      []byte
	directive int // which of the directives it is, from 1; 0 for other headers
}

func (h igvmHeader) u16(at int) uint16 { return binary.LittleEndian.Uint16(h.data[at:]) }
func (h igvmHeader) u32(at int) uint32 { return binary.LittleEndian.Uint32(h.data[at:]) }
func (h igvmHeader) u64(at int) uint64 { return binary.LittleEndian.Uint64(h.data[at:]) }

func (h igvmHeader) size(field string, want int) error {
	if len(h.data) != want {
		return fmt.Errorf("%s: %d bytes, expected %d", field, len(h.data), want)
	}
	return nil
}

// parseIGVM reads the headers. The fixed one has, as le32 each, the magic "IGVM",
// the version, the offset and the size of the variable headers, the file's size, a
// CRC-32 of all headers with zeros in its place; and in version 2 the architecture
// and the size of a page.
func parseIGVM(data []byte) (*igvmFile, error) {
	const v1, v2, checksum = 24, 32, 20
	if len(data) < v1 {
		return nil, fmt.Errorf("offset %#x: the file ends, expected a fixed header of %d bytes", len(data), v1)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	version, offset, size, total := u32(4), u32(8), u32(12), u32(16)
	fixed := v1
	if version == 2 {
		fixed = v2
	}
	end := uint64(offset) + uint64(size)
	switch {
	case string(data[:4]) != "IGVM":
		return nil, fmt.Errorf("offset 0: %q, expected \"IGVM\": no IGVM file", data[:4])
	case version != 1 && version != 2:
		return nil, fmt.Errorf("offset 0x4: version %d, expected 1 or 2", version)
	case uint64(total) != uint64(len(data)):
		return nil, fmt.Errorf("offset 0x10: the file's size is %d, and it has %d bytes", total, len(data))
	case offset < uint32(fixed) || offset%8 != 0 || end > uint64(len(data)):
		return nil, fmt.Errorf("offset 0x8: variable headers at %#x of %#x bytes, expected a multiple of 8 from %#x, to end by %#x", offset, size, fixed, len(data))
	case version == 2 && (u32(24) != 0 || u32(28) != PageSize):
		return nil, fmt.Errorf("offset 0x18: architecture %d with pages of %d bytes, expected 0, x86-64, and %d", u32(24), u32(28), PageSize)
	}
	crc := crc32.NewIEEE()
	crc.Write(data[:checksum])
	crc.Write(make([]byte, 4))
	crc.Write(data[checksum+4 : fixed])
	crc.Write(data[offset:end])
	if sum := crc.Sum32(); sum != u32(checksum) {
		return nil, fmt.Errorf("offset %#x: the checksum is %#x, and the headers come to %#x", checksum, u32(checksum), sum)
	}
	f := &igvmFile{data: data, start: int(end)}
	return f, f.variable(int(offset))
}

// variable reads the variable headers: type and size (le32 each), and so many bytes,
// filled up to a multiple of 8. It leaves out those that are unknown and optional.
func (f *igvmFile) variable(at int) error {
	stage, directives := 0, 0
	for at < f.start {
		if f.start-at < 8 {
			return fmt.Errorf("offset %#x: %d bytes are left of the variable headers, expected 8 at least", at, f.start-at)
		}
		typ, size := binary.LittleEndian.Uint32(f.data[at:]), binary.LittleEndian.Uint32(f.data[at+4:])
		if (uint64(size)+7)&^7 > uint64(f.start-at-8) {
			return fmt.Errorf("offset %#x: a header of %d bytes, and %d are left", at, size, f.start-at-8)
		}
		h := igvmHeader{offset: at, typ: typ, data: f.data[at+8:][:size:size]}
		at += 8 + (int(size)+7)&^7
		section := igvmSection(typ)
		switch {
		case section < 0 && typ&igvmOptional != 0:
			continue
		case section < 0:
			return fmt.Errorf("offset %#x: a header of the unknown type %#x, which may not be left out", h.offset, typ)
		case section < stage:
			return fmt.Errorf("offset %#x: a header of the type %#x, expected platforms first, then what initializes, then directives", h.offset, typ)
		case section == igvmDirectives:
			directives++
			h.directive = directives
		}
		stage = section
		f.headers = append(f.headers, h)
	}
	return nil
}

// snpMask is the bit of the directives that are for SEV-SNP: a header for each
// platform has mask (le32), highest VTL (1 byte), platform (1 byte), version
// (le16), shared boundary (le64).
func (f *igvmFile) snpMask() (mask uint32, err error) {
	const snp = 2
	for _, h := range f.headers {
		if h.typ != igvmSupportedPlatform {
			continue
		}
		if err := h.size("supported platform", 16); err != nil {
			return 0, fmt.Errorf("offset %#x: %w", h.offset, err)
		}
		switch {
		case h.data[5] != snp:
			continue
		case mask != 0:
			return 0, fmt.Errorf("offset %#x: supported platform: SEV-SNP comes twice", h.offset)
		case bits.OnesCount32(h.u32(0)) != 1:
			return 0, fmt.Errorf("offset %#x: supported platform: SEV-SNP's mask is %#x, expected one bit", h.offset, h.u32(0))
		}
		mask = h.u32(0)
	}
	if mask == 0 {
		return 0, errors.New("the file has nothing for SEV-SNP among its supported platforms")
	}
	return mask, nil
}

// zeroPage is what all pages without data have.
var zeroPage [PageSize]byte

// page returns a page of the file's data; zeros for the offset 0, by which a header
// says that it has none.
func (f *igvmFile) page(field string, offset uint32) ([]byte, error) {
	switch {
	case offset == 0:
		return zeroPage[:], nil
	case int64(offset) < int64(f.start) || int64(offset)+PageSize > int64(len(f.data)):
		return nil, fmt.Errorf("%s: data at %#x, expected a page from %#x, to end by %#x", field, offset, f.start, len(f.data))
	}
	return f.data[offset:][:PageSize:PageSize], nil
}
