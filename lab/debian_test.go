//go:build linux

package lab_test

import (
	"strings"
	"testing"

	"tallystick/lab"
)

// A Debian guest whose first process is systemd.
func TestDebian(t *testing.T) {
	g := lab.Machine{Kernel: "6.12", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Debian: "trixie"}.Start(t)
	g.Exec(lab.Command{Args: []string{"systemctl", "is-system-running", "--wait"}})
	if failed := g.Run("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("units that failed:\n%s", failed)
	}
	if got := strings.TrimSpace(string(g.Get("/proc/1/comm"))); got != "systemd" {
		t.Errorf("the first process is %q", got)
	}
	g.Reboot()
	g.Stop()
}
