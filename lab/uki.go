//go:build linux

package lab

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
)

// section is a section of a unified kernel image (UAPI.5).
type section struct {
	name string
	data []byte
}

// Offsets into a PE image (Microsoft's PE format): of the pointer to the PE
// header in the DOS header, and of fields in the headers.
const (
	peOffsetAt         = 0x3c
	coffHeaderSize     = 24 // with its signature, "PE\0\0"
	numberOfSectionsAt = 6
	sizeOfImageAt      = coffHeaderSize + 56
	sectionHeaderSize  = 40

	initializedData = 0x40
	memoryRead      = 0x40000000
)

// addSections adds sections to a PE image, as ukify does. The headers of the
// stub leave room for theirs.
func addSections(stub []byte, sections []section) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("stub: %w", err)
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, fmt.Errorf("stub: not a 64-bit image")
	}
	head := int(binary.LittleEndian.Uint32(stub[peOffsetAt:]))
	table := head + coffHeaderSize + int(f.SizeOfOptionalHeader)
	n := int(f.NumberOfSections)
	if end := table + (n+len(sections))*sectionHeaderSize; end > int(opt.SizeOfHeaders) {
		return nil, fmt.Errorf("stub: headers have %d bytes, %d sections more take %d", opt.SizeOfHeaders, len(sections), end)
	}
	out := bytes.Clone(stub)
	address := uint32(0)
	for _, s := range f.Sections {
		address = max(address, s.VirtualAddress+s.VirtualSize)
	}
	for i, s := range sections {
		address = alignUp(address, opt.SectionAlignment)
		out = append(out, make([]byte, int(alignUp(uint32(len(out)), opt.FileAlignment))-len(out))...)
		h := out[table+(n+i)*sectionHeaderSize:][:sectionHeaderSize]
		copy(h, s.name)
		size := uint32(len(s.data))
		for at, v := range map[int]uint32{
			8:  size,                             // VirtualSize
			12: address,                          // VirtualAddress
			16: alignUp(size, opt.FileAlignment), // SizeOfRawData
			20: uint32(len(out)),                 // PointerToRawData
			36: initializedData | memoryRead,     // Characteristics
		} {
			binary.LittleEndian.PutUint32(h[at:], v)
		}
		out = append(out, s.data...)
		address += size
	}
	out = append(out, make([]byte, int(alignUp(uint32(len(out)), opt.FileAlignment))-len(out))...)
	binary.LittleEndian.PutUint16(out[head+numberOfSectionsAt:], uint16(n+len(sections)))
	binary.LittleEndian.PutUint32(out[head+sizeOfImageAt:], alignUp(address, opt.SectionAlignment))
	return out, nil
}

func alignUp(v, to uint32) uint32 { return (v + to - 1) / to * to }
