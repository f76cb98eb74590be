package launch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// PE is a PE/COFF image as UEFI loads and measures it: a kernel with an EFI stub,
// a boot loader, a unified kernel image.
type PE struct {
	Image    []byte
	Sections []PESection

	checksum    int // where CheckSum is, 4 bytes
	security    int // where the directory's entry for the certificates is, 8 bytes
	headers     int // SizeOfHeaders
	certificate int // the certificates' size
}

// PESection is a section of a PE image. It points into the image.
type PESection struct {
	Name        string // without the zeros behind it
	VirtualSize uint32
	Data        []byte
	offset      int
}

const (
	peSignature     = "PE\x00\x00"
	peOffsetAt      = 0x3c
	coffHeader      = 20
	sectionHeader   = 40
	pe32            = 0x10b
	pe32Plus        = 0x20b
	securityEntry   = 4 // its index in the data directory
	entryBytes      = 8
	directoryPE32   = 96 // the data directory in the optional header
	directoryPE32p  = 112
	checksumAt      = 64 // in the optional header
	sizeOfHeadersAt = 60
)

// ParsePE reads the headers of a PE or PE32+ image (Microsoft's PE format; edk2
// MdePkg/Library/BasePeCoffLib).
//
// The error gives the offset and the field. It is an error if headers, a section
// or the certificates are not wholly in the image, if the header's own fields are
// not in SizeOfHeaders, if sections overlap, or if the certificates are not its
// end: what is behind them is signed by nobody, and tools differ in what they do
// about it.
func ParsePE(image []byte) (*PE, error) {
	p := &PE{Image: image}
	if len(image) < peOffsetAt+4 || string(image[:2]) != "MZ" {
		return nil, fmt.Errorf("offset 0: no PE image: expected MZ and %d bytes at least", peOffsetAt+4)
	}
	le := binary.LittleEndian
	at := uint64(le.Uint32(image[peOffsetAt:]))
	coff := at + 4
	optional := coff + coffHeader
	if optional+directoryPE32p > uint64(len(image)) || string(image[at:coff]) != peSignature {
		return nil, fmt.Errorf("offset %#x: no PE header, to which the field at %#x points", at, peOffsetAt)
	}
	size := int(le.Uint16(image[coff+16:]))
	count := int(le.Uint16(image[coff+2:]))
	table := int(optional) + size
	if err := p.optional(int(optional), size); err != nil {
		return nil, err
	}
	if table+count*sectionHeader > p.headers {
		return nil, fmt.Errorf("offset %#x: the table of %d sections is not in SizeOfHeaders, %#x bytes", table, count, p.headers)
	}
	for i := range count {
		if err := p.section(table + i*sectionHeader); err != nil {
			return nil, fmt.Errorf("offset %#x: section %d: %w", table+i*sectionHeader, i, err)
		}
	}
	return p, p.apart()
}

// optional reads the optional header, which has size bytes.
func (p *PE) optional(at, size int) error {
	le := binary.LittleEndian
	directory, magic := at, le.Uint16(p.Image[at:])
	switch magic {
	case pe32:
		directory += directoryPE32
	case pe32Plus:
		directory += directoryPE32p
	default:
		return fmt.Errorf("offset %#x: magic %#x, expected %#x or %#x", at, magic, pe32, pe32Plus)
	}
	p.checksum, p.security = at+checksumAt, directory+securityEntry*entryBytes
	headers := uint64(le.Uint32(p.Image[at+sizeOfHeadersAt:]))
	if headers > uint64(len(p.Image)) {
		return fmt.Errorf("offset %#x: SizeOfHeaders %#x, and the image has %#x bytes", at+sizeOfHeadersAt, headers, len(p.Image))
	}
	p.headers = int(headers)
	entries := le.Uint32(p.Image[directory-4:])
	if entries <= securityEntry || p.security+entryBytes > at+size || p.security+entryBytes > p.headers {
		return fmt.Errorf("offset %#x: no entry for certificates: the directory has %d entries, the optional header %d bytes", directory-4, entries, size)
	}
	from, length := uint64(le.Uint32(p.Image[p.security:])), uint64(le.Uint32(p.Image[p.security+4:]))
	if length > 0 && (from < headers || from+length != uint64(len(p.Image))) {
		return fmt.Errorf("offset %#x: the certificates are at %#x to %#x, expected behind the headers to the image's end, %#x", p.security, from, from+length, len(p.Image))
	}
	p.certificate = int(length)
	return nil
}

func (p *PE) section(at int) error {
	le, header := binary.LittleEndian, p.Image[at:at+sectionHeader]
	name := string(header[:8])
	for len(name) > 0 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	size, from := uint64(le.Uint32(header[16:])), uint64(le.Uint32(header[20:]))
	if size == 0 {
		from = 0
	}
	if from+size > uint64(len(p.Image)-p.certificate) {
		return fmt.Errorf("SizeOfRawData %#x and PointerToRawData %#x end at %#x, and the image without certificates has %#x bytes", size, from, from+size, len(p.Image)-p.certificate)
	}
	p.Sections = append(p.Sections, PESection{Name: name, VirtualSize: le.Uint32(header[8:]), Data: p.Image[from:][:size:size], offset: int(from)})
	return nil
}

// inOrder returns the sections in the order of their data.
func (p *PE) inOrder() []PESection {
	sections := slices.Clone(p.Sections)
	slices.SortStableFunc(sections, func(a, b PESection) int { return cmp.Compare(a.offset, b.offset) })
	return sections
}

// apart is an error if two sections have data in common, which would be hashed
// twice.
func (p *PE) apart() error {
	end, before := 0, ""
	for _, s := range p.inOrder() {
		if len(s.Data) > 0 && s.offset < end {
			return fmt.Errorf("offset %#x: the data of section %q begin in those of %q, which end at %#x", s.offset, s.Name, before, end)
		}
		if len(s.Data) > 0 {
			end, before = s.offset+len(s.Data), s.Name
		}
	}
	return nil
}

// Authenticode returns the image's digest as firmware measures it: without
// CheckSum, the directory's entry for certificates and the certificates, sections
// in the order of their offsets, then what is behind them (Microsoft's
// Authenticode PE specification, "calculating the PE image hash"; edk2
// MeasureBootPeCoff.c, which does not pad the image's end, unlike some signing
// tools: an image that is signed has been padded in the file).
func (p *PE) Authenticode(alg rtmr.Alg) []byte {
	h := alg.New()
	h.Write(p.Image[:p.checksum])
	h.Write(p.Image[p.checksum+4 : p.security])
	h.Write(p.Image[p.security+entryBytes : p.headers])
	hashed := p.headers
	for _, s := range p.inOrder() {
		h.Write(s.Data)
		hashed += len(s.Data)
	}
	if rest := len(p.Image) - p.certificate; hashed < rest {
		h.Write(p.Image[hashed:rest])
	}
	return h.Sum(nil)
}

// Find returns the first section of a name.
func (p *PE) Find(name string) (s PESection, ok bool) {
	i := slices.IndexFunc(p.Sections, func(s PESection) bool { return s.Name == name })
	if i < 0 {
		return PESection{}, false
	}
	return p.Sections[i], true
}
