package launch

import (
	"errors"
	"fmt"
)

// SVSM is an SVSM image, as Coconut's QEMU launched it below OVMF until 2024
// (coconut-svsm/qemu, target/i386/sev.c). Since then an SVSM comes with its
// firmware in one IGVM file: [IGVM].
//
// The image is like an OVMF image, with a GUIDed table at its end, and has its own
// SEV metadata, which are those that count. All processors begin at its entry
// point, in protected mode.
type SVSM struct {
	Image []byte

	// VarsSize is how many bytes the firmware's variables have, a second flash
	// that lies between the SVSM and the firmware.
	VarsSize uint64
}

func (s *SNP) checkSVSM() error {
	switch {
	case s.VMM != QEMU:
		return fmt.Errorf("%s: an SVSM's image is launched by QEMU alone", s.VMM)
	case s.Kernel != nil:
		return errors.New("an SVSM's image has no place for kernel hashes")
	}
	return nil
}

// checkVars reports variables that do not fit below a firmware.
func (s *SVSM) checkVars(firmware uint64) error {
	if s.VarsSize >= firmware || s.VarsSize%PageSize != 0 {
		return fmt.Errorf("the variables have %#x bytes, expected whole pages of %#x below the firmware", s.VarsSize, PageSize)
	}
	return nil
}

// withSVSM measures a guest with an SVSM below the firmware, which begins at an
// address.
func (s *SNP) withSVSM(firmware uint64) (*Measurement, error) {
	image := s.SVSM.Image
	end := firmware - s.SVSM.VarsSize
	gpa, err := imageAddress(image, end)
	if err != nil {
		return nil, err
	}
	table, all, err := svsmTable(image)
	if err != nil {
		return nil, err
	}
	if err := clear(all, "images", gpa, fourGiB); err != nil {
		return nil, err
	}
	var p pages
	p.content("firmware", PageNormal, firmware, s.Firmware)
	p.content("SVSM", PageNormal, gpa, image)
	if err := s.sections(&p, all, table); err != nil {
		return nil, err
	}
	return s.processors(&p, func(fpu bool) (first, other *vmsa, err error) {
		entry, err := svsmEntry(table, gpa, end)
		if err != nil {
			return nil, nil, err
		}
		v := s.VCPUs.svsmStart(entry, fpu)
		return v, v, nil
	})
}

func svsmTable(image []byte) (Table, []Section, error) {
	table, err := ParseTable(image)
	if err != nil {
		return nil, nil, err
	}
	all, err := sections(image, table)
	return table, all, err
}

// svsmEntry is where an SVSM begins that lies between two addresses.
func svsmEntry(table Table, gpa, end uint64) (uint32, error) {
	entry, ok := table.Find(svsmInfoEntry)
	if !ok {
		return 0, fmt.Errorf("the image's GUIDed table has no entry point (%s): it is no SVSM's", svsmInfoEntry)
	}
	offset, err := entry.u32("the entry point")
	if err != nil {
		return 0, err
	}
	if uint64(offset) >= end-gpa {
		return 0, fmt.Errorf("offset %#x: the entry point is at %#x of an image of %#x bytes", entry.Offset, offset, end-gpa)
	}
	return uint32(gpa) + offset, nil
}
