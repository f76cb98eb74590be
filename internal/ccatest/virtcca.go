package ccatest

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"

	"github.com/veraison/go-cose"

	"tallystick/rtmr"
)

// DeviceKey is a device's RSA key, of virtCCA's size.
var DeviceKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		panic(err)
	}
	return key
})

// Wrapped signs as virtCCA's monitor does: the claims are bytes in the payload.
func Wrapped(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
	return Sign1(Encode(payload), key, alg)
}

// VirtCCA1 is virtCCA's token of the first form, by a device's RSA key, and without
// a platform token.
func VirtCCA1(values rtmr.Values) *Token {
	token := New(rtmr.SHA256, values)
	token.Platform, token.Message = nil, Wrapped
	delete(token.Realm, Profile)
	token.RAK, token.RealmAlg = DeviceKey(), cose.AlgorithmPS256
	token.SetKey(SPKI(token.RAK.Public()))
	return token
}

// VirtCCA2 is virtCCA's token of the second form: on P-521, and with a platform
// token.
func VirtCCA2(values rtmr.Values) *Token {
	token := New(rtmr.SHA256, values)
	delete(token.Realm, Profile)
	token.Platform[Profile], token.Realm[HashAlg] = "a profile of Huawei's", "sha-256\x00"
	token.Platform[Components] = []Claims{{1: "BL1\x00", 2: make([]byte, 32), 4: "1", 5: []byte{}, 6: "sha-256"}}
	rak := Key(elliptic.P521(), "RAK")
	token.RAK, token.CPAK = rak, Key(elliptic.P521(), "device")
	token.RealmAlg, token.PlatformAlg = cose.AlgorithmES512, cose.AlgorithmES512
	token.SetKey(Point(&rak.PublicKey))
	return token
}

// Device is the key that a device's certificate has to be of.
func (t *Token) Device() crypto.PublicKey {
	if t.Platform == nil {
		return t.RAK.Public()
	}
	return t.CPAK.Public()
}

// Day is when certificates are valid.
var Day = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

// Maker is who makes devices, in Huawei's place: a root, an intermediate CA, and a
// device's certificate.
type Maker struct{ Root, CA, Device *x509.Certificate }

// NewMaker certifies a device's key.
func NewMaker(device crypto.PublicKey) Maker {
	rootKey, caKey := Key(elliptic.P521(), "root"), Key(elliptic.P521(), "CA")
	m := Maker{Root: certify("Root", rootKey.Public(), nil, rootKey)}
	m.CA = certify("CA", caKey.Public(), m.Root, rootKey)
	m.Device = certify("Device", device, m.CA, caKey)
	return m
}

func certify(name string, key crypto.PublicKey, issuer *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	isCA := name != "Device"
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{Organization: []string{"Maker"}, CommonName: name},
		NotBefore: Day.Add(-time.Hour), NotAfter: Day.Add(time.Hour), IsCA: isCA, BasicConstraintsValid: isCA, KeyUsage: x509.KeyUsageCertSign,
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key, signer)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

// Roots are what to trust, in PEM.
func (m Maker) Roots() (roots []byte) {
	for _, c := range []*x509.Certificate{m.CA, m.Root} {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return roots
}
