//go:build linux

package tpm_test

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tallystick/lab"
	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
	"tallystick/rtmr/tpm"
)

// inGuest is the variable that says what this program is to test in a guest.
const inGuest = "TALLYSTICK_TPM_GUEST"

// TestLab has this program test the kernel's TPMs in guests: of the interfaces CRB
// and TIS, with several banks and with one, shared and not, and one of the vTPM proxy.
func TestLab(t *testing.T) {
	if kind := os.Getenv(inGuest); kind != "" {
		guestTests[kind](t)
		return
	}
	swtpm := lab.HostProgram(t, "swtpm")
	for _, c := range []struct {
		kind string
		lab.Machine
	}{
		{"crb", lab.Machine{Kernel: "6.12", Firmware: lab.OVMF}},
		{"tis", lab.Machine{Kernel: "6.1", Firmware: lab.SeaBIOS, TPM: lab.TIS, Banks: []string{"sha256"}}},
		{"proxy", lab.Machine{Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Modules: []string{"tpm_vtpm_proxy"}}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			c.Files = maps.Clone(swtpm)
			c.Files["/tpm.test"] = lab.BuildTest(t, "./rtmr/tpm", c.Kernel)
			g := c.Start(t)
			r := g.Exec(lab.Command{Args: []string{"/tpm.test", "-test.v", "-test.run", "^TestLab$"}, Env: []string{inGuest + "=" + c.kind}})
			out := string(r.Stdout) + string(r.Stderr)
			t.Logf("%s\n%s", g.Release(), out)
			if r.Status != 0 || strings.Contains(out, "SKIP") || !strings.Contains(out, "--- PASS: TestLab/device") {
				t.Errorf("status %d", r.Status)
			}
			g.Stop()
		})
	}
}

var guestTests = map[string]func(*testing.T){"crb": testCRB, "tis": testTIS, "proxy": testProxy, "denied": testDenied}

func openTPM(t *testing.T, path string) *tpm.Device {
	t.Helper()
	d, err := tpm.Open(tpm.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// named holds what a device says of itself, and of its banks.
func named(t *testing.T, d *tpm.Device, name string, banks ...rtmr.Alg) {
	t.Helper()
	description := d.Describe()
	if !strings.HasPrefix(description.Name, "TPM 2.0 at "+name+", IBM SW TPM, firmware ") {
		t.Errorf("%q, expected %q", description.Name, name)
	}
	if got := description.Registers[10].Banks; !slices.Equal(got, banks) {
		t.Errorf("banks %v, expected %v", got, banks)
	}
}

func testCRB(t *testing.T) {
	d := openTPM(t, "")
	named(t, d, "/dev/tpmrm0 (tpm_crb)", rtmr.SHA1, rtmr.SHA256, rtmr.SHA384)
	t.Run("errors", testOpen)
	t.Run("kernel", func(t *testing.T) { testSysfs(t, d) })
	t.Run("quote", func(t *testing.T) { testQuotes(t, d) })
	t.Run("others", func(t *testing.T) { testOthers(t, d) })
	t.Run("device", func(t *testing.T) { devicetest.Run(t, d) })
}

func testTIS(t *testing.T) {
	d := openTPM(t, "/dev/tpm0")
	named(t, d, "/dev/tpm0 (tpm_tis)", rtmr.SHA256)
	if _, err := tpm.Open(tpm.Options{Path: "/dev/tpm0"}); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("a device that is not shared, opened twice: %v, expected ErrBusy", err)
	}
	t.Run("quote", func(t *testing.T) { testQuotes(t, d) })
	t.Run("device", func(t *testing.T) { devicetest.Run(t, d) })
}

// testOpen: what cannot be opened says why.
func testOpen(t *testing.T) {
	for path, want := range map[string]error{"/dev/tpm9": rtmr.ErrNotSupported, "/dev/none/tpm0": rtmr.ErrNotSupported} {
		if _, err := tpm.Open(tpm.Options{Path: path}); !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", path, err, want)
		}
	}
	if _, err := tpm.Open(tpm.Options{Path: "/etc/passwd"}); err == nil || !strings.Contains(err.Error(), "not a character device") {
		t.Errorf("a file: %v", err)
	}
	if _, err := tpm.Open(tpm.Options{Path: "/dev/null"}); !errors.Is(err, rtmr.ErrShort) {
		t.Errorf("/dev/null: %v, expected ErrShort", err)
	}
	const nobody = 65534
	c := exec.Command("/tpm.test", "-test.run", "^TestLab$")
	c.Env = append(os.Environ(), inGuest+"=denied")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func testDenied(t *testing.T) {
	if _, err := tpm.Open(tpm.Options{}); !errors.Is(err, rtmr.ErrDenied) {
		t.Errorf("uid %d: %v, expected ErrDenied", os.Getuid(), err)
	}
}

// testSysfs: the values are those that the kernel itself reads.
func testSysfs(t *testing.T, d *tpm.Device) {
	moved := 0
	for _, info := range d.Describe().Registers {
		values, err := d.Read(ctx, info.Register)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range info.Banks {
			name := strings.TrimPrefix(info.Register.String(), "pcr")
			text, err := os.ReadFile("/sys/class/tpm/tpm0/pcr-" + a.String() + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			got := values[a][info.Register].String()
			if !strings.EqualFold(strings.TrimSpace(string(text)), got) {
				t.Errorf("%s %s is %s, the kernel has %s", a, info.Register, got, text)
			}
			if strings.Trim(got, "0f") != "" {
				moved++
			}
		}
	}
	if moved < 8 {
		t.Errorf("%d registers have a value that a boot gave them", moved)
	}
}

func testQuotes(t *testing.T, d *tpm.Device) {
	for name, k := range keys(t, d) {
		for _, banks := range [][]rtmr.Alg{nil, {rtmr.SHA256}} {
			q, err := d.Quote(ctx, k, []byte(name), banks)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, q, []byte(name))
		}
		credential(t, d, k)
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	certs, err := d.EKCertificates(ctx)
	if err != nil || len(certs["rsa2048"]) == 0 {
		t.Errorf("certificates: %v, %v", certs, err)
	}
}

// testOthers: while another process extends, through a device of its own, nothing
// is lost and nothing is unknown.
func testOthers(t *testing.T, d *tpm.Device) {
	const each = 20
	other := openTPM(t, "/dev/tpmrm0")
	info := d.Describe().Registers[23]
	before, err := d.Read(ctx, pcr23)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, device := range []*tpm.Device{d, other} {
		wg.Go(func() {
			for range each {
				if err := device.Extend(ctx, pcr23, hashes(info, "x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	after, err := d.Read(ctx, pcr23)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range hashes(info, "x") {
		value := before[digest.Alg][pcr23]
		for range 2 * each {
			h := digest.Alg.New()
			h.Write(value)
			h.Write(digest.Sum)
			value = h.Sum(nil)
		}
		if !bytes.Equal(value, after[digest.Alg][pcr23]) {
			t.Errorf("%s: %s, expected %s", digest.Alg, after[digest.Alg][pcr23], value)
		}
	}
}
