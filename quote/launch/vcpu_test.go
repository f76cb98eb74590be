package launch_test

import (
	"strings"
	"testing"

	"tallystick/internal/readertest"
	"tallystick/quote/launch"
)

// The signatures are sev-snp-measure 0.0.13's, of the models that it knows.
func TestModelSignature(t *testing.T) {
	for name, want := range map[string]uint32{
		"EPYC": 0x800F12, "EPYC-v1": 0x800F12, "EPYC-v4": 0x800F12, "EPYC-IBPB": 0x800F12,
		"EPYC-Rome": 0x830F10, "EPYC-Rome-v3": 0x830F10,
		"EPYC-Milan": 0xA00F11, "EPYC-Milan-v2": 0xA00F11,
		"EPYC-Genoa": 0xA10F10, "EPYC-Genoa-v1": 0xA10F10, "EPYC-Turin": 0xB00F00,
	} {
		if got, err := launch.ModelSignature(name); got != want || err != nil {
			t.Errorf("%s: %#x, %v, expected %#x", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"": "unknown processor model", "host": "unknown processor model", "epyc": "unknown processor model",
		"EPYC-v0": "unknown processor model", "EPYC-v6": "EPYC has 5 versions", "EPYC-v04": "unknown processor model",
		"EPYC-IBPB-v1": "EPYC-IBPB has 0 versions", "EPYC-v": "unknown processor model", "EPYC-v+1": "unknown processor model",
		"EPYC-v99999999999999999999": "unknown processor model",
	} {
		if got, err := launch.ModelSignature(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %#x, %v, expected %q", name, got, err, want)
		}
	}
}

// AMD's table of CPUID function 1, EAX: the signatures that processors of these
// families print.
func TestSignature(t *testing.T) {
	for _, c := range []struct {
		family, model, stepping uint
		want                    uint32
	}{
		{23, 1, 2, 0x800F12}, {23, 49, 0, 0x830F10}, {25, 1, 1, 0xA00F11}, {25, 17, 1, 0xA10F11}, {26, 2, 1, 0xB00F21},
		{15, 0, 0, 0xF00}, {6, 0x9E, 9, 0x906E9}, {0, 0, 0, 0}, {270, 255, 15, 0xFFF0FFF},
	} {
		if got, err := launch.Signature(c.family, c.model, c.stepping); got != c.want || err != nil {
			t.Errorf("%d, %d, %d: %#x, %v, expected %#x", c.family, c.model, c.stepping, got, err, c.want)
		}
	}
	for _, c := range [][3]uint{{271, 0, 0}, {0, 256, 0}, {0, 0, 16}, {1 << 40, 0, 0}} {
		if got, err := launch.Signature(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v: %#x, expected an error", c, got)
		}
	}
}

func TestFeatures(t *testing.T) {
	for text, want := range map[string]launch.Features{
		"0": 0, "1": 1, "0x21": 0x21, "SNPActive": 1, "snpactive,DebugSwap": 0x21, "SmtProtection": 1 << 15, "0xFFFFFFFFFFFFFFFF": 1<<64 - 1,
	} {
		if got, err := launch.ParseFeatures(text); got != want || err != nil {
			t.Errorf("%q: %v, %v, expected %#x", text, got, err, uint64(want))
		}
	}
	for _, text := range []string{"", ",", "SNPActive,", "0x10000000000000000", "-1", "SNP", "021", "1_0", "0x", "0b1"} {
		if got, err := launch.ParseFeatures(text); err == nil || !strings.Contains(err.Error(), "unknown feature") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for f, want := range map[launch.Features]string{0: "0x0", 0x21: "0x21 (SNPActive,DebugSwap)", 1<<11 | 1<<63: "0x8000000000000800 (bit 11,bit 63)"} {
		if f.String() != want {
			t.Errorf("%s, expected %s", f, want)
		}
	}
}

func TestParseVMM(t *testing.T) {
	for _, name := range launch.VMMs() {
		if v, err := launch.ParseVMM(strings.ToUpper(name)); v.String() != name || err != nil {
			t.Errorf("%s: %s, %v", name, v, err)
		}
	}
	if _, err := launch.ParseVMM("xen"); err == nil || !strings.Contains(err.Error(), "qemu, ec2, ec2-2023, gce, hyper-v") {
		t.Error(err)
	}
	if p, err := launch.ParseProduct("Genoa"); p != launch.Genoa || err != nil {
		t.Error(p, err)
	}
	if _, err := launch.ParseProduct("rome"); err == nil {
		t.Error("rome has no SEV-SNP")
	}
}

func FuzzWords(f *testing.F) {
	for _, seed := range []string{"EPYC-v4", "host", "0x21", "SNPActive,DebugSwap", "ec2-2023", "milan"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		_, model := launch.ModelSignature(text)
		features, feature := launch.ParseFeatures(text)
		_, vmm := launch.ParseVMM(text)
		_, product := launch.ParseProduct(text)
		for _, err := range []error{model, feature, vmm, product} {
			if err != nil {
				readertest.CheckLine(t, err.Error(), len(text))
			}
		}
		if feature == nil {
			readertest.CheckLine(t, features.String(), 64)
		}
	})
}
