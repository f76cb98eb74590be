package attester

import (
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// lockMemory keeps all memory of the process, of now and of later, from being
// swapped or dumped. MCL_ONFAULT leaves out what was never used: Go reserves
// far more addresses than it uses.
func lockMemory() error {
	if err := mayLock(); err != nil {
		return err
	}
	switch err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err {
	case nil:
	case unix.EINVAL, unix.ENOSYS:
		return &rtmr.NotSupportedError{Feature: "mlockall(MCL_ONFAULT) (Linux 4.4)", Err: err}
	case unix.EPERM, unix.ENOMEM, unix.EAGAIN:
		return deniedLock(err)
	default:
		return fmt.Errorf("mlockall: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}

// mayLock reports if a limit would keep the process from locking as much as it
// likes. mlockall(2) itself does not, as long as what there is fits; it is a
// later mmap(2) of Go's that would fail, and end the process.
func mayLock() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("getrlimit(RLIMIT_MEMLOCK): %w", err)
	}
	page := uint64(os.Getpagesize())
	if limit.Cur > math.MaxInt-page {
		return nil // no limit, or one that the addresses run out before
	}
	// One page more than the limit tells: without access no memory is taken, but
	// the limit counts addresses. To look for CAP_IPC_LOCK would not, as in a user
	// namespace a process may have it and not be let.
	m, err := unix.Mmap(-1, 0, int(limit.Cur+page), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE|unix.MAP_LOCKED)
	switch {
	case err == nil:
		return unix.Munmap(m)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EAGAIN):
		return deniedLock(fmt.Errorf("%w with a limit of %d bytes", err, limit.Cur))
	case errors.Is(err, unix.ENOMEM):
		return nil // the addresses run out before the limit
	}
	return fmt.Errorf("mmap(MAP_LOCKED): %w", err)
}

func deniedLock(err error) error {
	return fmt.Errorf("%w: it takes CAP_IPC_LOCK, or an unlimited RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity): %w", rtmr.ErrDenied, err)
}

// sinceBoot is a TPM's Clock: the machine's sleep counts.
func sinceBoot() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0, fmt.Errorf("clock_gettime(CLOCK_BOOTTIME): %w", err)
	}
	return time.Duration(t.Nano()), nil
}
