//go:build linux

// Package lab boots real machines: QEMU, UEFI or SeaBIOS, a software TPM, and
// Debian's kernels, from tests.
//
//	g := lab.Machine{Kernel: "6.12", Policy: lab.TCB}.Start(t)
//	g.Run("cat", "/etc/hosts")
//	list := g.Get("/sys/kernel/security/ima/binary_runtime_measurements")
//
// A [Machine] is a description; Start boots it and returns the [Guest] that
// answers. The test ends it. What booting takes is found or installed by package
// [tallystick/lab/setup]; where that is not possible, Start skips the test with
// a line that says what to install.
//
// The guest's first process is our own (lab/guest/init). It and the host talk
// over a virtio-serial port (lab/internal/wire). Programs run in a root disk with
// busybox, the tool labtpm, and whatever the Machine's Files hold.
package lab
