//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/lab/internal/wire"
)

const policyFile = "/sys/kernel/security/ima/policy"

// mountAll mounts the kernel's file systems below root.
func mountAll(root string, try func(string, error)) {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"devtmpfs", "/dev"},
		{"securityfs", "/sys/kernel/security"},
		{"tmpfs", "/run"},
	} {
		try("mount "+m.dir, mount(m.kind, root+m.dir))
	}
	for _, m := range []struct{ kind, dir string }{
		{"tracefs", "/sys/kernel/tracing"},
		{"bpf", "/sys/fs/bpf"},
	} {
		mount(m.kind, root+m.dir) // where the kernel has it
	}
}

// mountLate mounts what modules bring.
func mountLate(root string, try func(string, error)) {
	dir := root + "/sys/kernel/config"
	if _, err := os.Stat(dir); err == nil {
		try("mount "+dir, mount("configfs", dir))
	}
}

func mount(kind, dir string) error {
	os.MkdirAll(dir, 0o755)
	err := unix.Mount(kind, dir, kind, 0, "")
	if errors.Is(err, unix.EBUSY) { // it is mounted
		return nil
	}
	return err
}

func loadModule(m wire.Module) error {
	f, err := os.Open(m.File)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), m.Params, 0)
	if errors.Is(err, unix.EEXIST) { // loaded, or built in
		return nil
	}
	return err
}

// loadPolicy loads the IMA policy that the initramfs holds. The kernel takes one
// rule a write and says how much it took (ima_fs.c, ima_write_policy); os.File
// writes the rest. The policy comes into force on close.
func loadPolicy() error {
	text, err := os.ReadFile(wire.PolicyFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(policyFile, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// enterRoot mounts the root disk and makes it the root, with the kernel's file
// systems moved into it. The initramfs stays mounted beneath.
func enterRoot(device string, try func(string, error)) error {
	const at = "/root"
	if err := waitFor(device); err != nil {
		return err
	}
	os.MkdirAll(at, 0o755)
	if err := unix.Mount(device, at, "ext4", unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		os.MkdirAll(at+dir, 0o755)
		try("move "+dir, unix.Mount(dir, at+dir, "", unix.MS_MOVE, ""))
	}
	if err := os.Chdir(at); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func waitFor(file string) error {
	for range 500 {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s did not appear in 5 s", file)
}

// openPort opens the virtio-serial port that is the host's.
func openPort() (*os.File, error) {
	for range 500 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == wire.Port {
				device := "/dev/" + filepath.Base(filepath.Dir(name))
				if f, err := os.OpenFile(device, os.O_RDWR, 0); err == nil {
					return f, nil
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, errors.New("no virtio-serial port of the name " + wire.Port)
}
