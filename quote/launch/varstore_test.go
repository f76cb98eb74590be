package launch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"

	"tallystick/internal/readertest"
	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
)

var global = launch.MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")

// stored is a variable as it lies in a store.
type stored struct {
	name  string
	data  []byte
	state byte
}

// volumeWith writes variables into an empty volume.
func volumeWith(variables ...stored) []byte {
	le := binary.LittleEndian
	b := tdvftest.Pristine(tdvftest.CFV2M)
	at := 72 + 28
	for _, v := range variables {
		name := utf16.Encode([]rune(v.name + "\x00"))
		h := b[at:]
		clear(h[:60])
		le.PutUint16(h, 0x55aa)
		h[2] = v.state
		le.PutUint32(h[36:], uint32(2*len(name)))
		le.PutUint32(h[40:], uint32(len(v.data)))
		copy(h[44:], global[:])
		for i, unit := range name {
			le.PutUint16(h[60+2*i:], unit)
		}
		copy(h[60+2*len(name):], v.data)
		at += (60 + 2*len(name) + len(v.data) + 3) &^ 3
	}
	return b
}

func TestParseVariables(t *testing.T) {
	const added, replacing, deleted, headerOnly = 0x3f, 0x3e, 0x3c, 0x7f
	got, err := launch.ParseVariables(volumeWith(
		stored{"A", []byte{1, 2, 3}, added},
		stored{"Gone", []byte{9}, deleted},
		stored{"Unfinished", []byte{9}, headerOnly},
		stored{"B", []byte("old"), replacing},
		stored{"B", []byte("new"), added},
		stored{"C", []byte("newer"), added},
		stored{"C", []byte("older"), replacing},
		stored{"D", []byte("still"), replacing},
		stored{"Ω", nil, added},
	))
	if err != nil {
		t.Fatal(err)
	}
	want := []launch.Variable{
		{Vendor: global, Name: "A", Data: []byte{1, 2, 3}},
		{Vendor: global, Name: "B", Data: []byte("new")},
		{Vendor: global, Name: "C", Data: []byte("newer")},
		{Vendor: global, Name: "D", Data: []byte("still")},
		{Vendor: global, Name: "Ω"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i].Vendor != want[i].Vendor || got[i].Name != want[i].Name || !bytes.Equal(got[i].Data, want[i].Data) {
			t.Errorf("variable %d is %v, want %v", i, got[i], want[i])
		}
	}
	if got, err := launch.ParseVariables(tdvftest.Pristine(tdvftest.CFV4M)); len(got) != 0 || err != nil {
		t.Errorf("an empty store: %v, %v", got, err)
	}
}

func TestMalformedVolume(t *testing.T) {
	le := binary.LittleEndian
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
		none   bool // ErrNoStore
	}{
		{"empty", func(b []byte) []byte { return nil }, "offset 0x28: expected _FVH", true},
		{"no volume", func(b []byte) []byte { b[40] = 0; return b }, "offset 0x28: expected _FVH", true},
		{"another volume", func(b []byte) []byte { b[16] ^= 1; return b }, "offset 0x10: volume fff12b8c-", true},
		{"another store", func(b []byte) []byte { b[72] ^= 1; return b }, "offset 0x48: store aaf32c79-", true},
		{"header too long", func(b []byte) []byte { le.PutUint16(b[48:], 0xfff0); return b[:0x1000] }, "the volume's header has 65520 bytes", false},
		{"header too short", func(b []byte) []byte { le.PutUint16(b[48:], 55); return b }, "the volume's header has 55 bytes", false},
		{"store too long", func(b []byte) []byte { le.PutUint32(b[72+16:], tdvftest.CFV2M-71); return b }, "the store's size is 131001, expected 28 to 131000", false},
		{"store too short", func(b []byte) []byte { le.PutUint32(b[72+16:], 27); return b }, "the store's size is 27", false},
		{"store in the making", func(b []byte) []byte { b[72+21] = 0xff; return b }, "format and state are 0x5a and 0xff, expected 0x5a and 0xfe", false},
		{"name too long", func(b []byte) []byte { le.PutUint32(b[100+36:], 1<<32-1); return b }, "offset 0x88: a variable's name of 4294967295 bytes", false},
		{"data too long", func(b []byte) []byte { le.PutUint32(b[100+40:], 0xe000); return b }, "a variable's name of 4 bytes and data of 57344", false},
		{"half a character", func(b []byte) []byte { le.PutUint32(b[100+36:], 3); return b }, "a variable's name of 3 bytes", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := launch.ParseVariables(c.change(volumeWith(stored{"A", []byte{1}, 0x3f})))
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, launch.ErrNoStore) != c.none {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzParseVariables: what is read is in the volume.
func FuzzParseVariables(f *testing.F) {
	full := volumeWith(stored{"PK", []byte{1}, 0x3f}, stored{"PK", []byte{2}, 0x3e}, stored{"db", make([]byte, 100), 0x3f})
	f.Add(full[:0x400])
	binary.LittleEndian.PutUint32(full[72+16:], 0x3b8)
	f.Add(full[:0x400])
	f.Fuzz(func(t *testing.T, volume []byte) {
		variables, err := launch.ParseVariables(volume)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		total := 0
		for i, v := range variables {
			total += 60 + len(v.Data)
			for _, w := range variables[:i] {
				if v.Vendor == w.Vendor && v.Name == w.Name {
					t.Errorf("%q comes twice", v.Name)
				}
			}
		}
		if total > len(volume) {
			t.Errorf("variables of %d bytes in a volume of %d", total, len(volume))
		}
	})
}
