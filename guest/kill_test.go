//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/lab"
	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
)

// TestMain runs TestKilled's child where the environment says so.
func TestMain(m *testing.M) {
	if device := os.Getenv("HELPER_DEVICE"); device != "" {
		if err := child(device, os.Getenv("HELPER_DIR")); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// openDevice opens a device of this system.
func openDevice(kind, dir string) (rtmr.Device, error) {
	if kind == "tdx" {
		return tdx.Open(tdx.Options{})
	}
	return bpf.Open(bpf.Options{Path: filepath.Join(dir, "bpf", "tallystick")})
}

// child is a helper that dies now and then of itself, at an extend, and of its
// parent at any other time.
func child(kind, dir string) error {
	device, err := openDevice(kind, dir)
	if err != nil {
		return err
	}
	h, err := guest.New(ctx, guest.Config{
		Device: mortal{device}, Journal: filepath.Join(dir, "journal.cel"), IMADir: dir, Wake: guest.Poll(time.Millisecond),
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return h.Run(ctx)
}

// mortal is a device whose extends take a while, and at which its process dies once
// in many times: before the extend, or after it.
type mortal struct{ rtmr.Device }

func (m mortal) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	die := func() {
		time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond)
		if rand.IntN(200) == 0 {
			unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}
	die()
	defer die()
	return m.Device.Extend(ctx, r, digests)
}

// kills is how often TestKilled kills its child.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("HELPER_KILLS")); err == nil {
		return n
	}
	return 200
}

// A helper is killed again and again, by itself around an extend or from outside
// at any moment: the journal holds each entry of the kernel's list once, in order,
// and folds to the registers.
func TestKilled(t *testing.T) {
	kind := os.Getenv("KILL_DEVICE") // in a guest; here the registers in the kernel
	dir := t.TempDir()
	if kind == "" {
		kind = "bpf"
	}
	if kind == "bpf" {
		if err := os.Mkdir(filepath.Join(dir, "bpf"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=0755"); err != nil {
			t.Skip("no BPF: cannot mount a BPF file system:", err)
		}
		t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH) })
	}
	device, err := openDevice(kind, dir)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	path := filepath.Join(dir, "binary_runtime_measurements")
	list, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	if err := imagen.Write(list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, 30*kills()); err != nil {
		t.Fatal(err)
	}

	journal := filepath.Join(dir, "journal.cel")
	own := 0
	for range kills() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "HELPER_DEVICE="+kind, "HELPER_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := make([]byte, 200)
		n := 0
		if rand.IntN(4) > 0 { // else it may be killed while it starts
			n, _ = out.Read(said)
		}
		timer := time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, func() { cmd.Process.Kill() })
		more, _ := io.ReadAll(out)
		cmd.Wait()
		if timer.Stop() {
			own++
		}
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended by itself: %v: %s", cmd.ProcessState, append(said[:n], more...))
		}
	}
	e := open(t, device, journal)
	r := e.Recovery()
	e.Close()
	check(t, device, journal)
	n := sameEntries(t, journal, path)
	t.Logf("%d kills, %d of them by itself: %d entries; the last time %+v", kills(), own, n, r)
	if n < kills() || own == 0 || own == kills() {
		t.Error("too little to show anything")
	}
}

// sameEntries fails the test unless the journal has the list's first entries, in
// order; it returns how many.
func sameEntries(t *testing.T, journal, path string) (n int) {
	t.Helper()
	list, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Close()
	var want []string
	r, err := ima.NewReader(list, ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for m, err := range cel.NewReader(bytes.NewReader(content), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if !m.NoAction {
			got = append(got, string(m.Entry.Data()))
		}
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if len(want) < len(got) {
			want = append(want, string(m.Entry.Data()))
		}
	}
	for i := range got {
		if i >= len(want) || got[i] != want[i] {
			t.Fatalf("entry %d of the journal is not the list's", i)
		}
	}
	return len(got)
}

// TestKilled where hardware's registers are files, and on an old kernel.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		device string
		lab.Machine
	}{
		{"tdx", lab.Machine{Kernel: "7.3", TSM: true}},
		{"bpf", lab.Machine{Kernel: "6.1"}},
	} {
		t.Run(c.device+"-"+c.Kernel, func(t *testing.T) {
			c.Firmware, c.TPM, c.Disk = lab.SeaBIOS, lab.NoTPM, 512
			c.Files = map[string][]byte{"/guest.test": lab.BuildTest(t, "./guest", c.Kernel)}
			g := c.Machine.Start(t)
			r := g.Exec(lab.Command{
				Args: []string{"/guest.test", "-test.v", "-test.run", "^TestKilled$"},
				Env:  []string{"KILL_DEVICE=" + c.device, "HELPER_KILLS=40", "TMPDIR=/run"},
			})
			out := string(r.Stdout) + string(r.Stderr)
			t.Logf("%s\n%s", g.Release(), out)
			if r.Status != 0 || !strings.Contains(out, "--- PASS: TestKilled") {
				t.Errorf("status %d", r.Status)
			}
			g.Stop()
		})
	}
}
