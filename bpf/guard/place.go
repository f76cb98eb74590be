//go:build linux

package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// device is a device's number as the kernel has it in itself.
func device(major, minor uint32) uint32 { return major<<20 | minor }

// putPlace puts into the state where the pins are: in the folders, which are
// given, on a BPF file system.
func (s *guardGuard) putPlace(folders []string) error {
	info, err := os.Stat("/proc/1/ns/mnt")
	if err != nil {
		return err
	}
	s.MntNs = uint32(inode(info))
	var bpffs uint64
	for i, folder := range append(folders, parents(folders[0])...) {
		info, err := os.Stat(folder)
		if err != nil {
			return err
		}
		dev := info.Sys().(*syscall.Stat_t).Dev
		if i == 0 {
			bpffs = dev
		}
		if dev != bpffs {
			break
		}
		if i == len(s.Folders) {
			return fmt.Errorf("%s lies %d folders deep in its file system, expected %d at most", folders[0], i, len(s.Folders)-1)
		}
		s.Folders[i] = inode(info)
	}
	s.Leaves = uint32(len(folders))
	s.Bpffs = device(unix.Major(bpffs), unix.Minor(bpffs))
	return s.putMounts(folders[0])
}

// parents returns the folders above, the nearest first.
func parents(dir string) (dirs []string) {
	for dir != "/" && dir != "." {
		dir = filepath.Dir(dir)
		dirs = append(dirs, dir)
	}
	return dirs
}

// mount is a line of /proc/self/mountinfo (proc(5)).
type mount struct {
	parent string
	dev    uint32
	point  string
}

// putMounts puts into the state the mounts above the one with the folder: to
// take away one of them takes away that too.
func (s *guardGuard) putMounts(folder string) error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	mounts := make(map[string]mount)
	id, longest := "", -1
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 {
			return fmt.Errorf("/proc/self/mountinfo: a line of %d fields, expected more: %q", len(f), line)
		}
		major, minor, _ := strings.Cut(f[2], ":")
		ma, err := strconv.ParseUint(major, 10, 32)
		if err != nil {
			return fmt.Errorf("/proc/self/mountinfo: %w", err)
		}
		mi, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return fmt.Errorf("/proc/self/mountinfo: %w", err)
		}
		m := mount{f[1], device(uint32(ma), uint32(mi)), unescape(f[4])}
		mounts[f[0]] = m
		if m.dev == s.Bpffs && len(m.point) > longest && strings.HasPrefix(folder, m.point+"/") {
			id, longest = f[0], len(m.point)
		}
	}
	if id == "" {
		return fmt.Errorf("/proc/self/mountinfo has no mount with %s", folder)
	}
	n := 0
	for m, ok := mounts[mounts[id].parent]; ok; m, ok = mounts[m.parent] {
		info, err := os.Stat(m.point)
		if err != nil {
			return err
		}
		if n == len(s.Mounts) {
			return fmt.Errorf("%s lies below more than %d mounts", folder, n)
		}
		s.Mounts[n] = guardRoot{Inode: inode(info), Dev: m.dev}
		n++
		if m == mounts[m.parent] {
			break
		}
	}
	return nil
}

// unescape turns back what the kernel does to a path's odd characters
// (fs/seq_file.c, mangle_path).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
