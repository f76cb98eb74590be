package launch

import (
	"encoding/binary"
	"fmt"
)

// VCPUs are a guest's processors at their start.
type VCPUs struct {
	// Count is how many there are, 1 to MaxVCPUs.
	Count int

	// Signature is what QEMU writes into RDX: the signature of the processor
	// model. ModelSignature and Signature give it. Other hypervisors write a value
	// of their own, and it has to be 0.
	Signature uint32

	// Features are SEV_FEATURES. SEV-SNP guests have SNPActive whether it is
	// given or not.
	Features Features

	// FPU says whether the FPU's registers are in the VMSA.
	FPU FPU

	// Raw are VMSAs, a page each, in place of those that the other fields
	// describe: as they were dumped, or made by another tool. The first is the
	// first processor's. Where there are fewer than Count, the last stands for
	// the rest too; but one alone stands for one.
	Raw []byte
}

// MaxVCPUs is how many processors KVM gives a guest at most
// (arch/x86/include/asm/kvm_host.h).
const MaxVCPUs = 4096

// FPU says whether the host wrote the FPU's reset values, FCW 0x37F and MXCSR
// 0x1F80, into VMSAs, or left zeros. KVM writes them from Linux 6.10 on, but for
// guests that are set up with KVM_SEV_ES_INIT (arch/x86/kvm/svm/sev.c,
// sev_es_sync_vmsa): QEMU does that for SEV-ES unless it is run with
// legacy-vm-type=off. EC2 and GCE leave zeros.
type FPU uint8

const (
	FPUDefault FPU = iota // written for SEV-SNP under QEMU without an SVSM image, else not
	FPUWritten
	FPUZero // also SEV-SNP on AMD's own kernels before 6.10
)

// Where the processor that starts the guest begins: the architecture's reset
// vector.
const resetVector = 0xFFFFFFF0

// VMSA's fields that are not zero at the start (AMD64 Architecture Programmer's
// Manual, volume 2, table B-4). Integers are little-endian.
const (
	vmsaES   = 0x000 // segments have a selector (le16), attributes (le16), limit (le32) and base (le64)
	vmsaCS   = 0x010
	vmsaSS   = 0x020
	vmsaDS   = 0x030
	vmsaFS   = 0x040
	vmsaGS   = 0x050
	vmsaGDTR = 0x060
	vmsaLDTR = 0x070
	vmsaIDTR = 0x080
	vmsaTR   = 0x090

	vmsaEFER     = 0x0D0 // le64, as the rest
	vmsaCR4      = 0x148
	vmsaCR0      = 0x158
	vmsaDR7      = 0x160
	vmsaDR6      = 0x168
	vmsaRFLAGS   = 0x170
	vmsaRIP      = 0x178
	vmsaGPAT     = 0x268
	vmsaRDX      = 0x310
	vmsaFeatures = 0x3B0
	vmsaXCR0     = 0x3E8
	vmsaMXCSR    = 0x408 // le32
	vmsaFCW      = 0x410 // le16
)

// vmsa is a page with a processor's registers.
type vmsa [PageSize]byte

func (v *vmsa) u64(at int, n uint64) { binary.LittleEndian.PutUint64(v[at:], n) }

func (v *vmsa) segment(at int, selector, attributes uint16, limit uint32, base uint64) {
	binary.LittleEndian.PutUint16(v[at:], selector)
	binary.LittleEndian.PutUint16(v[at+2:], attributes)
	binary.LittleEndian.PutUint32(v[at+4:], limit)
	v.u64(at+8, base)
}

// common are the registers that are the same under all hypervisors: the
// architecture's reset state (APM volume 2, table 14-1), with what KVM adds, EFER's
// SVME and CR4's MCE.
func (v *vmsa) common(features Features, fpu bool) {
	v.segment(vmsaGS, 0, 0x93, 0xFFFF, 0)
	v.segment(vmsaGDTR, 0, 0, 0xFFFF, 0)
	v.segment(vmsaIDTR, 0, 0, 0xFFFF, 0)
	v.segment(vmsaLDTR, 0, 0x82, 0xFFFF, 0)
	v.segment(vmsaTR, 0, 0x8B, 0xFFFF, 0)
	v.u64(vmsaEFER, 0x1000)
	v.u64(vmsaCR4, 0x40)
	v.u64(vmsaCR0, 0x10)
	v.u64(vmsaDR7, 0x400)
	v.u64(vmsaDR6, 0xFFFF0FF0)
	v.u64(vmsaRFLAGS, 2)
	v.u64(vmsaGPAT, 0x0007040600070406)
	v.u64(vmsaXCR0, 1)
	v.u64(vmsaFeatures, uint64(features))
	if fpu {
		binary.LittleEndian.PutUint32(v[vmsaMXCSR:], 0x1F80)
		binary.LittleEndian.PutUint16(v[vmsaFCW:], 0x37F)
	}
}

// start is a processor that starts in real mode at an address whose bits 0 to 15
// are its IP and the others CS's base.
func (c *VCPUs) start(vmm VMM, address uint32, fpu bool) *vmsa {
	v := new(vmsa)
	v.common(c.Features, fpu)
	for _, at := range []int{vmsaES, vmsaSS, vmsaDS, vmsaFS} {
		v.segment(at, 0, 0x93, 0xFFFF, 0)
	}
	code, rdx := uint16(0x9B), uint64(0x600)
	switch vmm {
	case QEMU:
		rdx = uint64(c.Signature)
	case EC2Initial, EC2:
		v.segment(vmsaSS, 0, 0x92, 0xFFFF, 0)
		v.segment(vmsaTR, 0, 0x83, 0xFFFF, 0)
		if address == resetVector {
			code = 0x9A
		}
		if vmm == EC2Initial {
			rdx = 0
		}
	case GCE:
		v.u64(vmsaGPAT, 0x00070106)
	}
	v.segment(vmsaCS, 0xF000, code, 0xFFFF, uint64(address&0xFFFF0000))
	v.u64(vmsaRIP, uint64(address&0xFFFF))
	v.u64(vmsaRDX, rdx)
	return v
}

// svsmStart is a processor that starts in protected mode, as an SVSM wants it.
func (c *VCPUs) svsmStart(address uint32, fpu bool) *vmsa {
	v := new(vmsa)
	v.common(c.Features, fpu)
	for _, at := range []int{vmsaES, vmsaSS, vmsaDS, vmsaFS} {
		v.segment(at, 0x10, 0xC93, 0xFFFFFFFF, 0)
	}
	v.segment(vmsaCS, 0x08, 0xC9B, 0xFFFFFFFF, 0)
	v.u64(vmsaCR0, 0x11)
	v.u64(vmsaRIP, uint64(address))
	v.u64(vmsaRDX, uint64(c.Signature))
	return v
}

// check reports what cannot be.
func (c *VCPUs) check(vmm VMM) error {
	if err := vmm.launchesOVMF(); err != nil {
		return err
	}
	if c.Count < 1 || c.Count > MaxVCPUs {
		return fmt.Errorf("%d processors, expected 1 to %d", c.Count, MaxVCPUs)
	}
	switch pages := len(c.Raw) / PageSize; {
	case c.Raw == nil && vmm != QEMU && c.Signature != 0:
		return fmt.Errorf("the processor's signature is %#x: %s writes a value of its own into VMSAs", c.Signature, vmm)
	case c.Raw == nil:
	case len(c.Raw)%PageSize != 0 || pages == 0:
		return fmt.Errorf("the VMSAs have %d bytes, expected pages of %d", len(c.Raw), PageSize)
	case pages > c.Count:
		return fmt.Errorf("there are %d VMSAs for %d processors", pages, c.Count)
	case pages == 1 && c.Count > 1:
		return fmt.Errorf("one VMSA for %d processors, expected two at least: the first processor starts elsewhere than the others", c.Count)
	}
	return nil
}

// vmsas calls add with the VMSA of each processor, first or all others.
func (c *VCPUs) vmsas(first, other *vmsa, add func(name string, page []byte)) {
	for i := range c.Count {
		page := first[:]
		if i > 0 {
			page = other[:]
		}
		add(fmt.Sprintf("VMSA of vCPU %d", i), page)
	}
}

// rawVMSAs calls add with each processor's VMSA of those that were given.
func (c *VCPUs) rawVMSAs(add func(name string, page []byte)) {
	last := len(c.Raw)/PageSize - 1
	for i := range c.Count {
		at := min(i, last) * PageSize
		add(fmt.Sprintf("VMSA of vCPU %d", i), c.Raw[at:at+PageSize])
	}
}
