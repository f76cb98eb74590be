package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"tallystick/quote/launch"
)

const measureSEVHelp = `Recompute the launch digest of an SEV or SEV-ES guest under QEMU. The guest's
launch measurement is an HMAC over it.

It is SHA-256 of all that QEMU encrypts at the launch: the firmware image; with
kernel-hashes=on the table of hashes of --kernel, --initrd and --append, if the
image has a place for it (edk2 OvmfPkg/AmdSev); and of an SEV-ES guest, whose
policy has bit 2, the processors' registers at their start. --vcpus, or --vmsa,
says that the guest is one.

--guest-features is SEV_FEATURES of the VMSAs, 0 unless the host switches on more:
Linux 6.6 and 6.7 as hosts add DebugSwap, 0x20. --fpu written is for QEMU's
legacy-vm-type=off, by which the FPU's registers are measured too.

It prints JSON that tally reconcile --expect takes; --parts prints what was
measured, in its order, with the launch digest after each part.

Exit status: 0 measured; 2 input or usage.`

// measureSEVFlags say how an SEV or SEV-ES guest is launched.
type measureSEVFlags struct {
	ovmf   string
	kernel kernelFlags
	vcpu   vcpuFlags
	out    measureOutput
}

func newMeasureSEV() *cobra.Command {
	f := measureSEVFlags{vcpu: vcpuFlags{
		countHelp:    "SEV-ES: how many processors the guest has",
		featuresHelp: "SEV-ES: SEV_FEATURES, as a number or as names: 0x20, DebugSwap (by default 0)",
	}}
	cmd := &cobra.Command{
		Use:   "sev --ovmf FILE [--vcpus N --vcpu-type MODEL]",
		Short: "Recompute an SEV or SEV-ES guest's launch digest",
		Long:  measureSEVHelp,
		Example: `  tally measure sev --ovmf OVMF.amdsev.fd --kernel vmlinuz --initrd initrd.img --append "console=ttyS0"
  tally measure sev --ovmf OVMF.fd --vcpus 4 --vcpu-type EPYC-Milan
  tally measure sev --ovmf OVMF.fd --vmsa cpu0.bin --vmsa cpu1.bin --vcpus 4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	cmd.Flags().StringVar(&f.ovmf, "ovmf", "", "the firmware image, whole: QEMU's -bios, or its first flash")
	f.kernel.register(cmd)
	f.vcpu.register(cmd)
	f.out.register(cmd)
	return cmd
}

func (f *measureSEVFlags) run(cmd *cobra.Command) error {
	if err := checkGivenBut(cmd, "append"); err != nil {
		return err
	}
	s, err := f.guest(cmd)
	if err != nil {
		return err
	}
	m, err := s.Measure()
	if err != nil {
		return namePart(err, map[string]string{"firmware": f.ovmf})
	}
	notes := kernelNotes(s.Kernel)
	if s.VCPUs != nil {
		notes = append(notes, f.vcpu.notes(s.VCPUs, launch.QEMU)...)
	}
	return f.out.printLaunch(cmd.OutOrStdout(), m, notes)
}

// guest reads the flags, and the files that they name.
func (f *measureSEVFlags) guest(cmd *cobra.Command) (s launch.SEV, err error) {
	if f.ovmf == "" {
		return s, errNoOVMF
	}
	if cmd.Flags().Changed("vcpus") || len(f.vcpu.raw) > 0 {
		vcpus, err := f.vcpu.vcpus(cmd, launch.QEMU)
		if err != nil {
			return s, err
		}
		s.VCPUs = &vcpus
	} else if err := f.vcpu.unused(cmd); err != nil {
		return s, err
	}
	if s.Kernel, err = f.kernel.hashes(cmd); err != nil {
		return s, err
	}
	s.Firmware, err = readImage(f.ovmf)
	return s, err
}

// unused refuses flags that say something of processors which are not measured.
func (f *vcpuFlags) unused(cmd *cobra.Command) error {
	for _, name := range describing {
		if cmd.Flags().Changed(name) {
			return fmt.Errorf("--%s is for an SEV-ES guest: --vcpus is missing", name)
		}
	}
	return nil
}
