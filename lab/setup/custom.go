//go:build linux

package setup

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// builderPackages are what building a kernel takes.
var builderPackages = []string{"gcc", "make", "bc", "bison", "flex", "libelf-dev", "libssl-dev", "kmod", "cpio", "xz-utils"}

// BuildKernel builds Debian's source of a series with a configuration, which is
// added to tinyconfig and has no modules, and returns the kernel. One with the
// same configuration is not built again. It takes root, 3 GB, and some ten
// minutes of two cores.
func BuildKernel(series string, config []byte) (*Kernel, error) {
	sum := sha256.Sum256(config)
	name := fmt.Sprintf("kernels/%s-built-%x", series, sum[:8])
	if cache, err := Dir(); err == nil && exists(filepath.Join(cache, name)) {
		return openBuilt(filepath.Join(cache, name))
	}
	if os.Geteuid() != 0 {
		return nil, &MissingError{What: "a built kernel", Why: "not root, whom mmdebstrap and chroot take"}
	}
	if err := install(chrootTools); err != nil {
		return nil, err
	}
	root, err := Once("builder", func(tmp string) error {
		return inApt(func(a *apt) error { return a.debootstrap(tmp, "trixie", builderPackages...) })
	})
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(root, "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	if err := inApt(func(a *apt) error { return a.fetch(work, "linux-source-"+series) }); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(work, "lab.config"), config, 0o644); err != nil {
		return nil, err
	}
	script := `mount -t proc proc "$1/proc" && exec chroot "$1" sh -exc '
		cd "$0"
		tar --strip-components=1 -xf usr/src/linux-source-*.tar.xz
		make tinyconfig
		KCONFIG_CONFIG=.config scripts/kconfig/merge_config.sh -m .config lab.config
		make olddefconfig
		make -j"$(nproc)" bzImage
		make -s kernelrelease > release' "$2"`
	if _, err := output(exec.Command("unshare", "-m", "sh", "-ec", script, "sh", root, "/"+filepath.Base(work))); err != nil {
		return nil, fmt.Errorf("building a kernel: %w", err)
	}
	dir, err := Once(name, func(tmp string) error {
		for from, to := range map[string]string{"arch/x86/boot/bzImage": "vmlinuz", "release": "release", ".config": "config"} {
			content, err := os.ReadFile(filepath.Join(work, from))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(tmp, to), content, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return openBuilt(dir)
}

func openBuilt(dir string) (*Kernel, error) {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, err
	}
	return &Kernel{Release: strings.TrimSpace(string(release)), Image: filepath.Join(dir, "vmlinuz")}, nil
}
