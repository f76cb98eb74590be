//go:build linux

// Package setup finds what the lab boots machines with, and installs or
// downloads what is not there: programs of the host, Debian's kernels of several
// series, and its signed boot loaders.
//
// Everything that is downloaded lies in one folder, [Dir], and is downloaded
// once. It comes from the Debian mirror that the machine's own apt uses, and apt
// checks the signatures with the machine's keyring. Versions are those that the
// mirror has when something is first asked for.
//
// Several processes may call this at once: the folder has a lock.
//
// What cannot be had here is a [*MissingError], whose text says what to install.
package setup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// MissingError says what is not here and cannot be put here, and what to do.
type MissingError struct {
	What string // "QEMU", "a kernel 6.12", ..
	Why  string // or what to do
}

func (e *MissingError) Error() string { return e.What + ": " + e.Why }

// Dir returns the folder in which downloads are kept:
// $XDG_CACHE_HOME/tallystick/lab.
func Dir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tallystick", "lab")
	return dir, os.MkdirAll(dir, 0o755)
}

// Once runs fill, with the cache locked, unless the folder dir in the cache is
// there. fill gets a new folder, which becomes dir if fill succeeds: so dir is
// there whole, or not at all.
func Once(dir string, fill func(tmp string) error) (path string, err error) {
	cache, err := Dir()
	if err != nil {
		return "", err
	}
	path = filepath.Join(cache, dir)
	there := func() bool { _, err := os.Stat(path); return err == nil }
	if there() {
		return path, nil
	}
	unlock, err := lock(cache)
	if err != nil {
		return "", err
	}
	defer unlock()
	if there() {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	// Who was killed while it filled one left it.
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".partial-*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".partial-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp) // does nothing after the rename
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	return path, os.Rename(tmp, path)
}

// lock waits for the folder's lock. The kernel drops it if the process dies.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: flock: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

// output runs a program and returns what it wrote. Its error holds the last
// lines of what it had to say.
func output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		return string(out), nil
	}
	said := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if len(said) > 15 {
		said = said[len(said)-15:]
	}
	err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.Join(said, " | "))
	if errors.Is(err, exec.ErrNotFound) {
		err = &MissingError{What: cmd.Args[0], Why: "not found; this needs Debian, or a system that is made from it"}
	}
	return string(out), err
}
