package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify/trust"

	"tallystick/rtmr"
)

// snpHardware is what vouches for a report: the certificate of the key that
// signed it, maybe its issuers', and maybe revocation lists.
type snpHardware struct {
	certs []*x509.Certificate
	crls  []*x509.RevocationList
}

// hardware is what was given, or else what stands behind the report.
func (p *SNPReport) hardware(given []byte) (*snpHardware, error) {
	if len(given) > 0 {
		h, err := parseSNPHardware(given)
		if err != nil {
			return nil, fmt.Errorf("what vouches for the report: %w", err)
		}
		return h, nil
	}
	h, err := certificateTable(p.Certificates)
	if err != nil {
		return nil, fmt.Errorf("offset %#x: certificate table: %w", SNPReportSize, err)
	}
	return h, nil
}

// parseSNPHardware reads certificates in PEM or DER, one behind the other, as
// AMD's key distribution service sends them, with revocation lists in PEM
// between them or not; or a certificate table, as Linux' configfs gives it in
// auxblob.
func parseSNPHardware(data []byte) (*snpHardware, error) {
	h := &snpHardware{}
	if block, rest := pem.Decode(data); block != nil {
		for n := 0; block != nil; block, rest = pem.Decode(rest) {
			if err := h.addPEM(block); err != nil {
				return nil, fmt.Errorf("PEM block %d: %w", n, err)
			}
			n++
		}
		return h, nil
	}
	certs, err := x509.ParseCertificates(data)
	if err == nil && len(certs) > 0 {
		return &snpHardware{certs: certs}, nil
	}
	if table, err := certificateTable(data); err == nil && len(table.certs) > 0 {
		return table, nil
	}
	return nil, fmt.Errorf("expected a VCEK's or VLEK's certificate in PEM or DER, or a certificate table: %w", err)
}

func (h *snpHardware) addPEM(block *pem.Block) error {
	if block.Type == "X509 CRL" {
		crl, err := x509.ParseRevocationList(block.Bytes)
		if err == nil {
			h.crls = append(h.crls, crl)
		}
		return err
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		h.certs = append(h.certs, cert)
	}
	return err
}

// certificateTable reads the certificates that a host gives its guest with a
// report: entries of GUID (16 bytes), offset and length (le32), up to one of
// zeros, and then the certificates. What each is, its name tells, so the GUIDs
// are not looked at; what is neither a certificate nor a revocation list is left
// out.
func certificateTable(table []byte) (*snpHardware, error) {
	const size, mostEntries = 24, 32 // there are kinds of certificates for six
	h := &snpHardware{}
	for at := 0; !allZero(table[at:min(at+size, len(table))]); at += size {
		if at >= mostEntries*size {
			return nil, fmt.Errorf("offset %d: another entry, expected %d at most", at, mostEntries)
		}
		if len(table)-at < size {
			return nil, fmt.Errorf("offset %d: the entry ends after %d bytes, expected %d", at, len(table)-at, size)
		}
		offset := uint64(binary.LittleEndian.Uint32(table[at+16:]))
		length := uint64(binary.LittleEndian.Uint32(table[at+20:]))
		if offset+length > uint64(len(table)) {
			return nil, fmt.Errorf("offset %d: an entry of %d bytes at %d, expected to end by %d", at, length, offset, len(table))
		}
		entry := table[offset : offset+length]
		if cert, err := x509.ParseCertificate(entry); err == nil {
			h.certs = append(h.certs, cert)
		} else if crl, err := x509.ParseRevocationList(entry); err == nil {
			h.crls = append(h.crls, crl)
		}
	}
	return h, nil
}

// leaf picks the certificate of the key that signed: of those with its name the
// one that is of the report's chip and firmware, or else the first, and the first
// of all if none has the name. A file may hold those of many machines.
func (p *SNPReport) leaf(certs []*x509.Certificate) *x509.Certificate {
	named := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool {
		return c.Subject.CommonName != snpCommonName(p.signer())
	})
	if len(named) == 0 {
		return certs[0]
	}
	i := slices.IndexFunc(named, func(c *x509.Certificate) bool { return p.issuedFor(c) == nil })
	return named[max(i, 0)]
}

func snpCommonName(key abi.ReportSigner) string { return "SEV-" + key.String() }

func snpName(c *x509.Certificate) string { return rtmr.Escape(c.Subject.CommonName) }

// chain checks that the certificate leads to a root, and is of the chip and the
// firmware that the report is of. The certificates are those from the key's to
// the root's, nil where they do not lead there.
func (p *SNPReport) chain(h *snpHardware, roots *snpRoots, now time.Time) (Link, []*x509.Certificate) {
	if len(h.certs) == 0 {
		return Link{Chain, Missing, "no certificate given"}, nil
	}
	leaf := p.leaf(h.certs)
	if want := snpCommonName(p.signer()); leaf.Subject.CommonName != want {
		return Link{Chain, Failed, fmt.Sprintf("%s is no certificate of a %s, expected the name %s", snpName(leaf), p.signer(), want)}, nil
	}
	chain, err := roots.verify(leaf, h.certs, now)
	if err != nil {
		return Link{Chain, Failed, fmt.Sprintf("%s: %s", snpName(leaf), rtmr.Escape(err.Error()))}, nil
	}
	if err := p.issuedFor(leaf); err != nil {
		return Link{Chain, Failed, rtmr.Escape(err.Error())}, nil
	}
	names := make([]string, len(chain))
	for i, cert := range chain {
		names[i] = snpName(cert)
	}
	text := fmt.Sprintf("%s (%s); issued for this chip's REPORTED_TCB", strings.Join(names, ", "), roots.whose)
	if len(h.crls) == 0 {
		text += "; no revocation list was given"
	}
	return Link{Chain, Verified, text}, chain
}

// revocation tells whether the root has revoked a certificate on the way from it.
// AMD's roots list issuers alone: keys of chips are left behind by REPORTED_TCB.
func (h *snpHardware) revocation(chain []*x509.Certificate, now time.Time) Link {
	if chain == nil {
		return Link{Collateral, Missing, "no chain, whose root's revocation list could be looked for"}
	}
	root := chain[len(chain)-1]
	i := slices.IndexFunc(h.crls, func(crl *x509.RevocationList) bool { return crl.CheckSignatureFrom(root) == nil })
	if i < 0 {
		return Link{Collateral, Failed, fmt.Sprintf("of %d revocation lists none is signed by %s", len(h.crls), snpName(root))}
	}
	crl := h.crls[i]
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	if now.Before(crl.ThisUpdate) || !now.Before(crl.NextUpdate) {
		return Link{Collateral, Failed, fmt.Sprintf("the revocation list of %s is for %s to %s", snpName(root), day(crl.ThisUpdate), day(crl.NextUpdate))}
	}
	for i, cert := range chain[:len(chain)-1] {
		if !bytes.Equal(chain[i+1].Raw, root.Raw) {
			continue // another's to revoke
		}
		for _, revoked := range crl.RevokedCertificateEntries {
			if revoked.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return Link{Collateral, Failed, fmt.Sprintf("%s revoked %s on %s", snpName(root), snpName(cert), day(revoked.RevocationTime))}
			}
		}
	}
	return Link{Collateral, Verified, fmt.Sprintf("the revocation list of %s, of %s, has none of these certificates", snpName(root), day(crl.ThisUpdate))}
}

// amdRoots are AMD's root certificates, and the intermediate ones of both keys,
// of all product lines that go-sev-guest carries.
var amdRoots = sync.OnceValues(func() (*snpRoots, error) {
	r := &snpRoots{whose: "AMD's", roots: x509.NewCertPool()}
	for _, bundle := range [][]byte{
		trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes, trust.AskArkGenoaVcekBytes,
		trust.AskArkGenoaVlekBytes, trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes,
	} {
		h, err := parseSNPHardware(bundle)
		if err != nil || len(h.certs) != 2 {
			return nil, errors.New("AMD's embedded certificates cannot be read")
		}
		r.issuers = append(r.issuers, h.certs[0])
		r.addRoot(h.certs[1])
	}
	return r, nil
})

type snpRoots struct {
	whose   string
	roots   *x509.CertPool
	own     []*x509.Certificate // the roots again
	issuers []*x509.Certificate
}

func (r *snpRoots) addRoot(cert *x509.Certificate) {
	r.roots.AddCert(cert)
	r.own = append(r.own, cert)
}

// trustedSNPRoots are AMD's, or those that were given in their place.
func trustedSNPRoots(opts *Options) (*snpRoots, error) {
	if len(opts.SNPRoots) == 0 {
		return amdRoots()
	}
	given, err := parseSNPHardware(opts.SNPRoots)
	if err != nil {
		return nil, fmt.Errorf("the trusted roots given: %w", err)
	}
	r := &snpRoots{whose: "a given root", roots: x509.NewCertPool()}
	for _, cert := range given.certs {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			r.addRoot(cert)
		} else {
			r.issuers = append(r.issuers, cert)
		}
	}
	if len(r.own) == 0 {
		return nil, errors.New("no self-signed certificate in the trusted roots given")
	}
	return r, nil
}

// verify leads a certificate to a root. The certificates that came with it may be
// issuers on the way, and are never roots.
func (r *snpRoots) verify(leaf *x509.Certificate, with []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	issuers := x509.NewCertPool()
	for _, cert := range slices.Concat(r.issuers, with) {
		issuers.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: r.roots, Intermediates: issuers, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }
