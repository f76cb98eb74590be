package eventlog_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"tallystick/eventlog"
)

// TestDetail renders hand-made data. Escape doubles backslashes, which is why
// a file's path is as it is.
func TestDetail(t *testing.T) {
	option := cat("\x01\x00\x00\x00", "\x16\x00", string(utf16le("debian\x00")),
		"\x04\x04\x12\x00", string(utf16le("\\EFI\\a\x00")), "\x7f\xff\x04\x00")

	for _, c := range []struct {
		trap string
		typ  eventlog.EventType
		data []byte
		want string
	}{
		{"separator", eventlog.EVSeparator, make([]byte, 4), "00000000"},
		{"separator_ones", eventlog.EVSeparator, unhex("ffffffff"), "ffffffff"},
		{"separator_error", eventlog.EVSeparator, unhex("01000000"), "00000001: error"},
		{"separator_wbcl", eventlog.EVSeparator, []byte("WBCL"), "WBCL"},
		{"separator_of_five_bytes", eventlog.EVSeparator, make([]byte, 5), "5 bytes: 0000000000"},

		{"startup_locality", eventlog.EVNoAction, []byte("StartupLocality\x00\x03"), "StartupLocality 3"},
		{"spec_id", eventlog.EVNoAction, cat("Spec ID Event03\x00", "\x00\x00\x00\x00", "\x00\x02\x69\x02", "\x02\x00\x00\x00", "\x04\x00\x14\x00", "\x0b\x00\x20\x00", "\x00"),
			"Spec ID Event03, version 2.0 errata 105, sha1 sha256"},
		{"sp800_155_event3", eventlog.EVNoAction, cat("SP800-155 Event3", "\x9f\x2b\x00\x00", string(unhex(efiGlobal)), "\x04GCE\x00", "\x03VM\x00"),
			"SP800-155 Event3, vendor 11167, reference manifest 8be4df61-93ca-11d2-aa0d-00e098032b8c, platform GCE, model VM"},

		{"crtm_version_utf16", eventlog.EVSCRTMVersion, utf16le("2025.02-8\x00"), "2025.02-8"},
		{"crtm_version_empty", eventlog.EVSCRTMVersion, make([]byte, 2), `""`},
		{"crtm_version_guid", eventlog.EVSCRTMVersion, unhex("1efb6b540c1d5540a4ad4ef4bf17b83a"), "546bfb1e-1d0c-4055-a4ad-4ef4bf17b83a"},
		{"post_code_string", eventlog.EVPostCode, []byte("ACPI DATA"), "ACPI DATA"},
		{"post_code_string_of_a_blobs_size", eventlog.EVPostCode, []byte("Embedded UEFI Dr"), "Embedded UEFI Dr"},
		{"post_code_blob", eventlog.EVPostCode, unhex("0000a9ff000000000000350000000000"), "base 0xffa90000, length 0x350000"},
		{"blob2", eventlog.EVEFIPlatformFirmwareBlob2, cat("\x02Fv", string(unhex("0000e0ff000000000000020000000000"))), "Fv, base 0xffe00000, length 0x20000"},
		{"post_code2_blob", eventlog.EVPostCode2, cat("\x02Fv", string(unhex("0000e0ff000000000000020000000000"))), "Fv, base 0xffe00000, length 0x20000"},
		{"post_code2_string", eventlog.EVPostCode2, []byte("BIS CODE"), "BIS CODE"},
		{"handoff2", eventlog.EVEFIHandoffTables2, cat("\x09TdxTable\x00", "\x01\x00\x00\x00\x00\x00\x00\x00", string(unhex("312d9deb882dd3119a160090273fc14d")), "\x00\x90\x80\x00\x00\x00\x00\x00"),
			"TdxTable, 1 table, SMBIOS at 0x809000"},
		{"handoff_with_impossible_count", eventlog.EVEFIHandoffTables, unhex("ffffffffffffffff"), "8 bytes: ffffffffffffffff"},

		{"secure_boot_enabled", eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SecureBoot", []byte{1}), "EFI_GLOBAL-SecureBoot: enabled"},
		{"secure_boot_disabled", eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SecureBoot", []byte{0}), "EFI_GLOBAL-SecureBoot: disabled"},
		{"secure_boot_without_data", eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SecureBoot", nil), "EFI_GLOBAL-SecureBoot: not set"},
		{"secure_boot_of_a_stranger", eventlog.EVEFIVariableDriverConfig, variableData("00000000000000000000000000000000", "SecureBoot", []byte{1}), "00000000-0000-0000-0000-000000000000-SecureBoot: 1 byte: 01"},
		{"boot_order", eventlog.EVEFIVariableBoot, variableData(efiGlobal, "BootOrder", unhex("05000a00")), "EFI_GLOBAL-BootOrder: 0005,000A"},
		{"boot_option", eventlog.EVEFIVariableBoot, variableData(efiGlobal, "Boot000A", option), `EFI_GLOBAL-Boot000A: "debian" File(\\EFI\\a)`},
		{"boot_option_truncated", eventlog.EVEFIVariableBoot, variableData(efiGlobal, "Boot000A", option[:8]), "EFI_GLOBAL-Boot000A: 8 bytes: 0100000016006400"},
		{"variable_name_longer_than_the_data", eventlog.EVEFIVariableBoot, append(unhex(efiGlobal), unhex("ffffffffffffffff0000000000000000")...),
			"32 bytes: " + efiGlobal + "ffffffffffffffff0000000000000000"},
		{"sbat_level", eventlog.EVEFIVariableAuthority, variableData(shimLock, "SbatLevel", []byte("sbat,1\n")), `SHIM_LOCK-SbatLevel: sbat,1\n`},

		{"grub", eventlog.EVIPL, []byte("grub_cmd: set a=1\x00"), "grub_cmd: set a=1"},
		{"grub_stray_byte", eventlog.EVIPL, []byte("grub_cmd set a=1\x00n"), "grub_cmd set a=1"},
		{"systemd_utf16", eventlog.EVIPL, utf16le("root=/dev/sda\x00"), "root=/dev/sda"},
		{"terminal_escape_and_line_end", eventlog.EVIPL, []byte("a\x1b[2J\nb"), "7 bytes: 611b5b324a0a62"},
		{"line_end", eventlog.EVIPL, []byte("a\nb"), `a\nb`},
		{"bidirectional_override", eventlog.EVIPL, []byte("a\u202eb"), "5 bytes: 61e280ae62"},

		{"linux_initrd", eventlog.EVEventTag, taggedData(0x8F3B22EC, "Linux initrd\x00"), "tag 0x8f3b22ec (Linux initrd): Linux initrd"},
		{"aael", eventlog.EVEventTag, taggedData(0x4141454C, "coco.com open a b"), "AAEL coco.com open a b"},
		{"aael_of_two_words", eventlog.EVEventTag, taggedData(0x4141454C, "coco.com open"), "tag 0x4141454c: coco.com open"},
		{"unknown_tag", eventlog.EVEventTag, taggedData(0x12345678, "\x01\x02"), "tag 0x12345678: 2 bytes: 0102"},
		{"old_linux_stub_without_tag", eventlog.EVEventTag, []byte("LOADED_IMAGE::LoadOptions\x00"), "LOADED_IMAGE::LoadOptions"},
		{"dstack", eventlog.EVDstack, []byte("app-id:\x01\x02"), "app-id: 2 bytes: 0102"},
		{"dstack_without_payload", eventlog.EVDstack, []byte("system-ready:"), "system-ready"},
		{"no_data", eventlog.EVPrebootCert, nil, "no data"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			e := eventlog.Event{EventType: c.typ, EventData: c.data}
			if got := e.Detail(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestDetailDevicePath renders paths in UEFI's text form.
func TestDetailDevicePath(t *testing.T) {
	for _, c := range []struct{ nodes, want string }{
		{"02010c00d041030a00000000" + "010106000203", "PciRoot(0x0)/Pci(0x3,0x2)"},
		{"02010c00d041080a01000000", "PcieRoot(0x1)"},
		{"02010c00d041020c05000000", "Acpi(PNP0C02,0x5)"},
		{"030208000100 0200", "Scsi(0x1,0x2)"},
		{"031210000600ffff0000" + "", "(malformed: 10 bytes: 031210000600ffff0000)"},
		{"03120a000600ffff0000", "Sata(0x6,0xffff,0x0)"},
		{"030506000102", "USB(0x1,0x2)"},
		{"03171000 01000000 3339b311b3382500", "NVMe(0x1,00-25-38-b3-11-b3-39-33)"},
		{"030b2500 525400123456" + strings.Repeat("00", 26) + "01", "MAC(525400123456,0x1)"},
		{"030c1b00 0a000002 0a000001 0000 0000 0600 00 00000000 00000000", "IPv4(10.0.0.1,TCP,DHCP,10.0.0.2)"},
		{"03180c00 687474703a2f2f61", "Uri(http://a)"},
		{"010318000b000000 0000000000000000 00100000", "(malformed: 20 bytes: 010318000b000000000000000000000000100000)"},
		{"010318000b000000 0010000000000000 0020000000000000", "MemoryMapped(0xb,0x1000,0x2000)"},
		{"04072400" + strings.Repeat("00", 32), "Fv(00000000-0000-0000-0000-000000000000)"},
		{"04012a00 01000000 0008000000000000 0028060000000000 b532d49186f54d5b9d28c1c252f12165 02 02",
			"HD(1,GPT,91d432b5-f586-5b4d-9d28-c1c252f12165,0x800,0x62800)"},
		{"04012a00 01000000 0008000000000000 00f83f0000000000 52bac34f000000000000000000000000 01 01",
			"HD(1,MBR,0x4fc3ba52,0x800,0x3ff800)"},
		{"010415 00" + efiGlobal + "ff", "VenHw(8be4df61-93ca-11d2-aa0d-00e098032b8c,ff)"},
		{"05010b0002000000 485000", "BBS(HD,HP)"},
		{"630706000102", "Path(99,7,0102)"},
		{"010105007f", "Path(1,1,7f)"}, // too short to be a Pci node
		{"03050600 0102 7f010400 03050600 0304", "USB(0x1,0x2),USB(0x3,0x4)"},
		{"03050600 0102 7fff0400 ffff", "USB(0x1,0x2)"},
		{"03050600 0102 030503", "USB(0x1,0x2)/(malformed: 3 bytes: 030503)"},
		{"03050000 0102", "(malformed: 6 bytes: 030500000102)"}, // would never end
	} {
		path := unhex(strings.ReplaceAll(c.nodes, " ", ""))
		data := make([]byte, 32)
		data[24] = byte(len(path))
		e := eventlog.Event{EventType: eventlog.EVEFIBootServicesApp, EventData: append(data, path...)}
		if got, want := e.Detail(), c.want+", at 0x0, length 0"; got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.nodes, got, want)
		}
	}
}

// The project's own machine: shim, GRUB and Secure Boot. What it booted is
// known from how it was built (LAB.md).
func TestDetailOfALabMachine(t *testing.T) {
	b, err := os.ReadFile(filepath.FromSlash("../../shared/lab/captures/shim-grub-sb-6.12/tpm0.binary_bios_measurements"))
	if err != nil {
		t.Skip("../shared/lab/captures is not here")
	}
	want := map[string]bool{
		"EV_EFI_VARIABLE_DRIVER_CONFIG EFI_GLOBAL-SecureBoot: enabled":                                                        false,
		`EV_EFI_VARIABLE_AUTHORITY SHIM_LOCK-SbatLevel: sbat,1,2025021800\nshim,4\ngrub,5\n`:                                  false,
		"EV_EFI_ACTION Exit Boot Services Invocation":                                                                         false,
		"EV_EFI_PLATFORM_FIRMWARE_BLOB base 0x820000, length 0xe0000":                                                         false,
		"EV_IPL (hd0,gpt1)/EFI/debian/grub.cfg":                                                                               false,
		"EV_NO_ACTION Spec ID Event03, version 2.0 errata 0, sha1 sha256 sha384":                                              false,
		"EV_EFI_VARIABLE_DRIVER_CONFIG IMAGE_SECURITY_DATABASE-dbx: 1 SHA-256 hash":                                           false,
		`EV_EFI_BOOT_SERVICES_APPLICATION File(\\EFI\\BOOT\\grubx64.efi), at 0x7c919018, length 4183488`:                      false,
		"EV_EFI_VARIABLE_AUTHORITY SHIM_LOCK-MokListRT: owner 605dab50-e046-4300-abb6-3dd810dd8b23, CN=Debian Secure Boot CA": false,
	}
	var all []string
	for _, e := range events(t, b) {
		line := e.Type() + " " + e.Detail()
		all = append(all, line)
		if _, ok := want[line]; ok {
			want[line] = true
		}
	}
	for line, found := range want {
		if !found {
			t.Errorf("no %q among\n%s", line, strings.Join(all, "\n"))
		}
	}
}

// checkLine: at most 4 KiB on one line, of printable characters.
func checkLine(t *testing.T, s string) {
	t.Helper()
	if len(s) > 4<<10 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not one short printable line: %d bytes, %.200q", len(s), s)
	}
}

func TestDetailOfRealLogsIsOneLine(t *testing.T) {
	logs := realLogs(t)
	for _, path := range slices.Sorted(maps.Keys(logs)) {
		for _, e := range events(t, logs[path]) {
			checkLine(t, e.Detail())
		}
	}
}

func TestDetailIsBounded(t *testing.T) {
	nodes := strings.Repeat("\x03\x05\x06\x00\x01\x02", 10000)
	path := make([]byte, 32)
	path[24], path[25] = byte(len(nodes)&0xFF), byte(len(nodes)>>8)
	for name, e := range map[string]eventlog.Event{
		"text":        {EventType: eventlog.EVIPL, EventData: []byte(strings.Repeat("a", 1<<20))},
		"backslashes": {EventType: eventlog.EVIPL, EventData: []byte(strings.Repeat(`\`, 1<<20))},
		"line ends":   {EventType: eventlog.EVIPL, EventData: []byte(strings.Repeat("\n", 1<<20))},
		"utf16":       {EventType: eventlog.EVIPL, EventData: utf16le(strings.Repeat("é a", 1<<18))},
		"path":        {EventType: eventlog.EVEFIBootServicesApp, EventData: append(path, nodes[:len(nodes)&0xFFFF]...)},
		"name":        {EventType: eventlog.EVEFIVariableBoot, EventData: variableData(efiGlobal, strings.Repeat("n", 1<<16), nil)},
		"binary":      {EventType: eventlog.EVEFIGPTEvent, EventData: make([]byte, 1<<20)},
	} {
		s := e.Detail()
		checkLine(t, s)
		if name != "binary" && !strings.HasSuffix(s, " ..") {
			t.Errorf("%s: cut without a mark: .. %q", name, s[max(0, len(s)-20):])
		}
		if strings.HasSuffix(strings.TrimSuffix(s, " .."), `\`) && !strings.HasSuffix(strings.TrimSuffix(s, " .."), `\\`) {
			t.Errorf("%s: ends in half of an escape: %q", name, s[len(s)-20:])
		}
	}
}

func TestAAEL(t *testing.T) {
	e := eventlog.Event{EventType: eventlog.EVEventTag, EventData: taggedData(0x4141454C, "coco.com open a b")}
	domain, operation, content, ok := e.AAEL()
	if !ok || domain != "coco.com" || operation != "open" || content != "a b" {
		t.Errorf("%q, %q, %q, %t", domain, operation, content, ok)
	}
	for name, data := range map[string][]byte{
		"another tag":     taggedData(0x8F3B22EC, "a b c"),
		"two words":       taggedData(0x4141454C, "a b"),
		"trailing byte":   append(taggedData(0x4141454C, "a b c"), 0),
		"longer than all": taggedData(0x4141454C, "a b c")[:10],
	} {
		e.EventData = data
		if _, _, _, ok := e.AAEL(); ok {
			t.Errorf("%s: taken for AAEL", name)
		}
	}
}
