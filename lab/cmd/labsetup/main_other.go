//go:build !linux

package main

import (
	"fmt"
	"os"
	"slices"
)

func main() {
	fmt.Fprintln(os.Stderr, "lab: only on Linux; the lab's tests are left out")
	if !slices.Contains(os.Args[1:], "-if-possible") {
		os.Exit(1)
	}
}
