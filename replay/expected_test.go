package replay_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/fixtures"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// TestExpected folds the fixtures to what independent tools folded them to when
// they were captured: also those that no TPM says anything of.
func TestExpected(t *testing.T) {
	files, err := filepath.Glob(testlogs.Fixture(t, "*", "expected.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no expected.json: %v", err)
	}
	for _, file := range files {
		dir := filepath.Base(filepath.Dir(file))
		t.Run(dir, func(t *testing.T) {
			var expected fixtures.Expected
			var p fixtures.Provenance
			readJSON(t, file, &expected)
			readJSON(t, testlogs.Fixture(t, dir, "provenance.json"), &p)
			compared := foldsTo(t, dir, &p, &expected.Boot)
			if expected.IMA != nil {
				compared += foldsTo(t, dir, &p, expected.IMA)
			}
			if compared == 0 {
				t.Error("nothing to compare with")
			}
			if want := 2 * len(p.Banks); len(expected.Quotes.Verified) != want {
				t.Errorf("%s verified %d quotes, expected %d", expected.Quotes.By, len(expected.Quotes.Verified), want)
			}
		})
	}
}

// foldsTo folds the logs that a tool folded, and compares each of its values.
func foldsTo(t *testing.T, dir string, p *fixtures.Provenance, c *fixtures.Computed) (compared int) {
	t.Helper()
	var logs []testlogs.Log
	for i, name := range c.Logs {
		format := "ima"
		if name == "boot.bin" {
			format = "tcg2"
		}
		b := testlogs.Read(t, testlogs.Fixture(t, dir, name))
		if p.Boots[0].Overlap && i+1 < len(c.Logs) {
			b = fixtures.Deleted(b, testlogs.Read(t, testlogs.Fixture(t, dir, c.Logs[i+1])))
		}
		logs = append(logs, testlogs.Log{Name: name, Format: format, Data: b})
	}
	values := fold(t, p.Boots[0].Profile, logs...).Values()
	for alg, bank := range c.Values {
		for reg, want := range bank {
			compared++
			if got := values[alg][reg]; !slices.Equal(got, want) {
				t.Errorf("%s %s: folded to %s, %s has %s", alg, reg, got, c.By, want)
			}
		}
	}
	return compared
}

func readJSON(t *testing.T, file string, v any) {
	t.Helper()
	if err := json.Unmarshal(testlogs.Read(t, file), v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestAhead: of lists that were read when more had been measured than was
// quoted, the first entries fold to what was quoted, with the values told and by
// the signed digest alone.
func TestAhead(t *testing.T) {
	pcr10 := rtmr.MustParse("pcr10")
	for _, m := range testlogs.AheadMachines(t) {
		t.Run(m.Name, func(t *testing.T) {
			entries := 0
			for range machineLogs(t, m)[1] {
				entries++
			}
			check := func(r *replay.Reconciler) {
				for _, o := range r.Outcomes() {
					switch {
					case o.Register != pcr10:
						if o.Status != replay.Match && o.Status != replay.Reset {
							t.Errorf("%s %s: %s", o.Alg, o.Register, o.Status)
						}
					case o.Status != replay.LogAhead || o.Matched >= o.Events || o.Events != entries || !slices.Equal(o.Quoted, m.Held[o.Alg][pcr10]):
						t.Errorf("%s %s: %s, %d of %d events, at %s", o.Alg, o.Register, o.Status, o.Matched, o.Events, o.Quoted)
					}
				}
			}
			check(reconcile(t, replay.Quoted{Values: m.Held}, machineLogs(t, m)...))
			for _, q := range m.Quotes {
				check(reconcile(t, replay.Quoted{Composites: []rtmr.Composite{composite(t, q.Attest, rtmr.SHA256)}}, machineLogs(t, m)...))
			}
		})
	}
}

// TestFixturesReadme: the table has every folder, and says what it shows as the
// folder does.
func TestFixturesReadme(t *testing.T) {
	readme := string(testlogs.Read(t, testlogs.Fixture(t, "README.md")))
	dirs, err := os.ReadDir(testlogs.Fixture(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue
		}
		var p fixtures.Provenance
		readJSON(t, testlogs.Fixture(t, dir.Name(), "provenance.json"), &p)
		if row := "| " + dir.Name() + " | " + p.About + " |\n"; !strings.Contains(readme, row) {
			t.Errorf("README.md lacks the row %s", row)
		}
	}
}
