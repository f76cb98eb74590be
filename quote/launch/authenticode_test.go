package launch_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/readertest"
	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
	"tallystick/rtmr"
)

// stubDigest is what osslsigncode 2.9 signs of the test's kernel (extract-data -h
// sha384).
const stubDigest = "14b334452d91f229fbbe95c2b129b9f018d2aecbfabce0cbb943a8f380adaada1121acda549af63a36b0a27e87af2d90"

func authenticode(t *testing.T, image []byte) string {
	t.Helper()
	pe, err := launch.ParsePE(image)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(pe.Authenticode(rtmr.SHA384))
}

func TestAuthenticode(t *testing.T) {
	if got := authenticode(t, tdvftest.Kernel()); got != stubDigest {
		t.Errorf("got  %s\nwant %s", got, stubDigest)
	}
}

// signed is the test's kernel with something in the place of a signature.
func signed() []byte {
	b := tdvftest.Kernel()
	certificate := make([]byte, 24)
	binary.LittleEndian.PutUint32(b[0x40+24+112+32:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[0x40+24+112+36:], uint32(len(certificate)))
	return append(b, certificate...)
}

// TestAuthenticodeCovers: a signature changes nothing, nor does CheckSum; every
// other byte does.
func TestAuthenticodeCovers(t *testing.T) {
	image := signed()
	if got := authenticode(t, image); got != stubDigest {
		t.Errorf("signed: got %s, want %s", got, stubDigest)
	}
	for _, at := range []int{0x40 + 24 + 64, 0x40 + 24 + 67, len(image) - 1, len(image) - 24} {
		image[at] ^= 1
		if got := authenticode(t, image); got != stubDigest {
			t.Errorf("a change at %#x changes the digest", at)
		}
		image[at] ^= 1
	}
	for _, at := range []int{2, 0x40 + 24 + 59, 0x40 + 24 + 68, 0x40 + 24 + 112 + 31, 0x40 + 24 + 112 + 40, 0xfff, 0x1000, 0x1fff, 0x2000, 0x2fff, 0x3000, len(image) - 25} {
		image[at] ^= 1
		if got := authenticode(t, image); got == stubDigest {
			t.Errorf("a change at %#x leaves the digest as it is", at)
		}
		image[at] ^= 1
	}
}

// TestRealAuthenticode: firmware measured just that of the very files, where the
// lab has unpacked them (fixtures/shim-grub-sb-6.12, and of the kernel inside the
// unified image of fixtures/uki-7.3, whose digests a TPM's quote stands for).
func TestRealAuthenticode(t *testing.T) {
	measured := append(logged(t, "shim-grub-sb-6.12", "EV_EFI_BOOT_SERVICES_APPLICATION"), logged(t, "uki-7.3", "EV_EFI_BOOT_SERVICES_APPLICATION")[1])
	for i, pattern := range []string{"usr/lib/shim/shimx64.efi.signed", "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", debianKernel, "7.3/usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz"} {
		for _, path := range debianFiles(t, pattern) {
			image, sum := readDebian(t, path)
			if sum != measuredFiles[i] {
				t.Logf("%s: another file than the one that was measured", path)
				continue
			}
			if got := authenticode(t, image); got != measured[i] {
				t.Errorf("%s: got  %s\nwant %s", path, got, measured[i])
			}
			t.Logf("%s compared", path)
		}
	}
}

// debianKernel is the kernel of the lab's machines that are called "6.12".
const debianKernel = "6.12/boot/vmlinuz-6.12.117+deb13-cloud-amd64"

// measuredFiles are the SHA-256 of shim, GRUB and the kernels.
var measuredFiles = [4]string{"e103c5d02657879f141b086ed703584d28bb9e2721b423333be085ee1b4d397b", "970bccf30d50a10b6f8559474a8de0f61218431c0f969a22231f8c8542573565", "ed8f0dbdbefe3994093937f5ee934818ae902b88cb0b6bc423811c10d55b87b0", "7435b9178e91998f4f70774510c4ffad6764a08c64b17f7ef9c4252ea5948932"}

// bootEvents are what the firmware of a fixture's machine logged.
func bootEvents(t testing.TB, fixture string) iter.Seq[rtmr.Measurement] {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "fixtures", fixture, "boot.bin"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := eventlog.NewReader(bytes.NewReader(data), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return func(yield func(rtmr.Measurement) bool) {
		for m, err := range r.Measurements() {
			if err != nil {
				t.Fatal(err)
			}
			if !yield(m) {
				return
			}
		}
	}
}

// logged returns the SHA-384 digests of a fixture's events of a type, in order.
func logged(t *testing.T, fixture, kind string) (digests []string) {
	t.Helper()
	for m := range bootEvents(t, fixture) {
		for _, d := range m.Digests {
			if m.Entry.Type() == kind && d.Alg == rtmr.SHA384 {
				digests = append(digests, hex.EncodeToString(d.Sum))
			}
		}
	}
	return digests
}

func TestMalformedPE(t *testing.T) {
	le := binary.LittleEndian
	put := func(at int, value uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(b[at:], value); return b }
	}
	const optional, table = 0x40 + 24, 0x40 + 24 + 0xa0
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"empty", func(b []byte) []byte { return nil }, "offset 0: no PE image"},
		{"no MZ", func(b []byte) []byte { b[0] = 'X'; return b }, "offset 0: no PE image"},
		{"header elsewhere", put(0x3c, 0x44), "offset 0x44: no PE header"},
		{"header beyond", put(0x3c, 0x3000), "offset 0x3000: no PE header"},
		{"header far beyond", put(0x3c, 1<<32-1), "offset 0xffffffff: no PE header"},
		{"cut off", func(b []byte) []byte { return b[:0x100] }, "SizeOfHeaders 0x1000, and the image has 0x100 bytes"},
		{"magic", func(b []byte) []byte { b[optional] = 0; return b }, "offset 0x58: magic 0x200, expected 0x10b or 0x20b"},
		{"headers too long", put(optional+60, 1<<32-1), "SizeOfHeaders 0xffffffff"},
		{"headers too short", put(optional+60, table), "not in SizeOfHeaders"},
		{"no certificates in the directory", put(optional+108, 4), "no entry for certificates: the directory has 4 entries"},
		{"optional header too short", func(b []byte) []byte { le.PutUint16(b[0x40+20:], 151); return b }, "the optional header 151 bytes"},
		{"certificates beyond", func(b []byte) []byte { return put(optional+112+36, 0x11)(put(optional+112+32, 0x3000)(b)) }, "the certificates are at 0x3000 to 0x3011, expected behind the headers to the image's end, 0x3010"},
		{"certificates before the end", func(b []byte) []byte { return put(optional+112+36, 8)(put(optional+112+32, 0x3000)(b)) }, "the certificates are at 0x3000 to 0x3008"},
		{"certificates in the headers", func(b []byte) []byte { return put(optional+112+36, 0x3010-0x100)(put(optional+112+32, 0x100)(b)) }, "the certificates are at 0x100 to 0x3010"},
		{"section beyond", put(table+20, 0x2011), "section 0: SizeOfRawData 0x1000 and PointerToRawData 0x2011 end at 0x3011"},
		{"section in the certificates", func(b []byte) []byte {
			return put(table+20, 0x2010)(put(optional+112+36, 0x10)(put(optional+112+32, 0x3000)(b)))
		}, "section 0: SizeOfRawData 0x1000 and PointerToRawData 0x2010 end at 0x3010, and the image without certificates has 0x3000"},
		{"sections overlap", put(table+40+20, 0x1fff), `offset 0x2000: the data of section ".text" begin in those of ".data", which end at 0x2fff`},
		{"too many sections", func(b []byte) []byte { le.PutUint16(b[0x46:], 97); return b }, "the table of 97 sections is not in SizeOfHeaders"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := launch.ParsePE(c.change(tdvftest.Kernel()))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzParsePE: an image that is read has a digest, over no more than the image.
func FuzzParsePE(f *testing.F) {
	f.Add(tdvftest.Kernel())
	f.Add(signed())
	f.Add(tdvftest.Kernel()[:0x200])
	f.Fuzz(func(t *testing.T, image []byte) {
		pe, err := launch.ParsePE(image)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		total := 0
		for _, s := range pe.Sections {
			total += len(s.Data)
		}
		if total > len(image) {
			t.Errorf("sections of %d bytes in an image of %d", total, len(image))
		}
		if n := len(pe.Authenticode(rtmr.SHA384)); n != 48 {
			t.Errorf("a digest of %d bytes", n)
		}
	})
}
