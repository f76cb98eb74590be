//go:build !linux

// Tallyd is the guest helper; it needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tallyd: only on Linux")
	os.Exit(2)
}
