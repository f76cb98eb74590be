package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// TableEntry is one entry of the GUIDed table at the end of an OVMF image.
type TableEntry struct {
	GUID   GUID
	Offset int    // of Data in the image
	Data   []byte // without the entry's size and GUID; points into the image
}

// Table is the GUIDed table at the end of an OVMF image, first entry first.
type Table []TableEntry

// Find returns the entry with a GUID. There is one at most.
func (t Table) Find(guid GUID) (entry TableEntry, ok bool) {
	for _, e := range t {
		if e.GUID == guid {
			return e, true
		}
	}
	return TableEntry{}, false
}

// ErrNoTable is wrapped by the error for an image without the table, as those
// are that were built without OVMF's reset vector: variables, CODE images cut
// short, other firmware.
var ErrNoTable = errors.New("no GUIDed table")

var tableFooter = MustGUID("96b582de-1fb2-45f7-baea-a366c55a082d")

const (
	tableAfter  = 32     // bytes of reset code, between the table and the end of the image
	entryHeader = 2 + 16 // size and GUID, behind the entry's data
)

// ParseTable reads the GUIDed table that ends 32 bytes before the end of an OVMF
// image (edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm; QEMU
// hw/i386/pc_sysfw_ovmf.c).
//
// An entry is its data, its whole size (le16, with these 18 bytes), and its GUID.
// The last entry is the footer, whose size is the whole table's. So the table is
// read from its end.
//
// The error wraps ErrNoTable where the footer's GUID is not in its place. Others
// give the offset in the image of what is wrong: a size that is smaller than an
// entry or goes beyond the table or the image, a GUID that comes twice, which
// QEMU and others resolve in different ways.
func ParseTable(image []byte) (Table, error) {
	footer := len(image) - tableAfter - entryHeader
	if footer < 0 {
		return nil, fmt.Errorf("%w: the image has %d bytes, expected %d at least", ErrNoTable, len(image), tableAfter+entryHeader)
	}
	if got := guidAt(image, footer+2); got != tableFooter {
		return nil, fmt.Errorf("%w: offset %#x: GUID %s, expected the table's footer, %s", ErrNoTable, footer+2, got, tableFooter)
	}
	size := int(binary.LittleEndian.Uint16(image[footer:]))
	start := footer + entryHeader - size
	if size < entryHeader || start < 0 {
		return nil, fmt.Errorf("offset %#x: the table's size is %d, expected %d to %d", footer, size, entryHeader, footer+entryHeader)
	}
	return entries(image, start, footer)
}

// entries reads the entries between two offsets of the image, from the last one.
func entries(image []byte, start, end int) (Table, error) {
	var reversed Table
	for end > start {
		header := end - entryHeader
		if header < start {
			return nil, fmt.Errorf("offset %#x: %d bytes before the first entry, expected none", start, end-start)
		}
		size := int(binary.LittleEndian.Uint16(image[header:]))
		if size < entryHeader || size > end-start {
			return nil, fmt.Errorf("offset %#x: the entry's size is %d, expected %d to %d", header, size, entryHeader, end-start)
		}
		entry := TableEntry{guidAt(image, header+2), end - size, image[end-size : header : header]}
		if _, again := reversed.Find(entry.GUID); again {
			return nil, fmt.Errorf("offset %#x: the entry %s comes twice", header+2, entry.GUID)
		}
		reversed = append(reversed, entry)
		end -= size
	}
	table := make(Table, 0, len(reversed))
	for i := len(reversed) - 1; i >= 0; i-- {
		table = append(table, reversed[i])
	}
	return table, nil
}

func guidAt(image []byte, at int) GUID { return GUID(image[at : at+len(GUID{})]) }

// u32 reads an entry that holds one number, le32. An entry may be longer: QEMU
// reads the first four bytes.
func (e TableEntry) u32(name string) (uint32, error) {
	if len(e.Data) < 4 {
		return 0, fmt.Errorf("offset %#x: %s has %d bytes, expected 4", e.Offset, name, len(e.Data))
	}
	return binary.LittleEndian.Uint32(e.Data), nil
}
