package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// ErrNoGPT is wrapped by the error for a disk without a GPT.
var ErrNoGPT = errors.New("no GPT")

// The GPT's header and entries (UEFI 2.10, 5.3).
const (
	gptSignature   = "EFI PART"
	gptHeaderBytes = 92
	gptEntryBytes  = 128
)

// GPTBytes is how much of a disk's beginning GPTEvent needs at most: the protective
// MBR, the header, and 16 KiB of entries, in sectors of 4096 bytes, or more entries
// than partitioning tools make.
const GPTBytes = 1 << 20

// GPTEvent returns what firmware measures of the disk that it boots from, of which
// disk is the beginning: UEFI_GPT_DATA (TCG PFP 1.06, 10.2.4; edk2
// DxeTpm2MeasureBootLib), which is the header's 92 bytes, the number of
// partitions, le64, and the entries that are in use.
//
// The sectors have 512 bytes or 4096. The error wraps ErrNoGPT where there is no
// header; others give the offset on the disk and the field. It is an error if the
// header's or the entries' CRC is not theirs: firmware takes the copy at the
// disk's end then.
func GPTEvent(disk []byte) ([]byte, error) {
	le := binary.LittleEndian
	for _, sector := range []uint64{512, 4096} {
		if uint64(len(disk)) < sector+gptHeaderBytes || string(disk[sector:sector+8]) != gptSignature {
			continue
		}
		header := disk[sector:][:gptHeaderBytes]
		if size, sum := le.Uint32(header[12:]), gptHeaderSum(header); size != gptHeaderBytes || sum != le.Uint32(header[16:]) {
			return nil, fmt.Errorf("offset %#x: the GPT's header has %d bytes and CRC %#x, expected %d and %#x", sector, size, le.Uint32(header[16:]), gptHeaderBytes, sum)
		}
		entries, err := gptEntries(disk, header, sector)
		if err != nil {
			return nil, err
		}
		return gptData(header, entries), nil
	}
	return nil, fmt.Errorf("%w: %q is at neither 0x200 nor 0x1000", ErrNoGPT, gptSignature)
}

func gptHeaderSum(header []byte) uint32 {
	b := append([]byte(nil), header...)
	copy(b[16:20], make([]byte, 4))
	return crc32.ChecksumIEEE(b)
}

// gptEntries returns the entries, used or not.
func gptEntries(disk, header []byte, sector uint64) ([]byte, error) {
	le := binary.LittleEndian
	at, count, size := le.Uint64(header[72:]), le.Uint32(header[80:]), le.Uint32(header[84:])
	if size != gptEntryBytes {
		return nil, fmt.Errorf("offset %#x: entries of %d bytes, expected %d", sector+84, size, gptEntryBytes)
	}
	length := uint64(count) * uint64(size)
	if at > uint64(len(disk))/sector || length > uint64(len(disk))-at*sector {
		return nil, fmt.Errorf("offset %#x: %d entries from sector %d, and %d bytes of the disk are here", sector+72, count, at, len(disk))
	}
	entries := disk[at*sector:][:length]
	if got := crc32.ChecksumIEEE(entries); got != le.Uint32(header[88:]) {
		return nil, fmt.Errorf("offset %#x: the entries' CRC is %#x, expected %#x", sector+88, le.Uint32(header[88:]), got)
	}
	return entries, nil
}

func gptData(header, entries []byte) []byte {
	var used []byte
	for ; len(entries) > 0; entries = entries[gptEntryBytes:] {
		if guidAt(entries, 0) != (GUID{}) {
			used = append(used, entries[:gptEntryBytes]...)
		}
	}
	b := append([]byte(nil), header...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(used)/gptEntryBytes))
	return append(b, used...)
}
