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

// run says each thing before it is looked for, since some take minutes.
func run() error {
	fmt.Println("lab: programs")
	if err := setup.Host(); err != nil {
		return err
	}
	var newest *setup.Kernel
	for _, series := range setup.Series {
		fmt.Printf("lab: kernel %s: ", series)
		k, err := setup.FindKernel(series)
		if err != nil {
			fmt.Println("none")
			return err
		}
		fmt.Println(k.Release)
		if _, err := setup.Busybox(k.Arch); err != nil {
			return err
		}
		newest = k
	}
	fmt.Println("lab: boot loaders")
	if _, err := setup.FindLoaders(); err != nil {
		return err
	}
	fmt.Println("lab: Debian's root")
	if _, err := setup.FindDebian("trixie"); err != nil {
		return err
	}
	fmt.Println("lab: module labtsm")
	_, err := lab.BuildTSM(newest)
	return err
}
