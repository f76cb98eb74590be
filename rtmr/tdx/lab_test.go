//go:build linux

package tdx_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/lab"
)

// TestLab runs the tests of guest_test.go in a machine that has labtsm in place of
// the driver tdx_guest.
func TestLab(t *testing.T) {
	if _, err := os.Stat(lab.TSMModule); err == nil {
		inGuest(t)
		return
	}
	m := lab.Machine{Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, TSM: true, Files: map[string][]byte{}}
	g := m.Start(t)
	program := filepath.Join(t.TempDir(), "tdx.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	g.Put("/tdx.test", content)
	r := g.Exec(lab.Command{Args: []string{"/tdx.test", "-test.v"}})
	out := string(r.Stdout) + string(r.Stderr)
	t.Logf("%s\n%s", g.Release(), out)
	if r.Status != 0 || strings.Contains(out, "SKIP") || !strings.Contains(out, "--- PASS: TestLab/Quote ") {
		t.Errorf("status %d", r.Status)
	}
	if console := strings.Join(g.Console(), "\n"); strings.Contains(console, "BUG:") || strings.Contains(console, "WARNING:") {
		t.Errorf("the kernel complained:\n%s", console)
	}
	g.Stop()
}
