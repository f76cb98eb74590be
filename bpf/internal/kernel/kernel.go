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
// is returned as it is.
func Explain(err error, needs ...Need) error {
	switch {
	case err == nil:
		return nil
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

// Denied says what a process takes that may not use bpf(2) (EPERM); a file's
// mode (EACCES) speaks for itself.
func Denied(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: it takes CAP_BPF and CAP_PERFMON: %w", rtmr.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", rtmr.ErrDenied, err)
}
