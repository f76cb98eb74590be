package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/quote/launch"
)

// vcpuFlags say how a guest's processors start.
type vcpuFlags struct {
	count                   int
	typ, signature          string
	family, model, stepping uint
	features, fpu           string
	raw                     []string // files
	featuresHelp, countHelp string
}

func (f *vcpuFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.IntVar(&f.count, "vcpus", 0, f.countHelp)
	flags.StringVar(&f.typ, "vcpu-type", "", "QEMU's processor model, with or without its version, such as EPYC-v4: "+strings.Join(launch.CPUModels(), ", "))
	flags.StringVar(&f.signature, "vcpu-sig", "", "the processor's signature in place of --vcpu-type: EAX of CPUID function 1, such as 0x800f12")
	flags.UintVar(&f.family, "vcpu-family", 0, "the processor's family in place of --vcpu-type, such as 25; with --vcpu-model and --vcpu-stepping")
	flags.UintVar(&f.model, "vcpu-model", 0, "the processor's model, such as 1")
	flags.UintVar(&f.stepping, "vcpu-stepping", 0, "the processor's stepping, such as 1")
	flags.StringVar(&f.features, "guest-features", "", f.featuresHelp)
	flags.StringVar(&f.fpu, "fpu", "", "written or zero: whether the host wrote the FPU's reset values into the VMSAs")
	flags.StringArrayVar(&f.raw, "vmsa", nil, "a file with VMSAs, pages of 4096 bytes, in place of those that the processors' flags describe: the first processor's first, and the last is that of all others too. Several are read one after another")
	complete(cmd, "vcpu-type", launch.CPUModels()...)
	complete(cmd, "fpu", "written", "zero")
}

// describing are the flags that --vmsa takes the place of.
var describing = []string{"vcpu-type", "vcpu-sig", "vcpu-family", "vcpu-model", "vcpu-stepping", "guest-features", "fpu"}

// vcpus reads the flags. QEMU alone takes a signature.
func (f *vcpuFlags) vcpus(cmd *cobra.Command, vmm launch.VMM) (c launch.VCPUs, err error) {
	c.Count = f.count
	if len(f.raw) > 0 {
		c.Raw, err = f.rawVMSAs(cmd)
		if !cmd.Flags().Changed("vcpus") {
			c.Count = len(c.Raw) / launch.PageSize
		}
		return c, err
	}
	if f.features != "" {
		if c.Features, err = launch.ParseFeatures(f.features); err != nil {
			return c, fmt.Errorf("--guest-features: %w", err)
		}
	}
	switch f.fpu {
	case "":
	case "written":
		c.FPU = launch.FPUWritten
	case "zero":
		c.FPU = launch.FPUZero
	default:
		return c, fmt.Errorf("--fpu %q, expected written or zero", f.fpu)
	}
	c.Signature, err = f.sig(cmd, vmm)
	return c, err
}

func (f *vcpuFlags) rawVMSAs(cmd *cobra.Command) ([]byte, error) {
	for _, name := range describing {
		if cmd.Flags().Changed(name) {
			return nil, fmt.Errorf("--vmsa has the processors' registers: --%s cannot be given too", name)
		}
	}
	var pages bytes.Buffer
	for _, path := range f.raw {
		data, err := readImage(path)
		if err != nil {
			return nil, err
		}
		if len(data)%launch.PageSize != 0 {
			return nil, fmt.Errorf("%s: %d bytes, expected VMSAs of %d each", path, len(data), launch.PageSize)
		}
		pages.Write(data)
	}
	return pages.Bytes(), nil
}

// sig is the processor's signature, by whichever flag gives it.
func (f *vcpuFlags) sig(cmd *cobra.Command, vmm launch.VMM) (uint32, error) {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	byNumbers := given("vcpu-family") || given("vcpu-model") || given("vcpu-stepping")
	ways := 0
	for _, way := range []bool{f.typ != "", f.signature != "", byNumbers} {
		if way {
			ways++
		}
	}
	switch {
	case vmm != launch.QEMU && ways > 0:
		return 0, fmt.Errorf("--vcpu-type, --vcpu-sig and --vcpu-family are QEMU's: under %s all processors start alike", vmm)
	case vmm != launch.QEMU:
		return 0, nil
	case ways == 0:
		return 0, errors.New("the processor's model is missing: one of --vcpu-type, --vcpu-sig, and --vcpu-family with --vcpu-model and --vcpu-stepping")
	case ways > 1:
		return 0, errors.New("--vcpu-type, --vcpu-sig and --vcpu-family say the same thing, expected one of them")
	case f.typ != "":
		sig, err := launch.ModelSignature(f.typ)
		if err != nil {
			return 0, fmt.Errorf("--vcpu-type: %w; for another processor give --vcpu-sig, EAX of its CPUID function 1", err)
		}
		return sig, nil
	case f.signature != "":
		n, err := launch.ParseNumber(f.signature, 32)
		if err != nil {
			return 0, fmt.Errorf("--vcpu-sig %q, expected a number of 32 bits, such as 0x800f12", f.signature)
		}
		return uint32(n), nil
	case !given("vcpu-family") || !given("vcpu-model") || !given("vcpu-stepping"):
		return 0, errors.New("--vcpu-family, --vcpu-model and --vcpu-stepping go together")
	}
	return launch.Signature(f.family, f.model, f.stepping)
}

// notes say how the processors start.
func (f *vcpuFlags) notes(c *launch.VCPUs, vmm launch.VMM) []string {
	if c.Raw != nil {
		return []string{fmt.Sprintf("VMSAs         %d given, for %d processors", len(c.Raw)/launch.PageSize, c.Count)}
	}
	notes := []string{fmt.Sprintf("features      %s", c.Features)}
	if vmm == launch.QEMU {
		notes = append(notes, fmt.Sprintf("signature     %#x", c.Signature))
	}
	return notes
}
