package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"tallystick/rtmr"
)

// SigningKey signs attestation results.
type SigningKey struct {
	signer  crypto.Signer
	alg, id string
}

// ParseSigningKey reads a private key: PEM (PKCS #8, SEC 1 or PKCS #1), or a private
// JWK. Its kind gives the algorithm: ES256, ES384 or ES512 by the curve, PS256 for RSA
// of 2048 bits or more, EdDSA for Ed25519. A JWK may name another that fits (alg), and
// the key (kid); a key without a name is called by its thumbprint (RFC 7638).
func ParseSigningKey(data []byte) (*SigningKey, error) {
	k, err := &SigningKey{}, error(nil)
	switch {
	case isJSONObject(data):
		err = k.parseJWK(data)
	case bytes.Contains(data, []byte("-----BEGIN ")):
		k.signer, err = parsePrivatePEM(data)
	default:
		err = fmt.Errorf("%w: %d bytes that are neither PEM nor a JWK, expected a private key", ErrUnsupported, len(data))
	}
	if err != nil {
		return nil, err
	}
	return k, k.complete()
}

// complete chooses what the key's file does not say.
func (k *SigningKey) complete() error {
	public := k.signer.Public()
	if err := checkResultKey(public); err != nil {
		return err
	}
	if k.alg == "" {
		k.alg = algFor(public)
	}
	alg, err := jwsAlgOf(k.alg)
	if err == nil && !alg.fits(public) {
		err = fmt.Errorf("alg %s is not for %s", quoted(k.alg), &resultKey{public: public})
	}
	if err == nil && k.id == "" {
		k.id = thumbprint(public)
	}
	return err
}

// algFor is the algorithm that a key of this kind signs by.
func algFor(public crypto.PublicKey) string {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return map[elliptic.Curve]string{elliptic.P256(): "ES256", elliptic.P384(): "ES384", elliptic.P521(): "ES512"}[k.Curve]
	case ed25519.PublicKey:
		return "EdDSA"
	}
	return "PS256"
}

// parsePrivatePEM reads the first private key; openssl ecparam writes the curve's
// parameters before it.
func parsePrivatePEM(data []byte) (crypto.Signer, error) {
	var block *pem.Block
	for block, data = pem.Decode(data); block != nil && block.Type == "EC PARAMETERS"; {
		block, data = pem.Decode(data)
	}
	if block == nil {
		return nil, errors.New("PEM: no block ends, or its base64 is wrong")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, fmt.Errorf("%w: the private key is encrypted; openssl pkey decrypts it", ErrUnsupported)
	default:
		return nil, fmt.Errorf("%w: PEM of type %q, expected PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY", ErrUnsupported, rtmr.Escape(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("PEM: %s", rtmr.Escape(err.Error()))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a key of type %T, which signs nothing", ErrUnsupported, key)
	}
	return signer, nil
}

// parseJWK reads a private key's members (RFC 7518 §6.2.2, §6.3.2, RFC 8037 §2). The
// public ones have to be those of the private ones.
func (k *SigningKey) parseJWK(data []byte) error {
	object, err := parseClaims(data)
	if err != nil {
		return fmt.Errorf("JWK: %w", err)
	}
	c := newClaims(object)
	if c.has("keys") {
		return errors.New("JWK: a set, expected one private key")
	}
	if !c.has("d") {
		return errors.New("JWK: the member d is missing: a public key, expected a private one")
	}
	public, err := parseJWK(c)
	if err == nil {
		k.signer, err = jwkPrivate(c, public.public)
	}
	if err != nil {
		return fmt.Errorf("JWK: %w", err)
	}
	if !k.signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(public.public) {
		return errors.New("JWK: the private key is not that of the public one")
	}
	k.alg, k.id = public.alg, public.id
	return nil
}

func jwkPrivate(c claims, public crypto.PublicKey) (crypto.Signer, error) {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		d, err := jwkBytes(c, "d", curveBytes(p.Curve))
		if err != nil {
			return nil, errors.New("d: not as long as the curve's numbers, or not in base64url")
		}
		key, err := ecdsa.ParseRawPrivateKey(p.Curve, d)
		if err != nil {
			return nil, errors.New("d: no private key on " + p.Curve.Params().Name)
		}
		return key, nil
	case ed25519.PublicKey:
		seed, err := jwkBytes(c, "d", ed25519.SeedSize)
		if err != nil {
			return nil, fmt.Errorf("d: not %d bytes in base64url", ed25519.SeedSize)
		}
		return ed25519.NewKeyFromSeed(seed), nil
	case *rsa.PublicKey:
		return jwkRSA(c, p)
	}
	return nil, fmt.Errorf("%w: a key of type %T", ErrUnsupported, public)
}

func jwkRSA(c claims, public *rsa.PublicKey) (crypto.Signer, error) {
	var numbers [3]*big.Int
	for i, name := range []string{"d", "p", "q"} {
		text, _ := c.text(name)
		b, err := jwsEncoding.DecodeString(text)
		if err != nil || len(b) == 0 || len(b) > maxRSABits/8 {
			return nil, fmt.Errorf("%s: not a number in base64url", name)
		}
		numbers[i] = new(big.Int).SetBytes(b)
	}
	key := &rsa.PrivateKey{PublicKey: *public, D: numbers[0], Primes: numbers[1:]}
	if err := key.Validate(); err != nil {
		return nil, errors.New("d, p, q: they do not make a private key of n and e")
	}
	key.Precompute()
	return key, nil
}

// thumbprint is a public key's SHA-256 by RFC 7638 §3: of a JSON object with the
// members that make the key, sorted, without white space.
func thumbprint(public crypto.PublicKey) string {
	text, err := json.Marshal(publicMembers(public)) // a map's keys are sorted
	if err != nil {
		panic(err) // strings alone
	}
	sum := sha256.Sum256(text)
	return jwsEncoding.EncodeToString(sum[:])
}

func publicMembers(public crypto.PublicKey) map[string]string {
	b64 := jwsEncoding.EncodeToString
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err) // it was read as a point on its curve
		}
		n := curveBytes(k.Curve)
		return map[string]string{"kty": "EC", "crv": k.Curve.Params().Name, "x": b64(point[1 : 1+n]), "y": b64(point[1+n:])}
	case *rsa.PublicKey:
		return map[string]string{"kty": "RSA", "n": b64(k.N.Bytes()), "e": b64(big.NewInt(int64(k.E)).Bytes())}
	case ed25519.PublicKey:
		return map[string]string{"kty": "OKP", "crv": "Ed25519", "x": b64(k)}
	}
	return nil
}

// Sign signs a result's claims, a JSON object, and returns the token.
func (k *SigningKey) Sign(claims []byte) (token []byte, err error) {
	header, err := json.Marshal(map[string]string{"alg": k.alg, "kid": k.id, "typ": "JWT"})
	if err != nil {
		return nil, err
	}
	token = jwsEncoding.AppendEncode(nil, header)
	token = jwsEncoding.AppendEncode(append(token, '.'), claims)
	signature, err := k.sign(token)
	if err != nil {
		return nil, fmt.Errorf("signing by %s: %w", k.alg, err)
	}
	return jwsEncoding.AppendEncode(append(token, '.'), signature), nil
}

func (k *SigningKey) sign(signed []byte) ([]byte, error) {
	alg := jwsAlgs[k.alg]
	if alg.hash == 0 {
		return k.signer.Sign(rand.Reader, signed, crypto.Hash(0))
	}
	h := alg.hash.New()
	h.Write(signed)
	digest := h.Sum(nil)
	if key, ok := k.signer.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			return nil, err
		}
		n := curveBytes(key.Curve)
		return slices.Concat(r.FillBytes(make([]byte, n)), s.FillBytes(make([]byte, n))), nil
	}
	if alg.pss {
		return k.signer.Sign(rand.Reader, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: alg.hash})
	}
	return k.signer.Sign(rand.Reader, digest, alg.hash)
}
