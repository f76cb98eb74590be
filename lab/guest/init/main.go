//go:build linux

// Init is the first process of a lab's guest: it loads modules and an IMA
// policy, mounts the root disk, and serves the host's requests over a
// virtio-serial port until it is told to power off. Where the root disk has a first
// process of its own, it becomes that, which starts "init serve".
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
	if len(os.Args) > 1 && os.Args[1] == "serve" { // another process is the first
		answer(nil, try)
		os.Exit(1)
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
	if boot.Init != "" && len(problems) == 0 {
		try(boot.Init, unix.Exec(boot.Init, []string{boot.Init}, os.Environ()))
	}
	answer(problems, try)
	powerOff()
}

// answer serves the host's requests until it is gone.
func answer(problems []string, try func(string, error)) {
	os.Setenv("PATH", "/lab/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	os.Setenv("HOME", "/root")
	port, err := openPort()
	try("port", err)
	if err == nil {
		try("serve", serve(port, problems))
	}
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
