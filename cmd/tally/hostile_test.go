package main

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
)

// write puts a log into a file of the test's own.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func imaList(entries ...testlogs.Entry) []byte {
	return testlogs.IMA(binary.LittleEndian, crypto.SHA1, entries...)
}

func imaBuf(name, buf string) testlogs.Entry {
	fields := append(testlogs.NG(name, buf), []byte(buf))
	return testlogs.Entry{PCR: 10, Template: "ima-buf", Data: testlogs.Fields(binary.LittleEndian, fields...)}
}

// What is no log is named where its first bytes are certain.
func TestNoLog(t *testing.T) {
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(imaList(testlogs.IMAEntry("boot_aggregate")))
	w.Close()
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"gzip", gz.Bytes(), "it seems to be compressed by gzip: decompress it first (gzip -dc)"},
		{"xz", []byte("\xfd7zXZ\x00\x00\x04"), "compressed by xz"},
		{"zstd", []byte{0x28, 0xb5, 0x2f, 0xfd, 0x04, 0x58}, "compressed by zstd"},
		{"zip", []byte("PK\x03\x04\x14\x00"), "a zip archive"},
		{"attest", []byte("\xffTCG\x80\x18\x00\x22"), "a TPM's signed quote (TPMS_ATTEST)"},
		{"tdx_quote_4", append([]byte("\x04\x00\x02\x00\x81\x00\x00\x00"), make([]byte, 1000)...), "a TDX quote of version 4"},
		{"tdx_quote_5", append([]byte("\x05\x00\x02\x00\x81\x00\x00\x00"), make([]byte, 1000)...), "a TDX quote of version 5"},
		{"sgx_quote", append([]byte("\x03\x00\x02\x00\x00\x00\x00\x00"), make([]byte, 1000)...), "format not recognised"},
	} {
		out, err := exec.Command("tally", "show", write(t, tc.name, tc.data)).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(tc.want)) {
			t.Errorf("%s: %v, %s; want %q", tc.name, err, out, tc.want)
		}
	}
}

// What a list calls the kernel's release is whatever its author wrote.
func TestReleaseThatIsNone(t *testing.T) {
	for _, release := range []string{"5.4\x1b[2J\npcr10 sha256 00", "5.4 " + strings.Repeat("x", 100), "5.4.0\u202e", strings.Repeat("5", 1000) + ".4"} {
		list := write(t, "list", imaList(testlogs.IMAEntry("boot_aggregate"), imaBuf("kernel_version", release)))
		out := tally(t, "replay", list)
		if bytes.ContainsAny(out, "\x1b") || bytes.Contains(out, []byte("padded-sha1:")) || !bytes.Contains(out, []byte("nothing tells the kernel's release")) {
			t.Errorf("release %q: %q", release, out)
		}
	}
	list := write(t, "list", imaList(testlogs.IMAEntry("boot_aggregate"), imaBuf("kernel_version", "5.4.0-42-generic")))
	if out := tally(t, "replay", list); !bytes.Contains(out, []byte("padded-sha1: kernel 5.4.0-42-generic, before 5.8")) {
		t.Errorf("%s", out)
	}
}

// GRUB logs every menu entry, and then the commands of the one that it boots.
func TestReleaseOfTheBootedKernel(t *testing.T) {
	ipl := func(text string) testlogs.Event {
		return testlogs.Event{Index: 8, Type: testlogs.IPL, Data: []byte(text + "\x00")}
	}
	menu := "grub_cmd: menuentry new {\n linux /boot/vmlinuz-6.12.0-1-amd64 root=/dev/vda\n}"
	list := write(t, "list", imaList(testlogs.IMAEntry("boot_aggregate"), testlogs.IMAEntry("/bin/sh")))
	for _, tc := range []struct{ name, says, want string }{
		{"command", "grub_cmd: linux /boot/vmlinuz-5.4.0-42-generic root=/dev/vda", "kernel 5.4.0-42-generic"},
		{"command_line", "kernel_cmdline: /boot/vmlinuz-5.4.0-42-generic root=/dev/vda", "kernel 5.4.0-42-generic"},
		{"menu_alone", menu, "nothing tells the kernel's release"},
		{"named_elsewhere", "kernel_cmdline: /vmlinuz note=vmlinuz-5.4.0-42-generic", "nothing tells the kernel's release"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			boot := write(t, "boot", testlogs.TCG2(testlogs.SHA256Only, ipl(menu), ipl(tc.says)))
			out := tally(t, "replay", boot, list)
			if !bytes.Contains(out, []byte(tc.want)) {
				t.Errorf("expected %q in\n%s", tc.want, out)
			}
			if out := tally(t, "replay", "--kernel", "6.12.1", boot, list); bytes.Contains(out, []byte("padded-sha1")) {
				t.Errorf("--kernel does not override the boot log:\n%s", out)
			}
		})
	}
}

// Warnings reach the user of every command, and of a faulty log too.
func TestWarningsOfConvertAndShow(t *testing.T) {
	list := imaList(testlogs.IMAEntry("boot_aggregate"), imaBuf("kernel_version", "5.4.0-42-generic"))
	for _, data := range [][]byte{list, list[:len(list)-3]} {
		path := write(t, "list", data)
		for _, args := range [][]string{{"show", path}, {"convert", "--to", "cel-tlv", path}} {
			cmd := exec.Command("tally", args...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Run(); (err != nil) != (len(data) < len(list)) {
				t.Errorf("%s: %v", args[0], err)
			}
			if len(data) == len(list) && !strings.Contains(errs.String(), "read with --profile padded-sha1") {
				t.Errorf("%s says %q", args[0], &errs)
			}
		}
	}
}

// A converted list of a kernel before 5.8, or with ima_hash=md5, contradicts
// itself no more than the list does.
func TestConvertKeepsWhatCannotContradict(t *testing.T) {
	md5 := append(bytes.Repeat([]byte{0x5A}, 16), binary.LittleEndian.AppendUint32(nil, 7)...)
	md5 = append(md5, "/bin/sh"...)
	padded := append(bytes.Repeat([]byte{0x5A}, 16), "/bin/sh"...)
	padded = append(padded, make([]byte, 16+256-len(padded))...)
	for name, list := range map[string][]byte{
		"padded_violation": imaList(testlogs.IMAEntry("boot_aggregate"), func() testlogs.Entry {
			e := testlogs.IMAEntry("/v")
			e.Sum = make([]byte, 20)
			return e
		}()),
		"md5": imaList(testlogs.Entry{PCR: 10, Template: "ima", Data: md5, Sum: testlogs.Hash(crypto.SHA1, padded)}),
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "list", list)
			want, _ := replayed(t, "--profile", "padded-sha1", path)
			converted := write(t, "cel", tally(t, "convert", "--profile", "padded-sha1", "--to", "cel-tlv", path))
			if got, _ := replayed(t, converted); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("folds to\n%q, expected\n%q", got, want)
			}
			if out := tally(t, "replay", converted); !bytes.Contains(out, []byte(" 0 contradicted")) {
				t.Errorf("%s", out)
			}
		})
	}
}
