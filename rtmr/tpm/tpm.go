package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tallystick/rtmr"
)

// Device is a TPM 2.0, an rtmr.Device. Its methods may be called from any number
// of goroutines at once, but for Close, and others may use the TPM meanwhile.
type Device struct {
	description rtmr.Description
	resettable  []rtmr.Register

	sending   sync.Mutex // held for one command and its response
	transport transport.TPM

	extending sync.Mutex // held from before a register is read until its extend is settled
}

// New returns the TPM at the other end of a transport, which answers commands
// one after another; place says where it is, for people. Open does so for the
// kernel's devices. If New returns an error, t stays open.
func New(t transport.TPM, place string) (*Device, error) {
	d := &Device{transport: t}
	d.description = rtmr.Description{Kind: "tpm", Name: place}
	if err := d.describe(call{context.Background(), d}); err != nil {
		return nil, fmt.Errorf("TPM at %s: %w", place, explain(err))
	}
	return d, nil
}

// Close lets go of the TPM. Keys that were not closed before stay in a TPM that
// was opened without the kernel's resource manager.
func (d *Device) Close() error {
	if c, ok := d.transport.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Describe is rtmr.Device's. The registers are the PCRs that the TPM keeps, each
// with the banks that keep it, and the name says who made the TPM. One that is
// kept in a bank of an algorithm without a known digest size is not Writable.
func (d *Device) Describe() rtmr.Description { return d.description }

// Resettable returns the registers that anyone can reset, and so make up a value
// for: in a PC's TPM pcr16 and pcr23.
func (d *Device) Resettable() []rtmr.Register { return slices.Clone(d.resettable) }

func (d *Device) describe(c call) error {
	maker, err := maker(c)
	if err != nil {
		return err
	}
	d.description.Name = "TPM 2.0 at " + d.description.Name + ", " + maker
	banks, err := allocation(c)
	if err != nil {
		return fmt.Errorf("PCR allocation: %w", err)
	}
	extend, reset, err := properties(c)
	if err != nil {
		return fmt.Errorf("PCR properties: %w", err)
	}
	for i := range rtmr.NumPCRs {
		register, _ := rtmr.PCR(i).Register()
		info := rtmr.RegisterInfo{Register: register, Writable: selects(extend, i)}
		for _, b := range banks {
			if !selects(b.PCRSelect, i) {
				continue
			}
			a := rtmr.Alg(b.Hash)
			info.Banks = append(info.Banks, a)
			info.Writable = info.Writable && a.Size() > 0
		}
		if len(info.Banks) == 0 {
			continue
		}
		slices.Sort(info.Banks)
		info.Banks = slices.Compact(info.Banks)
		d.description.Registers = append(d.description.Registers, info)
		if selects(reset, i) {
			d.resettable = append(d.resettable, register)
		}
	}
	if len(d.description.Registers) == 0 {
		return &rtmr.NotSupportedError{Feature: "PCR in any bank of the TPM"}
	}
	return nil
}

// selects reads a TPM's bitmap of PCRs: PCR n is bit n%8 of byte n/8 (Part 2,
// "TPMS_PCR_SELECT").
func selects(bitmap []byte, pcr int) bool {
	return pcr/8 < len(bitmap) && bitmap[pcr/8]>>(pcr%8)&1 == 1
}

// allocation returns which PCRs are in which bank. A TPM may list banks that
// have none.
func allocation(c call) ([]tpm2.TPMSPCRSelection, error) {
	const most = 64 // banks, more than there are algorithms
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: most}.Execute(c)
	if err != nil {
		return nil, err
	}
	list, err := r.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, err
	}
	if n := len(list.PCRSelections); n > most {
		return nil, fmt.Errorf("the TPM lists %d banks, expected %d at most", n, most)
	}
	return list.PCRSelections, nil
}

// properties returns the bitmaps of the PCRs that can be extended, and of those
// that can be reset, by a command at locality 0.
func properties(c call) (extend, reset []byte, err error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRProperties, Property: uint32(tpm2.TPMPTPCRExtendL0), PropertyCount: 2}.Execute(c)
	if err != nil {
		return nil, nil, err
	}
	list, err := r.CapabilityData.Data.PCRProperties()
	if err != nil {
		return nil, nil, err
	}
	for _, p := range list.PCRProperty {
		switch p.Tag {
		case tpm2.TPMPTPCRExtendL0:
			extend = p.PCRSelect
		case tpm2.TPMPTPCRResetL0:
			reset = p.PCRSelect
		}
	}
	return extend, reset, nil
}

// maker returns who made the TPM, and its firmware's version.
func maker(c call) (string, error) {
	const count = uint32(tpm2.TPMPTFirmwareVersion2-tpm2.TPMPTFamilyIndicator) + 1
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTFamilyIndicator), PropertyCount: count}.Execute(c)
	if err != nil {
		return "", err
	}
	list, err := r.CapabilityData.Data.TPMProperties()
	if err != nil {
		return "", err
	}
	property := map[tpm2.TPMPT]uint32{}
	for _, p := range list.TPMProperty {
		property[p.Property] = p.Value
	}
	text := func(properties ...tpm2.TPMPT) (s string) {
		for _, p := range properties {
			s += string(binary.BigEndian.AppendUint32(nil, property[p]))
		}
		return strings.Join(strings.Fields(strings.Map(printable, s)), " ")
	}
	made := text(tpm2.TPMPTManufacturer)
	if model := text(tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4); model != "" {
		made += " " + model
	}
	one, two := property[tpm2.TPMPTFirmwareVersion1], property[tpm2.TPMPTFirmwareVersion2]
	return fmt.Sprintf("%s, firmware %d.%d.%d.%d", made, one>>16, one&0xFFFF, two>>16, two&0xFFFF), nil
}

// printable keeps a name on its line: a TPM's texts end in NULs, and come from
// whoever runs it.
func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return -1
	}
	return r
}
