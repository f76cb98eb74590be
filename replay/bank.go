package replay

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// strongest are the banks by the strength of their hash.
var strongest = []rtmr.Alg{rtmr.SHA512, rtmr.SHA3512, rtmr.SHA384, rtmr.SHA3384, rtmr.SHA256, rtmr.SHA3256, rtmr.SM3, rtmr.SHA1}

// NoCommonBankError says that two logs have no digests that can be compared.
type NoCommonBankError struct {
	A, B []rtmr.Alg // the banks of each
	Bank rtmr.Alg   // that was asked for, or 0
}

func (e *NoCommonBankError) Error() string {
	what := "no bank in common"
	if e.Bank != 0 {
		what = fmt.Sprintf("no bank %s in both", e.Bank)
	}
	return fmt.Sprintf("%s: the first log has %s, the second %s", what, bankNames(e.A), bankNames(e.B))
}

func bankNames(algs []rtmr.Alg) string {
	var names []string
	for _, a := range algs {
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}

// commonBank returns the bank asked for, or the strongest in which both
// entries have a digest. SHA-1 padded with zeros, which some kernels extend
// into a bank, counts if there is nothing else: another kernel's digest of the
// same is not equal to it. A log without a measured entry has any bank.
func commonBank(a, b []rtmr.Digest, asked rtmr.Alg) (rtmr.Alg, error) {
	if len(a) == 0 && len(b) == 0 {
		return asked, nil
	}
	candidates := slices.Concat(strongest, banksOf(a), banksOf(b))
	if asked != 0 {
		candidates = []rtmr.Alg{asked}
	}
	padded := rtmr.Alg(0)
	for _, x := range candidates {
		inA, asItself := has(a, x)
		inB, too := has(b, x)
		if inA && inB && (asItself && too || asked != 0) {
			return x, nil
		}
		if inA && inB && padded == 0 {
			padded = x
		}
	}
	if padded == 0 {
		return 0, &NoCommonBankError{banksOf(a), banksOf(b), asked}
	}
	return padded, nil
}

// otherBanks returns the banks beside the one compared in which both entries
// have a digest of its own.
func otherBanks(a, b []rtmr.Digest, compared rtmr.Alg) (out []rtmr.Alg) {
	for _, x := range banksOf(a) {
		_, inA := has(a, x)
		if _, inB := has(b, x); inA && inB && x != compared {
			out = append(out, x)
		}
	}
	return out
}

// has reports whether there is a digest in the bank, and one of its own.
func has(digests []rtmr.Digest, bank rtmr.Alg) (found, asItself bool) {
	if len(digests) == 0 {
		return true, true
	}
	for _, d := range digests {
		if d.Alg == bank {
			return true, !isPaddedSHA1(d.Sum)
		}
	}
	return false, false
}

func isPaddedSHA1(sum []byte) bool {
	n := rtmr.SHA1.Size()
	return len(sum) > n && !allZero(sum[:n]) && allZero(sum[n:])
}

func banksOf(digests []rtmr.Digest) (algs []rtmr.Alg) {
	for _, d := range digests {
		algs = append(algs, d.Alg)
	}
	return algs
}

// strongestDigest returns an entry's digest in its strongest bank; nil if it
// has none, or zeros, which entries that extend nothing have in every bank.
func strongestDigest(m *rtmr.Measurement) []byte {
	for _, x := range strongest {
		for _, d := range m.Digests {
			if d.Alg == x && !allZero(d.Sum) {
				return d.Sum
			}
		}
	}
	return nil
}
