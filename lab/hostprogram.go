//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"tallystick/lab/setup"
)

// HostProgram returns a program of the host's for a Machine's Files, with the
// libraries that it loads: each at its own path. It skips the test where
// there is no lab.
func HostProgram(t T, name string) map[string][]byte {
	t.Helper()
	files, err := hostProgram(name)
	var missing *setup.MissingError
	if errors.As(err, &missing) {
		t.Skipf("no lab: %v", missing)
	}
	if err != nil {
		t.Fatalf("lab: %s: %v", name, err)
	}
	return files
}

func hostProgram(name string) (map[string][]byte, error) {
	if err := setup.Host(); err != nil {
		return nil, err
	}
	program, err := setup.Program(name)
	if err != nil {
		return nil, err
	}
	return withLibraries(program)
}

// withLibraries returns a program, its libraries and its loader, as ldd lists
// them: "libc.so.6 => /lib/../libc.so.6 (0x..)", "/lib64/ld-linux-x86-64.so.2 (0x..)".
func withLibraries(program string) (map[string][]byte, error) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd: %w", err)
	}
	paths := []string{program}
	for _, field := range strings.Fields(string(out)) {
		if strings.HasPrefix(field, "/") {
			paths = append(paths, field)
		}
	}
	files := make(map[string][]byte)
	for _, path := range paths {
		if files[path], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return files, nil
}
