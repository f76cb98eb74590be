//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error
		want string
	}{
		{unix.ENOSYS, ErrNotSupported, "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)"},
		{unix.EPERM, ErrDenied, "it takes CAP_BPF and CAP_PERFMON"},
		{unix.EACCES, ErrDenied, "permission denied"},
		{unix.ENOENT, unix.ENOENT, "no such file"},
	} {
		err := explain(fmt.Errorf("load: %w", c.err))
		if !errors.Is(err, c.is) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v is explained as %q, want %v and %q", c.err, err, c.is, c.want)
		}
	}
}

// A kernel that loads the program has what the program needs: no probe blames a
// feature that is there. One that is not there is found by its probe.
func TestNeeds(t *testing.T) {
	spec, err := loadRegisters()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	coll.Close()
	for _, n := range needs {
		if err := n.probe(); err != nil {
			t.Errorf("%s: %v", n.feature, err)
		}
	}

	saved := needs
	defer func() { needs = saved }()
	needs = append(needs[:len(needs):len(needs)], need{"such helper", helper(100_000)})
	err = explain(unix.EINVAL)
	var unsupported *NotSupportedError
	if !errors.As(err, &unsupported) || unsupported.Feature != "such helper" || !errors.Is(err, unix.EINVAL) {
		t.Errorf("%v, want the missing feature's name", err)
	}
}
