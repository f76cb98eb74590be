//go:build linux

package setup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a kernel module's file.
type Module struct {
	Name string
	Path string // .ko, .ko.xz or .ko.zst
}

// Modules returns the named modules and all that they depend on, in an order in
// which they can be loaded. What is built into the kernel is left out.
func (k *Kernel) Modules(names ...string) ([]Module, error) {
	if k.Root == "" {
		return nil, nil
	}
	dir := filepath.Join(k.Root, "lib/modules", k.Release)
	deps, err := readDeps(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	var order []Module
	var add func(name string) error
	add = func(name string) error {
		if slices.ContainsFunc(order, func(m Module) bool { return m.Name == name }) {
			return nil
		}
		files, ok := deps[name]
		if !ok {
			for line := range strings.Lines(string(builtin)) {
				if moduleName(strings.TrimSpace(line)) == name {
					return nil
				}
			}
			return fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		for _, dep := range files[1:] {
			if err := add(moduleName(dep)); err != nil {
				return err
			}
		}
		order = append(order, Module{name, filepath.Join(dir, files[0])})
		return nil
	}
	for _, name := range names {
		if err := add(moduleName(name)); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// readDeps reads modules.dep: "file: file of what it depends on, ..", by name.
func readDeps(file string) (map[string][]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if file, rest, ok := strings.Cut(line, ":"); ok {
			deps[moduleName(file)] = append([]string{file}, strings.Fields(rest)...)
		}
	}
	return deps, nil
}

// moduleName returns a module's name, of its file's or of itself. The kernel
// takes - for _.
func moduleName(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Read returns the module, unpacked.
func (m Module) Read() ([]byte, error) {
	var unpack string
	switch filepath.Ext(m.Path) {
	case ".ko":
		return os.ReadFile(m.Path)
	case ".xz":
		unpack = "xz"
	case ".zst":
		unpack = "zstd"
	default:
		return nil, fmt.Errorf("%s: expected .ko, .ko.xz or .ko.zst", m.Path)
	}
	out, err := output(exec.Command(unpack, "-qdc", m.Path))
	return []byte(out), err
}
