package launch_test

import (
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

// The digests are what sev-snp-measure prints of the same image: 0.0.13 of SEV and
// of SEV-ES with the FPU's registers, 0.0.9 of SEV-ES without.
func TestSEV(t *testing.T) {
	for _, c := range []struct {
		name string
		sev  launch.SEV
		want string
	}{
		{"SEV: SHA-256 of the image", launch.SEV{Firmware: launchtest.AmdSev().Build()},
			"349fef49ae3c70f4c6f9fca2235303dc27fc0ef79f0f21c8ecb077de720dadf5"},
		{"SEV with a kernel", launch.SEV{Firmware: launchtest.AmdSev().Build(), Kernel: hashes(t)},
			"503417e52609bfd4874f5e2a1d32a80f9cf8d4a9aaafcdd48c256d608dd99bb1"},
		{"ES, FPU written", launch.SEV{Firmware: launchtest.AmdSev().Build(), VCPUs: &launch.VCPUs{Count: 1, Signature: epycV4, FPU: launch.FPUWritten}},
			"61c0f3cc8145291a6151b736370af873593982ac23b770816605cd02607a10fd"},
		{"ES with a kernel, FPU written", launch.SEV{Firmware: launchtest.AmdSev().Build(), Kernel: hashes(t), VCPUs: &launch.VCPUs{Count: 4, Signature: epycV4, FPU: launch.FPUWritten}},
			"e781a76e10b46ddedf39f4432b7417f67a59865ecf76316727fe1d8d670045d1"},
		{"ES", launch.SEV{Firmware: launchtest.Early().Build(), VCPUs: &launch.VCPUs{Count: 1, Signature: epycV4}},
			"ca71df53bd37ca13476b3d5698fe45db5522988b386b03605f4119f198ae1e19"},
		{"ES, the others start elsewhere", launch.SEV{Firmware: launchtest.Early().Build(), VCPUs: &launch.VCPUs{Count: 4, Signature: epycV4}},
			"adcd1e76e721fd13f13464188b1cb778471069437ef9ca12e030398c27abd0ec"},
		{"ES, Milan", launch.SEV{Firmware: launchtest.Early().Build(), VCPUs: &launch.VCPUs{Count: 4, Signature: 0xA00F11}},
			"d182d5da28227e46f5863b9ff4ffd70e5df151a0b54cd171edb6c29e216f7fec"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := c.sev.Measure()
			if err != nil {
				t.Fatal(err)
			}
			if m.Digest.String() != c.want || m.Alg.String() != "sha256" {
				t.Errorf("%s %s\nexpected sha256 %s", m.Alg, m.Digest, c.want)
			}
			if last := m.Parts[len(m.Parts)-1]; last.Digest.String() != c.want {
				t.Errorf("the last part, %s, ends with %s", last.Name, last.Digest)
			}
		})
	}
}
