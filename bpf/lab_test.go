//go:build linux

package bpf_test

import (
	"strings"
	"testing"

	"tallystick/lab"
)

// The tests of this package that need a kernel, on the kernels that Debian has,
// and under the lockdown that Secure Boot brings.
func TestLab(t *testing.T) {
	for _, m := range []lab.Machine{
		{Kernel: "6.1", Firmware: lab.SeaBIOS},
		{Kernel: "6.12", Firmware: lab.SeaBIOS},
		{Kernel: "7.3", Firmware: lab.SeaBIOS},
		{Kernel: "7.3", Firmware: lab.SecureBoot}, // lockdown=integrity
		{Kernel: "7.3", Firmware: lab.SeaBIOS, Append: "lockdown=confidentiality"},
		{Kernel: "6.1-s390x"}, // big-endian, and without a JIT
	} {
		name, lockdown := m.Kernel, "[none]"
		if m.Firmware == lab.SecureBoot {
			name, lockdown = name+"-secure-boot", "[integrity]"
		} else if m.Append != "" {
			name, lockdown = name+"-confidentiality", "[confidentiality]"
		}
		t.Run(name, func(t *testing.T) {
			m.TPM = lab.NoTPM
			m.Files = map[string][]byte{"/bpf.test": lab.BuildTest(t, "./bpf", m.Kernel)}
			g := m.Start(t)
			if got := string(g.Get("/sys/kernel/security/lockdown")); !strings.Contains(got, lockdown) {
				t.Errorf("lockdown is %s, want %s", got, lockdown)
			}
			args := []string{"/bpf.test", "-test.v", "-test.skip", "TestLab|TestGenerated"}
			if lockdown != "[none]" || m.Kernel == "6.1-s390x" { // less of what lasts
				args = append(args, "-test.short")
			}
			r := g.Exec(lab.Command{Args: args})
			out := string(r.Stdout) + string(r.Stderr)
			t.Logf("%s\n%s", g.Release(), out)
			if r.Status != 0 || strings.Contains(out, "SKIP") || !strings.Contains(out, "--- PASS: TestExtend ") {
				t.Errorf("status %d", r.Status)
			}
			g.Stop()
		})
	}
}
