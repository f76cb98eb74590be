package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"tallystick/rtmr"
)

// resultKey is a public key that a verifier signs its results with.
type resultKey struct {
	public crypto.PublicKey // *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey
	id     string           // a JWK's kid, "" if it has none
	alg    string           // the one algorithm that a JWK is for, "" if it does not say
	cert   *x509.Certificate
	err    error // why a set's key cannot be used, if it is chosen
}

func (k *resultKey) String() string {
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("an RSA key of %d bits", p.N.BitLen())
	case *ecdsa.PublicKey:
		return "an ECC key on " + p.Curve.Params().Name
	case ed25519.PublicKey:
		return "an Ed25519 key"
	}
	return "no key"
}

// parseResultKeys reads what is given to verify results by: a public key or a
// certificate in PEM or DER, a JWK, or a JWK set (RFC 7517). What is given is
// trusted as it is: a certificate is a key with a name, and leads nowhere.
func parseResultKeys(data []byte) ([]resultKey, error) {
	switch {
	case isJSONObject(data):
		return parseJWKs(data)
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return parseResultPEM(data)
	case len(data) > 0 && data[0] == 0x30: // a DER SEQUENCE
		return parseResultDER(data)
	}
	return nil, fmt.Errorf("%w: a key of %d bytes that begin %.8x, expected a public key or certificate in PEM or DER, a JWK or a JWK set", ErrUnsupported, len(data), data)
}

func parseResultPEM(data []byte) ([]resultKey, error) {
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("PEM: no block ends, or its base64 is wrong")
	case block.Type != "PUBLIC KEY" && block.Type != "CERTIFICATE":
		return nil, fmt.Errorf("%w: PEM of type %q, expected PUBLIC KEY or CERTIFICATE", ErrUnsupported, rtmr.Escape(block.Type))
	case bytes.Contains(rest, []byte("-----BEGIN ")):
		return nil, errors.New("PEM: more than one block, expected one key or certificate; several keys go into a JWK set")
	}
	return parseResultDER(block.Bytes)
}

func parseResultDER(der []byte) ([]resultKey, error) {
	key := resultKey{}
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		key.public = public
	} else if key.cert, err = x509.ParseCertificate(der); err == nil {
		key.public = key.cert.PublicKey
	} else {
		return nil, errors.New("DER: neither a public key nor a certificate: " + rtmr.Escape(err.Error()))
	}
	if err := checkResultKey(key.public); err != nil {
		return nil, err
	}
	return []resultKey{key}, nil
}

// checkResultKey refuses keys that no algorithm here is for, and RSA keys that are
// too short (RFC 7518 §3.3) or too long to verify with.
func checkResultKey(public crypto.PublicKey) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < minRSABits || n > maxRSABits {
			return fmt.Errorf("%w: an RSA key of %d bits, expected %d to %d", ErrUnsupported, n, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return fmt.Errorf("%w: an ECC key on P-224, expected P-256, P-384 or P-521", ErrUnsupported)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("%w: a key of type %T, expected RSA, ECC or Ed25519", ErrUnsupported, public)
	}
	return nil
}

// parseJWKs reads one key or a set. A set's key that cannot be used, such as one for
// encryption, is an error only if a token chooses it.
func parseJWKs(data []byte) ([]resultKey, error) {
	object, err := parseClaims(data)
	if err != nil {
		return nil, fmt.Errorf("JWK: %w", err)
	}
	set, isSet := object["keys"].([]any)
	if !isSet {
		key, err := parseJWK(newClaims(object))
		if err != nil {
			return nil, fmt.Errorf("JWK: %w", err)
		}
		return []resultKey{key}, nil
	}
	var keys []resultKey
	for i, member := range set {
		members, ok := member.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("JWK set: key %d: %s, expected an object", i, claimKind(member))
		}
		key, err := parseJWK(newClaims(members))
		if err != nil {
			key.id, _ = members["kid"].(string)
			key.err = err
		}
		if slices.ContainsFunc(keys, func(k resultKey) bool { return k.id == key.id && key.id != "" }) {
			return nil, fmt.Errorf("JWK set: key %d: kid %s comes twice", i, quoted(key.id))
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("JWK set: it has no keys")
	}
	return keys, nil
}

// parseJWK reads a key by its own members or by its certificate (x5c), which have
// to be of the same key where there are both.
func parseJWK(c claims) (key resultKey, err error) {
	kty, _ := c.text("kty")
	key.id, _ = c.text("kid")
	key.alg, _ = c.text("alg")
	if use, ok := c.text("use"); ok && use != "sig" {
		return key, fmt.Errorf("use: a key for %s, expected sig", quoted(use))
	}
	if ops := c.texts("key_ops"); len(ops) > 0 && !slices.Contains(ops, "verify") && !slices.Contains(ops, "sign") {
		return key, errors.New("key_ops: the key is not for verifying")
	}
	if key.public, err = jwkPublic(c, kty); err != nil {
		return key, err
	}
	if key.cert, err = jwkCertificate(c); err != nil {
		return key, err
	}
	if key.cert != nil {
		own, ok := key.public.(interface{ Equal(crypto.PublicKey) bool })
		if ok && !own.Equal(key.cert.PublicKey) {
			return key, errors.New("x5c: the certificate is of another key than the JWK")
		}
		key.public = key.cert.PublicKey
	}
	switch {
	case *c.err != nil:
		return key, *c.err
	case key.public == nil:
		return key, fmt.Errorf("kty %s: the key's own members are missing, and so is x5c", quoted(kty))
	}
	return key, checkResultKey(key.public)
}

// jwkPublic reads a key's own members (RFC 7518 §6, RFC 8037 §2); nil if it has none,
// and only a certificate.
func jwkPublic(c claims, kty string) (crypto.PublicKey, error) {
	switch kty {
	case "EC":
		if !c.has("x") && c.has("x5c") {
			return nil, nil
		}
		return jwkEC(c)
	case "RSA":
		if !c.has("n") && c.has("x5c") {
			return nil, nil
		}
		var public *rsa.PublicKey
		n, _ := c.text("n")
		e, _ := c.text("e")
		err := jwk{Type: kty, N: n, E: e}.set(&public)
		return public, err
	case "OKP":
		crv, _ := c.text("crv")
		x, err := jwkBytes(c, "x", ed25519.PublicKeySize)
		if crv != "Ed25519" {
			return nil, fmt.Errorf("%w: crv %s, expected Ed25519", ErrUnsupported, quoted(crv))
		}
		return ed25519.PublicKey(x), err
	case "oct":
		return nil, errors.New("kty oct: a shared secret, expected a public key")
	}
	return nil, fmt.Errorf("%w: kty %s, expected EC, RSA or OKP", ErrUnsupported, quoted(kty))
}

// jwkCurves are by their names in a JWK, which are elliptic's.
var jwkCurves = []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}

func jwkEC(c claims) (*ecdsa.PublicKey, error) {
	crv, _ := c.text("crv")
	i := slices.IndexFunc(jwkCurves, func(curve elliptic.Curve) bool { return curve.Params().Name == crv })
	if i < 0 {
		return nil, fmt.Errorf("%w: crv %s, expected P-256, P-384 or P-521", ErrUnsupported, quoted(crv))
	}
	point := []byte{4} // uncompressed
	for _, name := range []string{"x", "y"} {
		b, err := jwkBytes(c, name, curveBytes(jwkCurves[i]))
		if err != nil {
			return nil, err
		}
		point = append(point, b...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(jwkCurves[i], point)
	if err != nil {
		return nil, fmt.Errorf("x, y: no point on %s", crv)
	}
	return public, nil
}

// jwkBytes reads a member of a fixed size.
func jwkBytes(c claims, name string, size int) ([]byte, error) {
	s, _ := c.text(name)
	b, err := jwsEncoding.DecodeString(s)
	if err != nil || len(b) != size {
		return nil, fmt.Errorf("%s %s, expected %d bytes in base64url", name, quoted(s), size)
	}
	return b, nil
}

// jwkCertificate is the first certificate of x5c, the key's own, in base64 (RFC 7517
// §4.7). Azure Attestation's sets give keys so, and not otherwise.
func jwkCertificate(c claims) (*x509.Certificate, error) {
	chain := c.texts("x5c")
	if len(chain) == 0 {
		return nil, nil
	}
	der, err := base64.StdEncoding.DecodeString(chain[0])
	if err != nil {
		return nil, errors.New("x5c: not base64")
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("x5c: %s", rtmr.Escape(err.Error()))
	}
	return cert, nil
}

// choose picks the key that the token names, and says why none can be: one without
// a name takes any token, one with a name only those that call it so, or that call
// none where there is no other.
func (t *jws) choose(keys []resultKey) (*resultKey, error) {
	for i := range keys {
		k := &keys[i]
		named := t.kid != "" && k.id == t.kid
		if named || len(keys) == 1 && (k.id == "" || t.kid == "") {
			return k, k.err
		}
	}
	switch {
	case t.kid == "":
		return nil, fmt.Errorf("the token names no key (kid), and %d are given", len(keys))
	case len(keys) == 1:
		return nil, fmt.Errorf("the token's kid is %s, the key's %s", quoted(t.kid), quoted(keys[0].id))
	}
	return nil, fmt.Errorf("the token's kid is %s, which none of the %d keys has", quoted(t.kid), len(keys))
}

// expired warns of a certificate that is not valid at that time: its key was given
// and is trusted, but whoever issued it would not say so.
func (k *resultKey) expired(now time.Time) []string {
	if k.cert == nil || !now.Before(k.cert.NotBefore) && !now.After(k.cert.NotAfter) {
		return nil
	}
	return []string{fmt.Sprintf("the key's certificate is valid from %s to %s, and not at %s",
		k.cert.NotBefore.UTC().Format(time.RFC3339), k.cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))}
}
