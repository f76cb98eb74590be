package launch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// acpiDataSize is what QEMU keeps free of the initrd at the end of low memory
// (hw/i386/pc.c: 0x20000 + 0x8000).
const acpiDataSize = 0x28000

// The fields of the Linux setup header (Documentation/arch/x86/boot.rst) that
// QEMU reads or writes.
const (
	setupSects     = 0x1f1
	setupVidMode   = 0x1fa
	setupMagic     = 0x202 // "HdrS"
	setupVersion   = 0x206
	setupLoader    = 0x210
	setupFlags     = 0x211
	setupRamdisk   = 0x218
	setupRdSize    = 0x21c
	setupHeapEnd   = 0x224
	setupCmdline   = 0x228
	setupInitrdMax = 0x22c
	setupXLoad     = 0x236
	setupEnd       = 0x268
)

const (
	loadedHigh     = 1 << 0
	canUseHeap     = 1 << 7
	loaderQEMU     = 0xb0
	above4G        = 1 << 1 // XLF_CAN_BE_LOADED_ABOVE_4G
	realModeAt     = 0x10000
	commandLineAt  = 0x20000
	setupSector    = 512
	leastProtocol  = 0x202
	initrdMaxSince = 0x203
	xloadSince     = 0x20c
)

// patchSetup returns a kernel image as QEMU before 10.2 hands it to the firmware
// of a TD: with a setup header that says where QEMU would have put the command
// line and the initrd, which the EFI stub ignores and the firmware measures
// (hw/i386/x86.c, x86_load_linux). From 10.2 it leaves the header of a
// confidential guest alone.
//
// lowMemory is the RAM below 4 GiB, of which the initrd's place is a part.
func patchSetup(kernel []byte, initrdSize int64, commandLine string, lowMemory uint64) ([]byte, error) {
	le := binary.LittleEndian
	if !isLinux(kernel) {
		return nil, fmt.Errorf("offset %#x: no Linux kernel: expected HdrS", setupMagic)
	}
	protocol := le.Uint16(kernel[setupVersion:])
	if protocol < leastProtocol || kernel[setupFlags]&loadedHigh == 0 {
		return nil, fmt.Errorf("offset %#x: boot protocol %d.%02d, loadflags %#x: expected 2.02 or later and LOADED_HIGH, as a kernel with an EFI stub has", setupVersion, protocol>>8, protocol&0xff, kernel[setupFlags])
	}
	if size := (int(kernel[setupSects]) + 1) * setupSector; kernel[setupSects] == 0 || size > len(kernel) {
		return nil, fmt.Errorf("offset %#x: setup_sects %d, and the image has %d bytes", setupSects, kernel[setupSects], len(kernel))
	}
	k := append([]byte(nil), kernel...)
	le.PutUint32(k[setupCmdline:], commandLineAt)
	k[setupLoader] = loaderQEMU
	k[setupFlags] |= canUseHeap
	le.PutUint16(k[setupHeapEnd:], commandLineAt-realModeAt-setupSector)
	if mode, given, err := videoMode(commandLine); err != nil {
		return nil, err
	} else if given {
		le.PutUint16(k[setupVidMode:], mode)
	}
	if initrdSize == 0 {
		return k, nil
	}
	highest := highestInitrd(kernel, protocol, lowMemory)
	if initrdSize >= int64(highest) {
		return nil, fmt.Errorf("the initrd has %d bytes, and QEMU puts it below %#x", initrdSize, highest)
	}
	le.PutUint32(k[setupRamdisk:], (highest-uint32(initrdSize))&^(PageSize-1))
	le.PutUint32(k[setupRdSize:], uint32(initrdSize))
	return k, nil
}

func isLinux(kernel []byte) bool {
	return len(kernel) >= setupEnd && string(kernel[setupMagic:setupMagic+4]) == "HdrS"
}

func highestInitrd(kernel []byte, protocol uint16, lowMemory uint64) uint32 {
	le := binary.LittleEndian
	highest := uint32(0x37ffffff)
	switch {
	case protocol >= xloadSince && le.Uint16(kernel[setupXLoad:])&above4G != 0:
		highest = 1<<32 - 1
	case protocol >= initrdMaxSince:
		highest = le.Uint32(kernel[setupInitrdMax:])
	}
	if lowMemory <= acpiDataSize {
		return 0
	}
	return min(highest, uint32(lowMemory-acpiDataSize-1))
}

// videoMode reads vga= as QEMU does, wherever it stands in the command line.
func videoMode(commandLine string) (mode uint16, given bool, err error) {
	_, text, given := strings.Cut(commandLine, "vga=")
	if !given {
		return 0, false, nil
	}
	for _, named := range []struct {
		prefix string
		mode   uint16
	}{{"normal", 0xffff}, {"ext", 0xfffe}, {"ask", 0xfffd}} {
		if strings.HasPrefix(text, named.prefix) {
			return named.mode, true, nil
		}
	}
	text, _, _ = strings.Cut(text, " ")
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil || strings.Contains(text, "_") {
		return 0, true, errors.New("vga= in the command line: expected normal, ext, ask or a number, as QEMU does")
	}
	return uint16(n), true, nil
}
