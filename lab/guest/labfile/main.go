//go:build linux

// Labfile does to the guest's files what busybox cannot.
//
//	labfile verity FILE..              turns fs-verity on, with SHA-256
//	labfile xattr NAME HEX FILE        sets an extended attribute
package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labfile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 2 && args[0] == "verity":
		for _, file := range args[1:] {
			if err := enableVerity(file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	case len(args) == 4 && args[0] == "xattr":
		value, err := hex.DecodeString(args[2])
		if err != nil {
			return err
		}
		return unix.Setxattr(args[3], args[1], value, 0)
	}
	return errors.New("usage: labfile verity FILE.. | labfile xattr NAME HEX FILE")
}

// enableVerity is FS_IOC_ENABLE_VERITY (linux/fsverity.h): SHA-256, blocks of 4 KiB.
func enableVerity(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: 4096}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_ENABLE_VERITY, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return errno
	}
	return nil
}
