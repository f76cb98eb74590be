//go:build linux

package setup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hostTool is a file that a Debian package brings.
type hostTool struct {
	pkg  string
	file string // a program's name, or a path
}

// hostTools are what booting a machine takes. mke2fs fills a root disk, busybox
// is the guest's user land, depmod indexes a kernel's modules; sfdisk and mtools
// make a disk with an EFI system partition.
var hostTools = []hostTool{
	{"qemu-system-x86", "qemu-system-x86_64"},
	{"ovmf", "/usr/share/OVMF/OVMF_CODE_4M.fd"},
	{"ovmf", "/usr/share/OVMF/OVMF_CODE_4M.ms.fd"},
	{"swtpm", "swtpm"},
	{"swtpm-tools", "swtpm_setup"},
	{"e2fsprogs", "mke2fs"},
	{"busybox-static", "/bin/busybox"},
	{"kmod", "depmod"},
	{"fdisk", "sfdisk"},
	{"mtools", "mformat"},
	{"xz-utils", "xz"},
	{"zstd", "zstd"},
}

// chrootTools are what building a kernel module takes beside.
var chrootTools = []hostTool{{"mmdebstrap", "mmdebstrap"}}

// s390xTools are what booting a machine of that architecture takes beside.
var s390xTools = []hostTool{{"qemu-system-misc", "qemu-system-s390x"}}

// Host finds the host's programs, and installs those that are not there.
func Host() error { return install(hostTools) }

// Busybox returns the path of a static busybox for machines of an architecture;
// for s390x it downloads one, and installs QEMU for it.
func Busybox(arch string) (string, error) {
	if arch == AMD64 {
		return Program("/bin/busybox")
	}
	if err := install(s390xTools); err != nil {
		return "", err
	}
	dir, err := Once("busybox-"+arch, func(tmp string) error {
		return inApt(arch, func(a *apt) error { return a.fetch(tmp, "busybox-static") })
	})
	return filepath.Join(dir, "bin/busybox"), err
}

func install(tools []hostTool) error {
	pkgs := absent(tools)
	if len(pkgs) == 0 {
		return nil
	}
	cache, err := Dir()
	if err != nil {
		return err
	}
	unlock, err := lock(cache)
	if err != nil {
		return err
	}
	defer unlock()
	if pkgs = absent(tools); len(pkgs) == 0 { // another process did it
		return nil
	}
	missing := &MissingError{What: "the lab's programs", Why: "apt-get install " + strings.Join(pkgs, " ")}
	if os.Geteuid() != 0 {
		missing.Why = "not root, so install them first: " + missing.Why
		return missing
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		missing.Why = "no apt-get here; Debian's packages are: " + strings.Join(pkgs, " ")
		return missing
	}
	for _, args := range [][]string{
		{"update"},
		append([]string{"install", "-y", "--no-install-recommends"}, pkgs...),
	} {
		// Somebody else may be installing something.
		cmd := exec.Command("apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=600", "-o", "APT::Get::Lock::Timeout=600"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if _, err := output(cmd); err != nil {
			return unreachable(fmt.Errorf("installing %s: %w", strings.Join(pkgs, " "), err))
		}
	}
	if left := absent(tools); len(left) > 0 {
		return &MissingError{What: "the lab's programs", Why: "apt-get installed " + strings.Join(left, " ") + ", and its files are not where they were expected"}
	}
	return nil
}

// absent returns the packages of those tools that are not here.
func absent(tools []hostTool) (pkgs []string) {
	for _, tool := range tools {
		if _, err := Program(tool.file); err != nil && !slices.Contains(pkgs, tool.pkg) {
			pkgs = append(pkgs, tool.pkg)
		}
	}
	return pkgs
}

// Program returns the path of a program or file of the host. Programs for root
// are found without /usr/sbin in $PATH.
func Program(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", &MissingError{What: name, Why: "not found; make lab installs it"}
}
