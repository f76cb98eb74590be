package eventlog

import (
	"bytes"
	"fmt"
	"strings"
)

// Subject names what the event is about, so that events about one thing can
// be set side by side though their digests differ: a UEFI variable by its GUID
// and name, an image by its file's path without the device, a GRUB command by
// its name, a kernel by its path without the version, a section of a unified
// kernel image by its name, a tagged event by its tag, dstack's by its name,
// and any other by its type. It has at most 4 KiB, is not escaped, and is as
// untrusted as the data.
func (e *Event) Subject() string {
	if s, ok := e.subject(); ok {
		return cut(s, maxDetail)
	}
	return e.Type()
}

func (e *Event) subject() (string, bool) {
	b := e.EventData
	switch e.EventType {
	case EVNoAction:
		return noActionSubject(b)
	case EVEFIVariableDriverConfig, EVEFIVariableBoot, EVEFIVariableBoot2, EVEFISPDMDevicePolicy:
		return variableSubject("", b)
	case EVEFIVariableAuthority, EVEFISPDMDeviceAuthority:
		return variableSubject("authority ", b)
	case EVEFIBootServicesApp, EVEFIBootServicesDriver, EVEFIRuntimeServicesDriver:
		return imageSubject(b)
	case EVEFIPlatformFirmwareBlob2, EVEFIHandoffTables2:
		f := fields{rest: b}
		description := f.bytes(uint64(f.u8()))
		return string(bytes.TrimRight(description, "\x00")), !f.bad
	case EVIPL:
		return iplSubject(b)
	case EVAction, EVEFIAction:
		return string(b), isText(b)
	case EVEventTag:
		return tagSubject(b)
	case EVDstack:
		name, _, ok := bytes.Cut(b, []byte{':'})
		return string(name), ok
	}
	return "", false
}

func noActionSubject(b []byte) (string, bool) {
	for _, signature := range []string{"StartupLocality", "Spec ID Event", "SP800-155 Event"} {
		if bytes.HasPrefix(b, []byte(signature)) {
			return signature, true
		}
	}
	return tagSubject(b)
}

func variableSubject(prefix string, b []byte) (string, bool) {
	v, ok := parseVariable(b)
	return prefix + v.guid.String() + "-" + utf16Text(v.name), ok
}

// imageSubject is the path of an image's file on whatever device it lies, or
// the whole device path if no file is in it. Addresses in memory and images
// without a path, as shim loads them, tell nothing apart.
func imageSubject(b []byte) (string, bool) {
	f := fields{rest: b}
	f.bytes(3 * 8)
	path := f.bytes(f.u64())
	if f.bad {
		return "", false
	}
	text := devicePath(path)
	if i := strings.Index("/"+text, "/File("); i >= 0 {
		text = text[i:]
	}
	if len(path) == 0 || strings.HasPrefix(text, "MemoryMapped(") {
		text = "image in memory"
	}
	return text, true
}

// tagSubject tells tagged events apart by their tag, and AAEL's by their
// domain and operation.
func tagSubject(b []byte) (string, bool) {
	t, ok := parseTagged(b)
	if domain, operation, _, aael := t.aael(); aael {
		return fmt.Sprintf("AAEL %s %s", domain, operation), true
	}
	return fmt.Sprintf("tag 0x%08x", t.id), ok
}

// iplSubject reads what boot loaders log: GRUB its commands ("grub_cmd: linux
// /vmlinuz quiet"; without the colon in some distributions), command lines
// and the paths of files that it reads, systemd-stub the names of sections,
// systemd-boot a command line in UTF-16, shim the names of its variables.
func iplSubject(b []byte) (string, bool) {
	text := string(bytes.TrimRight(b, "\x00"))
	if !isText([]byte(text)) {
		return "command line in UTF-16", isUTF16(b)
	}
	word, rest, _ := strings.Cut(text, " ")
	switch word = strings.TrimSuffix(word, ":"); {
	case word == "grub_cmd":
		text = "grub_cmd " + commandSubject(rest)
	case strings.HasSuffix(word, "_cmdline"):
		text = word
	case strings.HasPrefix(text, "/"), strings.HasPrefix(text, "("):
		text = fileSubject(text)
	}
	return text, true
}

// commandSubject is a GRUB command without its arguments, but for those that
// name what the command is about. A test ("[ -e /grub.cfg ]") and a command
// that is nothing but a name stand for themselves.
func commandSubject(command string) string {
	name, arguments, _ := strings.Cut(command, " ")
	switch name {
	case "[", "test":
		return command
	case "set", "unset", "export", "save_env", "insmod", "menuentry", "submenu":
		first, _, _ := strings.Cut(arguments, " ")
		variable, _, _ := strings.Cut(first, "=")
		return name + " " + variable
	}
	variable, _, _ := strings.Cut(name, "=")
	return variable
}

// fileSubject is a file's path without GRUB's device and without the version
// that kernels and their initrds carry: "(hd0,gpt1)/boot/vmlinuz-6.12.1" is
// "/boot/vmlinuz".
func fileSubject(path string) string {
	if _, file, ok := strings.Cut(path, ")"); ok && path[0] == '(' {
		path = file
	}
	base := strings.LastIndexByte(path, '/') + 1
	for i := base; i+1 < len(path); i++ {
		if path[i] == '-' && '0' <= path[i+1] && path[i+1] <= '9' {
			return path[:i]
		}
	}
	return path
}
