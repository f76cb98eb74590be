//go:build linux

// Package kernel says in rtmr's errors why bpf(2) refused something: what the
// kernel lacks, by probes and not by its version, or what the process does.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Need is a feature without which something does not load.
type Need struct {
	Feature string       // "bpf_ktime_get_boot_ns (Linux 5.8)"
	Probe   func() error // ebpf.ErrNotSupported where it is missing
}

// Type is a need of programs of a type.
func Type(feature string, t ebpf.ProgramType) Need {
	return Need{feature, func() error { return features.HaveProgramType(t) }}
}

// Helper is a need of a helper function in programs of a type.
func Helper(feature string, t ebpf.ProgramType, fn asm.BuiltinFunc) Need {
	return Need{feature, func() error { return features.HaveProgramHelper(t, fn) }}
}

// Explain turns the error of a bpf(2) call into an *rtmr.NotSupportedError for
// the first of the needs that is missing, or into rtmr.ErrDenied. Any other error
// is returned as it is, and one that is rtmr.ErrDenied already.
func Explain(err error, needs ...Need) error {
	switch {
	case err == nil || errors.Is(err, rtmr.ErrDenied):
		return err
	case errors.Is(err, unix.ENOSYS):
		return &rtmr.NotSupportedError{Feature: "bpf(2) (CONFIG_BPF_SYSCALL)", Err: err}
	case errors.Is(err, fs.ErrPermission) && !errors.As(err, new(*ebpf.VerifierError)):
		return Denied(err)
	case errors.Is(err, fs.ErrNotExist):
		return err
	}
	for _, n := range needs {
		if errors.Is(n.Probe(), ebpf.ErrNotSupported) {
			return &rtmr.NotSupportedError{Feature: n.Feature, Err: err}
		}
	}
	return err
}

// Load is the error of loading a program: rtmr.ErrDenied if the thread has no
// CAP_PERFMON. From who has CAP_BPF alone the kernel hides helpers, and what calls
// one fails as where it is missing (kernel/bpf/helpers.c, bpf_base_func_proto()).
func Load(err error) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err == nil || unix.Capget(&header, &caps[0]) != nil {
		return err
	}
	if caps[1].Effective&(1<<(unix.CAP_PERFMON-32)) != 0 || caps[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return err
	}
	return capable(err)
}

// Denied says what a process takes that may not use bpf(2) (EPERM); a file's
// mode (EACCES) speaks for itself.
func Denied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return capable(err)
	}
	return fmt.Errorf("%w: %w", rtmr.ErrDenied, err)
}

func capable(err error) error {
	return fmt.Errorf("%w: it takes CAP_BPF and CAP_PERFMON: %w", rtmr.ErrDenied, err)
}
