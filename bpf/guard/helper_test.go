//go:build linux

package guard_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/bpf/guard"
	"tallystick/rtmr"
)

// role is set in processes that a test starts, and says what they are.
const role = "GUARD_ROLE"

// keptFile is set for the roles keep and handed-over.
const keptFile = "GUARD_KEPT"

// deviceName is set for the role ioctl.
const deviceName = "GUARD_DEVICE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "helper":
		if err := guard.Exec(); err != nil {
			panic(err)
		}
		serve()
	case "on-disk": // the helper's program, executed as it lies there
		serve()
	case "seccomp": // the helper, under a filter that lets everything pass
		runtime.LockOSThread()
		filter := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		program := unix.SockFprog{Len: 1, Filter: &filter}
		err := errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
			unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0),
			os.Setenv(role, "helper"), guard.Exec())
		panic(err)
	case "ioctl": // asks a misc device for a report; its exit status is the error
		err := ioctlFile(os.Getenv(deviceName), tdxReport0)
		var errno unix.Errno
		errors.As(err, &errno)
		os.Exit(int(errno))
	case "keep": // itself; then the file's program comes in its place
		err := errors.Join(guard.Exec(), guard.Keep(os.Getenv(keptFile)))
		if err == nil && guard.ExecKept(os.Getenv(keptFile)) == nil {
			err = errors.New("it executed itself anew")
		}
		if err != nil {
			panic(err)
		}
	case "handed-over":
		panic(errors.Join(guard.Exec(), guard.ExecKept(os.Getenv(keptFile))))
	case "wait": // a process to be traced
		io.ReadAll(os.Stdin)
	}
}

// helper is a process of the helper's program, which does as it is told.
type helper struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startHelper(t *testing.T, as string, prepare func(*exec.Cmd)) *helper {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+as)
	cmd.Stderr = os.Stderr
	if prepare != nil {
		prepare(cmd)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{t, cmd, in, bufio.NewReader(out)}
	t.Cleanup(h.kill)
	return h
}

// kill is kill -9.
func (h *helper) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

// answer is what became of a request.
type answer struct {
	Err, Kind string
	Status    *guard.Status
	Denials   []guard.Denial
	Closed    []string
	Extends   uint64
}

// try sends a request, for example "arm".
func (h *helper) try(args ...string) (a answer) {
	h.t.Helper()
	fmt.Fprintln(h.in, strings.Join(args, " "))
	line, err := h.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		h.t.Fatalf("helper: %s: %v: %q", strings.Join(args, " "), err, line)
	}
	return a
}

// do is try, of what has to succeed.
func (h *helper) do(args ...string) answer {
	h.t.Helper()
	a := h.try(args...)
	if a.Err != "" {
		h.t.Fatalf("helper: %s: %s", strings.Join(args, " "), a.Err)
	}
	return a
}

// serve is the helper's side.
func serve() {
	var s server
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var a answer
		if err := s.handle(strings.Fields(in.Text()), &a); err != nil {
			var v *ebpf.VerifierError
			if errors.As(err, &v) {
				fmt.Fprintf(os.Stderr, "%+v\n", v)
			}
			a.Err, a.Kind = err.Error(), kind(err)
		}
		line, _ := json.Marshal(a)
		os.Stdout.Write(append(line, '\n'))
	}
}

func kind(err error) string {
	var other *guard.OtherRegistersError
	switch {
	case errors.Is(err, guard.ErrNotAdmitted):
		return "not admitted"
	case errors.Is(err, guard.ErrNotInMemory):
		return "not in memory"
	case errors.As(err, &other):
		return "other registers"
	case errors.Is(err, rtmr.ErrNotSupported):
		return "not supported"
	case errors.Is(err, unix.EPERM):
		return "EPERM"
	}
	return ""
}

type server struct {
	regs  *bpf.Registers
	guard *guard.Guard
}

func (s *server) handle(args []string, a *answer) (err error) {
	switch args[0] {
	case "open":
		s.regs, err = bpf.Open(bpf.Options{Path: args[1], Public: slices.Contains(args, "public")})
	case "arm":
		s.guard, err = guard.Arm(s.regs)
	case "seal":
		a.Closed, err = s.guard.Seal()
	case "status":
		a.Status, err = s.guard.Status()
	case "denials":
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for d, err := range s.guard.Denials(ctx) {
			if err != nil {
				return err
			}
			a.Denials = append(a.Denials, d)
		}
	case "extend":
		a.Extends, err = s.extend()
	case "fake-mount": // as a service that is started in a mount namespace of root's making
		err = unix.Mount("bpf", args[1], "bpf", 0, "")
	case "open-file":
		var f *os.File
		if f, err = os.OpenFile(args[1], os.O_RDWR, 0); err == nil {
			f.Close()
		}
	case "mkdir":
		err = os.Mkdir(args[1], 0o755)
	case "report":
		var r []byte
		err = os.WriteFile(args[1]+"/inblob", bytes.Repeat([]byte{0x5a}, 64), 0)
		if err == nil {
			r, err = os.ReadFile(args[1] + "/outblob")
		}
		if err == nil && !bytes.Contains(r, bytes.Repeat([]byte{0x5a}, 64)) {
			err = errors.New("the quote has not its report data")
		}
	case "ioctl":
		err = ioctlFile(args[1], tdxReport0)
	case "child":
		cmd := exec.Command("/bin/cat", args[1])
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	default:
		err = fmt.Errorf("what is %q?", args)
	}
	return err
}

// extend extends PCR 10 and returns how often it was, as the registers have it.
func (s *server) extend() (uint64, error) {
	reg, _ := rtmr.PCR(10).Register()
	var digests []rtmr.Digest
	for _, a := range bpf.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: bytes.Repeat([]byte{1}, a.Size())})
	}
	if err := s.regs.Extend(context.Background(), reg, digests); err != nil {
		return 0, err
	}
	snapshot, err := s.regs.Snapshot()
	if err != nil {
		return 0, err
	}
	n, _ := snapshot.Extends()
	return n, nil
}
