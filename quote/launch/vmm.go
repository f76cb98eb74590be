package launch

import (
	"fmt"
	"strings"
)

// VMM is who launches the guest. They hand the same things to the firmware
// processor in another order, as other kinds of pages, and with other registers.
type VMM uint8

// The hypervisors whose rules are public.
const (
	// QEMU, on KVM: target/i386/sev.c. Sections come in the image's order; one of
	// an unknown type is a zero page. RDX is the signature of the processor model.
	QEMU VMM = iota

	// EC2 adds the CPUID page after all other sections. RDX is 0x600.
	EC2

	// EC2Initial is what EC2 did from 2023, when it began to offer SEV-SNP. RDX is
	// 0. It changed before April 2026 (sev-snp-measure 0.0.13); a guest that was
	// launched before keeps its digest.
	EC2Initial

	// GCE adds memory that the firmware uses early as unmeasured pages, not as
	// zero pages. RDX is 0x600, and the page attribute table (PAT) differs.
	GCE

	// HyperV launches guests from IGVM files alone, and measures what they say in
	// their order.
	HyperV
)

var vmmNames = [...]string{QEMU: "qemu", EC2: "ec2", EC2Initial: "ec2-2023", GCE: "gce", HyperV: "hyper-v"}

// String returns the name that ParseVMM reads.
func (v VMM) String() string {
	if int(v) < len(vmmNames) {
		return vmmNames[v]
	}
	return fmt.Sprintf("VMM %d", uint8(v))
}

// VMMs returns the names that ParseVMM reads.
func VMMs() []string { return vmmNames[:] }

// ParseVMM reads a VMM's name, in upper or lower case.
func ParseVMM(s string) (VMM, error) {
	for v, name := range vmmNames {
		if strings.EqualFold(s, name) {
			return VMM(v), nil
		}
	}
	return 0, fmt.Errorf("unknown hypervisor %q, expected one of %s", s, strings.Join(vmmNames[:], ", "))
}

// launchesOVMF reports a VMM that does not launch guests from an OVMF image.
func (v VMM) launchesOVMF() error {
	if int(v) >= int(HyperV) {
		return fmt.Errorf("%s launches no guests from OVMF images, expected one of %s", v, strings.Join(vmmNames[:HyperV], ", "))
	}
	return nil
}
