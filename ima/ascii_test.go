package ima_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/internal/readertest"
	"tallystick/rtmr"
)

var allBanks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}

// entryText is what two readers of one list must agree on.
func entryText(m *rtmr.Measurement) string {
	e := m.Entry.(*ima.Entry)
	return fmt.Sprintf("%s %s %x %v", m.Register, e.Template(), e.Data(), m.Digests)
}

func binaryEntries(t testing.TB, list []byte) (out []string) {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: allBanks})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entryText(&m))
	}
	return out
}

func asciiEntries(list []byte, opts ima.Options) (out []string, warnings []string, err error) {
	opts.Banks = allBanks
	r, err := ima.NewASCIIReader(bytes.NewReader(list), opts)
	if err != nil {
		return nil, nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return out, r.Warnings(), err
		}
		out = append(out, entryText(&m))
	}
	return out, r.Warnings(), nil
}

// The kernel's own ASCII list has the same entries as its binary one, down to
// the template data.
func TestASCIIEqualsBinary(t *testing.T) {
	pairs, err := filepath.Glob("../fixtures/*/ima.ascii")
	if err != nil || len(pairs) < 3 {
		t.Fatalf("%d fixtures with an ASCII list, %v", len(pairs), err)
	}
	captures, _ := filepath.Glob("../../shared/lab/captures/*/ima.ascii_runtime_measurements")
	for _, ascii := range append(pairs, captures...) {
		t.Run(filepath.Base(filepath.Dir(ascii)), func(t *testing.T) {
			text, err := os.ReadFile(ascii)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Dir(ascii)
			list, err := os.ReadFile(filepath.Join(dir, "ima.bin"))
			if err != nil {
				list, err = os.ReadFile(filepath.Join(dir, "ima.binary_runtime_measurements"))
			}
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := asciiEntries(text, ima.Options{})
			want := binaryEntries(t, list)
			if err != nil || len(got) != len(want) {
				t.Fatalf("%d entries, the binary list has %d; %v", len(got), len(want), err)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("entry %d\n got %s\nwant %s", i, got[i], want[i])
				}
			}
		})
	}
}

// asciiLine renders an entry as the kernel does (ima_ascii_measurements_show
// and ima_show_template_data_ascii), from its template data.
func asciiLine(pcr int, hash []byte, template string, fields []string) string {
	line := fmt.Sprintf("%2d %x %s", pcr, hash, template)
	for _, f := range fields {
		line += " " + f
	}
	return line + "\n"
}

func field(order binary.AppendByteOrder, data string) string {
	return string(order.AppendUint32(nil, uint32(len(data)))) + data
}

const hexDigest = "abababababababababababababababababababababababababababababababab"

var digest = strings.Repeat("\xAB", 32)

// templateCases are entries of each template, with names that try a reader.
var templateCases = []struct {
	name, template string
	data           []string // the fields' data as the kernel has them
	text           []string // and as it shows them
}{
	{"ima-ngv2", "ima-ngv2", []string{"verity:sha256:\x00" + digest, "/bin/sh\x00"}, []string{"verity:sha256:" + hexDigest, "/bin/sh"}},
	{"ima-sig_unsigned", "ima-sig", []string{"sha256:\x00" + digest, "/bin/sh\x00", ""}, []string{"sha256:" + hexDigest, "/bin/sh", ""}},
	{"ima-sig", "ima-sig", []string{"sha256:\x00" + digest, "/bin/sh\x00", "\x03\x02\x04"}, []string{"sha256:" + hexDigest, "/bin/sh", "030204"}},
	{"ima-buf", "ima-buf", []string{"sha256:\x00" + digest, "kexec-cmdline\x00", "root=/dev/vda"}, []string{"sha256:" + hexDigest, "kexec-cmdline", hex.EncodeToString([]byte("root=/dev/vda"))}},
	{"ima-modsig", "ima-modsig", []string{"sha256:\x00" + digest, "/m.ko\x00", "", "sha512:\x00\x01\x02", "0\x82"}, []string{"sha256:" + hexDigest, "/m.ko", "", "sha512:0102", "3082"}},
	{"evm-sig", "evm-sig",
		[]string{"sha256:\x00" + digest, "/bin/sh\x00", "\x05\x02", "security.selinux|security.ima\x00", "\x10\x00\x00\x00", "system_u", "\xe8\x03\x00\x00", "\x00\x00\x00\x00", "\xed\x81"},
		[]string{"sha256:" + hexDigest, "/bin/sh", "0502", "security.selinux|security.ima", "10000000", hex.EncodeToString([]byte("system_u")), "1000", "0", "33261"}},
	{"evm-sig_no_inode", "evm-sig",
		[]string{"sha256:\x00" + digest, "boot_aggregate\x00", "", "", "", "", "", "", ""},
		[]string{"sha256:" + hexDigest, "boot_aggregate", "", "", "", "", "", "", ""}},
	{"custom_format", "n-ng|d-ng|sig", []string{"/bin/sh\x00", "sha256:\x00" + digest, "\x03"}, []string{"/bin/sh", "sha256:" + hexDigest, "03"}},
	{"out_of_tree", "ima-cgpath", []string{"/bin/bash:/sbin/init\x00", "/docker/1f\x00", "sha256:\x00" + digest, "/bin/sh\x00"}, []string{"/bin/bash:/sbin/init", "/docker/1f", "sha256:" + hexDigest, "/bin/sh"}},
	{"unknown_template_guessed", "ima-mine", []string{"sha256:\x00" + digest, "/bin/sh\x00", "\x03\x02"}, []string{"sha256:" + hexDigest, "/bin/sh", "0302"}},
	{"name_with_spaces", "ima-sig", []string{"sha256:\x00" + digest, "/a b c\x00", ""}, []string{"sha256:" + hexDigest, "/a b c", ""}},
	{"name_with_line_ends", "ima-sig", []string{"sha256:\x00" + digest, "/a\n\nb\n\x00", "\x03"}, []string{"sha256:" + hexDigest, "/a\n\nb\n", "03"}},
	{"name_not_utf8", "ima-ng", []string{"sha256:\x00" + digest, "/\xff\xfe\x00"}, []string{"sha256:" + hexDigest, "/\xff\xfe"}},
	// A name that reads as an entry of its own. Its hash is of other data,
	// so it is no entry.
	{"name_that_forges_an_entry", "ima-ng", []string{"sha256:\x00" + digest, "/a\n10 " + strings.Repeat("c", 40) + " ima-ng sha256:" + hexDigest + " /bin/b\x00"},
		[]string{"sha256:" + hexDigest, "/a\n10 " + strings.Repeat("c", 40) + " ima-ng sha256:" + hexDigest + " /bin/b"}},
}

func TestASCIITemplates(t *testing.T) {
	le := binary.LittleEndian
	for _, tc := range templateCases {
		for _, order := range []binary.AppendByteOrder{le, binary.BigEndian} {
			if order != le && tc.name == "evm-sig" {
				continue // whose data have little-endian numbers here
			}
			t.Run(tc.name+"/"+order.(fmt.Stringer).String(), func(t *testing.T) {
				var data string
				for _, f := range tc.data {
					data += field(order, f)
				}
				hash := sha256.Sum256([]byte(data))
				plain := ng(order, "/usr/bin/true")
				plainHash := sha256.Sum256(plain)
				after := asciiLine(10, plainHash[:], "ima-ng", []string{"sha256:" + hexDigest, "/usr/bin/true"})
				got, warnings, err := asciiEntries([]byte(asciiLine(9, hash[:], tc.template, tc.text)+after), ima.Options{})
				if err != nil || len(got) != 2 {
					t.Fatalf("%d entries, want 2; %v; %q", len(got), err, warnings)
				}
				sum1 := sha1.Sum([]byte(data))
				want := fmt.Sprintf("pcr9 %s %x [sha256:%x sha1:%x", tc.template, data, hash, sum1)
				if !strings.HasPrefix(got[0], want) {
					t.Errorf("\n got %s\nwant %s..", got[0], want)
				}
				if want := fmt.Sprintf("pcr10 ima-ng %x ", plain); !strings.HasPrefix(got[1], want) {
					t.Errorf("\n got %s\nwant %s..", got[1], want)
				}
			})
		}
	}
}

// The template "ima" hashes the name padded to 256 bytes.
func TestASCIITemplateIMA(t *testing.T) {
	for _, size := range []int{20, 16} { // SHA-1, MD5
		digest := bytes.Repeat([]byte{0x5A}, size)
		hash := sha1.Sum(append(append(bytes.Clone(digest), "/bin/sh"...), make([]byte, 256-len("/bin/sh"))...))
		got, _, err := asciiEntries([]byte(asciiLine(10, hash[:], "ima", []string{hex.EncodeToString(digest), "/bin/sh"})), ima.Options{})
		want := fmt.Sprintf("pcr10 ima %x%x [sha1:%x", digest, "/bin/sh", hash)
		if err != nil || len(got) != 1 || !strings.HasPrefix(got[0], want) {
			t.Errorf("digest of %d bytes: %q %v, want %s", size, got, err, want)
		}
	}
}

// A violation has zeros for a hash, and its name is as long as the lines that
// can be no entry.
func TestASCIIViolation(t *testing.T) {
	zeros, digest := make([]byte, 20), "sha256:"+strings.Repeat("00", 32)
	list := asciiLine(10, zeros, "ima-ng", []string{digest, "/a\nb"}) + asciiLine(10, zeros, "ima-ng", []string{digest, "/c"})
	got, warnings, err := asciiEntries([]byte(list), ima.Options{})
	if err != nil || len(got) != 2 {
		t.Fatalf("%d entries, want 2; %v", len(got), err)
	}
	for i, name := range []string{"/a\nb\x00", "/c\x00"} {
		if !strings.Contains(got[i], hex.EncodeToString([]byte(name))+" [sha1:"+strings.Repeat("ff", 20)+" sha256:"+strings.Repeat("ff", 32)) {
			t.Errorf("entry %d is %s", i, got[i])
		}
	}
	if !strings.Contains(strings.Join(warnings, "\n"), "entry 0 has a line end in a name") {
		t.Errorf("%q", warnings)
	}
}

// An entry whose fields cannot be rebuilt is told of, and has no digest but
// the recorded one.
func TestASCIIOpaque(t *testing.T) {
	r, err := ima.NewASCIIReader(strings.NewReader(asciiLine(10, bytes.Repeat([]byte{7}, 20), "mine", []string{"x", "y"})), ima.Options{Banks: allBanks})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		n++
		c, _ := m.Entry.Verify(m.Digests[0])
		if len(m.Digests) != 1 || c != rtmr.CannotCheck || !m.Entry.(*ima.Entry).Opaque() || m.Entry.Detail() != "x y" {
			t.Errorf("%v %v %q", m.Digests, c, m.Entry.Detail())
		}
	}
	if n != 1 || !strings.Contains(strings.Join(r.Warnings(), "\n"), "1 entries are of a template whose fields are not known") {
		t.Errorf("%d entries, %q", n, r.Warnings())
	}
}

func TestASCIIForgedEntryContradicts(t *testing.T) {
	text, err := os.ReadFile("../fixtures/ng-small-6.1/ima.ascii")
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(text, []byte("/opt/one"), []byte("/opt/onf"), 1)
	r, err := ima.NewASCIIReader(bytes.NewReader(forged), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var contradicts []int
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := m.Entry.Verify(m.Digests[0]); c == rtmr.Contradicts {
			contradicts = append(contradicts, m.Index)
		}
	}
	at := bytes.Count(forged[:bytes.Index(forged, []byte("/opt/onf"))], []byte("\n"))
	if len(contradicts) != 1 || contradicts[0] != at {
		t.Errorf("entries %v contradict themselves, want %d alone", contradicts, at)
	}
}

// A list whose line ends have become CRLF has the entries that it had, those
// with line ends in their names and violations too.
func TestASCIICRLF(t *testing.T) {
	le := binary.LittleEndian
	violation := asciiLine(10, make([]byte, 20), "ima-ng", []string{"sha256:" + strings.Repeat("00", 32), "/c"})
	signed := asciiLine(10, sum1(append(ng(le, "/bin/sh"), field(le, "\x03\x02")...)), "ima-sig", []string{"sha256:" + hexDigest, "/bin/sh", "0302"})
	for _, tc := range []struct{ name, list string }{
		{"fixture", string(fixtureASCII(t, "violations-7.3"))},
		{"verity", string(fixtureASCII(t, "ngv2-verity-6.12"))},
		{"signature", signed},
		{"violation_first", violation + provenLine("/bin/sh")},
		{"line_end_in_a_name", provenLine("/a\nb") + provenLine("/c")},
		{"names_that_end_in_cr", provenLine("/bin/sh") + provenLine("/a\r") + provenLine("/b\r\nc")},
		{"no_line_end_at_the_end", provenLine("/bin/sh") + strings.TrimSuffix(provenLine("/c"), "\n")},
		{"blank_lines_at_the_end", provenLine("/bin/sh") + "\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want, _, err := asciiEntries([]byte(tc.list), ima.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got, warnings, err := asciiEntries([]byte(strings.ReplaceAll(tc.list, "\n", "\r\n")), ima.Options{})
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("got %d entries, %v; want %d, the same as with LF", len(got), err, len(want))
			}
			if n := strings.Count(strings.Join(warnings, "\n"), "line ends are CRLF"); n != 1 {
				t.Errorf("%d of the warnings tell of it: %q", n, warnings)
			}
		})
	}
}

// Names that end in a carriage return make no CRLF list: the hashes say so.
func TestASCIINamesThatEndInCR(t *testing.T) {
	got, warnings, err := asciiEntries([]byte(provenLine("/a\r")+provenLine("/b\r")), ima.Options{})
	if err != nil || len(got) != 2 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for i, name := range []string{"/a\r", "/b\r"} {
		if want := fmt.Sprintf("pcr10 ima-ng %x ", ng(binary.LittleEndian, name)); !strings.HasPrefix(got[i], want) {
			t.Errorf("entry %d is %s, want %s", i, got[i], want)
		}
	}
	if strings.Contains(strings.Join(warnings, "\n"), "CRLF") {
		t.Errorf("warnings %q", warnings)
	}
}

// provenLine is an entry of the template ima-ng whose template hash is right.
func provenLine(name string) string {
	return asciiLine(10, sum1(ng(binary.LittleEndian, name)), "ima-ng", []string{"sha256:" + hexDigest, name})
}

func fixtureASCII(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../fixtures", name, "ima.ascii"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestASCIIMalformed(t *testing.T) {
	good := asciiLine(10, sum1(ng(binary.LittleEndian, "/bin/sh")), "ima-ng", []string{"sha256:" + strings.Repeat("ab", 32), "/bin/sh"})
	if _, _, err := asciiEntries([]byte(good+"\n\n"), ima.Options{}); err != nil {
		t.Errorf("blank lines at the end: %v", err)
	}
	if got, _, err := asciiEntries([]byte(strings.TrimSuffix(good, "\n")), ima.Options{}); err != nil || len(got) != 1 {
		t.Errorf("no line end at the end: %d entries, %v", len(got), err)
	}
	n := len(good)
	for _, tc := range []struct {
		name, list, field string
		offset            int
	}{
		{"cut", good + good[:n-3], "entry", n + n - 3},
		{"register", good + "64" + good[2:], "PCR index", n},
		{"other_bank", good + "10 " + strings.Repeat("0", 64) + " ima-ng x y\n", "template hash", n + 3},
		{"hash", good + "10 xyz ima-ng\n", "template hash", n + 3},
		{"digest", good + "10 " + strings.Repeat("1", 40) + " ima-ng sha256:xy /bin/sh\n", "field d-ng", n + 51},
		{"signature", good + "10 " + strings.Repeat("1", 40) + " ima-sig sha256:00 /bin/sh zz\n", "field sig", n + 52 + 18},
		{"blank", good + "\n" + good, "entry", n},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _, err := asciiEntries([]byte(tc.list), ima.Options{})
			var syntax *ima.SyntaxError
			if len(got) != 1 || !errors.As(err, &syntax) {
				t.Fatalf("%d entries, %v", len(got), err)
			}
			if syntax.Entry != 1 || syntax.Field != tc.field || syntax.Offset != int64(tc.offset) {
				t.Errorf("%+v, want field %s at %d", syntax, tc.field, tc.offset)
			}
		})
	}
}

func sum1(b []byte) []byte {
	s := sha1.Sum(b)
	return s[:]
}

func TestDetectASCII(t *testing.T) {
	for size, want := range map[int]rtmr.Alg{20: rtmr.SHA1, 32: rtmr.SHA256, 48: rtmr.SHA384, 64: rtmr.SHA512} {
		if alg, ok := ima.DetectASCII([]byte(asciiLine(2, make([]byte, size), "ima-ng", []string{"x"}))); !ok || alg != want {
			t.Errorf("%d bytes: %s %v", size, alg, ok)
		}
	}
	for _, s := range []string{"", "\n", "10", "10 00 ima", strconv.Itoa(1 << 20), "ten " + strings.Repeat("0", 40) + " ima"} {
		if _, ok := ima.DetectASCII([]byte(s)); ok {
			t.Errorf("%q is recognised", s)
		}
	}
}

func FuzzASCII(f *testing.F) {
	le := binary.LittleEndian
	f.Add([]byte(asciiLine(10, sum1(ng(le, "/bin/sh")), "ima-ng", []string{"sha256:" + strings.Repeat("ab", 32), "/bin/sh"})))
	f.Add([]byte(asciiLine(10, make([]byte, 20), "ima-sig", []string{"sha256:" + strings.Repeat("00", 32), "a\nb", ""})))
	f.Add([]byte(asciiLine(9, make([]byte, 32), "evm-sig", strings.Split("sha256:00 / 05 a|b 00 00 1 2 33261", " "))))
	f.Add([]byte(asciiLine(9, sum1(nil), "mine", []string{"x", "00"}) + "\n\n"))
	f.Add([]byte(asciiLine(9, sum1(nil), "ima", []string{strings.Repeat("00", 16), "x"})))
	list, err := os.ReadFile("../fixtures/violations-7.3/ima.ascii")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(list[:1000])
	f.Add(bytes.ReplaceAll(list[:2000], []byte("\n"), []byte("\r\n")))
	f.Fuzz(func(t *testing.T, b []byte) {
		open := func(src io.Reader) (readertest.Log, error) {
			return ima.NewASCIIReader(src, ima.Options{Banks: allBanks})
		}
		if _, err := open(bytes.NewReader(b)); err != nil {
			if _, detected := ima.DetectASCII(b); detected {
				t.Errorf("recognised, and refused: %v", err)
			}
		}
		const fieldLength = 12 // a field of one digit pair, or none, costs a length of four bytes
		readertest.Check(t, open, b, fieldLength)
	})
}

// Lines behind an entry that nothing proves are looked at up to PATH_MAX bytes.
func TestASCIIStrayLinesAreBounded(t *testing.T) {
	violation := asciiLine(10, make([]byte, 20), "ima-ng", []string{"sha256:00", "/x"})
	list := violation + strings.Repeat(strings.Repeat("x", 1000)+"\n", 20)
	got, _, err := asciiEntries([]byte(list), ima.Options{})
	var syntax *ima.SyntaxError
	if len(got) != 1 || !errors.As(err, &syntax) || syntax.Entry != 1 {
		t.Errorf("%d entries, %v", len(got), err)
	}
}

// The template "ima" hashes 256 bytes of a name: what stands behind them is
// proven by nothing.
func TestTemplateIMALongName(t *testing.T) {
	digest := bytes.Repeat([]byte{0x5A}, 20)
	name := "/usr/bin/good" + strings.Repeat("\x00", 256-len("/usr/bin/good"))
	hash := sha1.Sum(append(bytes.Clone(digest), name...))
	_, _, err := asciiEntries([]byte(asciiLine(10, hash[:], "ima", []string{hex.EncodeToString(digest), name + "/evil"})), ima.Options{})
	if err == nil || !strings.Contains(err.Error(), "field n: 261 bytes, expected at most 256") {
		t.Errorf("%v", err)
	}
	e := ima.NewEntry("ima", append(bytes.Clone(digest), name+"/evil"...), binary.LittleEndian)
	if c, _ := e.Verify(rtmr.Digest{Alg: rtmr.SHA1, Sum: hash[:]}); c != rtmr.Contradicts {
		t.Errorf("a name of 261 bytes: %s", c)
	}
	e = ima.NewEntry("ima", append(bytes.Clone(digest), name...), binary.LittleEndian)
	if c, _ := e.Verify(rtmr.Digest{Alg: rtmr.SHA1, Sum: hash[:]}); c != rtmr.Verified {
		t.Errorf("a name of 256 bytes: %s", c)
	}
}
