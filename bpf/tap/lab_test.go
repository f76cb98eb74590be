//go:build linux

package tap_test

import (
	"strings"
	"testing"

	"tallystick/lab"
)

// The tests of this package that need a kernel, on the kernels that Debian has:
// with and without a TPM, whose banks come first among an entry's digests, and
// with another hash.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		name  string
		m     lab.Machine
		tests []string
	}{
		{"6.1", lab.Machine{Kernel: "6.1", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Append: lab.TCB}, imaTests},
		{"6.12", lab.Machine{Kernel: "6.12", Firmware: lab.SeaBIOS, Append: lab.TCB}, imaTests},
		{"7.3", lab.Machine{Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, TSM: true, TSMParams: "rtmrs=5",
			Append: lab.TCB + " ima_hash=sha384"}, append(imaTests, "TestTSM")},
		{"7.3-secure-boot", lab.Machine{Kernel: "7.3", Firmware: lab.SecureBoot, Append: lab.TCB}, imaTests},
		{"6.1-s390x", lab.Machine{Kernel: "6.1-s390x", TPM: lab.NoTPM}, []string{"TestPoll"}}, // which has no BTF
		{"7.3-confidentiality", lab.Machine{Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM,
			Append: lab.TCB + " lockdown=confidentiality"}, []string{"TestConfidentiality", "TestPoll", "TestUnprivileged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.m.Files = map[string][]byte{"/tap.test": lab.BuildTest(t, "./bpf/tap", c.m.Kernel)}
			g := c.m.Start(t)
			r := g.Exec(lab.Command{Args: []string{"/tap.test", "-test.v", "-test.run", "^(" + strings.Join(c.tests, "|") + ")$"}})
			out := string(r.Stdout) + string(r.Stderr)
			t.Logf("%s\n%s", g.Release(), out)
			if r.Status != 0 || strings.Contains(out, "SKIP") {
				t.Errorf("status %d", r.Status)
			}
			for _, name := range c.tests {
				if !strings.Contains(out, "--- PASS: "+name+" ") {
					t.Errorf("%s did not run", name)
				}
			}
			g.Stop()
		})
	}
}

var imaTests = []string{"TestIMA", "TestOrder", "TestWait", "TestLost", "TestRestricted", "TestPoll", "TestUnprivileged"}
