//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// labService answers the host where the first process is systemd. It is there
// before anything else, and systemd leaves alone what it has started.
const labService = `[Unit]
Description=The lab's port
DefaultDependencies=no

[Service]
ExecStart=/lab/bin/init serve
KillMode=process
Restart=on-failure
`

// addDebian makes the root that of a Debian release, with the kernel and its
// modules where Debian's packages have them, and with the service lab.
func addDebian(root string, put func(string, []byte) error, p *parts) error {
	copies := [][2]string{
		{p.debian + "/.", root},
		{filepath.Join(p.kernel.Root, "lib/modules", p.kernel.Release), filepath.Join(root, "usr/lib/modules", p.kernel.Release)},
		{p.kernel.Image, filepath.Join(root, "boot/vmlinuz-"+p.kernel.Release)},
	}
	if config := filepath.Join(p.kernel.Root, "boot/config-"+p.kernel.Release); exists(config) {
		copies = append(copies, [2]string{config, filepath.Join(root, "boot")})
	}
	for _, c := range copies {
		if err := os.MkdirAll(filepath.Dir(c[1]), 0o755); err != nil {
			return err
		}
		if out, err := exec.Command("cp", "-a", c[0], c[1]).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
	}
	const unit = "/etc/systemd/system/lab.service"
	for name, content := range map[string][]byte{
		"/lab/bin/init":   p.init,
		"/lab/bin/labtpm": p.labtpm,
		unit:              []byte(labService),
		"/etc/hostname":   []byte("lab\n"),
		// Or the first boot would index libraries and more (ConditionNeedsUpdate=).
		"/etc/.updated": nil,
		"/var/.updated": nil,
	} {
		if err := put(name, content); err != nil {
			return err
		}
	}
	wants := filepath.Join(root, "etc/systemd/system/sysinit.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	return os.Symlink(unit, filepath.Join(wants, "lab.service"))
}

// provision runs the machine's script in the root, on the host, which is faster than
// in an emulated guest. The mount is gone with the namespace.
func (m *Machine) provision(root string) error {
	if m.Provision == "" {
		return nil
	}
	const enter = `mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -ec "$2"`
	cmd := exec.Command("unshare", "-m", "sh", "-ec", enter, "sh", root, m.Provision)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("provisioning the root: %w: %s", err, out)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
