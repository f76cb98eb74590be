//go:build linux

package main_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/lab"
	"tallystick/rtmr"
)

// A list of 110,000 entries is caught up with, and its evidence given, in 40 MB of
// memory; and without one, the service is ready within a second of its start.
func TestMemory(t *testing.T) {
	const entries, most = 110_000, 40 << 10
	root := t.TempDir()
	tallyd := filepath.Join(root, "tallyd")
	if err := os.WriteFile(tallyd, lab.Build(t, "./cmd/tallyd"), 0o755); err != nil {
		t.Fatal(err)
	}
	var list bytes.Buffer
	if err := imagen.Write(&list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, entries); err != nil {
		t.Fatal(err)
	}
	imaDir := filepath.Join(root, guest.IMADir)
	if err := os.MkdirAll(imaDir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(imaDir, "binary_runtime_measurements")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	state, err := os.MkdirTemp("/dev/shm", "tallystick") // as /run is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	socket := filepath.Join(state, "tallyd.sock")
	began := time.Now()
	service := exec.Command(tallyd, "run", "--device", "memory", "--root", root, "--state", state, "--poll", "100ms")
	var log bytes.Buffer
	service.Stderr = &log
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- service.Wait() }()
	t.Cleanup(func() {
		service.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("%v\n%s", err, log.Bytes())
		}
	})
	within(t, func() bool { _, err := os.Stat(socket); return err == nil })
	ready := time.Since(began)
	t.Logf("ready after %v", ready)
	if ready > time.Second {
		t.Errorf("ready after %v, expected a second at most", ready)
	}
	if err := os.WriteFile(path, list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, func() bool {
		out, err := exec.Command(tallyd, "status", "--json", "--socket", socket).Output()
		var s guest.Status
		return err == nil && json.Unmarshal(out, &s) == nil && s.IMA == entries && s.Behind == 0
	})
	followed := memory(t, service.Process.Pid)
	bundle := filepath.Join(state, "bundle")
	for range 3 {
		if out, err := exec.Command(tallyd, "evidence", "--socket", socket, "--nonce", "0102030405060708090a0b0c0d0e0f10", "-o", bundle).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	proven := memory(t, service.Process.Pid)
	t.Logf("at most %d KiB when all was followed, %d KiB after 3 pieces of evidence", followed, proven)
	if proven > most {
		t.Errorf("%d KiB, expected at most %d", proven, most)
	}
	content, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.Read(content)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.IMAList, list.Bytes()) {
		t.Errorf("evidence has %d bytes of a list of %d", len(b.IMAList), list.Len())
	}
}

// within waits for a condition.
func within(t *testing.T, true func() bool) {
	t.Helper()
	for began := time.Now(); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the condition did not come true in a minute")
		}
	}
}

// memory is the most that a process had of memory, in KiB.
func memory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
