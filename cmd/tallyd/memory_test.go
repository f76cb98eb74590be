//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tallystick/evidence"
)

// The service with 110,000 entries stays below 40 MB, while it reads them, while it
// gives evidence that has as many, and after it takes up the journal again.
func TestMemory(t *testing.T) {
	const entries, most = 110_000, 40 << 10 // KiB
	tallyd, dir := goBuild(t, "../tallyd"), t.TempDir()
	if err := writeList(dir, entries); err != nil {
		t.Fatal(err)
	}
	socket, out := filepath.Join(dir, "state", "tallyd.sock"), filepath.Join(dir, "evidence.cmw")
	for _, process := range []string{"first", "second"} {
		cmd := exec.Command(tallyd, "run", "--device", "memory", "--root", dir, "--state", filepath.Join(dir, "state"))
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			status, err := exec.Command(tallyd, "status", "--socket", socket).CombinedOutput()
			if err == nil && bytes.Contains(status, fmt.Appendf(nil, "ima       %d entries", entries)) {
				break
			}
			if time.Since(began) > 2*time.Minute {
				t.Fatalf("%v\n%s\n%s", err, status, said.Bytes())
			}
		}
		before := peak(t, cmd.Process.Pid)
		if said, err := exec.Command(tallyd, "evidence", "--socket", socket, "--nonce", "cafe", "-o", out).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		after := peak(t, cmd.Process.Pid)
		t.Logf("%s process: %d KiB at most before evidence, %d KiB after", process, before, after)
		if after >= most {
			t.Errorf("%s process: %d KiB, expected less than %d", process, after, most)
		}
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, said.Bytes())
		}
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.Read(content)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadFile(filepath.Join(dir, "sys/kernel/security/ima/binary_runtime_measurements")); err != nil || !bytes.Equal(b.IMAList, list) {
		t.Errorf("%d bytes of the list's %d, %v", len(b.IMAList), len(list), err)
	}
	if b.Statement.Kernel != "" {
		t.Errorf("the list is said to be of the kernel %s, which is this machine's", b.Statement.Kernel)
	}
}

// peak is the largest that a process's memory was, in KiB.
func peak(t *testing.T, pid int) int {
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

// Where nothing was measured yet the service is ready within a second of its start.
func TestReady(t *testing.T) {
	dir := t.TempDir()
	if err := writeList(dir, 0); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "state", "tallyd.sock")
	cmd := exec.Command(goBuild(t, "../tallyd"), "run", "--device", "memory", "--root", dir, "--state", filepath.Join(dir, "state"))
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	for {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("not in a minute")
		}
		time.Sleep(time.Millisecond)
	}
	ready := time.Since(began)
	t.Logf("ready after %v", ready)
	if ready > time.Second {
		t.Error("expected a second at most")
	}
}
