package launch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
	"tallystick/rtmr"
)

// TestMRTD measures the test's own images. The values are those of gce-tcb-verifier
// (PageByPage, and what Google's host measured at first) and dstack-mr
// (SectionTwice; of PageByPage it gives the same as gce-tcb-verifier), which read
// the same images.
func TestMRTD(t *testing.T) {
	const c3standard4, c3standard88 = 16 << 30, 352 << 30
	for _, c := range []struct {
		name  string
		image tdvftest.Image
		td    launch.TDX
		want  string
	}{
		{"4M page by page", tdvftest.EDK2(), launch.TDX{}, "ab1168def746ea59156f4c4719ac0d65914665fa17a7503f2b4c73453edbc99a5672008b4024aec3afb3b6f3d273aa53"},
		{"4M QEMU 9", tdvftest.EDK2(), launch.TDX{Host: launch.TDXQEMU9}, "ab1168def746ea59156f4c4719ac0d65914665fa17a7503f2b4c73453edbc99a5672008b4024aec3afb3b6f3d273aa53"},
		{"4M section twice", tdvftest.EDK2(), launch.TDX{Host: launch.TDXQEMU8}, "5858421b26fb66e4e6c5c50dde215abffd28e8e60b88370e55843330583e147ab888c33b5f6d3f8b7d81b6eeaab3d824"},
		{"4M Google's", tdvftest.EDK2(), launch.TDX{Host: launch.TDXGCE}, "ab1168def746ea59156f4c4719ac0d65914665fa17a7503f2b4c73453edbc99a5672008b4024aec3afb3b6f3d273aa53"},
		{"2M page by page", tdvftest.Small(), launch.TDX{}, "e2cde80031a113d298311f2564a67ccbf46df892644874e3a850426c3cb85562c8e70061f51bb83c98d0dd5a9f20ff2e"},
		{"2M section twice", tdvftest.Small(), launch.TDX{Host: launch.TDXQEMU8}, "daed03c4358251b9564b73235da97eae5fa59014f9aea9b566219f32bb32355b7ab4bd35b306acd01e9e770f2d622fb6"},
		{"2M all, 16 GiB", tdvftest.Small(), launch.TDX{Host: launch.TDXGCEAll, Memory: c3standard4}, "78d0c524c1248c6435ffcc67b513829b5ccbd8bda7ea4a6e8a8e5974385aff0c7a2efeff8ed229d4b8d8309b2463dd86"},
		{"2M all, 16 GiB, early", tdvftest.Small(), launch.TDX{Host: launch.TDXGCEAll, Memory: c3standard4, EarlyAccept: true}, "844aa42ab287a915dcff564f84af550ef11a504cbe2696c8ad2316e1af048c7091d523bb2fc45d65d104e1af27d33e0d"},
		{"2M all, 352 GiB", tdvftest.Small(), launch.TDX{Host: launch.TDXGCEAll, Memory: c3standard88}, "478d78a1a0c3c895001df409d47130e80f79953cf8d7d45ae97f8857de8311368c1cc6a314565d3d1e0da7b5c9e9954b"},
		{"2M all, 352 GiB, early", tdvftest.Small(), launch.TDX{Host: launch.TDXGCEAll, Memory: c3standard88, EarlyAccept: true}, "f85b8c00bdad46d698a55d50c7d582a39b1ee43694385693c39bed8cd351372f8992b8cfd48519eb3138362c4848532b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.td.Firmware = parse(t, c.image)
			m, err := c.td.Measure()
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Values[rtmr.SHA384][rtmr.MRTD].String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// debianTDVFs are images of Debian's packages, by their SHA-256, with what
// gce-tcb-verifier and dstack-mr give of them page by page, and dstack-mr section
// by section.
var debianTDVFs = map[string]struct{ of, pageByPage, sectionTwice string }{
	"7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773": {"OVMF.fd of ovmf 2022.11-6+deb12u2",
		"4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47",
		"acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b33db3b32e6924cba830a724eed443f7e1"},
	"14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db": {"OVMF.fd of ovmf 2025.02-8+deb13u1",
		"bdc6fb145880f06f30c8b346b8dce2a99d9351b56892df22f80fcf6574caa9f9c31df8e8576d53b4d0cd1c3f28910e11",
		"456f07902150d008bb913c3e1e84e9297f735a6c83cd2a957a1f0a8bbedb06df188e3837ae48d32c73d473d097dc0db2"},
	"a265075b4147a096109e501e76196df1ec8a18659c26f7401492c597ec88f312": {"OVMF.inteltdx.ms.fd of ovmf-inteltdx 2026.08+ds-2",
		"a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08",
		"b90b236113eb4c0d4df4ef590568c14e6028a3a31d7e8ac63dee9845df5008d3ebf82d4f5974e933798f65d7a279b9a9"},
	"3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f": {"OVMF.amdsev.fd of ovmf-amdsev 2026.08+ds-2",
		"5f77220a7135b2be2087c3555b897a1c56ca84516fafc622a33fa498a46305a12597a18bb57bc50f714ffab9fe6f004d",
		"85ed058ce01afaac31effa3fcf2cdf65bd0e4e3bcf61adabb3ece33fdf300b569785d7d6c0c3d29fe11bbbc09da1cd43"},
}

// TestMRTDOfDebian measures what of Debian's images is installed, or was unpacked
// for the lab's machines.
func TestMRTDOfDebian(t *testing.T) {
	compared := 0
	for _, path := range debianFiles(t, "usr/share/ovmf/OVMF*.fd") {
		image, sum := readDebian(t, path)
		want, known := debianTDVFs[sum]
		if !known {
			t.Logf("%s: another image than those whose MRTD is known", path)
			continue
		}
		v, err := launch.ParseTDVF(image)
		if err != nil {
			t.Fatal(err)
		}
		for order, want := range map[launch.PageOrder]string{launch.PageByPage: want.pageByPage, launch.SectionTwice: want.sectionTwice} {
			mrtd, _, err := v.MRTD(order)
			if err != nil {
				t.Fatal(err)
			}
			if got := mrtd.String(); got != want {
				t.Errorf("%s, order %d: got  %s\nwant %s", path, order, got, want)
			}
		}
		compared++
	}
	t.Logf("%d images compared", compared)
}

// debianFiles are those of a pattern on this machine, and where the lab unpacks
// Debian's packages.
func debianFiles(t *testing.T, pattern string) (paths []string) {
	t.Helper()
	roots := []string{"/"}
	if cache, err := os.UserCacheDir(); err == nil {
		roots = append(roots, filepath.Join(cache, "tallystick", "lab", "*"))
	}
	for _, root := range roots {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// readDebian returns a file and its SHA-256.
func readDebian(t *testing.T, path string) (data []byte, sum string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(data)
	return data, hex.EncodeToString(hash[:])
}

// TestMRTDCovers: every byte of the code counts, and of other sections the place
// alone.
func TestMRTDCovers(t *testing.T) {
	mrtd := func(b []byte) string {
		t.Helper()
		v, err := launch.ParseTDVF(b)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := v.MRTD(launch.PageByPage)
		if err != nil {
			t.Fatal(err)
		}
		return m.String()
	}
	image := tdvftest.Small().Bytes()
	was := mrtd(image)
	change := func(at int) string {
		image[at] ^= 0x10
		defer func() { image[at] ^= 0x10 }()
		return mrtd(image)
	}
	for _, at := range []int{tdvftest.CFV2M, tdvftest.CFV2M + 255, tdvftest.CFV2M + 256, 1 << 20, len(image) - 1} {
		if change(at) == was {
			t.Errorf("a change of the code at %#x leaves MRTD as it is", at)
		}
	}
	for _, at := range []int{100, tdvftest.CFV2M - 1} {
		if change(at) != was {
			t.Errorf("a change of the variables at %#x changes MRTD, and they are not extended", at)
		}
	}
	// From here on the metadata are not in the code.
	was = mrtd(apart().Bytes())
	for i := range apart().Sections {
		v := apart()
		v.Sections[i].MemoryAddress += 1 << 20
		if v.Sections[i].Type == launch.TDVFBFV || v.Sections[i].Type == launch.TDVFCFV {
			v.Sections[i].MemoryAddress -= 1 << 24
		}
		if mrtd(v.Bytes()) == was {
			t.Errorf("section %d elsewhere leaves MRTD as it is", i)
		}
	}
	v := apart()
	v.Sections[2], v.Sections[3] = v.Sections[3], v.Sections[2]
	if mrtd(v.Bytes()) == was {
		t.Error("sections in another order leave MRTD as it is")
	}
	v = apart()
	v.Sections[1].Attributes = launch.TDVFExtend
	if mrtd(v.Bytes()) == was {
		t.Error("extended variables leave MRTD as it is")
	}
	v = apart()
	v.Sections = v.Sections[:5]
	if mrtd(v.Bytes()) == was {
		t.Error("a section less leaves MRTD as it is")
	}
}

func apart() tdvftest.Image {
	v := tdvftest.Small()
	v.Apart = true
	return v
}

// TestPageAug: pages that the TD accepts itself are not added.
func TestPageAug(t *testing.T) {
	v := apart()
	was, _, err := parse(t, v).MRTD(launch.PageByPage)
	if err != nil {
		t.Fatal(err)
	}
	v.Sections = append(v.Sections, launch.TDVFSection{MemoryAddress: 0x900000, MemoryDataSize: 0x5000, Type: launch.TDVFPermMem, Attributes: launch.TDVFPageAug})
	got, parts, err := parse(t, v).MRTD(launch.PageByPage)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != was.String() || parts[6].Added != 0 {
		t.Errorf("with %d pages added, %s, want none and %s", parts[6].Added, got, was)
	}
}

// TestNoMRTD: what is extended and is not in the image is the VMM's.
func TestNoMRTD(t *testing.T) {
	for _, c := range []struct {
		name    string
		section launch.TDVFSection
		want    string
	}{
		{"code that is shorter than its memory", launch.TDVFSection{DataOffset: 0x20000, RawDataSize: 0x1df000, MemoryAddress: 0xffe20000, MemoryDataSize: 0x1e0000, Type: launch.TDVFBFV, Attributes: 1},
			"section 0 (BFV): it is extended, and RawDataSize 0x1df000 is not MemoryDataSize 0x1e0000"},
		{"payload", launch.TDVFSection{MemoryAddress: 0x1000000, MemoryDataSize: 0x1000, Type: launch.TDVFPayload, Attributes: 1}, "section 6 (Payload): it is extended, and what is in it is the VMM's"},
		{"TD_HOB", launch.TDVFSection{MemoryAddress: 0x809000, MemoryDataSize: 0x2000, Type: launch.TDVFTDHOB, Attributes: 1}, "section 4 (TD_HOB): it is extended, and what is in it is the VMM's"},
		{"TempMem", launch.TDVFSection{MemoryAddress: 0x1000000, MemoryDataSize: 0x1000, Type: launch.TDVFTempMem, Attributes: 1}, "section 6 (TempMem): it is extended"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := tdvftest.Small()
			switch c.section.Type {
			case launch.TDVFBFV:
				v.Sections[0] = c.section
			case launch.TDVFTDHOB:
				v.Sections[4] = c.section
			default:
				v.Sections = append(v.Sections, c.section)
			}
			_, _, err := parse(t, v).MRTD(launch.PageByPage)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
