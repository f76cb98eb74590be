//go:build linux

package guard_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A program keeps itself, in place of what was in the file, and executes what is
// there if that is another one. That the guard admits it is tested with the service
// (packaging).
func TestKeep(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kept")
	must(t, os.WriteFile(file, []byte("another"), 0o600))
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"=keep", keptFile+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("keep: %v\n%s", err, out)
	}
	want, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	got, err := os.ReadFile(file)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("kept %d bytes that are not the program's %d", len(got), len(want))
	}

	echo, err := exec.LookPath("echo")
	must(t, err)
	program, err := os.ReadFile(echo)
	must(t, err)
	must(t, os.WriteFile(file, program, 0o600))
	cmd = exec.Command("/proc/self/exe", "arguments", "are", "passed")
	cmd.Env = append(os.Environ(), role+"=handed-over", keptFile+"="+file)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "arguments are passed\n" {
		t.Errorf("executed echo: %v\n%s", err, out)
	}
}
