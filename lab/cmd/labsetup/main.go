//go:build linux

// Labsetup finds or installs what the lab boots machines with, as make lab. A
// second run downloads nothing.
package main

import (
	"flag"
	"fmt"
	"os"

	"tallystick/lab"
	"tallystick/lab/setup"
)

func main() {
	ifPossible := flag.Bool("if-possible", false, "exit 0 where something cannot be had: the lab's tests then skip")
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		if !*ifPossible {
			os.Exit(1)
		}
	}
}

func run() error {
	if err := setup.Host(); err != nil {
		return err
	}
	var newest *setup.Kernel
	for _, series := range setup.Series {
		k, err := setup.FindKernel(series)
		if err != nil {
			return err
		}
		fmt.Printf("lab: kernel %s: %s\n", series, k.Release)
		newest = k
	}
	if _, err := setup.FindLoaders(); err != nil {
		return err
	}
	_, err := lab.BuildTSM(newest)
	return err
}
