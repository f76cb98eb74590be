//go:build linux

package setup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kernel is one of Debian's kernels.
type Kernel struct {
	Release string // as uname -r: "6.12.74+deb13+1-cloud-amd64"
	Image   string // path of the signed bzImage
	Root    string // folder that holds lib/modules/RELEASE
	Arch    string // AMD64 or S390X
}

// The architectures, as Debian and Go name them.
const (
	AMD64 = "amd64"
	S390X = "s390x"
)

// flavours end the releases of kernels for virtual machines: for amd64 a small
// and signed one.
var flavours = map[string]string{AMD64: "-cloud-amd64", S390X: "-s390x"}

// FindKernel returns the newest kernel of a series such as "6.12" or "7.3" that
// has been downloaded, and downloads one if there is none. Backports go on to
// newer series: where the mirror has no longer the one that is asked for, it is
// the next one with the same first number. A series such as "7.3-lab" is built
// from Debian's source, with CONFIG_IMA_KEXEC, CONFIG_IMA_APPRAISE_MODSIG and,
// from 7.2 on, CONFIG_IMA_STAGING; that takes minutes, once. "6.1-s390x" is a
// kernel for s390x.
func FindKernel(series string) (*Kernel, error) {
	if strings.HasSuffix(series, fromSource) {
		k, err := findBuilt(series)
		if err != nil {
			err = fmt.Errorf("kernel %s: %w", series, err)
		}
		return k, err
	}
	arch := Arch(series)
	dir, err := Once(filepath.Join("kernels", series), func(tmp string) error {
		return inApt(arch, func(a *apt) error { return a.fetchKernel(series, tmp) })
	})
	if err != nil {
		return nil, fmt.Errorf("kernel %s: %w", series, err)
	}
	return openKernel(dir, arch)
}

// Arch returns the architecture of a series' kernels.
func Arch(series string) string {
	if strings.HasSuffix(series, flavours[S390X]) {
		return S390X
	}
	return AMD64
}

// openKernel finds a kernel's files. From 7.2 on the image is beside the modules.
func openKernel(dir, arch string) (*Kernel, error) {
	modules, err := filepath.Glob(filepath.Join(dir, "lib/modules/*/modules.dep"))
	if err != nil || len(modules) != 1 {
		return nil, fmt.Errorf("%s: %d modules.dep, expected 1", dir, len(modules))
	}
	k := &Kernel{Release: filepath.Base(filepath.Dir(modules[0])), Root: dir, Arch: arch}
	for _, image := range []string{
		filepath.Join(dir, "boot", "vmlinuz-"+k.Release),
		filepath.Join(filepath.Dir(modules[0]), "vmlinuz"),
	} {
		if exists(image) {
			k.Image = image
			return k, nil
		}
	}
	return nil, fmt.Errorf("%s: no kernel image", dir)
}

// inApt runs f on the private apt. If f fails with lists that may be old, since
// mirrors drop a package when there is a newer one, it is run again with new lists.
func inApt(arch string, f func(*apt) error) error {
	cache, err := Dir()
	if err != nil {
		return err
	}
	dir := filepath.Join(cache, "apt")
	if arch != AMD64 {
		dir += "-" + arch
	}
	fresh := !exists(filepath.Join(dir, "listed"))
	a, err := openApt(arch, dir, false)
	if err != nil {
		return err
	}
	if err = f(a); err == nil || fresh {
		return err
	}
	if a, err = openApt(arch, dir, true); err != nil {
		return err
	}
	return f(a)
}

// fetchKernel downloads the packages that make up a kernel: one up to 6.19, and
// from 7.0 on an image, its binary, its modules and a base.
func (a *apt) fetchKernel(series, dir string) error {
	release, err := a.newestKernel(series)
	if err != nil {
		return err
	}
	var pkgs []string
	for _, part := range []string{"linux-image-", "linux-binary-", "linux-modules-", "linux-base-"} {
		names, err := a.names(part + release)
		if err != nil {
			return err
		}
		if slices.Contains(names, part+release) {
			pkgs = append(pkgs, part+release)
		}
	}
	if err := a.fetch(dir, pkgs...); err != nil {
		return err
	}
	// /lib is a link to /usr/lib on Debian, and packages ship files in either.
	if usr := filepath.Join(dir, "usr/lib/modules"); exists(usr) && !exists(filepath.Join(dir, "lib/modules")) {
		if err := os.Symlink("usr/lib", filepath.Join(dir, "lib")); err != nil {
			return err
		}
	}
	depmod, err := Program("depmod")
	if err != nil {
		return err
	}
	_, err = output(exec.Command(depmod, "-b", dir, release))
	return err
}

// newestKernel returns the release of the newest kernel of a series, or of the
// next series of the same first number.
func (a *apt) newestKernel(series string) (string, error) {
	major, minor, err := splitSeries(series)
	if err != nil {
		return "", err
	}
	names, err := a.names(fmt.Sprintf("linux-image-%d.", major))
	if err != nil {
		return "", err
	}
	best, bestMinor := "", 0
	for _, name := range names {
		release := strings.TrimPrefix(name, "linux-image-")
		if !strings.HasSuffix(release, flavours[a.arch]) {
			continue
		}
		_, m, err := splitSeries(release)
		switch {
		case err != nil || m < minor:
		case best == "" || m < bestMinor:
			best, bestMinor = release, m
		case m == bestMinor && newer(release, best):
			best = release
		}
	}
	if best == "" {
		return "", &MissingError{What: "a kernel " + series, Why: "the mirror has none in " + strings.Join(suites[a.arch], ", ")}
	}
	return best, nil
}

// splitSeries reads the first two numbers of "6.12" or "6.12.74+deb13-cloud-amd64".
func splitSeries(s string) (major, minor int, err error) {
	f := strings.FieldsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if len(f) >= 2 {
		if major, err = strconv.Atoi(f[0]); err == nil {
			minor, err = strconv.Atoi(f[1])
		}
	}
	if len(f) < 2 || err != nil {
		return 0, 0, fmt.Errorf("kernel series %q: expected two numbers such as 6.12", s)
	}
	return major, minor, nil
}

// newer compares releases as Debian's versions.
func newer(a, b string) bool {
	return exec.Command("dpkg", "--compare-versions", a, "gt", b).Run() == nil
}

// Series are the kernels that tests boot.
var Series = []string{"6.1-s390x", "6.1", "6.12", "7.3"}
