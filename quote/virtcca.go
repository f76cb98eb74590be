package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"tallystick/rtmr"
)

// Huawei's virtCCA, on Kunpeng processors, has Arm CCA's token with keys of its
// own. In its first form there is no platform token: the virtual machine's token is
// signed by the device's attestation key (AIK), RSA of 4096 bits, and the device's
// certificate is of that very key. In the second there is a platform token, signed
// by the device's key, on P-521, with the hash of the key in the virtual machine's
// token. Either way the device's certificate comes beside the token, and an
// intermediate CA and a root CA of Huawei's vouch for it (openEuler's virtCCA SDK,
// attestation/samples; secGear, verifier/src/virtcca).

// openVirtCCA opens a token that ParseCCA took for one of virtCCA's.
func openVirtCCA(p *CCAToken, opts *Options) (*Quote, error) {
	if err := opts.only("a virtCCA token", "hardware", "virtcca-roots"); err != nil {
		return nil, err
	}
	certs, err := virtCCACertificates(opts.Hardware)
	if err != nil {
		return nil, fmt.Errorf("the device's certificate: %w", err)
	}
	roots, err := virtCCACertificates(opts.VirtCCARoots)
	if err != nil {
		return nil, fmt.Errorf("the trusted roots given: %w", err)
	}
	q := p.quote(VirtCCA)
	q.Links = []Link{p.Realm.signature(), p.deviceChain(certs, roots, opts.now()), p.deviceBinding(certs)}
	q.Links = append(q.Links, p.policy()...)
	if p.Platform == nil {
		q.Warnings = append(q.Warnings, "the token has no platform token: nothing says which firmware the machine has, and that its lifecycle is secured")
	}
	return q, q.challenge(p, opts.Nonce)
}

// virtCCACertificates reads certificates in PEM or DER: the device's is the first.
func virtCCACertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return pemCertificates(data)
	}
	certs, err := x509.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("expected PEM or DER: %s", rtmr.Escape(err.Error()))
	}
	return certs, nil
}

// deviceChain checks that the device's certificate leads to a root that was given,
// and that the device's key signed the platform token, if there is one.
func (p *CCAToken) deviceChain(certs, trusted []*x509.Certificate, now time.Time) Link {
	if len(certs) == 0 {
		return Link{Chain, Missing, "the device's certificate (AIK) was not given, which comes beside the token"}
	}
	if p.Platform != nil {
		if err := p.Platform.verify(certs[0].PublicKey); err != nil {
			return Link{Chain, Failed, fmt.Sprintf("the platform token is not signed by the key of %s: %s", certName(certs[0]), err)}
		}
	}
	if len(trusted) == 0 {
		return Link{Chain, Missing, fmt.Sprintf("no root certificate of Huawei's was given, to which %s, issued by %s, could lead", certName(certs[0]), rtmr.Escape(certs[0].Issuer.CommonName))}
	}
	chain, err := leadsTo(certs, trusted, now)
	if err != nil {
		return Link{Chain, Failed, fmt.Sprintf("%s: %s", certName(certs[0]), rtmr.Escape(err.Error()))}
	}
	text := certNames(chain) + " (a given root)"
	if p.Platform != nil {
		text = fmt.Sprintf("the platform token, %s by the device's key; %s", p.Platform.algorithm(), text)
	}
	return Link{Chain, Verified, text}
}

// leadsTo verifies the first certificate. Of those that are trusted, the
// self-signed ones are roots, and the others issuers, as those behind the first.
func leadsTo(certs, trusted []*x509.Certificate, now time.Time) ([]*x509.Certificate, error) {
	roots, issuers, own := x509.NewCertPool(), x509.NewCertPool(), false
	for _, cert := range trusted {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			roots.AddCert(cert)
			own = true
		} else {
			issuers.AddCert(cert)
		}
	}
	if !own {
		return nil, errors.New("no self-signed certificate in the trusted roots given")
	}
	for _, cert := range certs[1:] {
		issuers.AddCert(cert)
	}
	chains, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: issuers, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return nil, err
	}
	return chains[0], nil
}

// deviceBinding checks that the device vouches for the key in the virtual
// machine's token: by the platform token, or by being of that key.
func (p *CCAToken) deviceBinding(certs []*x509.Certificate) Link {
	if p.Platform != nil {
		return p.binding()
	}
	if len(certs) == 0 {
		return Link{Binding, Missing, "without a platform token, the device's certificate has to be of the token's key, and was not given"}
	}
	key, err := p.Realm.key()
	if err != nil {
		return Link{Binding, Failed, "the token's key: " + rtmr.Escape(err.Error())}
	}
	equal := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		equal = k.Equal(certs[0].PublicKey)
	case *ecdsa.PublicKey:
		equal = k.Equal(certs[0].PublicKey)
	}
	if !equal {
		return Link{Binding, Failed, fmt.Sprintf("%s is of another key than the token's", certName(certs[0]))}
	}
	return Link{Binding, Verified, certName(certs[0]) + " is of the token's key"}
}
