//go:build linux

package tdx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
)

// TestExtendShort has the kernel take a part of a digest, which it does of a file
// that has reached the process's limit. The rest must not be written: it would be
// an extend of its own.
func TestExtendShort(t *testing.T) {
	opts := folder(t, map[string]int{"rtmr2:sha384": 48})
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "TDX_TEST=short", "TDX_DIR="+opts.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "true true\n" {
		t.Errorf("%v: %s, expected ErrShort and ErrUnknown", err, out)
	}
	content, err := os.ReadFile(filepath.Join(opts.Dir, "rtmr2:sha384"))
	if want := append(bytes.Repeat([]byte{1}, 20), bytes.Repeat([]byte{0xAB}, 28)...); err != nil || !bytes.Equal(content, want) {
		t.Errorf("%x, %v, expected %x: one write, of 20 bytes", content, err, want)
	}
}

func extendShort(dir string) {
	d, err := tdx.Open(tdx.Options{Dir: dir, Node: filepath.Join(dir, "no-node")})
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 20, Max: 20})
	}
	if err == nil {
		err = d.Extend(context.Background(), rtmr2, digest(1))
	}
	fmt.Println(errors.Is(err, rtmr.ErrShort), errors.Is(err, rtmr.ErrUnknown))
}
