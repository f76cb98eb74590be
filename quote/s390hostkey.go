package quote

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tallystick/rtmr"
)

// s390HostKey is the public key of an IBM Z machine, and the host key document that
// says so: an X.509 certificate, signed by IBM's host key signing service.
type s390HostKey struct {
	document *x509.Certificate
	key      *ecdh.PublicKey // on P-521
	hash     rtmr.Hex        // PHKH
}

// parseS390HostKeys reads host key documents: PEM, or one in DER.
func parseS390HostKeys(data []byte) ([]s390HostKey, error) {
	documents, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("the host key documents: %w", err)
	}
	keys := make([]s390HostKey, len(documents))
	for i, document := range documents {
		public, ok := document.PublicKey.(*ecdsa.PublicKey)
		if !ok || public.Curve.Params().BitSize != 521 {
			return nil, fmt.Errorf("host key document %d: a key of the kind %s, expected ECC on P-521", i+1, document.PublicKeyAlgorithm)
		}
		key, err := public.ECDH()
		if err != nil {
			return nil, fmt.Errorf("host key document %d: %s", i+1, rtmr.Escape(err.Error()))
		}
		hash := sha256.Sum256(s390Coordinates(key))
		keys[i] = s390HostKey{document, key, hash[:]}
	}
	return keys, nil
}

// parseS390OwnerKey reads a private key on P-521: PEM or DER, PKCS #8 or SEC 1.
func parseS390OwnerKey(data []byte) (*ecdh.PrivateKey, error) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "PRIVATE KEY") { // beside EC PARAMETERS, as openssl writes them
			data = block.Bytes
			break
		}
	}
	key, err := x509.ParseECPrivateKey(data)
	if err != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(data)
		if err != nil {
			return nil, errors.New("the owner's key: neither PKCS #8 nor SEC 1, in PEM or DER, without a password")
		}
		key, _ = parsed.(*ecdsa.PrivateKey)
	}
	if key == nil || key.Curve.Params().BitSize != 521 {
		return nil, errors.New("the owner's key: of another kind, expected ECC on P-521")
	}
	private, err := key.ECDH()
	if err != nil {
		return nil, fmt.Errorf("the owner's key: %s", rtmr.Escape(err.Error()))
	}
	return private, nil
}

// s390Authority is what host key documents are held against.
type s390Authority struct {
	roots         *x509.CertPool
	intermediates *x509.CertPool
	signing       []*x509.Certificate // IBM's, of the host key signing service
	lists         []*x509.RevocationList
}

// parseS390Roots reads certificates and revocation lists, in PEM: a root, which is
// self-signed, what leads from it to IBM's host key signing key, and that. The root
// signs for others too, so IBM's key is told by its name.
func parseS390Roots(data []byte) (*s390Authority, error) {
	a := &s390Authority{roots: x509.NewCertPool(), intermediates: x509.NewCertPool()}
	certs, err := parseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("the roots of host key documents: %w", err)
	}
	rooted := false
	for _, cert := range certs {
		switch {
		case signsHostKeys(cert):
			a.signing = append(a.signing, cert)
		case bytes.Equal(cert.RawIssuer, cert.RawSubject):
			a.roots.AddCert(cert)
			rooted = true
		default:
			a.intermediates.AddCert(cert)
		}
	}
	if !rooted || len(a.signing) == 0 {
		return nil, errors.New("the roots of host key documents: expected a self-signed certificate, and that of IBM's host key signing service, in PEM")
	}
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return a, nil
		}
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the roots of host key documents: revocation list %d: %s", len(a.lists)+1, rtmr.Escape(err.Error()))
		}
		a.lists = append(a.lists, list)
	}
}

// signsHostKeys tells the certificate of IBM's signing service by its subject
// (s390-tools, libpv/cert.c).
func signsHostKeys(cert *x509.Certificate) bool {
	const ibm = "International Business Machines Corporation"
	is := func(have []string, want ...string) bool { return len(have) == 1 && slices.Contains(want, have[0]) }
	s := cert.Subject
	return len(s.Names) == 6 && s.CommonName == ibm && is(s.Organization, ibm) && is(s.Country, "US") &&
		is(s.Province, "New York") && is(s.Locality, "Poughkeepsie", "Armonk") &&
		len(s.OrganizationalUnit) == 1 && strings.HasSuffix(s.OrganizationalUnit[0], "Key Signing Service")
}

// verify leads a host key document to a root, and returns its certificates on the
// way, the document first. IBM's signing key has a certificate of no authority, and
// names that its documents do not repeat to the letter, so crypto/x509 alone will
// not take the first step.
func (a *s390Authority) verify(document *x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	i := slices.IndexFunc(a.signing, func(c *x509.Certificate) bool {
		return c.CheckSignature(document.SignatureAlgorithm, document.RawTBSCertificate, document.Signature) == nil
	})
	if i < 0 {
		return nil, errors.New("not signed by the given key of IBM's host key signing service")
	}
	switch signing := a.signing[i]; {
	case now.Before(document.NotBefore) || now.After(document.NotAfter):
		return nil, fmt.Errorf("valid from %s to %s, and not at %s", day(document.NotBefore), day(document.NotAfter), day(now))
	case len(document.AuthorityKeyId) > 0 && len(signing.SubjectKeyId) > 0 && !bytes.Equal(document.AuthorityKeyId, signing.SubjectKeyId):
		return nil, fmt.Errorf("by the key %x, and IBM's is %x", document.AuthorityKeyId, signing.SubjectKeyId)
	}
	chains, err := a.signing[i].Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: a.intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("IBM's host key signing key: %s", rtmr.Escape(err.Error()))
	}
	return append([]*x509.Certificate{document}, chains[0]...), nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// revocation holds each certificate of a chain against its issuer's lists.
func (a *s390Authority) revocation(chain []*x509.Certificate, now time.Time) Link {
	if len(a.lists) == 0 {
		return Link{Collateral, NotChecked, "no revocation lists among the given roots of host key documents"}
	}
	for i, cert := range chain[:len(chain)-1] {
		current := false
		for _, list := range a.lists {
			// NextUpdate may be absent, which RFC 5280 forbids: such a list is never current.
			if now.Before(list.ThisUpdate) || now.After(list.NextUpdate) ||
				chain[i+1].CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature) != nil {
				continue
			}
			current = true
			if slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 }) {
				return Link{Collateral, Failed, fmt.Sprintf("%s, serial number %x, is revoked", subject(cert), cert.SerialNumber)}
			}
		}
		if !current {
			return Link{Collateral, Missing, fmt.Sprintf("no current revocation list by %s was given, which signed %s", subject(chain[i+1]), subject(cert))}
		}
	}
	return Link{Collateral, Verified, "the host keys' certificates are on none of their issuers' revocation lists"}
}
