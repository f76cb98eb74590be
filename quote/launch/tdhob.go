package launch

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
)

// span is memory of the guest.
type span struct{ start, end uint64 }

// hobResource is a resource descriptor of the TD's hand-off blocks.
type hobResource struct {
	span
	kind, attributes uint32
}

// The hand-off blocks (UEFI PI 1.8 volume 3, and MEMORY_UNACCEPTED, 7, in edk2
// MdePkg/Include/Pi/PrePiHob.h).
const (
	hobHandoff      = 1
	hobResourceType = 3
	hobEnd          = 0xffff

	handoffBytes  = 56
	resourceBytes = 48
	hobEndBytes   = 8

	hobVersion = 9

	systemMemory     = 0
	memoryUnaccepted = 7

	// hobUsable is EFI_RESOURCE_ATTRIBUTE_PRESENT, INITIALIZED and TESTED.
	hobUsable = 1 | 2 | 4
	// hobEarlyAccept tells the firmware to accept memory before the OS starts.
	hobEarlyAccept = 0x10000000
)

// hob writes the list that the VMM puts where TD_HOB is: the hand-off table and a
// descriptor for each resource. The firmware measures just that, and not the
// block behind it that ends the list (edk2 OvmfPkg/Library/PeilessStartupLib and
// TdxHelperLib), which the table's EfiEndOfHobList may or may not count in.
func hob(base uint64, resources []hobResource, counted uint64) []byte {
	le := binary.LittleEndian
	size := handoffBytes + len(resources)*resourceBytes
	b := make([]byte, 0, size)
	b = le.AppendUint16(b, hobHandoff)
	b = le.AppendUint16(b, handoffBytes)
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, hobVersion)
	b = append(b, make([]byte, 4+4*8)...) // BootMode, and four addresses that nobody fills in
	b = le.AppendUint64(b, base+uint64(size)+counted)
	for _, r := range resources {
		b = le.AppendUint16(b, hobResourceType)
		b = le.AppendUint16(b, resourceBytes)
		b = append(b, make([]byte, 4+16)...) // reserved, and the owner's GUID
		b = le.AppendUint32(b, r.kind)
		b = le.AppendUint32(b, r.attributes)
		b = le.AppendUint64(b, r.start)
		b = le.AppendUint64(b, r.end-r.start)
	}
	return b
}

func endOfHOB() []byte {
	b := binary.LittleEndian.AppendUint16(nil, hobEnd)
	b = binary.LittleEndian.AppendUint16(b, hobEndBytes)
	return append(b, 0, 0, 0, 0)
}

// QEMU's q35 has low memory up to 2.75 GiB; with more, the low part ends at 2 GiB
// and the rest begins at 4 GiB (hw/i386/pc_q35.c).
const (
	qemuLowMost = 0xb0000000
	qemuLow     = 0x80000000
)

// qemuLowMemory is a machine's RAM below 4 GiB.
func qemuLowMemory(memory uint64) uint64 {
	if memory >= qemuLowMost {
		return qemuLow
	}
	return memory
}

// qemuHOB is the list of QEMU's q35 (hw/i386/tdvf-hob.c, target/i386/kvm/tdx.c):
// RAM in the order of addresses, split where TD_HOB and TempMem are, which are
// system memory; the rest is unaccepted.
func (t *TDVF) qemuHOB(memory uint64) ([]byte, error) {
	ram := []span{{0, qemuLowMemory(memory)}}
	if low := ram[0].end; low < memory {
		ram = append(ram, span{tdvfTop, tdvfTop + memory - low})
	}
	added := t.spans(TDVFTDHOB, TDVFTempMem)
	for _, s := range added {
		if s.end > ram[0].end {
			return nil, fmt.Errorf("memory %#x to %#x, where the image wants some, is not in the machine's low %#x bytes", s.start, s.end, ram[0].end)
		}
	}
	var resources []hobResource
	for _, s := range added {
		resources = append(resources, hobResource{s, systemMemory, hobUsable})
	}
	for _, s := range without(ram, added) {
		resources = append(resources, hobResource{s, memoryUnaccepted, hobUsable})
	}
	slices.SortFunc(resources, func(a, b hobResource) int { return cmp.Compare(a.start, b.start) })
	return t.hob(resources, hobEndBytes)
}

// The memory of Google's machines: low memory up to 3 GiB, the image's 2 MiB below
// 4 GiB, and from there nodes of 176 GiB, the first of which is smaller by what is
// below (gce-tcb-verifier, tdx/mrtd_from_ovmf.go).
const (
	gib         = 1 << 30
	gceLow      = 3 * gib
	gceFirmware = 2 << 20
	gceNode     = 176 * gib
)

// gceSizes are the sizes that are published: c3-standard-4, -8, -22, -44, -88, -176.
var gceSizes = []uint64{16 * gib, 32 * gib, 88 * gib, 176 * gib, 352 * gib, 704 * gib}

func gceMemory(memory uint64) ([]span, error) {
	if !slices.Contains(gceSizes, memory) {
		return nil, fmt.Errorf("%d bytes of memory: expected 16, 32, 88, 176, 352 or 704 GiB, the machines whose memory's layout is public", memory)
	}
	ram := []span{{0, gceLow}, {tdvfTop - gceFirmware, tdvfTop}}
	at, left, node := uint64(tdvfTop), memory-gceLow, uint64(gceNode-gceLow)
	for left > 0 {
		size := min(left, node)
		ram = append(ram, span{at, at + size})
		at, left, node = at+size, left-size, gceNode
	}
	return ram, nil
}

// gceHOB is Google's list: the image's sections in the order of the metadata, all
// of them, and then the rest of the memory, unaccepted, to be accepted early where
// it is below 4 GiB, or everywhere.
func (t *TDVF) gceHOB(memory uint64, everywhere bool) ([]byte, error) {
	ram, err := gceMemory(memory)
	if err != nil {
		return nil, err
	}
	var resources []hobResource
	var added []span
	for i := range t.Sections {
		s := span{t.Sections[i].MemoryAddress, t.Sections[i].end()}
		added = append(added, s)
		resources = append(resources, hobResource{s, systemMemory, hobUsable})
	}
	slices.SortFunc(added, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for _, s := range without(ram, added) {
		attributes := uint32(hobUsable)
		if everywhere || s.end <= tdvfTop {
			attributes |= hobEarlyAccept
		}
		resources = append(resources, hobResource{s, memoryUnaccepted, attributes})
	}
	return t.hob(resources, 0)
}

// hob writes the list for the image's TD_HOB, in which it has to have room.
func (t *TDVF) hob(resources []hobResource, counted uint64) ([]byte, error) {
	sections := t.of(TDVFTDHOB)
	if len(sections) == 0 {
		return nil, fmt.Errorf("the image has no TD_HOB section")
	}
	s := sections[0]
	list := hob(s.MemoryAddress, resources, counted)
	if uint64(len(list)+hobEndBytes) > s.MemoryDataSize {
		return nil, fmt.Errorf("a list of %d resources takes %d bytes, and TD_HOB has %d", len(resources), len(list)+hobEndBytes, s.MemoryDataSize)
	}
	return list, nil
}

// spans returns where sections of some types are, by address.
func (t *TDVF) spans(types ...TDVFSectionType) (out []span) {
	for _, s := range t.of(types...) {
		out = append(out, span{s.MemoryAddress, s.end()})
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	return out
}

// without returns what of the memory is in none of the parts. Both are in the
// order of addresses, and nothing in them overlaps.
func without(memory, parts []span) (out []span) {
	for _, m := range memory {
		at := m.start
		for _, p := range parts {
			if p.end <= at || p.start >= m.end {
				continue
			}
			if p.start > at {
				out = append(out, span{at, p.start})
			}
			at = p.end
		}
		if at < m.end {
			out = append(out, span{at, m.end})
		}
	}
	return out
}
