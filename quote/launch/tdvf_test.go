package launch_test

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"tallystick/internal/readertest"
	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
)

func parse(t *testing.T, v tdvftest.Image) *launch.TDVF {
	t.Helper()
	parsed, err := launch.ParseTDVF(v.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestParseTDVF(t *testing.T) {
	v := tdvftest.EDK2()
	parsed := parse(t, v)
	if parsed.Offset != v.Size-tdvftest.DescriptorFromEnd {
		t.Errorf("the descriptor is at %#x", parsed.Offset)
	}
	if len(parsed.Sections) != len(v.Sections) {
		t.Fatalf("%d sections, want %d", len(parsed.Sections), len(v.Sections))
	}
	for i, s := range parsed.Sections {
		if s != v.Sections[i] {
			t.Errorf("section %d is %+v, want %+v", i, s, v.Sections[i])
		}
	}
}

// TestTDVFTypes: the names are the design guide's.
func TestTDVFTypes(t *testing.T) {
	for i, want := range []string{"BFV", "CFV", "TD_HOB", "TempMem", "PermMem", "Payload", "PayloadParam", "TD_INFO", "TD_PARAMS", "type 9"} {
		if got := launch.TDVFSectionType(i).String(); got != want {
			t.Errorf("type %d is %q, want %q", i, got, want)
		}
	}
	if got := launch.TDVFSectionType(1<<32 - 1).String(); got != "type 4294967295" {
		t.Errorf("the last type is %q", got)
	}
}

// TestMalformedTDVF changes one field of an image after another.
func TestMalformedTDVF(t *testing.T) {
	const size = 4 << 20
	le := binary.LittleEndian
	descriptor := func(b []byte) []byte { return b[size-tdvftest.DescriptorFromEnd:] }
	section := func(b []byte, i int) []byte { return descriptor(b)[16+32*i:] }
	u32 := func(field func([]byte) []byte, value uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(field(b), value); return b }
	}
	u64 := func(field func([]byte) []byte, value uint64) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint64(field(b), value); return b }
	}
	of := func(i, at int) func([]byte) []byte { return func(b []byte) []byte { return section(b, i)[at:] } }
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"no image", func(b []byte) []byte { return b[:31] }, "no GUIDed table"},
		{"variables alone", func(b []byte) []byte { return b[:tdvftest.CFV4M] }, "no GUIDed table"},
		{"code alone", func(b []byte) []byte { return b[tdvftest.CFV4M:] }, "section 0 (BFV): DataOffset 0x84000 and RawDataSize 0x37c000 end at 0x400000, beyond the image's 0x37c000 bytes: is it the code alone"},
		{"no entry", func(b []byte) []byte { b[size-tdvftest.OffsetEntryFromEnd+6] ^= 1; return b }, "no TDX metadata: the GUIDed table has no entry e47a6535-984a-4798-865e-4685a7bf8ec2"},
		{"offset before the image", u32(func(b []byte) []byte { return b[size-tdvftest.OffsetEntryFromEnd:] }, size+1), "the TDX metadata are 4194305 bytes before the image's end, expected 16 to 4194304"},
		{"offset behind", u32(func(b []byte) []byte { return b[size-tdvftest.OffsetEntryFromEnd:] }, 15), "the TDX metadata are 15 bytes before the image's end"},
		{"signature", u32(descriptor, 0x46564455), "signature \"UDVF\", expected \"TDVF\""},
		{"length", u32(func(b []byte) []byte { return descriptor(b)[4:] }, 207), "offset 0x3ffe04: length 207, expected 208 for 6 sections"},
		{"version", u32(func(b []byte) []byte { return descriptor(b)[8:] }, 2), "offset 0x3ffe08: version 2, expected 1"},
		{"no sections", u32(func(b []byte) []byte { return descriptor(b)[12:] }, 0), "offset 0x3ffe0c: 0 sections, expected 1 to 15"},
		{"too many sections", u32(func(b []byte) []byte { return descriptor(b)[12:] }, 16), "16 sections, expected 1 to 15"},
		{"four billion sections", u32(func(b []byte) []byte { return descriptor(b)[12:] }, 1<<32-1), "4294967295 sections"},
		{"data beyond the image", u32(of(0, 0), 0x84001), "offset 0x3ffe10: section 0 (BFV): DataOffset 0x84001 and RawDataSize 0x37c000 end at 0x400001"},
		{"data wrap around", u32(of(0, 0), 1<<32-1), "end at 0x10037bfff"},
		{"more data than memory", u64(of(0, 16), 0x37b000), "RawDataSize 0x37c000, expected MemoryDataSize 0x37b000 at most"},
		{"address not a page", u64(of(2, 8), 0x811001), "section 2 (TempMem): MemoryAddress 0x811001, expected a multiple of 0x1000"},
		{"size not pages", u64(of(2, 16), 0xf001), "MemoryDataSize 0xf001, expected a multiple of 0x1000"},
		{"above 4 GiB", u64(of(2, 8), 1<<32), "end above 4 GiB"},
		{"wraps around", u64(of(2, 8), 1<<64-4096), "end above 4 GiB"},
		{"size wraps around", u64(of(2, 16), 1<<64-4096), "end above 4 GiB"},
		{"BFV empty", u32(of(0, 4), 0), "section 0 (BFV): RawDataSize is 0, expected data"},
		{"CFV empty", u32(of(1, 4), 0), "section 1 (CFV): RawDataSize is 0, expected data"},
		{"TD_HOB with data", u32(of(4, 4), 16), "section 4 (TD_HOB): RawDataSize 0x10, expected 0"},
		{"TempMem with data", u32(of(5, 4), 16), "section 5 (TempMem): RawDataSize 0x10, expected 0"},
		{"two TD_HOB", u32(of(5, 24), 2), "section 5 (TD_HOB): the second one, expected one at most"},
		{"overlap", u64(of(5, 8), 0x806000), "section 5 (TempMem): memory 0x806000 to 0x80c000 is section 3's (TempMem) too"},
		{"no BFV", func(b []byte) []byte { return u32(of(0, 24), 1)(b) }, "no section is a BFV"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := launch.ParseTDVF(c.change(tdvftest.EDK2().Bytes()))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestNoTDVF: what has no TDX metadata can be told from what is malformed.
func TestNoTDVF(t *testing.T) {
	if _, err := launch.ParseTDVF(make([]byte, 4096)); !errors.Is(err, launch.ErrNoTable) {
		t.Errorf("zeros: %v", err)
	}
	b := tdvftest.EDK2().Bytes()
	b[len(b)-tdvftest.OffsetEntryFromEnd+6] ^= 1
	if _, err := launch.ParseTDVF(b); !errors.Is(err, launch.ErrNoTDVF) {
		t.Errorf("no entry: %v", err)
	}
}

// FuzzParseTDVF: an image that is read can be measured by every host's rule, or the
// error is a line, and what is measured is as many pages as the metadata say.
func FuzzParseTDVF(f *testing.F) {
	tiny := tdvftest.Image{Size: 0x3000, Sections: []launch.TDVFSection{
		{RawDataSize: 0x3000, MemoryAddress: 0xffffd000, MemoryDataSize: 0x3000, Type: launch.TDVFBFV, Attributes: launch.TDVFExtend},
		{MemoryAddress: 0x809000, MemoryDataSize: 0x2000, Type: launch.TDVFTDHOB},
		{MemoryAddress: 0x80b000, MemoryDataSize: 0x1000, Type: launch.TDVFPermMem, Attributes: launch.TDVFPageAug},
	}}
	b := tiny.Bytes()
	f.Add(b)
	f.Add(b[0x1000:])
	f.Add(b[len(b)-tdvftest.DescriptorFromEnd:])
	f.Fuzz(func(t *testing.T, image []byte) {
		v, err := launch.ParseTDVF(image)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 512)
			return
		}
		pages := uint64(0)
		for _, s := range v.Sections {
			pages += s.MemoryDataSize / 4096
		}
		if pages > 1<<14 {
			return // up to 4 GiB are right, and take long
		}
		_, sections, err := v.MRTD(launch.PageByPage)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 512)
			return
		}
		for _, s := range sections {
			if want := int(s.MemoryDataSize / 4096); s.Attributes&launch.TDVFPageAug == 0 && s.Added != want || s.Extended != 0 && s.Extended != 16*want {
				t.Errorf("%+v: %d pages added, %d chunks extended", s.TDVFSection, s.Added, s.Extended)
			}
		}
		for _, host := range launch.TDXHosts {
			if _, err := (launch.TDX{Firmware: v, Host: host, Memory: 16 << 30}).Measure(); err != nil {
				readertest.CheckLine(t, err.Error(), 512)
			}
		}
	})
}
