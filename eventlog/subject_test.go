package eventlog_test

import (
	"strings"
	"testing"

	"tallystick/eventlog"
)

func TestSubject(t *testing.T) {
	image := func(path string) []byte {
		var header [24]byte
		header[0] = 0x18 // loaded somewhere
		return append(append(header[:], byte(len(path)), 0, 0, 0, 0, 0, 0, 0), path...)
	}
	file := func(name string) string {
		name16 := string(utf16le(name + "\x00"))
		return string([]byte{4, 4, byte(4 + len(name16)), 0}) + name16
	}
	const end = "\x7f\xff\x04\x00"
	const pci = "\x01\x01\x06\x00\x00\x03"
	memory := "\x01\x03\x18\x00\x0b\x00\x00\x00" + "\x00\x10\x00\x00\x00\x00\x00\x00" + "\x00\x20\x00\x00\x00\x00\x00\x00"

	for _, c := range []struct {
		trap string
		typ  eventlog.EventType
		data []byte
		want string
	}{
		{"variable", eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SecureBoot", []byte{1}), "8be4df61-93ca-11d2-aa0d-00e098032b8c-SecureBoot"},
		{"authority_is_not_the_variable", eventlog.EVEFIVariableAuthority, variableData(efiGlobal, "db", []byte{1}), "authority 8be4df61-93ca-11d2-aa0d-00e098032b8c-db"},
		{"variable_cut_short", eventlog.EVEFIVariableDriverConfig, unhex(efiGlobal), "EV_EFI_VARIABLE_DRIVER_CONFIG"},

		{"image_file_on_any_device", eventlog.EVEFIBootServicesApp, image(pci + file(`\EFI\a.efi`) + end), `File(\EFI\a.efi)`},
		{"image_file_alone", eventlog.EVEFIBootServicesApp, image(file(`\EFI\a.efi`) + end), `File(\EFI\a.efi)`},
		{"image_on_a_device", eventlog.EVEFIBootServicesDriver, image(pci + end), "Pci(0x3,0x0)"},
		{"image_in_memory", eventlog.EVEFIBootServicesApp, image(memory + end), "image in memory"},
		{"image_without_a_path", eventlog.EVEFIBootServicesApp, image(""), "image in memory"},

		{"grub_command", eventlog.EVIPL, []byte("grub_cmd: linux /vmlinuz-6.12.1 quiet\x00"), "grub_cmd linux"},
		{"grub_command_of_red_hat", eventlog.EVIPL, []byte("grub_cmd linux (hd0,gpt3)/vmlinuz-5.10 ro\x00"), "grub_cmd linux"},
		{"grub_variable", eventlog.EVIPL, []byte("grub_cmd: set default=0\x00"), "grub_cmd set default"},
		{"grub_assignment", eventlog.EVIPL, []byte("grub_cmd: menuentry_id_option=--id\x00"), "grub_cmd menuentry_id_option"},
		{"grub_module", eventlog.EVIPL, []byte("grub_cmd: insmod gzio\x00"), "grub_cmd insmod gzio"},
		{"grub_test_is_itself", eventlog.EVIPL, []byte("grub_cmd: [ -e /grub.cfg ]\x00"), "grub_cmd [ -e /grub.cfg ]"},
		{"kernel_command_line", eventlog.EVIPL, []byte("kernel_cmdline: /vmlinuz-6.12.1 quiet\x00"), "kernel_cmdline"},
		{"kernel_command_line_of_red_hat", eventlog.EVIPL, []byte("grub_kernel_cmdline /vmlinuz quiet\x00"), "grub_kernel_cmdline"},
		{"kernel_without_its_version", eventlog.EVIPL, []byte("/boot/vmlinuz-6.2.16-v5.2-generic\x00"), "/boot/vmlinuz"},
		{"initrd_without_its_version", eventlog.EVIPL, []byte("(hd0,gpt1)/boot/initramfs-5.10.134-19.1.al8.x86_64.img\x00"), "/boot/initramfs"},
		{"folder_with_a_version_stays", eventlog.EVIPL, []byte("/boot-6/vmlinuz\x00"), "/boot-6/vmlinuz"},
		{"grub_file", eventlog.EVIPL, []byte("(hd0,gpt1)/boot/grub/grubenv\x00"), "/boot/grub/grubenv"},
		{"device_without_a_file", eventlog.EVIPL, []byte("(hd0"), "(hd0"},
		{"section", eventlog.EVIPL, []byte(".linux\x00"), ".linux"},
		{"shim_variable", eventlog.EVIPL, []byte("MokList\x00"), "MokList"},
		{"systemd_boot", eventlog.EVIPL, utf16le("root=/dev/vda2 quiet\x00"), "command line in UTF-16"},
		{"ipl_binary", eventlog.EVIPL, unhex("ff00fe01"), "EV_IPL"},

		{"tag", eventlog.EVEventTag, unhex("ec223b8f01000000aa"), "tag 0x8f3b22ec"},
		{"aael_without_its_content", eventlog.EVEventTag, append(unhex("4c45414103000000"), "d o"...), "tag 0x4141454c"},
		{"aael", eventlog.EVEventTag, append(unhex("4c45414105000000"), "d o c"...), "AAEL d o"},
		{"dstack", eventlog.EVDstack, []byte("compose-hash:0123"), "compose-hash"},
		{"action", eventlog.EVEFIAction, []byte("Exit Boot Services Invocation"), "Exit Boot Services Invocation"},
		{"blob_by_its_description", eventlog.EVEFIPlatformFirmwareBlob2, append([]byte("\x02Fv"), make([]byte, 16)...), "Fv"},
		{"blob_cut_short", eventlog.EVEFIPlatformFirmwareBlob2, []byte("\x09Fv"), "EV_EFI_PLATFORM_FIRMWARE_BLOB2"},
		{"startup_locality", eventlog.EVNoAction, []byte("StartupLocality\x00\x03"), "StartupLocality"},
		{"other", eventlog.EVSeparator, make([]byte, 4), "EV_SEPARATOR"},
		{"nothing", eventlog.EVIPL, nil, "EV_IPL"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			e := eventlog.Event{EventType: c.typ, EventData: c.data}
			if got := e.Subject(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Every real event has a subject, and one that fits on a line.
func TestSubjectOfRealLogs(t *testing.T) {
	for path, b := range realLogs(t) {
		for m, e := range events(t, b) {
			if s := e.Subject(); s == "" || len(s) > 4<<10 {
				t.Errorf("%s: entry %d, %s: subject of %d bytes", path, m.Index, e.Type(), len(s))
			}
		}
	}
}

func TestSubjectIsBounded(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, e := range []eventlog.Event{
		{EventType: eventlog.EVIPL, EventData: []byte(long)},
		{EventType: eventlog.EVEFIAction, EventData: []byte(long)},
		{EventType: eventlog.EVDstack, EventData: []byte(long + ":")},
		{EventType: eventlog.EVEFIVariableBoot, EventData: variableData(efiGlobal, long, nil)},
	} {
		if s := e.Subject(); s == e.Type() || len(s) > 4<<10 {
			t.Errorf("%s: %d bytes", e.Type(), len(s))
		}
	}
}
