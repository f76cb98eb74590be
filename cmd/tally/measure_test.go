package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

func init() {
	scriptSetups["measure-snp"] = putImages
	scriptSetups["measure-sev"] = putImages
}

// putImages writes OVMF images of the tests' own making, and VMSAs.
func putImages(t *testing.T, env *testscript.Env) error {
	noMetadata := launchtest.Generic()
	noMetadata.Sections = nil
	for name, data := range map[string][]byte{
		"amdsev.fd":     launchtest.AmdSev().Build(),
		"generic.fd":    launchtest.Generic().Build(),
		"early.fd":      launchtest.Early().Build(),
		"nometadata.fd": noMetadata.Build(),
		"vars.fd":       launchtest.Image{Pages: 4, NoTable: true}.Build(),
		"coconut.igvm":  launchtest.Coconut().Build(),
		"svsm.bin":      launchtest.SVSM().Build(),
		"odd.fd":        make([]byte, 100),
		"kernel":        []byte("kernel"), // without the newline that a script's file ends with
		"initrd":        []byte("initrd"),
		"vmsas.bin":     make([]byte, 2*launch.PageSize),
	} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
