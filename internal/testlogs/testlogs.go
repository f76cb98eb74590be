// Package testlogs finds the real logs that the project's tests read, and the
// register values that a device held, or a source published, beside them. It
// also assembles small logs by hand ([TCG12], [TCG2], [CCEL], [IMA], ..).
//
// Nothing here parses a log: what a log is, its place tells, and what it folds
// to, somebody else has said. The project's own logs are in fixtures/ and
// always there. The others are third parties': those in Go modules are there
// wherever a test can be built, since this package imports each module; those
// in ../shared are there or not, and are left out if not.
package testlogs

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	// So that go fetches the modules whose logs are read.
	_ "github.com/google/go-attestation/attest"
	_ "github.com/google/go-eventlog/tcg"
	_ "github.com/google/go-tdx-guest/testing/testdata"
)

// The modules that ship logs.
const (
	GoEventlog    = "github.com/google/go-eventlog"
	GoAttestation = "github.com/google/go-attestation"
	GoTDXGuest    = "github.com/google/go-tdx-guest"
	CCAToken      = "github.com/veraison/ccatoken" // a token, and no log
)

// Log is one real log.
type Log struct {
	Name   string // the module or folder, and the path in it
	Format string // by its origin, in the words of tally's --format; "ima-ascii" too
	Data   []byte
}

// root is the project's own folder.
var root = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the working directory")
		}
	}
	return "", err
})

var moduleDirs = sync.OnceValues(func() (map[string]string, error) {
	dir, err := root()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Dir}}", GoEventlog, GoAttestation, GoTDXGuest, CCAToken)
	cmd.Dir = dir
	out, err := cmd.Output()
	dirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
		dirs[path] = dir
	}
	return dirs, err
})

// ModuleDir returns a module's folder in the module cache.
func ModuleDir(t testing.TB, module string) string {
	t.Helper()
	dirs, err := moduleDirs()
	if err != nil || dirs[module] == "" {
		t.Fatalf("%s is not in the module cache: %v", module, err)
	}
	return dirs[module]
}

// Fixture returns the path of a file in fixtures/.
func Fixture(t testing.TB, elem ...string) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{dir, "fixtures"}, elem...)...)
}

// Shared returns the path of a file in ../shared, and whether it is there.
func Shared(t testing.TB, elem ...string) (path string, ok bool) {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(append([]string{dir, "..", "shared"}, elem...)...)
	_, err = os.Stat(path)
	return path, err == nil
}

// Read returns a file's bytes.
func Read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// All returns every real log that is here, each content once.
func All(t testing.TB) []Log {
	t.Helper()
	logs := slices.Concat(fixtureLogs(t), captureLogs(t), moduleLogs(t), corpusLogs(t))
	seen := map[string]bool{}
	return slices.DeleteFunc(logs, func(l Log) bool {
		known := seen[string(l.Data)]
		seen[string(l.Data)] = true
		return known || len(l.Data) == 0
	})
}

// OfFormat returns the logs of All in one of the formats.
func OfFormat(t testing.TB, formats ...string) []Log {
	t.Helper()
	return slices.DeleteFunc(All(t), func(l Log) bool { return !slices.Contains(formats, l.Format) })
}

func fixtureLogs(t testing.TB) (logs []Log) {
	t.Helper()
	top := Fixture(t)
	walk(t, top, func(path, name string) {
		switch base := filepath.Base(path); {
		case base == "boot.bin":
			logs = append(logs, Log{"fixtures/" + name, "tcg2", Read(t, path)})
		case strings.Contains(base, "ima") && strings.HasSuffix(base, ".bin"):
			logs = append(logs, Log{"fixtures/" + name, "ima", Read(t, path)})
		case strings.HasSuffix(base, "ima.ascii"):
			logs = append(logs, Log{"fixtures/" + name, "ima-ascii", Read(t, path)})
		}
	})
	return logs
}

func captureLogs(t testing.TB) (logs []Log) {
	t.Helper()
	top, ok := Shared(t, "lab", "captures")
	if !ok {
		return nil
	}
	walk(t, top, func(path, name string) {
		switch base := filepath.Base(path); {
		case base == "tpm0.binary_bios_measurements":
			logs = append(logs, Log{"captures/" + name, "tcg2", Read(t, path)})
		case strings.Contains(base, "binary_runtime_measurements"):
			logs = append(logs, Log{"captures/" + name, "ima", Read(t, path)})
		case strings.Contains(base, "ascii_runtime_measurements"):
			logs = append(logs, Log{"captures/" + name, "ima-ascii", Read(t, path)})
		}
	})
	return logs
}

func moduleLogs(t testing.TB) (logs []Log) {
	t.Helper()
	for _, folder := range []struct{ module, dir string }{
		{GoEventlog, "testdata/eventlogs/tpm"},
		{GoEventlog, "testdata/eventlogs/ccel"},
		{GoEventlog, "testdata/legacydata"},
		{GoAttestation, "attest/testdata"},
		{GoTDXGuest, "testing/testdata/ccel"},
	} {
		top := filepath.Join(ModuleDir(t, folder.module), filepath.FromSlash(folder.dir))
		walk(t, top, func(path, name string) {
			b := logInside(Read(t, path))
			if isTable(b) || strings.Contains(name, "quote") || strings.Contains(name, "nonce") {
				return
			}
			format := tcgFormat(b)
			if strings.HasSuffix(folder.dir, "ccel") {
				format = "ccel"
			}
			logs = append(logs, Log{filepath.Base(folder.module) + "/" + folder.dir + "/" + name, format, b})
		})
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

// isTable recognises the ACPI table that lies beside a CC log.
func isTable(b []byte) bool { return len(b) == 56 && bytes.HasPrefix(b, []byte("CCEL")) }

// tcgFormat tells a crypto-agile log by the signature in its first record's
// data, behind index, type, 20-byte digest and size.
func tcgFormat(b []byte) string {
	if len(b) > 32 && bytes.HasPrefix(b[32:], []byte("Spec ID Event03")) {
		return "tcg2"
	}
	return "tcg12"
}

// walk calls f for the files below top, in order of their names.
func walk(t testing.TB, top string, f func(path, name string)) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(top, path)
		f(path, filepath.ToSlash(name))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
