package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of jwsAlgs
	_ "crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"tallystick/rtmr"
)

// jws is a signed token in the compact serialization of RFC 7515 §3.1, read and
// not verified.
type jws struct {
	alg, kid  string
	header    claims
	claims    map[string]any
	signed    []byte // what the signature is over: header, a dot and payload as they were sent
	signature []byte
}

// jwsEncoding is base64url without padding, and with nothing in the last bits that
// is not read: a token has one spelling.
var jwsEncoding = base64.RawURLEncoding.Strict()

// parseJWS reads a token, alone or as the services' interfaces answer with it:
// {"token":"..."}. White space around it is skipped.
func parseJWS(data []byte) (*jws, error) {
	data = bytes.TrimSpace(data)
	if isJSONObject(data) {
		answer, err := parseClaims(data)
		if err != nil {
			return nil, err
		}
		token, ok := answer["token"].(string)
		if !ok {
			return nil, errors.New(`a JSON object without the string "token", expected a token or a service's answer with one`)
		}
		data = []byte(token)
	}
	parts := bytes.Split(data, []byte("."))
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: %d parts with dots between them, expected 3: header, payload, signature", ErrUnsupported, len(parts))
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		if decoded[i], err = jwsEncoding.AppendDecode(nil, parts[i]); err != nil || bytes.ContainsAny(parts[i], "\r\n") {
			return nil, fmt.Errorf("%s: not in base64url without padding", name)
		}
	}
	t := &jws{signature: decoded[2], signed: data[:len(parts[0])+1+len(parts[1])]}
	header, err := parseClaims(decoded[0])
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	t.header = newClaims(header)
	t.header.path = "header"
	if t.claims, err = parseClaims(decoded[1]); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	t.kid, _ = t.header.text("kid")
	var ok bool
	if t.alg, ok = t.header.text("alg"); !ok {
		t.header.fail("alg", "missing, expected the algorithm that signed")
	}
	return t, *t.header.err
}

// jwsAlg is a signature algorithm of RFC 7518 §3, RFC 8037 or RFC 9864.
type jwsAlg struct {
	hash  crypto.Hash    // 0 for EdDSA
	curve elliptic.Curve // of ECDSA
	pss   bool           // RSASSA-PSS; RSASSA-PKCS1-v1_5 if not
}

// jwsAlgs are the algorithms with a public key. There is none without a signature,
// and none with a shared secret: a public key that was taken for one would let
// everybody sign (RFC 8725 §2.1).
var jwsAlgs = map[string]jwsAlg{
	"ES256": {hash: crypto.SHA256, curve: elliptic.P256()},
	"ES384": {hash: crypto.SHA384, curve: elliptic.P384()},
	"ES512": {hash: crypto.SHA512, curve: elliptic.P521()},
	"PS256": {hash: crypto.SHA256, pss: true},
	"PS384": {hash: crypto.SHA384, pss: true},
	"PS512": {hash: crypto.SHA512, pss: true},
	"RS256": {hash: crypto.SHA256},
	"RS384": {hash: crypto.SHA384},
	"RS512": {hash: crypto.SHA512},

	"EdDSA":   {},
	"Ed25519": {},
}

// jwsAlgOf looks an algorithm up, and says of one that is not there what it is.
func jwsAlgOf(name string) (jwsAlg, error) {
	alg, ok := jwsAlgs[name]
	switch {
	case ok:
		return alg, nil
	case strings.EqualFold(name, "none"):
		return alg, errors.New("alg none: the token is not signed")
	case strings.HasPrefix(name, "HS"):
		return alg, fmt.Errorf("alg %s: by a secret that both sides know, and a public key is none", quoted(name))
	}
	return alg, fmt.Errorf("alg %s cannot be verified here, expected ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512 or EdDSA", quoted(name))
}

// fits reports whether a key is one that the algorithm is for.
func (a jwsAlg) fits(public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return a.curve != nil && k.Curve == a.curve
	case *rsa.PublicKey:
		return a.curve == nil && a.hash != 0
	case ed25519.PublicKey:
		return a.hash == 0
	}
	return false
}

// verify checks the token's signature by a key that was chosen for it.
func (t *jws) verify(key *resultKey) error {
	alg, err := jwsAlgOf(t.alg)
	switch {
	case err != nil:
		return err
	case t.header.has("crit"):
		return errors.New("the header has extensions that have to be understood (crit), and are not")
	case t.header.has("b64"):
		return errors.New("the header says how the payload is encoded (b64), which is not read")
	case key.alg != "" && key.alg != t.alg:
		return fmt.Errorf("the token's alg is %s, and the key is for %s", quoted(t.alg), quoted(key.alg))
	case !alg.fits(key.public):
		return fmt.Errorf("the token's alg is %s, and the key is %s", quoted(t.alg), key)
	}
	if !alg.verifies(key.public, t.signed, t.signature) {
		return errors.New("it does not verify")
	}
	return nil
}

func (a jwsAlg) verifies(public crypto.PublicKey, signed, signature []byte) bool {
	digest := signed
	if a.hash != 0 {
		h := a.hash.New()
		h.Write(signed)
		digest = h.Sum(nil)
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		n := curveBytes(k.Curve)
		if len(signature) != 2*n {
			return false
		}
		r, s := new(big.Int).SetBytes(signature[:n]), new(big.Int).SetBytes(signature[n:])
		return ecdsa.Verify(k, digest, r, s)
	case *rsa.PublicKey:
		if a.pss {
			return rsa.VerifyPSS(k, a.hash, digest, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(k, a.hash, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, signed, signature)
	}
	return false
}

// curveBytes is the size of a coordinate, and of r and s.
func curveBytes(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

// signatureLink tells whether one of the keys signed the token.
func (t *jws) signatureLink(keys []resultKey) Link {
	if len(keys) == 0 {
		return Link{Signature, Missing, "no key of the verifier's was given (--ear-key), and none is fetched"}
	}
	key, err := t.choose(keys)
	if err == nil {
		err = t.verify(key)
	}
	if err != nil {
		return Link{Signature, Failed, err.Error()}
	}
	text := fmt.Sprintf("%s by %s", t.alg, key)
	if key.id != "" {
		text += ", kid " + rtmr.Escape(key.id)
	}
	return Link{Signature, Verified, text}
}
