package launch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/internal/readertest"
	"tallystick/quote/launch"
)

func TestGUID(t *testing.T) {
	g := launch.MustGUID(launchtest.Footer)
	// The bytes of edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc.
	want := launch.GUID{0xDE, 0x82, 0xB5, 0x96, 0xB2, 0x1F, 0xF7, 0x45, 0xBA, 0xEA, 0xA3, 0x66, 0xC5, 0x5A, 0x08, 0x2D}
	if g != want || g.String() != launchtest.Footer {
		t.Errorf("%x (%s), expected %x", g[:], g, want[:])
	}
}

func TestParseTable(t *testing.T) {
	i := launchtest.AmdSev()
	i.Extra = []launchtest.Entry{{GUID: launchtest.SVSMInfo, Data: nil}}
	data := i.Build()
	table := first(launch.ParseTable(data))
	var guids []string
	for _, e := range table {
		guids = append(guids, e.GUID.String())
		if !bytes.Equal(data[e.Offset:e.Offset+len(e.Data)], e.Data) {
			t.Errorf("%s is not at %#x", e.GUID, e.Offset)
		}
	}
	if want := []string{launchtest.SVSMInfo, launchtest.Metadata, launchtest.Hashes, launchtest.Reset}; !slices.Equal(guids, want) {
		t.Errorf("%v, expected %v", guids, want)
	}
	reset, ok := table.Find(launch.MustGUID(launchtest.Reset))
	if !ok || binary.LittleEndian.Uint32(reset.Data) != 0x80B004 {
		t.Errorf("reset block %x", reset.Data)
	}
	if _, ok := table.Find(launch.GUID{}); ok {
		t.Error("an entry that is not there was found")
	}
}

func first[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The table's size is 18 bytes with its GUID before the image's last 32; the last
// entry's, the reset block's, 18 before that.
func TestParseTableErrors(t *testing.T) {
	size := len(launchtest.AmdSev().Build())
	footer, reset := size-launchtest.AfterTable-launchtest.EntryHeader, size-launchtest.AfterTable-2*launchtest.EntryHeader
	for _, c := range []struct {
		name    string
		damage  func([]byte) []byte
		noTable bool
		want    string
	}{
		{"empty", func([]byte) []byte { return nil }, true, "the image has 0 bytes, expected 50 at least"},
		{"49 bytes", func(b []byte) []byte { return b[len(b)-49:] }, true, "49 bytes"},
		{"other GUID", func(b []byte) []byte { b[footer+2]++; return b }, true, "GUID 96b582df-1fb2-45f7-baea-a366c55a082d, expected the table's footer"},
		{"cut short", func(b []byte) []byte { return b[:len(b)-launch.PageSize] }, true, "expected the table's footer"},
		{"size below the footer's", func(b []byte) []byte { binary.LittleEndian.PutUint16(b[footer:], 17); return b }, false, "the table's size is 17, expected 18 to "},
		{"size beyond the image", func(b []byte) []byte { return b[len(b)-100:] }, false, "the table's size is 88, expected 18 to 68"},
		{"entry below its header", func(b []byte) []byte { b[reset] = 17; return b }, false, "the entry's size is 17, expected 18 to 70"},
		{"entry beyond the table", func(b []byte) []byte { b[reset] = 71; return b }, false, "the entry's size is 71, expected 18 to 70"},
		{"rest before the first entry", func(b []byte) []byte { b[footer]++; return b }, false, "1 bytes before the first entry"},
		{"twice", func(b []byte) []byte {
			return launchtest.WithTable(b, []launchtest.Entry{{GUID: launchtest.Reset, Data: make([]byte, 4)}, {GUID: launchtest.Reset, Data: make([]byte, 4)}})
		}, false, "the entry 00f771de-1a7e-4fcb-890e-68c77e2fb44e comes twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := launch.ParseTable(c.damage(launchtest.AmdSev().Build()))
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, launch.ErrNoTable) != c.noTable {
				t.Errorf("%v, expected %q", err, c.want)
			}
		})
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(launchtest.AmdSev().Build()[60<<10:])
	f.Add(launchtest.Image{Pages: 1, NoTable: true}.Build())
	f.Add(launchtest.WithTable(make([]byte, 256), []launchtest.Entry{{GUID: launchtest.Reset, Data: nil}, {GUID: launchtest.SVSMInfo, Data: make([]byte, 60)}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := launch.ParseTable(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 256)
			return
		}
		end := len(data) - launchtest.AfterTable - launchtest.EntryHeader
		for _, e := range slices.Backward(table) {
			end -= launchtest.EntryHeader + len(e.Data)
			if e.Offset != end || !bytes.Equal(data[end:end+len(e.Data)], e.Data) {
				t.Fatalf("%s is at %#x, expected %#x", e.GUID, e.Offset, end)
			}
		}
	})
}
