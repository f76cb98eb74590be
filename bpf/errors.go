//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotSupported is what a *NotSupportedError is.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrDenied says that the kernel has what it needs, but not for this process.
	ErrDenied = errors.New("denied")
	// ErrBusy says that other extenders left no room for too long. Trying again
	// is safe: an error tells what was extended.
	ErrBusy = errors.New("busy")
)

// NotSupportedError names the feature that the kernel lacks.
type NotSupportedError struct {
	Feature string // "bpf_loop (Linux 5.17)"
	Err     error  // what the kernel said
}

func (e *NotSupportedError) Error() string {
	return fmt.Sprintf("this kernel has no %s: %v", e.Feature, e.Err)
}

func (e *NotSupportedError) Unwrap() []error { return []error{ErrNotSupported, e.Err} }

// LayoutError says that what is pinned is not what this program makes. It is
// left as it is: to reset registers would be to forget measurements.
type LayoutError struct {
	Path string // of the pinned object
	Err  error  // what was found, and what was expected
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("%s: %v; registers are not reset, use the release that made them or boot", e.Path, e.Err)
}

func (e *LayoutError) Unwrap() error { return e.Err }

// denied says what a process takes that may not use bpf(2) (EPERM); a file's
// mode (EACCES) speaks for itself.
func denied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: it takes CAP_BPF and CAP_PERFMON: %w", ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", ErrDenied, err)
}

// needs are the features without which the program does not load. The first
// that is missing is the one to name.
var needs = []need{
	{"BPF programs of type SYSCALL (Linux 5.14)", func() error { return features.HaveProgramType(ebpf.Syscall) }},
	{"atomic BPF instructions (Linux 5.12)", haveFetchAdd},
	{"bpf_loop (Linux 5.17)", helper(asm.FnLoop)},
	{"bpf_copy_from_user (Linux 5.10, CONFIG_BPF_EVENTS)", helper(asm.FnCopyFromUser)},
	{"bpf_ktime_get_boot_ns (Linux 5.8)", helper(asm.FnKtimeGetBootNs)},
}

type need struct {
	feature string
	probe   func() error // ebpf.ErrNotSupported where it is missing
}

func helper(fn asm.BuiltinFunc) func() error {
	return func() error { return features.HaveProgramHelper(ebpf.Syscall, fn) }
}

// haveFetchAdd probes for BPF_FETCH: features has no probe for it.
func haveFetchAdd() error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:  ebpf.Syscall,
		Flags: unix.BPF_F_SLEEPABLE,
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0),
			asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
			asm.FetchAdd.Mem(asm.RFP, asm.R0, asm.DWord, -8),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
		License: "GPL",
	})
	if err != nil {
		if errors.Is(err, unix.EINVAL) {
			return ebpf.ErrNotSupported
		}
		return err
	}
	return prog.Close()
}

// explain turns the error of a bpf(2) call into one of this package's: what the
// kernel lacks, or that it does not let this process.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSYS):
		return &NotSupportedError{"bpf(2) (CONFIG_BPF_SYSCALL)", err}
	case errors.Is(err, fs.ErrPermission) && !errors.As(err, new(*ebpf.VerifierError)):
		return denied(err)
	case errors.Is(err, fs.ErrNotExist):
		return err
	}
	for _, n := range needs {
		if errors.Is(n.probe(), ebpf.ErrNotSupported) {
			return &NotSupportedError{n.feature, err}
		}
	}
	return err
}
