package quote

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/veraison/go-cose"

	"tallystick/rtmr"
)

// CCASigned is a COSE_Sign1 message (RFC 9052 §4.2).
type CCASigned struct {
	Algorithm int64    // header alg, as the message has it: -35 is ES384
	KeyID     rtmr.Hex // header kid, nil where there is none
	Protected rtmr.Hex // the protected headers, as they are signed
	Payload   rtmr.Hex // as it is signed
	Sig       rtmr.Hex // the signature; ECDSA's is r ‖ s

	wrapped bool // the payload is bytes in which the claims are
	der     bool // an ECDSA signature may be in DER, as virtCCA's firmware writes it
}

// The COSE headers that are read (RFC 9052 §3.1).
const (
	coseAlg      = 1
	coseCritical = 2
	coseContent  = 3
	coseKeyID    = 4

	coseSign1 = 18 // the tag
)

// parse reads the message that r has and nothing else, and returns its payload's
// reader, which has the error of what came before.
func (s *CCASigned) parse(r *cborReader, name string) *cborReader {
	if initial, ok := r.peek(); ok && initial>>5 == cborTag {
		at := r.off
		if tag := r.tag(name); r.err == nil && tag != coseSign1 {
			r.fail(at, name, "tag %d, expected %d (COSE_Sign1)", tag, coseSign1)
		}
	}
	at := r.off
	if n := r.array(name); r.err == nil && n != 4 {
		r.fail(at, name, "an array of %d items, expected 4 (COSE_Sign1)", n)
	}
	s.parseHeaders(r, name)
	payload := r.nested(name + "'s payload")
	s.Payload = payload.data
	s.Sig = r.bytes(name + "'s signature")
	payload.err = r.end("the " + name)
	if initial, ok := payload.peek(); ok && initial>>5 == cborBytes {
		s.wrapped = true
		inner := payload.nested(name + "'s payload")
		inner.err = payload.end("the bytes in the payload")
		return inner
	}
	return payload
}

// parseHeaders reads both maps of headers. What signs has to be said in the one
// that is signed; a header in both is an error, and one that has to be understood
// is not.
func (s *CCASigned) parseHeaders(r *cborReader, name string) {
	protected := r.nested(name + "'s protected headers")
	s.Protected = protected.data
	seen := map[int64]bool{}
	header := func(r *cborReader, unprotected bool) func(label int64) bool {
		return func(label int64) bool {
			at := r.off
			if seen[label] {
				r.fail(at, name+"'s headers", "label %d comes twice", label)
			}
			seen[label] = true
			switch label {
			case coseAlg:
				if unprotected {
					r.fail(at, name+"'s alg", "in the unprotected headers, expected in the protected ones")
				}
				s.Algorithm = r.int(name + "'s alg")
			case coseCritical:
				r.fail(at, name+"'s crit", "headers that have to be understood, expected none")
			case coseKeyID:
				s.KeyID = r.bytes(name + "'s kid")
			default:
				return false
			}
			return true
		}
	}
	protected.each(name+"'s protected headers", header(protected, false))
	r.err = protected.end("the protected headers")
	r.each(name+"'s unprotected headers", header(r, true))
	if r.err == nil && s.Algorithm == 0 {
		r.fail(r.off, name+"'s alg", "none in the protected headers")
	}
}

// coseScheme is a signature algorithm, and the curve that it goes with.
type coseScheme struct {
	name  string
	alg   cose.Algorithm
	curve elliptic.Curve // nil for RSA
}

// coseSchemes are those of RFC 9053 §2.1 and RFC 8230, and of RFC 9864, whose names
// say the curve too. The first three go with one curve each in the tokens' profiles.
var coseSchemes = map[int64]coseScheme{
	-7: {"ES256", cose.AlgorithmES256, elliptic.P256()}, -9: {"ESP256", cose.AlgorithmES256, elliptic.P256()},
	-35: {"ES384", cose.AlgorithmES384, elliptic.P384()}, -51: {"ESP384", cose.AlgorithmES384, elliptic.P384()},
	-36: {"ES512", cose.AlgorithmES512, elliptic.P521()}, -52: {"ESP512", cose.AlgorithmES512, elliptic.P521()},
	-37: {"PS256", cose.AlgorithmPS256, nil}, -38: {"PS384", cose.AlgorithmPS384, nil}, -39: {"PS512", cose.AlgorithmPS512, nil},
}

func (s *CCASigned) algorithm() string {
	if scheme, ok := coseSchemes[s.Algorithm]; ok {
		return scheme.name
	}
	return fmt.Sprintf("alg %d", s.Algorithm)
}

// verify checks the message's signature. The algorithm has to fit the key.
func (s *CCASigned) verify(key crypto.PublicKey) error {
	scheme, ok := coseSchemes[s.Algorithm]
	if !ok {
		return fmt.Errorf("alg %d, expected ES256, ES384, ES512, PS256, PS384 or PS512", s.Algorithm)
	}
	if err := scheme.fits(key); err != nil {
		return err
	}
	verifier, err := cose.NewVerifier(scheme.alg, key)
	if err != nil {
		return errors.New(rtmr.Escape(err.Error()))
	}
	if verifier.Verify(s.toBeSigned(), s.rawSignature(scheme)) != nil {
		return fmt.Errorf("the %s signature does not verify", scheme.name)
	}
	return nil
}

func (c coseScheme) fits(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if c.curve != k.Curve {
			return fmt.Errorf("%s does not go with a key on %s", c.name, k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if c.curve != nil {
			return fmt.Errorf("%s does not go with an RSA key", c.name)
		}
	default:
		return fmt.Errorf("%s does not go with a key of type %T", c.name, key)
	}
	return nil
}

// toBeSigned is the Sig_structure (RFC 9052 §4.4): an array of the context,
// the protected headers, no external data, and the payload.
func (s *CCASigned) toBeSigned() []byte {
	const context = "Signature1"
	out := append([]byte{0x84, 0x60 | byte(len(context))}, context...)
	out = appendCBORBytes(out, s.Protected)
	out = appendCBORBytes(out, nil)
	return appendCBORBytes(out, s.Payload)
}

// appendCBORBytes appends a byte string, its length in the shortest form.
func appendCBORBytes(out, b []byte) []byte {
	switch n := len(b); {
	case n < 24:
		out = append(out, 0x40|byte(n))
	case n < 1<<8:
		out = append(out, 0x58, byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x59), uint16(n))
	default:
		out = binary.BigEndian.AppendUint32(append(out, 0x5A), uint32(n))
	}
	return append(out, b...)
}

// rawSignature returns r ‖ s of a signature in DER too, where that may be
// (openEuler's virtCCA SDK, token_validate.c).
func (s *CCASigned) rawSignature(scheme coseScheme) []byte {
	if scheme.curve == nil || !s.der {
		return s.Sig
	}
	var sig struct{ R, S *big.Int }
	size := (scheme.curve.Params().BitSize + 7) / 8
	if rest, err := asn1.Unmarshal(s.Sig, &sig); err != nil || len(rest) > 0 || sig.R.Sign() < 0 || sig.S.Sign() < 0 ||
		sig.R.BitLen() > 8*size || sig.S.BitLen() > 8*size {
		return s.Sig
	}
	raw := make([]byte, 2*size)
	sig.R.FillBytes(raw[:size])
	sig.S.FillBytes(raw[size:])
	return raw
}
