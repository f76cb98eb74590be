package main

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
)

// The JSON contract: what scripts may rely on. A key more is a change of it,
// and so are another order and null for an empty list.

// replayJSON is the shape of replay --json.
type replayJSON struct {
	Logs      []logJSON
	Registers []struct {
		Register, Alg, Value string
		Events               int
	}
	Findings []findingOfEntryJSON
	Error    string
}

type logJSON struct {
	Path     string
	Format   string
	Events   int
	Warnings []string
	Checks   struct{ Verified, Contradicting, Uncheckable int }
	Copy     *copyJSON

	Incidents *incidentsJSON
}

type copyJSON struct {
	Of             string
	Entries, Ahead int
	Parts          bool
	Moved          []moveJSON
}

type moveJSON struct{ From, Into string }

// incidentsJSON is what a journal itself says went otherwise.
type incidentsJSON struct {
	Counts map[string]int
	First  []incidentJSON
}

type incidentJSON struct {
	Entry                int
	Kind, Register, Text string
}

// findingOfEntryJSON is an entry whose own data, or the boot log, contradict it.
type findingOfEntryJSON struct {
	Kind                                                  string
	Log, Entry                                            int
	Offset                                                int64
	Register, Alg, Type, Detail, Recorded, Computed, Text string
}

// showJSON is the shape of a line of show --json.
type showJSON struct {
	Index    int
	Offset   int64
	Register string
	Type     string
	Digests  map[string]string
	Detail   string
	Data     string
	Check    string
}

// strictly decodes exactly one value of the shape, with no key that the shape
// lacks.
func strictly(t *testing.T, text []byte, shape any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(shape); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Errorf("more behind the value: %s", text)
	}
}

// runOn runs the command on a log and returns its output and exit status.
func runOn(t *testing.T, log []byte, args ...string) (out string, status int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "log"), log, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tally", append(args, "log")...)
	cmd.Dir = dir
	b, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// The log of the golden texts below: two events of the firmware's, one of
// which its data contradict, and one that extends nothing.
var (
	versionEvent  = testlogs.Event{Index: 0, Type: testlogs.SCRTMVersion, Data: []byte("1.0")}
	versionSum    = testlogs.Hash(crypto.SHA256, versionEvent.Data)
	lieSum        = testlogs.Hash(crypto.SHA256, []byte("truth"))
	lieEvent      = testlogs.Event{Index: 5, Type: testlogs.EFIAction, Data: []byte("lie"), Digests: []testlogs.Digest{{Alg: testlogs.SHA256, Sum: lieSum}}}
	localityEvent = testlogs.Event{Index: 0, Type: testlogs.NoAction, Data: testlogs.StartupLocality(0), Digests: []testlogs.Digest{{Alg: testlogs.SHA256, Sum: make([]byte, 32)}}}
	goldenLog     = testlogs.TCG2(testlogs.SHA256Only, versionEvent, localityEvent, lieEvent)
)

const (
	headerSize = 32 + 28 + 4 + 1 // of the Spec ID record, with one bank
	recordSize = 12 + 2 + 32 + 4 // of a record with one bank, without data
	zeros64    = "0000000000000000000000000000000000000000000000000000000000000000"
)

// TestReplayJSON: the texts are composed by hand, key by key.
func TestReplayJSON(t *testing.T) {
	fold := func(sum []byte) string {
		return fmt.Sprintf("%x", testlogs.Fold(crypto.SHA256, make([]byte, 32), sum))
	}
	lieAt := headerSize + recordSize + len(versionEvent.Data) + recordSize + len(localityEvent.Data)
	registers := fmt.Sprintf(`"registers":[{"register":"pcr0","alg":"sha256","value":"%s","events":1},{"register":"pcr5","alg":"sha256","value":"%s","events":1}]`,
		fold(versionSum), fold(lieSum))
	for _, tc := range []struct {
		name   string
		log    []byte
		status int
		want   string
	}{
		{"contradiction", goldenLog, 1, fmt.Sprintf(`{"logs":[{"path":"log","format":"tcg2","events":4,"warnings":[],"checks":{"verified":1,"contradicting":1,"uncheckable":0}}],%s,`+
			`"findings":[{"kind":"digest","log":0,"entry":3,"offset":%d,"register":"pcr5","alg":"sha256","type":"EV_EFI_ACTION","detail":"lie","recorded":"%x","computed":"%x","text":"the data do not hash to the recorded digest"}]}`,
			registers, lieAt, lieSum, testlogs.Hash(crypto.SHA256, lieEvent.Data))},
		{"nothing_extends", testlogs.TCG2(testlogs.SHA256Only), 0, `{"logs":[{"path":"log","format":"tcg2","events":1,"warnings":[],"checks":{"verified":0,"contradicting":0,"uncheckable":0}}],"registers":[]}`},
		{"fault", append(testlogs.TCG2(testlogs.SHA256Only, versionEvent), 1, 2, 3), 2, fmt.Sprintf(`{"logs":[{"path":"log","format":"tcg2","events":2,"warnings":[],"checks":{"verified":1,"contradicting":0,"uncheckable":0}}],`+
			`"registers":[{"register":"pcr0","alg":"sha256","value":"%s","events":1}],`+
			`"error":"log: entry 2, offset %d: event header: the log ends 3 bytes into a record of at least 12: unexpected EOF"}`,
			fold(versionSum), headerSize+recordSize+len(versionEvent.Data))},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, status := runOn(t, tc.log, "replay", "--json")
			if got != tc.want+"\n" || status != tc.status {
				t.Errorf("got  %swant %s\nstatus %d, expected %d", got, tc.want, status, tc.status)
			}
			strictly(t, []byte(got), &replayJSON{})
		})
	}
}

// TestShowJSON: likewise. An event that extends nothing has no register.
func TestShowJSON(t *testing.T) {
	log := testlogs.TCG2(testlogs.SHA256Only, versionEvent, localityEvent, lieEvent)
	at := []int{0, headerSize, headerSize + recordSize + len(versionEvent.Data)}
	at = append(at, at[2]+recordSize+len(localityEvent.Data))
	want := []string{
		fmt.Sprintf(`{"index":1,"offset":%d,"register":"pcr0","type":"EV_S_CRTM_VERSION","digests":{"sha256":"%x"},"detail":"1.0","data":"312e30","check":"verified"}`, at[1], versionSum),
		fmt.Sprintf(`{"index":2,"offset":%d,"type":"EV_NO_ACTION","digests":{"sha256":"%s"},"detail":"StartupLocality 0","data":"%x","check":"cannot be checked"}`, at[2], zeros64, localityEvent.Data),
		fmt.Sprintf(`{"index":3,"offset":%d,"register":"pcr5","type":"EV_EFI_ACTION","digests":{"sha256":"%x"},"detail":"lie","data":"6c6965","check":"contradicts"}`, at[3], lieSum),
	}
	got, status := runOn(t, log, "show", "--json")
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if status != 0 || len(lines) != 4 {
		t.Fatalf("status %d, %d lines", status, len(lines))
	}
	for i, line := range lines[1:] {
		if line != want[i] {
			t.Errorf("got  %s\nwant %s", line, want[i])
		}
	}
}

// TestJSONOfRealLogs: every log that is here keeps to the shapes.
func TestJSONOfRealLogs(t *testing.T) {
	for _, l := range testlogs.All(t) {
		if strings.HasPrefix(l.Name, "captures/") {
			continue // the fixtures' machines
		}
		t.Run(l.Name, func(t *testing.T) {
			t.Parallel()
			out, _ := runOn(t, l.Data, "replay", "--json")
			var report replayJSON
			strictly(t, []byte(out), &report)
			if len(report.Logs) != 1 || report.Logs[0].Format != l.Format || report.Logs[0].Warnings == nil || report.Registers == nil || report.Error != "" {
				t.Errorf("%+v", report)
			}
			lines := 0
			shown, _ := runOn(t, l.Data, "show", "--json")
			for line := range strings.Lines(shown) {
				lines++
				var event showJSON
				strictly(t, []byte(line), &event)
				if event.Type == "" || event.Check == "" || event.Digests == nil {
					t.Errorf("%s", line)
				}
			}
			if lines != report.Logs[0].Events {
				t.Errorf("%d lines shown, %d events replayed", lines, report.Logs[0].Events)
			}
		})
	}
}
