package eventlog

import (
	"fmt"
	"strings"
)

// partitionTypes are types of GPT partitions (UEFI 2.10 §5.3 and the UAPI
// group's discoverable partitions), by their GUID's text.
var partitionTypes = map[string]string{
	"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
	"21686148-6449-6e6f-744e-656564454649": "BIOS boot",
	"0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux data",
	"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root (x86-64)",
	"b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root (arm64)",
	"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
	"bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux extended boot",
	"e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
	"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
	"e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",
	"de94bba4-06d1-4d40-a16a-bfd50179d6ac": "Windows recovery",
}

// gptDetail renders a UEFI_GPT_DATA (TCG PFP 1.05 §10.2.6): the partition
// table's header | u64 number of partitions | their entries. The header
// (UEFI 2.10 §5.3) is 92 bytes, with the disk's GUID at 56 and the size of
// an entry at 84.
func gptDetail(b []byte) (string, bool) {
	f := fields{rest: b}
	if string(f.bytes(8)) != "EFI PART" {
		return "", false
	}
	f.bytes(56 - 8)
	disk := f.guid()
	f.bytes(84 - 72)
	entrySize := uint64(f.u32())
	f.u32() // CRC of the entries
	n := f.u64()
	const minEntry = 128
	if f.bad || entrySize < minEntry || n > uint64(len(f.rest))/entrySize {
		return "", false
	}
	var s strings.Builder
	fmt.Fprintf(&s, "disk %s, %s", disk, plural(int(n), "partition", "partitions"))
	for i := uint64(0); i < n && s.Len() < maxDetail; i++ {
		s.WriteString([]string{": ", ", "}[min(i, 1)])
		s.WriteString(partition(f.bytes(entrySize)))
	}
	return s.String(), true
}

// partition renders an EFI_PARTITION_ENTRY (EDK2's Uefi/UefiGpt.h): guid type | guid | u64 first
// and last block | u64 attributes | name, 36 UTF-16 characters.
func partition(b []byte) string {
	f := fields{rest: b}
	kind := f.guid().String()
	if known, ok := partitionTypes[kind]; ok {
		kind = known
	}
	id := f.guid()
	first, last := f.u64(), f.u64()
	f.u64()
	return fmt.Sprintf("\"%s\" %s %s blocks %d-%d", utf16Text(f.bytes(72)), kind, id, first, last)
}
