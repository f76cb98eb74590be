//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/lab/internal/wire"
)

// session is the talk with the host.
type session struct {
	port io.ReadWriter

	writing sync.Mutex

	mu     sync.Mutex
	inputs map[uint32]io.WriteCloser // where Data frames go
	procs  map[uint32]*os.Process
}

// serve answers the host's requests, each on its own goroutine.
func serve(port *os.File, problems []string) error {
	s := &session{port: patient{port}, inputs: map[uint32]io.WriteCloser{}, procs: map[uint32]*os.Process{}}
	s.send(wire.Header{Kind: wire.Hello, Text: release(), Args: problems}, nil)
	for {
		h, body, err := wire.Read(s.port)
		if err != nil {
			return err
		}
		switch h.Kind {
		case wire.Exec:
			s.begin(h, s.exec)
		case wire.Put:
			s.begin(h, s.put)
		case wire.Get:
			go s.finish(h.ID, s.get(h))
		case wire.Kexec:
			go func() { s.finish(h.ID, kexecLoad(h.Path, h.Args[0], h.Args[1])) }()
		case wire.Data:
			if in := s.input(h.ID); in != nil {
				in.Write(body)
			}
		case wire.End:
			if in := s.input(h.ID); in != nil {
				in.Close()
			}
		case wire.Signal:
			s.signal(h)
		case wire.Power:
			power(h.Path)
		default:
			s.finish(h.ID, fmt.Errorf("request %q is not known", h.Kind))
		}
	}
}

// patient reads a port to which the host's side is not connected yet, which
// reads as an end of file (drivers/char/virtio_console.c, port_fops_read).
type patient struct{ *os.File }

func (p patient) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || err != io.EOF {
			return n, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *session) send(h wire.Header, body []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return wire.Write(s.port, h, body)
}

// begin runs a request that has input. The input is there before the next frame
// is read.
func (s *session) begin(h wire.Header, run func(wire.Header, io.Reader) (int, error)) {
	in := newQueue()
	s.mu.Lock()
	s.inputs[h.ID] = in
	s.mu.Unlock()
	go func() {
		status, err := run(h, in)
		in.abandon()
		s.mu.Lock()
		delete(s.inputs, h.ID)
		delete(s.procs, h.ID)
		s.mu.Unlock()
		s.done(h.ID, status, err)
	}()
}

func (s *session) input(id uint32) io.WriteCloser {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in, ok := s.inputs[id]; ok {
		return in
	}
	return nil
}

func (s *session) finish(id uint32, err error) { s.done(id, 0, err) }

func (s *session) done(id uint32, status int, err error) {
	h := wire.Header{ID: id, Kind: wire.Done, Number: status}
	if err != nil {
		h.Text = err.Error()
		var errno syscall.Errno
		if errors.As(err, &errno) {
			h.Errno = int(errno)
		}
	}
	s.send(h, nil)
}

// exec runs a program and sends what it writes. The program's own group gets
// the signals. What it leaves running does not hold the answer up.
func (s *session) exec(h wire.Header, in io.Reader) (int, error) {
	if len(h.Args) == 0 {
		return 0, errors.New("no program")
	}
	cmd := exec.Command(h.Args[0], h.Args[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), h.Env...), h.Dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr = &sender{s, h.ID, wire.Stdout}, &sender{s, h.ID, wire.Stderr}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.procs[h.ID] = cmd.Process
	s.mu.Unlock()
	go func() { // ends with the input, or when exec returns and abandons it
		io.Copy(stdin, in)
		stdin.Close()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	return cmd.ProcessState.ExitCode(), err
}

// sender sends what a program writes.
type sender struct {
	s    *session
	id   uint32
	kind wire.Kind
}

func (o *sender) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		k := min(len(b), wire.Chunk)
		if err := o.s.send(wire.Header{ID: o.id, Kind: o.kind}, b[:k]); err != nil {
			return n, err
		}
		n, b = n+k, b[k:]
	}
	return n, nil
}

func (s *session) signal(h wire.Header) {
	s.mu.Lock()
	p := s.procs[h.ID]
	s.mu.Unlock()
	if p != nil {
		syscall.Kill(-p.Pid, syscall.Signal(h.Number))
	}
}

// put writes a file, one write(2) for each frame: a register's file in sysfs
// takes a digest in one.
func (s *session) put(h wire.Header, in io.Reader) (int, error) {
	flags := os.O_WRONLY
	if _, err := os.Stat(h.Path); err != nil {
		if err := os.MkdirAll(filepath.Dir(h.Path), 0o755); err != nil {
			return 0, err
		}
		flags |= os.O_CREATE
	} else {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(h.Path, flags, os.FileMode(h.Mode))
	if err != nil {
		return 0, err
	}
	buf := make([]byte, wire.Chunk)
	for {
		n, err := in.Read(buf)
		if err == io.EOF {
			return 0, f.Close()
		}
		if err != nil {
			f.Close()
			return 0, err
		}
		if _, err := f.Write(buf[:n]); err != nil {
			f.Close()
			return 0, err
		}
	}
}

// get reads a file to its end. The kernel's own files claim to be empty, and
// give a page a read.
func (s *session) get(h wire.Header) error {
	f, err := os.Open(h.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := &sender{s, h.ID, wire.Data}
	buf := make([]byte, wire.Chunk)
	for {
		n, err := io.ReadFull(f, buf)
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// power ends the machine, or starts it anew. Only a failure comes back.
func power(how string) {
	unix.Sync()
	switch how {
	case "reboot":
		unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	case "kexec":
		unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC)
	}
	powerOff()
}

// kexecLoad loads a kernel for the power request kexec.
func kexecLoad(kernel, initrd, cmdline string) error {
	k, err := os.Open(kernel)
	if err != nil {
		return err
	}
	defer k.Close()
	i, err := os.Open(initrd)
	if err != nil {
		return err
	}
	defer i.Close()
	if err := unix.KexecFileLoad(int(k.Fd()), int(i.Fd()), cmdline, 0); err != nil {
		return fmt.Errorf("kexec_file_load: %w", err)
	}
	return nil
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
