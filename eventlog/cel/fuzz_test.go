package cel_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/internal/readertest"
	"tallystick/rtmr"
)

// checkLog holds the properties that any input must keep.
func checkLog(t *testing.T, log []byte, f cel.Format, cut int) {
	t.Helper()
	open := func(src io.Reader) (readertest.Log, error) { return cel.NewReader(src, f), nil }
	const managementTLV = 3 // times the size that a management event has in CBOR
	entries := readertest.Check(t, open, log, managementTLV)
	readertest.CheckPrefix(t, open, log, cut, entries)
	for _, to := range []cel.Format{cel.TLV, cel.JSON, cel.CBOR} {
		checkRewrite(t, log, f, to)
	}
}

// checkRewrite: what is read can be written in the same encoding, and is read
// back the same. In another encoding that goes for what extended and its data,
// up to a record that the encoding has no place for.
func checkRewrite(t *testing.T, log []byte, from, to cel.Format) {
	t.Helper()
	same := from == to || from == cel.Systemd && to == cel.JSON
	var out bytes.Buffer
	var want []record
	w := cel.NewWriter(&out, to)
	for m, err := range cel.NewReader(bytes.NewReader(log), from).Measurements() {
		if err != nil {
			break
		}
		if err := w.Write(m); err != nil {
			if same {
				t.Fatalf("read, and not written again: %v", err)
			}
			break
		}
		want = append(want, snapshot(m))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, warnings, err := readAll(out.Bytes(), to)
	if !same {
		for _, records := range [][]record{got, want} {
			for i := range records {
				records[i].Type, records[i].Detail = "", "" // annotations, which JSON alone has
			}
		}
	}
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("from %s to %s it reads\n%+v\n%v, expected\n%+v", from, to, got, err, want)
	}
	for _, warning := range warnings {
		if strings.Contains(warning, "recnum") {
			t.Errorf("written again it warns %q", warning)
		}
	}
}

// seedLog is the beginning of a machine's boot log and of its IMA list.
func seedLog(f *testing.F, to cel.Format) []byte {
	var out bytes.Buffer
	w := cel.NewWriter(&out, to)
	add := func(m rtmr.Measurement, err error) bool {
		if err == nil && len(m.Entry.Data()) < 200 {
			err = w.Write(m)
		}
		if err != nil {
			f.Fatal(err)
		}
		return out.Len() < 2<<10 && m.Index < 8
	}
	boot, err := os.Open("../../fixtures/sig-6.12/boot.bin")
	if err != nil {
		f.Fatal(err)
	}
	defer boot.Close()
	list, err := os.Open("../../fixtures/violations-7.3/ima_sha256.bin")
	if err != nil {
		f.Fatal(err)
	}
	defer list.Close()
	events, err := eventlog.NewReader(boot, eventlog.Options{})
	if err != nil {
		f.Fatal(err)
	}
	events.Measurements()(add)
	entries, err := ima.NewReader(list, ima.Options{})
	if err != nil {
		f.Fatal(err)
	}
	entries.Measurements()(add)
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return out.Bytes()
}

func FuzzTLV(f *testing.F) {
	f.Add(seedLog(f, cel.TLV), 1000)
	f.Add(separatorTLV(), 50)
	f.Add(append(cosTLV("hello"), cosTLV("hello")...), 120)
	f.Add(bin("00 7fffffff 00"), 3)
	f.Add(bin(head, "03 00000000  04 00000031",
		"01 0000000c 00 00000001 01 01 00000001 01", "02 00000000", "50 00000008 0000000000000001", "51 00000004 00000002", "02 00000000"), 30)
	f.Add(bin(head, "03 00000000  07 00000015 00 00000001 61 01 0000000a 00000002 aabb 00000000"), 30)
	f.Add(bin(head, "03 00000000  0b 0000002e 00 00000001 03 01 00000008 0000000000000fa0 02 00000010 fafafafafafafafafafafafafafafafa 03 00000001 61"), 30)
	f.Add(bin("00 00000001 00 6c 00000001 01 03 00000025 0b 00000020", separatorSHA256, "54 0000000c 00 00000001 61 01 00000001 62"), 30)
	f.Fuzz(func(t *testing.T, log []byte, cut int) { checkLog(t, log, cel.TLV, cut) })
}

var jsonSeeds = []string{
	separatorJSON,
	"[" + separatorJSON + "," + separatorJSON + "]",
	`{"nv_index": 30474752, "content_type": "cel", "content": [{"type": "firmware_end"}, {"type": 81, "data": "kexec"}, {"type": "cel_version", "data": {"major": 1, "minor": 1}}]}`,
	`{"ccmr": 3, "digests": [{"hashAlg": 12, "digest": "` + fmt.Sprintf("%096x", 1) + `"}], "content_type": 222, "content": "5001"}`,
	`{"pcr": 10, "content_type": "ima_template", "content": {"template_name": "ima-ng", "template_data": "0100000000"}}`,
	`{"pcr": 10, "content_type": "tss2", "content": {"a": [1, 2]}}`,
	`{"rtmr": 2, "mapped_pcr": 11, "digests": [], "content_type": "systemd", "content": {"string": "ready", "bootId": "fa", "timestamp": 1, "eventType": "phase", "nvIndexName": "login"}}`,
	`[{"imr":0,"event_type":4,"digest":"00","event":"","event_payload":""}]`,
}

func FuzzJSON(f *testing.F) {
	f.Add(seedLog(f, cel.JSON), 1000)
	for _, s := range jsonSeeds {
		f.Add([]byte(s), len(s)/2)
	}
	f.Fuzz(func(t *testing.T, log []byte, cut int) { checkLog(t, log, cel.JSON, cut) })
}

func FuzzSystemd(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte("\x1e"+s+"\n\x1e"+s), len(s)+3)
	}
	f.Fuzz(func(t *testing.T, log []byte, cut int) { checkLog(t, log, cel.Systemd, cut) })
}

func FuzzCBOR(f *testing.F) {
	f.Add(seedLog(f, cel.CBOR), 1000)
	f.Add(append(bin("81"), separatorCBOR()...), 40)
	f.Add(append(append(bin("9f"), separatorCBOR()...), 0xff), 40)
	f.Add(append(separatorCBOR(), separatorCBOR()...), 150)
	f.Add(bin("81 a5 00 00 03 80 09 04 0a 82 a1 00 02 a2 00 01 01 a2 00 01 01 01 186c 01"), 10)
	f.Add(bin("81 a5 00 00 01 0a 03 80 09 0b 0a a4 00 03 01 01 02 50 fafafafafafafafafafafafafafafafa 03 61 61"), 10)
	f.Add(bin("81 a5 00 00 01 0a 03 80 09 07 0a a2 00 61 61 01 41 00"), 10)
	f.Add(bin("81 a5 00 00 01 0a 03 80 09 18de 0a a1 00 80"), 10)
	f.Add(bin("9b 2000000000000000"), 10)
	f.Fuzz(func(t *testing.T, log []byte, cut int) { checkLog(t, log, cel.CBOR, cut) })
}

// FuzzDetect: what is recognised has an entry, or a fault.
func FuzzDetect(f *testing.F) {
	f.Add(separatorTLV())
	f.Add(separatorCBOR())
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, prefix []byte) {
		format, ok := cel.Detect(prefix)
		if ok != (format != 0) {
			t.Errorf("%s, %t", format, ok)
		}
		if records, _, err := readAll(prefix, format); ok && len(records) == 0 && err == nil {
			t.Errorf("recognised as %s, which is empty", format)
		}
	})
}

// TestHostileLengths: a length field costs no memory before its bytes come.
func TestHostileLengths(t *testing.T) {
	for name, test := range map[string]struct {
		log    []byte
		format cel.Format
	}{
		"tlv/recnum":  {bin("00 7fffffff 00"), cel.TLV},
		"tlv/content": {bin(head, "03 00000000 05 00ffff00 00"), cel.TLV},
		"cbor/bytes":  {bin("81 a1 00 5b 0000000000ffffff 00"), cel.CBOR},
		"cbor/array":  {bin("9b 0fffffffffffffff 00"), cel.CBOR},
		"cbor/map":    {bin("81 bb 0fffffffffffffff 00"), cel.CBOR},
	} {
		var err error
		used := readertest.Allocated(func() { _, _, err = readAll(test.log, test.format) })
		if err == nil || used > 256<<10 {
			t.Errorf("%s: %d bytes allocated for %d of input; error %v", name, used, len(test.log), err)
		}
	}
}

// endless is a log whose one record never ends.
type endless struct {
	head io.Reader
	fill byte
	read int
}

func (e *endless) Read(p []byte) (n int, err error) {
	if n, err = e.head.Read(p); err == io.EOF {
		for i := range p {
			p[i] = e.fill
		}
		n, err = len(p), nil
	}
	e.read += n
	return n, err
}

// TestEndlessRecord: a record has a limit, and the error names it.
func TestEndlessRecord(t *testing.T) {
	for name, test := range map[string]struct {
		head   []byte
		fill   byte
		format cel.Format
	}{
		"json string": {[]byte(`[{"pcr": "`), 'a', cel.JSON},
		"json space":  {[]byte(`[`), ' ', cel.JSON},
		"cbor":        {bin("81 a1 00 5b 00ffffffffffffff"), 0, cel.CBOR},
		"cbor nested": {bin("81"), 0x9f, cel.CBOR},
	} {
		src := &endless{head: bytes.NewReader(test.head), fill: test.fill}
		var err error
		for _, err = range cel.NewReader(src, test.format).Measurements() {
		}
		var syntax *rtmr.SyntaxError
		if !errors.As(err, &syntax) || src.read > 4*cel.MaxRecordSize {
			t.Errorf("%s: %v after %d bytes", name, err, src.read)
		}
	}
}

// TestSourceError: an error of the source is no fault of the log.
func TestSourceError(t *testing.T) {
	broken := errors.New("broken")
	for f, log := range map[cel.Format][]byte{
		cel.TLV: separatorTLV(), cel.JSON: []byte(separatorJSON), cel.CBOR: separatorCBOR(), cel.Systemd: []byte("\x1e" + separatorJSON),
	} {
		for _, n := range []int{0, len(log) / 2} {
			src := io.MultiReader(bytes.NewReader(log[:n]), iotest.ErrReader(broken))
			var err error
			for _, err = range cel.NewReader(src, f).Measurements() {
			}
			var syntax *rtmr.SyntaxError
			if !errors.Is(err, broken) || errors.As(err, &syntax) {
				t.Errorf("%s after %d bytes: %v", f, n, err)
			}
		}
	}
}
