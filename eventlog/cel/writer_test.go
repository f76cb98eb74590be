package cel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand"
	"strings"
	"testing"
	"testing/quick"

	"github.com/fxamacker/cbor/v2"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/rtmr"
)

func write(t *testing.T, f cel.Format, ms ...rtmr.Measurement) []byte {
	t.Helper()
	var log bytes.Buffer
	w := cel.NewWriter(&log, f)
	for _, m := range ms {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return log.Bytes()
}

// convert writes a log in another format.
func convert(t *testing.T, log []byte, from, to cel.Format) []byte {
	t.Helper()
	var out bytes.Buffer
	w := cel.NewWriter(&out, to)
	for m, err := range cel.NewReader(bytes.NewReader(log), from).Measurements() {
		if err == nil {
			err = w.Write(m)
		}
		if err != nil {
			t.Fatalf("%s to %s: %v", from, to, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestWriteBytes: the exact bytes, so that other tools can be told what to expect.
func TestWriteBytes(t *testing.T) {
	zero := strings.NewReplacer(`"recnum": 5`, `"recnum": 0`)
	one := convert(t, []byte(separatorJSON), cel.JSON, cel.TLV)
	want := bin(
		"00 00000008 0000000000000000 # recnum, 8 bytes as go-eventlog wants it",
		"01 00000001 07",
		"03 0000003e 04 00000014", separatorSHA1, "0b 00000020", separatorSHA256,
		"05 00000012 00 00000004 00000004 01 00000004 00000000 # event_type, 4 bytes",
	)
	if !bytes.Equal(one, want) {
		t.Errorf("TLV\ngot  %x\nwant %x", one, want)
	}

	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(zero.Replace(separatorJSON))); err != nil {
		t.Fatal(err)
	}
	if got, want := string(convert(t, separatorTLV(), cel.TLV, cel.JSON)), "[\n"+compact.String()+"\n]\n"; got != want {
		t.Errorf("JSON\ngot  %s\nwant %s", got, want)
	}
	if got, want := string(convert(t, separatorTLV(), cel.TLV, cel.JSONLines)), compact.String()+"\n"; got != want {
		t.Errorf("JSON Lines\ngot  %s\nwant %s", got, want)
	}

	record := separatorCBOR()
	record[2] = 0 // recnum
	if got, want := convert(t, separatorTLV(), cel.TLV, cel.CBOR), append(bin("81"), record...); !bytes.Equal(got, want) {
		t.Errorf("CBOR\ngot  %x\nwant %x", got, want)
	}
	for f, want := range map[cel.Format]string{cel.TLV: "", cel.JSON: "[]\n", cel.JSONLines: "", cel.CBOR: "\x80"} {
		if got := write(t, f); string(got) != want {
			t.Errorf("empty %s: %q, expected %q", f, got, want)
		}
	}
}

// foreignEntry is another log's entry that CEL has no content for.
type foreignEntry struct {
	name string
	data []byte
}

func (e foreignEntry) Type() string                                { return e.name }
func (e foreignEntry) Detail() string                              { return "" }
func (e foreignEntry) Data() []byte                                { return e.data }
func (e foreignEntry) Verify(rtmr.Digest) (c rtmr.Check, _ []byte) { return c, nil }

// randomMeasurement makes one that a log of this project's could hold.
func randomMeasurement(r *rand.Rand) rtmr.Measurement {
	blob := make([]byte, r.Intn(300))
	r.Read(blob)
	m := rtmr.Measurement{}
	registers := []string{"pcr0", "pcr7", "pcr10", "pcr23", "rtmr0", "rtmr3", "mrtd", "rem1"}
	m.Register = rtmr.MustParse(registers[r.Intn(len(registers))])
	algs := []rtmr.Alg{rtmr.SHA256, rtmr.SHA1, rtmr.SHA512, rtmr.SM3, 0x77}
	if m.Register.Kind() != rtmr.KindREM {
		algs = append(algs[:0:0], rtmr.SHA384, rtmr.SHA1, rtmr.SHA3384)
	}
	for _, alg := range algs[:1+r.Intn(len(algs))] {
		sum := make([]byte, max(alg.Size(), 1))
		r.Read(sum)
		m.Digests = append(m.Digests, rtmr.Digest{Alg: alg, Sum: sum})
	}
	switch r.Intn(5) {
	case 0:
		types := []eventlog.EventType{eventlog.EVSeparator, eventlog.EVIPL, eventlog.EVDstack, eventlog.EVNoAction, 0xABCDEF01, eventlog.EVEFIHCRTMEvent}
		index, ok := eventlog.CCMR(m.Register)
		if !ok {
			index = eventlog.CCMRIndex(m.Register.Index())
		}
		ev := &eventlog.Event{MRIndex: uint32(index), EventType: types[r.Intn(len(types))], Digests: m.Digests, EventData: blob}
		return ev.Measurement(m.Register)
	case 1:
		m.Entry = ima.NewEntry("ima-ng", binary.LittleEndian.AppendUint32(nil, 0), binary.LittleEndian)
	case 2:
		m.Entry = foreignEntry{"JOURNAL <x>", blob}
	case 3:
		m.NoAction = true
		if m.Register.String() == "pcr0" {
			m.Locality = 3
		}
	}
	return m
}

// TestRoundTrip: whatever is written is read back with its register, digests,
// no-action, locality, type and data, through every format in turn.
func TestRoundTrip(t *testing.T) {
	formats := []cel.Format{cel.TLV, cel.JSON, cel.CBOR, cel.JSONLines}
	check := func(seed int64) bool {
		r := rand.New(rand.NewSource(seed))
		m := randomMeasurement(r)
		log := write(t, cel.TLV, m)
		want := mustRead(t, log, cel.TLV)[0]
		if want.Register != m.Register.String() || want.NoAction != m.NoAction || want.Locality != m.Locality {
			t.Logf("wrote %+v\nread  %+v", m, want)
			return false
		}
		for i, d := range m.Digests {
			if strings.Fields(want.Digests)[i] != d.String() {
				t.Logf("wrote %s, read %s", d, want.Digests)
				return false
			}
		}
		from := cel.TLV
		for _, i := range r.Perm(len(formats)) {
			log = convert(t, log, from, formats[i])
			from = formats[i]
			got := mustRead(t, log, from)
			if len(got) != 1 || got[0] != want {
				t.Logf("%s\ngot  %+v\nwant %+v", from, got, want)
				return false
			}
		}
		return true
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
}

// TestWriteViolation: what extended is written, not what the entry's data give.
func TestWriteViolation(t *testing.T) {
	ff := bytes.Repeat([]byte{0xFF}, 32)
	m := rtmr.Measurement{
		Register: rtmr.MustParse("pcr10"),
		Digests:  []rtmr.Digest{{Alg: rtmr.SHA256, Sum: ff}},
		Entry:    ima.NewEntry("ima-ng", nil, binary.LittleEndian),
	}
	if got := mustRead(t, write(t, cel.CBOR, m), cel.CBOR)[0]; got.Digests != "sha256:"+strings.Repeat("ff", 32) {
		t.Errorf("got %s", got.Digests)
	}
}

// TestReadViolation: a record of a violation says so, and another bank that is
// asked for gets what the violation extended, not the hash of its data.
func TestReadViolation(t *testing.T) {
	for _, fill := range []byte{0xFF, 0} { // 0: a kernel patched for RTMRs
		log := write(t, cel.TLV, rtmr.Measurement{
			Register: rtmr.MustParse("pcr10"),
			Digests:  []rtmr.Digest{{Alg: rtmr.SHA256, Sum: bytes.Repeat([]byte{fill}, 32)}},
			Entry:    ima.NewEntry("ima-ng", nil, binary.LittleEndian),
		})
		r := cel.NewReader(bytes.NewReader(log), cel.TLV)
		r.Banks = []rtmr.Alg{rtmr.SHA384}
		for m, err := range r.Measurements() {
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Digests) != 2 || !bytes.Equal(m.Digests[1].Sum, bytes.Repeat([]byte{fill}, 48)) || !strings.Contains(m.Entry.Detail(), "(violation)") {
				t.Errorf("%x: %s, %s", fill, m.Digests, m.Entry.Detail())
			}
		}
	}
}

// TestRecNumPerIndex: CEL counts from 0 for each index.
func TestRecNumPerIndex(t *testing.T) {
	var ms []rtmr.Measurement
	for _, reg := range []string{"pcr0", "pcr7", "pcr0", "rtmr0", "pcr7", "pcr0"} {
		ms = append(ms, rtmr.Measurement{Register: rtmr.MustParse(reg), Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: make([]byte, 48)}}})
	}
	var got []uint64
	r := cel.NewReader(bytes.NewReader(write(t, cel.TLV, ms...)), cel.TLV)
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Entry.(*cel.Entry).RecNum)
	}
	want := []uint64{0, 0, 1, 0, 1, 2}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %d, expected %d", got, want)
		}
	}
	if len(r.Warnings()) != 0 {
		t.Errorf("warnings %q", r.Warnings())
	}
}

// TestContinue: a log that is appended to goes on counting.
func TestContinue(t *testing.T) {
	m := rtmr.Measurement{Register: rtmr.MustParse("rtmr2"), Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: make([]byte, 48)}}}
	log := write(t, cel.TLV, m, m)
	var more bytes.Buffer
	w := cel.NewWriter(&more, cel.TLV)
	for m, err := range cel.NewReader(bytes.NewReader(log), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		w.Continue(m.Entry.(*cel.Entry))
	}
	if err := w.Write(m); err != nil {
		t.Fatal(err)
	}
	if whole := write(t, cel.TLV, m, m, m); !bytes.Equal(append(log, more.Bytes()...), whole) {
		t.Errorf("appended\n%x, expected\n%x", more.Bytes(), whole[len(log):])
	}
}

func TestWriteSystemd(t *testing.T) {
	log := "\x1e" + `{"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": "` + enterInitrdSHA256 + `"}], "content_type": "systemd",` +
		`"content": {"string": "enter-initrd", "bootId": "fa1afe1fa1afe1fa1afe1fa1afe1ffff", "timestamp": 14, "eventType": "phase"}}` + "\n"
	want := mustRead(t, []byte(log), cel.Systemd)[0]
	if got := mustRead(t, convert(t, []byte(log), cel.Systemd, cel.JSON), cel.JSON)[0]; got != want {
		t.Errorf("JSON keeps the annotations:\ngot  %+v\nwant %+v", got, want)
	}
	want.Type = "systemd" // the standard content is the string alone
	for _, f := range []cel.Format{cel.TLV, cel.CBOR} {
		converted := convert(t, []byte(log), cel.Systemd, f)
		if got := mustRead(t, converted, f)[0]; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", f, got, want)
		}
		first(t, converted, f, func(m rtmr.Measurement) {
			if c, _ := m.Entry.Verify(m.Digests[0]); c != rtmr.Verified {
				t.Errorf("%s: the string %s", f, c)
			}
		})
	}
}

// TestLibcelSystemd: libcel's own content type keeps its annotations in TLV.
func TestLibcelSystemd(t *testing.T) {
	log := append(bin("00 00000008 0000000000000000  01 00000001 0b  03 00000000",
		"0b 00000030           # systemd, by libcel: (5+1) + (5+8) + (5+16) + (5+3) = 48 bytes",
		"00 00000001 03        # machine-id",
		"01 00000008 0000000000000fa0 # timestamp",
		"02 00000010 fafafafafafafafafafafafafafafafa # bootId",
		"03 00000003           # string"), "abc"...)
	if got := mustRead(t, log, cel.TLV)[0]; got.Type != "systemd:machine-id" || got.Data != "616263" {
		t.Errorf("got %+v", got)
	}
	for _, f := range []cel.Format{cel.TLV, cel.CBOR, cel.JSON} {
		through := convert(t, convert(t, log, cel.TLV, f), f, cel.TLV)
		if f != cel.JSON && !bytes.Equal(through, log) {
			t.Errorf("through %s:\ngot  %x\nwant %x", f, through, log)
		}
	}
}

func TestWriteErrors(t *testing.T) {
	pcr0 := rtmr.MustParse("pcr0")
	sha1 := rtmr.Digest{Alg: rtmr.SHA1, Sum: make([]byte, 20)}
	noAction := &eventlog.Event{EventType: eventlog.EVNoAction}
	tests := []struct {
		name   string
		format cel.Format
		m      rtmr.Measurement
		text   string
	}{
		{"no_register", cel.TLV, rtmr.Measurement{}, "without a register"},
		{"wrong_digest_size", cel.TLV, rtmr.Measurement{Register: pcr0, Digests: []rtmr.Digest{{Alg: rtmr.SHA1, Sum: []byte{1}}}}, "sha1 has 1 bytes, expected 20"},
		{"bank_twice", cel.JSON, rtmr.Measurement{Register: pcr0, Digests: []rtmr.Digest{sha1, sha1}}, "sha1 twice"},
		{"algorithm_beyond_a_byte", cel.TLV, rtmr.Measurement{Register: pcr0, Digests: []rtmr.Digest{{Alg: 0x1234, Sum: []byte{1}}}}, "alg_0x1234 does not fit a TLV"},
		{"no_action_that_extends", cel.TLV, rtmr.Measurement{Register: pcr0, Entry: noAction}, "no-action false"},
		{"rtmr_without_sha384", cel.TLV, rtmr.Measurement{Register: rtmr.MustParse("rtmr2"), Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: make([]byte, 32)}}}, "read as a realm's register"},
		{"locality_elsewhere", cel.TLV, rtmr.Measurement{Register: rtmr.MustParse("rtmr0"), Locality: 3, NoAction: true}, "locality 3"},
		{"name_that_is_not_text", cel.JSON, rtmr.Measurement{Register: pcr0, Entry: ima.NewEntry("\xff", nil, binary.LittleEndian)}, "template_name: \"\\xff\" is not UTF-8"},
		{"name_that_is_not_text", cel.CBOR, rtmr.Measurement{Register: pcr0, Entry: ima.NewEntry("\xff", nil, binary.LittleEndian)}, "not UTF-8"},
		{"too_large", cel.TLV, rtmr.Measurement{Register: pcr0, Entry: foreignEntry{"x", make([]byte, cel.MaxRecordSize)}}, "expected at most 16777216"},
		{"read_only_format", cel.Systemd, rtmr.Measurement{Register: pcr0}, "as systemd: this format can be read and not written"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			err := cel.NewWriter(&log, test.format).Write(test.m)
			if err == nil || !strings.Contains(err.Error(), test.text) || log.Len() != 0 {
				t.Errorf("%v, %d bytes written; expected an error with %q", err, log.Len(), test.text)
			}
		})
	}
}

// TestWriteAfterError: a refused measurement leaves the log whole; a failing
// writer ends it.
func TestWriteAfterError(t *testing.T) {
	good := rtmr.Measurement{Register: rtmr.MustParse("pcr0"), Digests: []rtmr.Digest{{Alg: rtmr.SHA1, Sum: make([]byte, 20)}}}
	var log bytes.Buffer
	w := cel.NewWriter(&log, cel.JSON)
	for _, m := range []rtmr.Measurement{good, {}, good} {
		w.Write(m)
	}
	w.Close()
	if records := mustRead(t, log.Bytes(), cel.JSON); len(records) != 2 {
		t.Errorf("%d records, expected 2", len(records))
	}
	if w.Write(good) == nil {
		t.Error("a write after Close was accepted")
	}

	full := &failingWriter{}
	w = cel.NewWriter(full, cel.TLV)
	if err := w.Write(good); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	if err := w.Write(good); !errors.Is(err, errFull) || full.writes != 1 {
		t.Errorf("got %v after %d writes, expected the first error again", err, full.writes)
	}
}

var errFull = errors.New("full")

type failingWriter struct{ writes int }

func (w *failingWriter) Write([]byte) (int, error) { w.writes++; return 0, errFull }

// TestCBORArray: short logs have a definite length, and long ones are not
// held back for it.
func TestCBORArray(t *testing.T) {
	m := rtmr.Measurement{Register: rtmr.MustParse("pcr0"), Entry: foreignEntry{"x", make([]byte, 1<<20)}}
	for _, test := range []struct {
		records int
		head    byte
	}{{3, 0x83}, {17, 0x9F}} {
		var ms []rtmr.Measurement
		for range test.records {
			ms = append(ms, m)
		}
		log := write(t, cel.CBOR, ms...)
		if log[0] != test.head {
			t.Errorf("%d records: first byte %#x, expected %#x", test.records, log[0], test.head)
		}
		var items []cbor.RawMessage
		if err := cbor.Unmarshal(log, &items); err != nil || len(items) != test.records {
			t.Errorf("%d items, %v; expected %d", len(items), err, test.records)
		}
		if got := mustRead(t, log, cel.CBOR); len(got) != test.records {
			t.Errorf("%d records, expected %d", len(got), test.records)
		}
	}
}
