package ima_test

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"tallystick/ima"
	"tallystick/rtmr"
)

// record writes one binary record as ima_measurements_show does.
func record(order binary.AppendByteOrder, pcr uint32, name string, data []byte) []byte {
	sum := sha1.Sum(data)
	b := order.AppendUint32(nil, pcr)
	b = append(b, sum[:]...)
	b = order.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	b = order.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func ng(order binary.AppendByteOrder, name string) []byte {
	d := append([]byte("sha256:\x00"), bytes.Repeat([]byte{0xAB}, 32)...)
	b := append(order.AppendUint32(nil, uint32(len(d))), d...)
	b = order.AppendUint32(b, uint32(len(name)+1))
	return append(append(b, name...), 0)
}

func read(t testing.TB, b []byte, o ima.Options) (details []string, err error) {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(b), o)
	if err != nil {
		return nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return details, err
		}
		details = append(details, m.Register.String()+" "+m.Entry.Type()+" "+m.Entry.Detail())
	}
	return details, nil
}

func TestIMA(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	for _, tc := range []struct {
		name, want string
		list       []byte
	}{
		{"little_endian", "pcr10 ima-ng sha256:abab", record(le, 10, "ima-ng", ng(le, "/bin/sh"))},
		{"big_endian", "pcr10 ima-ng sha256:abab", record(be, 10, "ima-ng", ng(be, "/bin/sh"))},
		{"custom_format_is_the_name", "pcr11 d-ng|n-ng sha256:abab", record(le, 11, "d-ng|n-ng", ng(le, "/bin/sh"))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := read(t, tc.list, ima.Options{})
			if err != nil || len(got) != 1 || !bytes.HasPrefix([]byte(got[0]), []byte(tc.want)) {
				t.Errorf("%v %v, want %s..", got, err, tc.want)
			}
		})
	}
}

// Every template in every layout: both byte orders, and the per-bank lists'
// digest sizes. The layout is found from the content.
func TestTemplates(t *testing.T) {
	for _, tc := range templateCases {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			for _, alg := range allBanks {
				t.Run(fmt.Sprintf("%s/%s/%s", tc.name, order, alg), func(t *testing.T) {
					var data []byte
					for _, f := range tc.data {
						data = append(data, field(order, f)...)
					}
					list := append(recordIn(alg, order, 10, "ima-ng", ng(order, "boot_aggregate")), recordIn(alg, order, 11, tc.template, data)...)
					r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
					if err != nil {
						t.Fatal(err)
					}
					n := 0
					for m, err := range r.Measurements() {
						if err != nil {
							t.Fatal(err)
						}
						if n++; n == 1 {
							continue
						}
						e := m.Entry.(*ima.Entry)
						check, _ := e.Verify(m.Digests[0])
						if e.Template() != tc.template || !bytes.Equal(e.Data(), data) || m.Register.String() != "pcr11" || check != rtmr.Verified || m.Digests[0].Alg != alg {
							t.Errorf("%s %s %x: %s %s", m.Register, e.Template(), e.Data(), m.Digests[0], check)
						}
					}
					if n != 2 {
						t.Errorf("%d entries, want 2", n)
					}
				})
			}
		}
	}
}

// recordIn writes a record of a list in another bank than SHA-1.
func recordIn(alg rtmr.Alg, order binary.AppendByteOrder, pcr uint32, name string, data []byte) []byte {
	b := record(order, pcr, name, data)
	const sha1At, sha1Size = 4, 20
	return slices.Concat(b[:sha1At], hashOf(alg, data), b[sha1At+sha1Size:])
}

func hashOf(alg rtmr.Alg, data []byte) []byte {
	h := map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384, rtmr.SHA512: crypto.SHA512}[alg].New()
	h.Write(data)
	return h.Sum(nil)
}

func TestNameIsEscaped(t *testing.T) {
	got, err := read(t, record(binary.LittleEndian, 10, "ima-ng", ng(binary.LittleEndian, "a\n10 \x1b[2J")), ima.Options{})
	if err != nil || len(got) != 1 || bytes.ContainsAny([]byte(got[0]), "\n\x1b") {
		t.Errorf("%q %v", got, err)
	}
}

func TestForgedEntryContradicts(t *testing.T) {
	list := record(binary.LittleEndian, 10, "ima-ng", ng(binary.LittleEndian, "/bin/sh"))
	list[len(list)-2] ^= 1
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m := range r.Measurements() {
		check, computed := m.Entry.Verify(m.Digests[0])
		if want := sha1.Sum(m.Entry.Data()); check != rtmr.Contradicts || !bytes.Equal(computed, want[:]) {
			t.Errorf("%s, computed %x", check, computed)
		}
	}
}

// A hostile length makes an error that names the field, not an allocation.
func TestHugeDataLength(t *testing.T) {
	good := record(binary.LittleEndian, 10, "ima-ng", ng(binary.LittleEndian, "/bin/sh"))
	evil := bytes.Clone(good)
	binary.LittleEndian.PutUint32(evil[4+20+4+6:], 0xFFFFFFF0)
	got, err := read(t, append(good, evil...), ima.Options{})
	var syntax *ima.SyntaxError
	if len(got) != 1 || !errors.As(err, &syntax) {
		t.Fatalf("%d entries, error %v", len(got), err)
	}
	if syntax.Entry != 1 || syntax.Field != "template data length" || syntax.Offset != int64(len(good)+34) {
		t.Errorf("%+v", syntax)
	}
}

// A cut list delivers a prefix of the whole list's entries.
func TestPrefixDelivery(t *testing.T) {
	list, err := os.ReadFile("../fixtures/violations-7.3/ima.bin")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := read(t, list, ima.Options{})
	ascii, _ := os.ReadFile("../fixtures/violations-7.3/ima.ascii")
	if err != nil || len(whole) == 0 || len(whole) != bytes.Count(ascii, []byte("\n")) { // the kernel's own lines
		t.Fatalf("%d entries, %v", len(whole), err)
	}
	for cut := 200; cut < len(list); cut += 1777 {
		got, err := read(t, list[:cut], ima.Options{})
		if len(got) > len(whole) {
			t.Fatalf("cut at %d: %d entries", cut, len(got))
		}
		for i := range got {
			if got[i] != whole[i] {
				t.Fatalf("cut at %d: entry %d is %s, want %s", cut, i, got[i], whole[i])
			}
		}
		if err == nil && len(got) == len(whole) {
			t.Errorf("cut at %d: nothing is missing", cut)
		}
	}
}
