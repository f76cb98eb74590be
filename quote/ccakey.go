package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"tallystick/rtmr"
)

// key returns the realm attestation key: a COSE_Key, or in the first tokens, which
// have no profile, an uncompressed point. virtCCA's may be an RSA key, too, in a
// SubjectPublicKeyInfo.
func (c *CCARealm) key() (crypto.PublicKey, error) {
	var initial byte
	if len(c.PublicKey) > 0 {
		initial = c.PublicKey[0]
	}
	switch {
	case initial == 4 && (c.Profile == "" || isVirtCCAKey(c.PublicKey)):
		return pointKey(c.PublicKey)
	case initial == derSequence && isVirtCCAKey(c.PublicKey):
		return x509.ParsePKIXPublicKey(c.PublicKey)
	case initial>>5 == cborMap:
		return coseKey(c.PublicKey)
	}
	return nil, fmt.Errorf("cca-realm-public-key has %d bytes and begins %.2x, expected a COSE_Key%s", len(c.PublicKey), []byte(c.PublicKey),
		map[bool]string{true: " or an uncompressed point", false: ""}[c.Profile == ""])
}

const derSequence = 0x30

// isVirtCCAKey reports whether a realm's key has a form that virtCCA alone has:
// RSA, or a point on P-521. Arm's is on P-384 (DEN0137 §A7.2.3.1.7).
func isVirtCCAKey(key []byte) bool {
	return len(key) > 0 && key[0] == derSequence || len(key) == 133 && key[0] == 4
}

// pointKey reads a point 04 ‖ x ‖ y, whose size tells its curve.
func pointKey(point []byte) (*ecdsa.PublicKey, error) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if len(point) != 1+2*ccaCoordinate(curve) {
			continue
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return nil, fmt.Errorf("no point on %s", curve.Params().Name)
		}
		return key, nil
	}
	return nil, fmt.Errorf("a point of %d bytes, expected 65 (P-256), 97 (P-384) or 133 (P-521)", len(point))
}

func ccaCoordinate(curve elliptic.Curve) int { return (curve.Params().BitSize + 7) / 8 }

// coseKey reads a COSE_Key of the type EC2 (RFC 9052 §7, RFC 9053 §7.1).
func coseKey(data []byte) (*ecdsa.PublicKey, error) {
	const ec2, verifies = 2, 2
	r := &cborReader{data: data}
	var kty, crv, alg int64
	var x, y []byte
	usable := true
	r.each("COSE_Key", func(label int64) bool {
		switch label {
		case 1:
			kty = r.int("kty")
		case 3:
			alg = r.int("alg")
		case 4:
			usable = false
			for range r.array("key_ops") {
				usable = r.int("key_ops") == verifies || usable
			}
		case -1:
			crv = r.int("crv")
		case -2:
			x = r.bytes("x")
		case -3:
			y = r.bytes("y")
		default:
			return false
		}
		return true
	})
	if err := r.end("the COSE_Key"); err != nil {
		return nil, err
	}
	curve := coseCurves[crv]
	switch {
	case kty != ec2 || curve == nil:
		return nil, fmt.Errorf("a COSE_Key of kty %d on the curve %d, expected kty 2 (EC2) on 1 (P-256), 2 (P-384) or 3 (P-521)", kty, crv)
	case !usable:
		return nil, errors.New("a COSE_Key whose key_ops lack 2 (verify)")
	case alg != 0 && coseSchemes[alg].curve != curve:
		return nil, fmt.Errorf("a COSE_Key for alg %d, which does not go with %s", alg, curve.Params().Name)
	}
	return coordinatesKey(curve, x, y)
}

var coseCurves = map[int64]elliptic.Curve{1: elliptic.P256(), 2: elliptic.P384(), 3: elliptic.P521()}

// coordinatesKey makes a key of a point's coordinates, which have the curve's size.
func coordinatesKey(curve elliptic.Curve, x, y []byte) (*ecdsa.PublicKey, error) {
	if size := ccaCoordinate(curve); len(x) != size || len(y) != size {
		return nil, fmt.Errorf("x of %d and y of %d bytes, expected %d of %s", len(x), len(y), size, curve.Params().Name)
	}
	return pointKey(append(append([]byte{4}, x...), y...))
}

// ccaKey is a platform attestation key that the caller trusts, and what says
// whose it is.
type ccaKey struct {
	key                      *ecdsa.PublicKey
	id                       string   // kid, "" if there is none
	instance, implementation rtmr.Hex // nil if they are not said
}

// name is what the key is told by.
func (k *ccaKey) name() string {
	if k.id == "" {
		return ""
	}
	return " " + quoted(k.id)
}

// parseCCAKeys reads keys on P-256, P-384 or P-521: PEM (PUBLIC KEY, one or many)
// or a SubjectPublicKeyInfo in DER; a JSON Web Key or a set of them (RFC 7517); or
// a list of {"pkey": JWK, "implementation-id": hex, "instance-id": hex}, the trust
// anchors of Veraison's and Confidential Containers' verifiers.
func parseCCAKeys(data []byte) ([]ccaKey, error) {
	text := bytes.TrimSpace(data)
	switch {
	case len(text) == 0:
		return nil, nil
	case text[0] == '{' || text[0] == '[':
		return jsonCCAKeys(text)
	}
	block, rest := pem.Decode(data)
	if block == nil {
		key, err := spkiCCAKey(data)
		if err != nil {
			return nil, fmt.Errorf("expected PEM, DER, a JSON Web Key or a set: %w", err)
		}
		return []ccaKey{key}, nil
	}
	var keys []ccaKey
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("PEM block %d is %s, expected PUBLIC KEY", len(keys), quoted(block.Type))
		}
		key, err := spkiCCAKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", len(keys), err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func spkiCCAKey(der []byte) (ccaKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return ccaKey{}, errors.New(rtmr.Escape(err.Error()))
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || coseCurveOf(key.Curve) == 0 {
		return ccaKey{}, fmt.Errorf("a key of type %T, expected one on P-256, P-384 or P-521", parsed)
	}
	return ccaKey{key: key}, nil
}

func coseCurveOf(curve elliptic.Curve) int64 {
	for id, c := range coseCurves {
		if c == curve {
			return id
		}
	}
	return 0
}

// ecJWK is a JSON Web Key of the type EC (RFC 7518 §6.2.1).
type ecJWK struct {
	ID    string `json:"kid"`
	Type  string `json:"kty"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

// jsonCCAKeys reads keys in any of the JSON forms.
func jsonCCAKeys(data []byte) ([]ccaKey, error) {
	if data[0] == '[' {
		return trustAnchors(data)
	}
	var set struct {
		Keys *[]ecJWK `json:"keys"`
		ecJWK
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("a JSON Web Key or a set: %s", rtmr.Escape(err.Error()))
	}
	if set.Keys == nil {
		set.Keys = &[]ecJWK{set.ecJWK}
	}
	var keys []ccaKey
	for i, jwk := range *set.Keys {
		key, err := jwk.parse()
		if err != nil {
			return nil, fmt.Errorf("JSON Web Key %d: %w", i, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in the set")
	}
	return keys, nil
}

// trustAnchors reads a list of keys, each with the platform that it is of. What it
// may be of is not left out for a name that is spelled in another way.
func trustAnchors(data []byte) ([]ccaKey, error) {
	var list []struct {
		Key            json.RawMessage `json:"pkey"`
		Implementation rtmr.Hex        `json:"implementation-id"`
		Instance       rtmr.Hex        `json:"instance-id"`
	}
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&list); err != nil {
		return nil, fmt.Errorf("a list of trust anchors: %s", rtmr.Escape(err.Error()))
	}
	var keys []ccaKey
	for i, anchor := range list {
		var jwk ecJWK
		if err := json.Unmarshal(anchor.Key, &jwk); err != nil {
			return nil, fmt.Errorf("trust anchor %d: pkey: %s", i, rtmr.Escape(err.Error()))
		}
		key, err := jwk.parse()
		if err != nil {
			return nil, fmt.Errorf("trust anchor %d: %w", i, err)
		}
		if len(anchor.Instance) == 0 {
			return nil, fmt.Errorf("trust anchor %d: no instance-id", i)
		}
		key.instance, key.implementation = anchor.Instance, anchor.Implementation
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no trust anchor in the list")
	}
	return keys, nil
}

func (k ecJWK) parse() (ccaKey, error) {
	curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Curve]
	if k.Type != "EC" || curve == nil {
		return ccaKey{}, fmt.Errorf("kty %s, crv %s, expected EC on P-256, P-384 or P-521", quoted(k.Type), quoted(k.Curve))
	}
	x, errX := base64.RawURLEncoding.DecodeString(k.X)
	y, errY := base64.RawURLEncoding.DecodeString(k.Y)
	if err := errors.Join(errX, errY); err != nil {
		return ccaKey{}, errors.New("x or y is no base64url")
	}
	key, err := coordinatesKey(curve, x, y)
	return ccaKey{key: key, id: k.ID}, err
}

// keysOf returns the keys that may be a platform's: those that are said to be of
// its instance, by the trust anchor or by a kid that is the instance ID or the
// token's kid; where there is none of these, those of which it is not said whose
// they are.
func keysOf(p *CCAPlatform, keys []ccaKey) []ccaKey {
	var named, unnamed []ccaKey
	for _, k := range keys {
		other := k.instance != nil && !bytes.Equal(k.instance, p.InstanceID) ||
			k.implementation != nil && !bytes.Equal(k.implementation, p.ImplementationID)
		switch {
		case other:
		case k.instance != nil || isID(k.id, p.InstanceID) || isID(k.id, p.KeyID):
			named = append(named, k)
		default:
			unnamed = append(unnamed, k)
		}
	}
	if len(named) > 0 {
		return named
	}
	return unnamed
}

// isID reports whether a kid, which is text, spells an ID, which is bytes.
func isID(kid string, id []byte) bool {
	return len(id) > 0 && (kid == string(id) || kid == hex.EncodeToString(id) ||
		kid == base64.RawURLEncoding.EncodeToString(id) || kid == base64.StdEncoding.EncodeToString(id))
}
