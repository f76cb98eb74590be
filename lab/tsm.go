//go:build linux

package lab

import (
	"embed"
	"io/fs"

	"tallystick/lab/setup"
)

// TSMDir is where labtsm has its registers, and where TDX has them.
const TSMDir = "/sys/devices/virtual/misc/tdx_guest/measurements/"

// TSMParams is the folder of labtsm's parameters: "fail", "fail_late", ..
const TSMParams = "/sys/module/labtsm/parameters/"

// TSMModule is labtsm's file in a guest that has it, to be loaded again.
const TSMModule = "/lab/labtsm.ko"

//go:embed labtsm
var labtsm embed.FS

// BuildTSM builds the module labtsm for a kernel, unless it is built, and
// returns its file.
func BuildTSM(k *setup.Kernel) (string, error) {
	source, err := fs.Sub(labtsm, "labtsm")
	if err != nil {
		return "", err
	}
	return k.BuildModule("labtsm", source)
}
