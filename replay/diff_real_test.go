package replay_test

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// tcgFile is a TCG or CC log in memory.
func tcgFile(t testing.TB, path string) replay.Source {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("%s is not here", path)
	}
	return func() iter.Seq2[rtmr.Measurement, error] {
		r, err := eventlog.NewReader(bytes.NewReader(b), eventlog.Options{})
		if err != nil {
			return func(yield func(rtmr.Measurement, error) bool) { yield(rtmr.Measurement{}, err) }
		}
		return r.Measurements()
	}
}

// imaFile is an IMA list in memory, in SHA-256 whatever the list has.
func imaFile(t testing.TB, path string) replay.Source {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return func() iter.Seq2[rtmr.Measurement, error] {
		r, err := ima.NewReader(bytes.NewReader(b), ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
		if err != nil {
			return func(yield func(rtmr.Measurement, error) bool) { yield(rtmr.Measurement{}, err) }
		}
		return r.Measurements()
	}
}

func fixture(dir, name string) string { return filepath.Join("..", "fixtures", dir, name) }

// A list in one bank and the list of the same boot in another.
func TestDiffListsOfTwoBanks(t *testing.T) {
	for _, dir := range []string{"sig-6.12", "violations-7.3", "ngv2-verity-6.12", "kexec-6.12"} {
		d, err := replay.Diff(imaFile(t, fixture(dir, "ima.bin")), imaFile(t, fixture(dir, "ima_sha256.bin")), replay.DiffOptions{Bank: rtmr.SHA256})
		if err != nil || !d.Same() || len(d.Changes) > 0 {
			t.Errorf("%s: %v, %q", dir, err, told(d.Changes))
		}
	}
}

// A template hash that was altered in the list, while the data were not: what
// is recomputed in another bank is the same, the list's own bank is not.
func TestDiffAlteredTemplateHash(t *testing.T) {
	path := fixture("sig-6.12", "ima.bin")
	list := imaFile(t, path)
	offset := int64(0)
	for m := range list() {
		if m.Index == 7 {
			offset = m.Offset
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[offset+4] ^= 1 // behind the PCR
	altered := filepath.Join(t.TempDir(), "altered.bin")
	if err := os.WriteFile(altered, b, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := replay.Diff(list, imaFile(t, altered), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Changes {
		if c.Kind != replay.OtherBank || c.A.Index != 7 || !slices.Equal(c.Banks, []rtmr.Alg{rtmr.SHA1}) ||
			c.A.Check != rtmr.Verified || c.B.Check != rtmr.Contradicts {
			t.Errorf("%q in %v, A %s, B %s", told(d.Changes), c.Banks, c.A.Check, c.B.Check)
		}
	}
	if d.Same() || len(d.Changes) != 1 {
		t.Errorf("same %v, %d changes", d.Same(), len(d.Changes))
	}
}

// The rest of a list that was trimmed is the list's end: all that is removed
// stood before all that is left.
func TestDiffTrimmedList(t *testing.T) {
	whole := imaFile(t, fixture("staging-7.3", "current2-ima.bin"))
	rest := func() iter.Seq2[rtmr.Measurement, error] {
		return func(yield func(rtmr.Measurement, error) bool) {
			for m, err := range whole() {
				if m.Index -= 100; m.Index >= 0 && !yield(m, err) {
					return
				}
			}
		}
	}
	d, err := replay.Diff(whole, rest, replay.DiffOptions{Bank: rtmr.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range d.Changes {
		if c.Kind != replay.Removed || c.A.Index != i {
			t.Fatalf("change %d: %q", i, told(d.Changes[i:i+1]))
		}
	}
	if len(d.Changes) != 100 {
		t.Errorf("%d changes, want 100", len(d.Changes))
	}
}

// A boot through shim and GRUB, and one of a unified kernel image: the
// firmware's settings pair up by variable, the loaders' files do not.
func TestDiffTwoBootPaths(t *testing.T) {
	d, err := replay.Diff(tcgFile(t, fixture("shim-grub-sb-6.12", "boot.bin")), tcgFile(t, fixture("uki-ovmf2025-7.3", "boot.bin")), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, c := range d.Changes {
		if c.Kind != replay.Changed {
			continue
		}
		if c.A.Subject != c.B.Subject || c.A.Register != c.B.Register {
			t.Errorf("%q and %q are a pair", c.A.Subject, c.B.Subject)
		}
		_, name, _ := strings.Cut(c.A.Detail, "-")
		name, _, _ = strings.Cut(name, ":")
		if c.A.Register == rtmr.MustParse("pcr7") {
			changed = append(changed, name)
		}
	}
	if want := []string{"SecureBoot", "PK", "KEK", "db", "dbx"}; !slices.Equal(changed, want) {
		t.Errorf("changed in pcr7: %q, want %q", changed, want)
	}
	for _, r := range d.Registers {
		if same := slices.Contains([]string{"pcr2", "pcr3", "pcr6"}, r.Register.String()); r.Parts() == same {
			t.Errorf("%+v", r)
		}
	}
}

// Only data differ: no register can tell, the digest's own data do.
func TestDiffTamperedEventData(t *testing.T) {
	dir := filepath.Join(corpus, "tampered-event-data")
	d, err := replay.Diff(tcgFile(t, filepath.Join(dir, "uefi_event_log.bin")), tcgFile(t, filepath.Join(dir, "uefi_event_log_invalid.bin")), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d.Same() || len(d.Changes) != 1 {
		t.Fatalf("same %v, %q", d.Same(), told(d.Changes))
	}
	if c := d.Changes[0]; c.Kind != replay.OtherData || c.A.Check != rtmr.Verified || c.B.Check != rtmr.Contradicts {
		t.Errorf("%s, A %s, B %s", c.Kind, c.A.Check, c.B.Check)
	}
	for _, r := range d.Registers {
		if r.Parts() {
			t.Errorf("%s parts", r.Register)
		}
	}
}

// Two boots of one image with another initrd.
func TestDiffTwoBootsOfATD(t *testing.T) {
	dir := filepath.Join(corpus, "tdx-live")
	d, err := replay.Diff(tcgFile(t, filepath.Join(dir, "tdx_ccel_live.bin")), tcgFile(t, filepath.Join(dir, "tdx_ccel_live2.dat")), replay.DiffOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := told(d.Changes); len(got) != 1 || !strings.HasPrefix(got[0], "~ 18 rtmr2 tag 0x8f3b22ec (Linux initrd)") {
		t.Errorf("%q", got)
	}
}

func ExampleDiff() {
	open := func(dir string) replay.Source {
		return func() iter.Seq2[rtmr.Measurement, error] {
			return func(yield func(rtmr.Measurement, error) bool) {
				f, err := os.Open(filepath.Join("..", "fixtures", dir, "boot.bin"))
				if err != nil {
					yield(rtmr.Measurement{}, err)
					return
				}
				defer f.Close()
				r, err := eventlog.NewReader(f, eventlog.Options{})
				if err != nil {
					yield(rtmr.Measurement{}, err)
					return
				}
				r.Measurements()(yield)
			}
		}
	}
	d, err := replay.Diff(open("shim-grub-sb-6.12"), open("uki-ovmf2025-7.3"), replay.DiffOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("same:", d.Same(), "in", d.Bank)
	for _, c := range d.Changes {
		if c.Kind == replay.Changed && c.A.Register.String() == "pcr4" {
			fmt.Printf("%s: %.12s became %.12s\n", c.A.Subject, c.A.Digest, c.B.Digest)
		}
	}
	// Output:
	// same: false in sha384
	// File(\EFI\BOOT\BOOTX64.EFI): 4b5768ace951 became d3889e52a745
}

// A log and its canonical copy in each encoding are the same, for every log
// that the corpus has.
func TestDiffConverted(t *testing.T) {
	paths, _ := filepath.Glob(filepath.Join(corpus, "*", "*"))
	compared := 0
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := eventlog.Detect(b); !ok {
			continue
		}
		compared++
		original := tcgFile(t, path)
		for _, format := range []cel.Format{cel.TLV, cel.JSON, cel.CBOR} {
			d, err := replay.Diff(original, celCopy(t, original, format), replay.DiffOptions{})
			if err != nil || !d.Same() || len(d.Changes)+len(d.Unmeasured) > 0 || d.Events[0] != d.Events[1] {
				t.Errorf("%s, %s: %v, %d and %d entries, %q, %q", path, format, err, d.Events[0], d.Events[1], told(d.Changes), told(d.Unmeasured))
			}
		}
	}
	if compared == 0 {
		t.Skip("../shared/corpus is not here")
	}
}

func celCopy(t *testing.T, log replay.Source, format cel.Format) replay.Source {
	t.Helper()
	var out bytes.Buffer
	w := cel.NewWriter(&out, format)
	for m, err := range log() {
		if err == nil {
			err = w.Write(m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return func() iter.Seq2[rtmr.Measurement, error] {
		return cel.NewReader(bytes.NewReader(out.Bytes()), format).Measurements()
	}
}
