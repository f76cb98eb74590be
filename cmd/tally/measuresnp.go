package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tallystick/quote/launch"
	"tallystick/rtmr"
)

const measureSNPHelp = `Recompute an SEV-SNP guest's launch digest, which stands as MEASUREMENT in its
attestation report.

It is made of the firmware image, of the memory that the image names, and of the
processors' registers at their start. Hypervisors differ in the order, and in the
registers; --vmm says which it is:

  qemu      with the processor's model (--vcpu-type) in a register. With
            kernel-hashes=on the table of hashes of --kernel, --initrd and --append
            is measured, if the image has a place for it (edk2 OvmfPkg/AmdSev).
  ec2       as guests are launched now; ec2-2023 as they were at first. The image
            is the one that github.com/aws/uefi builds.
  gce       --product says which processor the host has.
  hyper-v   from an IGVM file.

--igvm FILE is for guests that are launched from an IGVM file (Coconut SVSM's), which
says itself what is added; qemu and hyper-v differ in the order. A KVM that does not
know of SVSMs measures the guest's further processors, too, and then the digest is
another one.

--guest-features is SEV_FEATURES of the VMSAs: 0x1, SNPActive, unless the host
switches on more: Linux 6.6 and 6.7 as hosts add DebugSwap, 0x21. Hosts before
Linux 6.10 (AMD's own kernels) left the FPU's registers out: --fpu zero.

It prints JSON that tally reconcile --expect takes; --parts prints what was
measured, in its order, with the launch digest after each part: of two launches
that differ, the first part whose digest differs is the one that changed.

Exit status: 0 measured; 2 input or usage.`

// measureSNPFlags say how an SEV-SNP guest is launched.
type measureSNPFlags struct {
	ovmf, vmm, product   string
	igvm, svsm, varsFile string
	varsSize             uint64
	kernel               kernelFlags
	vcpu                 vcpuFlags
	out                  measureOutput
}

func newMeasureSNP() *cobra.Command {
	f := measureSNPFlags{vcpu: vcpuFlags{
		countHelp:    "how many processors the guest has",
		featuresHelp: "SEV_FEATURES, as a number or as names: 0x21, SNPActive,DebugSwap (by default 0x1)",
	}}
	cmd := &cobra.Command{
		Use:   "snp {--ovmf FILE --vcpus N --vcpu-type MODEL | --igvm FILE}",
		Short: "Recompute an SEV-SNP guest's launch digest",
		Long:  measureSNPHelp,
		Example: `  tally measure snp --ovmf OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-v4 --kernel vmlinuz --initrd initrd.img --append "console=ttyS0"
  tally measure snp --igvm coconut-qemu.igvm --parts
  tally measure snp --ovmf ovmf_img.fd --vcpus 4 --vmm ec2 >launch.json
  tally reconcile --quote report.bin --nonce 00.. --expect launch.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.ovmf, "ovmf", "", "the firmware image, whole: QEMU's -bios, or its first flash")
	flags.StringVar(&f.vmm, "vmm", "qemu", "the hypervisor: "+strings.Join(launch.VMMs(), ", "))
	flags.StringVar(&f.igvm, "igvm", "", "an IGVM file, in place of --ovmf and of what goes with it")
	flags.StringVar(&f.product, "product", "", "the host's processor, on GCE: milan or genoa (by default milan)")
	flags.StringVar(&f.svsm, "svsm", "", "an SVSM's image (svsm.bin), which Coconut's QEMU launched below the firmware; with --vars-size or --vars-file")
	flags.Uint64Var(&f.varsSize, "vars-size", 0, "how many bytes the firmware's variables have, which lie between it and the SVSM")
	flags.StringVar(&f.varsFile, "vars-file", "", "the firmware's variables, in place of --vars-size")
	cmd.MarkFlagsMutuallyExclusive("vars-size", "vars-file")
	complete(cmd, "vmm", launch.VMMs()...)
	complete(cmd, "product", "milan", "genoa")
	f.kernel.register(cmd)
	f.vcpu.register(cmd)
	f.out.register(cmd)
	return cmd
}

func (f *measureSNPFlags) run(cmd *cobra.Command) error {
	if err := checkGivenBut(cmd, "append"); err != nil {
		return err
	}
	if f.igvm != "" {
		return f.runIGVM(cmd)
	}
	s, err := f.guest(cmd)
	if err != nil {
		return err
	}
	m, err := s.Measure()
	if err != nil {
		return namePart(err, map[string]string{"firmware": f.ovmf, "SVSM": f.svsm})
	}
	s.VCPUs.Features |= launch.SNPActive
	notes := append(kernelNotes(s.Kernel), f.vcpu.notes(&s.VCPUs, s.VMM)...)
	return f.out.printLaunch(cmd.OutOrStdout(), m, notes)
}

// runIGVM measures an IGVM file, which says all but who launches the guest.
func (f *measureSNPFlags) runIGVM(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if !slices.Contains([]string{"igvm", "vmm", "parts"}, flag.Name) && err == nil {
			err = fmt.Errorf("--%s: an IGVM file says that itself", flag.Name)
		}
	})
	if err != nil {
		return err
	}
	g := launch.IGVM{}
	if g.VMM, err = launch.ParseVMM(f.vmm); err != nil {
		return fmt.Errorf("--vmm: %w", err)
	}
	if g.File, err = readImage(f.igvm); err != nil {
		return err
	}
	m, err := g.Measure()
	if err != nil {
		return fmt.Errorf("%s: %w", f.igvm, err)
	}
	return f.out.printLaunch(cmd.OutOrStdout(), m, nil)
}

// guest reads the flags, and the files that they name.
func (f *measureSNPFlags) guest(cmd *cobra.Command) (s launch.SNP, err error) {
	if f.ovmf == "" {
		return s, errNoOVMF
	}
	if s.VMM, err = launch.ParseVMM(f.vmm); err != nil {
		return s, fmt.Errorf("--vmm: %w", err)
	}
	if s.VMM == launch.HyperV {
		return s, errors.New("--vmm hyper-v launches guests from IGVM files: --igvm is missing")
	}
	if f.product != "" {
		if s.VMM != launch.GCE {
			return s, errors.New("--product is for --vmm gce: under other hypervisors it makes no difference")
		}
		if s.Product, err = launch.ParseProduct(f.product); err != nil {
			return s, fmt.Errorf("--product: %w", err)
		}
	}
	if s.VCPUs, err = f.vcpu.vcpus(cmd, s.VMM); err != nil {
		return s, err
	}
	if s.Kernel, err = f.kernel.hashes(cmd); err != nil {
		return s, err
	}
	if s.SVSM, err = f.svsmImage(cmd); err != nil {
		return s, err
	}
	s.Firmware, err = readImage(f.ovmf)
	return s, err
}

// svsmImage reads the SVSM's image; nil if none is given.
func (f *measureSNPFlags) svsmImage(cmd *cobra.Command) (s *launch.SVSM, err error) {
	hasSize := cmd.Flags().Changed("vars-size") || f.varsFile != ""
	switch {
	case f.svsm == "" && hasSize:
		return nil, errors.New("--vars-size and --vars-file go with --svsm, which is missing")
	case f.svsm == "":
		return nil, nil
	case !hasSize:
		return nil, errors.New("--svsm goes with --vars-size or --vars-file, which is missing")
	}
	s = &launch.SVSM{VarsSize: f.varsSize}
	if f.varsFile != "" {
		data, err := readImage(f.varsFile)
		if err != nil {
			return nil, err
		}
		s.VarsSize = uint64(len(data))
	}
	s.Image, err = readImage(f.svsm)
	return s, err
}

// errNoOVMF is for a command without the file that it is about.
var errNoOVMF = errors.New("--ovmf is missing: the firmware image that the guest is launched with")

// printLaunch prints a launch digest of AMD's.
func (o *measureOutput) printLaunch(w io.Writer, m *launch.Measurement, notes []string) error {
	rows := make([][]string, len(m.Parts))
	for i, p := range m.Parts {
		content := "-"
		if p.Content != nil {
			content = p.Content.String()
		}
		rows[i] = []string{p.Name, p.Type.String(), fmt.Sprintf("%#x", p.GPA), fmt.Sprintf("%#x", p.Size), content, p.Digest.String()}
	}
	values := rtmr.Values{}
	values.Set(m.Alg, rtmr.Launch, m.Digest)
	return o.print(w, values, []string{"part", "type", "address", "bytes", "sha256 of the content", "launch digest after it"}, rows, notes...)
}
