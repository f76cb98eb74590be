package launch_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

// The parts come in the order in which each hypervisor adds them.
func TestParts(t *testing.T) {
	names := func(s launch.SNP) string {
		s.VCPUs.Count = 2
		var b strings.Builder
		for _, p := range first(s.Measure()).Parts {
			fmt.Fprintf(&b, "%s %s %#x %#x\n", p.Name, p.Type, p.GPA, p.Size)
		}
		return b.String()
	}
	const processors = "VMSA of vCPU 0 vmsa 0xfffffffff000 0x1000\nVMSA of vCPU 1 vmsa 0xfffffffff000 0x1000\n"
	for _, c := range []struct {
		name string
		snp  launch.SNP
		want string
	}{
		{"QEMU", launch.SNP{Firmware: launchtest.AmdSev().Build(), Kernel: hashes(t)}, `firmware normal 0xffff0000 0x10000
SNP_SEC_MEM zero 0x800000 0x9000
SNP_SEC_MEM zero 0x80a000 0x3000
SNP_SECRETS secrets 0x80d000 0x1000
CPUID cpuid 0x80e000 0x1000
SVSM_CAA zero 0x80f000 0x1000
SNP_SEC_MEM zero 0x811000 0xf000
SNP_KERNEL_HASHES normal 0x810000 0x1000
` + processors},
		{"EC2", launch.SNP{Firmware: launchtest.AmdSev().Build(), VMM: launch.EC2}, `firmware normal 0xffff0000 0x10000
SNP_SEC_MEM zero 0x800000 0x9000
SNP_SEC_MEM zero 0x80a000 0x3000
SNP_SECRETS secrets 0x80d000 0x1000
SVSM_CAA zero 0x80f000 0x1000
SNP_SEC_MEM zero 0x811000 0xf000
SNP_KERNEL_HASHES zero 0x810000 0x1000
CPUID cpuid 0x80e000 0x1000
` + processors},
		{"GCE", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.GCE}, `firmware normal 0xffff0000 0x10000
SNP_SEC_MEM unmeasured 0x800000 0x9000
SNP_SEC_MEM unmeasured 0x80a000 0x3000
SNP_SECRETS secrets 0x80d000 0x1000
CPUID cpuid 0x80e000 0x1000
SVSM_CAA zero 0x80f000 0x1000
SNP_SEC_MEM unmeasured 0x811000 0xf000
` + processors},
	} {
		if got := names(c.snp); got != c.want {
			t.Errorf("%s:\n%s\nexpected\n%s", c.name, got, c.want)
		}
	}
	if got := launch.PageType(7).String(); got != "type 7" {
		t.Error(got)
	}
}

// Whatever of what is measured changes, the digest does, and the parts before it
// keep theirs.
func TestPartsTellWhatChanged(t *testing.T) {
	base := func() launch.SNP {
		return launch.SNP{Firmware: launchtest.AmdSev().Build(), Kernel: hashes(t), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4}}
	}
	image := func(change func(*launchtest.Image)) func(*launch.SNP) {
		return func(s *launch.SNP) {
			i := launchtest.AmdSev()
			change(&i)
			s.Firmware = append(s.Firmware[:0], i.Build()...)
		}
	}
	want := first(base().Measure())
	for _, c := range []struct {
		name   string
		change func(*launch.SNP)
		part   int // the first whose digest differs
	}{
		{"a byte of the image", func(s *launch.SNP) { s.Firmware[4097]++ }, 0},
		{"the image's size", image(func(i *launchtest.Image) { i.Pages++ }), 0},
		{"the kernel", func(s *launch.SNP) { s.Kernel.Kernel[31]++ }, 7},
		{"the initrd", func(s *launch.SNP) { s.Kernel.Initrd[0]++ }, 7},
		{"the command line", func(s *launch.SNP) { s.Kernel.Cmdline[0]++ }, 7},
		{"no kernel", func(s *launch.SNP) { s.Kernel = nil }, 7},
		{"the processor", func(s *launch.SNP) { s.VCPUs.Signature++ }, 8},
		{"the features", func(s *launch.SNP) { s.VCPUs.Features = 0x21 }, 8},
		{"the FPU", func(s *launch.SNP) { s.VCPUs.FPU = launch.FPUZero }, 8},
	} {
		s := base()
		c.change(&s)
		m := first(s.Measure())
		if m.Digest.String() == want.Digest.String() {
			t.Errorf("%s: the digest is the same", c.name)
		}
		for i := range m.Parts {
			if same := m.Parts[i].Digest.String() == want.Parts[i].Digest.String(); same != (i < c.part) {
				t.Errorf("%s: the digest after part %d, %s, is the same: %t", c.name, i, m.Parts[i].Name, same)
				break
			}
		}
	}
	one, two := base(), base()
	two.VCPUs.Count = 3
	a, b := first(one.Measure()), first(two.Measure())
	if len(b.Parts) != len(a.Parts)+1 || b.Parts[9].Digest.String() != a.Digest.String() {
		t.Error("another processor is not added at the end")
	}
	sum := sha256.Sum256(base().Firmware)
	if want.Parts[0].Content.String() != fmt.Sprintf("%x", sum) || want.Parts[1].Content != nil {
		t.Error("the contents' digests are others")
	}
}

// FuzzMeasure: no image makes a measurement panic, and what is measured has parts
// in proportion.
func FuzzMeasure(f *testing.F) {
	small := func(i launchtest.Image) []byte { i.Pages = 1; return i.Build() }
	f.Add(small(launchtest.AmdSev()), uint8(0), 2)
	f.Add(small(launchtest.Generic()), uint8(1), 1)
	f.Add(small(launchtest.Early()), uint8(3), 3)
	kernel := launch.KernelHashes{}
	f.Fuzz(func(t *testing.T, firmware []byte, vmm uint8, count int) {
		count = min(count, 8)
		s := launch.SNP{Firmware: firmware, VMM: launch.VMM(vmm), VCPUs: launch.VCPUs{Count: count}}
		if vmm == 0 {
			s.Kernel = &kernel
		}
		sections, _ := launch.ParseSections(firmware)
		var memory uint64
		for _, section := range sections {
			memory += uint64(section.Size)
		}
		if memory > 64<<20 {
			return // no fault, but long
		}
		if m, err := s.Measure(); err == nil && (len(m.Parts) != 1+len(sections)+count || len(m.Digest) != 48) {
			t.Errorf("%d parts of %d sections", len(m.Parts), len(sections))
		}
		for _, vcpus := range []*launch.VCPUs{nil, {Count: count}, {Count: count, Raw: firmware}} {
			for _, k := range []*launch.KernelHashes{nil, &kernel} {
				if m, err := (launch.SEV{Firmware: firmware, Kernel: k, VCPUs: vcpus}).Measure(); err == nil && len(m.Digest) != 32 {
					t.Error("a digest of another size")
				}
			}
		}
	})
}
