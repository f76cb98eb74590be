package launch_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"tallystick/quote/launch"
)

// debianImages are OVMF images of Debian's packages, by their SHA-256, with what
// sev-snp-measure 0.0.13 prints of them: SEV-SNP with two processors EPYC-Milan,
// the same with the kernel of hashes, EC2 with four processors, SEV-ES with
// EPYC-Milan and the FPU written, SEV with the kernel. Where one is missing QEMU
// does not launch the image so: it has no SEV metadata, or no place for hashes.
var debianImages = map[string]struct {
	of                        string
	snp, kernel, ec2, es, sev string
}{
	"d9b568def24088c92f34b5479e0ed7e44d0a4d4cea8a0f5716719180bba48106": {of: "OVMF_CODE.fd of ovmf 2022.11-6+deb12u2",
		snp: "28c4e315b19983455da14071e8cdceafc703248eae74ba4cbedf5985aab9aa359bd37f2cd0775fa00dbc40193c4e6c79",
		ec2: "49389a8455e93dfa5b5c986ee06e64d1eafa21dcf6ba39b55eb65687c4f5e1e8aa9aa3ef7c16217ffaf47ac6a40b421b",
		es:  "218d999a2674f28c2d87266aec52d6fcc577111e1a6b903fef433d0c1c5f7ad3",
	},
	"7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773": {of: "OVMF.fd of ovmf 2022.11-6+deb12u2",
		snp: "a175292a4a09fcfb760c5bd80c93ed667dbaafce6247d0f21fc06638658b3ebf2804d3019e2abed05cb6a9efe0a7464e",
		ec2: "247ad4ffd2aa671f172a61d8fc73337c2b3489dae4e53a8d9dd2d96d3b71b35ab008b3581c496f99810fe72bfd84d5ac",
		es:  "e0adde7468e70028fce4c0150878129230f27fdba89f9db65682f82819b70763",
	},
	"b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c": {of: "OVMF_CODE_4M.fd of ovmf 2022.11-6+deb12u2",
		es: "39ffae5ea4624d0b5fec8d9318342f3da4d25ea5946264e142732157e188d92d",
	},
	"624e06de18b4fa535e90db7160d00d3d07d206422b89999bf1e27d920264e4e0": {of: "OVMF_CODE_4M.fd of ovmf 2025.02-8+deb13u1",
		snp: "a90b3c49c3372fc237f7c63d0b0c4b751f11f9df9760c7ec070c035c66a9c22f2e927491a9a4893076d325d5cb23e81f",
		ec2: "ca0d88eaec36b622bae61f481cb76deffd26d85348797450aba3221636164a68e82e52bde390aa6fad17fd1470649729",
		es:  "1e9d3bf7c7dd57547d4713c53c6d2f1b7696f5f423ba1153889ac1f9620a3273",
	},
	"14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db": {of: "OVMF.fd of ovmf 2025.02-8+deb13u1",
		snp: "b55b618cb48696814dc1d65d8be960d7c8916bf06dd0139fbc0e5a3d1ebd678c647af7abfb7da5ab1815054bf00ab69e",
		ec2: "3ac79bc9d4dd638a47ab9891cf157812cc3a4110aa0a32bcc50ee06d70b9d084f21b9bd4e8c93b07f03c7f1f2adc241c",
		es:  "7713c7cf6227273d7d586349b50f0d72f08804e9a6b31da1b29869d570f888c5",
	},
	"3e4fd0b3fe3b2dbe481c3d9e99418a034174f26cbe1f55aa212b0f18c12d2d6f": {of: "OVMF.amdsev.fd of ovmf-amdsev 2026.08+ds-2",
		snp:    "54a8c0dd731ffacb4980b3bf926adcbfef705146fdf443ca2a03c3104610a8add28b31c86df235618a610a94797f056d",
		kernel: "7d1e3a4fe4fd82574da441caa08b9a6aed3412b7e44231be8d762b971245c20c7450b29e9d2b51f343310853fa13634f",
		ec2:    "ef749be5d91ef69e32ba3aa64147faee140fbf0d2491dc68d514d785c601ac9031797cab53bff3fcd29421d6797adfc5",
		es:     "3f7b1dce8aaf2cf6704d89f726f95784dc9f47469269cfcfb6bda4043f03849a",
		sev:    "053a5681374c48d9fd3ef2279e4c5cc372c50b06050ef58ca0ea697a4fed0b90",
	},
}

// TestDebianImages measures what of Debian's images is installed, or was unpacked
// for the lab's machines.
func TestDebianImages(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	compared := 0
	for _, root := range []string{"/", filepath.Join(cache, "tallystick/lab/ovmf")} {
		for _, pattern := range []string{"usr/share/OVMF/OVMF_CODE*.fd", "usr/share/ovmf/OVMF*.fd"} {
			paths, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range paths {
				if debianImage(t, path) {
					compared++
				}
			}
		}
	}
	t.Logf("%d images compared", compared)
}

func debianImage(t *testing.T, path string) (known bool) {
	firmware, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(firmware)
	image, known := debianImages[hex.EncodeToString(sum[:])]
	if !known {
		t.Logf("%s: another image than those whose digests are known", path)
		return false
	}
	const milan = 0xA00F11
	for _, c := range []struct {
		what    string
		measure func() (*launch.Measurement, error)
		want    string
	}{
		{"SEV-SNP", launch.SNP{Firmware: firmware, VCPUs: launch.VCPUs{Count: 2, Signature: milan}}.Measure, image.snp},
		{"SEV-SNP with a kernel", launch.SNP{Firmware: firmware, Kernel: hashes(t), VCPUs: launch.VCPUs{Count: 2, Signature: milan}}.Measure, image.kernel},
		{"EC2", launch.SNP{Firmware: firmware, VMM: launch.EC2, VCPUs: launch.VCPUs{Count: 4}}.Measure, image.ec2},
		{"SEV-ES", launch.SEV{Firmware: firmware, VCPUs: &launch.VCPUs{Count: 2, Signature: milan, FPU: launch.FPUWritten}}.Measure, image.es},
		{"SEV with a kernel", launch.SEV{Firmware: firmware, Kernel: hashes(t)}.Measure, image.sev},
	} {
		m, err := c.measure()
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%s, %s: %s, expected an error", image.of, c.what, m.Digest)
		case c.want != "" && err != nil:
			t.Errorf("%s, %s: %v", image.of, c.what, err)
		case c.want != "" && m.Digest.String() != c.want:
			t.Errorf("%s, %s: %s\nexpected %s", image.of, c.what, m.Digest, c.want)
		}
	}
	return true
}
