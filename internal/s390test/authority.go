package s390test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"slices"
	"time"
)

// Day is when the certificates are valid: from a year before to a year behind it.
var Day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Authority stands in IBM's place and DigiCert's: a root, an issuer by it, and by
// that the host key signing service, whose certificate is no authority's.
type Authority struct {
	Root, Issuer, Signing          *x509.Certificate
	rootKey, issuerKey, signingKey crypto.Signer
}

// SigningName is the subject of IBM's host key signing service.
func SigningName() pkix.Name {
	const ibm = "International Business Machines Corporation"
	return pkix.Name{Country: []string{"US"}, Province: []string{"New York"}, Locality: []string{"Poughkeepsie"},
		Organization: []string{ibm}, OrganizationalUnit: []string{"IBM Z Host Key Signing Service"}, CommonName: ibm}
}

// NewAuthority makes an authority whose signing service has that name.
func NewAuthority(signing pkix.Name) *Authority {
	a := &Authority{rootKey: ECDSA(Key("root")), issuerKey: ECDSA(Key("issuer")), signingKey: ECDSA(Key("signing"))}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	root := ca("A root of the tests")
	a.Root = certificate(1, root, root, a.rootKey, a.rootKey)
	a.Issuer = certificate(2, ca("An issuer of the tests"), a.Root, a.issuerKey, a.rootKey)
	a.Signing = certificate(3, &x509.Certificate{Subject: signing, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign}, a.Issuer, a.signingKey, a.issuerKey)
	return a
}

// Document makes the host key document of a key, in PEM.
func (a *Authority) Document(serial int64, key *ecdh.PublicKey) []byte {
	name := SigningName()
	name.Locality, name.OrganizationalUnit = []string{"Armonk"}, []string{"IBM Z Host Key"}
	template := &x509.Certificate{Subject: name, KeyUsage: x509.KeyUsageKeyAgreement}
	return certPEM(sign(serial, template, a.Signing, Public(key), a.signingKey).Raw)
}

// Public is a public key for certificates.
func Public(key *ecdh.PublicKey) crypto.PublicKey {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		panic(err)
	}
	return public
}

// Lists makes each authority's revocation list, in PEM, all valid for 30 days from
// Day, with those serial numbers on the signing service's.
func (a *Authority) Lists(revoked ...int64) (out []byte) {
	for i, by := range []struct {
		cert *x509.Certificate
		key  crypto.Signer
	}{{a.Root, a.rootKey}, {a.Issuer, a.issuerKey}, {a.Signing, a.signingKey}} {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: Day.AddDate(0, 0, -1), NextUpdate: Day.AddDate(0, 0, 30)}
		for _, serial := range revoked {
			if i == 2 {
				list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: Day})
			}
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
		if err != nil {
			panic(err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}

// Roots are all certificates of the authority, in PEM, the root last.
func (a *Authority) Roots() []byte {
	return slices.Concat(certPEM(a.Signing.Raw), certPEM(a.Issuer.Raw), certPEM(a.Root.Raw))
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func certificate(serial int64, template, parent *x509.Certificate, key, by crypto.Signer) *x509.Certificate {
	return sign(serial, template, parent, key.Public(), by)
}

func sign(serial int64, template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(serial), Day.AddDate(-1, 0, 0), Day.AddDate(1, 0, 0)
	template.SubjectKeyId = []byte{byte(serial), 1, 2, 3}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}
