package launch_test

import (
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

func withSVSM(count int, varsSize uint64) launch.SNP {
	return launch.SNP{
		Firmware: launchtest.Generic().Build(), VCPUs: launch.VCPUs{Count: count, Signature: epycV4},
		SVSM: &launch.SVSM{Image: launchtest.SVSM().Build(), VarsSize: varsSize},
	}
}

// The digests are sev-snp-measure 0.0.9's. (Its versions from 0.0.10 on write
// MXCSR and not FCW, which no host does.)
func TestSVSM(t *testing.T) {
	for _, c := range []struct {
		count int
		vars  uint64
		want  string
	}{
		{1, 0x4000, "89c4db49dba147e3f36cfc75f148a7ab29a6ab30ee1ef4d5c7622e4ebbd1f4d698346792273b7c0fb93ef824f2fb404c"},
		{4, 0x4000, "a7e232d49600d633d465fb8aa7e8c04397e3a8ff5913e71cccb3cde21dcc1a5bd58223d22b4da1b8397f712b99b54192"},
		{1, 0x20000, "877de1677c0ee4280a6d74ce6c4453917b987f175a7b61a8c483f153b0c4768772fb0af2cd1609cce0fc4d42d8c1f7ca"},
		{4, 0x20000, "477e926088bd0c07725c626532bc110c7a962a0ac4f64b1f5245a7857bbef1c9d5554cb7eb5de1f1d04aa675667f4604"},
	} {
		m := first(withSVSM(c.count, c.vars).Measure())
		if m.Digest.String() != c.want {
			t.Errorf("%d processors, variables of %#x bytes: %s\nexpected %s", c.count, c.vars, m.Digest, c.want)
		}
		if p := m.Parts[1]; p.Name != "SVSM" || p.GPA != 0xFFFF0000-c.vars-0x8000 {
			t.Errorf("%+v", p)
		}
	}
}

func TestSVSMErrors(t *testing.T) {
	noEntry := launchtest.SVSM()
	noEntry.Extra = nil
	inside := launchtest.SVSM()
	inside.Sections[0].GPA = 0xFFFE8000
	beyond := launchtest.SVSM()
	beyond.Extra = []launchtest.Entry{{GUID: launchtest.SVSMInfo, Data: []byte{0, 0x80, 0, 0}}}
	short := launchtest.SVSM()
	short.Extra = []launchtest.Entry{{GUID: launchtest.SVSMInfo, Data: []byte{0, 0x80, 0}}}
	noMetadata := launchtest.SVSM()
	noMetadata.Sections = nil
	image := func(i launchtest.Image) func(*launch.SNP) { return func(s *launch.SNP) { s.SVSM.Image = i.Build() } }
	for _, c := range []struct {
		name   string
		change func(*launch.SNP)
		want   string
	}{
		{"EC2", func(s *launch.SNP) { s.VMM, s.VCPUs.Signature = launch.EC2, 0 }, "ec2: an SVSM's image is launched by QEMU alone"},
		{"kernel", func(s *launch.SNP) { s.Kernel = hashes(t) }, "no place for kernel hashes"},
		{"part of a page of variables", func(s *launch.SNP) { s.SVSM.VarsSize = 0x800 }, "the variables have 0x800 bytes, expected whole pages"},
		{"variables below 0", func(s *launch.SNP) { s.SVSM.VarsSize = 1 << 63 }, "the variables have 0x8000000000000000 bytes"},
		{"no room", func(s *launch.SNP) { s.SVSM.VarsSize = 0xFFFEF000 }, "SVSM: the image has 0x8000 bytes, expected 0x1000 at most"},
		{"empty", func(s *launch.SNP) { s.SVSM.Image = nil }, "SVSM: the image has 0x0 bytes"},
		{"no table", image(launchtest.Image{Pages: 1, NoTable: true}), "SVSM: no GUIDed table"},
		{"no metadata", image(noMetadata), "SVSM: the image's GUIDed table has no SEV metadata"},
		{"no entry point", image(noEntry), "SVSM: the image's GUIDed table has no entry point (a789a612-0597-4c4b-a49f-cbb1fe9d1ddd)"},
		{"entry point beyond", image(beyond), "the entry point is at 0x8000 of an image of 0x8000 bytes"},
		{"short entry point", image(short), "the entry point has 3 bytes, expected 4"},
		{"section in the image", image(inside), "SNP_SECRETS at 0xfffe8000 overlaps the images"},
	} {
		s := withSVSM(2, 0)
		c.change(&s)
		if m, err := s.Measure(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, expected %q", c.name, m, err, c.want)
		}
	}
}
