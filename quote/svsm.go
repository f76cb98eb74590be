package quote

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// An SVSM runs at VMPL 0 of an SEV-SNP guest, above the guest's kernel, and keeps
// a TPM for it. One chain leads from the hardware to a PCR:
//
//   - the hardware signs a report, asked for at VMPL 0;
//   - its REPORT_DATA is SHA-512(nonce ‖ manifest) (document 58019, "Attestation
//     Protocol"), and the manifest has the TPM's endorsement key;
//   - a credential activation, or what that key signed, ties the attestation key
//     to it; or the manifest has the attestation key itself;
//   - the attestation key signs the quote.
//
// A guest without an SVSM has its kernel at VMPL 0, which may do all of this with a
// TPM that it makes up. That an SVSM runs there is what the launch measurement says,
// and without one that is expected nothing does.
//
// The nonce has 64 bytes, always: of a shorter one a guest that asks with a longer
// one could make the first bytes of a manifest, whatever they should be, and so
// an endorsement key out of the real one's bytes.

// svsmNonce is the nonce's size (COCONUT-SVSM, kernel/src/protocols/attest.rs, and
// Linux' inblob).
const svsmNonce = 64

// openSVSM opens a quote of a vTPM by the services manifest that has its
// endorsement key, and the report that stands for that.
func openSVSM(attest []byte, opts *Options) (*Quote, error) {
	if err := opts.only("a quote of an SVSM's vTPM", "signature", "key", "report", "hardware", "snp-roots",
		"svsm-manifest", "report-nonce", "activation", "certify", "certify-signature"); err != nil {
		return nil, err
	}
	manifest, err := ParseSVSMManifest(opts.SVSMManifest)
	if err != nil {
		return nil, fmt.Errorf("the services manifest: %w", err)
	}
	nonce, err := opts.svsmNonce()
	if err != nil {
		return nil, err
	}
	key, err := givenKey(opts)
	if err != nil {
		return nil, err
	}
	chain, err := manifest.chain(key, opts)
	if err != nil {
		return nil, err
	}
	q, err := openTPM(attest, opts.Signature, key, chain, opts)
	if err != nil {
		return nil, err
	}
	q.Kind, q.Version = SVSM, manifest.Version
	q.Facts = append(q.Facts, manifest.facts()...)
	if len(opts.Report) == 0 {
		q.setLink(both(chain, Link{Chain, Missing, "no report of the hardware's was given (--report), which stands for the services manifest"}))
		return q, nil
	}
	report, err := openInside(opts.Report, opts.inner())
	if err != nil {
		return nil, fmt.Errorf("the report: %w", err)
	}
	if report.Kind != SNP {
		return nil, fmt.Errorf("%w: the report: of the kind %s, expected an SEV-SNP report", ErrUnsupported, report.Kind)
	}
	report.Links = slices.DeleteFunc(report.Links, func(l Link) bool { return l.Name == Nonce })
	bound := report.bindsManifest(opts.SVSMManifest, nonce)
	report.setLink(report.bySVSM(bound, opts.Expect[rtmr.SHA384][rtmr.Launch]))
	q.Inside = report
	return q, nil
}

// bySVSM holds the launch digest, which alone tells an SVSM from a guest without one,
// against the expected one.
func (q *Quote) bySVSM(bound Link, expected rtmr.Hex) Link {
	launch := q.Values[rtmr.SHA384][rtmr.Launch]
	switch {
	case bound.Status != Verified:
	case expected == nil:
		bound.Status = NotChecked
		bound.Text += ": by an SVSM, or by a guest without one, whose kernel runs there and makes up a TPM; which of them, the launch measurement tells, and none is expected (--expect)"
	case !bytes.Equal(launch, expected):
		return Link{Binding, Failed, fmt.Sprintf("the launch measurement is %s, expected the SVSM's, %s: a guest without one makes up a TPM", launch, expected)}
	}
	return bound
}

// svsmNonce is the nonce that the report was asked for with, nil if none was given.
func (o *Options) svsmNonce() ([]byte, error) {
	flag, given := "--report-nonce", o.ReportNonce
	if len(given) == 0 {
		flag, given = "--nonce", o.Nonce
	}
	if len(given) > svsmNonce {
		return nil, fmt.Errorf("%s has %d bytes, and an SVSM's nonce has %d", flag, len(given), svsmNonce)
	}
	if len(given) == 0 {
		return nil, nil
	}
	return append(bytes.Clone(given), make([]byte, svsmNonce-len(given))...), nil
}

// bindsManifest checks that the SVSM had the report made for this manifest.
func (q *Quote) bindsManifest(manifest, nonce []byte) Link {
	if nonce == nil {
		return Link{Binding, Missing, "REPORT_DATA is a hash over a nonce too, and none was given (--report-nonce, or --nonce)"}
	}
	sum := sha512.Sum512(slices.Concat(nonce, manifest))
	switch want := rtmr.Hex(sum[:]); {
	case !bytes.Equal(want, q.reportData):
		return Link{Binding, Failed, fmt.Sprintf("REPORT_DATA is %s, expected the SHA-512 of nonce and services manifest, %s", q.reportData, want)}
	case q.vmpl != 0:
		return Link{Binding, Failed, fmt.Sprintf("VMPL is %d, expected 0, where an SVSM is: who asked for this report has something above it", q.vmpl)}
	}
	return Link{Binding, Verified, "REPORT_DATA is the SHA-512 of nonce and services manifest, asked for at VMPL 0"}
}

// chain tells what ties the attestation key to the manifest.
func (m *SVSMManifest) chain(key *tpmKey, opts *Options) (Link, error) {
	if len(opts.Certify) > 0 != (len(opts.CertifySignature) > 0) {
		return Link{}, errors.New("--certify and --certify-signature go together")
	}
	if key == nil {
		return Link{Chain, Missing, "no key was given (--key)"}, nil
	}
	links := []Link{}
	if key.area != nil && m.Version > 0 {
		links = append(links, m.inManifest(key)...)
	}
	if len(opts.Activation) > 0 {
		links = append(links, m.activated(key, opts.Activation))
	}
	if len(opts.Certify) > 0 {
		link, err := m.certified(key, opts)
		if err != nil {
			return Link{}, err
		}
		links = append(links, link)
	}
	if len(links) == 0 {
		return Link{Chain, Missing, "nothing ties the key to the services manifest's endorsement key (--activation; --certify and --certify-signature)"}, nil
	}
	chain := links[0]
	for _, l := range links[1:] {
		chain = both(chain, l)
	}
	return chain, nil
}

// inManifest tells of an attestation key that the manifest itself has; of one that
// it does not have something else may tell.
func (m *SVSMManifest) inManifest(key *tpmKey) []Link {
	switch held := slices.ContainsFunc(m.keys, func(k *tpmKey) bool { return bytes.Equal(k.name, key.name) }); {
	case !held:
		return nil
	case len(key.lacks()) > 0:
		return []Link{{Chain, Failed, "the key stands in the services manifest, and " + lacks(key.lacks())}}
	}
	return []Link{{Chain, Verified, "the key stands in the services manifest"}}
}

// activated tells whether a credential activation ties the key to the manifest's
// endorsement key.
func (m *SVSMManifest) activated(key *tpmKey, record []byte) Link {
	failed := func(err error) Link { return Link{Chain, Failed, fmt.Sprintf("the activation record: %s", err)} }
	a, err := ParseActivation(record)
	if err != nil {
		return failed(err)
	}
	ek, err := m.endorsement(toDecrypt)
	if err != nil {
		return failed(err)
	}
	if len(a.EKPublic) > 0 {
		public, _ := unwrap2B(a.EKPublic)
		if ek = m.holds(public); ek == nil {
			return failed(errors.New("ekPublic is no key of the services manifest"))
		}
		if missing := toDecrypt.lacks(ek); len(missing) > 0 {
			return failed(errors.New("the manifest's endorsement key " + lacks(missing)))
		}
	} else {
		a.EKPublic = m.Keys[slices.Index(m.keys, ek)]
	}
	said, err := a.verify(key)
	if err != nil {
		return failed(err)
	}
	return Link{Chain, Verified, said + ", which is the services manifest's"}
}
