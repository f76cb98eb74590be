package rtmr_test

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"tallystick/rtmr"
)

// The separator of a TPM log: PCR 2 of countless machines holds nothing but
// the digest of 00000000, and the values below are published in many a log
// (sha1 b2a83b0e.., sha256 3d458cfe..).
func TestExtend(t *testing.T) {
	for alg, want := range map[rtmr.Alg]string{
		rtmr.SHA1:   "b2a83b0ebf2f8374299a5b2bdfc31ea955ad7236",
		rtmr.SHA256: "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
		rtmr.SHA384: "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4",
	} {
		value := make([]byte, alg.Size())
		alg.Extend(value, alg.AppendHash(nil, make([]byte, 4)))
		if got := hex.EncodeToString(value); got != want {
			t.Errorf("%s: got %s, want %s", alg, got, want)
		}
	}
}

func TestExtendDoesNotAllocate(t *testing.T) {
	for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
		value, digest := make([]byte, alg.Size()), make([]byte, alg.Size())
		if n := testing.AllocsPerRun(100, func() { alg.Extend(value, digest) }); n != 0 {
			t.Errorf("%s: %v allocations", alg, n)
		}
	}
}

func TestResetValue(t *testing.T) {
	for name, want := range map[string]string{"pcr16": "00", "pcr17": "ff", "pcr22": "ff", "pcr23": "00", "rtmr3": "00"} {
		got := rtmr.MustParse(name).ResetValue(rtmr.SHA1)
		if hex.EncodeToString(got) != strings.Repeat(want, 20) {
			t.Errorf("%s: %x", name, got)
		}
	}
}

// UEFI 2.10 §38.4.1, row by row.
func TestUEFIRule(t *testing.T) {
	want := []string{"mrtd", "rtmr0", "rtmr1", "rtmr1", "rtmr1", "rtmr1", "rtmr1", "rtmr0",
		"rtmr2", "rtmr2", "rtmr2", "rtmr2", "rtmr2", "rtmr2", "rtmr2", "rtmr2"}
	for i, w := range want {
		if r, ok := rtmr.PCR(i).CC(); !ok || r.String() != w {
			t.Errorf("pcr%d: %s %v, want %s", i, r, ok, w)
		}
	}
	if r, ok := rtmr.PCR(16).CC(); ok {
		t.Errorf("pcr16 has no rule, got %s", r)
	}
}

func TestParseRegister(t *testing.T) {
	for _, s := range []string{"pcr0", "pcr23", "rtmr0", "rtmr3", "rem0", "rem3", "mrtd", "rim"} {
		if r, err := rtmr.ParseRegister(s); err != nil || r.String() != s {
			t.Errorf("%s: %s %v", s, r, err)
		}
	}
	for _, s := range []string{"", "pcr24", "pcr-1", "pcr07", "rtmr4", "PCR0", "10", "mrtd0", "pcr256"} {
		if r, err := rtmr.ParseRegister(s); err == nil {
			t.Errorf("%q was read as %s", s, r)
		}
	}
}

func TestValuesJSON(t *testing.T) {
	const in = `{"sha1":{"pcr10":"0102030405060708090a0b0c0d0e0f1011121314"}}`
	var v rtmr.Values
	if err := json.Unmarshal([]byte(in), &v); err != nil {
		t.Fatal(err)
	}
	if out, err := json.Marshal(v); err != nil || string(out) != in {
		t.Errorf("%s %v", out, err)
	}
	if err := v.Validate(); err != nil {
		t.Error(err)
	}
	v[rtmr.SHA256] = v[rtmr.SHA1]
	if err := v.Validate(); err == nil {
		t.Error("a 20-byte SHA-256 value was accepted")
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/true":    "/usr/bin/true",
		"a\nb\x1b[31m":     `a\nb\x1b[31m`,
		"\xff\xfe":         `\xff\xfe`,
		"naïve":            "naïve",
		"\u202egnp.exe":    `\u202egnp.exe`,
		`back\slash`:       `back\\slash`,
		"real \uFFFD here": "real \uFFFD here",
	} {
		if got := rtmr.Escape(in); got != want {
			t.Errorf("Escape(%q) = %s, want %s", in, got, want)
		}
	}
}
