package eventlog_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unicode/utf16"

	"tallystick/eventlog"
	"tallystick/rtmr"
)

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// variableData builds a UEFI_VARIABLE_DATA: guid | u64 characters | u64 bytes
// | name | data.
func variableData(guid, name string, data []byte) []byte {
	b := unhex(guid)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(name)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	return append(append(b, utf16le(name)...), data...)
}

// taggedData builds a TCG_PCClientTaggedEvent: u32 id | u32 size | data.
func taggedData(id uint32, data string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// GUIDs as they are in memory.
const (
	efiGlobal = "61dfe48bca93d211aa0d00e098032b8c"
	shimLock  = "50ab5d6046e00043abb63dd810dd8b23"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func cat(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// TestVerify holds digests against data by type. In each case measured is what
// the digest, computed here with crypto/sha256, is of.
func TestVerify(t *testing.T) {
	const (
		verified    = rtmr.Verified
		contradicts = rtmr.Contradicts
		cannot      = rtmr.CannotCheck
	)
	order := []byte{1, 0, 0, 0}
	boot := variableData(efiGlobal, "BootOrder", order)
	secure := variableData(efiGlobal, "SecureBoot", []byte{1})
	shim := append(variableData(shimLock, "Shim", []byte("certificate")), 0, 0, 0, 0, 0, 'x')
	aael := taggedData(0x4141454C, "coco.com open file")
	windows := taggedData(0x40010001, "\x02\x00\x02\x00\x04\x00\x00\x00\x01\x00\x00\x00")
	le := "\x01\x00\x00\x08" // le32(0x08000001)

	for _, c := range []struct {
		trap     string
		typ      eventlog.EventType
		data     []byte
		measured []byte
		want     rtmr.Check
	}{
		{"separator_zeros", eventlog.EVSeparator, make([]byte, 4), make([]byte, 4), verified},
		{"separator_ones", eventlog.EVSeparator, unhex("ffffffff"), unhex("ffffffff"), verified},
		{"separator_windows_wbcl", eventlog.EVSeparator, []byte("WBCL"), []byte("WBCL"), verified},
		{"separator_changed", eventlog.EVSeparator, make([]byte, 4), unhex("ffffffff"), contradicts},
		{"separator_error", eventlog.EVSeparator, unhex("01000000"), unhex("01000000"), verified},
		{"separator_error_said_to_be_none", eventlog.EVSeparator, make([]byte, 4), unhex("01000000"), contradicts},
		{"separator_error_described_by_vendor", eventlog.EVSeparator, []byte("no CRTM"), unhex("01000000"), cannot},

		{"crtm_version", eventlog.EVSCRTMVersion, utf16le("v1\x00"), utf16le("v1\x00"), verified},
		{"crtm_version_changed", eventlog.EVSCRTMVersion, utf16le("v2\x00"), utf16le("v1\x00"), contradicts},
		{"action_is_hashed_without_nul", eventlog.EVEFIAction, []byte("Boot\x00"), []byte("Boot"), contradicts},

		{"variable_boot_hashes_data_only", eventlog.EVEFIVariableBoot, boot, order, verified},
		{"variable_boot_hashed_whole", eventlog.EVEFIVariableBoot, boot, boot, verified},
		{"variable_boot_changed", eventlog.EVEFIVariableBoot, boot, []byte{2, 0, 0, 0}, contradicts},
		{"variable_boot_sizes_overwritten", eventlog.EVEFIVariableBoot, append(bytes.Repeat([]byte{'B'}, 32), boot[32:]...), order, contradicts},
		{"variable_boot2_hashed_whole_only", eventlog.EVEFIVariableBoot2, boot, order, contradicts},
		{"variable_boot2", eventlog.EVEFIVariableBoot2, boot, boot, verified},
		{"driver_config_hashed_whole", eventlog.EVEFIVariableDriverConfig, secure, secure, verified},
		{"driver_config_data_only_not_outside_tpm12", eventlog.EVEFIVariableDriverConfig, secure, []byte{1}, contradicts},
		{"driver_config_wrapping_a_genuine_event", eventlog.EVEFIVariableDriverConfig, variableData(efiGlobal, "SetupMode", secure), secure, contradicts},

		{"authority_hashed_whole", eventlog.EVEFIVariableAuthority, shim[:len(shim)-6], shim[:len(shim)-6], verified},
		{"authority_of_old_shim_last_byte_unmeasured", eventlog.EVEFIVariableAuthority, shim, shim[:len(shim)-1], verified},
		{"authority_with_other_bytes_behind", eventlog.EVEFIVariableAuthority, append(shim[:len(shim):len(shim)], 0), shim, contradicts},

		{"grub_prefix_and_nul_not_hashed", eventlog.EVIPL, cat("grub_cmd: set a=1\x00"), []byte("set a=1"), verified},
		{"grub_kernel_cmdline", eventlog.EVIPL, cat("kernel_cmdline: /vmlinuz ro\x00"), []byte("/vmlinuz ro"), verified},
		{"grub_module_cmdline", eventlog.EVIPL, cat("module_cmdline: /xen\x00"), []byte("/xen"), verified},
		{"grub_red_hat_hashes_nul", eventlog.EVIPL, cat("grub_cmd set a=1\x00"), []byte("set a=1\x00"), verified},
		{"grub_red_hat_cmdline_without_nul", eventlog.EVIPL, cat("grub_kernel_cmdline /vmlinuz\x00"), []byte("/vmlinuz"), verified},
		{"grub_alibaba_stray_byte", eventlog.EVIPL, cat("grub_cmd set a=1\x00n"), []byte("set a=1\x00"), verified},
		{"grub_text_hidden_behind_nul", eventlog.EVIPL, cat("grub_cmd: set a=1\x00more"), []byte("set a=1"), contradicts},
		{"grub_changed", eventlog.EVIPL, cat("grub_cmd: set a=2\x00"), []byte("set a=1"), contradicts},
		{"grub_file_is_measured_elsewhere", eventlog.EVIPL, cat("(hd0,gpt1)/grub.cfg\x00"), []byte("contents"), cannot},

		{"systemd_section_name_hashed_as_ascii", eventlog.EVIPL, utf16le(".osrel\x00"), []byte(".osrel\x00"), verified},
		{"systemd_section_contents", eventlog.EVIPL, utf16le(".osrel\x00"), []byte("ID=debian"), cannot},
		{"systemd_cmdline_without_nul", eventlog.EVIPL, utf16le("root=/dev/sda quiet\x00"), utf16le("root=/dev/sda quiet"), verified},
		{"systemd_cmdline_with_nul", eventlog.EVIPL, utf16le("root=/dev/sda quiet\x00"), utf16le("root=/dev/sda quiet\x00"), verified},
		{"systemd_cmdline_logged_one_byte_short", eventlog.EVIPL, append(utf16le("root=/dev/sda quiet"), 0), utf16le("root=/dev/sda quiet\x00"), verified},

		{"aael_hashed_whole", eventlog.EVEventTag, aael, aael, verified},
		{"aael_text_alone", eventlog.EVEventTag, aael, aael[8:], contradicts},
		{"windows_container", eventlog.EVEventTag, windows, windows, verified},
		{"windows_container_changed", eventlog.EVEventTag, windows, windows[8:], contradicts},
		{"linux_stub_hashes_the_contents", eventlog.EVEventTag, taggedData(0x8F3B22EC, "Linux initrd\x00"), []byte("cpio"), cannot},

		{"dstack_type_and_colon_first", eventlog.EVDstack, []byte("app-id:\x01\x02"), cat(le, ":", "app-id:\x01\x02"), verified},
		{"dstack_version_2", eventlog.EVDstack, []byte("app-id:\x01\x02"), []byte(`{"name":"app-id","payload":"0102","type":134217729}`), verified},
		// dstack's cc-eventlog, runtime_events.rs: canonical_json_escapes_special_chars
		// and canonical_json_control_character_escaping.
		{"dstack_version_2_escapes", eventlog.EVDstack, []byte("event\"with\\special\nchars:\xff"), []byte(`{"name":"event\"with\\special\nchars","payload":"ff","type":134217729}`), verified},
		{"dstack_version_2_control_characters", eventlog.EVDstack, []byte("\b\f\n\r\t\x01:"), []byte(`{"name":"\b\f\n\r\t\u0001","payload":"","type":134217729}`), verified},
		{"dstack_version_2_escapes_no_more_than_rfc_8785", eventlog.EVDstack, []byte("<a>&\u2028:"), []byte("{\"name\":\"<a>&\u2028\",\"payload\":\"\",\"type\":134217729}"), verified},
		{"dstack_version_2_colon_in_the_name", eventlog.EVDstack, []byte("a:b:\x01"), []byte(`{"name":"a:b","payload":"01","type":134217729}`), verified},
		{"dstack_version_2_changed", eventlog.EVDstack, []byte("app-id:\x01\x03"), []byte(`{"name":"app-id","payload":"0102","type":134217729}`), contradicts},
		{"dstack_firmware_event_without_its_data", eventlog.EVSeparator, nil, make([]byte, 4), cannot},
		{"dstack_changed", eventlog.EVDstack, []byte("app-id:\x01\x03"), cat(le, ":", "app-id:\x01\x02"), contradicts},

		{"gpt_changed", eventlog.EVEFIGPTEvent, []byte("EFI PART.."), []byte("EFI PART"), contradicts},
		{"image_digest_is_authenticode", eventlog.EVEFIBootServicesApp, []byte("path"), []byte("image"), cannot},
		{"no_action_has_no_digest", eventlog.EVNoAction, []byte("StartupLocality\x00\x03"), []byte("StartupLocality\x00\x03"), cannot},
		{"unknown_type_may_hash_its_data", eventlog.EventType(0x1234), []byte("x"), []byte("x"), verified},
		{"unknown_type_need_not", eventlog.EventType(0x1234), []byte("x"), []byte("y"), cannot},
	} {
		t.Run(c.trap, func(t *testing.T) {
			sum := sha256.Sum256(c.measured)
			d := rtmr.Digest{Alg: rtmr.SHA256, Sum: sum[:]}
			e := eventlog.Event{EventType: c.typ, Digests: []rtmr.Digest{{Alg: rtmr.SHA1}, d}, EventData: c.data}
			got, computed := e.Verify(d)
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if (computed != nil) != (got == contradicts) {
				t.Errorf("%s with computed digest %x", got, computed)
			}
		})
	}
}

// Digests of one event's data as everyone in the field knows them.
func TestVerifyPublishedDigests(t *testing.T) {
	for _, c := range []struct {
		typ  eventlog.EventType
		data []byte
		alg  rtmr.Alg
		sum  string
	}{
		{eventlog.EVSeparator, make([]byte, 4), rtmr.SHA1, "9069ca78e7450a285173431b3e52c5c25299e473"},
		{eventlog.EVSeparator, make([]byte, 4), rtmr.SHA256, "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"},
		{eventlog.EVSeparator, make([]byte, 4), rtmr.SHA384, "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0"},
		{eventlog.EVEFIAction, []byte("Calling EFI Application from Boot Option"), rtmr.SHA256, "3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba"},
		{eventlog.EVEFIAction, []byte("Exit Boot Services Invocation"), rtmr.SHA384, "214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0"},
	} {
		e := eventlog.Event{EventType: c.typ, EventData: c.data}
		if got, computed := e.Verify(rtmr.Digest{Alg: c.alg, Sum: unhex(c.sum)}); got != rtmr.Verified {
			t.Errorf("%s %q: %s, computed %x", c.alg, c.data, got, computed)
		}
	}
}

func TestVerifyContradictionGivesTheMainRulesDigest(t *testing.T) {
	boot := variableData(efiGlobal, "BootOrder", []byte{5, 0})
	dataOnly := sha1.Sum([]byte{5, 0})
	e := eventlog.Event{EventType: eventlog.EVEFIVariableBoot, EventData: boot}
	if c, computed := e.Verify(rtmr.Digest{Alg: rtmr.SHA1, Sum: make([]byte, 20)}); c != rtmr.Contradicts || !bytes.Equal(computed, dataOnly[:]) {
		t.Errorf("variable: %s, %x, want %x", c, computed, dataOnly)
	}
	text := sha512.Sum384([]byte("boot"))
	e = eventlog.Event{EventType: eventlog.EVIPL, EventData: []byte("grub_cmd: boot\x00")}
	if c, computed := e.Verify(rtmr.Digest{Alg: rtmr.SHA384, Sum: make([]byte, 48)}); c != rtmr.Contradicts || !bytes.Equal(computed, text[:]) {
		t.Errorf("GRUB: %s, %x, want %x", c, computed, text)
	}
}

// Lenovo's rule holds in a log of SHA-1 digests alone, as a TPM 1.2 gives.
func TestVerifyDriverConfigOfLenovoTPM12(t *testing.T) {
	sum := sha1.Sum([]byte{1})
	d := rtmr.Digest{Alg: rtmr.SHA1, Sum: sum[:]}
	e := eventlog.Event{
		EventType: eventlog.EVEFIVariableDriverConfig,
		Digests:   []rtmr.Digest{d},
		EventData: variableData(efiGlobal, "SecureBoot", []byte{1}),
	}
	if c, _ := e.Verify(d); c != rtmr.Verified {
		t.Errorf("TPM 1.2: %s", c)
	}
	e.Digests = append(e.Digests, rtmr.Digest{Alg: rtmr.SHA256, Sum: make([]byte, 32)})
	if c, _ := e.Verify(d); c != rtmr.Contradicts {
		t.Errorf("two banks: %s", c)
	}
}

func TestVerifyDigestThatCannotBeComputed(t *testing.T) {
	e := eventlog.Event{EventType: eventlog.EVSeparator, EventData: make([]byte, 4)}
	for _, d := range []rtmr.Digest{
		{Alg: rtmr.SM3, Sum: make([]byte, 32)},
		{Alg: rtmr.Alg(0x14), Sum: make([]byte, 32)},
		{Alg: rtmr.SHA256, Sum: make([]byte, 20)},
		{Alg: rtmr.SHA256},
	} {
		if c, computed := e.Verify(d); c != rtmr.CannotCheck || computed != nil {
			t.Errorf("%s: %s, %x", d, c, computed)
		}
	}
}

// tally counts the checks of one event type.
type tally struct{ verified, contradicts, cannot int }

// No genuine log contradicts itself. With -v the checks by type are shown.
func TestVerifyRealLogs(t *testing.T) {
	logs := realLogs(t)
	counts := make(map[eventlog.EventType]*tally)
	for _, path := range slices.Sorted(maps.Keys(logs)) {
		for m, e := range events(t, logs[path]) {
			n := counts[e.EventType]
			if n == nil {
				n = new(tally)
				counts[e.EventType] = n
			}
			for _, d := range m.Digests {
				switch c, computed := e.Verify(d); c {
				case rtmr.Verified:
					n.verified++
				case rtmr.CannotCheck:
					n.cannot++
				default:
					n.contradicts++
					t.Errorf("%s: event %d, %s: digest %s, the data give %x", filepath.Base(path), m.Index, e.Type(), d, computed)
				}
			}
		}
	}
	t.Logf("%d logs", len(logs))
	for _, typ := range slices.Sorted(maps.Keys(counts)) {
		n := counts[typ]
		t.Logf("%-36s verified %5d, contradicts %3d, cannot be checked %5d", typ, n.verified, n.contradicts, n.cannot)
	}
}

// A bit flipped in data that a digest covers to the end is always found.
func TestVerifyRealLogsWithABitFlipped(t *testing.T) {
	flipped := 0
	for _, b := range realLogs(t) {
		for m, e := range events(t, b) {
			switch e.EventType {
			case eventlog.EVSeparator, eventlog.EVSCRTMVersion, eventlog.EVEFIAction, eventlog.EVEFIGPTEvent,
				eventlog.EVEFIVariableDriverConfig, eventlog.EVDstack:
			default:
				continue
			}
			data := bytes.Clone(e.EventData)
			data[len(data)-1] ^= 0x10
			forged := eventlog.Event{EventType: e.EventType, Digests: m.Digests, EventData: data}
			for _, d := range m.Digests {
				if c, _ := forged.Verify(d); c != rtmr.Contradicts && d.Alg.Available() {
					t.Errorf("%s, event %d: %s", e.Type(), m.Index, c)
				}
				flipped++
			}
		}
	}
	t.Logf("%d digests", flipped)
}

// The corpus has a log and its copy with event data changed. What differs
// between the two is what Verify finds, and nothing else.
func TestVerifyTamperedLog(t *testing.T) {
	dir := filepath.FromSlash("../../shared/corpus/tampered-event-data")
	genuine, err := os.ReadFile(filepath.Join(dir, "uefi_event_log.bin"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	tampered, err := os.ReadFile(filepath.Join(dir, "uefi_event_log_invalid.bin"))
	if err != nil {
		t.Fatal(err)
	}
	var data [][]byte
	for _, e := range events(t, genuine) {
		data = append(data, bytes.Clone(e.EventData))
	}
	var changed, found []string
	for m, e := range events(t, tampered) {
		at := fmt.Sprintf("%d %s", m.Index, e.Type())
		if !bytes.Equal(e.EventData, data[m.Index]) {
			changed = append(changed, at)
		}
		contradicted := 0
		for _, d := range m.Digests {
			if c, _ := e.Verify(d); c == rtmr.Contradicts {
				contradicted++
			}
		}
		if contradicted > 0 {
			found = append(found, at)
		}
		if contradicted > 0 && contradicted < len(m.Digests) {
			t.Errorf("event %s: %d of %d digests contradict", at, contradicted, len(m.Digests))
		}
	}
	if want := []string{"31 EV_EFI_VARIABLE_BOOT"}; !slices.Equal(changed, want) || !slices.Equal(found, want) {
		t.Errorf("changed %q, found %q, want %q", changed, found, want)
	}
}

func TestVerifyDoesNotAllocate(t *testing.T) {
	for name, e := range map[string]eventlog.Event{
		"separator": {EventType: eventlog.EVSeparator, EventData: make([]byte, 4)},
		"grub":      {EventType: eventlog.EVIPL, EventData: []byte("grub_cmd: boot\x00")},
		"authority": {EventType: eventlog.EVEFIVariableAuthority, EventData: variableData(shimLock, "Shim", []byte("c"))},
		"boot":      {EventType: eventlog.EVEFIVariableBoot, EventData: variableData(efiGlobal, "BootOrder", []byte{1, 0})},
		"dstack":    {EventType: eventlog.EVDstack, EventData: []byte("app-id:1")},
	} {
		for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384} {
			_, sum := e.Verify(rtmr.Digest{Alg: alg, Sum: make([]byte, alg.Size())})
			d := rtmr.Digest{Alg: alg, Sum: sum}
			n := testing.AllocsPerRun(100, func() {
				if c, _ := e.Verify(d); c != rtmr.Verified {
					t.Fatalf("%s: %s", name, c)
				}
			})
			if n != 0 {
				t.Errorf("%s, %s: %v allocations", name, alg, n)
			}
		}
	}
}

// BenchmarkVerify against BenchmarkVerifyHashAlone is what the check costs
// beyond the hash.
func BenchmarkVerify(b *testing.B) {
	e := eventlog.Event{EventType: eventlog.EVEFIVariableDriverConfig, EventData: variableData(efiGlobal, "db", make([]byte, 3000))}
	_, sum := e.Verify(rtmr.Digest{Alg: rtmr.SHA256, Sum: make([]byte, 32)})
	d := rtmr.Digest{Alg: rtmr.SHA256, Sum: sum}
	b.ReportAllocs()
	b.SetBytes(int64(len(e.EventData)))
	for b.Loop() {
		e.Verify(d)
	}
}

func BenchmarkVerifyHashAlone(b *testing.B) {
	data := variableData(efiGlobal, "db", make([]byte, 3000))
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256.Sum256(data)
	}
}

// FuzzVerify: whatever the data, a contradiction's computed digest is the one
// that would have verified.
func FuzzVerify(f *testing.F) {
	seedEvents(f)
	f.Add(uint32(eventlog.EVIPL), utf16le(".osrel\x00"))
	f.Fuzz(func(t *testing.T, typ uint32, data []byte) {
		e := eventlog.Event{EventType: eventlog.EventType(typ), EventData: data}
		for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA384, rtmr.SM3} {
			c, computed := e.Verify(rtmr.Digest{Alg: alg, Sum: make([]byte, alg.Size())})
			if c == rtmr.Verified {
				t.Fatalf("%q hashes to zeros", data)
			}
			if (c == rtmr.Contradicts) != (computed != nil) {
				t.Fatalf("%s with computed digest %x", c, computed)
			}
			if c != rtmr.Contradicts {
				continue
			}
			if again, _ := e.Verify(rtmr.Digest{Alg: alg, Sum: computed}); again != rtmr.Verified {
				t.Fatalf("the computed digest %x: %s", computed, again)
			}
		}
	})
}
