package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"tallystick/quote/launch"
)

// kernelFlags name what QEMU hands to the firmware to boot, with kernel-hashes=on.
type kernelFlags struct{ kernel, initrd, cmdline string }

func (f *kernelFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.kernel, "kernel", "", "the kernel, where QEMU hands it to the firmware and measures it: -kernel with kernel-hashes=on")
	flags.StringVar(&f.initrd, "initrd", "", "the initrd that goes with it: -initrd")
	flags.StringVar(&f.cmdline, "append", "", "the command line that goes with it: -append")
}

// hashes digests the files; nil if no kernel is given.
func (f *kernelFlags) hashes(cmd *cobra.Command) (*launch.KernelHashes, error) {
	if f.kernel == "" {
		if f.initrd != "" || cmd.Flags().Changed("append") {
			return nil, errors.New("--initrd and --append go with --kernel, which is missing")
		}
		return nil, nil
	}
	kernel, err := os.Open(f.kernel)
	if err != nil {
		return nil, err
	}
	defer kernel.Close()
	var initrd io.Reader
	if f.initrd != "" {
		file, err := os.Open(f.initrd)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		initrd = file
	}
	h, err := launch.HashKernel(kernel, initrd, f.cmdline)
	return &h, err
}

// kernelNotes say what went into the table of hashes.
func kernelNotes(h *launch.KernelHashes) []string {
	if h == nil {
		return nil
	}
	return []string{
		fmt.Sprintf("kernel        sha256   %x", h.Kernel),
		fmt.Sprintf("initrd        sha256   %x", h.Initrd),
		fmt.Sprintf("command line  sha256   %x", h.Cmdline),
	}
}
