//go:build linux

package guard_test

import (
	"bytes"
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
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 5 {
		t.Errorf("%d files generated, want 2 objects, their Go code, and clang-version", len(files))
	}
	for _, f := range files {
		fresh, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(fresh, committed) {
			t.Errorf("%s is not what the sources give: make generate", f.Name())
		}
	}
}
