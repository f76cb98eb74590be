//go:build linux

package setup

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// fromSource ends the name of a series whose kernel is built from Debian's source.
const fromSource = "-lab"

// sourceConfig is what kernels built from source have beside tinyconfig.
//
//go:embed source.config
var sourceConfig string

// buildTools are what building a kernel takes.
var buildTools = []hostTool{
	{"gcc", "gcc"},
	{"make", "make"},
	{"flex", "flex"},
	{"bison", "bison"},
	{"bc", "bc"},
	{"libelf-dev", "/usr/include/gelf.h"},
	{"libssl-dev", "/usr/include/openssl/ssl.h"},
	{"xz-utils", "xz"},
}

// findBuilt returns a kernel that was built from source, and builds it if it is
// not there, which takes two idle cores about eight minutes. It has no modules,
// and is not signed.
func findBuilt(series string) (*Kernel, error) {
	where := filepath.Join("kernels", series)
	cache, err := Dir()
	if err != nil {
		return nil, err
	}
	if dir := filepath.Join(cache, where); exists(dir) {
		return openKernel(dir, AMD64)
	}
	if err := install(buildTools); err != nil {
		return nil, err
	}
	// Others may use the cache while this builds.
	tree, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tree)
	if err := fetchSource(strings.TrimSuffix(series, fromSource), tree); err != nil {
		return nil, err
	}
	if err := configure(tree); err != nil {
		return nil, err
	}
	if err := makeIn(tree, "bzImage"); err != nil {
		return nil, err
	}
	dir, err := Once(where, func(tmp string) error { return takeBuilt(tree, tmp) })
	if err != nil {
		return nil, err
	}
	return openKernel(dir, AMD64)
}

// fetchSource unpacks Debian's source of a kernel series.
func fetchSource(series, tree string) error {
	unlock, err := lock(filepath.Dir(tree)) // as the other users of the private apt
	if err != nil {
		return err
	}
	deb := tree + ".deb"
	defer os.RemoveAll(deb)
	name := "linux-source-" + series
	err = inApt(AMD64, func(a *apt) error { return a.fetch(deb, name) })
	unlock()
	if err != nil {
		return err
	}
	_, err = output(exec.Command("tar", "-xJf", filepath.Join(deb, "usr/src", name+".tar.xz"), "-C", tree, "--strip-components=1"))
	return err
}

// configure merges sourceConfig into tinyconfig, and sees that all of it is there.
func configure(tree string) error {
	fragment := filepath.Join(tree, "lab.config")
	if err := os.WriteFile(fragment, []byte(sourceConfig), 0o644); err != nil {
		return err
	}
	if err := makeIn(tree, "tinyconfig"); err != nil {
		return err
	}
	merge := exec.Command("scripts/kconfig/merge_config.sh", "-m", ".config", fragment)
	merge.Dir = tree
	merge.Env = append(os.Environ(), "KCONFIG_CONFIG=.config")
	if _, err := output(merge); err != nil {
		return err
	}
	if err := makeIn(tree, "olddefconfig"); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	options, err := os.ReadFile(filepath.Join(tree, "security/integrity/ima/Kconfig"))
	if err != nil {
		return err
	}
	hasStaging := strings.Contains(string(options), "config IMA_STAGING\n") // from 7.2 on
	got := strings.Split(string(config), "\n")
	for want := range strings.Lines(sourceConfig) {
		want = strings.TrimSpace(want)
		if strings.HasPrefix(want, "CONFIG_") && !slices.Contains(got, want) && (want != "CONFIG_IMA_STAGING=y" || hasStaging) {
			return fmt.Errorf("the kernel's configuration has no %s: something that it depends on is missing", want)
		}
	}
	return nil
}

func makeIn(tree, target string) error {
	cmd := exec.Command("make", "-s", fmt.Sprintf("-j%d", runtime.NumCPU()), target)
	cmd.Dir = tree
	_, err := output(cmd)
	return err
}

// takeBuilt takes what a machine boots with from a tree, in the places in which
// Debian's packages have it. There is nothing to load.
func takeBuilt(tree, dir string) error {
	release, err := os.ReadFile(filepath.Join(tree, "include/config/kernel.release"))
	if err != nil {
		return err
	}
	modules := filepath.Join("lib/modules", strings.TrimSpace(string(release)))
	for from, to := range map[string]string{
		"arch/x86/boot/bzImage": "boot/vmlinuz-" + filepath.Base(modules),
		".config":               filepath.Join(modules, "config"),
		"modules.builtin":       filepath.Join(modules, "modules.builtin"),
		"/dev/null":             filepath.Join(modules, "modules.dep"),
	} {
		if !filepath.IsAbs(from) {
			from = filepath.Join(tree, from)
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		to = filepath.Join(dir, to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
