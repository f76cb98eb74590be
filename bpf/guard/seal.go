//go:build linux

package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/bpf/internal/kernel"
)

// reportDevices are the misc devices that give hardware reports: Intel's, AMD's,
// and IBM Z's. Arm CCA has none, but configfs-tsm.
var reportDevices = []string{"tdx_guest", "sev-guest", "uv"}

// Seal denies everyone but the helper the interfaces that give hardware reports,
// until the next boot: configfs-tsm, /dev/tdx_guest, /dev/sev-guest, /dev/uv,
// however they are reached, and also if their drivers are loaded later. It
// removes the entries that configfs-tsm has, so that what others have open of
// them is dead, and returns their names; the helper makes its own afterwards.
//
// With an error it may be sealed all the same, see Status. To seal again is to
// remove what there is of entries, the helper's too.
func (g *Guard) Seal() (closed []string, err error) {
	minors, err := miscMinors()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	call := guardSealCall{Minors: minors}
	ret, err := g.seal.Run(&ebpf.RunOptions{Context: &call})
	if err == nil && ret != 0 {
		err = unix.Errno(-int32(ret))
	}
	if err != nil {
		return nil, fmt.Errorf("seal: %w", kernel.Explain(err))
	}
	closed, err = closeReports()
	if err != nil {
		return closed, fmt.Errorf("seal: %w", err)
	}
	return closed, nil
}

// miscMinors returns the minor numbers of the report devices that there are,
// plus one.
func miscMinors() (minors [4]uint32, err error) {
	n := 0
	for _, name := range reportDevices {
		text, err := os.ReadFile("/sys/class/misc/" + name + "/dev")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return minors, err
		}
		_, minor, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
		m, err := strconv.ParseUint(minor, 10, 20)
		if err != nil {
			return minors, fmt.Errorf("/sys/class/misc/%s/dev: %w", name, err)
		}
		minors[n] = uint32(m) + 1
		n++
	}
	return minors, nil
}

// closeReports removes the entries of configfs-tsm. It looks at a mount of its
// own: what others have mounted, or not, makes no difference.
func closeReports() (closed []string, err error) {
	root, err := mountConfigfs()
	if errors.Is(err, unix.ENODEV) { // not loaded: nobody has an entry
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configfs: %w", err)
	}
	defer root.Close()
	reports, err := root.OpenRoot("tsm/report")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer reports.Close()
	dir, err := reports.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := reports.Remove(name); err != nil {
			return closed, err
		}
		closed = append(closed, name)
	}
	return closed, nil
}

// mountConfigfs mounts it where no path leads (Linux 5.2).
func mountConfigfs() (*os.Root, error) {
	fd, err := unix.Fsopen("configfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, err
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(mnt)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", mnt))
}

// traced tells that a debugger has this process.
func traced() bool {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if pid, ok := strings.CutPrefix(s.Text(), "TracerPid:"); ok {
			return strings.TrimSpace(pid) != "0"
		}
	}
	return false
}
