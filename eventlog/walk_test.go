package eventlog_test

import (
	"bytes"
	"encoding/json"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tallystick/eventlog"
	"tallystick/rtmr"
)

// modules are where real logs come in Go modules. They are looked up in the
// module cache and are no requirement of this one.
var modules = []string{
	"github.com/google/go-eventlog@v0.0.2/testdata/eventlogs/tpm/*",
	"github.com/google/go-eventlog@v0.0.2/testdata/eventlogs/ccel/*",
	"github.com/google/go-eventlog@v0.0.2/testdata/legacydata/*",
	"github.com/google/go-attestation@v0.6.4/attest/testdata/*",
	"github.com/google/go-tdx-guest@*/testing/testdata/ccel/*",
}

var shared = []string{
	"../../shared/corpus/*/*",
	"../../shared/lab/captures/*/tpm0.binary_bios_measurements",
}

var moduleCache = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
})

// realLogs returns every genuine log that is here, by path. Copies of one file
// are left out, and nonces, some of which are zeros that pass for TCG 1.2.
func realLogs(t testing.TB) map[string][]byte {
	t.Helper()
	var paths []string
	for _, pattern := range modules {
		found, _ := filepath.Glob(filepath.Join(moduleCache(), filepath.FromSlash(pattern)))
		paths = append(paths, found...)
	}
	for _, pattern := range shared {
		found, _ := filepath.Glob(filepath.FromSlash(pattern))
		paths = append(paths, found...)
	}
	logs := make(map[string][]byte)
	seen := make(map[string]bool)
	for _, path := range paths {
		b, err := os.ReadFile(path)
		name := filepath.Base(path)
		if err != nil || strings.Contains(name, "_invalid") || strings.HasPrefix(name, "nonce") {
			continue
		}
		if b = logInside(b); !seen[string(b)] && isLog(b) {
			seen[string(b)] = true
			logs[path] = b
		}
	}
	if len(logs) == 0 {
		t.Skip("no real logs here: neither ../shared/corpus nor go-eventlog in the module cache")
	}
	return logs
}

// logInside returns the log of a go-attestation dump, or b.
func logInside(b []byte) []byte {
	var dump struct{ Log struct{ Raw []byte } }
	if json.Unmarshal(b, &dump) == nil && len(dump.Log.Raw) > 0 {
		return dump.Log.Raw
	}
	return b
}

// isLog tells logs from their neighbours: quotes, reports, ACPI tables.
func isLog(b []byte) bool {
	if eventlog.DetectDstack(b) {
		return true
	}
	const acpiTable = 56
	_, ok := eventlog.Detect(b)
	return ok && len(b) > acpiTable && !bytes.HasPrefix(b, []byte("HCLA"))
}

// events returns a log's events. A fault ends them, which is for the reader's
// own tests to judge.
func events(t testing.TB, b []byte) iter.Seq2[rtmr.Measurement, *eventlog.Event] {
	t.Helper()
	return func(yield func(rtmr.Measurement, *eventlog.Event) bool) {
		all := dstackOr(t, bytes.NewReader(b), b)
		for m, err := range all {
			if err != nil {
				t.Logf("the log ends early: %v", err)
				return
			}
			if !yield(m, m.Entry.(*eventlog.Event)) {
				return
			}
		}
	}
}

func dstackOr(t testing.TB, src io.Reader, b []byte) iter.Seq2[rtmr.Measurement, error] {
	t.Helper()
	if eventlog.DetectDstack(b) {
		return eventlog.NewDstackReader(src).Measurements()
	}
	r, err := eventlog.NewReader(src, eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Measurements()
}
