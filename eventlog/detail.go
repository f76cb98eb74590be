package eventlog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"tallystick/rtmr"
)

// maxDetail bounds the length in bytes of Detail's text.
const maxDetail = 4 << 10

// Detail renders the event data on one line of at most 4 KiB, with control
// characters, and backslashes, escaped. Data that are not what the type says
// are shown as text if they are that, else as their size and first bytes in
// hexadecimal; there is no error.
func (e *Event) Detail() string {
	whole := e.describe()
	s := rtmr.Escape(cut(whole, maxDetail))
	if len(whole) <= maxDetail && len(s) <= maxDetail {
		return s
	}
	const ellipsis = " .."
	s = cut(s, maxDetail-len(ellipsis))
	const longest = len(`\U0010ffff`)
	if i := strings.LastIndexByte(s, '\\'); i >= len(s)-longest {
		s = strings.TrimRight(s[:i], `\`) // no half of an escape
	}
	return s + ellipsis
}

// cut returns at most the first n bytes of s, and no part of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range min(n, utf8.UTFMax) {
		if utf8.RuneStart(s[n-i]) {
			return s[:n-i]
		}
	}
	return s[:n]
}

func (e *Event) describe() string {
	if s, ok := e.parsed(); ok {
		return s
	}
	return textOrHex(e.EventData)
}

// parsed renders data that have the type's structure.
func (e *Event) parsed() (string, bool) {
	b := e.EventData
	switch e.EventType {
	case EVNoAction:
		return noActionDetail(b)
	case EVSeparator:
		return separatorDetail(b)
	case EVSCRTMVersion:
		return versionDetail(b)
	case EVPostCode, EVEFIPlatformFirmwareBlob:
		return blobDetail(b)
	case EVPostCode2, EVEFIPlatformFirmwareBlob2:
		return blob2Detail(b)
	case EVEFIHandoffTables, EVTableOfDevices:
		return tablesDetail("", b)
	case EVEFIHandoffTables2:
		return handoff2Detail(b)
	case EVEventTag:
		t, ok := parseTagged(b)
		return t.String(), ok
	case EVEFIVariableDriverConfig, EVEFIVariableBoot, EVEFIVariableBoot2, EVEFIVariableAuthority,
		EVEFISPDMDevicePolicy, EVEFISPDMDeviceAuthority:
		return e.variableDetail()
	case EVEFIBootServicesApp, EVEFIBootServicesDriver, EVEFIRuntimeServicesDriver:
		return imageDetail(b)
	case EVEFIGPTEvent, EVEFIGPTEvent2:
		return gptDetail(b)
	case EVDstack:
		return dstackDetail(b)
	}
	return "", false
}

// dstackDetail renders name ‖ ":" ‖ payload. Some events have no payload.
func dstackDetail(b []byte) (string, bool) {
	name, payload, ok := bytes.Cut(b, []byte{':'})
	if !ok || !isText(name) {
		return "", false
	}
	if len(payload) == 0 {
		return string(name), true
	}
	return string(name) + ": " + textOrHex(payload), true
}

func (e *Event) variableDetail() (string, bool) {
	v, ok := parseVariable(e.EventData)
	if !ok {
		return "", false
	}
	authority := e.EventType == EVEFIVariableAuthority || e.EventType == EVEFISPDMDeviceAuthority
	return v.detail(authority), true
}

// textOrHex renders data of no known structure: ASCII or UTF-8 text, UTF-16
// text, or a preview. Some GRUBs log a stray byte behind the text's NUL, and
// firmware pads with zeros; neither is shown.
func textOrHex(b []byte) string {
	if len(b) == 0 {
		return "no data"
	}
	text := bytes.TrimRight(b, "\x00")
	if n := len(b) - 2; n > 0 && b[n] == 0 && b[n+1] != 0 {
		text = b[:n]
	}
	switch {
	case isText(text):
		return string(text[:min(len(text), maxDetail+1)])
	case isUTF16(b):
		return utf16Text(b)
	}
	return preview(b)
}

// isText reports whether b is printable UTF-8; of a long text, its beginning.
func isText(b []byte) bool {
	for n := 0; n < len(b) && n <= maxDetail; {
		r, size := utf8.DecodeRune(b[n:])
		if (r == utf8.RuneError && size == 1) || !(unicode.IsPrint(r) || unicode.IsSpace(r)) {
			return false
		}
		n += size
	}
	return len(b) > 0
}

// preview renders any data: their size and first bytes.
func preview(b []byte) string {
	const shown = 32
	s := plural(len(b), "byte", "bytes") + ": " + hex.EncodeToString(b[:min(len(b), shown)])
	if len(b) > shown {
		s += ".."
	}
	return s
}

// separatorDetail renders what a separator says: 0 and 0xFFFFFFFF are both
// good, 1 says that measuring failed (TCG PFP 1.05 §10.4.1), and the Windows
// loader caps its registers with "WBCL".
func separatorDetail(b []byte) (string, bool) {
	switch hex.EncodeToString(b[:min(len(b), 5)]) {
	case "00000000", "ffffffff":
		return hex.EncodeToString(b), true
	case "01000000":
		return "00000001: error", true
	}
	return "", false
}

// versionDetail renders a firmware's version: UTF-16 text, which is empty in
// many virtual machines, or a GUID.
func versionDetail(b []byte) (string, bool) {
	switch {
	case len(b) == 2 && b[0] == 0 && b[1] == 0:
		return `""`, true
	case isUTF16(b):
		return utf16Text(b), true
	case len(b) == len(guid{}) && !isText(b):
		return guid(b).String(), true
	}
	return "", false
}

// noActionDetail renders the events that inform: EV_NO_ACTION (TCG PFP 1.06
// §10.4.5).
func noActionDetail(b []byte) (string, bool) {
	const startup = "StartupLocality\x00"
	if rest, ok := bytes.CutPrefix(b, []byte(startup)); ok && len(rest) == 1 {
		return fmt.Sprintf("StartupLocality %d", rest[0]), true
	}
	if s, err := ParseSpecID(b); err == nil {
		text := fmt.Sprintf("Spec ID Event03, version %d.%d errata %d,", s.VersionMajor, s.VersionMinor, s.Errata)
		for _, bank := range s.Banks {
			text += " " + bank.Alg.String()
		}
		return text, true
	}
	if bytes.HasPrefix(b, []byte("SP800-155 Event")) {
		return platformDetail(b)
	}
	t, ok := parseTagged(b)
	return t.String(), ok
}

// platformDetail renders TCG_Sp800_155_PlatformId_Event and its versions 2 and
// 3 (EDK2's IndustryStandard/UefiTcgPlatform.h): signature[16] | u32 vendor | guid reference
// manifest, then in the latter two strings with a size byte: platform
// manufacturer, model, version, firmware manufacturer.
func platformDetail(b []byte) (string, bool) {
	f := fields{rest: b}
	signature := strings.TrimRight(string(f.bytes(16)), "\x00")
	vendor, manifest := f.u32(), f.guid()
	if f.bad {
		return "", false
	}
	s := fmt.Sprintf("%s, vendor %d, reference manifest %s", signature, vendor, manifest)
	for _, name := range []string{"platform", "model", "version", "firmware"} {
		if text := bytes.TrimRight(f.bytes(uint64(f.u8())), "\x00"); len(text) > 0 {
			s += ", " + name + " " + textOrHex(text)
		}
	}
	return s, true
}

// blobDetail renders a UEFI_PLATFORM_FIRMWARE_BLOB: u64 base | u64 length.
func blobDetail(b []byte) (string, bool) {
	if len(b) != 16 || isText(b) {
		return "", false
	}
	f := fields{rest: b}
	return fmt.Sprintf("base 0x%x, length 0x%x", f.u64(), f.u64()), true
}

// blob2Detail renders a UEFI_PLATFORM_FIRMWARE_BLOB2: u8 size | description |
// u64 base | u64 length (TCG PFP 1.05 §10.2.5).
func blob2Detail(b []byte) (string, bool) {
	f := fields{rest: b}
	description := f.bytes(uint64(f.u8()))
	where, ok := blobDetail(f.rest)
	return textOrHex(description) + ", " + where, ok && !f.bad
}

// handoff2Detail renders a UEFI_HANDOFF_TABLE_POINTERS2: u8 size | description
// | tables as below.
func handoff2Detail(b []byte) (string, bool) {
	f := fields{rest: b}
	description := bytes.TrimRight(f.bytes(uint64(f.u8())), "\x00")
	if f.bad {
		return "", false
	}
	return tablesDetail(textOrHex(description)+", ", f.rest)
}

var tableNames = map[string]string{
	"eb9d2d30-2d88-11d3-9a16-0090273fc14d": "ACPI 1.0",
	"8868e871-e4f1-11d3-bc22-0080c73c8881": "ACPI",
	"eb9d2d31-2d88-11d3-9a16-0090273fc14d": "SMBIOS",
	"f2fd1544-9794-4a2c-992e-e5bbcf20e394": "SMBIOS 3",
	"eb9d2d2f-2d88-11d3-9a16-0090273fc14d": "MPS",
	"3b952ef8-3f1b-4d98-9a4c-3d3bfc1ab6d2": "EFI system resource",
}

// tablesDetail renders a UEFI_HANDOFF_TABLE_POINTERS (EDK2's
// IndustryStandard/UefiTcgPlatform.h): u64 count | count × {guid | u64 address}.
func tablesDetail(description string, b []byte) (string, bool) {
	const entry = 16 + 8
	f := fields{rest: b}
	n := f.u64()
	if f.bad || n > uint64(len(f.rest)/entry) {
		return "", false
	}
	s := description + plural(int(n), "table", "tables")
	for i := uint64(0); i < n && len(s) < maxDetail; i++ {
		name := f.guid().String()
		if known, ok := tableNames[name]; ok {
			name = known
		}
		s += fmt.Sprintf(", %s at 0x%x", name, f.u64())
	}
	return s, true
}

// imageDetail renders a UEFI_IMAGE_LOAD_EVENT (TCG PFP 1.05 §10.2.3): u64
// address | u64 length | u64 link-time address | u64 path length | path.
// shim logs zeros and no path for the images that it loads itself.
func imageDetail(b []byte) (string, bool) {
	f := fields{rest: b}
	base, length := f.u64(), f.u64()
	f.u64()
	path := f.bytes(f.u64())
	if f.bad {
		return "", false
	}
	s := "no device path"
	if len(path) > 0 {
		s = devicePath(path)
	}
	return fmt.Sprintf("%s, at 0x%x, length %d", s, base, length), true
}
