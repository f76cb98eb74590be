package launch

import (
	"crypto/sha256"
	"fmt"
	"hash"

	"tallystick/rtmr"
)

// SEV is how an SEV or SEV-ES guest is launched by QEMU.
type SEV struct {
	// Firmware is the OVMF image, whole: what QEMU is given by -bios or as its
	// first flash.
	Firmware []byte

	// Kernel is what the firmware is handed to boot, with kernel-hashes=on; nil
	// for none.
	Kernel *KernelHashes

	// VCPUs are an SEV-ES guest's processors; nil for a guest whose policy has
	// not the bit ES, of which no processor is measured.
	VCPUs *VCPUs
}

// Measure returns the launch digest, SHA-256 of all that was encrypted at the
// launch: the image, the table of hashes, and for SEV-ES the VMSAs. The guest's
// launch measurement is an HMAC over it (AMD Secure Encrypted Virtualization API
// 55766, §6.5.1, GCTX.LD).
//
// The error says what is wrong with the image, with the offset in it, or what the
// image cannot be launched with: a *PartError, if it is about the image. It wraps
// ErrNoTable where it is no OVMF image and that matters, which for SEV alone it does
// not.
func (s SEV) Measure() (*Measurement, error) {
	if s.VCPUs != nil {
		if err := s.VCPUs.check(QEMU); err != nil {
			return nil, err
		}
		if s.VCPUs.Features&SNPActive != 0 {
			return nil, fmt.Errorf("features %s: SNPActive is an SEV-SNP guest's", s.VCPUs.Features)
		}
	}
	m, err := s.withFirmware()
	if err != nil {
		return nil, &PartError{"firmware", err}
	}
	return m, nil
}

func (s *SEV) withFirmware() (*Measurement, error) {
	gpa, err := imageAddress(s.Firmware, fourGiB)
	if err != nil {
		return nil, err
	}
	e := encrypted{hash: sha256.New()}
	e.add("firmware", gpa, s.Firmware)
	if s.Kernel == nil && s.VCPUs == nil {
		return e.measurement(), nil
	}
	table, err := parseTable(s.Firmware)
	if err != nil {
		return nil, err
	}
	if s.Kernel != nil {
		gpa, err := hashesAddress(table)
		if err != nil {
			return nil, err
		}
		e.add("kernel hashes", uint64(gpa), s.Kernel.Table())
	}
	if s.VCPUs != nil {
		if err := e.processors(s.VCPUs, table); err != nil {
			return nil, err
		}
	}
	return e.measurement(), nil
}

// encrypted is what was encrypted at the launch, one after another.
type encrypted struct {
	hash  hash.Hash
	parts []Part
}

func (e *encrypted) add(name string, gpa uint64, content []byte) {
	e.hash.Write(content)
	e.parts = append(e.parts, Part{Name: name, GPA: gpa, Size: uint64(len(content)), Content: contentDigest(content), Digest: e.hash.Sum(nil)})
}

// processors adds the VMSAs of an SEV-ES guest.
func (e *encrypted) processors(c *VCPUs, table Table) error {
	add := func(name string, page []byte) { e.add(name, 0, page) }
	if c.Raw != nil {
		c.rawVMSAs(add)
		return nil
	}
	reset, err := resetAddress(table)
	if err != nil {
		return err
	}
	fpu := c.FPU == FPUWritten
	c.vmsas(c.start(QEMU, resetVector, fpu), c.start(QEMU, reset, fpu), add)
	return nil
}

func (e *encrypted) measurement() *Measurement {
	return &Measurement{Alg: rtmr.SHA256, Digest: e.hash.Sum(nil), Parts: e.parts}
}
