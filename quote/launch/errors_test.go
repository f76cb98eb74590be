package launch_test

import (
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

// What cannot be launched is not measured.
func TestSNPErrors(t *testing.T) {
	ok := func() launch.SNP {
		return launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4}}
	}
	with := func(change func(*launchtest.Image)) func(*launch.SNP) {
		return func(s *launch.SNP) { i := launchtest.AmdSev(); change(&i); s.Firmware = i.Build() }
	}
	for _, c := range []struct {
		name   string
		change func(*launch.SNP)
		want   string
	}{
		{"no processors", func(s *launch.SNP) { s.VCPUs.Count = 0 }, "0 processors, expected 1 to 4096"},
		{"too many processors", func(s *launch.SNP) { s.VCPUs.Count = 4097 }, "4097 processors"},
		{"fewer than none", func(s *launch.SNP) { s.VCPUs.Count = -1 }, "-1 processors"},
		{"unknown VMM", func(s *launch.SNP) { s.VMM = 9 }, "VMM 9 launches no guests from OVMF images, expected one of qemu, ec2, ec2-2023, gce"},
		{"Hyper-V", func(s *launch.SNP) { s.VMM = launch.HyperV }, "hyper-v launches no guests from OVMF images"},
		{"EC2 with a signature", func(s *launch.SNP) { s.VMM = launch.EC2 }, "signature is 0x800f12: ec2 writes a value of its own"},
		{"EC2 with a kernel", func(s *launch.SNP) { s.VMM, s.VCPUs.Signature, s.Kernel = launch.EC2, 0, hashes(t) }, "ec2 hands no kernel to the firmware"},
		{"empty image", func(s *launch.SNP) { s.Firmware = nil }, "the image has 0x0 bytes, expected whole pages"},
		{"part of a page", func(s *launch.SNP) { s.Firmware = s.Firmware[1:] }, "the image has 0xffff bytes, expected whole pages of 0x1000"},
		{"no table", func(s *launch.SNP) { s.Firmware = launchtest.Image{Pages: 4, NoTable: true}.Build() }, "no GUIDed table: offset 0x3fd0"},
		{"no metadata", with(func(i *launchtest.Image) { i.Sections = nil }), "no SEV metadata"},
		{"no reset block", with(func(i *launchtest.Image) { i.Reset = 0 }), "no SEV-ES reset block (00f771de-1a7e-4fcb-890e-68c77e2fb44e)"},
		{"section in the firmware", with(func(i *launchtest.Image) { i.Sections[0].GPA = 0xFFFF8000; i.Sections[0].Size = 0x1000 }), "SNP_SEC_MEM at 0xffff8000 overlaps the firmware, which begins at 0xffff0000"},
		{"kernel without a section", func(s *launch.SNP) {
			i := launchtest.AmdSev()
			i.Sections = i.Sections[:6]
			s.Firmware, s.Kernel = i.Build(), hashes(t)
		}, "no SNP_KERNEL_HASHES section"},
		{"kernel without a place", func(s *launch.SNP) {
			i := launchtest.AmdSev()
			i.Hashes = [2]uint32{}
			s.Firmware, s.Kernel = i.Build(), hashes(t)
		}, "the place for kernel hashes is at 0x0 and has 0 bytes"},
		{"place too small", func(s *launch.SNP) {
			i := launchtest.AmdSev()
			i.Hashes[1] = 175
			s.Firmware, s.Kernel = i.Build(), hashes(t)
		}, "has 175 bytes, expected an address, and 176 bytes"},
		{"place beyond its section", func(s *launch.SNP) {
			i := launchtest.AmdSev()
			i.Hashes[0] = 0x810F51
			s.Firmware, s.Kernel = i.Build(), hashes(t)
		}, "SNP_KERNEL_HASHES at 0x810000 has 0x1000 bytes, and the image's GUIDed table has the kernel hashes at 0x810f51"},
		{"place elsewhere", func(s *launch.SNP) {
			i := launchtest.AmdSev()
			i.Hashes[0] = 0x820C00
			s.Firmware, s.Kernel = i.Build(), hashes(t)
		}, "the kernel hashes at 0x820c00"},
		{"GCE with a place for hashes", func(s *launch.SNP) { s.VMM, s.VCPUs.Signature = launch.GCE, 0 }, "SNP_KERNEL_HASHES at 0x810000: what gce does with it is not known"},
		{"EC2 with an unknown section", func(s *launch.SNP) {
			i := launchtest.Generic()
			i.Sections[4].Type = 5
			s.Firmware, s.VMM, s.VCPUs.Signature = i.Build(), launch.EC2, 0
		}, "section type 0x5 at 0x80f000: what ec2 does with it is not known"},
		{"part of a VMSA", func(s *launch.SNP) { s.VCPUs.Raw = make([]byte, 4095) }, "the VMSAs have 4095 bytes, expected pages of 4096"},
		{"empty VMSAs", func(s *launch.SNP) { s.VCPUs.Raw = []byte{} }, "the VMSAs have 0 bytes"},
		{"one VMSA for two", func(s *launch.SNP) { s.VCPUs.Raw = make([]byte, 4096) }, "one VMSA for 2 processors, expected two at least"},
		{"three VMSAs for two", func(s *launch.SNP) { s.VCPUs.Raw = make([]byte, 3*4096) }, "there are 3 VMSAs for 2 processors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := ok()
			c.change(&s)
			if m, err := s.Measure(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, expected %q", m, err, c.want)
			}
		})
	}
	if _, err := ok().Measure(); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

func TestSEVErrors(t *testing.T) {
	es := func() *launch.VCPUs { return &launch.VCPUs{Count: 2, Signature: epycV4} }
	noReset := launchtest.AmdSev()
	noReset.Reset = 0
	for _, c := range []struct {
		name string
		sev  launch.SEV
		want string
	}{
		{"empty image", launch.SEV{}, "the image has 0x0 bytes"},
		{"kernel without a place", launch.SEV{Firmware: launchtest.Generic().Build(), Kernel: hashes(t)}, "expected an address, and 176 bytes"},
		{"kernel without an entry", launch.SEV{Firmware: launchtest.WithTable(make([]byte, 4096), nil), Kernel: hashes(t)}, "no place for kernel hashes (7255371f-3a3b-4b04-927b-1da6efa8d454)"},
		{"kernel without a table", launch.SEV{Firmware: make([]byte, 4096), Kernel: hashes(t)}, "no GUIDed table"},
		{"short place", launch.SEV{Firmware: launchtest.WithTable(make([]byte, 4096), []launchtest.Entry{{GUID: launchtest.Hashes, Data: make([]byte, 4)}}), Kernel: hashes(t)}, "the place for kernel hashes has 4 bytes, expected 8"},
		{"ES without a table", launch.SEV{Firmware: make([]byte, 4096), VCPUs: es()}, "no GUIDed table"},
		{"ES without a reset block", launch.SEV{Firmware: noReset.Build(), VCPUs: es()}, "no SEV-ES reset block"},
		{"reset at zero", launch.SEV{Firmware: launchtest.WithTable(make([]byte, 4096), []launchtest.Entry{{GUID: launchtest.Reset, Data: make([]byte, 4)}}), VCPUs: es()}, "the SEV-ES reset address is zero"},
		{"short reset block", launch.SEV{Firmware: launchtest.WithTable(make([]byte, 4096), []launchtest.Entry{{GUID: launchtest.Reset, Data: make([]byte, 3)}}), VCPUs: es()}, "the SEV-ES reset address has 3 bytes, expected 4"},
		{"no processors", launch.SEV{Firmware: launchtest.AmdSev().Build(), VCPUs: &launch.VCPUs{Signature: epycV4}}, "0 processors"},
		{"SNPActive", launch.SEV{Firmware: launchtest.AmdSev().Build(), VCPUs: &launch.VCPUs{Count: 1, Signature: epycV4, Features: 1}}, "SNPActive is an SEV-SNP guest's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if m, err := c.sev.Measure(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v, expected %q", m, err, c.want)
			}
		})
	}
}

func TestHashKernelErrors(t *testing.T) {
	broken := errors.New("broken")
	if _, err := launch.HashKernel(iotest.ErrReader(broken), nil, ""); !errors.Is(err, broken) {
		t.Errorf("kernel: %v", err)
	}
	if _, err := launch.HashKernel(strings.NewReader("k"), iotest.ErrReader(broken), ""); !errors.Is(err, broken) {
		t.Errorf("initrd: %v", err)
	}
	if _, err := launch.HashKernel(strings.NewReader(""), nil, ""); err == nil || err.Error() != "the kernel is empty" {
		t.Errorf("empty kernel: %v", err)
	}
	if _, err := launch.HashKernel(strings.NewReader(""), nil, "a\x00b"); err == nil || !strings.Contains(err.Error(), "zero byte") {
		t.Errorf("command line: %v", err)
	}
}
