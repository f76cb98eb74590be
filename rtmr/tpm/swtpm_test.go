package tpm_test

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallystick/rtmr/tpm"
)

// swtpm is a software TPM of the host's, without a kernel between.
type swtpm struct {
	net.Conn
	command *exec.Cmd
}

// startSwtpm makes and starts one: of version 2.0 with these banks, or "1.2".
func startSwtpm(t testing.TB, banks ...string) *swtpm {
	t.Helper()
	for program, pkg := range map[string]string{"swtpm": "swtpm", "swtpm_setup": "swtpm-tools"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (Debian package %s)", program, pkg)
		}
	}
	dir, err := os.MkdirTemp("", "swtpm-") // a socket's path is short, and one of swtpm's has no comma
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	args := []string{"socket", "--tpmstate", "dir=" + dir, "--flags", "not-need-init,startup-clear",
		"--server", "type=unixio,path=" + filepath.Join(dir, "s"), "--ctrl", "type=unixio,path=" + filepath.Join(dir, "c")}
	if banks[0] != "1.2" {
		args = append(args, "--tpm2")
		out, err := exec.Command("swtpm_setup", "--tpm2", "--tpmstate", dir, "--pcr-banks", strings.Join(banks, ","), "--overwrite").CombinedOutput()
		if err != nil {
			t.Fatalf("swtpm_setup: %v\n%s", err, out)
		}
	}
	s := &swtpm{command: exec.Command("swtpm", args...)}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.command.Process.Kill()
		s.command.Wait()
	})
	for range 500 { // until it listens
		if s.Conn, err = net.Dial("unix", filepath.Join(dir, "s")); err == nil {
			t.Cleanup(func() { s.Conn.Close() })
			return s
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal(err)
	return nil
}

// Send is transport.TPM's.
func (s *swtpm) Send(command []byte) ([]byte, error) {
	if _, err := s.Write(command); err != nil {
		return nil, err
	}
	response := make([]byte, 10)
	if _, err := io.ReadFull(s, response); err != nil {
		return nil, err
	}
	response = append(response, make([]byte, binary.BigEndian.Uint32(response[2:])-10)...)
	_, err := io.ReadFull(s, response[10:])
	return response, err
}

func openSwtpm(t testing.TB, banks ...string) *tpm.Device {
	t.Helper()
	d, err := tpm.New(startSwtpm(t, banks...), "a socket")
	if err != nil {
		t.Fatal(err)
	}
	return d
}
