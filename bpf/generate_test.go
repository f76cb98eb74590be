//go:build linux

package bpf_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What is committed is what the sources compile to, where the clang that made
// it is installed.
func TestGenerated(t *testing.T) {
	want, err := os.ReadFile("clang-version")
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command("sh", "-c", "clang --version | head -n 1; test -e /usr/include/bpf/bpf_helpers.h && command -v llvm-strip >&2").Output()
	if err != nil || !bytes.Equal(got, want) {
		t.Skipf("objects not compared: they take libbpf-dev, llvm and %s", bytes.TrimSpace(want))
	}
	dir := t.TempDir()
	if out, err := exec.Command("./generate", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fresh, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		committed, err := os.ReadFile(name)
		if !bytes.Equal(fresh, committed) {
			t.Errorf("%s is not what the sources give: make generate", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files != 4*4+1 {
		t.Errorf("%d files generated, want two objects and their Go code of four sources, and clang-version", files)
	}
}
