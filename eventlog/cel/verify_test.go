package cel_test

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/rtmr"
)

// Digests of what systemd measures:
//
//	printf enter-initrd | sha256sum
//	printf 'file-system:ext4::café "x":::' | sha256sum
const (
	enterInitrdSHA256 = "51e6b92f405d1f98d96e3de343d61d420ad6923b25de21d766f9298192f14fed"
	fileSystemSHA256  = "40c75a725a1fb390fd2e23b9cfa0dd4305efe1c892eda0886327066ffcdf8017"
)

func TestVerifySystemd(t *testing.T) {
	long := strings.Repeat("x", 1024)
	tests := []struct {
		name, digest, content string
		want                  rtmr.Check
	}{
		{"phase", enterInitrdSHA256, `{"eventType": "phase", "string": "enter-initrd"}`, rtmr.Verified},
		{"phase_contradicts", enterInitrdSHA256, `{"eventType": "phase", "string": "leave-initrd"}`, rtmr.Contradicts},
		{"string_alone", enterInitrdSHA256, `"656e7465722d696e69747264"`, rtmr.Verified},
		{"string_alone_may_be_of_a_volume_key", separatorSHA256, `"656e7465722d696e69747264"`, rtmr.CannotCheck},
		{"logged_escaped_measured_plain", fileSystemSHA256, `{"eventType": "filesystem", "string": "file-system:ext4::caf\\303\\251 \\\"x\\\":::"}`, rtmr.Verified},
		{"volume_key_is_an_hmac", separatorSHA256, `{"eventType": "volume-key", "string": "cryptsetup:root:9d6c"}`, rtmr.CannotCheck},
		{"cut_after_1024_bytes", separatorSHA256, `{"eventType": "phase", "string": "` + long + `..."}`, rtmr.CannotCheck},
		{"type_of_a_later_systemd", separatorSHA256, `{"eventType": "login", "string": "login:root"}`, rtmr.CannotCheck},
		{"type_by_libcel's_number", enterInitrdSHA256, `{"eventType": 0, "string": "enter-initrd"}`, rtmr.Verified},
		{"no_string", separatorSHA256, `{"eventType": "phase"}`, rtmr.CannotCheck},
		{"unfinished_escape", separatorSHA256, `{"eventType": "phase", "string": "a\\30"}`, rtmr.CannotCheck},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := fmt.Sprintf("\x1e"+`{"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": "%s"}], "content_type": "systemd", "content": %s}`+"\n", test.digest, test.content)
			first(t, []byte(log), cel.Systemd, func(m rtmr.Measurement) {
				got, computed := m.Entry.Verify(m.Digests[0])
				if got != test.want || (computed != nil) != (got == rtmr.Contradicts) {
					t.Errorf("%s, computed %x; expected %s", got, computed, test.want)
				}
			})
		})
	}
}

// cosTLV is a COS record in RTMR3 with a launch separator "hello". The digest
// is of the whole content TLV:
//
//	printf '\x50\0\0\0\x0a\x08\0\0\0\x05hello' | sha384sum
func cosTLV(text string) []byte {
	return append(bin(
		"00 00000008 0000000000000000 # recnum",
		"6c 00000001 04 # CC-MR 4: RTMR3",
		"03 00000035 0c 00000030", "96e4a3093ddead92f214d932e7b21c7758634db78ccf9e8472fe9583780e0ba7d8b9841a878e14afa547ef62c2e11c6b",
		"50 0000000a 08 00000005 # COS content: launch separator",
	), text...)
}

func TestVerifyCOS(t *testing.T) {
	for text, want := range map[string]rtmr.Check{"hello": rtmr.Verified, "jello": rtmr.Contradicts} {
		first(t, cosTLV(text), cel.TLV, func(m rtmr.Measurement) {
			got, _ := m.Entry.Verify(m.Digests[0])
			if got != want || m.Register.String() != "rtmr3" || m.Entry.Type() != "cos:launch-separator" || m.Entry.Detail() != text {
				t.Errorf("%s: %s %s %q in %s; expected %s", text, got, m.Entry.Type(), m.Entry.Detail(), m.Register, want)
			}
		})
	}
}

// TestVerifyUnsettled: where the rule is not known, only a match says anything.
func TestVerifyUnsettled(t *testing.T) {
	value := []byte{0, 0, 0, 0, 1, 'a'} // path "a"
	for name, measured := range map[string][]byte{
		"value": value,
		"tlv":   append([]byte{8, 0, 0, 0, 6}, value...),
		"other": {1},
	} {
		sum := rtmr.SHA256.AppendHash(nil, measured)
		log := append(append(bin(head, "03 00000025 0b 00000020"), sum...), append([]byte{8, 0, 0, 0, 6}, value...)...)
		first(t, log, cel.TLV, func(m rtmr.Measurement) {
			got, _ := m.Entry.Verify(m.Digests[0])
			if want := map[bool]rtmr.Check{true: rtmr.CannotCheck, false: rtmr.Verified}[name == "other"]; got != want {
				t.Errorf("%s: %s, expected %s", name, got, want)
			}
			if m.Entry.Type() != "ima_tlv" || m.Entry.Detail() != "path=a" {
				t.Errorf("%s %q", m.Entry.Type(), m.Entry.Detail())
			}
		})
	}
}

func TestVerifyNoAlgorithm(t *testing.T) {
	log := bin(head, "03 00000006 77 00000001 00", "de 00000001 00 # some vendor's content")
	first(t, log, cel.TLV, func(m rtmr.Measurement) {
		if got, _ := m.Entry.Verify(m.Digests[0]); got != rtmr.CannotCheck || m.Entry.Type() != "content-222" {
			t.Errorf("%s %s", m.Entry.Type(), got)
		}
	})
}

// TestInner: what is known of TCG events and IMA entries is asked of them.
func TestInner(t *testing.T) {
	first(t, separatorTLV(), cel.TLV, func(m rtmr.Measurement) {
		ev, ok := m.Entry.(*cel.Entry).Inner().(*eventlog.Event)
		if !ok || ev.EventType != eventlog.EVSeparator || ev.MRIndex != 7 || len(ev.Digests) != 2 {
			t.Fatalf("got %+v", ev)
		}
		want, _ := ev.Verify(m.Digests[1])
		if got, _ := m.Entry.Verify(m.Digests[1]); got != want {
			t.Errorf("%s, expected what the event says: %s", got, want)
		}
	})
	first(t, cosTLV("hello"), cel.TLV, func(m rtmr.Measurement) {
		if inner := m.Entry.(*cel.Entry).Inner(); inner != nil {
			t.Errorf("COS content has %T in it, expected nothing", inner)
		}
	})
}

// TestIMAByteOrder: CEL loses it, and the lengths in the data give it back.
func TestIMAByteOrder(t *testing.T) {
	tests := []struct {
		name, data string
		order      binary.ByteOrder
	}{
		{"little_endian", "02000000 aabb 01000000 cc", binary.LittleEndian},
		{"big_endian", "00000002 aabb 00000001 cc", binary.BigEndian},
		{"both_fit", "00000000 00000000", binary.LittleEndian},
		{"neither_fits", "00000002 aabbcc", binary.LittleEndian},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			data := bin(test.data)
			content := append(bin("00 00000006"), "ima-ng"...)
			content = append(append(content, 1, 0, 0, 0, byte(len(data))), data...)
			log := append(bin("00 00000001 00 01 00000001 0a 03 00000000"), append([]byte{7, 0, 0, 0, byte(len(content))}, content...)...)
			first(t, log, cel.TLV, func(m rtmr.Measurement) {
				want := ima.NewEntry("ima-ng", data, test.order)
				if got := m.Entry.(*cel.Entry).Inner(); !reflect.DeepEqual(got, want) {
					t.Errorf("got %+v, expected %+v", got, want)
				}
			})
		})
	}
}

func TestDetail(t *testing.T) {
	const prefix = `{"pcr": 15, "digests": [], `
	tests := []struct{ name, log, typ, detail string }{
		{"cel_version", prefix + `"content_type": "cel", "content": {"type": "cel_version", "data": {"major": 1, "minor": 2}}}`, "cel_version", "version 1.2"},
		{"state_trans", prefix + `"content_type": "cel", "content": {"type": "state_trans", "data": 2}}`, "state_trans", "kexec"},
		{"several", prefix + `"content_type": "cel", "content": [{"type": "firmware_end"}, {"type": "cel_timestamp", "data": 7}]}`, "firmware_end+cel_timestamp", "end of firmware, timestamp 7"},
		{"systemd_forged_lines", prefix + `"content_type": "systemd", "content": {"eventType": "a\nb", "string": "c\nd\u202e"}}`, `systemd:a\nb`, `c\nd\u202e`},
		{"nv_index", `{"nv_index": 30474752, "content_type": "systemd", "content": {"string": "product-id:x", "nvIndexName": "hardware"}}`, "systemd", "nv_index 0x01d10200 (hardware) product-id:x"},
		{"unknown_name", prefix + `"content_type": "tss2", "content": {"data": 1}}`, "tss2", "7b2264617461223a20317d"},
		{"long_opaque", prefix + `"content_type": 200, "content": "` + strings.Repeat("00", 40) + `"}`, "content-200", strings.Repeat("00", 32) + ".. (40 bytes)"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			first(t, []byte(test.log), cel.JSON, func(m rtmr.Measurement) {
				if m.Entry.Type() != test.typ || m.Entry.Detail() != test.detail {
					t.Errorf("got %q %q, expected %q %q", m.Entry.Type(), m.Entry.Detail(), test.typ, test.detail)
				}
			})
		})
	}
}
