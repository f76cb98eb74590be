// Package ccatest makes Arm CCA and virtCCA tokens for tests, signed by keys of its
// own: of a real token no claim can be changed without breaking its signature. It
// signs with go-cose and writes CBOR with fxamacker's encoder, of which the reader
// of tokens has no part.
package ccatest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"

	"tallystick/rtmr"
)

// The labels of the collection and of the claims that tests change.
const (
	PlatformToken = 44234
	RealmToken    = 44241

	Profile   = 265
	Challenge = 10

	Lifecycle      = 2395
	Implementation = 2396
	Instance       = 256
	Components     = 2399
	Config         = 2401

	RPV         = 44235
	HashAlg     = 44236
	PublicKey   = 44237
	RIM         = 44238
	REM         = 44239
	KeyHashAlg  = 44240
	MECPolicy   = 44243
	Collection1 = 399
	Collection2 = 907
)

// Claims are a token's, by label.
type Claims map[int64]any

// Token is a token that can be signed. Edits of the realm's key are followed by Bind.
type Token struct {
	Realm, Platform       Claims
	RAK, CPAK             crypto.Signer
	RealmAlg, PlatformAlg cose.Algorithm

	// Message makes a COSE_Sign1 of a payload, if not as Sign1 does.
	Message func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte
}

// Key returns the same key in every run.
func Key(curve elliptic.Curve, name string) *ecdsa.PrivateKey {
	for i := 0; ; i++ {
		wide := sha512.Sum512(fmt.Appendf(nil, "%s %d", name, i))
		scalar := append(make([]byte, 2), wide[:]...)[:(curve.Params().BitSize+7)/8] // P-521's begins with zeros
		if key, err := ecdsa.ParseRawPrivateKey(curve, scalar); err == nil {
			return key
		}
	}
}

// New makes a token of version 1 of the specification, of a platform that is
// secured and a realm with these registers, in its one bank; those that are not in
// values are zeros.
func New(alg rtmr.Alg, values rtmr.Values) *Token {
	register := func(name string) []byte {
		if v := values[alg][rtmr.MustParse(name)]; v != nil {
			return v
		}
		return make([]byte, alg.Size())
	}
	rim := alg.AppendHash(nil, []byte("a realm"))
	if v := values[alg][rtmr.RIM]; v != nil {
		rim = v
	}
	t := &Token{
		RAK: Key(elliptic.P384(), "RAK"), CPAK: Key(elliptic.P384(), "CPAK"),
		RealmAlg: cose.AlgorithmES384, PlatformAlg: cose.AlgorithmES384,
		Realm: Claims{
			Profile: "tag:arm.com,2023:realm#1.0.0", Challenge: slices.Concat([]byte{0xCA, 0xFE}, make([]byte, 62)),
			RPV: make([]byte, 64), HashAlg: ianaName(alg), KeyHashAlg: "sha-256", RIM: rim,
			REM: [][]byte{register("rem0"), register("rem1"), register("rem2"), register("rem3")},
		},
		Platform: Claims{
			Profile:        "tag:arm.com,2023:cca_platform#1.0.0",
			Implementation: bytesOf(32, 0x1D), Instance: append([]byte{1}, bytesOf(32, 0x2D)...), Config: []byte{0xCF, 0xCF},
			Lifecycle: 0x3003, 2400: "https://verifier.example", 2402: "sha-256",
			Components: []Claims{
				{1: "BL", 2: bytesOf(32, 0x31), 4: "3.4.2", 5: bytesOf(32, 0x51), 6: "sha-256"},
				{2: bytesOf(48, 0x32), 5: bytesOf(32, 0x52)},
			},
		},
	}
	t.SetKey(COSEKey(t.RAK.Public().(*ecdsa.PublicKey)))
	return t
}

func bytesOf(n int, b byte) []byte { return slices.Repeat([]byte{b}, n) }

func ianaName(alg rtmr.Alg) string {
	return map[rtmr.Alg]string{rtmr.SHA256: "sha-256", rtmr.SHA384: "sha-384", rtmr.SHA512: "sha-512"}[alg]
}

// SetKey puts a realm's key into the claims, and its hash into the platform's.
func (t *Token) SetKey(claim []byte) {
	t.Realm[PublicKey] = claim
	t.Bind()
}

// Bind makes the platform vouch for the realm's key.
func (t *Token) Bind() {
	if t.Platform == nil {
		return
	}
	sum := sha256.Sum256(t.Realm[PublicKey].([]byte))
	t.Platform[Challenge] = sum[:]
}

// Legacy makes it a token of the first profile: the realm has none, and its key is
// a point.
func (t *Token) Legacy() *Token {
	delete(t.Realm, Profile)
	t.Platform[Profile] = "http://arm.com/CCA-SSD/1.0.0"
	t.SetKey(Point(t.RAK.Public().(*ecdsa.PublicKey)))
	return t
}

// Version2 makes it a token of version 2 of the specification, with its claims.
func (t *Token) Version2() *Token {
	t.Realm[Profile], t.Platform[Profile] = "tag:arm.com,2024:realm#2.0.0", "tag:arm.com,2024:cca_platform#2.0.0"
	t.Realm[Instance] = append([]byte{1}, bytesOf(32, 0x3D)...)
	t.Realm[MECPolicy], t.Realm[44244] = 1, 0
	t.Platform[2394] = 1
	return t
}

// COSEKey writes a key as a COSE_Key (RFC 9053 §7.1.1).
func COSEKey(key *ecdsa.PublicKey) []byte {
	point := Point(key)
	size := len(point) / 2
	curve := map[elliptic.Curve]int64{elliptic.P256(): 1, elliptic.P384(): 2, elliptic.P521(): 3}[key.Curve]
	return Encode(Claims{1: 2, -1: curve, -2: point[1:][:size], -3: point[1+size:]})
}

// Point writes a key as 04 ‖ x ‖ y.
func Point(key *ecdsa.PublicKey) []byte {
	point, err := key.Bytes()
	if err != nil {
		panic(err)
	}
	return point
}

// SPKI writes a key as a SubjectPublicKeyInfo.
func SPKI(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	return der
}

// PEM is what to trust: the platform attestation key.
func (t *Token) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: SPKI(t.CPAK.Public())})
}

// Encode writes CBOR, the same in every run.
func Encode(v any) []byte {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	data, err := mode.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// Sign1 makes a tagged COSE_Sign1 of a payload.
func Sign1(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
	signer, err := cose.NewSigner(alg, key)
	if err != nil {
		panic(err)
	}
	headers := cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: alg}}
	message, err := cose.Sign1(rand.Reader, signer, headers, payload, nil)
	if err != nil {
		panic(err)
	}
	return message
}

// Messages are the signed realm token, and the platform token, nil without one.
func (t *Token) Messages() (realm, platform []byte) {
	sign := t.Message
	if sign == nil {
		sign = Sign1
	}
	realm = sign(Encode(t.Realm), t.RAK, t.RealmAlg)
	if t.Platform != nil {
		platform = sign(Encode(t.Platform), t.CPAK, t.PlatformAlg)
	}
	return realm, platform
}

// Sign signs both tokens, and returns their collection.
func (t *Token) Sign() []byte {
	realm, platform := t.Messages()
	if platform == nil {
		return Collection(Collection1, map[uint64]any{RealmToken: realm})
	}
	return Collection(Collection1, map[uint64]any{RealmToken: realm, PlatformToken: platform})
}

// Collection wraps entries into a collection.
func Collection(tag uint64, entries map[uint64]any) []byte {
	return Encode(cbor.Tag{Number: tag, Content: entries})
}
