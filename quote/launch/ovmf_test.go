package launch_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/internal/readertest"
	"tallystick/quote/launch"
)

func TestParseSections(t *testing.T) {
	got := first(launch.ParseSections(launchtest.AmdSev().Build()))
	for n, want := range launchtest.AmdSev().Sections {
		want.Offset = 16*launch.PageSize - 0x800 + 16 + 12*n
		if got[n] != want {
			t.Errorf("section %d: %+v, expected %+v", n, got[n], want)
		}
	}
	if len(got) != 7 || got[6].Type.String() != "SNP_KERNEL_HASHES" || launch.SectionType(9).String() != "section type 0x9" {
		t.Errorf("%v", got)
	}
}

func TestParseSectionsErrors(t *testing.T) {
	const metadata = 16*launch.PageSize - 0x800 // 0xf800
	poke := func(at int, n uint32) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint32(b[metadata+at:], n) }
	}
	table := first(launch.ParseTable(launchtest.AmdSev().Build()))
	pointer, _ := table.Find(launch.MustGUID(launchtest.Metadata))
	for _, c := range []struct {
		name   string
		damage func([]byte)
		want   string
	}{
		{"before the image", poke(pointer.Offset-metadata, 0x10001), "the SEV metadata begin 65537 bytes before the end, expected 16 to 65536"},
		{"in the reset code", poke(pointer.Offset-metadata, 15), "the SEV metadata begin 15 bytes before the end"},
		{"signature", poke(0, 0), `offset 0xf800: SEV metadata: signature "\x00\x00\x00\x00", expected "ASEV"`},
		{"version", poke(8, 2), "offset 0xf808: SEV metadata: version 2, expected 1"},
		{"size below the header's", poke(4, 15), "offset 0xf804: SEV metadata: size 15, expected 16 to 2048"},
		{"size beyond the image", poke(4, 0x801), "offset 0xf804: SEV metadata: size 2049, expected 16 to 2048"},
		{"more sections than bytes", poke(12, 8), "offset 0xf80c: SEV metadata: 8 sections, and their size, 100, has room for 7"},
		{"very many sections", poke(12, 0xFFFFFFFF), "4294967295 sections"},
		{"address within a page", poke(16, 0x800010), "offset 0xf810: SNP_SEC_MEM at 0x800010, expected a page's address"},
		{"part of a page", poke(20, 0x8800), "offset 0xf810: SNP_SEC_MEM has 0x8800 bytes, expected whole pages of 0x1000"},
		{"no page", poke(20, 0), "SNP_SEC_MEM has 0x0 bytes"},
		{"beyond 4 GiB", poke(16, 0xFFFFF000), "SNP_SEC_MEM at 0xfffff000 has 0x9000 bytes, expected to end by 4 GiB"},
		{"two secrets pages", poke(16+2*12+4, 0x2000), "offset 0xf828: SNP_SECRETS has 0x2000 bytes, expected one page"},
		{"two CPUID pages", poke(16+3*12+4, 0x2000), "CPUID has 0x2000 bytes, expected one page"},
		{"overlap", poke(20, 0xB000), "offset 0xf81c: SNP_SEC_MEM at 0x80a000 overlaps SNP_SEC_MEM, which is at 0x800000 and has 0xb000 bytes"},
		{"the same place", poke(16, 0x80E000), "overlaps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := launchtest.AmdSev().Build()
			c.damage(data)
			if _, err := launch.ParseSections(data); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected %q", err, c.want)
			}
		})
	}
	if _, err := launch.ParseSections(launchtest.Image{Pages: 1, Reset: 4}.Build()); err == nil || !strings.Contains(err.Error(), "no SEV metadata") {
		t.Errorf("no metadata: %v", err)
	}
	if _, err := launch.ParseSections(launchtest.Image{Pages: 1, NoTable: true}.Build()); !errors.Is(err, launch.ErrNoTable) {
		t.Errorf("no table: %v", err)
	}
}

func FuzzParseSections(f *testing.F) {
	f.Add(launchtest.AmdSev().Build()[60<<10:])
	f.Add(launchtest.Early().Build()[60<<10:])
	f.Fuzz(func(t *testing.T, data []byte) {
		sections, err := launch.ParseSections(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 256)
			return
		}
		if len(sections)*12 > len(data) {
			t.Errorf("%d sections in %d bytes", len(sections), len(data))
		}
		slices.SortFunc(sections, func(a, b launch.Section) int { return int(int64(a.GPA) - int64(b.GPA)) })
		var end uint64
		for _, s := range sections {
			if uint64(s.GPA) < end || s.Size == 0 {
				t.Errorf("%+v overlaps, or is empty", s)
			}
			end = uint64(s.GPA) + uint64(s.Size)
		}
	})
}
