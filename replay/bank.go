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

// commonBank returns the bank asked for, or the strongest that both have. A
// log that measures nothing, with no banks, has whatever the other one has.
func commonBank(a, b []rtmr.Alg, asked rtmr.Alg) (rtmr.Alg, error) {
	has := func(x rtmr.Alg) bool {
		return (len(a) == 0 || slices.Contains(a, x)) && (len(b) == 0 || slices.Contains(b, x))
	}
	if asked != 0 {
		if !has(asked) {
			return 0, &NoCommonBankError{a, b, asked}
		}
		return asked, nil
	}
	if len(a) == 0 && len(b) == 0 {
		return 0, nil
	}
	for _, x := range slices.Concat(strongest, a, b) {
		if has(x) {
			return x, nil
		}
	}
	return 0, &NoCommonBankError{A: a, B: b}
}

func banksOf(m *rtmr.Measurement) (algs []rtmr.Alg) {
	for _, d := range m.Digests {
		algs = append(algs, d.Alg)
	}
	return algs
}

// strongestDigest returns an entry's digest in its strongest bank; nil if it
// has none, or zeros, which entries that extend nothing have in every bank.
func strongestDigest(m *rtmr.Measurement) []byte {
	for _, x := range strongest {
		for _, d := range m.Digests {
			if d.Alg == x && slices.ContainsFunc(d.Sum, func(c byte) bool { return c != 0 }) {
				return d.Sum
			}
		}
	}
	return nil
}
