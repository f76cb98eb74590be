//go:build linux

package lab

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"

	"tallystick/lab/internal/wire"
	"tallystick/lab/setup"
)

// kvmTime is how long a guest may take to its init, with KVM: it takes one or
// two seconds where KVM works.
const kvmTime = 10 * time.Second

var (
	emulated = []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	virtual  = []string{"-accel", "kvm", "-cpu", "host"}
)

var kvm struct {
	sync.Mutex
	asked, works bool
}

// accelerator returns how QEMU runs a guest's code: by KVM if that works, and
// else by emulation. A device /dev/kvm says little, so a guest is booted with it
// once; the answer is kept until the host boots again.
func accelerator(p *parts) ([]string, error) {
	if p.kernel.Arch != runtime.GOARCH {
		return emulated, nil
	}
	kvm.Lock()
	defer kvm.Unlock()
	if !kvm.asked {
		works, err := askKVM(p)
		if err != nil {
			return nil, err
		}
		kvm.asked, kvm.works = true, works
	}
	if kvm.works {
		return virtual, nil
	}
	return emulated, nil
}

func askKVM(p *parts) (works bool, err error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false, nil
	}
	f.Close()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, err
	}
	dir, err := setup.Once("kvm/"+strings.TrimSpace(string(boot)), func(tmp string) error {
		answer := "no"
		if tryKVM(tmp, p) {
			answer = "yes"
		}
		return os.WriteFile(filepath.Join(tmp, "works"), []byte(answer), 0o644)
	})
	if err != nil {
		return false, err
	}
	answer, err := os.ReadFile(filepath.Join(dir, "works"))
	return string(answer) == "yes", err
}

// tryKVM boots a guest with KVM and reports whether its init runs soon.
func tryKVM(dir string, p *parts) bool {
	m := Machine{Firmware: SeaBIOS, TPM: NoTPM}
	initramfs, err := m.initramfs(p)
	if err != nil {
		return false
	}
	file := filepath.Join(dir, "initramfs")
	defer os.Remove(file)
	if os.WriteFile(file, initramfs, 0o644) != nil {
		return false
	}
	qemu, err := setup.Program("qemu-system-x86_64")
	if err != nil {
		return false
	}
	console := newConsole()
	args := append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
		"-m", "512", "-smp", "2", "-M", "q35", "-serial", "stdio",
		"-kernel", p.kernel.Image, "-initrd", file, "-append", m.cmdline(p)}, virtual...)
	guest, err := startProcess(console, qemu, args...)
	if err != nil {
		return false
	}
	defer guest.kill()
	ctx, cancel := context.WithTimeout(context.Background(), kvmTime)
	defer cancel()
	_, err = console.wait(ctx, regexp.MustCompile(regexp.QuoteMeta(wire.Banner)), guest.ended)
	return err == nil
}
