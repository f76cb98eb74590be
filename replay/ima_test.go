package replay_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// listEntry is a record of a binary ima-ng list in its SHA-256 form, as
// ima_measurements_show writes it.
func listEntry(pcr uint32, alg string, digest []byte, name string) []byte {
	le := binary.LittleEndian
	field := func(b []byte, data string) []byte {
		return append(le.AppendUint32(b, uint32(len(data))), data...)
	}
	data := field(field(nil, alg+":\x00"+string(digest)), name+"\x00")
	hash := sha256.Sum256(data)
	b := append(le.AppendUint32(nil, pcr), hash[:]...)
	b = append(le.AppendUint32(b, uint32(len("ima-ng"))), "ima-ng"...)
	return append(le.AppendUint32(b, uint32(len(data))), data...)
}

// templateHash is the SHA-256 template hash of a record that listEntry made.
func templateHash(record []byte) []byte { return record[4:36] }

func foldList(t *testing.T, f *replay.Fold, list []byte, opts ima.Options) {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(list), opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Log(r.Measurements()); err != nil {
		t.Fatal(err)
	}
}

// chain folds SHA-256 digests from zeros, by hand.
func chain(digests ...[]byte) string {
	value := make([]byte, 32)
	for _, d := range digests {
		sum := sha256.Sum256(append(value, d...))
		value = sum[:]
	}
	return hex.EncodeToString(value)
}

// A policy's pcr= puts several registers into one list.
func TestIMASeveralRegistersInOneList(t *testing.T) {
	digest := make([]byte, 32)
	a, b, c := listEntry(10, "sha256", digest, "/a"), listEntry(11, "sha256", digest, "/b"), listEntry(10, "sha256", digest, "/c")
	f := replay.New(replay.Options{})
	foldList(t, f, bytes.Join([][]byte{a, b, c}, nil), ima.Options{})
	values := f.Values()[rtmr.SHA256]
	if got := values[rtmr.MustParse("pcr10")].String(); got != chain(templateHash(a), templateHash(c)) {
		t.Errorf("pcr10 is %s", got)
	}
	if got := values[rtmr.MustParse("pcr11")].String(); got != chain(templateHash(b)) {
		t.Errorf("pcr11 is %s", got)
	}
}

// Over kexec the list is carried into the second kernel, whose boot_aggregate
// is then a second one in it: all of it is in the PCR, which was not reset.
func TestIMAKexecCarryOver(t *testing.T) {
	var pcrs []byte
	boot := replay.New(replay.Options{})
	for i := range 10 {
		reg, _ := rtmr.PCR(i).Register()
		sum := sha256.Sum256([]byte{byte(i)})
		boot.Add(&rtmr.Measurement{Register: reg, Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: sum[:]}}})
		v, _ := hex.DecodeString(chain(sum[:]))
		pcrs = append(pcrs, v...)
	}
	aggregate := sha256.Sum256(pcrs)
	first, file := listEntry(10, "sha256", aggregate[:], "boot_aggregate"), listEntry(10, "sha256", make([]byte, 32), "/sbin/init")
	r, err := ima.NewReader(bytes.NewReader(bytes.Join([][]byte{first, file, first}, nil)), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boot.Log(r.Measurements()); err != nil {
		t.Fatal(err)
	}
	if got := boot.Values()[rtmr.SHA256][rtmr.MustParse("pcr10")].String(); got != chain(templateHash(first), templateHash(file), templateHash(first)) {
		t.Errorf("pcr10 is %s", got)
	}
	if n := boot.BootAggregates(); n != 2 || len(boot.Findings()) != 0 {
		t.Errorf("%d boot_aggregate entries proven, want both; findings %+v", n, boot.Findings())
	}
	if w := strings.Join(r.Warnings(), "\n"); !strings.Contains(w, "another boot_aggregate at entry [2]: the list was carried over kexec") {
		t.Errorf("warnings %q", w)
	}
}

// Forms of boot_aggregate, each computed here from the registers' values.
func TestBootAggregate(t *testing.T) {
	pcr := func(i int) rtmr.Register { r, _ := rtmr.PCR(i).Register(); return r }
	index := func(i int) rtmr.Register { r, _ := rtmr.Index(i).RTMR(); return r }
	mrtd := bytes.Repeat([]byte{0x4D}, 48)
	digest256, digest384 := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{1}, 48)
	extended256 := sha256.Sum256(append(make([]byte, 32), digest256...))
	extended384 := sha512.Sum384(append(make([]byte, 48), digest384...))
	zero := make([]byte, 32)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	sum256 := func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
	sum384 := func(b []byte) []byte { s := sha512.Sum384(b); return s[:] }
	tpm := []rtmr.Measurement{{Register: pcr(0), Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: digest256}}},
		{Register: pcr(9), Digests: []rtmr.Digest{{Alg: rtmr.SHA256, Sum: digest256}}}}
	td := []rtmr.Measurement{{Register: index(0), Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: digest384}}},
		{Register: index(2), Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: digest384}}}}
	over7 := sum256(join(extended256[:], bytes.Repeat(zero, 7)))
	over9 := sum256(join(extended256[:], bytes.Repeat(zero, 8), extended256[:]))
	for _, tc := range []struct {
		name             string
		boot             []rtmr.Measurement
		mrtd             []byte
		alg              string
		sum              []byte
		proven, findings int
	}{
		{"over_0_to_9", tpm, nil, "sha256", over9, 1, 0},
		{"over_0_to_7", tpm, nil, "sha256", over7, 1, 0},
		{"of_another_boot", tpm, nil, "sha256", digest256, 0, 1},
		{"zero_without_a_tpm", tpm, nil, "sha256", zero, 0, 0},
		{"no_boot_log_in_its_bank", tpm, nil, "sha384", digest384, 0, 0},
		{"no_boot_log", nil, nil, "sha256", digest256, 0, 0},
		{"tdx_without_zero_registers", td, mrtd, "sha384", sum384(join(mrtd, extended384[:], extended384[:])), 1, 0},
		{"tdx_of_another_boot", td, mrtd, "sha384", digest384, 0, 1},
		{"tdx_mrtd_not_known", td, nil, "sha384", sum384(join(mrtd, extended384[:], extended384[:])), 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := replay.New(replay.Options{MRTD: tc.mrtd})
			for _, m := range tc.boot {
				f.Add(&m)
			}
			foldList(t, f, listEntry(10, tc.alg, tc.sum, "boot_aggregate"), ima.Options{})
			if f.BootAggregates() != tc.proven || len(f.Findings()) != tc.findings {
				t.Errorf("%d proven, want %d; findings %+v", f.BootAggregates(), tc.proven, f.Findings())
			}
		})
	}
}

// A TD whose patched kernel writes RTMR indices into the list's PCR column:
// with the CC log before it the list folds to what the quote signs, and its
// boot_aggregate is over the quote's MRTD.
func TestIMAColumnIsRTMRIndex(t *testing.T) {
	dir := filepath.Join(corpus, "tdx-ccel-ima")
	quote, err := os.ReadFile(filepath.Join(dir, "quote.bin"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	const mrtdAt, rtmr0At, size = 184, 376, 48 // of a version 4 quote
	f := replay.New(replay.Options{MRTD: quote[mrtdAt : mrtdAt+size]})
	ccel := openFile(t, filepath.Join(dir, "ccel_data.bin"))
	r, err := eventlog.NewReader(ccel, eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Log(r.Measurements()); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "ima_log.bin"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := ima.NewASCIIReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	profile, _, _ := ima.GuessProfile(first.Measurements(), ima.Signs{})
	whole, err := ima.NewASCIIReader(bytes.NewReader(list), ima.Options{Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Log(whole.Measurements()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		want := quote[rtmr0At+i*size : rtmr0At+(i+1)*size]
		reg, _ := rtmr.Index(i).RTMR()
		if got := f.Values()[rtmr.SHA384][reg]; !bytes.Equal(got, want) {
			t.Errorf("%s folds to %s, the quote has %x", reg, got, want)
		}
	}
	if f.BootAggregates() != 1 {
		t.Errorf("boot_aggregate is not proven: %+v", f.Findings())
	}
}

// ASCII lists of the corpus, in all banks that its index has, padded ones too.
func TestCorpusASCIILists(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(corpus, "index.json"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	var rows []struct {
		File, Kind string
		Expected   struct {
			Banks map[string]map[string]string
		}
	}
	if err := json.Unmarshal(index, &rows); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, row := range rows {
		if row.Kind != "ima-ascii" {
			continue
		}
		for bank, regs := range row.Expected.Banks {
			name, padded := strings.CutSuffix(bank, "_zero_padded")
			alg, err := rtmr.ParseAlg(name)
			if err != nil {
				t.Fatal(err)
			}
			r, err := ima.NewASCIIReader(openFile(t, filepath.Join(corpus, row.File)), ima.Options{Banks: []rtmr.Alg{alg}, Profile: ima.Profile{PaddedSHA1: padded}})
			if err != nil {
				t.Fatal(err)
			}
			if padded && r.Layout().Alg != rtmr.SHA1 {
				continue // the index pads that list's own hash, which no kernel does
			}
			f := replay.New(replay.Options{})
			if _, err := f.Log(r.Measurements()); err != nil {
				t.Fatal(err)
			}
			for pcr, want := range regs {
				compared++
				if got := f.Values()[alg][rtmr.MustParse("pcr"+pcr)].String(); got != want {
					t.Errorf("%s %s pcr%s: %s, want %s", row.File, bank, pcr, got, want)
				}
			}
		}
	}
	if compared < 15 {
		t.Errorf("only %d values compared", compared)
	}
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// Parts that were read one after another, with what they have in common told
// by their entries alone.
func TestOverlap(t *testing.T) {
	entries := func(names string) []byte {
		var list []byte
		for _, name := range names {
			list = append(list, listEntry(10, "sha256", make([]byte, 32), string(name))...)
		}
		return list
	}
	for _, tc := range []struct {
		parts string // separated by spaces, a letter an entry
		want  []int  // the overlap of each
	}{
		{"abc cde", []int{0, 1}},
		{"abc def", []int{0, 0}},
		{"abcd bcdef ef g", []int{0, 3, 2, 0}},
		{"abc abcd abcd", []int{0, 3, 4}},
		{"aaba aab", []int{0, 1}},
		{"abab abab", []int{0, 4}},
		{"xabab ababab b", []int{0, 4, 1}},
		{"ab cdab abx", []int{0, 0, 2}},
	} {
		t.Run(tc.parts, func(t *testing.T) {
			var parts replay.Parts
			for i, names := range strings.Fields(tc.parts) {
				r, err := ima.NewReader(bytes.NewReader(entries(names)), ima.Options{})
				if err != nil {
					t.Fatal(err)
				}
				if got, sure := parts.Overlap(r.Measurements()); got != tc.want[i] || !sure {
					t.Errorf("part %d overlaps by %d (sure: %t), want %d", i, got, sure, tc.want[i])
				}
			}
		})
	}
}

// ExampleParts folds two parts of one list.
func ExampleParts() {
	a, b, c := listEntry(10, "sha256", make([]byte, 32), "/a"), listEntry(10, "sha256", make([]byte, 32), "/b"), listEntry(10, "sha256", make([]byte, 32), "/c")
	var parts replay.Parts
	for _, list := range [][]byte{bytes.Join([][]byte{a, b}, nil), bytes.Join([][]byte{b, c}, nil)} {
		r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		entries, sure := parts.Overlap(r.Measurements())
		fmt.Println(entries, sure)
	}
	// Output:
	// 0 true
	// 1 true
}

// The kernel lists a violation each time, so violations alone are no overlap.
func TestOverlapOfViolationsAlone(t *testing.T) {
	violation := listEntry(10, "sha256", make([]byte, 32), "/v")
	clear(violation[4:36])
	file := listEntry(10, "sha256", make([]byte, 32), "/f")
	for _, tc := range []struct {
		name    string
		a, b    [][]byte
		entries int
		sure    bool
	}{
		{"violation_alone", [][]byte{file, violation}, [][]byte{violation, file}, 0, false},
		{"file_and_violation", [][]byte{file, violation}, [][]byte{file, violation, violation}, 2, true},
		{"nothing", [][]byte{violation}, [][]byte{file}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var parts replay.Parts
			var entries int
			var sure bool
			for _, list := range [][][]byte{tc.a, tc.b} {
				r, err := ima.NewReader(bytes.NewReader(bytes.Join(list, nil)), ima.Options{Alg: rtmr.SHA256, Order: binary.LittleEndian})
				if err != nil {
					t.Fatal(err)
				}
				entries, sure = parts.Overlap(r.Measurements())
			}
			if entries != tc.entries || sure != tc.sure {
				t.Errorf("%d entries, sure %t; want %d, %t", entries, sure, tc.entries, tc.sure)
			}
		})
	}
}

// What IMA itself extended is no boot log, nor is a TPM's log put into RTMRs.
func TestBootAggregateWithoutABootLog(t *testing.T) {
	mrtd := bytes.Repeat([]byte{0x4D}, 48)
	again := bytes.Join([][]byte{
		listEntry(10, "sha384", bytes.Repeat([]byte{1}, 48), "boot_aggregate"),
		listEntry(10, "sha384", bytes.Repeat([]byte{2}, 48), "/f"),
		listEntry(10, "sha384", bytes.Repeat([]byte{3}, 48), "boot_aggregate"),
	}, nil)
	for name, profile := range map[string]ima.Profile{"pcr_column": {}, "rtmr_column": {RTMRColumn: true}} {
		t.Run(name, func(t *testing.T) {
			f := replay.New(replay.Options{MRTD: mrtd, Into: rtmr.KindRTMR})
			list := again
			if profile.RTMRColumn {
				list = bytes.ReplaceAll(again, []byte{10, 0, 0, 0}, []byte{2, 0, 0, 0})
			}
			r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: []rtmr.Alg{rtmr.SHA384}, Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Log(r.Measurements()); err != nil {
				t.Fatal(err)
			}
			if len(f.Findings()) != 0 {
				t.Errorf("%+v", f.Findings())
			}
		})
	}
	t.Run("tpm_log_into_rtmrs", func(t *testing.T) {
		f := replay.New(replay.Options{MRTD: mrtd, Into: rtmr.KindRTMR})
		f.Add(&rtmr.Measurement{Register: rtmr.MustParse("pcr7"), Digests: []rtmr.Digest{{Alg: rtmr.SHA384, Sum: mrtd}}})
		foldList(t, f, listEntry(10, "sha384", bytes.Repeat([]byte{1}, 48), "boot_aggregate"), ima.Options{})
		if len(f.Findings()) != 0 {
			t.Errorf("%+v", f.Findings())
		}
	})
}

// A finding keeps no more of an entry than a person reads.
func TestFindingsAreShort(t *testing.T) {
	forged := listEntry(10, "sha256", make([]byte, 32), strings.Repeat("\x01", 1<<20))
	forged[4] ^= 1
	genuine := listEntry(10, "sha256", make([]byte, 32), "/f")
	f := replay.New(replay.Options{})
	foldList(t, f, append(genuine, forged...), ima.Options{})
	if n := len(f.Findings()); n != 1 || len(f.Findings()[0].Detail) > 8<<10 {
		t.Errorf("%d findings", n)
	}
}
