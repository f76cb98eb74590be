package rtmr

import "fmt"

// Selected is one register in one bank, as a quote selects it.
type Selected struct {
	Alg      Alg
	Register Register
}

// String returns "sha256:pcr10".
func (s Selected) String() string { return s.Alg.String() + ":" + s.Register.String() }

// Composite is one digest over many registers' values, which is what a TPM
// signs in place of them: the hash over the selected values, bank by bank in
// the selection's own order, and within a bank by rising index (TPM 2.0 Part 3
// §18.4 TPM2_Quote, Part 2 §10.12.1 TPMS_QUOTE_INFO).
type Composite struct {
	Selection []Selected // in the order in which the values are hashed
	Digest    Digest     // its algorithm is the signing scheme's, not a bank's
}

// Of hashes the selected values. It is an error if one is missing, has another
// size than its bank's digests, or if the composite's algorithm cannot be computed.
func (c Composite) Of(values Values) ([]byte, error) {
	if !c.Digest.Alg.Available() {
		return nil, fmt.Errorf("a digest in %s cannot be computed here", c.Digest.Alg)
	}
	h := c.Digest.Alg.New()
	for _, s := range c.Selection {
		value, ok := values[s.Alg][s.Register]
		if !ok {
			return nil, fmt.Errorf("no value of %s, which the quote selects", s)
		}
		if size := s.Alg.Size(); size != 0 && len(value) != size {
			return nil, fmt.Errorf("%s has %d bytes, expected %d", s, len(value), size)
		}
		h.Write(value)
	}
	return h.Sum(nil), nil
}
