//go:build linux

package kernel_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/bpf/internal/kernel"
	"tallystick/rtmr"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error
		want string
	}{
		{unix.ENOSYS, rtmr.ErrNotSupported, "no bpf(2) (CONFIG_BPF_SYSCALL)"},
		{unix.EPERM, rtmr.ErrDenied, "it takes CAP_BPF and CAP_PERFMON"},
		{unix.EACCES, rtmr.ErrDenied, "permission denied"},
		{unix.ENOENT, unix.ENOENT, "no such file"},
	} {
		err := kernel.Explain(fmt.Errorf("load: %w", c.err))
		if !errors.Is(err, c.is) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v is explained as %q, want %v and %q", c.err, err, c.is, c.want)
		}
	}
	if err := kernel.Explain(nil); err != nil {
		t.Errorf("no error is explained as %v", err)
	}
}

// The first need that is missing is named.
func TestNeeds(t *testing.T) {
	here := kernel.Need{Feature: "what is here", Probe: func() error { return nil }}
	missing := kernel.Helper("such helper", ebpf.Syscall, 100_000)
	if err := missing.Probe(); errors.Is(err, unix.EPERM) {
		t.Skip("no BPF:", err)
	}
	err := kernel.Explain(unix.EINVAL, here, missing)
	var unsupported *rtmr.NotSupportedError
	if !errors.As(err, &unsupported) || unsupported.Feature != "such helper" || !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v, want the missing feature's name", err)
	}
	if err := kernel.Explain(unix.EINVAL, here); err != unix.EINVAL {
		t.Errorf("%v, want EINVAL", err)
	}
}
