//go:build linux

package lab_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"tallystick/lab"
)

func TestGuest(t *testing.T) {
	g := lab.Machine{Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Files: map[string][]byte{"/tmp/given": []byte("here")}}.Start(t)
	if got := strings.TrimSpace(g.Run("uname", "-r")); got != g.Release() {
		t.Errorf("uname -r: %q, hello said %q", got, g.Release())
	}
	if got := g.Get("/tmp/given"); string(got) != "here" {
		t.Errorf("a file of the root disk: %q", got)
	}
	r := g.Exec(lab.Command{Args: []string{"sh", "-c", "cat; echo err >&2; exit 7"}, Stdin: []byte("in")})
	if string(r.Stdout) != "in" || string(r.Stderr) != "err\n" || r.Status != 7 {
		t.Errorf("exec: %+v", r)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	g.Put("/tmp/big", big)
	if !bytes.Equal(g.Get("/tmp/big"), big) {
		t.Error("a megabyte came back altered")
	}
	if _, err := g.Read("/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := g.Write("/proc/sys/kernel/panic", []byte("no number")); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("what the kernel refuses: %v", err)
	}
	p := g.Spawn(lab.Command{Args: []string{"sleep", "1000"}})
	g.Run("true") // meanwhile
	p.Signal(syscall.SIGTERM)
	if r, err := p.Wait(); err != nil || r.Status != -1 {
		t.Errorf("a program that was ended: %+v, %v", r, err)
	}
	g.Shell("echo marked > /dev/console")
	g.WaitConsole("marked$")

	boot := g.Get("/proc/sys/kernel/random/boot_id")
	g.Reboot()
	if bytes.Equal(g.Get("/proc/sys/kernel/random/boot_id"), boot) || !bytes.Equal(g.Get("/tmp/big"), big) {
		t.Error("rebooted: the same boot, or a file is lost")
	}
	p = g.Spawn(lab.Command{Args: []string{"sleep", "1000"}})
	g.Kill()
	if _, err := p.Wait(); err == nil {
		t.Error("the machine was killed, and a program of it ended well")
	}
	if _, err := g.Read("/proc/version"); err == nil {
		t.Error("the machine was killed, and answers")
	}
}
