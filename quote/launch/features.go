package launch

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// Features are SEV_FEATURES of a VMSA (AMD64 Architecture Programmer's Manual,
// volume 2, table B-4): what of the hardware's protection the guest has switched
// on. KVM sets it for all processors alike.
type Features uint64

// SNPActive is set in every SEV-SNP guest, and in no other.
const SNPActive Features = 1 << 0

// featureNames are the bits, from 0.
var featureNames = []string{
	"SNPActive", "vTOM", "ReflectVC", "RestrictedInjection", "AlternateInjection", "DebugSwap", "PreventHostIBS", "BTBIsolation",
	"VmplSSS", "SecureTSC", "VmgexitParameter", "", "IbsVirtualization", "", "VmsaRegProt", "SmtProtection",
}

// ParseFeatures reads features as a number, decimal or with 0x, or as names that
// are separated by commas: "0x21", "SNPActive,DebugSwap".
func ParseFeatures(s string) (f Features, err error) {
	if n, err := ParseNumber(s, 64); err == nil {
		return Features(n), nil
	}
	for name := range strings.SplitSeq(s, ",") {
		bit := slices.IndexFunc(featureNames, func(known string) bool { return known != "" && strings.EqualFold(known, name) })
		if bit < 0 {
			return 0, fmt.Errorf("unknown feature %q, expected a number, or names of %s", name, strings.Join(slices.DeleteFunc(slices.Clone(featureNames), func(s string) bool { return s == "" }), ", "))
		}
		f |= 1 << bit
	}
	return f, nil
}

// ParseNumber reads a number of so many bits, decimal or with 0x. A leading zero is
// an error: it would be octal elsewhere.
func ParseNumber(s string, bits int) (uint64, error) {
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		return strconv.ParseUint(hex, 16, bits)
	}
	if len(s) > 1 && s[0] == '0' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 10, bits)
}

// String returns the number, and the names of its bits: "0x21 (SNPActive,DebugSwap)".
func (f Features) String() string {
	var names []string
	for rest := uint64(f); rest != 0; rest &= rest - 1 {
		bit := bits.TrailingZeros64(rest)
		name := fmt.Sprintf("bit %d", bit)
		if bit < len(featureNames) && featureNames[bit] != "" {
			name = featureNames[bit]
		}
		names = append(names, name)
	}
	if names == nil {
		return "0x0"
	}
	return fmt.Sprintf("%#x (%s)", uint64(f), strings.Join(names, ","))
}
