//go:build linux

package guard

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const self = "/proc/self/exe"

// Exec executes this program again from memory, with the arguments and the
// environment that it has; it returns nil if it runs from there (or from a
// tmpfs) already. A guard admits no other: what the kernel reads from a disk,
// page by page and maybe anew, root can exchange after its hash was made.
//
// It belongs at the very start of a program: all else starts over.
func Exec() error {
	in, err := inMemory()
	if in || err != nil {
		return err
	}
	return execute(self)
}

// execute executes a file's program from memory.
func execute(file string) error {
	fd, err := memfd()
	if err != nil {
		return fmt.Errorf("guard: a program in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memfd")
	defer f.Close()
	if err := fill(f, file); err != nil {
		return fmt.Errorf("guard: a program in memory: %w", err)
	}
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, os.Environ())
	return fmt.Errorf("guard: execute from memory (is the sysctl vm.memfd_noexec 2?): %w", err)
}

func inMemory() (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(self, &fs); err != nil {
		return false, fmt.Errorf("guard: %s: %w", self, err)
	}
	return fs.Type == unix.TMPFS_MAGIC, nil
}

// memfd makes a file in memory that may be executed. Before Linux 6.3 all may,
// and the flag is an error.
func memfd() (int, error) {
	name := filepath.Base(os.Args[0])
	name = name[:min(len(name), 200)]
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	return fd, err
}

func fill(f *os.File, file string) error {
	exe, err := os.Open(file)
	if err != nil {
		return err
	}
	defer exe.Close()
	if _, err := io.Copy(f, exe); err != nil {
		return err
	}
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	return err
}

// putProgram puts into the state by what this program is known again.
func (s *guardGuard) putProgram() error {
	in, err := inMemory()
	if err != nil {
		return err
	}
	if !in {
		return ErrNotInMemory
	}
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	static, err := isStatic(program)
	if err != nil || !static {
		return err
	}
	s.Size = uint64(len(program))
	s.Sha256 = sha256.Sum256(program)
	s.Sha384 = sha512.Sum384(program)
	s.Sha512 = sha512.Sum512(program)
	return nil
}

// isStatic tells that the kernel loads nothing beside the program.
func isStatic(program []byte) (bool, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return false, fmt.Errorf("%s: %w", self, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

func haveIMA() bool {
	for _, dir := range []string{"/sys/kernel/security/integrity/ima", "/sys/kernel/security/ima"} {
		if _, err := os.Stat(dir); err == nil {
			return true
		}
	}
	return false
}
