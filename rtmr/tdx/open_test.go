//go:build linux

package tdx_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
)

// folder makes a folder of register files, which are of use for reading alone:
// what extends is a kernel.
func folder(t *testing.T, files map[string]int) tdx.Options {
	t.Helper()
	dir := t.TempDir()
	for name, size := range files {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{0xAB}, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return tdx.Options{Dir: dir, Node: filepath.Join(dir, "no-node")}
}

func TestOpenNotSupported(t *testing.T) {
	tests := map[string]tdx.Options{
		"no folder":                    {Dir: filepath.Join(t.TempDir(), "none")},
		"a file":                       {Dir: os.Args[0]},
		"no file":                      folder(t, nil),
		"no run-time register":         folder(t, map[string]int{"mrtd:sha384": 48}),
		"registers of another machine": folder(t, map[string]int{"pcr0:sha384": 48, "rem0:sha384": 48, "rim:sha384": 48}),
		"registers of another hash":    folder(t, map[string]int{"rtmr0:sha256": 32, "rtmr1:sha512": 64}),
	}
	if _, err := os.Stat(tdx.DefaultDir); err != nil {
		tests["this machine"] = tdx.Options{}
	}
	for name, opts := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := tdx.Open(opts)
			var missing *rtmr.NotSupportedError
			if !errors.As(err, &missing) || !errors.Is(err, rtmr.ErrNotSupported) || missing.Err == nil {
				t.Errorf("%v, expected a NotSupportedError with a cause", err)
			}
		})
	}
}

func TestOpenNames(t *testing.T) {
	opts := folder(t, map[string]int{
		"rtmr3:sha384": 48, "rtmr0:sha384": 48, "mrtd:sha384": 48,
		"rtmr4:sha384": 48, "rtmr00:sha384": 48, "RTMR1:sha384": 48, "rtmr1:SHA384": 48, "rtmr1:sha384:": 48, "rtmr1": 48, ":sha384": 48,
		"rtmr1:sha256": 32, "mrowner": 48, "pcr1:sha384": 48, "rem1:sha384": 48,
	})
	if err := os.Chmod(filepath.Join(opts.Dir, "rtmr0:sha384"), 0o444); err != nil {
		t.Fatal(err)
	}
	d, err := tdx.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	const want = "[{mrtd [sha384] false} {rtmr0 [sha384] false} {rtmr3 [sha384] true}]"
	if got := fmt.Sprint(d.Describe().Registers); got != want {
		t.Errorf("%s, expected %s", got, want)
	}
	values, err := d.Read(t.Context())
	if err != nil || len(values) != 1 || len(values[rtmr.SHA384]) != 3 {
		t.Errorf("%v, %v", values, err)
	}
}

func TestOpenSizes(t *testing.T) {
	for size, short := range map[int]bool{0: true, 47: true, 49: false, 4096: false} {
		_, err := tdx.Open(folder(t, map[string]int{"rtmr0:sha384": size}))
		if err == nil || errors.Is(err, rtmr.ErrShort) != short {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
