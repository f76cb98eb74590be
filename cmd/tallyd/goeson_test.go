//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A boot log that cannot be read, and a guard for a device that has none, are told, and
// keep nothing from being measured.
func TestGoesOn(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "sys/kernel/security/tpm0/binary_bios_measurements"), 0o755); err != nil {
		t.Fatal(err)
	}
	started(t, "", nil, "--root", root, "--state", filepath.Join(root, "state"), "--guard", "yes").says(t,
		`msg="boot log" error="boot log: read `, `msg="no guard" reason="no guard for the device memory"`, "msg=answers network=unix")
}
