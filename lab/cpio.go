//go:build linux

package lab

import (
	"bytes"
	"fmt"
	"path"
	"slices"
)

// archive writes an initramfs: a cpio archive in the format newc
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	out  bytes.Buffer
	ino  int
	dirs []string // that it has
}

// The types of st_mode.
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
)

// file adds a file, and the folders on its path.
func (a *archive) file(name string, perm int, content []byte) {
	a.dir(path.Dir(name))
	a.entry(name, modeFile|perm, content, 0, 0)
}

func (a *archive) dir(name string) {
	if name == "/" || name == "." || slices.Contains(a.dirs, name) {
		return
	}
	a.dir(path.Dir(name))
	a.dirs = append(a.dirs, name)
	a.entry(name, modeDir|0o755, nil, 0, 0)
}

// device adds a character device.
func (a *archive) device(name string, major, minor int) {
	a.dir(path.Dir(name))
	a.entry(name, modeChar|0o600, nil, major, minor)
}

func (a *archive) entry(name string, mode int, content []byte, major, minor int) {
	name = trimRoot(name)
	a.ino++
	fmt.Fprintf(&a.out, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0)
	a.out.WriteString(name)
	a.out.WriteByte(0)
	a.pad()
	a.out.Write(content)
	a.pad()
}

func (a *archive) pad() {
	for a.out.Len()%4 != 0 {
		a.out.WriteByte(0)
	}
}

// bytes ends the archive and returns it.
func (a *archive) bytes() []byte {
	a.entry("TRAILER!!!", 0, nil, 0, 0)
	return a.out.Bytes()
}

func trimRoot(name string) string {
	for len(name) > 0 && name[0] == '/' {
		name = name[1:]
	}
	return name
}
