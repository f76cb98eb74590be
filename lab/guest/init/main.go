//go:build linux

// Init is the first process of a lab's guest: it loads modules and an IMA
// policy, mounts the root disk, and serves the host's requests over a
// virtio-serial port until it is told to power off.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"tallystick/lab/internal/wire"
)

func main() {
	var problems []string
	try := func(what string, err error) {
		if err != nil {
			problems = append(problems, what+": "+err.Error())
			fmt.Println("init:", what+":", err) // for the console
		}
	}
	fmt.Println(wire.Banner)
	boot, err := readBoot()
	try(wire.BootFile, err)
	mountAll("", try)
	for _, module := range boot.Modules {
		try(module.File, loadModule(module))
	}
	mountLate("", try)
	try("IMA policy", loadPolicy())
	if boot.Root != "" {
		try("root disk", enterRoot(boot.Root, try))
	}
	os.Setenv("PATH", "/lab/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	os.Setenv("HOME", "/root")

	port, err := openPort()
	try("port", err)
	if err == nil {
		err = serve(port, problems)
		try("serve", err)
	}
	powerOff()
}

func readBoot() (boot wire.Boot, err error) {
	text, err := os.ReadFile(wire.BootFile)
	if err != nil {
		return boot, err
	}
	return boot, json.Unmarshal(text, &boot)
}

// powerOff ends the machine. A first process that returned would panic the kernel.
func powerOff() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}
