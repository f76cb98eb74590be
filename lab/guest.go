//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"tallystick/lab/internal/wire"
)

// Guest is a machine that runs. Its methods fail the test if the guest does not
// answer any more; what the guest itself answers, they return.
type Guest struct {
	t       T
	machine Machine
	dir     string
	parts   *parts
	console *console

	qemu, tpm *process
	listener  net.Listener
	link      *link
	hello     wire.Header
}

// callTime is how long the guest may take over one request.
const callTime = 5 * time.Minute

// Result is what a program did.
type Result struct {
	Stdout, Stderr []byte
	Status         int // exit status; -1 if a signal ended it
}

// Command is a program to run.
type Command struct {
	Args  []string
	Env   []string // beside the guest's own
	Dir   string
	Stdin []byte
}

// Run runs a program and fails the test unless its exit status is 0. It returns
// the standard output.
func (g *Guest) Run(args ...string) string {
	g.t.Helper()
	r := g.Exec(Command{Args: args})
	if r.Status != 0 {
		g.t.Fatalf("guest: %s: exit status %d\n%s%s", strings.Join(args, " "), r.Status, r.Stdout, r.Stderr)
	}
	return string(r.Stdout)
}

// Shell runs a script of busybox's sh, as Run does.
func (g *Guest) Shell(script string) string {
	g.t.Helper()
	return g.Run("/bin/sh", "-c", script)
}

// Exec runs a program to its end. It fails the test if the program cannot be
// started.
func (g *Guest) Exec(c Command) Result {
	g.t.Helper()
	r, err := g.Spawn(c).Wait()
	if err != nil {
		g.t.Fatalf("guest: %s: %v", strings.Join(c.Args, " "), err)
	}
	return r
}

// Process is a program that runs in the guest.
type Process struct {
	g    *Guest
	call *call
	out  Result
}

// Spawn starts a program. Its standard input is at its end after c.Stdin.
func (g *Guest) Spawn(c Command) *Process {
	g.t.Helper()
	call, err := g.link.call(wire.Header{Kind: wire.Exec, Args: c.Args, Env: c.Env, Dir: c.Dir})
	if err == nil {
		err = call.input(c.Stdin)
	}
	if err != nil {
		g.t.Fatalf("guest: %s: %v", strings.Join(c.Args, " "), err)
	}
	return &Process{g: g, call: call}
}

// Signal sends a signal to the program and to its children.
func (p *Process) Signal(sig syscall.Signal) {
	p.g.link.send(wire.Header{ID: p.call.id, Kind: wire.Signal, Number: int(sig)}, nil)
}

// Wait waits for the program's end.
func (p *Process) Wait() (Result, error) {
	done, err := p.call.wait(p.g.t.Context(), func(h wire.Header, body []byte) {
		if h.Kind == wire.Stdout {
			p.out.Stdout = append(p.out.Stdout, body...)
		} else {
			p.out.Stderr = append(p.out.Stderr, body...)
		}
	})
	p.out.Status = done.Number
	return p.out, err
}

// Error is what the guest answered where it could not do something. It wraps
// the Linux error number, for errors.Is.
type Error struct {
	Text  string // in the words of the guest's os package
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the error number, which errors.Is takes for fs.ErrNotExist too.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Get returns a file's content, and fails the test if there is no such file.
func (g *Guest) Get(path string) []byte {
	g.t.Helper()
	content, err := g.Read(path)
	if err != nil {
		g.t.Fatalf("guest: %v", err)
	}
	return content
}

// Read returns a file's content. Files of sysfs and securityfs, which claim to
// be empty, are read to their end.
func (g *Guest) Read(path string) ([]byte, error) {
	call, err := g.link.call(wire.Header{Kind: wire.Get, Path: path})
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	_, err = call.wait(g.t.Context(), func(_ wire.Header, body []byte) { content.Write(body) })
	return content.Bytes(), err
}

// Put writes a file, and fails the test if that fails. A new file is executable
// if it begins as a program or a script does.
func (g *Guest) Put(path string, content []byte) {
	g.t.Helper()
	if err := g.Write(path, content); err != nil {
		g.t.Fatalf("guest: %v", err)
	}
}

// Write writes a file, up to 64 KiB in one write(2). It overwrites one that is
// there, so it also writes to the kernel's files.
func (g *Guest) Write(path string, content []byte) error {
	call, err := g.link.call(wire.Header{Kind: wire.Put, Path: path, Mode: fileMode(content)})
	if err != nil {
		return err
	}
	if err := call.input(content); err != nil {
		return err
	}
	_, err = call.wait(g.t.Context(), nil)
	return err
}

func fileMode(content []byte) uint32 {
	if bytes.HasPrefix(content, []byte("\x7fELF")) || bytes.HasPrefix(content, []byte("#!")) {
		return 0o755
	}
	return 0o644
}

// Release returns the kernel's release, as uname -r.
func (g *Guest) Release() string { return g.hello.Text }

// Dir returns the machine's folder on the host. It has the TPM's state in tpm/,
// whose ca/cert.pem signed the endorsement key's certificate.
func (g *Guest) Dir() string { return g.dir }

// WaitConsole returns the first line of the console, from the machine's start
// on, that matches, and waits a minute for one.
func (g *Guest) WaitConsole(expr string) string {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	line, err := g.console.wait(ctx, regexp.MustCompile(expr), g.qemu.ended)
	if err != nil {
		g.t.Fatalf("guest: %v", err)
	}
	return line
}

// Console returns the console's lines so far, each with the seconds since the
// machine's start.
func (g *Guest) Console() []string {
	lines, _ := g.console.all()
	return lines
}

// Stop powers the guest off.
func (g *Guest) Stop() {
	g.t.Helper()
	if err := g.link.send(wire.Header{Kind: wire.Power, Path: "off"}, nil); err != nil {
		g.t.Errorf("guest: power off: %v", err)
	}
	select {
	case <-g.qemu.ended:
	case <-time.After(30 * time.Second):
		g.t.Errorf("guest: still on after 30 s")
		g.qemu.kill()
	}
}

// Kill ends the machine as a power failure does.
func (g *Guest) Kill() { g.qemu.kill() }

// Reboot restarts the machine, its firmware and its TPM included, and waits
// until its init answers. Its disk keeps what was written.
func (g *Guest) Reboot() {
	g.t.Helper()
	g.restart("reboot", func() error { return g.link.send(wire.Header{Kind: wire.Power, Path: "reboot"}, nil) })
}

// Reset restarts the machine as Reboot does, but at once: its kernel and its programs
// get to know nothing of it, and what they had not written to the disk is lost.
func (g *Guest) Reset() {
	g.t.Helper()
	g.restart("reset", func() error { return g.qmp("system_reset", struct{}{}) })
}

func (g *Guest) restart(what string, begin func() error) {
	g.t.Helper()
	// Otherwise QEMU ends when its guest restarts, as one does that panicked.
	on := func(action string) error {
		return g.qmp("set-action", map[string]string{"reboot": action})
	}
	err := on("reset")
	if err == nil {
		err = begin()
	}
	if err == nil {
		err = g.meet()
	}
	if err == nil {
		err = on("shutdown")
	}
	if err != nil {
		g.t.Fatalf("guest: %s: %v", what, err)
	}
}

// KexecLoad loads a kernel to be started in place of the running one. The files
// are in the guest.
func (g *Guest) KexecLoad(kernel, initramfs, cmdline string) {
	g.t.Helper()
	call, err := g.link.call(wire.Header{Kind: wire.Kexec, Path: kernel, Args: []string{initramfs, cmdline}})
	if err == nil {
		_, err = call.wait(g.t.Context(), nil)
	}
	if err != nil {
		g.t.Fatalf("guest: kexec: %v", err)
	}
}

// KexecStart starts the kernel that was loaded, without the firmware, and waits
// until its init answers.
func (g *Guest) KexecStart() {
	g.t.Helper()
	err := g.link.send(wire.Header{Kind: wire.Power, Path: "kexec"}, nil)
	if err == nil {
		err = g.meet()
	}
	if err != nil {
		g.t.Fatalf("guest: kexec: %v", err)
	}
}

// BootFiles returns the kernel and the initramfs that the machine was started
// with, and the command line, for Put and KexecLoad.
func (g *Guest) BootFiles() (kernel, initramfs []byte, cmdline string) {
	g.t.Helper()
	kernel, err := os.ReadFile(g.parts.kernel.Image)
	if err == nil {
		initramfs, err = os.ReadFile(filepath.Join(g.dir, "initramfs"))
	}
	if err != nil {
		g.t.Fatalf("lab: %v", err)
	}
	return kernel, initramfs, g.machine.cmdline(g.parts)
}

// cleanup ends what runs, and shows the console if the test failed.
func (g *Guest) cleanup() {
	if g.t.Failed() {
		lines := g.Console()
		g.t.Logf("the guest's console:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
	g.end()
}

// end ends what runs.
func (g *Guest) end() {
	g.qemu.kill()
	g.tpm.kill()
	if g.listener != nil {
		g.listener.Close()
	}
	if g.link != nil {
		g.link.conn.Close()
	}
}

var errEnded = errors.New("the guest has ended")

func answerError(h wire.Header) error {
	if h.Text == "" {
		return nil
	}
	return &Error{Text: h.Text, Errno: syscall.Errno(h.Errno)}
}

// problems are what init said went wrong while it started.
func problems(hello wire.Header) error {
	if len(hello.Args) == 0 {
		return nil
	}
	return fmt.Errorf("the guest's init: %s", strings.Join(hello.Args, "; "))
}
