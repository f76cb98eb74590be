// Package quote reads hardware evidence: signed register values, or a report
// that binds them, and how far they are vouched for.
//
// [Open] recognises a quote by its content, verifies what can be verified
// offline, and returns a [Quote] of any kind:
//
//	q, err := quote.Open(data, quote.Options{Nonce: nonce})
//	if !q.Trusted() { .. } // and q.Links says why
//
// An error means that the bytes are no quote, or a malformed or unsupported
// one. A quote that is well-formed and fails a check is no error: the check is a
// [Link] with the status Failed. Nothing of an untrusted quote may be believed,
// its register values included.
//
// Three questions are kept apart: what the bytes say (the Parse functions),
// who vouches for them (Links), and whether logs explain the registers, which
// is package replay's.
package quote

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// Kind is a kind of evidence, in the spelling of the JSON contract.
type Kind string

// The kinds.
const (
	TDX      Kind = "tdx"      // a TD quote, signed by Intel's quoting enclave
	TDReport Kind = "tdreport" // a TDREPORT, MACed for its own machine
	TPM      Kind = "tpm"      // TPMS_ATTEST of type quote, with its signature
	SoftTPM  Kind = "soft-tpm" // the same of a kernel's software TPM, alone or with the hardware's report beside it
	Azure    Kind = "azure"    // Azure's HCL report, alone or with its vTPM's quote
	SNP      Kind = "snp"      // an SEV-SNP attestation report
	Values   Kind = "values"   // bare register values, which nobody vouches for
	SVSM     Kind = "svsm"     // a quote of an SVSM's vTPM, with the services manifest and the SEV-SNP report that stand for its key
	SEV      Kind = "sev"      // an SEV or SEV-ES launch measurement, MACed for the guest's owner
	S390     Kind = "s390"     // the response of an IBM Z Secure Execution guest to an attestation request
	EAR      Kind = "ear"      // an attestation result: registers and a judgement that another verifier signed
	CCA      Kind = "cca"      // an Arm CCA attestation token
	VirtCCA  Kind = "virtcca"  // Huawei's virtCCA's, with the device's certificate beside it
)

// Quote is one piece of evidence: the registers it carries, and how far it is
// vouched for.
type Quote struct {
	Kind    Kind
	Version int // of the format; 0 where it has none

	// Values are the registers' values that the evidence states. A TPM's quote
	// states none: they come from the evidence's own bundle, or from the
	// caller, and Composites prove them.
	Values rtmr.Values
	// Composites are a TPM quote's digests over selected registers, one a quote.
	Composites []rtmr.Composite

	Links    []Link // what vouches for it, in order: signature, chain, ..
	Facts    []Fact // what else it says, for people, in the fields' own names
	Logs     []Log  // that came in the same file, in order of layers
	Inside   *Quote // the hardware's report that this evidence holds, as an HCL report does, or that stands for it
	Warnings []string

	Bundle *evidence.Bundle // the file, if it was a bundle of the project's own

	asked                    // of a hardware's report
	acceptsSelfAsserted bool // Options.AcceptSelfAsserted
	acceptsWarned       bool // Options.EARAcceptWarning
}

// asked is who asked the hardware for a report, and for what.
type asked struct {
	reportData rtmr.Hex // REPORT_DATA, 64 bytes
	vmpl       uint32   // SNP's privilege level
	field      string   // its name, if it is another than REPORT_DATA
}

func (a *asked) fieldName() string { return cmp.Or(a.field, "REPORT_DATA") }

// Link is one link of the chain from hardware to registers.
type Link struct {
	Name   string // one of the names below
	Status Status
	Text   string // one line: what was checked against what, and why it failed
}

// The links' names.
const (
	Signature  = "signature"  // of the quote by its attestation key
	Chain      = "chain"      // from that key to a root that is trusted
	Collateral = "collateral" // TCB level, QE identity, revocations
	Nonce      = "nonce"      // freshness: the caller's nonce stands in the quote
	Binding    = "binding"    // of values, keys or reports that the quote only has a hash of
	Policy     = "policy"     // nothing in the guest's own policy lets its host change it
	Required   = "required"   // a field is what the caller wants it to be (Quote.Require)
)

// Status is what came of checking a link.
type Status string

// The statuses. A quote with a Failed, Missing, SelfAsserted or Warned link is not trusted.
const (
	Verified     Status = "verified"
	Failed       Status = "failed"
	Missing      Status = "missing"       // what the check needs is not there, and nothing holds without it
	SelfAsserted Status = "self-asserted" // a software TPM's key that no hardware stands for
	Warned       Status = "warning"       // another verifier has doubts, and it is for the caller to decide
	NotChecked   Status = "not-checked"   // nothing was given to check it with; the rest holds without
	Skipped      Status = "skipped"       // Options.SkipSignature
)

// Fact is a field of the evidence, shown and not judged.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Log is a measurement log that came with a quote in one file.
type Log struct {
	Name string
	Data []byte
	// Checked is a bundle's log that was not extended as it stands, for its journal
	// has a copy of each of its entries. It is held against that.
	Checked bool
}

// Options are what a quote is held against. The zero value checks what the
// quote alone allows. It is an error to give what evidence of its kind cannot
// be held against.
type Options struct {
	// Nonce is what the verifier sent; nil leaves freshness unchecked. A nonce
	// shorter than the quote's field stands there followed by zeros.
	Nonce []byte

	// Signature is a TPM quote's TPMT_SIGNATURE, Key its attestation key: PEM,
	// TPM2B_PUBLIC or TPMT_PUBLIC. A key that is given is trusted.
	Signature, Key []byte
	// EKCert is the endorsement key's certificate (PEM or DER), EKRoots its
	// manufacturer's certificates (PEM), Activation a record of a credential
	// activation, which ties the attestation key to the endorsement key.
	EKCert, EKRoots, Activation []byte

	// HCL is Azure's HCL report, whose HCLAkPub is the attestation key of the
	// TPM quote that is opened. Hardware is what vouches for the report inside
	// it: a VCEK or VLEK certificate, or a TD quote.
	HCL, Hardware []byte

	// Report is the hardware's, which stands for a software TPM's key and for the
	// quote that is opened: an SEV-SNP report, whose certificate is in Hardware if
	// not behind it, a TD quote, a TDREPORT, a Secure Execution exchange file, whose
	// key is in S390, or a realm's token, whose keys are in CCAKey or VirtCCARoots.
	Report []byte
	// AcceptSelfAsserted trusts a software TPM's quote without a report: its
	// links stay SelfAsserted.
	AcceptSelfAsserted bool

	// Collateral holds Intel's TCB info, QE identity and revocation lists; what
	// is not in it makes the link Missing.
	Collateral fs.FS
	// TDXRoots are trusted in place of Intel's root certificate (PEM).
	TDXRoots []byte
	// SNPRoots are trusted in place of AMD's certificates (PEM): the root, which
	// is self-signed, and issuers on the way to it.
	SNPRoots []byte
	// CCAKey is a CCA platform attestation key (CPAK), or a set of them, which are
	// trusted: PEM, DER, JSON Web Keys, or a list of trust anchors.
	CCAKey []byte
	// VirtCCARoots are Huawei's certificates (PEM or DER): the root, which is
	// self-signed, and issuers on the way to it. The device's own is in Hardware.
	VirtCCARoots []byte

	// SVSMManifest is an SVSM's services manifest, or its vTPM's, which has the
	// endorsement key of the vTPM whose quote is opened. Report stands for it,
	// asked for with ReportNonce, 64 bytes: where that is nil with Nonce, and zeros
	// behind it.
	SVSMManifest, ReportNonce []byte
	// Certify is a TPMS_ATTEST or TPM2B_ATTEST, of TPM2_Certify or
	// TPM2_CertifyCreation, and CertifySignature its TPMT_SIGNATURE, by which an
	// endorsement key that signs ties the attestation key to its TPM.
	Certify, CertifySignature []byte

	// TIK is the transport integrity key by which an SEV guest's launch is MACed
	// for its owner: 16 bytes, or these as hexadecimal or base64 text. SEVGuest is
	// what the MAC is over besides, where the evidence does not state it.
	TIK []byte
	SEVGuest

	// Expect is what registers have to be. Evidence that is MACed over a launch digest
	// and does not state it is verified by that; an SVSM is one by its launch digest.
	// All else takes no notice of it here: the values are the caller's to compare.
	Expect rtmr.Values

	// S390 is what a Secure Execution guest's response is held against.
	S390 S390Options

	// Time is when certificates and collateral have to be valid; zero for now.
	Time time.Time
	// SkipSignature lets an unsigned or wrongly signed quote pass: the links
	// signature, chain and collateral become Skipped where they did not verify.
	SkipSignature bool

	// EARKey is what another verifier signs its results with: a public key or a
	// certificate in PEM or DER, a JWK or a JWK set. It is trusted. EARAcceptWarning lets a
	// result pass whose verifier has doubts.
	EARKey           []byte
	EARAcceptWarning bool
}

// Trusted reports whether no link is Failed or Missing, in the evidence or in
// the report inside it; nor SelfAsserted or Warned, unless Options accept that.
func (q *Quote) Trusted() bool {
	broken := slices.ContainsFunc(q.Links, func(l Link) bool {
		return l.Status == Failed || l.Status == Missing || l.Status == SelfAsserted && !q.acceptsSelfAsserted || l.Status == Warned && !q.acceptsWarned
	})
	return !broken && (q.Inside == nil || q.Inside.Trusted())
}

// Launch returns the static registers of the evidence and of the report inside it:
// what was measured at launch, which no log holds.
func (q *Quote) Launch() rtmr.Values {
	launch := rtmr.Values{}
	for at := q; at != nil; at = at.Inside {
		for alg, bank := range at.Values {
			for r, value := range bank {
				if _, nearer := launch[alg][r]; r.Static() && !nearer {
					launch.Set(alg, r, value)
				}
			}
		}
	}
	return launch
}

// Link returns the link of that name; ok is false if the evidence has none.
func (q *Quote) Link(name string) (l Link, ok bool) {
	i := slices.IndexFunc(q.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return q.Links[i], true
}

// skip marks what SkipSignature leaves out of account.
func (q *Quote) skip() {
	for i := range q.Links {
		l := &q.Links[i]
		if (l.Name == Signature || l.Name == Chain || l.Name == Collateral) && (l.Status == Failed || l.Status == Missing) {
			l.Status, l.Text = Skipped, "by --insecure-skip-signature; the check says: "+l.Text
		}
	}
	if q.Inside != nil {
		q.Inside.skip()
	}
}

// only is an error if an option is given that this evidence is not held
// against: who gives a key counts on its being asked for, whatever came.
func (o *Options) only(evidence string, flags ...string) error {
	for _, option := range []struct {
		flag  string
		given bool
	}{
		{"signature", len(o.Signature) > 0}, {"key", len(o.Key) > 0},
		{"ek-cert", len(o.EKCert) > 0}, {"ek-roots", len(o.EKRoots) > 0}, {"activation", len(o.Activation) > 0},
		{"hcl", len(o.HCL) > 0}, {"hardware", len(o.Hardware) > 0}, {"report", len(o.Report) > 0},
		{"collateral", o.Collateral != nil}, {"tdx-roots", len(o.TDXRoots) > 0}, {"snp-roots", len(o.SNPRoots) > 0},
		{"svsm-manifest", len(o.SVSMManifest) > 0}, {"report-nonce", len(o.ReportNonce) > 0},
		{"certify", len(o.Certify) > 0}, {"certify-signature", len(o.CertifySignature) > 0},
		{"tik", len(o.TIK) > 0}, {"sev-api", o.SEVAPI != nil}, {"sev-build", o.SEVBuild != nil}, {"sev-policy", o.SEVPolicy != nil},
		{"s390-header", len(o.S390.Header) > 0}, {"s390-key", len(o.S390.Key) > 0}, {"s390-owner-key", len(o.S390.OwnerKey) > 0},
		{"s390-hkd", len(o.S390.HostKeys) > 0}, {"s390-roots", len(o.S390.Roots) > 0},
		{"s390-measurement", len(o.S390.Measurement) > 0}, {"s390-additional", len(o.S390.Additional) > 0},
		{"s390-user-data", len(o.S390.UserData) > 0}, {"s390-cuid", len(o.S390.CUID) > 0},
		{"ear-key", len(o.EARKey) > 0},
		{"cca-key", len(o.CCAKey) > 0}, {"virtcca-roots", len(o.VirtCCARoots) > 0},
	} {
		if option.given && !slices.Contains(flags, option.flag) {
			return fmt.Errorf("--%s was given, and %s is not held against it", option.flag, evidence)
		}
	}
	return nil
}

// inner returns the options for a hardware's quote that other evidence holds.
func (o *Options) inner() Options {
	return Options{
		Hardware: o.Hardware, Collateral: o.Collateral, TDXRoots: o.TDXRoots, SNPRoots: o.SNPRoots,
		Time: o.Time, SkipSignature: o.SkipSignature, S390: o.S390,
		CCAKey: o.CCAKey, VirtCCARoots: o.VirtCCARoots,
	}
}

func (o *Options) now() time.Time {
	if o.Time.IsZero() {
		return time.Now()
	}
	return o.Time
}
