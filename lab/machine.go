//go:build linux

package lab

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"tallystick/lab/setup"
)

// Machine describes a machine. Its zero value has the newest kernel of
// setup.Series, OVMF, a TPM with a CRB interface and the banks SHA-1, SHA-256 and
// SHA-384, no IMA policy, one processor and 1 GiB.
type Machine struct {
	// Kernel is a series of Debian's kernels, "6.1", "6.12", "7.3"; "7.3-lab" is
	// built from source. "6.1-s390x" is an IBM Z machine's: big-endian, without
	// the firmware and the TPM.
	Kernel   string
	Firmware Firmware
	NewOVMF  bool // the newest OVMF that Debian has, not the host's

	TPM   TPM
	Banks []string // "sha1", "sha256", "sha384", "sha512"

	Append   string // to the kernel's command line
	Policy   string // IMA policy, loaded by init before the root disk is there
	Template string // ima_template=
	Hash     string // ima_hash=

	Modules []string // kernel modules that init loads, beside what it needs itself
	// TSM loads the module labtsm, which stands in for TDX's driver: registers,
	// TDREPORTs and quotes. See lab/labtsm. It takes a kernel 7 and no Secure Boot.
	TSM       bool
	TSMParams string // "rtmrs=6 fail=4"
	// Debian makes the root disk that of a Debian release, "trixie", and systemd the
	// first process, once init has loaded modules and policy. It has the kernel's
	// modules, initramfs-tools and dracut, and no busybox.
	Debian string
	// Provision is a script that is run in Debian's root on the host, by root,
	// before there is a machine.
	Provision string
	// Initrd is a file of Debian's root, the initramfs to boot with in place of
	// our own, which loads no modules or policy then. The kernel's release is
	// where Provision finds it, in /usr/lib/modules.
	Initrd string
	// Files are put into the root disk, by absolute path. Those that begin as a
	// program or a script are executable.
	Files map[string][]byte

	CPUs   int
	Memory int // MiB
	Disk   int // MiB, of the root disk; if 0, 256, or 2048 with Debian

	// BootTime is how long the guest may take until it answers; 5 minutes if 0.
	BootTime time.Duration
}

// Firmware is what a machine starts with, and how it comes to its kernel.
type Firmware uint8

const (
	// OVMF, the UEFI firmware, gets the kernel from QEMU.
	OVMF Firmware = iota
	// SeaBIOS gets the kernel from QEMU.
	SeaBIOS
	// UKI: OVMF starts a unified kernel image, systemd's stub with the kernel,
	// the initramfs and the command line, from a disk.
	UKI
	// SecureBoot: OVMF with Microsoft's keys starts shim, which starts GRUB,
	// which starts the kernel, each signed.
	SecureBoot
)

// TPM is a machine's TPM.
type TPM uint8

// The kinds of TPM: by their interface.
const (
	CRB TPM = iota
	TIS
	NoTPM
)

// TCB is the value of Append that makes the kernel measure by its built-in
// policy: programs, what is mapped for execution, modules, and what root reads.
const TCB = "ima_policy=tcb"

// T is what a *testing.T has that the lab needs.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
}

// Start boots the machine and waits until it answers. The test's end ends it,
// and shows the console's last lines if the test failed. Start skips the test
// where a machine cannot be booted.
func (m Machine) Start(t T) *Guest {
	t.Helper()
	m.setDefaults()
	parts, err := m.find()
	var missing *setup.MissingError
	if errors.As(err, &missing) {
		t.Skipf("no lab: %v", missing)
	}
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := takeLane(t); err != nil {
		t.Fatalf("lab: %v", err)
	}
	for try := 1; ; try++ {
		dir, err := os.MkdirTemp("", "lab-") // sockets' paths are short
		if err != nil {
			t.Fatalf("lab: %v", err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		g := &Guest{t: t, machine: m, dir: dir, parts: parts, console: newConsole()}
		t.Cleanup(g.cleanup)
		err = g.boot()
		if err == nil {
			return g
		}
		if try == 3 || !slices.ContainsFunc(emulatorFaults, g.console.has) {
			t.Fatalf("lab: %v", err)
		}
		t.Logf("lab: QEMU ran into a fault of its own, booting again")
		g.end()
	}
}

// emulatorFaults are what a kernel dies of that is not of its own making.
var emulatorFaults = []string{
	// It meets a breakpoint which it put into code that it was patching, and took
	// away again (arch/x86/kernel/alternative.c). It was seen with two processors
	// that QEMU 7.2 emulated in threads of their own, and never with one.
	"Oops: int3",
	// It counts the timer's interrupts and got too few of them
	// (arch/x86/kernel/apic/io_apic.c, timer_irq_works): a loaded host had not
	// let QEMU run. Under KVM a kernel does not count (arch/x86/kernel/kvm.c).
	"IO-APIC + timer doesn't work",
}

func (m *Machine) setDefaults() {
	setIf := func(unset bool, set func()) {
		if unset {
			set()
		}
	}
	setIf(m.Kernel == "", func() { m.Kernel = setup.Series[len(setup.Series)-1] })
	setIf(m.Banks == nil, func() { m.Banks = []string{"sha1", "sha256", "sha384"} })
	setIf(m.CPUs == 0, func() { m.CPUs = 1 })
	setIf(m.Memory == 0, func() { m.Memory = 1024 })
	setIf(m.Disk == 0 && m.Debian != "", func() { m.Disk = 2048 })
	setIf(m.Disk == 0, func() { m.Disk = 256 })
	setIf(m.BootTime == 0, func() { m.BootTime = 5 * time.Minute })
}

// parts are the files that a machine is made of.
type parts struct {
	kernel  *setup.Kernel
	loaders *setup.Loaders // nil where none is needed
	ovmf    string         // the root below which OVMF lies
	debian  string         // its root; "" where it is not asked for
	busybox string         // its path
	init    []byte
	labtpm  []byte
	labtsm  []byte // nil where it is not asked for
}

func (m *Machine) find() (*parts, error) {
	if err := setup.Host(); err != nil {
		return nil, err
	}
	kernel, err := setup.FindKernel(m.Kernel)
	if err != nil {
		return nil, err
	}
	p := &parts{kernel: kernel}
	if m.Firmware == UKI || m.Firmware == SecureBoot {
		if p.loaders, err = setup.FindLoaders(); err != nil {
			return nil, err
		}
	}
	if m.NewOVMF {
		if p.ovmf, err = setup.FindOVMF(); err != nil {
			return nil, err
		}
	}
	if m.Debian != "" {
		if p.debian, err = setup.FindDebian(m.Debian); err != nil {
			return nil, err
		}
	}
	if p.busybox, err = setup.Busybox(kernel.Arch); err != nil {
		return nil, err
	}
	init, labtpm := program{pkg: "./lab/guest/init", arch: kernel.Arch}, program{pkg: "./lab/guest/labtpm", arch: kernel.Arch}
	if p.init, err = init.build(); err != nil {
		return nil, err
	}
	if p.labtpm, err = labtpm.build(); err != nil {
		return nil, err
	}
	if m.TSM {
		file, err := BuildTSM(kernel)
		if err != nil {
			return nil, err
		}
		if p.labtsm, err = os.ReadFile(file); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// cmdline returns the kernel's command line. The kernel restarts after a panic,
// and QEMU then ends.
func (m *Machine) cmdline(p *parts) string {
	args := []string{"console=" + p.architecture().console, "panic=-1"}
	if m.Hash != "" {
		args = append(args, "ima_hash="+m.Hash)
	}
	if m.Template != "" {
		args = append(args, "ima_template="+m.Template)
	}
	if m.Initrd != "" {
		args = append(args, "root=/dev/vda", "rw")
	}
	if m.Append != "" {
		args = append(args, m.Append)
	}
	return strings.Join(args, " ")
}
