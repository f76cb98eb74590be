//go:build !windows

package main

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"tallystick/internal/snptest"
)

// amdsevMilan is what sev-snp-measure 0.0.13 prints of the tests' image for direct
// boot with two processors EPYC-Milan.
const amdsevMilan = "309e5494ac6934cf509f9afd7a68030c4c441cfb51ff6e487e5e60b03a5298f0855b37308837b60a7075323306ba18bd"

func init() { scriptSetups["measure-report"] = putReport }

// putReport writes, beside the images, the report of a guest that was launched with
// one of them, by an authority in AMD's place.
func putReport(t *testing.T, env *testscript.Env) error {
	if err := putImages(t, env); err != nil {
		return err
	}
	amd, err := snptest.New()
	if err != nil {
		return err
	}
	measurement, err := hex.DecodeString(amdsevMilan)
	if err != nil {
		return err
	}
	report, err := amd.Report(func(report []byte) { copy(report[0x90:], measurement) })
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"report.bin": report, "vcek.der": amd.Vcek.Raw, "roots.pem": amd.Roots()} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
