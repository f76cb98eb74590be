//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tallystick/lab/setup"
)

// rootFiles are the files that every root disk has.
var rootFiles = map[string]string{
	"/etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"/etc/group":    "root:x:0:\nnogroup:x:65534:\n",
	"/etc/hosts":    "127.0.0.1 localhost\n",
	"/etc/hostname": "lab\n",
}

// makeRootDisk makes an ext4 image with busybox and labtpm, or Debian, and the
// machine's files. Nothing is mounted.
func (m *Machine) makeRootDisk(image string, p *parts) error {
	root := image + ".d"
	defer os.RemoveAll(root)
	put := func(name string, content []byte) error {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		perm := os.FileMode(0o644)
		if bytes.HasPrefix(content, []byte("\x7fELF")) || bytes.HasPrefix(content, []byte("#!")) {
			perm = 0o755
		}
		return os.WriteFile(file, content, perm)
	}
	add := addSmall
	if m.Debian != "" {
		add = addDebian
	}
	if err := add(root, put, p); err != nil {
		return err
	}
	for name, content := range m.Files {
		if err := put(name, content); err != nil {
			return err
		}
	}
	if err := m.provision(root); err != nil {
		return err
	}
	if m.Initrd != "" {
		if err := os.Rename(filepath.Join(root, m.Initrd), filepath.Join(filepath.Dir(image), "initramfs")); err != nil {
			return err
		}
	}
	mke2fs, err := setup.Program("mke2fs")
	if err != nil {
		return err
	}
	out, err := exec.Command(mke2fs, "-q", "-t", "ext4", "-O", "verity,^has_journal", "-b", "4096",
		"-E", "root_owner=0:0", "-d", root, image, fmt.Sprintf("%dM", m.Disk)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	return nil
}

// addSmall makes a root of our own.
func addSmall(root string, put func(string, []byte) error, p *parts) error {
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "bin", "lab/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := addPrograms(root, put, p); err != nil {
		return err
	}
	for name, content := range rootFiles {
		if err := put(name, []byte(content)); err != nil {
			return err
		}
	}
	return nil
}

// addPrograms adds busybox under each of its names, labtpm, and labtsm's file.
func addPrograms(root string, put func(string, []byte) error, p *parts) error {
	busybox, err := os.ReadFile(p.busybox)
	if err != nil {
		return err
	}
	if err := put("/bin/busybox", busybox); err != nil {
		return err
	}
	if err := put("/lab/bin/labtpm", p.labtpm); err != nil {
		return err
	}
	if p.labtsm != nil {
		if err := put(TSMModule, p.labtsm); err != nil {
			return err
		}
	}
	own, err := setup.Program("/bin/busybox") // which can be run here
	if err != nil {
		return err
	}
	applets, err := exec.Command(own, "--list").Output()
	if err != nil {
		return fmt.Errorf("busybox: %w", err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return err
		}
	}
	return nil
}
