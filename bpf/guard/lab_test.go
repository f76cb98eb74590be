//go:build linux

package guard_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/lab"
)

// inGuest is set in the machines that TestLab boots: there it runs the attacks.
// Its value says how the registers are made there.
const inGuest = "GUARD_GUEST"

// last is the last of what is tested.
var last = map[string]string{"private": "restarted", "public": "restarted", "no-lsm": "unsupported"}

// Attacks by root on the registers and on the report interfaces, on the kernels
// that Debian has: each works before there is a guard, and is denied afterwards.
func TestLab(t *testing.T) {
	if os.Getenv(inGuest) != "" {
		guest(t)
		return
	}
	program, program32 := compile(t, "amd64"), compile(t, "386")
	for _, m := range []struct {
		name, lockdown string
		lab.Machine
		registers string
	}{
		{"6.1", "[none]", lab.Machine{Kernel: "6.1"}, "private"},
		{"6.1-confidentiality", "[confidentiality]", lab.Machine{Kernel: "6.1", Append: "lockdown=confidentiality"}, "private"},
		{"6.12", "[none]", lab.Machine{Kernel: "6.12", Modules: []string{"tsm", "netconsole"}}, "private"},
		{"7.3-tdx", "[none]", lab.Machine{Kernel: "7.3", TSM: true, Modules: []string{"netconsole"}}, "private"},
		{"7.3-sev", "[none]", lab.Machine{Kernel: "7.3", TSM: true, TSMParams: "devname=sev-guest"}, "public"},
		{"7.3-confidentiality", "[confidentiality]", lab.Machine{Kernel: "7.3", Modules: []string{"tsm_report"}, Append: "lockdown=confidentiality"}, "private"},
		{"7.3-secure-boot", "[integrity]", lab.Machine{Kernel: "7.3", Firmware: lab.SecureBoot, Modules: []string{"tsm_report"}}, "private"},
		{"6.12-no-bpf-lsm", "[none]", lab.Machine{Kernel: "6.12", Append: "lsm=lockdown,integrity"}, "no-lsm"},
	} {
		t.Run(m.name, func(t *testing.T) {
			if m.Firmware != lab.SecureBoot {
				m.Firmware = lab.SeaBIOS
			}
			m.TPM = lab.NoTPM
			m.Files = map[string][]byte{"/guard.test": program, program32Path: program32}
			g := m.Start(t)
			if got := string(g.Get("/sys/kernel/security/lockdown")); !strings.Contains(got, m.lockdown) {
				t.Errorf("lockdown is %s, want %s", got, m.lockdown)
			}
			r := g.Exec(lab.Command{
				Args: []string{"/guard.test", "-test.v", "-test.timeout", "2m", "-test.run", "^TestLab$"},
				Env:  []string{inGuest + "=" + m.registers},
			})
			out := string(r.Stdout) + string(r.Stderr)
			t.Logf("%s\n%s", g.Release(), out)
			if r.Status != 0 || !strings.Contains(out, "--- PASS: TestLab/"+last[m.registers]) {
				t.Errorf("status %d", r.Status)
			}
			g.Stop()
		})
	}
}

// program32Path is this program, as 32-bit programs are.
const program32Path = "/guard32.test"

func compile(t *testing.T, arch string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guard.test")
	build := exec.Command("go", "test", "-c", "-ldflags", "-s -w", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
