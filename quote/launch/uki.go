package launch

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// A unified kernel image's stub measures sections into PCR 11, which is RTMR2 in a
// TD, in this order: a section's name with its NUL, and its content (systemd
// src/boot/stub.c, measure_sections). The sections behind these are ones of which no
// log was at hand.
var (
	unifiedSections = []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}
	unifiedNeeded   = unifiedSections[:4]
	unifiedOthers   = []string{".ucode", ".splash", ".dtb", ".dtbauto", ".hwids", ".efifw", ".pcrsig", ".pcrpkey", ".profile"}
)

// stubMagic is what section .sdmagic of the stub begins with whose rules are built
// in. Earlier stubs put another initrd together, later ones measure more.
const stubMagic = "#### LoaderInfo: systemd-stub 257"

// unifiedEvents are those of a unified kernel image's stub, and those of the kernel
// that it starts then, or why they are not known.
func unifiedEvents(pe *PE) (stub, kernel []TDXEvent, err error) {
	content, err := unifiedContent(pe)
	if err != nil {
		return nil, nil, err
	}
	commandLine := content[".cmdline"]
	if i := bytes.IndexFunc(commandLine, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 || bytes.HasSuffix(commandLine, []byte(" ")) || len(commandLine) == 0 {
		return nil, nil, errors.New("the image's command line is empty, ends with a space, or is not all printable ASCII, which the stub changes")
	}
	event := func(kind, name string, data []byte) TDXEvent {
		return TDXEvent{Register: tdRegisters[2], Type: kind, Name: name, Digest: rtmr.SHA384.AppendHash(nil, data), From: "the image"}
	}
	for _, name := range unifiedSections {
		if data, ok := content[name]; ok {
			stub = append(stub, event(evIPL, "name of "+name, []byte(name+"\x00")), event(evIPL, name, data))
		}
	}
	kernel = []TDXEvent{
		event(evEventTag, "command line", loadOptions(string(commandLine), false, false)),
		event(evEventTag, "initrd", unifiedInitrd(content[".initrd"], content[".osrel"])),
	}
	return stub, kernel, nil
}

// unifiedContent returns the sections that the stub measures.
func unifiedContent(pe *PE) (map[string][]byte, error) {
	if s, ok := pe.Find(".sdmagic"); !ok || !strings.HasPrefix(string(s.Data), stubMagic) || len(s.Data) > len(stubMagic) && isDigit(s.Data[len(stubMagic)]) {
		return nil, errors.New("the stub is not systemd's of release 257")
	}
	content := map[string][]byte{}
	for _, s := range pe.Sections {
		if slices.Contains(unifiedOthers, s.Name) {
			return nil, fmt.Errorf("the image has a section %s", s.Name)
		}
		if !slices.Contains(unifiedSections, s.Name) {
			continue
		}
		if content[s.Name] != nil {
			return nil, fmt.Errorf("the image has two sections %s", s.Name)
		}
		if int64(s.VirtualSize) > int64(len(s.Data)) {
			return nil, fmt.Errorf("section %s has %d bytes in memory, and the file has %d of them", s.Name, s.VirtualSize, len(s.Data))
		}
		content[s.Name] = s.Data[:s.VirtualSize]
	}
	for _, name := range unifiedNeeded {
		if content[name] == nil {
			return nil, fmt.Errorf("the image has no section %s", name)
		}
	}
	return content, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// unifiedInitrd is what the stub hands to the kernel: the image's initrd, and an
// archive with the system's identification as /.extra/os-release (systemd
// src/boot/cpio.c).
func unifiedInitrd(initrd, osRelease []byte) []byte {
	b := padded(bytes.Clone(initrd))
	b = appendCPIO(b, 1, 0o40555, ".extra", nil)
	b = appendCPIO(b, 2, 0o100444, ".extra/os-release", osRelease)
	return append(b, "070701"+strings.Repeat("00000000", 4)+"00000001"+strings.Repeat("00000000", 6)+"0000000B"+"00000000"+"TRAILER!!!\x00\x00\x00\x00"...)
}

// appendCPIO appends a file or a folder to an archive of the kind "newc", which
// has no time and no owner in it.
func appendCPIO(b []byte, inode, mode int, name string, content []byte) []byte {
	b = fmt.Appendf(b, "070701%08x%08x%08x%08x%08x%08x%08x", inode, mode, 0, 0, 1, 0, len(content))
	b = fmt.Appendf(b, "%08x%08x%08x%08x%08x%08x%s\x00", 0, 0, 0, 0, len(name)+1, 0, name)
	return padded(append(padded(b), content...))
}

// padded fills up to a multiple of 4 bytes.
func padded(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
