package launch_test

import (
	"strings"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

const epycV4 = 0x800F12

// hashes are those of a kernel "kernel", an initrd "initrd" and a command line.
func hashes(t *testing.T) *launch.KernelHashes {
	h, err := launch.HashKernel(strings.NewReader("kernel"), strings.NewReader("initrd"), "console=ttyS0")
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

// The digests are what sev-snp-measure 0.0.13 prints of the same image, except
// where the case names another tool.
func TestSNP(t *testing.T) {
	kernelAlone, err := launch.HashKernel(strings.NewReader("kernel"), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		snp  launch.SNP
		want string
	}{
		{"one processor", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 1, Signature: epycV4}},
			"765dfb40f18c6bb7a46095c34535de71f3fafc23f478c83347f3c0fe10700c715b6259698118af8c39bb1a5b07f5cc3a"},
		{"the others start elsewhere", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 4, Signature: epycV4}},
			"a02d2c9e759ae493feab0c078cbc00ffc767dd2d2bcf515a89bd12812c37b0178ade5cd6a7686ee20358394e237eff09"},
		{"240 processors", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 240, Signature: epycV4}},
			"7f3b37fbede3165833cab8c821de5a43bbfbdb4ffb3f58e7ecc376bce029614c8f1611a68cdb071ccd6ae1c99d08ba8e"},
		{"Milan", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: 0xA00F11}},
			"309e5494ac6934cf509f9afd7a68030c4c441cfb51ff6e487e5e60b03a5298f0855b37308837b60a7075323306ba18bd"},
		{"Turin", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: 0xB00F00}},
			"3beb18b3c1b913270a2c72a15e8d1ad8ae10e549d1bf5a1dc4175998e054e8d76eed92eeba7e49c684c62c9fee4880aa"},
		{"features", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4, Features: 0x21}},
			"34be607a32cf9ee1bae8fe0a9880e1eecd38486c7ec7372094d497d7a3b34c19604ea7c0bf3e7588f6d272c96a1a5c2a"},
		{"SNPActive is set anyway", launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4, Features: 0x20}},
			"34be607a32cf9ee1bae8fe0a9880e1eecd38486c7ec7372094d497d7a3b34c19604ea7c0bf3e7588f6d272c96a1a5c2a"},
		{"kernel, initrd, command line", launch.SNP{Firmware: launchtest.AmdSev().Build(), Kernel: hashes(t), VCPUs: launch.VCPUs{Count: 1, Signature: epycV4}},
			"79576786004ea2c957a112a83fdbadc334aac00bb70da9d48409b23efdb0319b449bf8f212b49086315510da20dac8b7"},
		{"kernel alone", launch.SNP{Firmware: launchtest.AmdSev().Build(), Kernel: &kernelAlone, VCPUs: launch.VCPUs{Count: 1, Signature: epycV4}},
			"3ce910fa6c34905a4a6037614a9e3caeb42e5f06c971f87c1eec2a925de4d0958b6d158f10137a61bfa311b105693b61"},
		{"image without a place for hashes", launch.SNP{Firmware: launchtest.Generic().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4}},
			"23579ce0c30c184518f9af125e8e9722d247b603e94d7bb92c85489dfd3e5dc28e689e831b810011d8a327fd9713cb28"},
		{"FPU not written, sev-snp-measure 0.0.9", launch.SNP{Firmware: launchtest.Early().Build(), VCPUs: launch.VCPUs{Count: 2, Signature: epycV4, FPU: launch.FPUZero}},
			"ec2251d41dbae1b4be8075e8829100c71afa0b91de878aaa985dcb9dd4dd5476eec0b9745b794daa924f0a06845e6fca"},
		{"EC2", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.EC2, VCPUs: launch.VCPUs{Count: 1}},
			"0dff566401fd5e5ce8a41d4cb4b129a608fe8202ffe4bb7507856691d4a93d59e5bb3df8d2486d0dfa1dfb4b9634c85f"},
		{"EC2, four processors", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.EC2, VCPUs: launch.VCPUs{Count: 4}},
			"5efa98e6aee6f3172c165783932547b67e34f7c6a6008a555651c6f37eb1cb9675495ff94f8dc246ef460166f5448b24"},
		{"EC2 of 2023, sev-snp-measure 0.0.12", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.EC2Initial, VCPUs: launch.VCPUs{Count: 4}},
			"42a8b6371dac2ba68e34e0d835f0591c0f77d12deda1ed3e73cdd0000ea289cfaaac0f5d98eb26700bfabbb74a322d68"},
		{"GCE, gce-tcb-verifier too", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.GCE, VCPUs: launch.VCPUs{Count: 1}},
			"42db524696a24d29c8af5f1ead37680ef4d2db201abd599f8a2fe1aecd5a0f2a546ef94704ec2aa450275add441b14c0"},
		{"GCE, four processors, gce-tcb-verifier too", launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.GCE, VCPUs: launch.VCPUs{Count: 4}},
			"848d8607566ca1c4fa1104ca2631d19f4c881464e65521dc4945b0d8d929e6d67a5b13560d27fad680c96c5b5cb0eab4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := c.snp.Measure()
			if err != nil {
				t.Fatal(err)
			}
			if m.Digest.String() != c.want || m.Alg.String() != "sha384" {
				t.Errorf("%s %s\nexpected sha384 %s", m.Alg, m.Digest, c.want)
			}
			if last := m.Parts[len(m.Parts)-1]; last.Digest.String() != c.want {
				t.Errorf("the last part, %s, ends with %s", last.Name, last.Digest)
			}
		})
	}
}

// GCE measures VMSAs at an address that depends on the processor. The digests are
// gce-tcb-verifier's.
func TestSNPOnGenoa(t *testing.T) {
	for count, want := range map[int]string{
		1: "938efe15f5999779e49f7214257180ecc4dd46663609b8094de5bdf5faa1fd66b618e02b54e7e263557f7185efd17697",
		4: "0354e80fdfd96d129ea9f541600e5fb9419925339e7a491260bbdf283c01be9e84640eec09bf4ac732abda45213bfa2e",
	} {
		m, err := launch.SNP{Firmware: launchtest.Generic().Build(), VMM: launch.GCE, Product: launch.Genoa, VCPUs: launch.VCPUs{Count: count}}.Measure()
		if err != nil {
			t.Fatal(err)
		}
		if m.Digest.String() != want {
			t.Errorf("%d processors: %s\nexpected %s", count, m.Digest, want)
		}
	}
}
