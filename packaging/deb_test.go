//go:build linux

package packaging_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build builds the package in a folder of the source, and returns its file.
func build(t *testing.T, source, version string, env ...string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.Command(filepath.Join(source, "packaging/build"), out)
	cmd.Env = append(os.Environ(), "VERSION="+version, "SOURCE_DATE_EPOCH=1800000000", "ARCH=amd64")
	cmd.Env = append(cmd.Env, env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("packaging/build: %v\n%s", err, text)
	}
	return filepath.Join(out, "tallystick_"+version+"_amd64.deb")
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// The same source gives the same package, wherever it lies.
func TestReproducible(t *testing.T) {
	elsewhere := t.TempDir()
	run(t, "sh", "-c", `tar -C .. --exclude=./.git -cf - . | tar -C "$1" -xf -`, "sh", elsewhere)
	first, second := build(t, "..", "1.0"), build(t, elsewhere, "1.0")
	if !bytes.Equal(read(t, first), read(t, second)) {
		t.Errorf("%s and %s, built of the same source, differ", first, second)
	}
}

func TestPackage(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no lab: dpkg-deb: not found")
	}
	root := t.TempDir()
	run(t, "dpkg-deb", "-x", build(t, "..", "1.0"), root)
	for _, name := range []string{
		"usr/lib/systemd/system/tallyd.service",
		"usr/lib/systemd/system/tallyd.socket",
		"usr/lib/systemd/system/tallyd-vsock.socket",
		"usr/share/man/man1/tally.1.gz",
		"usr/share/man/man1/tallyd-run.1.gz",
		"usr/share/bash-completion/completions/tallyd",
		"usr/share/fish/vendor_completions.d/tallyd.fish",
		"usr/share/zsh/vendor-completions/_tally",
		"usr/share/doc/tallystick/copyright",
		"usr/share/doc/tallystick/service.md",
		"usr/share/doc/tallystick/examples/guard.conf",
		"etc/default/tallyd",
	} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"tally", "tallyd"} {
		program, err := elf.Open(filepath.Join(root, "usr/bin", name))
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		for _, p := range program.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is not static: it has a segment %s", name, p.Type)
			}
		}
	}
}
