package launch

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// KernelHashes are the digests, SHA-256, of what QEMU hands to the firmware to
// boot, by -kernel, -initrd and -append with kernel-hashes=on. The firmware refuses
// other files.
type KernelHashes struct {
	Kernel, Initrd, Cmdline [sha256.Size]byte
}

// HashKernel digests a kernel's file, its initrd (nil if there is none, which has
// the digest of no bytes), and its command line, to which QEMU adds a zero byte. It
// is an error if the kernel is empty, or if the command line has a zero byte.
func HashKernel(kernel, initrd io.Reader, cmdline string) (h KernelHashes, err error) {
	if strings.ContainsRune(cmdline, 0) {
		return h, errors.New("the command line has a zero byte")
	}
	n, err := hashFile(&h.Kernel, kernel)
	if err != nil {
		return h, err
	}
	if n == 0 {
		return h, errors.New("the kernel is empty")
	}
	if initrd == nil {
		initrd = strings.NewReader("")
	}
	if _, err := hashFile(&h.Initrd, initrd); err != nil {
		return h, err
	}
	h.Cmdline = sha256.Sum256([]byte(cmdline + "\x00"))
	return h, nil
}

func hashFile(sum *[sha256.Size]byte, r io.Reader) (n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	h.Sum(sum[:0])
	return n, err
}

var (
	hashTableHeader = MustGUID("9438d606-4f22-4cc9-b479-a793d411fd21")
	cmdlineHash     = MustGUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
	initrdHash      = MustGUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
	kernelHash      = MustGUID("4de79437-abd2-427f-b835-d5b172d2045b")
)

// KernelHashesSize is the size in bytes of the table of hashes: 168, filled up with
// zeros to a multiple of the 16 bytes that are encrypted at once.
const KernelHashesSize = 176

// Table returns the table as the guest's memory has it: header and entries are a
// GUID, a size (le16) with these 18 bytes, and the content (QEMU
// target/i386/sev.c, PaddedSevHashTable).
func (h *KernelHashes) Table() []byte {
	const entry = entryHeader + sha256.Size
	b := make([]byte, 0, KernelHashesSize)
	begin := func(guid GUID, size uint16) {
		b = append(b, guid[:]...)
		b = binary.LittleEndian.AppendUint16(b, size)
	}
	begin(hashTableHeader, entryHeader+3*entry)
	for _, e := range []struct {
		guid GUID
		sum  *[sha256.Size]byte
	}{{cmdlineHash, &h.Cmdline}, {initrdHash, &h.Initrd}, {kernelHash, &h.Kernel}} {
		begin(e.guid, entry)
		b = append(b, e.sum[:]...)
	}
	return b[:KernelHashesSize]
}

// hashesAddress is where the image wants the table of hashes. QEMU refuses what is
// refused here.
func hashesAddress(table Table) (uint32, error) {
	entry, ok := table.Find(hashTableEntry)
	if !ok {
		return 0, fmt.Errorf("the image's GUIDed table has no place for kernel hashes (%s): it is not built for measured direct boot", hashTableEntry)
	}
	if len(entry.Data) < 8 {
		return 0, fmt.Errorf("offset %#x: the place for kernel hashes has %d bytes, expected 8", entry.Offset, len(entry.Data))
	}
	gpa, size := binary.LittleEndian.Uint32(entry.Data), binary.LittleEndian.Uint32(entry.Data[4:])
	if gpa == 0 || size < KernelHashesSize {
		return 0, fmt.Errorf("offset %#x: the place for kernel hashes is at %#x and has %d bytes, expected an address, and %d bytes: the image is not built for measured direct boot", entry.Offset, gpa, size, KernelHashesSize)
	}
	return gpa, nil
}
