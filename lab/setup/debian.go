//go:build linux

package setup

import (
	"os"
	"path/filepath"
)

// debianPackages are what a Debian root has beside what is essential: systemd as
// its first process, and both programs that make an initramfs.
var debianPackages = []string{"systemd", "systemd-sysv", "udev", "dbus", "kmod", "initramfs-tools", "dracut-core"}

// FindDebian returns a folder with the root of a Debian release, "bookworm" or
// "trixie", whose first process is systemd. If it is not there mmdebstrap makes
// it, which takes root.
func FindDebian(suite string) (string, error) {
	where := filepath.Join("debian", suite)
	cache, err := Dir()
	if err != nil {
		return "", err
	}
	if dir := filepath.Join(cache, where); exists(dir) {
		return dir, nil
	}
	if os.Geteuid() != 0 {
		return "", &MissingError{What: "a root of Debian " + suite, Why: "not root, whom mmdebstrap takes"}
	}
	if err := install(chrootTools); err != nil {
		return "", err
	}
	return Once(where, func(tmp string) error {
		return inApt(AMD64, func(a *apt) error { return a.debootstrap(tmp, suite, debianPackages...) })
	})
}
