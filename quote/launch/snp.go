package launch

import (
	"errors"
	"fmt"
	"strings"
)

// SNP is how an SEV-SNP guest is launched.
type SNP struct {
	// Firmware is the OVMF image, whole: what QEMU is given by -bios or as its
	// first flash.
	Firmware []byte

	// Kernel is what the firmware is handed to boot, with kernel-hashes=on; nil
	// for none. QEMU alone does that.
	Kernel *KernelHashes

	VCPUs VCPUs
	VMM   VMM

	// Product tells at which address GCE's VMSAs are measured. With another VMM
	// it is not used.
	Product Product

	// SVSM is what runs beneath the firmware; nil for none.
	SVSM *SVSM
}

// Product is the kind of AMD processor that the host has.
type Product uint8

// The products, and how many bits of physical address their guests have.
const (
	Milan Product = iota // 48
	Genoa                // 52
)

// ParseProduct reads milan or genoa, in upper or lower case.
func ParseProduct(s string) (Product, error) {
	switch strings.ToLower(s) {
	case "milan":
		return Milan, nil
	case "genoa":
		return Genoa, nil
	}
	return 0, fmt.Errorf("unknown product %q, expected milan or genoa", s)
}

// vmsaGPA is the address with which VMSAs are measured: all ones, as far as there
// are bits of address, but for the page's. KVM has 48 everywhere
// (arch/x86/kvm/svm/svm.h, INITIAL_VMSA_GPA); gce-tcb-verifier has as many as the
// product.
const vmsaGPA = 0xFFFFFFFFF000

func (s *SNP) vmsaGPA() uint64 {
	if s.VMM == GCE && s.Product == Genoa {
		return 0xFFFFFFFFFF000
	}
	return vmsaGPA
}

// Measure returns the launch digest, which stands as MEASUREMENT in the attestation
// report of such a guest. Its algorithm is SHA-384.
//
// The error says what is wrong with the image, with the offset in it, or what the
// image cannot be launched with: a *PartError, if it is about the image or about the
// SVSM's. It wraps ErrNoTable where it is no OVMF image.
func (s SNP) Measure() (*Measurement, error) {
	s.VCPUs.Features |= SNPActive
	if err := s.check(); err != nil {
		return nil, err
	}
	gpa, err := imageAddress(s.Firmware, fourGiB)
	if err != nil {
		return nil, &PartError{"firmware", err}
	}
	measure, part := s.withFirmware, "firmware"
	if s.SVSM != nil {
		if err := s.SVSM.checkVars(gpa); err != nil {
			return nil, err
		}
		measure, part = s.withSVSM, "SVSM"
	}
	m, err := measure(gpa)
	if err != nil {
		return nil, &PartError{part, err}
	}
	return m, nil
}

// withFirmware measures a guest whose image begins at an address.
func (s *SNP) withFirmware(gpa uint64) (*Measurement, error) {
	table, err := ParseTable(s.Firmware)
	if err != nil {
		return nil, err
	}
	all, err := sections(s.Firmware, table)
	if err != nil {
		return nil, err
	}
	if err := clear(all, "firmware", gpa, fourGiB); err != nil {
		return nil, err
	}
	var p pages
	p.content("firmware", PageNormal, gpa, s.Firmware)
	if err := s.sections(&p, all, table); err != nil {
		return nil, err
	}
	return s.processors(&p, func(fpu bool) (first, other *vmsa, err error) {
		reset, err := resetAddress(table)
		if err != nil {
			return nil, nil, err
		}
		return s.VCPUs.start(s.VMM, resetVector, fpu), s.VCPUs.start(s.VMM, reset, fpu), nil
	})
}

func (s *SNP) check() error {
	if err := s.VCPUs.check(s.VMM); err != nil {
		return err
	}
	if s.Kernel != nil && s.VMM != QEMU {
		return fmt.Errorf("%s hands no kernel to the firmware: kernel hashes are QEMU's", s.VMM)
	}
	if s.SVSM != nil {
		return s.checkSVSM()
	}
	return nil
}

// clear reports a section in the memory where an image is.
func clear(all []Section, name string, gpa, end uint64) error {
	for _, section := range all {
		if uint64(section.GPA) < end && section.end() > gpa {
			return fmt.Errorf("offset %#x: %s at %#x overlaps the %s, which begins at %#x", section.Offset, section.Type, section.GPA, name, gpa)
		}
	}
	return nil
}

// sections adds the memory that the image names.
func (s *SNP) sections(p *pages, all []Section, table Table) error {
	hashed := false
	for _, section := range all {
		typ, err := s.pageType(section)
		switch {
		case err != nil:
			return err
		case section.Type == SectionKernelHashes && s.Kernel != nil:
			page, err := s.hashesPage(section, table)
			if err != nil {
				return err
			}
			p.content(section.Type.String(), PageNormal, uint64(section.GPA), page)
			hashed = true
		case typ == PageCPUID && s.lateCPUID():
		default:
			p.without(section.Type.String(), typ, uint64(section.GPA), uint64(section.Size))
		}
	}
	for _, section := range all {
		if section.Type == SectionCPUID && s.lateCPUID() {
			p.without(section.Type.String(), PageCPUID, uint64(section.GPA), uint64(section.Size))
		}
	}
	if s.Kernel != nil && !hashed {
		return errNoHashesSection
	}
	return nil
}

// errNoHashesSection is for a guest that QEMU would launch, and whose kernel would
// not be measured.
var errNoHashesSection = errors.New("the image has no SNP_KERNEL_HASHES section: QEMU leaves the kernel's hashes out of an SEV-SNP guest's measurement. The image is not built for measured direct boot (edk2 OvmfPkg/AmdSev)")

func (s *SNP) lateCPUID() bool { return s.VMM == EC2 || s.VMM == EC2Initial }

// pageType is as what kind of page a section is added.
func (s *SNP) pageType(section Section) (PageType, error) {
	switch section.Type {
	case SectionSecrets:
		return PageSecrets, nil
	case SectionCPUID:
		return PageCPUID, nil
	case SectionMemory:
		if s.VMM == GCE {
			return PageUnmeasured, nil
		}
		return PageZero, nil
	case SectionSVSMCAA:
		return PageZero, nil
	case SectionKernelHashes:
		if s.VMM != GCE {
			return PageZero, nil
		}
	default:
		if s.VMM == QEMU {
			return PageZero, nil
		}
	}
	return 0, fmt.Errorf("offset %#x: %s at %#x: what %s does with it is not known", section.Offset, section.Type, section.GPA, s.VMM)
}

// hashesPage is the section with the table of hashes where the image wants it: QEMU
// takes the place within the page from the image's table, and the page from the
// section.
func (s *SNP) hashesPage(section Section, table Table) ([]byte, error) {
	gpa, err := hashesAddress(table)
	if err != nil {
		return nil, err
	}
	at := gpa % PageSize
	if gpa-at != section.GPA || uint64(at)+KernelHashesSize > uint64(section.Size) {
		return nil, fmt.Errorf("offset %#x: %s at %#x has %#x bytes, and the image's GUIDed table has the kernel hashes at %#x", section.Offset, section.Type, section.GPA, section.Size, gpa)
	}
	page := make([]byte, section.Size)
	copy(page[at:], s.Kernel.Table())
	return page, nil
}

// processors adds the VMSAs: those that were given, or the first processor's and
// that of all others, which start makes.
func (s *SNP) processors(p *pages, start func(fpu bool) (first, other *vmsa, err error)) (*Measurement, error) {
	add := func(name string, page []byte) { p.content(name, PageVMSA, s.vmsaGPA(), page) }
	if s.VCPUs.Raw != nil {
		s.VCPUs.rawVMSAs(add)
		return p.measurement(), nil
	}
	byDefault := s.VMM == QEMU && s.SVSM == nil
	first, other, err := start(s.VCPUs.FPU == FPUWritten || s.VCPUs.FPU == FPUDefault && byDefault)
	if err != nil {
		return nil, err
	}
	s.VCPUs.vmsas(first, other, add)
	return p.measurement(), nil
}
