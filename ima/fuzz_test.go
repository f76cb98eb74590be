package ima_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"encoding/binary"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/internal/readertest"
	"tallystick/rtmr"
)

// seedData makes template data of fields.
func seedData(order binary.AppendByteOrder, fields ...string) []byte {
	var b []byte
	for _, f := range fields {
		b = append(order.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// seedIMA makes a record of the template "ima", whose digest has 20 or 16 bytes.
func seedIMA(order binary.AppendByteOrder, digest []byte, name string) []byte {
	hashed := append(bytes.Clone(digest), name...)
	hashed = append(hashed, make([]byte, len(digest)+256-len(hashed))...)
	sum := sha1.Sum(hashed)
	b := append(order.AppendUint32(nil, 10), sum[:]...)
	b = append(order.AppendUint32(b, 3), "ima"...)
	b = append(b, digest...)
	return append(order.AppendUint32(b, uint32(len(name))), name...)
}

// seedTemplates are one entry's fields for each template.
var seedTemplates = map[string][]string{
	"ima-ng":         {"sha256:\x00" + strings.Repeat("d", 32), "/bin/sh\x00"},
	"ima-ngv2":       {"verity:sha256:\x00" + strings.Repeat("d", 32), "boot_aggregate\x00"},
	"ima-sig":        {"sha1:\x00" + strings.Repeat("d", 20), "a b\n\x00", "\x03\x02\x04keyi\x00\x02ss"},
	"ima-sigv2":      {"ima:sha512:\x00" + strings.Repeat("d", 64), "\xff\x1b[2J\x00", ""},
	"ima-buf":        {"sha256:\x00" + strings.Repeat("d", 32), "kexec-cmdline\x00", "root=/dev/sda"},
	"ima-modsig":     {"sha256:\x00" + strings.Repeat("d", 32), "m.ko\x00", "", "sha256:\x00" + strings.Repeat("m", 32), "pkcs7"},
	"evm-sig":        {"sha256:\x00" + strings.Repeat("d", 32), "f\x00", "sig", "security.ima\x00", "\x01\x00\x00\x00", "x", "\xe8\x03\x00\x00", "\xe8\x03\x00\x00", "\xa4\x81"},
	"ima-cgpath":     {"dep\x00", "/cg\x00", "sha256:\x00" + strings.Repeat("d", 32), "f\x00"},
	"d-ng|n-ng|sig":  {"sha256:\x00" + strings.Repeat("d", 32), "f\x00", "s"},
	"nobody's":       {"sha256:\x00dd", "text\x00", "", "\x01\x02"},
	"ima-ng|unknown": {"one"},
}

// seedLists are lists of every template and byte order, and the beginnings of
// real ones in three layouts.
func seedLists(t testing.TB) [][]byte {
	var lists [][]byte
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		var all []byte
		for _, name := range slices.Sorted(maps.Keys(seedTemplates)) {
			one := record(order, 10, name, seedData(order, seedTemplates[name]...))
			lists = append(lists, one)
			all = append(all, one...)
		}
		md5sum := md5.Sum([]byte("file"))
		old := slices.Concat(seedIMA(order, make([]byte, 20), "boot_aggregate"), seedIMA(order, bytes.Repeat([]byte{'d'}, 20), "/init"))
		lists = append(lists, all, old, slices.Concat(seedIMA(order, md5sum[:], "/init"), seedIMA(order, md5sum[:], "")))
	}
	for _, file := range []string{"violations-7.3/ima.bin", "sig-6.12/ima_sha384.bin", "ngv2-verity-6.12/ima_sha256.bin"} {
		b, err := os.ReadFile("../fixtures/" + file)
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, b[:min(len(b), 3000)])
	}
	return lists
}

func opener(opts ima.Options) readertest.Open {
	return func(src io.Reader) (readertest.Log, error) { return ima.NewReader(src, opts) }
}

// seedBanks are chosen from by the bits of a number.
var seedBanks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512, rtmr.SHA3256}

// FuzzReader reads a list under a profile, in a layout found by content.
func FuzzReader(f *testing.F) {
	for _, list := range seedLists(f) {
		for i, profile := range []string{"", "padded-sha1", "padded-sha1:sha384,violation-zero", "rtmr-column"} {
			f.Add(list, profile, uint8(1<<i|8), uint16(len(list)-3))
			f.Add(list, profile, uint8(1<<i), uint16(53)) // between a digest and the name behind it
		}
	}
	// A forged record that is another one by what stands behind it.
	f.Add([]byte("\n\x00\x00\x000>000000000000000000\x03\x00\x00\x00ima000000\x10000000\x00\x00\x7f\x01\x00\x00\x00\x7f\x01\x00\x00"), "", uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, list []byte, profile string, banks uint8, cut uint16) {
		var opts ima.Options
		opts.Profile, _ = ima.ParseProfile(profile)
		for i, alg := range seedBanks {
			if banks>>i&1 != 0 {
				opts.Banks = append(opts.Banks, alg)
			}
		}
		entries := readertest.Check(t, opener(opts), list, 1)
		r, err := ima.NewReader(bytes.NewReader(list), opts)
		if err != nil {
			return
		}
		opts.Alg, opts.Order = r.Layout().Alg, r.Layout().Order
		readertest.CheckPrefix(t, opener(opts), list, int(cut), entries)
		checkWriteBack(t, list)
	})
}

// checkWriteBack makes sure that what is read is written back byte for byte.
// Of the template "ima" a forged record, which what stands behind it may make
// another one of, may be refused instead.
func checkWriteBack(t *testing.T, list []byte) {
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		return
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return
		}
		e := m.Entry.(*ima.Entry)
		check, _ := e.Verify(m.Digests[0])
		record, err := r.Layout().AppendRecord(nil, rtmr.PCR(m.Register.Index()), e)
		switch {
		case err != nil && e.Template() == "ima" && check != rtmr.Verified:
		case err != nil:
			t.Errorf("entry %d: %v", m.Index, err)
		case !bytes.HasPrefix(list[m.Offset:], record):
			t.Errorf("entry %d is written as %x, read from %x", m.Index, record, list[m.Offset:min(int(m.Offset)+len(record), len(list))])
		}
	}
}

// FuzzDetect: what is recognised is read in that layout, and its first entry is
// delivered unless the prefix ends in it.
func FuzzDetect(f *testing.F) {
	for _, list := range seedLists(f) {
		f.Add(list)
		f.Add(list[:len(list)/2])
	}
	f.Fuzz(func(t *testing.T, prefix []byte) {
		layout, ok := ima.Detect(prefix)
		r, err := ima.NewReader(bytes.NewReader(prefix), ima.Options{})
		if ok != (err == nil) && len(prefix) > 0 {
			t.Fatalf("recognised: %t, read: %v", ok, err)
		}
		if ok && r.Layout() != layout {
			t.Errorf("recognised as %v and read as %v", layout, r.Layout())
		}
	})
}

// FuzzEntry renders and verifies template data that came without a list.
func FuzzEntry(f *testing.F) {
	for _, name := range slices.Sorted(maps.Keys(seedTemplates)) {
		f.Add(name, seedData(binary.LittleEndian, seedTemplates[name]...), false)
		f.Add(name, seedData(binary.BigEndian, seedTemplates[name]...), true)
	}
	f.Add("ima", []byte(strings.Repeat("d", 20)+"boot_aggregate"), false)
	f.Add("ima", []byte("short"), false)
	f.Add("ima", bytes.Repeat([]byte("long"), 100), false)
	f.Add("ima\x1b[2J", []byte{}, true)
	f.Fuzz(func(t *testing.T, template string, data []byte, big bool) {
		var order binary.ByteOrder = binary.LittleEndian
		if big {
			order = binary.BigEndian
		}
		e := ima.NewEntry(template, data, order)
		if !bytes.Equal(e.Data(), data) || e.Template() != template {
			t.Errorf("%q %x, made of %q %x", e.Template(), e.Data(), template, data)
		}
		readertest.CheckLine(t, e.Type(), len(template))
		readertest.CheckLine(t, e.Detail(), len(template)+len(data))
		if used := readertest.Allocated(func() { e.Detail(); e.Name() }); used > uint64(1<<20+128*(len(template)+len(data))) {
			t.Errorf("%d bytes allocated for a template name of %d and data of %d", used, len(template), len(data))
		}
		if d, ok := e.BootAggregate(); ok && (!strings.HasPrefix(e.Name(), "boot_aggregate") || len(d.Sum) != d.Alg.Size()) {
			t.Errorf("%q is the boot_aggregate %s", e.Name(), d)
		}
		checkVerify(t, e)
	})
}

// checkVerify: a contradiction's computed digest is the one that verifies.
func checkVerify(t *testing.T, e *ima.Entry) {
	t.Helper()
	for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA384, rtmr.SM3, 0x7777} {
		check, computed := e.Verify(rtmr.Digest{Alg: alg, Sum: bytes.Repeat([]byte{0xA5}, max(alg.Size(), 8))})
		if (check == rtmr.Contradicts) != alg.Available() || (computed != nil) != alg.Available() {
			t.Errorf("%s: %s, computed %x", alg, check, computed)
		}
		if !alg.Available() {
			continue
		}
		if check, _ := e.Verify(rtmr.Digest{Alg: alg, Sum: computed}); check != rtmr.Verified {
			t.Errorf("%s: the computed digest %x: %s", alg, computed, check)
		}
	}
}

// FuzzParseProfile: a profile is its words, each of which is a profile.
func FuzzParseProfile(f *testing.F) {
	for _, s := range []string{"padded-sha1", "padded-sha1:sha384,violation-zero", "rtmr-column,rtmr-column", "padded-sha1:", ",", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		whole, err := ima.ParseProfile(s)
		var sum ima.Profile
		var first error
		for _, word := range strings.Split(s, ",") {
			p, err := ima.ParseProfile(word)
			if err != nil {
				first = err
				break
			}
			sum.PaddedSHA1 = sum.PaddedSHA1 || p.PaddedSHA1
			sum.PaddedBanks = append(sum.PaddedBanks, p.PaddedBanks...)
			sum.ViolationZero = sum.ViolationZero || p.ViolationZero
			sum.RTMRColumn = sum.RTMRColumn || p.RTMRColumn
		}
		if (err == nil) != (first == nil) {
			t.Fatalf("%q: %v, and its words: %v", s, err, first)
		}
		if err == nil && (whole.PaddedSHA1 != sum.PaddedSHA1 || !slices.Equal(whole.PaddedBanks, sum.PaddedBanks) ||
			whole.ViolationZero != sum.ViolationZero || whole.RTMRColumn != sum.RTMRColumn) {
			t.Errorf("%q: %+v, expected %+v", s, whole, sum)
		}
	})
}
