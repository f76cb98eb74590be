package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// authority is a TPM manufacturer's certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	return (&authority{}).authority(t, name)
}

// authority makes one below a, or a root if a is none.
func (a *authority) authority(t testing.TB, name string) *authority {
	t.Helper()
	key := fixedECC(name, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: epoch, NotAfter: epoch.AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	return &authority{mustCertificate(t, create(t, template, parent, key.Public(), signer)), key}
}

func create(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func mustCertificate(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (a *authority) pem() []byte { return certPEM(a.cert.Raw) }

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// certificate changes the template of a key's certificate.
type certificate func(*x509.Certificate)

// Certificates as TPM manufacturers and clouds issue them: an endorsement key's
// with the TPM in a critical subjectAltName, as swtpm_localca makes it.
func ekCertificate(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageKeyEncipherment
	c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}}
	c.ExtraExtensions = []pkix.Extension{tpmName(true)}
}

func akCertificate(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }

// tpmName is a subjectAltName of one directoryName: manufacturer, model, version.
func tpmName(critical bool) pkix.Extension {
	var name pkix.RDNSequence
	for i, text := range []string{"id:00001014", "swtpm", "id:20191023"} {
		name = append(name, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 23, 133, 2, i + 1}, Value: text}})
	}
	der, _ := asn1.Marshal(name)
	general, _ := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: der})
	value, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: general})
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: value}
}

func (a *authority) issue(t testing.TB, public crypto.PublicKey, kinds ...certificate) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(44), Subject: pkix.Name{CommonName: "unknown"},
		NotBefore: epoch, NotAfter: epoch.AddDate(10, 0, 0), BasicConstraintsValid: true}
	for _, kind := range kinds {
		kind(template)
	}
	return create(t, template, a.cert, public, a.key)
}

// TestAKCertificate: the key is given with its certificate.
func TestAKCertificate(t *testing.T) {
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	root, stranger := newAuthority(t, "root"), newAuthority(t, "stranger")
	middle := root.authority(t, "intermediate")
	for name, test := range map[string]struct {
		key, roots []byte
		time       time.Time
		status     quote.Status
		word       string
	}{
		"chains":           {join(certPEM(middle.issue(t, key.signer.Public(), akCertificate)), middle.pem()), root.pem(), epoch, quote.Verified, `leads to "CN=root"`},
		"chain_cut_off":    {certPEM(middle.issue(t, key.signer.Public(), akCertificate)), root.pem(), epoch, quote.Failed, "unknown authority"},
		"no_roots":         {certPEM(root.issue(t, key.signer.Public(), akCertificate)), nil, epoch, quote.NotChecked, "taken as it is"},
		"other_roots":      {certPEM(root.issue(t, key.signer.Public(), akCertificate)), stranger.pem(), epoch, quote.Failed, "unknown authority"},
		"roots_of_garbage": {certPEM(root.issue(t, key.signer.Public(), akCertificate)), []byte("roots"), epoch, quote.Failed, "the roots"},
		"out_of_date":      {certPEM(root.issue(t, key.signer.Public(), akCertificate)), root.pem(), epoch.AddDate(11, 0, 0), quote.Failed, "expired"},
		"an_EK's":          {certPEM(root.issue(t, key.signer.Public(), ekCertificate)), root.pem(), epoch, quote.Failed, "signs no quotes"},
		"not_to_sign":      {certPEM(root.issue(t, key.signer.Public())), root.pem(), epoch, quote.Verified, ""},
		"an_authority's":   {certPEM(root.issue(t, key.signer.Public(), func(c *x509.Certificate) { c.IsCA = true })), root.pem(), epoch, quote.Failed, "authority's"},
		"other_critical_extension": {certPEM(root.issue(t, key.signer.Public(), akCertificate, func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{tpmName(true), {Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		})), root.pem(), epoch, quote.Failed, "unhandled critical extension"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: test.key, EKRoots: test.roots, Time: test.time})
			status(t, q, quote.Chain, test.status, test.word)
			status(t, q, quote.Signature, quote.Verified, "")
		})
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// TestEKAlone: an EK certificate is judged, and ties no key without a record.
func TestEKAlone(t *testing.T) {
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	root, stranger := newAuthority(t, "root"), newAuthority(t, "stranger")
	ek := root.issue(t, rsa2048().Public(), ekCertificate)
	for name, test := range map[string]struct {
		cert, roots []byte
		status      quote.Status
		word        string
	}{
		"PEM":               {certPEM(ek), root.pem(), quote.NotChecked, "no activation record"},
		"DER":               {ek, root.pem(), quote.NotChecked, "no activation record"},
		"DER_from_NV":       {append(bytes.Clone(ek), 0xff, 0xff, 0xff), root.pem(), quote.NotChecked, "no activation record"},
		"DER_and_more":      {append(bytes.Clone(ek), 1), root.pem(), quote.Failed, "1 bytes follow"},
		"other_roots":       {ek, stranger.pem(), quote.Failed, "unknown authority"},
		"no_roots":          {ek, nil, quote.Failed, "no roots"},
		"a_TLS_server's":    {root.issue(t, rsa2048().Public(), func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), root.pem(), quote.Failed, "2.23.133.8.1"},
		"without_key_usage": {root.issue(t, rsa2048().Public()), root.pem(), quote.NotChecked, "no activation record"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic(), EKCert: test.cert, EKRoots: test.roots, Time: epoch})
			status(t, q, quote.Chain, test.status, test.word)
		})
	}
}

// TestEKCertificatesOfSwtpm: the captures' certificates parse, with their
// critical subjectAltName; their root was not kept.
func TestEKCertificatesOfSwtpm(t *testing.T) {
	dir, ok := testlogs.Shared(t, "lab", "captures", "ng-small-6.1")
	if !ok {
		t.Skip("../shared/lab/captures is not here")
	}
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	for _, name := range []string{"ek-rsa-cert.der", "ek-ecc384-cert.der"} {
		q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic(), EKCert: testlogs.Read(t, filepath.Join(dir, name)),
			EKRoots: newAuthority(t, "swtpm-localca").pem(), Time: epoch.AddDate(0, 11, 0)})
		status(t, q, quote.Chain, quote.Failed, "unknown authority")
	}
}
