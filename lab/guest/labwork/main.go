//go:build linux

// Labwork does in a guest what busybox cannot, so that IMA has something to
// measure.
//
//	labwork xattr FILE NAME HEX    sets an extended attribute
//	labwork verity FILE..          enables fs-verity, SHA-256 and blocks of 4 KiB
//	labwork key NAME FILE          adds an X.509 certificate to the user's keyring
package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errUsage = errors.New("usage: labwork xattr FILE NAME HEX | verity FILE.. | key NAME FILE")

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "labwork:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	what, args := args[0], args[1:]
	switch {
	case what == "xattr" && len(args) == 3:
		value, err := hex.DecodeString(args[2])
		if err != nil {
			return err
		}
		return wrap(args[0], unix.Setxattr(args[0], args[1], value, 0))
	case what == "verity":
		for _, file := range args {
			if err := enableVerity(file); err != nil {
				return wrap(file, err)
			}
		}
		return nil
	case what == "key" && len(args) == 2:
		cert, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		_, err = unix.AddKey("asymmetric", args[0], cert, unix.KEY_SPEC_USER_KEYRING)
		return wrap("add_key", err)
	}
	return errUsage
}

func wrap(what string, err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

// enableVerity makes a file read-only, with a Merkle tree over its content
// (Documentation/filesystems/fsverity.rst, FS_IOC_ENABLE_VERITY).
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
