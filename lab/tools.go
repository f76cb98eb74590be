//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// Build builds a program of this module for the guest, static, and returns it.
// The package is named as for go build, from the module's root: "./cmd/tally".
func Build(t T, pkg string) []byte {
	t.Helper()
	program, err := build(pkg)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return program
}

// built are the programs that this process has built.
var built = struct {
	sync.Mutex
	programs map[string][]byte
}{programs: map[string][]byte{}}

func build(pkg string) ([]byte, error) {
	built.Lock()
	defer built.Unlock()
	if program, ok := built.programs[pkg]; ok {
		return program, nil
	}
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	dir, err := os.MkdirTemp("", "lab-build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w: %s", pkg, err, text)
	}
	program, err := os.ReadFile(out)
	if err == nil {
		built.programs[pkg] = program
	}
	return program, err
}
