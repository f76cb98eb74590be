//go:build linux

package lab_test

import (
	"os"
	"testing"

	"tallystick/lab"
)

func TestOwnKernel(t *testing.T) {
	if os.Getenv("LAB_OWN_KERNEL") == "" {
		t.Skip("no lab: LAB_OWN_KERNEL is not set, so no kernel is built")
	}
	g := lab.Machine{Kernel: lab.Own, Firmware: lab.SeaBIOS, Append: lab.TCB}.Start(t)
	t.Log(g.Run("ls", "-l", lab.IMADir))
}
