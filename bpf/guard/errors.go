//go:build linux

package guard

import (
	"errors"
	"fmt"
)

// What an error of Arm is, for errors.Is.
var (
	// ErrNotInMemory says that the program was read from a disk: see Exec.
	ErrNotInMemory = errors.New("the program was not executed from memory (guard.Exec)")
	// ErrNotAdmitted says that a guard runs, or something that keeps this
	// process from looking for one, and that it is not let in. The guard's
	// denials tell why, as Execute.
	ErrNotAdmitted = errors.New("a guard runs that does not admit this process")
)

// OtherRegistersError says that a guard runs, for other registers than those
// that are pinned here. They are false: a guard is armed once each boot.
type OtherRegistersError struct {
	Path string // of the false registers
}

func (e *OtherRegistersError) Error() string {
	return fmt.Sprintf("%s are not the registers that this kernel's guard was armed for: something else is mounted there, or their pins were hidden", e.Path)
}
