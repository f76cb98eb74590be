package launch_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/internal/readertest"
	"tallystick/quote/launch"
)

// What the files of launchtest come to, by the page digests of sev-snp-measure
// 0.0.13 (its class GCTX), led by a reading of the file in Python that shares
// nothing with this one. It has the file's order for Hyper-V, and for QEMU that of
// the calls of set_guest_state in backends/igvm.c, and VMSAs behind them.
const (
	coconutDigest     = "a3be16d8e421be5113cfb252505b7472ddcf07eb104ba6d2d427120e6a8ffe443cd7cfacfea9825193ff1cb35612e280"
	hyperVDigest      = "d925b514fe87a37ee1bbd594f9c74610a83f61e8f2eaa2020791a08a4c0414b77919c3e872c33eefde37f4f2d8d46525"
	interleavedQEMU   = "828bdc89140954d1206575099c2f023eb324f4cbd2ac6131cdbec8065b4b118ed972bf3110a4939cf790625650eae3c5"
	interleavedHyperV = "48800a58ebcc1460de10108b0bbcc59109061922c2a3f30be1f3d3d4c5b98daefd2b044464d56690829e5f178b9b4720"
)

// inOrder is a file whose processors are not last, and one of them is elsewhere
// than KVM has them.
func inOrder() *launchtest.IGVM {
	f := launchtest.Coconut()
	f.Context(0xC0000000, launchtest.SNPMask, 1, launchtest.Pattern(5))
	return f.Page(0x910000, launchtest.SNPMask, 0, 0, launchtest.Pattern(6))
}

// partsOf are a measurement's parts, a line each.
func partsOf(m *launch.Measurement) string {
	var parts strings.Builder
	for _, p := range m.Parts {
		fmt.Fprintf(&parts, "%s %s %#x %#x %t\n", p.Name, p.Type, p.GPA, p.Size, p.Content != nil)
	}
	return parts.String()
}

func TestIGVM(t *testing.T) {
	m := first(launch.IGVM{File: launchtest.Coconut().Build()}.Measure())
	if m.Digest.String() != coconutDigest || m.Alg.String() != "sha384" {
		t.Errorf("QEMU: %s %s\nexpected %s", m.Alg, m.Digest, coconutDigest)
	}
	const want = `parameters unmeasured 0x80a000 0x3000 false
parameters unmeasured 0x809000 0x1000 false
pages normal 0x800000 0x4000 true
secrets secrets 0x806000 0x1000 false
CPUID cpuid 0x807000 0x1000 false
pages unmeasured 0x808000 0x1000 false
VMSA of vCPU 0 vmsa 0xfffffffff000 0x1000 true
`
	if parts := partsOf(m); parts != want {
		t.Errorf("%s\nexpected\n%s", parts, want)
	}
	if got := first(launch.IGVM{File: launchtest.Coconut().Build(), VMM: launch.HyperV}.Measure()); got.Digest.String() != coconutDigest {
		t.Errorf("Hyper-V: %s", got.Digest)
	}
	if got := first(launch.IGVM{File: inOrder().Build(), VMM: launch.HyperV}.Measure()); got.Digest.String() != hyperVDigest {
		t.Errorf("Hyper-V, processors in between: %s\nexpected %s", got.Digest, hyperVDigest)
	}
}

// QEMU holds page data back while it reads parameters, and KVM measures processors
// last.
func TestIGVMOrder(t *testing.T) {
	m := first(launch.IGVM{File: launchtest.Interleaved().Build()}.Measure())
	if m.Digest.String() != interleavedQEMU {
		t.Errorf("QEMU: %s\nexpected %s", m.Digest, interleavedQEMU)
	}
	const want = `parameters unmeasured 0x80000 0x2000 false
pages normal 0x10000 0x3000 true
parameters unmeasured 0x83000 0x1000 false
pages normal 0x13000 0x2000 true
parameters unmeasured 0x84000 0x1000 false
pages normal 0x15000 0x1000 true
pages unmeasured 0x16000 0x1000 false
secrets secrets 0x17000 0x1000 false
secrets secrets 0x20000 0x2000 false
VMSA of vCPU 0 vmsa 0xfffffffff000 0x1000 true
`
	if parts := partsOf(m); parts != want {
		t.Errorf("QEMU:\n%s\nexpected\n%s", parts, want)
	}
	if got := first(launch.IGVM{File: launchtest.Interleaved().Build(), VMM: launch.HyperV}.Measure()); got.Digest.String() != interleavedHyperV {
		t.Errorf("Hyper-V: %s\nexpected %s", got.Digest, interleavedHyperV)
	}
}

// Each thing that ends a run of page data does, and nothing else: QEMU adds a run
// that goes on behind the parameters, and one that has ended before them.
func TestIGVMRuns(t *testing.T) {
	const snp, tdx = launchtest.SNPMask, launchtest.TDXMask
	first, second := launchtest.Pattern(1), launchtest.Pattern(2)
	begin := func() *launchtest.IGVM {
		return launchtest.NewIGVM().Area(0, 0x1000).Page(0x10000, snp, 0, 0, first)
	}
	for _, c := range []struct {
		name   string
		file   *launchtest.IGVM
		before string // the parts before the parameters
	}{
		{"goes on", begin().Page(0x11000, snp, 0, 0, second), ""},
		{"an optional header in between", begin().Header(0x80000400).Page(0x11000, snp, 0, 0, second), ""},
		{"another address", begin().Page(0x12000, snp, 0, 0, second), "pages normal 0x10000 0x1000 true\n"},
		{"the address before", begin().Page(0xF000, snp, 0, 0, second), "pages normal 0x10000 0x1000 true\n"},
		{"another mask", begin().Page(0x11000, snp|tdx, 0, 0, second), "pages normal 0x10000 0x1000 true\n"},
		{"other flags", begin().Page(0x11000, snp, 2, 0, second), "pages normal 0x10000 0x1000 true\n"},
		{"another type", begin().Page(0x11000, snp, 0, 2, second), "pages normal 0x10000 0x1000 true\n"},
		{"no data", begin().Page(0x11000, snp, 0, 0, nil), "pages normal 0x10000 0x1000 true\n"},
		{"another platform's page in between", begin().Page(0x11000, tdx, 0, 0, second).Page(0x11000, snp, 0, 0, second), "pages normal 0x10000 0x1000 true\n"},
		{"another directive in between", begin().Area(1, 0x1000).Page(0x11000, snp, 0, 0, second), "pages normal 0x10000 0x1000 true\n"},
	} {
		c.file.Insert(0x80000, snp, 0).Context(0xFFFFFFFFF000, snp, 0, launchtest.Pattern(3))
		m, err := launch.IGVM{File: c.file.Build()}.Measure()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if before, _, _ := strings.Cut(partsOf(m), "parameters"); before != c.before {
			t.Errorf("%s: before the parameters:\n%s\nexpected\n%s", c.name, before, c.before)
		}
	}
}

// Version 2 has 8 bytes more in its fixed header, and the same directives.
func TestIGVMVersion2(t *testing.T) {
	v2 := asVersion2(launchtest.Coconut().Build())
	if got := first(launch.IGVM{File: v2}.Measure()); got.Digest.String() != coconutDigest {
		t.Errorf("%s\nexpected %s", got.Digest, coconutDigest)
	}
	binary.LittleEndian.PutUint32(v2[28:], 0x10000)
	if _, err := (launch.IGVM{File: v2}).Measure(); err == nil || !strings.Contains(err.Error(), "architecture 0 with pages of 65536 bytes") {
		t.Errorf("pages of 64 KiB: %v", err)
	}
}

// asVersion2 inserts what version 2 adds, and moves what headers refer to.
func asVersion2(v1 []byte) []byte {
	le := binary.LittleEndian
	b := append(append([]byte{}, v1[:24]...), 0, 0, 0, 0, 0, 0x10, 0, 0)
	b = append(b, v1[24:]...)
	le.PutUint32(b[4:], 2)
	le.PutUint32(b[8:], 32)
	le.PutUint32(b[16:], uint32(len(b)))
	end := 32 + int(le.Uint32(b[12:]))
	for at := 32; at < end; at += 8 + (int(le.Uint32(b[at+4:]))+7)&^7 {
		typ, reference := le.Uint32(b[at:]), b[at+8+12:]
		if offset := le.Uint32(reference); (typ == 0x302 || typ == 0x304) && offset != 0 {
			le.PutUint32(reference, offset+8)
		}
	}
	le.PutUint32(b[20:], 0)
	le.PutUint32(b[20:], crc32.ChecksumIEEE(b[:end]))
	return b
}

// A file that is signed for a launch digest comes to that, or is refused.
func TestIGVMIDBlock(t *testing.T) {
	digest, err := hex.DecodeString(coconutDigest)
	if err != nil {
		t.Fatal(err)
	}
	if m := first(launch.IGVM{File: launchtest.Coconut().IDBlock(launchtest.SNPMask, digest).Build()}.Measure()); m.Digest.String() != coconutDigest {
		t.Errorf("signed: %s", m.Digest)
	}
	digest[0]++
	if _, err := (launch.IGVM{File: launchtest.Coconut().IDBlock(launchtest.TDXMask, digest).Build()}).Measure(); err != nil {
		t.Errorf("signed for another platform: %v", err)
	}
	_, err = launch.IGVM{File: launchtest.Coconut().IDBlock(launchtest.SNPMask, digest).Build()}.Measure()
	if err == nil || !strings.Contains(err.Error(), "ID block is for the launch digest a4be16") || !strings.Contains(err.Error(), "comes to a3be16") {
		t.Errorf("signed for another digest: %v", err)
	}
}

// No byte that is measured, and no header that says how, can be changed unseen.
func TestIGVMForged(t *testing.T) {
	good := launchtest.Coconut().Build()
	headers := 24 + int(binary.LittleEndian.Uint32(good[12:]))
	for at := range good {
		if at%7 != 0 && at > headers {
			continue
		}
		b := append([]byte{}, good...)
		b[at] ^= 0x40
		m, err := launch.IGVM{File: b}.Measure()
		other := at >= headers+2*launch.PageSize && at < headers+4*launch.PageSize // the CPUID page's content, and TDX's page
		if same := err == nil && m.Digest.String() == coconutDigest; same != other {
			t.Fatalf("byte %#x flipped: %v, the digest is the same: %t", at, err, same)
		}
	}
}

func TestIGVMErrors(t *testing.T) {
	const snp = launchtest.SNPMask
	le := binary.LittleEndian
	end := func(f *launchtest.IGVM) []byte {
		return f.Context(0xFFFFFFFFF000, snp, 0, launchtest.Pattern(4)).Build()
	}
	poke := func(at int, n uint32) []byte {
		b := launchtest.Coconut().Build()
		le.PutUint32(b[at:], n)
		return b
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "offset 0x0: the file ends, expected a fixed header of 24 bytes"},
		{"other file", make([]byte, 24), `expected "IGVM": no IGVM file`},
		{"version", poke(4, 3), "offset 0x4: version 3, expected 1 or 2"},
		{"cut", launchtest.Coconut().Build()[:4096], "offset 0x10: the file's size is "},
		{"headers in the fixed one", poke(8, 16), "offset 0x8: variable headers at 0x10"},
		{"headers not aligned", poke(8, 28), "expected a multiple of 8 from 0x18"},
		{"headers beyond the file", poke(12, 0xFFFFFFF0), "of 0xfffffff0 bytes"},
		{"checksum", poke(20, 1), "offset 0x14: the checksum is 0x1, and the headers come to 0x"},
		{"header beyond the headers", launchtest.Checksum(poke(28, 0x10000)), "offset 0x18: a header of 65536 bytes, and "},
		{"short rest", func() []byte {
			b := launchtest.NewIGVM().Build()
			b = append(b, 1, 2, 3, 4)
			le.PutUint32(b[12:], le.Uint32(b[12:])+4)
			le.PutUint32(b[16:], uint32(len(b)))
			return launchtest.Checksum(b)
		}(), "4 bytes are left of the variable headers, expected 8 at least"},
		{"unknown header", end(launchtest.NewIGVM().Header(0x400)), "a header of the unknown type 0x400, which may not be left out"},
		{"type 0", end(launchtest.NewIGVM().Header(0)), "unknown type 0x0"},
		{"no SEV-SNP", (&launchtest.IGVM{}).Header(1, make([]byte, 16)).Build(), "the file has nothing for SEV-SNP"},
		{"mask 0", (&launchtest.IGVM{}).Header(1, []byte{0, 0, 0, 0, 0, 2, 1, 0}, make([]byte, 8)).Build(), "SEV-SNP's mask is 0x0, expected one bit"},
		{"mask of two bits", (&launchtest.IGVM{}).Header(1, []byte{3, 0, 0, 0, 0, 2, 1, 0}, make([]byte, 8)).Build(), "SEV-SNP's mask is 0x3, expected one bit"},
		{"two masks", (&launchtest.IGVM{}).Header(1, []byte{1, 0, 0, 0, 0, 2, 1, 0}, make([]byte, 8)).Header(1, []byte{2, 0, 0, 0, 0, 2, 1, 0}, make([]byte, 8)).Build(), "offset 0x30: supported platform: SEV-SNP comes twice"},
		{"platform behind directives", end(launchtest.NewIGVM().Area(0, 0x1000).Header(1, make([]byte, 16))), "a header of the type 0x1, expected platforms first"},
		{"unknown in between", end(launchtest.NewIGVM().Header(0x107)), "a header of the unknown type 0x107"},
		{"padding cut", func() []byte {
			b := launchtest.NewIGVM().Header(0x302, make([]byte, 4)).Build()
			b = b[:len(b)-4]
			le.PutUint32(b[12:], le.Uint32(b[12:])-4)
			le.PutUint32(b[16:], uint32(len(b)))
			return launchtest.Checksum(b)
		}(), "a header of 4 bytes, and 4 are left"},
		{"short platform", (&launchtest.IGVM{}).Header(1, make([]byte, 15)).Build(), "offset 0x18: supported platform: 15 bytes, expected 16"},
		{"short page data", end(launchtest.NewIGVM().Header(0x302, make([]byte, 23))), "page data: 23 bytes, expected 24"},
		{"2 MiB", end(launchtest.NewIGVM().Page(0x200000, snp, 1, 0, nil)), "page data: a page of 2 MiB"},
		{"shared", end(launchtest.NewIGVM().Page(0x200000, snp, 4, 0, nil)), "page data: a shared page"},
		{"page's type", end(launchtest.NewIGVM().Page(0x200000, snp, 0, 4, nil)), "page data: type 4, expected 0 to 3"},
		{"address in a page", end(launchtest.NewIGVM().Page(0x200010, snp, 0, 0, nil)), "page data: the address 0x200010, expected a page's below 0x10000000000000"},
		{"address too high", end(launchtest.NewIGVM().Page(1<<52, snp, 0, 0, nil)), "page data: the address 0x10000000000000"},
		{"data in the headers", func() []byte {
			f := launchtest.NewIGVM().Header(0x302, make([]byte, 8), []byte{snp, 0, 0, 0, 8}, make([]byte, 11))
			return end(f)
		}(), "page data: data at 0x8, expected a page from "},
		{"data beyond the file", end(launchtest.NewIGVM().Header(0x302, make([]byte, 8), []byte{snp, 0, 0, 0, 0, 0, 0, 0x10}, make([]byte, 8))), "page data: data at 0x10000000, expected a page from "},
		{"area of no page", end(launchtest.NewIGVM().Area(0, 0)), "parameter area 0 has 0x0 bytes, expected whole pages of 0x1000, and 0x4000000 at most"},
		{"area of part of a page", end(launchtest.NewIGVM().Area(7, 0x1800)), "parameter area 7 has 0x1800 bytes"},
		{"large area", end(launchtest.NewIGVM().Area(0, 1<<40)), "parameter area 0 has 0x10000000000 bytes"},
		{"area twice", end(launchtest.NewIGVM().Area(1, 0x1000).Area(1, 0x1000)), "parameter area 1 comes twice"},
		{"short area", end(launchtest.NewIGVM().Header(0x301, make([]byte, 8))), "parameter area: 8 bytes, expected 16"},
		{"no area", end(launchtest.NewIGVM().Insert(0x1000, snp, 3)), "there is no parameter area 3 that is not inserted yet"},
		{"inserted twice", end(launchtest.NewIGVM().Area(1, 0x1000).Insert(0x1000, snp, 1).Insert(0x1000, snp, 1)), "no parameter area 1 that is not inserted yet"},
		{"insert's address", end(launchtest.NewIGVM().Area(1, 0x1000).Insert(0x1001, snp, 1)), "parameter insert: the address 0x1001"},
		{"large areas", end(launchtest.NewIGVM().Area(1, 64<<20).Area(2, 0x1000).Insert(0, snp, 1).Insert(1<<32, snp, 2)), "all areas have 0x4001000 bytes, expected 0x4000000 at most"},
		{"short insert", end(launchtest.NewIGVM().Header(0x303)), "parameter insert: 0 bytes, expected 16"},
		{"no processor", launchtest.NewIGVM().Page(0x1000, snp, 0, 0, nil).Build(), "the file has no VMSA for SEV-SNP"},
		{"no page and no processor", launchtest.NewIGVM().Build(), "the file has no VMSA for SEV-SNP"},
		{"processor's address", launchtest.NewIGVM().Context(0x1000, snp, 0, launchtest.Pattern(1)).Build(), "VP context: processor 0 at 0x1000, expected 0 at 0xfffffffff000"},
		{"processor's index", launchtest.NewIGVM().Context(0xFFFFFFFFF000, snp, 1, launchtest.Pattern(1)).Build(), "VP context: processor 1 at 0xfffffffff000, expected 0"},
		{"processor's address in a page", launchtest.NewIGVM().Context(0x1001, snp, 0, launchtest.Pattern(1)).Build(), "VP context: the address 0x1001"},
		{"processor without data", launchtest.NewIGVM().Context(0xFFFFFFFFF000, snp, 0, nil).Build(), "VP context: no data"},
		{"short context", launchtest.NewIGVM().Header(0x304).Build(), "VP context: 0 bytes, expected 20"},
		{"page twice", end(launchtest.NewIGVM().Page(0x1000, snp, 0, 0, nil).Page(0x2000, snp, 0, 1, nil).Page(0x1000, snp, 2, 0, nil)), "pages of the type unmeasured at 0x1000 are in memory that pages of the type normal at 0x1000 have"},
		{"parameters over a page", end(launchtest.NewIGVM().Area(1, 0x3000).Page(0x3000, snp, 0, 1, nil).Insert(0x1000, snp, 1)), "secrets of the type secrets at 0x3000 are in memory that parameters of the type unmeasured at 0x1000 have"},
		{"parameters beyond memory", end(launchtest.NewIGVM().Area(1, 0x2000).Insert(1<<52-0x1000, snp, 1)), "parameter insert: the address 0x10000000000000, expected a page's below"},
		{"parameters behind pages without data", end(launchtest.NewIGVM().Area(1, 0x1000).Page(0x1000, snp, 0, 0, nil).Page(0x2000, snp, 0, 0, nil).Insert(0x8000, snp, 1)), "parameter insert: pages without data are right before it: QEMU's versions differ"},
		{"two ID blocks", end(launchtest.NewIGVM().IDBlock(snp, make([]byte, 48)).IDBlock(snp, make([]byte, 48))), "ID block: a second one for SEV-SNP"},
		{"short ID block", end(launchtest.NewIGVM().Header(0x30B, make([]byte, 55))), "ID block: 55 bytes, expected 56 at least"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := launch.IGVM{File: c.file}.Measure()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, expected %q", m, err, c.want)
			}
		})
	}
	if _, err := (launch.IGVM{File: launchtest.Coconut().Build(), VMM: launch.EC2}).Measure(); err == nil || !strings.Contains(err.Error(), "ec2 launches no guests from IGVM files") {
		t.Errorf("EC2: %v", err)
	}
}

func FuzzIGVM(f *testing.F) {
	f.Add(launchtest.Coconut().Build(), false)
	f.Add(inOrder().Build(), true)
	f.Add(launchtest.Interleaved().Build(), false)
	f.Add(asVersion2(launchtest.NewIGVM().Context(0xFFFFFFFFF000, launchtest.SNPMask, 0, launchtest.Pattern(4)).Build()), false)
	f.Fuzz(func(t *testing.T, data []byte, hyperV bool) {
		vmm := launch.QEMU
		if hyperV {
			vmm = launch.HyperV
		}
		le := binary.LittleEndian
		if len(data) >= 32 { // or hardly any input has a checksum that is right
			if end := uint64(le.Uint32(data[8:])) + uint64(le.Uint32(data[12:])); le.Uint32(data[8:]) == 24 && end <= uint64(len(data)) {
				data = launchtest.Checksum(bytes.Clone(data))
			}
		}
		m, err := launch.IGVM{File: data, VMM: vmm}.Measure()
		if err != nil {
			readertest.CheckLine(t, err.Error(), 512)
			return
		}
		if len(m.Parts) > len(data)/24 {
			t.Errorf("%d parts in %d bytes", len(m.Parts), len(data))
		}
	})
}
