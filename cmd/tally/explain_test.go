package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// searchJSON is the shape of "search" in explain --json.
type searchJSON struct {
	Found []struct {
		Kind, Register string
		Proven         bool
		Banks, Against []string
		Log, Entry     int
		Offset         int64
		Type, Detail   string
		First, Last    int
		Matched, Ahead int
		Edits          []struct {
			Kind         string
			Log, Entry   int
			Offset       int64
			Type, Detail string
			First, Last  int
			Text         string
		}
		Text string
	}
	Tried, Folds uint64
	Seconds      float64
	NotTried     []string
}

// records splits a list of the SHA-1 bank into its entries: pcr, hash, name and
// data, each of the latter behind its length.
func records(list []byte) (all [][]byte) {
	for len(list) > 0 {
		n := 4 + 20
		n += 4 + int(binary.LittleEndian.Uint32(list[n:]))
		n += 4 + int(binary.LittleEndian.Uint32(list[n:]))
		all = append(all, list[:n:n])
		list = list[n:]
	}
	return all
}

// TestExplainFixtures edits a machine's list, and has the edit named: with the
// values of its quote told, and by the signed digest alone.
func TestExplainFixtures(t *testing.T) {
	m := fixtureMachine(t, "sig-6.12+ima.bin")
	entries := records(m.Logs[1].Data)
	join := func(parts ...[][]byte) []byte { return slices.Concat(slices.Concat(parts...)...) }
	const at = 301
	for _, edit := range []struct {
		name  string
		list  []byte
		more  []string
		kind  string
		entry int
	}{
		{"never extended", join(entries[:at], entries[7:8], entries[at:]), nil, "missing", at},
		{"swapped", join(entries[:at], entries[at+1:at+2], entries[at:at+1], entries[at+2:]), nil, "swapped", at},
		{"not in the log, but in a candidate", join(entries[:at], entries[at+1:]), []string{"--candidates", "one"}, "unlogged-entry", 0},
		{"the head is missing", join(entries[at:]), []string{"--candidates", "head"}, "earlier-list", -1},
	} {
		for _, values := range [][]string{nil, {"--values", "values"}} {
			t.Run(fmt.Sprint(edit.name, values), func(t *testing.T) {
				edited := m
				edited.Logs = slices.Clone(m.Logs)
				edited.Logs[1].Data = edit.list
				dir, args := evidenceOf(t, edited, m.Quotes[1])
				args[0] = "explain"
				for name, data := range map[string][]byte{"one": entries[at], "head": join(entries[:at])} {
					if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				report, status := verdictIn(t, dir, slices.Concat(args, values, edit.more)...)
				if report.Verdict != "diverged" || status != 1 || !strings.Contains(report.Text, "quoted of pcr10") {
					t.Fatalf("%s (%s), status %d", report.Verdict, report.Text, status)
				}
				for _, o := range report.Registers {
					if (o.Register == rtmr.MustParse("pcr10")) != (o.Finding != nil) {
						t.Errorf("%s: %s, %+v", o.Register, o.Status, o.Finding)
					}
				}
				var search searchJSON
				strictly(t, *report.Search, &search)
				if len(search.Found) == 0 || !search.Found[0].Proven || search.Found[0].Kind != edit.kind || search.Found[0].Entry != edit.entry {
					t.Errorf("%s", *report.Search)
				}
			})
		}
	}
}

// valuesOf returns what a machine's TPM held, for --values.
func valuesOf(t *testing.T, name string) []byte {
	t.Helper()
	all := testlogs.Machines(t)
	i := slices.IndexFunc(all, func(m testlogs.Machine) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("no machine %s", name)
	}
	values, err := json.Marshal(all[i].Held)
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// TestExplainEarlier: the first kernel's quote, before a kexec, bounds where the
// second one's list is wrong; a log that ends with it is behind its quote.
func TestExplainEarlier(t *testing.T) {
	dir, ok := testlogs.Shared(t, "lab", "captures", "kexec-6.12")
	if !ok {
		t.Skip("../shared/lab/captures is not here")
	}
	const boot, first, second = "tpm0.binary_bios_measurements", "first/ima.binary_runtime_measurements", "ima.binary_runtime_measurements"
	kernel1 := len(records(testlogs.Read(t, filepath.Join(dir, first))))
	entries := records(testlogs.Read(t, filepath.Join(dir, second)))
	const lost = 100
	work := files(t, map[string][]byte{
		"values": valuesOf(t, "captures/kexec-6.12+"+first+"+"+second),
		"gap":    slices.Concat(slices.Concat(entries[:lost], entries[lost+1:])...),
	})
	args := []string{"explain", "--json", "--budget", "5s", "--max-edits", "1", "--values", filepath.Join(work, "values"), "--key", "ak-ecc.tpmt_public.bin",
		"--quote", "quote-ecc-sha256.tpms_attest.bin", "--signature", "quote-ecc-sha256.tpmt_signature.bin",
		"--earlier", "first/quote-ecc-sha256.tpms_attest.bin,first/quote-ecc-sha256.tpmt_signature.bin", boot, first}
	for _, c := range []struct {
		list  []string
		kind  string
		first int
		last  int
	}{
		{nil, "log-behind", kernel1, kernel1},
		{[]string{filepath.Join(work, "gap")}, "unlogged-entry", kernel1, kernel1 + len(entries) - 1},
	} {
		report, status := verdictIn(t, dir, append(slices.Clone(args), c.list...)...)
		if report.Verdict != "diverged" || status != 1 {
			t.Fatalf("%s (%s), status %d", report.Verdict, report.Text, status)
		}
		var search searchJSON
		strictly(t, *report.Search, &search)
		if f := search.Found[0]; f.Kind != c.kind || f.Proven || f.First != c.first || f.Last != c.last {
			t.Errorf("%+v, expected %s from %d to %d", f, c.kind, c.first, c.last)
		}
	}
}
