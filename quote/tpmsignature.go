package quote

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"tallystick/rtmr"
)

// sigScheme is a signing scheme by its TPM_ALG_ID.
type sigScheme uint16

const (
	rsassa sigScheme = 0x0014 // RSASSA-PKCS1-v1_5
	rsapss sigScheme = 0x0016
	ecdsaS sigScheme = 0x0018
)

func (s sigScheme) String() string {
	switch s {
	case rsassa:
		return "rsassa"
	case rsapss:
		return "rsapss"
	case ecdsaS:
		return "ecdsa"
	case 0:
		return "rsassa or rsapss"
	}
	return fmt.Sprintf("scheme 0x%04x", uint16(s))
}

// tpmSignature is a TPMT_SIGNATURE (Part 2 §11.3.4), or what `tpm2_quote -f
// plain` writes: an RSA signature's bytes or an ECDSA signature's DER, which
// say neither scheme nor hash.
type tpmSignature struct {
	scheme sigScheme // 0 in a plain RSA signature
	hash   rtmr.Alg  // 0 in a plain signature
	rsa    []byte
	r, s   *big.Int
}

// parseTPMSignature reads a signature to its last byte.
func parseTPMSignature(data []byte) (*tpmSignature, error) {
	s, err := parseTPMTSignature(data)
	if err == nil {
		return s, nil
	}
	if plain := plainSignature(data); plain != nil {
		return plain, nil
	}
	return nil, fmt.Errorf("TPMT_SIGNATURE: %w", err)
}

func parseTPMTSignature(data []byte) (*tpmSignature, error) {
	b := bigEndian(data)
	s := &tpmSignature{scheme: sigScheme(b.u16("sigAlg"))}
	switch {
	case b.err != nil:
		return nil, b.err
	case s.scheme != rsassa && s.scheme != rsapss && s.scheme != ecdsaS:
		return nil, fmt.Errorf("%w: offset 0: sigAlg: 0x%04x, expected 0x0014 (rsassa), 0x0016 (rsapss) or 0x0018 (ecdsa)", ErrUnsupported, uint16(s.scheme))
	}
	s.hash = rtmr.Alg(b.u16("hash"))
	if s.scheme == ecdsaS {
		s.r = new(big.Int).SetBytes(b.sized("signatureR"))
		s.s = new(big.Int).SetBytes(b.sized("signatureS"))
	} else {
		s.rsa = b.sized("sig")
	}
	if err := b.end("the structure"); err != nil {
		return nil, err
	}
	return s, nil
}

// plainSignature reads a signature without a structure: DER by its form, RSA by
// its length, which is that of a modulus of 1024 bits or a multiple of 512 more.
func plainSignature(data []byte) *tpmSignature {
	var der struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(data, &der); err == nil && len(rest) == 0 {
		return &tpmSignature{scheme: ecdsaS, r: der.R, s: der.S}
	}
	if n := len(data); n >= 128 && n <= maxRSABits/8 && n%64 == 0 {
		return &tpmSignature{rsa: data}
	}
	return nil
}

// schemeHash is the hash of the scheme that signed: the TPM hashes both the
// TPMS_ATTEST and the selected PCRs with it (Part 3 §18.4, TPM2_Quote). It is
// the signature's, or else the key's, or else the one that has pcrDigest's size.
func schemeHash(a *tpmAttest, s *tpmSignature, key *tpmKey) rtmr.Alg {
	if s != nil && s.hash != 0 {
		return s.hash
	}
	if key != nil && key.hash != 0 {
		return key.hash
	}
	for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
		if alg.Size() == len(a.pcrDigest) {
			return alg
		}
	}
	return 0
}

// signatureLink tells whether the key signed the attestation.
func signatureLink(a *tpmAttest, s *tpmSignature, key *tpmKey) Link {
	switch {
	case s == nil:
		return Link{Signature, Missing, "no signature was given (--signature)"}
	case key == nil:
		return Link{Signature, Missing, "no key was given (--key)"}
	}
	hash, scheme := schemeHash(a, s, key), s.scheme
	if scheme == 0 {
		scheme = key.scheme
	}
	if err := checkSignature(a, s, key, hash); err != nil {
		return Link{Signature, Failed, fmt.Sprintf("%s with %s by %s: %s", scheme, hash, key, err)}
	}
	return Link{Signature, Verified, fmt.Sprintf("%s with %s by %s", scheme, hash, key)}
}

// checkSignature verifies a quote's with the hash given. A digest of the PCRs in
// another hash than the signature's no TPM would have signed.
func checkSignature(a *tpmAttest, s *tpmSignature, key *tpmKey, hash rtmr.Alg) error {
	if _, ok := cryptoHash[hash]; ok && len(a.pcrDigest) != hash.Size() {
		return fmt.Errorf("pcrDigest has %d bytes, and the scheme's hash gives %d", len(a.pcrDigest), hash.Size())
	}
	return verifySigned(a.raw, s, key, hash)
}

// verifySigned verifies a signature of a structure with the hash given. Another
// scheme than the key's own no TPM would have signed by.
func verifySigned(raw []byte, s *tpmSignature, key *tpmKey, hash rtmr.Alg) error {
	h, ok := cryptoHash[hash]
	switch {
	case !ok:
		return errors.New("signatures in this hash cannot be verified here")
	case key.scheme != 0 && s.scheme != 0 && key.scheme != s.scheme:
		return fmt.Errorf("the key's own scheme is %s", key.scheme)
	case key.hash != 0 && key.hash != hash:
		return fmt.Errorf("the key's own hash is %s", key.hash)
	}
	digest := hash.AppendHash(nil, raw)
	switch public := key.public.(type) {
	case *rsa.PublicKey:
		return checkRSA(public, h, digest, s, key.scheme)
	case *ecdsa.PublicKey:
		if s.r == nil {
			return errors.New("it is an RSA signature")
		}
		if !ecdsa.Verify(public, digest, s.r, s.s) {
			return errors.New("it does not verify")
		}
		return nil
	}
	return fmt.Errorf("keys of type %T cannot be used here", key.public)
}

// checkRSA verifies a signature by its scheme, or its key's, or by either where
// neither has one. The length of a PSS salt differs from TPM to TPM, and is
// taken as it is.
func checkRSA(public *rsa.PublicKey, h crypto.Hash, digest []byte, s *tpmSignature, keyScheme sigScheme) error {
	if s.rsa == nil {
		return errors.New("it is an ECDSA signature")
	}
	scheme := s.scheme
	if scheme == 0 {
		scheme = keyScheme
	}
	if scheme != rsapss {
		err := rsa.VerifyPKCS1v15(public, h, digest, s.rsa)
		if err == nil {
			return nil
		}
		if scheme == rsassa {
			return notVerified(err)
		}
	}
	err := rsa.VerifyPSS(public, h, digest, s.rsa, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto})
	return notVerified(err)
}

func notVerified(err error) error {
	if errors.Is(err, rsa.ErrVerification) {
		return errors.New("it does not verify")
	}
	return err
}

// cryptoHash are the hashes in which a signature can be verified.
var cryptoHash = map[rtmr.Alg]crypto.Hash{
	rtmr.SHA1:    crypto.SHA1,
	rtmr.SHA256:  crypto.SHA256,
	rtmr.SHA384:  crypto.SHA384,
	rtmr.SHA512:  crypto.SHA512,
	rtmr.SHA3256: crypto.SHA3_256,
	rtmr.SHA3384: crypto.SHA3_384,
	rtmr.SHA3512: crypto.SHA3_512,
}
