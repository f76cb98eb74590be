//go:build linux

package lab_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFixtures holds every machine that make fixtures captured against its
// quotes, by the command.
func TestFixtures(t *testing.T) {
	tally := tallyCommand(t)
	top := "../fixtures"
	if dir := os.Getenv("LAB_FIXTURES"); dir != "" {
		top = dir
	}
	machines, err := filepath.Glob(filepath.Join(top, "*", "machine.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range machines {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) { holdsFixture(t, tally, dir) })
	}
}

// fixture is what machine.json says of a fixture's logs.
type fixture struct {
	Logs           []string
	Overlap, Ahead bool
	Profile        string
	Entries        int
	Violations     int
}

func holdsFixture(t *testing.T, tally, dir string) {
	read := func(name string) []byte {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	var m fixture
	if err := json.Unmarshal(read("machine.json"), &m); err != nil {
		t.Fatal(err)
	}
	var flags, logs []string
	if m.Overlap {
		flags = append(flags, "--overlap")
	}
	if m.Profile != "" {
		flags = append(flags, "--profile", m.Profile)
	}
	for _, log := range m.Logs {
		logs = append(logs, filepath.Join(dir, log))
	}
	quotes, err := filepath.Glob(filepath.Join(dir, "quote-*.tpms_attest.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if len(quotes) == 0 {
		runTally(t, tally, 0, "", slices.Concat([]string{"replay"}, flags, logs)...)
	}
	for _, quote := range quotes {
		name := strings.TrimSuffix(filepath.Base(quote), ".tpms_attest.bin")
		key, _, _ := strings.Cut(strings.TrimPrefix(name, "quote-"), "-")
		out := runTally(t, tally, 0, "reconciled", slices.Concat([]string{"reconcile", "--json",
			"--quote", quote, "--signature", filepath.Join(dir, name+".tpmt_signature.bin"),
			"--key", filepath.Join(dir, "ak-"+key+".tpmt_public.bin"),
			"--nonce", hex.EncodeToString(read("nonce.bin")), "--values", filepath.Join(dir, "values.json"),
		}, flags, logs)...)
		if strings.Contains(out, `"log-ahead"`) != m.Ahead {
			t.Errorf("%s: ahead of its quote is %v", name, !m.Ahead)
		}
	}
	// The kernel's own counts. A trimmed list has fewer entries than it counted.
	lines := strings.Count(runTally(t, tally, 0, "", "show", "--json", logs[len(logs)-1]), "\n")
	if lines != m.Entries && !m.Overlap {
		t.Errorf("the kernel counted %d entries, and tally shows %d", m.Entries, lines)
	}
}
