package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha3"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// softwareKey signs as a TPM does. The structures are put together by go-tpm,
// the selections by hand: go-tpm's PCRSelect is bytes too.
type softwareKey struct {
	signer       crypto.Signer
	scheme       tpm2.TPMAlgID
	hash         rtmr.Alg
	unrestricted bool
	firmware     uint64
}

// The keys are the same in every process, for fuzzing has several: a seed that
// one of them signed is to verify in the others.
var (
	rsa1024 = sync.OnceValue(func() crypto.Signer { return fixedRSA("short", 1024) })
	rsa2048 = sync.OnceValue(func() crypto.Signer { return fixedRSA("long", 2048) })
	ecc256  = sync.OnceValue(func() crypto.Signer { return fixedECC("ecc", elliptic.P256()) })
	ecc384  = sync.OnceValue(func() crypto.Signer { return fixedECC("ecc", elliptic.P384()) })
)

// stream returns n bytes that depend on the label alone.
func stream(label string, n int) []byte {
	b := make([]byte, n)
	sha3.NewCSHAKE128(nil, []byte(label)).Read(b)
	return b
}

func fixedECC(label string, curve elliptic.Curve) *ecdsa.PrivateKey {
	scalar := stream(label, (curve.Params().BitSize+7)/8)
	scalar[0] &= 0x7f // below the curve's order
	key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	if err != nil {
		panic(err)
	}
	return key
}

func fixedRSA(label string, bits int) *rsa.PrivateKey {
	p, q := fixedPrime(label+" p", bits/2), fixedPrime(label+" q", bits/2)
	one, e := big.NewInt(1), big.NewInt(65537)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, D: e.ModInverse(e, phi), Primes: []*big.Int{p, q}}
	key.Precompute()
	if err := key.Validate(); err != nil {
		panic(err)
	}
	return key
}

// fixedPrime returns the first prime at or after a number whose two highest bits
// are set, so that a product of two has all bits.
func fixedPrime(label string, bits int) *big.Int {
	b := stream(label, bits/8)
	b[0] |= 0xc0
	b[len(b)-1] |= 1
	p := new(big.Int).SetBytes(b)
	for ; !p.ProbablyPrime(20); p.Add(p, big.NewInt(2)) {
	}
	return p
}

func software(t testing.TB, key func() crypto.Signer) *softwareKey {
	t.Helper()
	k := &softwareKey{signer: key(), scheme: tpm2.TPMAlgECDSA, hash: rtmr.SHA256, firmware: 0x2019102300163636}
	if _, ok := k.signer.(*rsa.PrivateKey); ok {
		k.scheme = tpm2.TPMAlgRSASSA
	}
	return k
}

func softwareScheme(t testing.TB, scheme string, hash rtmr.Alg) *softwareKey {
	t.Helper()
	k := software(t, map[string]func() crypto.Signer{"rsassa": rsa2048, "rsapss": rsa2048, "ecdsa": ecc384}[scheme])
	k.scheme = map[string]tpm2.TPMAlgID{"rsassa": tpm2.TPMAlgRSASSA, "rsapss": tpm2.TPMAlgRSAPSS, "ecdsa": tpm2.TPMAlgECDSA}[scheme]
	k.hash = hash
	return k
}

// bank is one bank of a selection: size is its bitmap's.
type bank struct {
	alg  rtmr.Alg
	size int
	pcrs []int
}

func allOf(alg rtmr.Alg) []bank {
	return []bank{{alg, 3, []int{0, 1, 2, 3, 4, 5, 6, 7, 10}}}
}

// valuesOf returns values for all PCRs of some banks, no two alike.
func valuesOf(algs ...rtmr.Alg) rtmr.Values {
	values := rtmr.Values{}
	for _, alg := range algs {
		values[alg] = map[rtmr.Register]rtmr.Hex{}
		for i := range rtmr.NumPCRs {
			register, _ := rtmr.PCR(i).Register()
			values[alg][register] = alg.AppendHash(nil, []byte(alg.String()+register.String()))
		}
	}
	return values
}

// pcrDigest hashes the selected values as TPM2_Quote does: bank by bank in the
// selection's order, and rising within each.
func (k *softwareKey) pcrDigest(selection []bank, values rtmr.Values) []byte {
	h := k.hash.New()
	for _, b := range selection {
		for _, i := range b.pcrs {
			register, _ := rtmr.PCR(i).Register()
			h.Write(values[b.alg][register])
		}
	}
	return h.Sum(nil)
}

// attest makes a TPMS_ATTEST of type quote.
func (k *softwareKey) attest(selection []bank, nonce []byte, values rtmr.Values) []byte {
	var list tpm2.TPMLPCRSelection
	for _, b := range selection {
		bitmap := make([]byte, b.size)
		for _, i := range b.pcrs {
			bitmap[i/8] |= 1 << (i % 8)
		}
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: tpm2.TPMAlgID(b.alg), PCRSelect: bitmap})
	}
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: tpm2.TPM2BName{Buffer: []byte{0, 0x0b, 1, 2, 3}},
		ExtraData:       tpm2.TPM2BData{Buffer: nonce},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: 123456, ResetCount: 7, RestartCount: 8, Safe: true},
		FirmwareVersion: k.firmware,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: list,
			PCRDigest: tpm2.TPM2BDigest{Buffer: k.pcrDigest(selection, values)},
		}),
	})
}

func (k *softwareKey) cryptoHash() crypto.Hash {
	return map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384, rtmr.SHA512: crypto.SHA512}[k.hash]
}

// plain signs as tpm2_quote -f plain writes it.
func (k *softwareKey) plain(t testing.TB, attest []byte) []byte {
	t.Helper()
	var opts crypto.SignerOpts = k.cryptoHash()
	if k.scheme == tpm2.TPMAlgRSAPSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.cryptoHash()}
	}
	signature, err := k.signer.Sign(rand.Reader, k.hash.AppendHash(nil, attest), opts)
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// sign makes a TPMT_SIGNATURE.
func (k *softwareKey) sign(t testing.TB, attest []byte) []byte {
	t.Helper()
	hash := tpm2.TPMAlgID(k.hash)
	s := tpm2.TPMTSignature{SigAlg: k.scheme}
	if ec, ok := k.signer.(*ecdsa.PrivateKey); ok {
		r, ss, err := ecdsa.Sign(rand.Reader, ec, k.hash.AppendHash(nil, attest))
		if err != nil {
			t.Fatal(err)
		}
		param := func(n *big.Int) tpm2.TPM2BECCParameter { return tpm2.TPM2BECCParameter{Buffer: n.Bytes()} }
		s.Signature = tpm2.NewTPMUSignature(k.scheme, &tpm2.TPMSSignatureECC{Hash: hash, SignatureR: param(r), SignatureS: param(ss)})
	} else {
		s.Signature = tpm2.NewTPMUSignature(k.scheme, &tpm2.TPMSSignatureRSA{Hash: hash, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: k.plain(t, attest)}})
	}
	return tpm2.Marshal(s)
}

// area is the key's TPMT_PUBLIC, as an attestation key's is.
func (k *softwareKey) area() tpm2.TPMTPublic {
	area := tpm2.TPMTPublic{
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: !k.unrestricted, FixedParent: true, SensitiveDataOrigin: true,
			UserWithAuth: true, Restricted: !k.unrestricted, SignEncrypt: true},
	}
	hash := tpm2.TPMAlgID(k.hash)
	switch public := k.signer.Public().(type) {
	case *rsa.PublicKey:
		details := tpm2.NewTPMUAsymScheme(k.scheme, &tpm2.TPMSSigSchemeRSASSA{HashAlg: hash})
		if k.scheme == tpm2.TPMAlgRSAPSS {
			details = tpm2.NewTPMUAsymScheme(k.scheme, &tpm2.TPMSSigSchemeRSAPSS{HashAlg: hash})
		}
		area.Type = tpm2.TPMAlgRSA
		area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: tpm2.TPMKeyBits(public.N.BitLen()), Scheme: tpm2.TPMTRSAScheme{Scheme: k.scheme, Details: details}})
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: public.N.Bytes()})
	case *ecdsa.PublicKey:
		curve := map[elliptic.Curve]tpm2.TPMECCCurve{elliptic.P256(): tpm2.TPMECCNistP256, elliptic.P384(): tpm2.TPMECCNistP384}[public.Curve]
		point, _ := public.Bytes()
		half := len(point) / 2
		area.Type = tpm2.TPMAlgECC
		area.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve, Scheme: tpm2.TPMTECCScheme{Scheme: k.scheme,
			Details: tpm2.NewTPMUAsymScheme(k.scheme, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})}})
		area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+half]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+half:]}})
	}
	return area
}

func (k *softwareKey) tpmtPublic() []byte { return tpm2.Marshal(k.area()) }

func (k *softwareKey) pkix(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// forms are the key in each form that is read.
func (k *softwareKey) forms(t testing.TB) map[string][]byte {
	t.Helper()
	tpmt := k.tpmtPublic()
	cert := newAuthority(t, "root").issue(t, k.signer.Public(), akCertificate)
	return map[string][]byte{
		"TPMT_PUBLIC":      tpmt,
		"TPM2B_PUBLIC":     append(binary.BigEndian.AppendUint16(nil, uint16(len(tpmt))), tpmt...),
		"PEM":              pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.pkix(t)}),
		"DER":              k.pkix(t),
		"certificate":      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		"DER certificate":  cert,
		"PEM after a text": append([]byte("AK of host 7\n"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.pkix(t)})...),
	}
}

// labValues reads the lab's form of values: {"sha256": {"0": "hex"}}.
func labValues(t testing.TB, data []byte) rtmr.Values {
	t.Helper()
	var banks map[string]json.RawMessage
	if err := json.Unmarshal(data, &banks); err != nil {
		t.Fatal(err)
	}
	values := rtmr.Values{}
	for name, raw := range banks {
		var bank map[string]rtmr.Hex
		alg, err := rtmr.ParseAlg(name)
		if err != nil || json.Unmarshal(bytes.TrimSpace(raw), &bank) != nil {
			continue
		}
		values[alg] = map[rtmr.Register]rtmr.Hex{}
		for index, value := range bank {
			values[alg][rtmr.MustParse("pcr"+index)] = value
		}
	}
	return values
}
