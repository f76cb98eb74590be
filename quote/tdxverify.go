package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tdx-guest/abi"
	"github.com/google/go-tdx-guest/verify"

	"tallystick/rtmr"
)

// A TD quote is vouched for in steps, and each has a link. The quote's
// signature is by an attestation key; the QE's report has that key's hash; the
// PCK signed the QE's report; Intel's CAs signed the PCK; and Intel's signed
// collateral says whether platform, TDX module and QE are up to date.
//
// go-tdx-guest's verifier checks it all, but in one call with one error, which
// tells a bad chain before it looks at the signature. So each link is checked
// here, with the standard library, and where all of them hold, go-tdx-guest has
// to agree: a refusal of its makes the link Failed. Its word alone would not do,
// either: it takes collateral from the future, judges a TDX 1.5 platform by
// its module's TCB level only, and panics at sizes that ParseTDX refuses. It
// never gets to the network: it is given no collateral, or a getter that has the
// files.

// intelRoot is the SHA-256 of the DER of Intel's certificate "Intel SGX Root
// CA", valid from 2018-05-21 to 2049-12-31, which every chain of Intel's ends
// in and carries.
var intelRoot = [32]byte{
	0x44, 0xa0, 0x19, 0x6b, 0x2b, 0x99, 0xf8, 0x89, 0xb8, 0xe1, 0x49, 0xe9, 0x5b, 0x80, 0x7a, 0x35,
	0x0e, 0x74, 0x24, 0x96, 0x43, 0x99, 0xe8, 0x85, 0xa7, 0xcb, 0xb8, 0xcc, 0xfa, 0xb6, 0x74, 0xd3,
}

// tdxChecker checks one quote.
type tdxChecker struct {
	quote *TDXQuote
	raw   []byte // the quote, without what trails it
	now   time.Time

	certs    []*x509.Certificate // of the quote: PCK, intermediate, root
	certsErr error               // why there are none, or fewer
	roots    *x509.CertPool      // trusted; empty if none of the chain's is Intel's
	ownRoots bool                // the caller's, Options.TDXRoots
}

func newTDXChecker(q *TDXQuote, data []byte, opts *Options) (*tdxChecker, error) {
	c := &tdxChecker{quote: q, raw: data[:len(data)-len(q.Trailing)], now: opts.now(), roots: x509.NewCertPool()}
	if q.CertificationType == certPCKChain {
		c.certs, c.certsErr = pemCertificates(q.Certification)
	} else {
		c.certsErr = fmt.Errorf("certification data of type %d holds no certificates, expected type 5", q.CertificationType)
	}
	if opts.TDXRoots != nil {
		c.ownRoots = true
		if !c.roots.AppendCertsFromPEM(opts.TDXRoots) {
			return nil, errors.New("no PEM certificate in the trusted roots given")
		}
		return c, nil
	}
	for _, cert := range c.certs {
		if sha256.Sum256(cert.Raw) == intelRoot {
			c.roots.AddCert(cert)
		}
	}
	return c, nil
}

// pemCertificates reads PEM certificates one after another; other blocks and
// text between are an error, a NUL at the end is not.
func pemCertificates(data []byte) (certs []*x509.Certificate, err error) {
	for rest := bytes.Trim(data, "\x00 \t\r\n"); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs, fmt.Errorf("PEM certificate %d cannot be decoded", len(certs))
		}
		if block.Type != "CERTIFICATE" {
			return certs, fmt.Errorf("PEM block %d is %s, expected CERTIFICATE", len(certs), rtmr.Escape(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return certs, fmt.Errorf("certificate %d: %s", len(certs), rtmr.Escape(err.Error()))
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// signature checks the quote's signature down to the PCK.
func (c *tdxChecker) signature() Link {
	q := c.quote
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.AttestationKey...))
	if err != nil {
		return Link{Signature, Failed, "the attestation key is no point on P-256"}
	}
	der, err := abi.SignatureToDER(q.Signature)
	if digest := sha256.Sum256(q.Signed); err != nil || !ecdsa.VerifyASN1(key, digest[:], der) {
		return Link{Signature, Failed, "the signature is not one by the attestation key over this header and body"}
	}
	bound := sha256.Sum256(append(bytes.Clone(q.AttestationKey), q.QEAuthData...))
	if reported := q.qeReportData(); !bytes.Equal(reported[:32], bound[:]) || bytes.Count(reported[32:], []byte{0}) != 32 {
		return Link{Signature, Failed, fmt.Sprintf("the QE report is of another attestation key: its REPORTDATA is %x, expected %x and zeros", reported, bound)}
	}
	if len(c.certs) == 0 {
		return Link{Signature, Missing, "the attestation key signed header and body, but nothing vouches for the key: " + orNone(c.certsErr)}
	}
	der, err = abi.SignatureToDER(q.QEReportSignature)
	if err != nil || c.certs[0].CheckSignature(x509.ECDSAWithSHA256, q.QEReport, der) != nil {
		return Link{Signature, Failed, fmt.Sprintf("the QE report is not signed by the key of the quote's first certificate, %s", certName(c.certs[0]))}
	}
	return Link{Signature, Verified, "header and body are signed by the attestation key (ECDSA P-256), the QE report holds that key's hash, the PCK signed the QE report"}
}

// qeReportData is the QE report's REPORTDATA, its last 64 bytes.
func (q *TDXQuote) qeReportData() []byte { return q.QEReport[320:384] }

func orNone(err error) string {
	if err == nil {
		return "the quote has no certificates"
	}
	return err.Error()
}

// chain checks that the PCK's certificate leads to a trusted root. signed says
// that the signature verified, so that go-tdx-guest can be asked too.
func (c *tdxChecker) chain(signed bool) Link {
	switch {
	case len(c.certs) == 0:
		return Link{Chain, Missing, orNone(c.certsErr)}
	case c.certsErr != nil:
		return Link{Chain, Failed, c.certsErr.Error()}
	case len(c.certs) != 3:
		return Link{Chain, Failed, fmt.Sprintf("%d certificates (%s), expected 3: PCK, intermediate CA, root CA", len(c.certs), certNames(c.certs))}
	}
	root := c.certs[2]
	if print := sha256.Sum256(root.Raw); !c.ownRoots && print != intelRoot {
		return Link{Chain, Failed, fmt.Sprintf("the chain ends in %s of SHA-256 %x, which is not Intel's root %x", certName(root), print, intelRoot)}
	}
	if err := c.toRoot(c.certs[0], c.certs[1]); err != nil {
		return Link{Chain, Failed, rtmr.Escape(err.Error())}
	}
	if signed {
		if err := c.secondOpinion(nil); err != nil {
			return Link{Chain, Failed, "go-tdx-guest refuses the quote: " + rtmr.Escape(err.Error())}
		}
	}
	whose := "Intel's"
	if c.ownRoots {
		whose = "a given root"
	}
	return Link{Chain, Verified, fmt.Sprintf("%s, which is %s, valid at %s", certNames(c.certs), whose, c.now.UTC().Format(time.RFC3339))}
}

// toRoot verifies that a certificate leads to a trusted root at the time.
func (c *tdxChecker) toRoot(cert *x509.Certificate, intermediates ...*x509.Certificate) error {
	pool := x509.NewCertPool()
	for _, i := range intermediates {
		pool.AddCert(i)
	}
	_, err := cert.Verify(x509.VerifyOptions{Roots: c.roots, Intermediates: pool, CurrentTime: c.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return fmt.Errorf("%s: %w", certName(cert), err)
	}
	return nil
}

// secondOpinion is go-tdx-guest's, with collateral if it gets any. TrustedRoots
// is always set: without, it trusts Intel's root and prints that to standard
// output.
func (c *tdxChecker) secondOpinion(from *offlinePCS) error {
	proto, err := abi.QuoteToProto(c.raw)
	if err != nil {
		return err
	}
	opts := &verify.Options{
		TrustedRoots: c.roots,
		Now:          &verify.TimeSet{PckCertChain: c.now, TcbInfo: c.now, QeIdentity: c.now, PckCrl: c.now, RootCaCrl: c.now},
	}
	if from != nil {
		opts.GetCollateral, opts.Getter = true, from
		opts.CheckRevocations = from.pckCRL != nil && from.rootCRL != nil
	}
	return verify.TdxQuote(proto, opts)
}

// certName is a certificate's subject in a few words.
func certName(c *x509.Certificate) string {
	name := c.Subject.CommonName
	if name == "" {
		name = c.Subject.String()
	}
	return rtmr.Escape(name)
}

func certNames(certs []*x509.Certificate) string {
	names := ""
	for i, c := range certs {
		if i > 0 {
			names += " -> "
		}
		names += certName(c)
		if i == 0 && len(c.SerialNumber.Bytes()) > 0 {
			names += " " + hex.EncodeToString(c.SerialNumber.Bytes())
		}
	}
	return names
}
