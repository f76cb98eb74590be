//go:build linux

package setup

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildModule builds a kernel module from a folder with its source and Makefile,
// against Debian's headers of that kernel, and returns the .ko file's path. What
// was built once, of the same source, is not built again.
//
// The compiler that Debian built the kernel with is of another release than the
// host's may be; so the headers and the compiler are in a folder of their own,
// which mmdebstrap makes. That takes root.
func (k *Kernel) BuildModule(name string, source fs.FS) (string, error) {
	files, key, err := readSource(source)
	if err != nil {
		return "", err
	}
	built := fmt.Sprintf("modules/%s-%s-%s", name, k.Release, key)
	if cache, err := Dir(); err == nil && exists(filepath.Join(cache, built)) {
		return filepath.Join(cache, built, name+".ko"), nil
	}
	root, err := k.headers()
	if err != nil {
		return "", err
	}
	dir, err := Once(built, func(tmp string) error {
		work, err := os.MkdirTemp(root, "build-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(work)
		for file, content := range files {
			if err := os.WriteFile(filepath.Join(work, file), content, 0o644); err != nil {
				return err
			}
		}
		// objtool reads /proc. The mount is gone with the namespace.
		script := `mount -t proc proc "$1/proc" && exec chroot "$1" make -C "$2" M="$3" W=1 modules`
		if _, err := output(exec.Command("unshare", "-m", "sh", "-ec", script, "sh",
			root, "/usr/src/linux-headers-"+k.Release, "/"+filepath.Base(work))); err != nil {
			return fmt.Errorf("building %s: %w", name, err)
		}
		ko, err := os.ReadFile(filepath.Join(work, name+".ko"))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, name+".ko"), ko, 0o644)
	})
	return filepath.Join(dir, name+".ko"), err
}

// readSource reads a folder's files, and makes a name of their content.
func readSource(source fs.FS) (files map[string][]byte, key string, err error) {
	files = map[string][]byte{}
	sum := sha256.New()
	entries, err := fs.ReadDir(source, ".")
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		content, err := fs.ReadFile(source, e.Name())
		if err != nil {
			return nil, "", err
		}
		files[e.Name()] = content
		fmt.Fprintf(sum, "%s %d\n%s", e.Name(), len(content), content)
	}
	return files, fmt.Sprintf("%x", sum.Sum(nil)[:8]), nil
}

// headers returns a Debian root that has the kernel's headers, a compiler and make.
func (k *Kernel) headers() (string, error) {
	if os.Geteuid() != 0 {
		return "", &MissingError{What: "the headers of kernel " + k.Release, Why: "not root, whom mmdebstrap and chroot take"}
	}
	// Containers and folders that are no mount may not do what building takes.
	if _, err := output(exec.Command("unshare", "-m", "mount", "-t", "proc", "proc", "/proc")); err != nil {
		return "", &MissingError{What: "the headers of kernel " + k.Release, Why: "no mount namespace here: " + oneLine(err)}
	}
	if err := install(chrootTools); err != nil {
		return "", err
	}
	return Once("headers/"+k.Release, func(tmp string) error {
		return inApt(AMD64, func(a *apt) error {
			pkg := "linux-headers-" + k.Release
			names, err := a.names(pkg)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				return &MissingError{What: pkg, Why: "the mirror has it no more; remove the kernel from the cache, " + k.Root}
			}
			return a.debootstrap(tmp, k.suite(), "gcc", "make", pkg)
		})
	})
}

// suite returns the release of Debian that the kernel was built for, by its
// version: ~bpo13, +deb13 and deb12 are of Debian 13 and 12.
func (k *Kernel) suite() string {
	if strings.Contains(k.Release, "deb13") {
		return "trixie"
	}
	return "bookworm"
}

// debootstrap makes a Debian root of a release with packages, from the private
// apt's sources of that release.
func (a *apt) debootstrap(dir, suite string, pkgs ...string) error {
	all, err := os.ReadFile(filepath.Join(a.dir, "etc/sources.list"))
	if err != nil {
		return err
	}
	var own strings.Builder
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, " "+suite) {
			own.WriteString(line)
		}
	}
	cmd := exec.Command("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--include="+strings.Join(pkgs, ","), suite, dir, "-")
	cmd.Stdin = strings.NewReader(own.String())
	_, err = output(cmd)
	return err
}
