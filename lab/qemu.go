//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tallystick/lab/internal/wire"
	"tallystick/lab/setup"
)

// Debian's builds of OVMF. The .ms variables hold Microsoft's and so shim's
// certificates, with Secure Boot on.
const (
	ovmfCode       = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	ovmfVars       = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	ovmfSecureCode = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"
	ovmfSecureVars = "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
)

// architecture is what QEMU calls a machine's parts.
type architecture struct {
	qemu, machine string
	bus           string // of its virtio devices
	console       string // as the kernel calls it
}

var architectures = map[string]architecture{
	setup.AMD64: {"qemu-system-x86_64", "q35", "pci", "ttyS0"},
	setup.S390X: {"qemu-system-s390x", "s390-ccw-virtio", "ccw", "ttysclp0"},
}

func (p *parts) architecture() architecture { return architectures[p.kernel.Arch] }

// boot makes the machine's files in its folder, starts it, and waits until its
// init answers.
func (g *Guest) boot() error {
	m, file := &g.machine, func(name string) string { return filepath.Join(g.dir, name) }
	initramfs, err := m.initramfs(g.parts)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file("initramfs"), initramfs, 0o644); err != nil {
		return err
	}
	if err := m.makeRootDisk(file("root.img"), g.parts); err != nil {
		return err
	}
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-m", fmt.Sprint(m.Memory), "-smp", fmt.Sprint(m.CPUs), "-serial", "stdio",
		"-qmp", "unix:" + file("qmp") + ",server=on,wait=off"}
	accelerator, err := accelerator(g.parts)
	if err != nil {
		return err
	}
	args = append(args, accelerator...)
	args = append(args, g.drive("root", file("root.img"))...)
	firmware, err := g.firmware()
	if err != nil {
		return err
	}
	args = append(args, firmware...)
	if m.TPM != NoTPM && g.parts.kernel.Arch == setup.AMD64 {
		tpm, err := g.plugTPM()
		if err != nil {
			return err
		}
		args = append(args, tpm...)
	}
	port, err := g.listen()
	if err != nil {
		return err
	}
	return g.start(append(args, port...))
}

func (g *Guest) drive(id, image string, more ...string) []string {
	device := "virtio-blk-" + g.parts.architecture().bus + ",drive=" + id
	for _, m := range more {
		device += "," + m
	}
	return []string{"-drive", "if=none,id=" + id + ",format=raw,cache=unsafe,file=" + image, "-device", device}
}

// firmware returns what starts the machine, and what brings its kernel.
func (g *Guest) firmware() ([]string, error) {
	m := &g.machine
	machine := g.parts.architecture().machine
	direct := []string{"-M", machine, "-kernel", g.parts.kernel.Image, "-initrd", filepath.Join(g.dir, "initramfs"), "-append", m.cmdline(g.parts)}
	if g.parts.kernel.Arch != setup.AMD64 {
		return direct, nil
	}
	switch m.Firmware {
	case SeaBIOS:
		return direct, nil
	case OVMF:
		flash, err := g.flash(ovmfCode, ovmfVars)
		return append(direct, flash...), err
	case UKI:
		flash, err := g.flash(ovmfCode, ovmfVars)
		if err != nil {
			return nil, err
		}
		image, err := g.makeUKIDisk()
		return append(append(flash, "-M", "q35"), g.drive("esp", image, "bootindex=0")...), err
	case SecureBoot:
		flash, err := g.flash(ovmfSecureCode, ovmfSecureVars)
		if err != nil {
			return nil, err
		}
		image, err := g.makeGRUBDisk()
		flash = append(flash, "-M", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
		return append(flash, g.drive("esp", image, "bootindex=0")...), err
	}
	return nil, fmt.Errorf("firmware %d is not known", m.Firmware)
}

// flash returns the firmware's code, and variables of the machine's own.
func (g *Guest) flash(code, vars string) ([]string, error) {
	code, vars = filepath.Join("/", g.parts.ovmf, code), filepath.Join("/", g.parts.ovmf, vars)
	content, err := os.ReadFile(vars)
	if err != nil {
		return nil, err
	}
	own := filepath.Join(g.dir, "vars.fd")
	if err := os.WriteFile(own, content, 0o644); err != nil {
		return nil, err
	}
	return []string{
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + code,
		"-drive", "if=pflash,format=raw,unit=1,file=" + own,
	}, nil
}

// plugTPM starts a TPM and returns the device that speaks to it.
func (g *Guest) plugTPM() ([]string, error) {
	dir := filepath.Join(g.dir, "tpm")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	tpm, socket, err := startTPM(dir, g.machine.Banks, g.console)
	g.tpm = tpm
	if err != nil {
		return nil, err
	}
	device := "tpm-crb"
	if g.machine.TPM == TIS {
		device = "tpm-tis"
	}
	return []string{
		"-chardev", "socket,id=tpm,path=" + socket,
		"-tpmdev", "emulator,id=tpm0,chardev=tpm",
		"-device", device + ",tpmdev=tpm0",
	}, nil
}

// start starts QEMU, and returns when the guest has said hello.
func (g *Guest) start(args []string) error {
	qemu, err := setup.Program(g.parts.architecture().qemu)
	if err != nil {
		return err
	}
	g.console.start = time.Now()
	if g.qemu, err = startProcess(g.console, qemu, args...); err != nil {
		return err
	}
	return g.meet()
}

// portDevice is the virtio-serial port that the guest's init looks for.
func portDevice(bus, socket string) []string {
	return []string{
		"-device", "virtio-serial-" + bus,
		"-chardev", "socket,id=lab,path=" + socket,
		"-device", "virtserialport,chardev=lab,name=" + wire.Port,
	}
}
