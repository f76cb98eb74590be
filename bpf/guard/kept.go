//go:build linux

package guard

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Admitted returns ErrNotAdmitted, with the reason where this process can tell, if
// a guard runs that does not admit it. It returns nil if one does or if none runs,
// and rtmr.ErrDenied where the process may not look.
func Admitted() error {
	_, err := find()
	switch {
	case errors.Is(err, rtmr.ErrNotSupported):
		return nil
	case errors.Is(err, ErrNotAdmitted) && underSeccomp():
		return fmt.Errorf("guard: %w: it is under seccomp, as SystemCallFilter= of a service and what implies it have it", err)
	case errors.Is(err, ErrNotAdmitted):
		return fmt.Errorf("guard: %w: another version of this program armed it", err)
	case err != nil:
		return fmt.Errorf("guard: %w", err)
	}
	return nil
}

// Keep writes this program into a file, from which another version of it, that the
// guard does not admit, can execute it: see [ExecKept]. Who exchanges the file gains
// nothing, since the guard knows the program by its hash.
func Keep(file string) error {
	in, err := inMemory()
	if err != nil {
		return err
	}
	if !in {
		return fmt.Errorf("guard: keep the program: %w", ErrNotInMemory)
	}
	program, kept, err := programs(file)
	if err == nil && bytes.Equal(program, kept) {
		return nil
	}
	if program == nil {
		return fmt.Errorf("guard: keep the program: %w", err)
	}
	part := file + ".part"
	err = os.WriteFile(part, program, 0o600)
	if err == nil {
		err = os.Rename(part, file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("guard: keep the program: %w", err), os.RemoveAll(part))
	}
	return nil
}

// programs returns this program, and the one that is kept.
func programs(file string) (this, kept []byte, err error) {
	if this, err = os.ReadFile(self); err != nil {
		return nil, nil, err
	}
	kept, err = os.ReadFile(file)
	return this, kept, err
}

// ExecKept executes the program that Keep wrote into the file from memory, in place
// of this one, with the arguments and the environment that it has. The guard admits
// it if it is the one that armed it. It is an error if it is this program.
func ExecKept(file string) error {
	this, kept, err := programs(file)
	if err != nil {
		return fmt.Errorf("guard: the program that armed it: %w", err)
	}
	if bytes.Equal(this, kept) {
		return fmt.Errorf("guard: %s is this program", file)
	}
	this, kept = nil, nil
	return execute(file)
}

// underSeccomp reports whether a filter stands between this process and the kernel.
func underSeccomp() bool {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err == nil && mode != 0
}
