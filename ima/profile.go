package ima

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// Profile is a set of rules by which a kernel is known to deviate from "each
// bank is extended with the template hash in its own algorithm, and with 0xFF
// for a violation". The zero value is a mainline kernel since 5.8 that had
// all its hashes.
type Profile struct {
	// PaddedSHA1 is a kernel before 5.8: every bank is extended with the SHA-1
	// template hash, padded with zeros; a violation is 20 × 0xFF, padded.
	PaddedSHA1 bool
	// PaddedBanks are banks whose hash a later kernel did not have when IMA
	// began (SHA-512 as a module on Debian's 6.1): padded SHA-1 as above, but
	// a violation is 0xFF over the whole digest (ima_queue.c, ima_init_digests).
	PaddedBanks []rtmr.Alg
	// ViolationZero is Intel's out-of-tree IMA-to-RTMR: a violation extends zeros.
	ViolationZero bool
	// RTMRColumn is Intel's too: the list's PCR column holds an RTMR index.
	RTMRColumn bool
}

// ParseProfile reads a comma-separated list of padded-sha1,
// padded-sha1:BANK, violation-zero and rtmr-column, or mainline for the zero
// value.
func ParseProfile(s string) (p Profile, err error) {
	for _, word := range strings.Split(s, ",") {
		bank, isBank := strings.CutPrefix(word, "padded-sha1:")
		switch {
		case word == "mainline" && s == word:
		case word == "padded-sha1":
			p.PaddedSHA1 = true
		case word == "violation-zero":
			p.ViolationZero = true
		case word == "rtmr-column":
			p.RTMRColumn = true
		case isBank:
			alg, err := rtmr.ParseAlg(bank)
			if err != nil {
				return p, err
			}
			p.PaddedBanks = append(p.PaddedBanks, alg)
		default:
			return p, fmt.Errorf("unknown profile %q, expected mainline, padded-sha1, padded-sha1:BANK, violation-zero or rtmr-column", word)
		}
	}
	return p, nil
}

// padded reports whether a bank is extended with padded SHA-1.
func (p *Profile) padded(a rtmr.Alg) bool {
	if p.PaddedSHA1 {
		return a != rtmr.SHA1
	}
	for _, b := range p.PaddedBanks {
		if a == b {
			return true
		}
	}
	return false
}

// fillViolation makes sum what a violation extends.
func (p *Profile) fillViolation(sum []byte) {
	n := len(sum)
	switch {
	case p.ViolationZero:
		n = 0
	case p.PaddedSHA1:
		n = rtmr.SHA1.Size()
	}
	clear(sum)
	for i := range sum[:n] {
		sum[i] = 0xFF
	}
}

// register returns the register that a list's PCR column names; none for a PCR that
// a policy may name and no TPM has.
func (p *Profile) register(column uint32) (rtmr.Register, error) {
	if p.RTMRColumn {
		if r, ok := rtmr.Index(column).RTMR(); ok {
			return r, nil
		}
		return rtmr.Register{}, fmt.Errorf("%d, expected an RTMR index 0 to 3 (profile rtmr-column)", column)
	}
	if r, ok := rtmr.PCR(column).Register(); ok {
		return r, nil
	}
	if column <= MaxColumn {
		return rtmr.Register{}, nil
	}
	return rtmr.Register{}, fmt.Errorf("%d, expected 0 to %d", column, MaxColumn)
}

// extended returns what was extended for an entry into a bank, or nil where
// that is not known. It is made in buf where it is no hash that the entry has.
func (p *Profile) extended(buf []byte, e *Entry, a rtmr.Alg) []byte {
	violation := e.Violation()
	if !violation && !p.padded(a) {
		return e.TemplateHash(a)
	}
	sum := slices.Grow(buf[:0], a.Size())[:a.Size()]
	if violation {
		p.fillViolation(sum)
		return sum
	}
	sha1 := e.TemplateHash(rtmr.SHA1)
	if sha1 == nil {
		return nil
	}
	clear(sum[copy(sum, sha1):])
	return sum
}
