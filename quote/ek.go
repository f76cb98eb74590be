package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// Object identifiers of the TCG EK Credential Profile and of RFC 5280.
var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEKCertificate  = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
)

// parseCertificates reads one or more certificates: PEM, or DER, of which what
// was read from a TPM's NV index may be followed by the index's filling.
func parseCertificates(data []byte) (certs []*x509.Certificate, err error) {
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		for rest := data; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				continue
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d in PEM: %s", len(certs)+1, rtmr.Escape(err.Error()))
			}
			certs = append(certs, cert)
		}
		if len(certs) == 0 {
			return nil, errors.New("PEM without a CERTIFICATE block")
		}
		return certs, nil
	}
	var der asn1.RawValue
	rest, err := asn1.Unmarshal(data, &der)
	if err != nil {
		return nil, fmt.Errorf("neither PEM nor DER: %s", rtmr.Escape(err.Error()))
	}
	if len(bytes.Trim(rest, "\x00\xff")) > 0 {
		return nil, fmt.Errorf("DER: %d bytes follow the certificate", len(rest))
	}
	cert, err := x509.ParseCertificate(der.FullBytes)
	if err != nil {
		return nil, fmt.Errorf("DER: %s", rtmr.Escape(err.Error()))
	}
	return []*x509.Certificate{cert}, nil
}

// purpose is what a certificate has to be for.
type purpose int

const (
	endorses purpose = iota // the key decrypts credentials
	attests                 // the key signs quotes
)

// chainTo verifies certs[0], with the others as intermediates, up to one of the
// roots, and returns that root's subject.
//
// TPMs' certificates name the TPM in a critical subjectAltName of a
// directoryName alone, which crypto/x509 leaves unhandled: nothing here depends
// on that name, so it is taken out of that list, and no other extension is. The
// key usages that they state are no TLS's, so any is allowed and the ones that
// matter are looked at by usable.
func chainTo(roots []byte, certs []*x509.Certificate, p purpose, opts *Options) (string, error) {
	trusted, err := parseCertificates(roots)
	if err != nil {
		return "", fmt.Errorf("the roots: %w", err)
	}
	leaf := *certs[0]
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions),
		func(id asn1.ObjectIdentifier) bool { return id.Equal(oidSubjectAltName) })
	verify := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   opts.now(),
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range trusted {
		verify.Roots.AddCert(c)
	}
	for _, c := range certs[1:] {
		verify.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(verify)
	if err != nil {
		return "", errors.New(rtmr.Escape(err.Error()))
	}
	if err := usable(&leaf, p); err != nil {
		return "", err
	}
	return subject(chains[0][len(chains[0])-1]), nil
}

// usable reports whether a certificate is for what it is used for. A
// manufacturer's roots sign certificates of all kinds.
func usable(cert *x509.Certificate, p purpose) error {
	ekCert := slices.ContainsFunc(cert.UnknownExtKeyUsage, oidEKCertificate.Equal)
	states := len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0
	signs := cert.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) != 0
	switch {
	case cert.IsCA:
		return errors.New("it is a certificate authority's, not a key's")
	case p == endorses && states && !ekCert:
		return errors.New("its extended key usage is not tcg-kp-EKCertificate (2.23.133.8.1)")
	case p == attests && ekCert:
		return errors.New("it is an endorsement key's certificate, which signs no quotes")
	case p == attests && cert.KeyUsage != 0 && !signs:
		return errors.New("its key usage is not to sign")
	}
	return nil
}

// subject names a certificate, for people.
func subject(cert *x509.Certificate) string {
	if name := cert.Subject.String(); name != "" {
		return `"` + rtmr.Escape(name) + `"`
	}
	return fmt.Sprintf("serial number %x", cert.SerialNumber)
}

// given says where an attestation key came from, and so what it is worth
// before anything else vouches for it.
type given int

const (
	byCaller   given = iota // Options.Key
	byEvidence              // the evidence's own bundle, which anyone may have made
)

// keyChain tells what ties the attestation key to a root: a certificate of the
// key itself, or the endorsement key's certificate with a credential activation.
func keyChain(key *tpmKey, from given, opts *Options) Link {
	switch {
	case key == nil:
		return Link{Chain, Missing, "no key was given (--key)"}
	case len(opts.Activation) > 0:
		return activationChain(key, opts)
	case len(key.certs) > 0 && len(opts.EKRoots) > 0:
		root, err := chainTo(opts.EKRoots, key.certs, attests, opts)
		if err != nil {
			return Link{Chain, Failed, fmt.Sprintf("the key's certificate %s: %s", subject(key.certs[0]), err)}
		}
		return Link{Chain, Verified, fmt.Sprintf("the key's certificate %s leads to %s", subject(key.certs[0]), root)}
	case len(opts.EKCert) > 0:
		return endorsementAlone(from, opts)
	case from == byCaller:
		return Link{Chain, NotChecked, "the key was given and is taken as it is"}
	case len(key.certs) > 0:
		return Link{Chain, Missing, fmt.Sprintf("the key comes with its own evidence, and no roots were given (--ek-roots) for its certificate %s", subject(key.certs[0]))}
	}
	return Link{Chain, Missing, "the key comes with its own evidence, and nothing given ties it to a TPM (--key, or --ek-cert, --ek-roots and --activation)"}
}

// endorsementAlone judges an EK certificate without an activation record: it
// may be genuine, and says nothing of the attestation key.
func endorsementAlone(from given, opts *Options) Link {
	said, err := endorsement(opts.EKCert, opts)
	switch {
	case err != nil:
		return Link{Chain, Failed, err.Error()}
	case from == byCaller:
		return Link{Chain, NotChecked, "the key was given and is taken as it is: " + said + ", and no activation record (--activation) ties the key to it"}
	}
	return Link{Chain, Missing, said + ", and no activation record (--activation) ties the key to it"}
}

// endorsement verifies an EK certificate and says to what it leads.
func endorsement(cert []byte, opts *Options) (said string, err error) {
	certs, err := parseCertificates(cert)
	if err != nil {
		return "", fmt.Errorf("the EK certificate: %w", err)
	}
	if len(opts.EKRoots) == 0 {
		return "", fmt.Errorf("no roots were given (--ek-roots) for the EK certificate %s", subject(certs[0]))
	}
	root, err := chainTo(opts.EKRoots, certs, endorses, opts)
	if err != nil {
		return "", fmt.Errorf("the EK certificate %s: %w", subject(certs[0]), err)
	}
	return fmt.Sprintf("the EK certificate %s leads to %s", subject(certs[0]), root), nil
}
