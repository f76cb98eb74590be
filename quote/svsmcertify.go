package quote

import (
	"bytes"
	"fmt"
	"strings"
)

// ekUse is how an endorsement key ties another key to its TPM.
type ekUse int

const (
	toDecrypt ekUse = iota // credentials, as the TCG's templates have it
	toSign                 // what it certifies
)

func (u ekUse) String() string {
	if u == toSign {
		return "sign what it certifies"
	}
	return "decrypt credentials"
}

// lacks names the attributes without which a key does not prove what it is used
// for: one that is not restricted signs, and decrypts, what its owner likes.
func (u ekUse) lacks(k *tpmKey) (names []string) {
	a := &k.area.ObjectAttributes
	for _, attribute := range []struct {
		name string
		set  bool
	}{
		{"fixedTPM", a.FixedTPM}, {"fixedParent", a.FixedParent}, {"sensitiveDataOrigin", a.SensitiveDataOrigin},
		{"restricted", a.Restricted}, {"decrypt", a.Decrypt || u == toSign}, {"sign", a.SignEncrypt || u == toDecrypt},
	} {
		if !attribute.set {
			names = append(names, attribute.name)
		}
	}
	return names
}

func lacks(attributes []string) string {
	return "lacks the attributes " + strings.Join(attributes, ", ")
}

// tpmCertify is a TPMS_ATTEST of type certify or creation (Part 2 §10.12.4 and
// §10.12.9), by which a key says that another one is in its TPM.
type tpmCertify struct {
	raw  []byte
	name []byte // of the other key
}

const (
	tpmAttestCertify  = 0x8017 // TPM_ST_ATTEST_CERTIFY
	tpmAttestCreation = 0x801a // TPM_ST_ATTEST_CREATION
)

// parseTPMCertify reads a TPMS_ATTEST or TPM2B_ATTEST to its last byte.
func parseTPMCertify(data []byte) (*tpmCertify, error) {
	raw, from := unwrap2B(data)
	b := bigEndian(raw)
	b.base = from
	a := &tpmAttest{}
	c := &tpmCertify{raw: raw}
	if a.header(b, tpmAttestCertify, tpmAttestCreation) == tpmAttestCertify {
		c.name = b.sized("name")
		b.sized("qualifiedName")
	} else {
		c.name = b.sized("objectName")
		b.sized("creationHash")
	}
	return c, b.end("the structure")
}

// certified tells whether the manifest's endorsement key certified the attestation
// key. It proves nothing of when: keys are fixed to their TPM.
func (m *SVSMManifest) certified(key *tpmKey, opts *Options) (Link, error) {
	c, err := parseTPMCertify(opts.Certify)
	if err != nil {
		return Link{}, fmt.Errorf("--certify: TPMS_ATTEST: %w", err)
	}
	s, err := parseTPMSignature(opts.CertifySignature)
	if err != nil {
		return Link{}, fmt.Errorf("--certify-signature: %w", err)
	}
	ek, err := m.endorsement(toSign)
	if err != nil {
		return Link{Chain, Failed, fmt.Sprintf("the certification: %s", err)}, nil
	}
	hash := s.hash
	if hash == 0 {
		hash = ek.hash
	}
	switch {
	case key.name == nil:
		return Link{Chain, Missing, "the key was given without its attributes, and the certification is of its name: expected TPM2B_PUBLIC or TPMT_PUBLIC"}, nil
	case len(key.lacks()) > 0:
		return Link{Chain, Failed, "the key " + lacks(key.lacks()) + ": that it is in the TPM does not make what it signs the TPM's own"}, nil
	case !bytes.Equal(c.name, key.name):
		return Link{Chain, Failed, fmt.Sprintf("the certification is of the key named %x, the quote's key has the name %x", c.name, key.name)}, nil
	}
	if err := verifySigned(c.raw, s, ek, hash); err != nil {
		return Link{Chain, Failed, fmt.Sprintf("the certification is not by the services manifest's endorsement key, %s: %s", ek, err)}, nil
	}
	return Link{Chain, Verified, fmt.Sprintf("the services manifest's endorsement key certified the key named %x", c.name)}, nil
}
