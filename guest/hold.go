//go:build linux

package guest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

var (
	// ErrJournalHeld says that another process holds the journal.
	ErrJournalHeld = errors.New("another process holds the journal")
	// ErrDeviceHeld says that another helper extends the device, with this journal or another.
	ErrDeviceHeld = errors.New("another helper extends the device")
)

// holdFolder makes a folder if there is none and keeps other helpers from it until the
// file that it returns is closed. The lock is the folder's own (flock(2)), for nobody
// renames that while a journal is put aside or removed; systemd-tmpfiles leaves a
// folder alone that is locked so.
func holdFolder(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	return hold(path, os.O_RDONLY, ErrJournalHeld)
}

// holdDevice keeps helpers with other journals from a device, by a file in a folder that
// they share, until the file that it returns is closed.
func holdDevice(folder string, d rtmr.Description) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	name := sha256.Sum256([]byte(d.Name))
	return hold(filepath.Join(folder, fmt.Sprintf("%s-%x.lock", d.Kind, name[:4])), os.O_RDWR|os.O_CREATE, ErrDeviceHeld)
}

// hold opens and locks what is at the path, and makes sure that it still is there.
func hold(path string, flags int, held error) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		same := false
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
			err = held
		} else if err == nil {
			same, err = isAt(file, path)
		}
		if same {
			return file, nil
		}
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// isAt reports whether a path leads to the open file.
func isAt(file *os.File, path string) (bool, error) {
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, there), err
}
