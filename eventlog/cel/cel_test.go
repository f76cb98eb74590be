package cel_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/rtmr"
)

// record is what a Measurement says, kept beyond the iteration's step.
type record struct {
	Register string
	NoAction bool
	Locality uint8
	Digests  string
	Index    string
	Type     string
	Detail   string
	Data     string
}

func snapshot(m rtmr.Measurement) record {
	var digests []string
	for _, d := range m.Digests {
		digests = append(digests, d.String())
	}
	return record{
		Register: m.Register.String(),
		NoAction: m.NoAction,
		Locality: m.Locality,
		Digests:  strings.Join(digests, " "),
		Index:    m.Entry.(*cel.Entry).Index.String(),
		Type:     m.Entry.Type(),
		Detail:   m.Entry.Detail(),
		Data:     hex.EncodeToString(m.Entry.Data()),
	}
}

// readAll reads a log and returns what came before an error.
func readAll(log []byte, f cel.Format) (records []record, warnings []string, err error) {
	r := cel.NewReader(bytes.NewReader(log), f)
	for m, err := range r.Measurements() {
		if err != nil {
			return records, r.Warnings(), err
		}
		records = append(records, snapshot(m))
	}
	return records, r.Warnings(), nil
}

func mustRead(t *testing.T, log []byte, f cel.Format) []record {
	t.Helper()
	records, _, err := readAll(log, f)
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	return records
}

// first calls f with the log's first measurement, within its step.
func first(t *testing.T, log []byte, format cel.Format, f func(rtmr.Measurement)) {
	t.Helper()
	for m, err := range cel.NewReader(bytes.NewReader(log), format).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		f(m)
		return
	}
	t.Fatal("the log is empty")
}

// bin joins hexadecimal pieces; what follows a "#" is a comment.
func bin(pieces ...string) []byte {
	var b []byte
	for _, p := range pieces {
		p, _, _ = strings.Cut(p, "#")
		piece, err := hex.DecodeString(strings.ReplaceAll(p, " ", ""))
		if err != nil {
			panic(err)
		}
		b = append(b, piece...)
	}
	return b
}

// Digests of a separator's four zero bytes:
//
//	head -c4 /dev/zero | sha1sum; head -c4 /dev/zero | sha256sum
const (
	separatorSHA1   = "9069ca78e7450a285173431b3e52c5c25299e473"
	separatorSHA256 = "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119"
)

// separatorTLV is a whole record with its numbers as narrow as they can be,
// as libcel writes them.
func separatorTLV() []byte {
	return bin(
		"00 00000001 05 # recnum 5",
		"01 00000001 07 # PCR 7",
		"03 0000003e    # digests: (5 + 20) + (5 + 32) = 62 bytes",
		"04 00000014", separatorSHA1,
		"0b 00000020", separatorSHA256,
		"05 0000000f    # pcclient_std: (5 + 1) + (5 + 4) = 15 bytes",
		"00 00000001 04 # event_type EV_SEPARATOR",
		"01 00000004 00000000 # event_data",
	)
}

const separatorJSON = `{"recnum": 5, "pcr": 7, "digests": [
	{"hashAlg": "sha1", "digest": "` + separatorSHA1 + `"},
	{"hashAlg": "sha256", "digest": "` + separatorSHA256 + `"}],
	"content_type": "pcclient_std", "content": {"event_type": "EV_SEPARATOR", "event_data": "00000000"}}`

// separatorCBOR is the same as deterministic CBOR, without an array around it.
func separatorCBOR() []byte {
	return bin(
		"a5             # map of 5",
		"00 05          # recnum: 5",
		"01 07          # pcr: 7",
		"03 82          # digests: array of 2",
		"a2 00 04 01 54", separatorSHA1, "# {hashAlg: 4, digest: 20 bytes}",
		"a2 00 0b 01 5820", separatorSHA256, "# {hashAlg: 11, digest: 32 bytes}",
		"09 05          # content_type: 5",
		"0a a2 00 04 01 44 00000000 # content: {event_type: 4, event_data: 4 bytes}",
	)
}

var separatorRecord = record{
	Register: "pcr7",
	Digests:  "sha1:" + separatorSHA1 + " sha256:" + separatorSHA256,
	Index:    "pcr 7",
	Type:     "EV_SEPARATOR",
	Data:     "00000000",
}

func TestRead(t *testing.T) {
	numbers := strings.NewReplacer(`"sha1"`, `4`, `"sha256"`, `11`, `"pcclient_std"`, `5`, `"EV_SEPARATOR"`, `4`)
	lower := strings.NewReplacer("EV_SEPARATOR", "ev_separator")
	spelled := strings.NewReplacer(`"sha1"`, `"SHA1"`, `"sha256"`, `"TPM2_ALG_SHA256"`, "pcclient_std", "PCClient_Std")
	one := []byte(separatorJSON)
	tests := []struct {
		name   string
		format cel.Format
		log    []byte
		want   int
	}{
		{"tlv", cel.TLV, separatorTLV(), 1},
		{"tlv/empty", cel.TLV, nil, 0},
		{"tlv/two_records", cel.TLV, append(separatorTLV(), separatorTLV()...), 2},
		{"json/empty", cel.JSON, nil, 0},
		{"json/empty_array", cel.JSON, []byte(" [ ] \n"), 0},
		{"json/single_object", cel.JSON, one, 1},
		{"json/byte_order_mark", cel.JSON, append([]byte("\xef\xbb\xbf"), one...), 1},
		{"json/array", cel.JSON, fmt.Appendf(nil, "[%s,\n%s]\n", one, one), 2},
		{"json/lines", cel.JSON, fmt.Appendf(nil, "%s\n%s\n", one, one), 2},
		{"json/sequence", cel.JSON, fmt.Appendf(nil, "\x1e%s\n\x1e%s\n", one, one), 2},
		{"json/numbers_for_names", cel.JSON, []byte(numbers.Replace(separatorJSON)), 1},
		{"json/lower_case_event_type", cel.JSON, []byte(lower.Replace(separatorJSON)), 1},
		{"json/other_spellings_of_algorithms", cel.JSON, []byte(spelled.Replace(separatorJSON)), 1},
		{"json/upper_case_hex", cel.JSON, []byte(strings.ReplaceAll(separatorJSON, separatorSHA1, strings.ToUpper(separatorSHA1))), 1},
		{"json/unknown_members", cel.JSON, []byte(`{"vendor": [{}], "nv_index": null, ` + separatorJSON[1:]), 1},
		{"cbor/empty", cel.CBOR, nil, 0},
		{"cbor/empty_array", cel.CBOR, bin("80"), 0},
		{"cbor/sequence", cel.CBOR, append(separatorCBOR(), separatorCBOR()...), 2},
		{"cbor/array", cel.CBOR, append(bin("82"), append(separatorCBOR(), separatorCBOR()...)...), 2},
		{"cbor/indefinite_array", cel.CBOR, append(append(bin("9f"), separatorCBOR()...), 0xff), 1},
		{"cbor/event_type_by_name", cel.CBOR, bytes.Replace(separatorCBOR(), bin("0a a2 00 04"), append(bin("0a a2 00 6c"), "EV_SEPARATOR"...), 1), 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := mustRead(t, test.log, test.format)
			if len(got) != test.want {
				t.Fatalf("%d records, expected %d", len(got), test.want)
			}
			for _, r := range got {
				r.Detail = "" // the eventlog package's affair
				if r != separatorRecord {
					t.Errorf("got  %+v\nwant %+v", r, separatorRecord)
				}
			}
		})
	}
}

// TestNumberWidths: libcel writes the fewest bytes, Safford's tools 4 and
// go-eventlog 8 and 1.
func TestNumberWidths(t *testing.T) {
	for _, test := range []struct{ recnum, pcr string }{
		{"00 00000001 05", "01 00000001 07"},
		{"00 00000004 00000005", "01 00000004 00000007"},
		{"00 00000008 0000000000000005", "01 00000001 07"},
		{"00 00000008 0000000000000005", "01 00000008 0000000000000007"},
	} {
		log := append(bin(test.recnum, test.pcr), separatorTLV()[12:]...)
		first(t, log, cel.TLV, func(m rtmr.Measurement) {
			if e := m.Entry.(*cel.Entry); e.RecNum != 5 || m.Register.String() != "pcr7" {
				t.Errorf("recnum %s, PCR %s: read as %d, %s", test.recnum, test.pcr, e.RecNum, m.Register)
			}
		})
	}
}

// head is recnum 0 and PCR 7 in TLV.
const head = "00 00000001 00  01 00000001 07"

func TestMalformed(t *testing.T) {
	member := func(old, new string) []byte { return []byte(strings.Replace(separatorJSON, old, new, 1)) }
	tests := []struct {
		name   string
		format cel.Format
		log    []byte
		field  string
		offset int64
		text   string
	}{
		{"tlv/not_a_recnum", cel.TLV, bin("05 00000001 00"), "recnum", 0, "type 5, expected 0"},
		{"tlv/recnum_of_9_bytes", cel.TLV, bin("00 00000009 000000000000000000 01 00000001 07 03 00000000 04 00000000"), "recnum", 0, "9 bytes, expected 1 to 8"},
		{"tlv/2_GiB_in_6_bytes", cel.TLV, bin("00 7fffffff 00"), "recnum", 1, "at most 16777216"},
		{"tlv/unknown_index_type", cel.TLV, bin("00 00000001 00  6b 00000001 00"), "index", 6, "type 107, expected 1 (PCR)"},
		{"tlv/index_beyond_32_bits", cel.TLV, bin("00 00000001 00  01 00000005 0100000000  03 00000000  09 00000000"), "index", 6, "at most 4294967295"},
		{"tlv/digests_missing", cel.TLV, bin(head, "05 00000000"), "digests", 12, "type 5, expected 3"},
		{"tlv/digest_cut_short", cel.TLV, bin(head, "03 00000006  04 00000014 00  09 00000000"), "digests", 17, "ends after 6 bytes"},
		{"tlv/digest_of_wrong_size", cel.TLV, bin(head, "03 00000006  04 00000001 00  09 00000000"), "digests", 17, "sha1 has 1 bytes, expected 20"},
		{"tlv/unknown_digest_of_no_bytes", cel.TLV, bin(head, "03 00000005  40 00000000  09 00000000"), "digests", 17, "alg_0x0040 has no bytes"},
		{"tlv/bank_twice", cel.TLV, bin(head, "03 0000000c  40 00000001 00  40 00000001 01  09 00000000"), "digests", 23, "twice"},
		{"tlv/content_of_a_field's_type", cel.TLV, bin(head, "03 00000000  01 00000000"), "content", 17, "type 1, expected that of a content"},
		{"tlv/event_type_missing", cel.TLV, bin(head, "03 00000000  05 00000005  01 00000000"), "event_type", 17, "missing"},
		{"tlv/event_type_twice", cel.TLV, bin(head, "03 00000000  05 0000000c  00 00000001 04 00 00000001 04"), "event_type", 28, "repeated"},
		{"tlv/pcr_24", cel.TLV, bin("00 00000001 00  01 00000001 18  03 00000000  09 00000000"), "index", 0, "pcr 24 names no register"},
		{"tlv/ccmr_5", cel.TLV, bin("00 00000001 00  6c 00000001 05  03 00000000  09 00000000"), "index", 0, "ccmr 5 names no register"},
		{"tlv/no_management_event", cel.TLV, bin(head, "03 00000000  04 00000000"), "content", 17, "no management event"},
		{"tlv/unknown_management_event", cel.TLV, bin(head, "03 00000000  04 00000005 09 00000000"), "type", 22, "unknown management type 9"},
		{"tlv/ends_in_the_content", cel.TLV, separatorTLV()[:90], "content", 0, "ends 90 bytes"},

		{"json/not_json", cel.JSON, []byte("  hello"), "log", 2, "'h', expected a JSON array"},
		{"json/two_indices", cel.JSON, member(`"pcr": 7`, `"pcr": 7, "ccmr": 1`), "ccmr", 32, "a second index"},
		{"json/no_index", cel.JSON, member(`"pcr": 7, `, ``), "index", 0, "missing"},
		{"json/member_twice", cel.JSON, member(`"pcr": 7`, `"pcr": 7, "pcr": 8`), "pcr", 31, "repeated"},
		{"json/negative_pcr", cel.JSON, member(`"pcr": 7`, `"pcr": -7`), "index", 21, "-7, expected a number"},
		{"json/fractional_recnum", cel.JSON, member(`"recnum": 5`, `"recnum": 5.5`), "recnum", 11, "5.5, expected a number"},
		{"json/base64_digest", cel.JSON, member(separatorSHA1, `kGnKeOdFCihRc0MbPlLFwlKZ5HM=`), "digest", 0, "expected hexadecimal digits"},
		{"json/unknown_algorithm", cel.JSON, member(`"sha1"`, `"md5"`), "hashAlg", 0, `unknown hash algorithm "md5"`},
		{"json/unknown_event_type", cel.JSON, member(`EV_SEPARATOR`, `EV_HELLO`), "event_type", 0, `unknown event type "EV_HELLO"`},
		{"json/no_content", cel.JSON, []byte(`{"pcr": 7, "digests": [], "content_type": 5}`), "content", 0, "missing"},
		{"json/content_type_of_a_field", cel.JSON, []byte(`{"pcr": 7, "content_type": 3, "content": ""}`), "content_type", 0, "3, expected 4 or more"},
		{"json/after_the_array", cel.JSON, []byte("[] []"), "log", 0, "after the array's end"},
		{"json/array_does_not_end", cel.JSON, []byte("[" + separatorJSON), "record", 0, "the log ends"},
		{"json/record_does_not_end", cel.JSON, []byte(separatorJSON[:60]), "record", 0, "the log ends"},
		{"json/not_utf8", cel.JSON, member("EV_SEPARATOR", "EV_\xff"), "record", 0, "not UTF-8"},
		{"json/string_for_a_record", cel.JSON, []byte(`["x"]`), "record", 1, "expected an object"},

		{"cbor/not_a_log", cel.CBOR, bin("01"), "log", 0, "byte 0x01, expected a CBOR array or map"},
		{"cbor/after_the_array", cel.CBOR, bin("80 00"), "log", 1, "byte 0x00 after the array's end"},
		{"cbor/array_does_not_end", cel.CBOR, append(bin("82"), separatorCBOR()...), "array", int64(1 + len(separatorCBOR())), "ends 0 bytes"},
		{"cbor/2_EiB_of_records", cel.CBOR, bin("9b 2000000000000000"), "array", 9, "ends 0 bytes"},
		{"cbor/2_EiB_in_a_string", cel.CBOR, bin("81 a1 00 5b 2000000000000000 00"), "record", 1, "ends 12 bytes"},
		{"cbor/text_keys", cel.CBOR, bin("81 a1 61 61 00"), "record", 1, "uint64"},
		{"cbor/member_twice", cel.CBOR, bin("81 a2 00 00 00 01"), "record", 1, "duplicate"},
		{"cbor/tag", cel.CBOR, bin("81 a1 00 c1 00"), "record", 1, "tag"},
		{"cbor/text_for_a_digest", cel.CBOR, bin("81 a3 00 00 01 00 03 81 a2 00 04 01 60"), "digest", 1, "major type 3, expected 2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := readAll(test.log, test.format)
			var syntax *rtmr.SyntaxError
			if !errors.As(err, &syntax) {
				t.Fatalf("got %v, expected a SyntaxError", err)
			}
			if syntax.Field != test.field || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %q, expected field %q and %q", err, test.field, test.text)
			}
			if test.offset != 0 && syntax.Offset != test.offset {
				t.Errorf("%q: offset %d, expected %d", err, syntax.Offset, test.offset)
			}
		})
	}
}

// TestMalformedAfterGood: what came before the fault is delivered, and the
// fault says which record it is in.
func TestMalformedAfterGood(t *testing.T) {
	tests := map[cel.Format][]byte{
		cel.TLV:     append(separatorTLV(), 0x55),
		cel.JSON:    []byte("[" + separatorJSON + ", 5]"),
		cel.CBOR:    append(append(bin("82"), separatorCBOR()...), 0x05),
		cel.Systemd: []byte("\x1e" + separatorJSON + "\n\x1e{\"pcr\": "),
	}
	for f, log := range tests {
		records, _, err := readAll(log, f)
		var syntax *rtmr.SyntaxError
		if !errors.As(err, &syntax) || syntax.Entry != 1 || len(records) != 1 {
			t.Errorf("%s: %d records, then %v; expected 1, then a SyntaxError of entry 1", f, len(records), err)
		}
	}
}

// TestRegister: the index spaces and what becomes of them.
func TestRegister(t *testing.T) {
	const sha256, sha384, sm3 = `"sha256"`, `"sha384"`, `"sm3_256"`
	sum := map[string]string{sha256: strings.Repeat("ab", 32), sha384: strings.Repeat("ab", 48), sm3: strings.Repeat("ab", 32)}
	tests := []struct {
		name, index, alg string
		realm            bool
		register, text   string
		noAction         bool
	}{
		{"pcr", `"pcr": 10`, sha256, false, "pcr10", "pcr 10", false},
		{"nv_index_is_no_register", `"nv_index": 30474752`, sha256, false, "-", "nv_index 0x01d10200", true},
		{"ccmr_is_1_based", `"ccmr": 3`, sha384, false, "rtmr2", "ccmr 3", false},
		{"ccmr_0_is_mrtd", `"ccmr": 0`, sha384, false, "mrtd", "ccmr 0", false},
		{"rtmr_is_0_based", `"rtmr": 3`, sha384, false, "rtmr3", "ccmr 4", false},
		{"ccmr_without_sha384_is_a_realm's", `"ccmr": 1`, sha256, false, "rem0", "ccmr 1", false},
		{"ccmr_in_sm3_is_not_a_realm's", `"ccmr": 1`, sm3, false, "rtmr0", "ccmr 1", false},
		{"ccmr_of_a_realm_by_option", `"ccmr": 4`, sha384, true, "rem3", "ccmr 4", false},
		{"ccmr_0_of_a_realm", `"ccmr": 0`, sha384, true, "rim", "ccmr 0", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := fmt.Sprintf(`{%s, "digests": [{"hashAlg": %s, "digest": "%s"}], "content_type": "systemd", "content": "61"}`,
				test.index, test.alg, sum[test.alg])
			r := cel.NewReader(strings.NewReader(log), cel.JSON)
			r.Realm = test.realm
			for m, err := range r.Measurements() {
				if err != nil {
					t.Fatal(err)
				}
				if m.Register.String() != test.register || m.NoAction != test.noAction || m.Entry.(*cel.Entry).Index.String() != test.text {
					t.Errorf("got %s, no-action %t, index %s", m.Register, m.NoAction, m.Entry.(*cel.Entry).Index)
				}
			}
		})
	}
}

// TestNoAction: which records extend nothing, whatever digests they carry.
func TestNoAction(t *testing.T) {
	const sum = separatorSHA256
	tests := []struct {
		name, contentType, content string
		noAction                   bool
		typ                        string
	}{
		{"cel_version", "cel", `{"type": "cel_version", "data": {"major": 1, "minor": 1}}`, true, "cel_version"},
		{"firmware_end", "cel", `{"type": "firmware_end"}`, true, "firmware_end"},
		{"cel_timestamp_extends", "cel", `{"type": "cel_timestamp", "data": 1234567890}`, false, "cel_timestamp"},
		{"state_trans_extends", "cel", `{"type": "state_trans", "data": "kexec"}`, false, "state_trans"},
		{"several_at_once", "cel", `[{"type": 2}, {"type": 81, "data": 2}]`, false, "firmware_end+state_trans"},
		{"ev_no_action", "pcclient_std", `{"event_type": 3, "event_data": "00"}`, true, "EV_NO_ACTION"},
		{"ev_separator", "pcclient_std", `{"event_type": 4, "event_data": "00000000"}`, false, "EV_SEPARATOR"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := fmt.Sprintf(`{"pcr": 0, "digests": [{"hashAlg": "sha256", "digest": "%s"}], "content_type": "%s", "content": %s}`,
				sum, test.contentType, test.content)
			got := mustRead(t, []byte(log), cel.JSON)[0]
			if got.NoAction != test.noAction || got.Type != test.typ {
				t.Errorf("got %s, no-action %t", got.Type, got.NoAction)
			}
		})
	}
}

// TestLocality: PCR 0's start is told by the same events as in a TCG log.
func TestLocality(t *testing.T) {
	startup := hex.EncodeToString([]byte("StartupLocality\x00\x03"))
	tests := []struct {
		name, pcr, content string
		want               uint8
	}{
		{"startup_locality_3", "0", `{"event_type": "EV_NO_ACTION", "event_data": "` + startup + `"}`, 3},
		{"startup_locality_elsewhere", "1", `{"event_type": "EV_NO_ACTION", "event_data": "` + startup + `"}`, 0},
		{"hcrtm", "0", `{"event_type": "EV_EFI_HCRTM_EVENT", "event_data": "484352544d"}`, 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			log := `{"pcr": ` + test.pcr + `, "digests": [], "content_type": "pcclient_std", "content": ` + test.content + `}`
			if got := mustRead(t, []byte(log), cel.JSON)[0]; got.Locality != test.want {
				t.Errorf("locality %d, expected %d", got.Locality, test.want)
			}
		})
	}
}

// TestSP800155: an unmeasured event's index names no PCR and need not.
func TestSP800155(t *testing.T) {
	log := bin("00 00000001 00  01 00000004 ffffffff  03 00000000  05 0000000b  00 00000001 03  01 00000000")
	if got := mustRead(t, log, cel.TLV)[0]; got.Register != "-" || !got.NoAction {
		t.Errorf("got %+v", got)
	}
}

func TestRecNumWarnings(t *testing.T) {
	tests := []struct {
		name string
		recs string // pcr:recnum
		want int
	}{
		{"per_index_as_the_specification", "0:0 7:0 0:1 7:1 7:2 0:2", 0},
		{"through_the_log_as_go-eventlog", "0:0 7:1 0:2 7:3", 0},
		{"absent_as_systemd", "0: 7: 0:", 0},
		{"gap", "0:0 0:1 0:3 0:4", 1},
		{"repeat", "0:0 0:1 0:1 0:2", 1},
		{"descends", "0:0 0:1 0:2 0:1", 1},
		{"does_not_begin_at_0", "0:5 0:6", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log strings.Builder
			for _, rec := range strings.Fields(test.recs) {
				pcr, recnum, _ := strings.Cut(rec, ":")
				if recnum == "" {
					recnum = "null"
				}
				fmt.Fprintf(&log, `{"recnum": %s, "pcr": %s, "digests": [{"hashAlg": 11, "digest": "%s"}], "content_type": 9, "content": ""}`, recnum, pcr, separatorSHA256)
			}
			_, warnings, err := readAll([]byte(log.String()), cel.JSON)
			if err != nil || len(warnings) != test.want {
				t.Errorf("warnings %q, error %v; expected %d warnings", warnings, err, test.want)
			}
		})
	}
}

// TestWarningsAreBounded: a hostile log cannot make the list grow.
func TestWarningsAreBounded(t *testing.T) {
	log := bytes.Repeat(separatorTLV(), 1000) // recnum 5 over and over
	_, warnings, err := readAll(log, cel.TLV)
	if err != nil || len(warnings) != 17 || warnings[16] != "and 984 more" {
		t.Errorf("%d warnings, the last %q; error %v", len(warnings), warnings[len(warnings)-1], err)
	}
}

func TestDetect(t *testing.T) {
	tcg2 := append(bin("00000000 03000000", strings.Repeat("00", 20), "1d000000"), "Spec ID Event03\x00"...)
	tests := []struct {
		name   string
		prefix []byte
		want   cel.Format
	}{
		{"tlv", separatorTLV(), cel.TLV},
		{"tlv_cut_in_the_digests", separatorTLV()[:30], cel.TLV},
		{"tlv_cc_index", bin("00 00000008 0000000000000000 6c 00000001 04 03 00000035 0c 00000030"), cel.TLV},
		{"json", []byte(separatorJSON), cel.JSON},
		{"json_array", []byte("\n[ " + separatorJSON + "]"), cel.JSON},
		{"json_cut_in_the_digests", []byte(separatorJSON[:60]), cel.JSON},
		{"systemd", []byte("\x1e" + `{"pcr":11,"digests":[]}`), cel.Systemd},
		{"systemd_for_a_td", []byte("\x1e" + `{"rtmr":2,"mapped_pcr":11,"digests":[]}`), cel.Systemd},
		{"cbor", append(bin("81"), separatorCBOR()...), cel.CBOR},
		{"cbor_indefinite", append(bin("9f"), separatorCBOR()...), cel.CBOR},
		{"cbor_sequence", separatorCBOR(), cel.CBOR},
		{"cbor_cc_index", bin("81 a5 00 00 03 80 09 05"), cel.CBOR},

		{"not/empty", nil, 0},
		{"not/tcg2", tcg2, 0},
		{"not/tcg12_pcr0_s_crtm_version", bin("00000000 08000000", strings.Repeat("01", 20), "10000000", strings.Repeat("00", 16)), 0},
		{"not/tcg12_pcr0_digest_of_a_tlv's_looks", bin("00000000 08000000 0000000000 01 00000001 00 04 00000000 0000000000"), 0},
		{"not/ccel_table", []byte("CCEL\x38\x00\x00\x00"), 0},
		{"not/ima", append(bin("0a000000", strings.Repeat("11", 20), "06000000"), "ima-ng"...), 0},
		{"not/ima_ascii", []byte("10 1d8d532d463c9f8c205d0df7787669a85f93e260 ima-ng sha1:00"), 0},
		{"not/dstack", []byte(`[{"imr":0,"event_type":2147483659,"digest":"8ae1","event":"","event_payload":"095464785461626c"}]`), 0},
		{"not/values", []byte(`{"sha256":{"pcr0":"00"}}`), 0},
		{"not/empty_array", []byte(`[]`), 0},
		{"not/cbor_map", bin("a2 01 02 03 04"), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := cel.Detect(test.prefix)
			if got != test.want || ok != (test.want != 0) {
				t.Errorf("got %s, %t; expected %s", got, ok, test.want)
			}
		})
	}
}

func TestFormatString(t *testing.T) {
	for f, want := range map[cel.Format]string{
		cel.TLV: "cel-tlv", cel.JSON: "cel-json", cel.CBOR: "cel-cbor", cel.Systemd: "systemd", cel.JSONLines: "jsonl", 0: "unknown",
	} {
		if got := f.String(); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
}
