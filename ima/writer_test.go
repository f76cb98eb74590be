package ima_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/rtmr"
)

// writeBack reads a list and writes it in a layout.
func writeBack(t testing.TB, list []byte, l ima.Layout) []byte {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		pcr := rtmr.PCR(m.Register.Index())
		if out, err = l.AppendRecord(out, pcr, m.Entry.(*ima.Entry)); err != nil {
			t.Fatalf("entry %d: %v", m.Index, err)
		}
	}
	return out
}

// Every list of a real kernel is written back byte for byte, and from its
// SHA-1 list every other one that it showed.
func TestAppendRecordFixtures(t *testing.T) {
	lists, err := filepath.Glob("../fixtures/*/ima*.bin")
	if err != nil || len(lists) < 20 {
		t.Fatalf("%d lists, %v", len(lists), err)
	}
	algs := map[string]rtmr.Alg{"ima.bin": rtmr.SHA1, "ima_sha256.bin": rtmr.SHA256, "ima_sha384.bin": rtmr.SHA384, "ima_sha512.bin": rtmr.SHA512}
	for _, path := range lists {
		dir, name := filepath.Split(path)
		t.Run(filepath.Join(filepath.Base(dir), name), func(t *testing.T) {
			l := ima.Layout{Alg: algs[name], Order: binary.LittleEndian}
			kernels := readFile(t, path)
			if !bytes.Equal(writeBack(t, kernels, l), kernels) {
				t.Error("read and written back, the list differs from the kernel's")
			}
			// The kernel's lists are of different moments, so one may be longer.
			made := writeBack(t, readFile(t, filepath.Join(dir, "ima.bin")), l)
			if !bytes.HasPrefix(kernels, made) && !bytes.HasPrefix(made, kernels) {
				t.Error("made from the SHA-1 list, the list differs from the kernel's")
			}
		})
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The template "ima" has a layout of its own, with a digest of 20 bytes or,
// under ima_hash=md5, of 16; its hash is over the name padded to 256 bytes.
func TestAppendRecordTemplateIMA(t *testing.T) {
	le := binary.LittleEndian
	for _, size := range []int{20, 16} {
		digest, name := bytes.Repeat([]byte{0xAB}, size), []byte("/bin/sh")
		sum := sha1.Sum(append(bytes.Clone(digest), append(name, make([]byte, 256-len(name))...)...))
		record := append(le.AppendUint32(nil, 10), sum[:]...)
		record = append(le.AppendUint32(record, 3), "ima"...)
		record = append(record, digest...)
		record = append(le.AppendUint32(record, uint32(len(name))), name...)

		l := ima.Layout{Alg: rtmr.SHA1, Order: le}
		if got := writeBack(t, record, l); !bytes.Equal(got, record) {
			t.Errorf("digest of %d bytes: written back as\n%x, want\n%x", size, got, record)
		}
		if size != 20 {
			continue // NewEntry takes SHA-1 digests
		}
		made, err := l.AppendRecord(nil, 10, ima.NewEntry("ima", append(digest, name...), le))
		if err != nil || !bytes.Equal(made, record) {
			t.Errorf("made: %x, %v, want %x", made, err, record)
		}
	}
}

// A record of the template "ima" whose digest ends as the length of a longer
// name behind an MD5 digest would, and whose hash proves neither.
func TestAppendRecordForgedIMA(t *testing.T) {
	le := binary.LittleEndian
	record := append(le.AppendUint32(nil, 10), bytes.Repeat([]byte{0xEE}, 20)...)
	record = append(le.AppendUint32(record, 3), "ima"...)
	record = append(record, bytes.Repeat([]byte{0xAB}, 16)...)
	record = le.AppendUint32(record, 200)
	record = append(le.AppendUint32(record, 7), "/bin/sh"...)
	genuine, err := ima.Layout{Alg: rtmr.SHA1, Order: le}.AppendRecord(nil, 10, ima.NewEntry("ima-ng", ng(le, strings.Repeat("x", 300)), le))
	if err != nil {
		t.Fatal(err)
	}
	list := slices.Concat(genuine, record, genuine)
	if got := writeBack(t, list, ima.Layout{Alg: rtmr.SHA1, Order: le}); !bytes.Equal(got, list) {
		t.Errorf("written back as\n%x, want\n%x", got, list)
	}
}

// The kernel's binary list, made from the ASCII one that it showed beside it.
func TestAppendRecordFromASCII(t *testing.T) {
	text := readFile(t, "../fixtures/violations-7.3/ima.ascii")
	r, err := ima.NewASCIIReader(bytes.NewReader(text), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if out, err = r.Layout().AppendRecord(out, rtmr.PCR(m.Register.Index()), m.Entry.(*ima.Entry)); err != nil {
			t.Fatalf("entry %d: %v", m.Index, err)
		}
	}
	if !bytes.Equal(out, readFile(t, "../fixtures/violations-7.3/ima.bin")) {
		t.Error("made from the ASCII list, the list differs from the kernel's")
	}
}

func TestAppendRecordViolation(t *testing.T) {
	l := ima.Layout{Alg: rtmr.SHA256, Order: binary.BigEndian}
	data := ng(binary.BigEndian, "/bin/sh")
	record, err := l.AppendRecord(nil, 10, ima.NewViolation("ima-ng", data, l.Order))
	want := append(make([]byte, 32), "\x00\x00\x00\x06ima-ng"...)
	if err != nil || !bytes.HasPrefix(record[4:], want) || !bytes.HasSuffix(record, data) {
		t.Errorf("%x, %v", record, err)
	}
}

// What would not read back as the same entry is not written.
func TestAppendRecordRefuses(t *testing.T) {
	le := binary.LittleEndian
	l := ima.Layout{Alg: rtmr.SHA1, Order: le}
	data := ng(le, "/bin/sh")
	for name, tc := range map[string]struct {
		pcr rtmr.PCR
		e   *ima.Entry
	}{
		"pcr_24":                 {24, ima.NewEntry("ima-ng", data, le)},
		"no_template_name":       {10, ima.NewEntry("", data, le)},
		"newline_in_template":    {10, ima.NewEntry("ima\nng", data, le)},
		"length_beyond_data":     {10, ima.NewEntry("ima-ng", data[:len(data)-1], le)},
		"lengths_in_other_order": {10, ima.NewEntry("ima-ng", []byte{0, 0, 0, 0}, binary.BigEndian)},
		"ima_digest_too_short":   {10, ima.NewEntry("ima", data[:10], le)},
		"ima_name_too_long":      {10, ima.NewEntry("ima", make([]byte, 20+257), le)},
	} {
		got, err := l.AppendRecord([]byte("before"), tc.pcr, tc.e)
		if err == nil || string(got) != "before" {
			t.Errorf("%s: %q, error %v", name, got, err)
		}
	}
	sm3 := ima.Layout{Alg: rtmr.SM3, Order: le}
	if _, err := sm3.AppendRecord(nil, 10, ima.NewEntry("ima-ng", data, le)); err == nil {
		t.Error("an SM3 template hash was made")
	}
}
