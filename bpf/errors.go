//go:build linux

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"tallystick/bpf/internal/kernel"
)

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

// needs are the features without which the program does not load. The first
// that is missing is the one to name.
var needs = []kernel.Need{
	kernel.Type("BPF programs of type SYSCALL (Linux 5.14)", ebpf.Syscall),
	{Feature: "atomic BPF instructions (Linux 5.12)", Probe: haveFetchAdd},
	kernel.Helper("bpf_copy_from_user (Linux 5.10, CONFIG_BPF_EVENTS)", ebpf.Syscall, asm.FnCopyFromUser),
	kernel.Helper("bpf_ktime_get_boot_ns (Linux 5.8)", ebpf.Syscall, asm.FnKtimeGetBootNs),
}

// explain turns the error of a bpf(2) call into one of package rtmr's.
func explain(err error) error { return kernel.Explain(err, needs...) }

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
