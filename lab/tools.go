//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"tallystick/lab/setup"
)

// Build builds a program of this module for the guest, static, and returns it.
// The package is named as for go build, from the module's root: "./cmd/tally". The
// tags are build tags.
func Build(t T, pkg string, tags ...string) []byte {
	t.Helper()
	return mustBuild(t, program{pkg: pkg, arch: setup.AMD64, tags: strings.Join(tags, ",")})
}

// BuildTest builds the test program of a package, for guests with that kernel.
func BuildTest(t T, pkg, kernel string, tags ...string) []byte {
	t.Helper()
	return mustBuild(t, program{pkg: pkg, arch: setup.Arch(kernel), tags: strings.Join(tags, ","), test: true})
}

func mustBuild(t T, p program) []byte {
	t.Helper()
	content, err := p.build()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return content
}

// program is one that runs in a guest.
type program struct {
	pkg, arch string
	tags      string
	test      bool // the package's tests
}

// built are the programs that this process has built.
var built = struct {
	sync.Mutex
	programs map[program][]byte
}{programs: map[program][]byte{}}

func (p program) build() ([]byte, error) {
	built.Lock()
	defer built.Unlock()
	if content, ok := built.programs[p]; ok {
		return content, nil
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
	args := []string{"build"}
	if p.test {
		args = []string{"test", "-c"}
	}
	cmd := exec.Command("go", append(args, "-trimpath", "-ldflags=-s -w", "-tags", p.tags, "-o", out, p.pkg)...)
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+p.arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %s %s: %w: %s", args[0], p.pkg, err, text)
	}
	content, err := os.ReadFile(out)
	if err == nil {
		built.programs[p] = content
	}
	return content, err
}
