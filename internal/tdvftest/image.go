// Package tdvftest makes firmware images and kernels for tests of a TD's launch
// measurement.
package tdvftest

import (
	"encoding/binary"
	"slices"

	"tallystick/quote/launch"
)

// Image is a TDVF image of the test's own making.
type Image struct {
	Size     int
	Volume   []byte // the CFV, at the image's beginning
	Sections []launch.TDVFSection
	Apart    bool // the metadata are in the CFV, so that the code does not change with them
}

// descriptor is where the metadata are, from the image's end.
func (v Image) descriptor() int {
	if v.Apart {
		return v.Size - 0x1f000
	}
	return DescriptorFromEnd
}

// The bytes of the CFV in an image of 4 MiB, and in one of 2 MiB.
const (
	CFV4M = 0x84000
	CFV2M = 0x20000
)

// EDK2 is an image with the sections of Debian's OVMF.fd 2025.02, and its variables,
// of which there are none. The code is a pattern.
func EDK2() Image {
	return Image{Size: 4 << 20, Volume: Pristine(CFV4M), Sections: []launch.TDVFSection{
		{DataOffset: 0x84000, RawDataSize: 0x37c000, MemoryAddress: 0xffc84000, MemoryDataSize: 0x37c000, Type: launch.TDVFBFV, Attributes: launch.TDVFExtend},
		{RawDataSize: 0x84000, MemoryAddress: 0xffc00000, MemoryDataSize: 0x84000, Type: launch.TDVFCFV},
		{MemoryAddress: 0x811000, MemoryDataSize: 0xf000, Type: launch.TDVFTempMem},
		{MemoryAddress: 0x80b000, MemoryDataSize: 0x2000, Type: launch.TDVFTempMem},
		{MemoryAddress: 0x809000, MemoryDataSize: 0x2000, Type: launch.TDVFTDHOB},
		{MemoryAddress: 0x800000, MemoryDataSize: 0x6000, Type: launch.TDVFTempMem},
	}}
}

// EDK2of2022 has the temporary memory of edk2 before 2024.
func EDK2of2022() Image {
	v := EDK2()
	v.Sections[2].MemoryAddress, v.Sections[2].MemoryDataSize = 0x810000, 0x10000
	return v
}

// Small is an image of 2 MiB, as Google's is.
func Small() Image {
	v := EDK2of2022()
	v.Size, v.Volume = 2<<20, Pristine(CFV2M)
	v.Sections[0] = launch.TDVFSection{DataOffset: 0x20000, RawDataSize: 0x1e0000, MemoryAddress: 0xffe20000, MemoryDataSize: 0x1e0000, Type: launch.TDVFBFV, Attributes: launch.TDVFExtend}
	v.Sections[1] = launch.TDVFSection{RawDataSize: 0x20000, MemoryAddress: 0xffe00000, MemoryDataSize: 0x20000, Type: launch.TDVFCFV}
	return v
}

// Where the metadata are in such an image, from its end.
const (
	DescriptorFromEnd  = 0x200
	OffsetEntryFromEnd = 32 + 18 + 22 // the reset vector, the footer, the entry
)

// Bytes writes the image: the volume, a pattern, the metadata, the GUIDed table.
func (v Image) Bytes() []byte {
	le := binary.LittleEndian
	b := make([]byte, v.Size)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + i>>16)
	}
	copy(b, v.Volume)
	guid := launch.MustGUID("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae") // which Google's VMM looks for
	copy(b[v.Size-v.descriptor()-len(guid):], guid[:])
	d := b[v.Size-v.descriptor():]
	copy(d, "TDVF")
	le.PutUint32(d[4:], uint32(16+32*len(v.Sections)))
	le.PutUint32(d[8:], 1)
	le.PutUint32(d[12:], uint32(len(v.Sections)))
	for i, s := range v.Sections {
		e := d[16+32*i:]
		le.PutUint32(e, s.DataOffset)
		le.PutUint32(e[4:], s.RawDataSize)
		le.PutUint64(e[8:], s.MemoryAddress)
		le.PutUint64(e[16:], s.MemoryDataSize)
		le.PutUint32(e[24:], uint32(s.Type))
		le.PutUint32(e[28:], s.Attributes)
	}
	offset, footer := launch.MustGUID("e47a6535-984a-4798-865e-4685a7bf8ec2"), launch.MustGUID("96b582de-1fb2-45f7-baea-a366c55a082d")
	t := b[v.Size-OffsetEntryFromEnd:]
	le.PutUint32(t, uint32(v.descriptor()))
	le.PutUint16(t[4:], 22)
	copy(t[6:], offset[:])
	le.PutUint16(t[22:], 22+18)
	copy(t[24:], footer[:])
	return b
}

// Pristine is a volume without variables, as edk2's OvmfPkg/Include/Fdf/VarStore.fdf.inc
// describes it: a header of 72 bytes, the store, the working block of its
// fault-tolerant writes. That of 0x84000 bytes is what a TD of 4 MiB firmware
// measures: see TestRealRTMR0.
func Pristine(size int) []byte {
	le := binary.LittleEndian
	b := slices.Repeat([]byte{0xff}, size)
	header := make([]byte, 72)
	volume, store := launch.MustGUID("fff12b8d-7696-4c8b-a985-2747075b4f50"), launch.MustGUID("aaf32c78-947b-439a-a180-2e144ec37792")
	copy(header[16:], volume[:])
	le.PutUint64(header[32:], uint64(size))
	copy(header[40:], "_FVH")
	le.PutUint32(header[44:], 0x4feff)
	le.PutUint16(header[48:], uint16(len(header)))
	header[55] = 2 // revision
	le.PutUint32(header[56:], uint32(size/4096))
	le.PutUint32(header[60:], 4096)
	var sum uint16
	for i := 0; i < len(header); i += 2 {
		sum -= le.Uint16(header[i:])
	}
	le.PutUint16(header[50:], sum)
	copy(b, header)
	s := make([]byte, 28)
	copy(s, store[:])
	variables := map[int]int{CFV4M: 0x40000, CFV2M: 0xe000}[size]
	le.PutUint32(s[16:], uint32(variables-len(header)))
	s[20], s[21] = 0x5a, 0xfe
	copy(b[72:], s)
	work := launch.MustGUID("9e58292b-7c68-497d-a0ce-6500fd9f1b95")
	if at := variables + 0x1000; size == CFV4M {
		copy(b[at:], work[:])
		le.PutUint32(b[at+16:], 0x642caf2c)
		copy(b[at+20:], []byte{0xfe, 0xff, 0xff, 0xff})
		le.PutUint64(b[at+24:], 0xfe0)
	}
	return b
}

// Kernel is a kernel with an EFI stub of the test's own making: a PE32+ image with a
// Linux setup header in its headers, of which the second section's data come
// first, and with more behind the sections.
func Kernel() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x3010)
	for i := 0x270; i < len(b); i++ {
		b[i] = byte(i*3 + i>>8)
	}
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x40)
	pe := b[0x40:]
	copy(pe, "PE\x00\x00")
	le.PutUint16(pe[4:], 0x8664)
	le.PutUint16(pe[6:], 2)     // sections
	le.PutUint16(pe[20:], 0xa0) // of the optional header
	le.PutUint16(pe[22:], 0x206)
	o := pe[24:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[32:], 0x1000)     // alignment in memory
	le.PutUint32(o[36:], 0x200)      // and in the file
	le.PutUint32(o[56:], 0x3000)     // SizeOfImage
	le.PutUint32(o[60:], 0x1000)     // SizeOfHeaders
	le.PutUint32(o[64:], 0x12345678) // CheckSum
	le.PutUint16(o[68:], 10)         // EFI application
	le.PutUint32(o[108:], 6)         // entries of the directory
	for i, s := range []struct {
		name string
		at   uint32
	}{{".text", 0x2000}, {".data", 0x1000}} {
		h := o[0xa0+40*i:]
		copy(h, s.name)
		le.PutUint32(h[8:], 0x1000)
		le.PutUint32(h[12:], uint32(0x1000*(i+1)))
		le.PutUint32(h[16:], 0x1000)
		le.PutUint32(h[20:], s.at)
	}
	b[0x1f1] = 7
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	b[0x211] = 1
	le.PutUint32(b[0x22c:], 0x7fffffff)
	le.PutUint16(b[0x236:], 0x7f)
	return b
}
