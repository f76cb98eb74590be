package tpm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Options say which TPM to open.
type Options struct {
	// Path is the device. If it is empty, it is /dev/tpmrm0, through which the
	// kernel shares the TPM between processes (Linux 4.12), or where there is none,
	// /dev/tpm0, which only one process can have open.
	Path string
}

// Open opens a TPM of the kernel's. It is ErrNotSupported where there is none or
// it is a TPM 1.2, ErrDenied where it is not for this process, and ErrBusy where
// another has opened a device that is not shared.
func Open(o Options) (*Device, error) {
	paths := []string{o.Path}
	if o.Path == "" {
		paths = []string{"/dev/tpmrm0", "/dev/tpm0"}
	}
	var f *file
	var err error
	for _, path := range paths {
		if f, err = openFile(path); !errors.Is(err, rtmr.ErrNotSupported) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open TPM: %w", err)
	}
	d, err := New(f, f.place())
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// file is a TPM's device. It is not an os.File, which would have it answer
// asynchronously, and would write a command again that a signal interrupted.
type file struct {
	fd   int
	path string
}

func openFile(path string) (*file, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil, &rtmr.NotSupportedError{Feature: "TPM (" + path + ")", Err: err}
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %s: %w", rtmr.ErrDenied, path, err)
	case errors.Is(err, unix.EBUSY): // tpm_open of drivers/char/tpm/tpm-dev.c
		return nil, fmt.Errorf("%w: %s: %w", rtmr.ErrBusy, path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &file{fd, path}
	if _, err := f.number(); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// maxResponse is more than the kernel's own buffer (TPM_BUFSIZE, 4096): a
// response is one read(2).
const maxResponse = 8192

// Send is transport.TPM's. The kernel executes the command within write(2).
func (f *file) Send(command []byte) ([]byte, error) {
	n, err := unix.Write(f.fd, command)
	if err != nil {
		return nil, fmt.Errorf("command to %s: %w", f.path, err)
	}
	if n < len(command) {
		return nil, fmt.Errorf("command to %s: %w: %d bytes taken, expected %d", f.path, rtmr.ErrShort, n, len(command))
	}
	response := make([]byte, maxResponse)
	for {
		n, err = unix.Read(f.fd, response)
		if err == nil {
			return response[:n], nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("response of %s: %w", f.path, err)
		}
	}
}

func (f *file) Close() error { return unix.Close(f.fd) }

// number returns the device's number, MAJOR:MINOR.
func (f *file) number() (string, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(f.fd, &stat); err != nil {
		return "", fmt.Errorf("%s: %w", f.path, err)
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFCHR {
		return "", fmt.Errorf("%s: not a character device", f.path)
	}
	return fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev)), nil
}

// place returns the path and the kernel's driver: "/dev/tpmrm0 (tpm_crb)". A
// TPM of the vTPM proxy has no device beneath it (tpm_vtpm_proxy.c,
// vtpm_proxy_create_proxy_dev).
func (f *file) place() string {
	number, err := f.number()
	if err != nil {
		return f.path
	}
	device := filepath.Join("/sys/dev/char", number)
	if driver, err := os.Readlink(filepath.Join(device, "device/driver")); err == nil {
		return fmt.Sprintf("%s (%s)", f.path, filepath.Base(driver))
	}
	if at, err := filepath.EvalSymlinks(device); err == nil && filepath.Dir(filepath.Dir(at)) == "/sys/devices/virtual" {
		return f.path + " (vtpm-proxy)"
	}
	return f.path
}
