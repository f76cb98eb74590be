package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// bank is an algorithm and its digests' size, as a header declares them.
type bank struct {
	alg  rtmr.Alg
	size int
}

var (
	sha1Bank   = bank{rtmr.SHA1, 20}
	sha256Bank = bank{rtmr.SHA256, 32}
	sha384Bank = bank{rtmr.SHA384, 48}
	sm3Bank    = bank{rtmr.SM3, 32}
	namelessly = bank{0x0040, 24} // no algorithm that anyone has named
)

// header builds the first record of a crypto-agile log: TCG_PCR_EVENT with
// TCG_EfiSpecIDEvent, and what a vendor has behind the banks.
func header(vendor string, banks ...bank) []byte {
	spec := cat("Spec ID Event03\x00", "\x00\x00\x00\x00", "\x00\x02\x69\x02")
	spec = binary.LittleEndian.AppendUint32(spec, uint32(len(banks)))
	for _, b := range banks {
		spec = binary.LittleEndian.AppendUint16(spec, uint16(b.alg))
		spec = binary.LittleEndian.AppendUint16(spec, uint16(b.size))
	}
	return sha1Event(0, eventlog.EVNoAction, append(spec, vendor...))
}

// sha1Event builds a TCG_PCR_EVENT with a digest of 01s.
func sha1Event(index uint32, typ eventlog.EventType, data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, index)
	b = binary.LittleEndian.AppendUint32(b, uint32(typ))
	b = append(b, bytes.Repeat([]byte{1}, 20)...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// agileEvent builds a TCG_PCR_EVENT2 with digests of 01s.
func agileEvent(index uint32, typ eventlog.EventType, data []byte, banks ...bank) []byte {
	b := binary.LittleEndian.AppendUint32(nil, index)
	b = binary.LittleEndian.AppendUint32(b, uint32(typ))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(banks)))
	for _, k := range banks {
		b = binary.LittleEndian.AppendUint16(b, uint16(k.alg))
		b = append(b, bytes.Repeat([]byte{1}, k.size)...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// ccelTable is the ACPI table with a CC type.
func ccelTable(ccType byte) []byte {
	b := make([]byte, 56)
	copy(b, "CCEL\x38")
	b[36] = ccType
	return b
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// line is an event as the trap tests compare it.
func line(m rtmr.Measurement) string {
	s := m.Register.String() + " " + m.Entry.Type()
	for _, d := range m.Digests {
		s += fmt.Sprintf(" %s/%d", d.Alg, len(d.Sum))
	}
	if m.NoAction {
		s += " no-action"
	}
	if m.Locality != 0 {
		s += fmt.Sprintf(" locality-%d", m.Locality)
	}
	return s
}

func readLines(log []byte) (lines []string, r *eventlog.Reader, err error) {
	if r, err = eventlog.NewReader(bytes.NewReader(log), eventlog.Options{}); err != nil {
		return nil, nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return lines, r, err
		}
		lines = append(lines, line(m))
	}
	return lines, r, nil
}

const locality = "StartupLocality\x00"

// TestReader: the traps of real and hostile logs, by name. The header's own
// line is left out of want.
func TestReader(t *testing.T) {
	zeros := make([]byte, 4)
	version := agileEvent(0, eventlog.EVSCRTMVersion, utf16le("v"), sha1Bank, sha256Bank)
	cc := agileEvent(1, eventlog.EVSeparator, zeros, sha384Bank)
	tpm := header("\x00", sha1Bank, sha256Bank)
	td := header("\x00", sha384Bank)

	for _, c := range []struct {
		trap   string
		log    []byte
		format eventlog.Format
		want   []string
		warns  string // a part of the only warning, "" for none
	}{
		{"startup_locality_3", concat(tpm, agileEvent(0, eventlog.EVNoAction, cat(locality, "\x03"), sha1Bank, sha256Bank), version), eventlog.TCG2,
			[]string{"pcr0 EV_NO_ACTION sha1/20 sha256/32 no-action locality-3", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"startup_locality_of_16_bytes", concat(tpm, agileEvent(0, eventlog.EVNoAction, []byte(locality), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_NO_ACTION sha1/20 sha256/32 no-action"}, ""},
		{"startup_locality_of_18_bytes", concat(tpm, agileEvent(0, eventlog.EVNoAction, cat(locality, "\x03\x00"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_NO_ACTION sha1/20 sha256/32 no-action"}, ""},
		{"startup_locality_of_another_pcr", concat(tpm, agileEvent(1, eventlog.EVNoAction, cat(locality, "\x03"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr1 EV_NO_ACTION sha1/20 sha256/32 no-action"}, ""},
		{"startup_locality_of_another_type", concat(tpm, agileEvent(0, eventlog.EVAction, cat(locality, "\x03"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_ACTION sha1/20 sha256/32"}, ""},
		{"startup_locality_too_late", concat(tpm, version, agileEvent(0, eventlog.EVNoAction, cat(locality, "\x03"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32", "pcr0 EV_NO_ACTION sha1/20 sha256/32 no-action locality-3"}, "StartupLocality"},
		{"startup_locality_in_a_sha1_log", concat(sha1Event(0, eventlog.EVNoAction, cat(locality, "\x03")), sha1Event(0, eventlog.EVSCRTMVersion, zeros)), eventlog.TCG12,
			[]string{"pcr0 EV_NO_ACTION sha1/20 no-action locality-3", "pcr0 EV_S_CRTM_VERSION sha1/20"}, ""},
		{"startup_locality_in_a_cc_log", concat(td, agileEvent(0, eventlog.EVNoAction, cat(locality, "\x03"), sha384Bank), cc), eventlog.CCEL,
			[]string{"mrtd EV_NO_ACTION sha384/48 no-action", "rtmr0 EV_SEPARATOR sha384/48"}, ""},

		{"hcrtm_starts_at_4", concat(tpm, agileEvent(0, eventlog.EVEFIHCRTMEvent, []byte("HCRTM"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_EFI_HCRTM_EVENT sha1/20 sha256/32 locality-4"}, ""},
		{"hcrtm_of_another_pcr", concat(tpm, agileEvent(1, eventlog.EVEFIHCRTMEvent, []byte("HCRTM"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr1 EV_EFI_HCRTM_EVENT sha1/20 sha256/32"}, ""},

		{"no_action_index_ffffffff", concat(tpm, agileEvent(0xFFFFFFFF, eventlog.EVNoAction, []byte("SP800-155 Event3"), sha1Bank, sha256Bank), version), eventlog.TCG2,
			[]string{"- EV_NO_ACTION sha1/20 sha256/32 no-action", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"no_action_index_of_an_nv_index", concat(tpm, agileEvent(0x01C40200, eventlog.EVNoAction, []byte("NvIndexInstance\x00"), sha1Bank, sha256Bank), version), eventlog.TCG2,
			[]string{"- EV_NO_ACTION sha1/20 sha256/32 no-action", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"no_action_without_digests", concat(tpm, agileEvent(0, eventlog.EVNoAction, []byte("x")), version), eventlog.TCG2,
			[]string{"pcr0 EV_NO_ACTION no-action", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"no_action_index_ffffffff_in_a_cc_log", concat(td, agileEvent(0xFFFFFFFF, eventlog.EVNoAction, []byte("SP800-155 Event3"), sha384Bank), cc), eventlog.CCEL,
			[]string{"- EV_NO_ACTION sha384/48 no-action", "rtmr0 EV_SEPARATOR sha384/48"}, ""},

		{"separator_twice", concat(td, cc, cc, agileEvent(2, eventlog.EVSeparator, zeros, sha384Bank)), eventlog.CCEL,
			[]string{"rtmr0 EV_SEPARATOR sha384/48", "rtmr0 EV_SEPARATOR sha384/48", "rtmr1 EV_SEPARATOR sha384/48"}, "index 1 (2 times)"},
		{"separator_of_rtmr1_under_rtmr0", concat(td, cc, cc), eventlog.CCEL,
			[]string{"rtmr0 EV_SEPARATOR sha384/48", "rtmr0 EV_SEPARATOR sha384/48"}, "none of RTMR1"},

		{"exit_boot_services_missing", concat(tpm, agileEvent(4, eventlog.EVEFIAction, []byte("Calling EFI Application from Boot Option"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr4 EV_EFI_ACTION sha1/20 sha256/32"}, "final events table"},
		{"exit_boot_services_without_return", concat(tpm, agileEvent(5, eventlog.EVEFIAction, []byte("Exit Boot Services Invocation"), sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr5 EV_EFI_ACTION sha1/20 sha256/32"}, "final events table"},
		{"final_events_twice", concat(tpm, agileEvent(5, eventlog.EVEFIAction, []byte("Exit Boot Services Invocation"), sha1Bank, sha256Bank),
			bytes.Repeat(agileEvent(5, eventlog.EVEFIAction, []byte("Exit Boot Services Returned with Success"), sha1Bank, sha256Bank), 2)), eventlog.TCG2,
			[]string{"pcr5 EV_EFI_ACTION sha1/20 sha256/32", "pcr5 EV_EFI_ACTION sha1/20 sha256/32", "pcr5 EV_EFI_ACTION sha1/20 sha256/32"}, "appended twice"},

		{"sm3_is_carried", concat(header("\x00", sha256Bank, sm3Bank), agileEvent(0, eventlog.EVSeparator, zeros, sha256Bank, sm3Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_SEPARATOR sha256/32 sm3_256/32"}, ""},
		{"algorithm_without_a_name_has_the_header's_size", concat(header("\x00", sha256Bank, namelessly), agileEvent(0, eventlog.EVSeparator, zeros, sha256Bank, namelessly)), eventlog.TCG2,
			[]string{"pcr0 EV_SEPARATOR sha256/32 alg_0x0040/24"}, ""},
		{"digests_in_another_order_than_the_header", concat(tpm, agileEvent(0, eventlog.EVSeparator, zeros, sha256Bank, sha1Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_SEPARATOR sha256/32 sha1/20"}, ""},
		{"fewer_banks_than_the_header", concat(tpm, agileEvent(0, eventlog.EVSeparator, zeros, sha256Bank), version), eventlog.TCG2,
			[]string{"pcr0 EV_SEPARATOR sha256/32", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, "1 events have fewer digests than the 2 banks"},

		{"vendor_info_of_td_shim", concat(header("\x07td-shim", sha384Bank), cc), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"vendor_info_longer_than_its_size", concat(header("\x02td-shim", sha1Bank, sha256Bank), version), eventlog.TCG2, []string{"pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"vendor_info_without_its_size", concat(header("", sha1Bank, sha256Bank), version), eventlog.TCG2, []string{"pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"headerless", concat(version, agileEvent(0, eventlog.EVSeparator, zeros, sha1Bank, sha256Bank)), eventlog.TCG2,
			[]string{"pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32", "pcr0 EV_SEPARATOR sha1/20 sha256/32"}, "headerless"},

		{"ccel_padded_with_ff", concat(td, cc, bytes.Repeat([]byte{0xFF}, 100)), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_padded_with_00_as_td_shim", concat(header("\x07td-shim", sha384Bank), cc, make([]byte, 100)), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_ends_at_8_bytes_of_ff_as_the_agent's", concat(td, cc, bytes.Repeat([]byte{0xFF}, 8)), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_data_behind_the_padding", concat(td, cc, bytes.Repeat([]byte{0xFF}, 100), cc), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, "behind the end"},
		{"ccel_behind_its_acpi_table", concat(ccelTable(2), td, cc), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_of_arm_cca_by_its_acpi_table", concat(ccelTable(4), td, cc), eventlog.CCEL, []string{"rem0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_of_ap_tee_is_not_arm's", concat(ccelTable(3), td, cc), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sha384/48"}, ""},
		{"ccel_in_sha256_is_a_realm's", concat(header("\x00", sha256Bank), agileEvent(1, eventlog.EVSeparator, zeros, sha256Bank)), eventlog.CCEL, []string{"rem0 EV_SEPARATOR sha256/32"}, ""},
		{"ccel_in_sm3_is_not_a_realm's", concat(header("\x00", sm3Bank), agileEvent(1, eventlog.EVSeparator, zeros, sm3Bank)), eventlog.CCEL, []string{"rtmr0 EV_SEPARATOR sm3_256/32"}, ""},

		{"cc_index_is_1_based", concat(td, cc, agileEvent(2, eventlog.EVIPL, zeros, sha384Bank), agileEvent(3, eventlog.EVIPL, zeros, sha384Bank), agileEvent(4, eventlog.EVIPL, zeros, sha384Bank)), eventlog.CCEL,
			[]string{"rtmr0 EV_SEPARATOR sha384/48", "rtmr1 EV_IPL sha384/48", "rtmr2 EV_IPL sha384/48", "rtmr3 EV_IPL sha384/48"}, ""},
		{"tpm_log_of_one_bank_is_not_cc", concat(td, agileEvent(0, eventlog.EVSCRTMVersion, zeros, sha384Bank), cc), eventlog.TCG2,
			[]string{"pcr0 EV_S_CRTM_VERSION sha384/48", "pcr1 EV_SEPARATOR sha384/48"}, ""},

		{"record_longer_than_the_prefix", concat(tpm, agileEvent(0, eventlog.EVPostCode, make([]byte, 3*eventlog.DetectSize), sha1Bank, sha256Bank), version), eventlog.TCG2,
			[]string{"pcr0 EV_POST_CODE sha1/20 sha256/32", "pcr0 EV_S_CRTM_VERSION sha1/20 sha256/32"}, ""},
		{"cc_record_longer_than_the_prefix", concat(td, agileEvent(1, eventlog.EVPlatformConfigFlags, make([]byte, 3*eventlog.DetectSize), sha384Bank), cc), eventlog.CCEL,
			[]string{"rtmr0 EV_PLATFORM_CONFIG_FLAGS sha384/48", "rtmr0 EV_SEPARATOR sha384/48"}, ""},
	} {
		t.Run(c.trap, func(t *testing.T) {
			got, r, err := readLines(c.log)
			if err != nil {
				t.Fatal(err)
			}
			if r.Format() != c.format {
				t.Errorf("read as %s, want %s", r.Format(), c.format)
			}
			if len(r.SpecID().Banks) > 0 {
				got = got[1:]
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			switch w := r.Warnings(); {
			case c.warns == "" && len(w) > 0, c.warns != "" && (len(w) != 1 || !strings.Contains(w[0], c.warns)):
				t.Errorf("warnings %q, want one with %q", w, c.warns)
			}
		})
	}
}

// TestReaderUndeclaredBank: digests in algorithms that the header does not
// declare are read, and told of once an algorithm.
func TestReaderUndeclaredBank(t *testing.T) {
	declared := agileEvent(0, eventlog.EVSeparator, make([]byte, 4), sha256Bank)
	one := agileEvent(0, eventlog.EVSeparator, make([]byte, 4), sha256Bank, sha384Bank)
	two := agileEvent(1, eventlog.EVNoAction, nil, sm3Bank, sha384Bank)
	got, r, err := readLines(concat(header("\x00", sha256Bank), declared, one, two, one))
	if want := []string{
		"pcr0 EV_NO_ACTION sha1/20 no-action", "pcr0 EV_SEPARATOR sha256/32", "pcr0 EV_SEPARATOR sha256/32 sha384/48",
		"pcr1 EV_NO_ACTION sm3_256/32 sha384/48 no-action", "pcr0 EV_SEPARATOR sha256/32 sha384/48",
	}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v; want %q", got, err, want)
	}
	const undeclared = "which the Spec ID event does not declare: read by that algorithm's size"
	for _, want := range []string{
		"3 events, the first of them entry 2, have a digest in sha384, " + undeclared,
		"1 events, the first of them entry 3, have a digest in sm3_256, " + undeclared,
	} {
		if !slices.Contains(r.Warnings(), want) {
			t.Errorf("warnings %q, want %q among them", r.Warnings(), want)
		}
	}
}

// TestReaderMalformed: what is wrong is told with the entry, the offset and
// the field, and what came before is delivered.
func TestReaderMalformed(t *testing.T) {
	zeros := make([]byte, 4)
	tpm := header("\x00", sha1Bank, sha256Bank)
	good := agileEvent(0, eventlog.EVSeparator, zeros, sha1Bank, sha256Bank)
	for _, c := range []struct {
		trap   string
		log    []byte
		events int
		field  string
		offset int
		text   string
	}{
		{"header_with_another_size_for_sha256", concat(header("\x00", bank{rtmr.SHA256, 20}), good), 0, "Spec ID event", 32, "digest size of sha256 is 20, expected 32"},
		{"header_with_no_size", concat(header("\x00", bank{0x40, 0}), good), 0, "Spec ID event", 32, "digest size of alg_0x0040 is 0"},
		{"header_with_2_to_the_32_banks", bytes.Replace(concat(tpm, good), []byte("\x02\x00\x00\x00\x04\x00\x14\x00"), []byte("\xff\xff\xff\xff\x04\x00\x14\x00"), 1), 0, "Spec ID event", 32, "4294967295 algorithms"},
		{"bank_twice_in_an_event", concat(tpm, good, agileEvent(0, eventlog.EVSeparator, zeros, sha256Bank, sha256Bank)), 2, "digests", len(tpm) + len(good) + 8, "sha256 twice"},
		{"algorithm_of_no_known_size", concat(tpm, good, agileEvent(0, eventlog.EVSeparator, zeros, namelessly)), 2, "digest algorithm", len(tpm) + len(good) + 12, "alg_0x0040"},
		{"no_digests", concat(tpm, good, agileEvent(0, eventlog.EVSeparator, zeros)), 2, "digest count", len(tpm) + len(good) + 8, "0, expected 1 to 16"},
		{"2_to_the_32_digests", concat(tpm, good, []byte("\x00\x00\x00\x00\x04\x00\x00\x00\xff\xff\xff\xff")), 2, "digest count", len(tpm) + len(good) + 8, "4294967295"},
		{"pcr_24", concat(tpm, good, agileEvent(24, eventlog.EVSeparator, zeros, sha1Bank, sha256Bank)), 2, "register index", len(tpm) + len(good), "24, expected 0 to 23"},
		{"index_ffffffff_extends_nothing", concat(tpm, good, agileEvent(0xFFFFFFFF, eventlog.EVSeparator, zeros, sha1Bank, sha256Bank)), 2, "register index", len(tpm) + len(good), "4294967295"},
		{"cc_mr_5", concat(ccelTable(2), header("\x00", sha384Bank), agileEvent(5, eventlog.EVSeparator, zeros, sha384Bank)), 1, "register index", 56 + 65, "5, expected 0 to 4"},
		{"acpi_table_alone", ccelTable(2), 0, "CC event log", 56, "data/CCEL"},
		{"acpi_table_of_another_length", concat([]byte("CCEL\x39\x00\x00\x00"), make([]byte, 100)), 0, "ACPI table length", 4, "57, expected 56"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			got, _, err := readLines(c.log)
			var syntax *eventlog.SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("got %v, want a SyntaxError", err)
			}
			if len(got) != c.events || syntax.Entry != c.events {
				t.Errorf("%d events, then entry %d; want %d", len(got), syntax.Entry, c.events)
			}
			if syntax.Field != c.field || syntax.Offset != int64(c.offset) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %q, want field %q, offset %d, %q", err, c.field, c.offset, c.text)
			}
		})
	}
}

// TestReaderRealTraps: genuine logs in which the traps were found.
func TestReaderRealTraps(t *testing.T) {
	for _, c := range []struct{ trap, file, warns string }{
		{"separator_of_rtmr1_under_rtmr0", "testdata/eventlogs/ccel/cos-113-intel-tdx-dupe-separator.bin", "none of RTMR1"},
		{"exit_boot_services_missing", "testdata/legacydata/ebs_event_missing_eventlog", "final events table"},
	} {
		t.Run(c.trap, func(t *testing.T) {
			path := filepath.Join(testlogs.ModuleDir(t, testlogs.GoEventlog), filepath.FromSlash(c.file))
			_, r, err := readLines(testlogs.Read(t, path))
			if err != nil {
				t.Fatal(err)
			}
			if w := r.Warnings(); len(w) != 1 || !strings.Contains(w[0], c.warns) {
				t.Errorf("warnings %q, want one with %q", w, c.warns)
			}
		})
	}
}

// TestCCMRIndex: the CC-MR index is one more than an RTMR's, and 0 is MRTD
// (UEFI 2.10 §38.4.1; EDK2's Protocol/CcMeasurement.h for 4).
func TestCCMRIndex(t *testing.T) {
	for i, want := range []string{"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"} {
		reg, ok := eventlog.CCMRIndex(i).Register()
		if !ok || reg.String() != want {
			t.Errorf("%d: %s, want %s", i, reg, want)
		}
		if back, ok := eventlog.CCMR(reg); !ok || int(back) != i {
			t.Errorf("%s: %d, want %d", reg, back, i)
		}
	}
	if reg, ok := eventlog.CCMRIndex(5).Register(); ok {
		t.Errorf("5 is %s", reg)
	}
	for name, want := range map[string]eventlog.CCMRIndex{"rim": 0, "rem0": 1, "rem3": 4} {
		if got, ok := eventlog.CCMR(rtmr.MustParse(name)); !ok || got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	if _, ok := eventlog.CCMR(rtmr.MustParse("pcr0")); ok {
		t.Error("a PCR has a CC-MR index")
	}
}
