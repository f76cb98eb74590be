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
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"tallystick/rtmr"
)

// SNPReportSize is an attestation report's size in bytes.
const SNPReportSize = abi.ReportSize

// SNPReport is an SEV-SNP attestation report as its bytes say: nothing in it
// has been checked. Open checks it. The slices point into the data that was
// parsed.
//
// The layout is ATTESTATION_REPORT of AMD's SEV Secure Nested Paging Firmware
// ABI Specification (document 56860). Integers are little-endian. What is read
// here stands at the same place in the versions 2 to 5.
type SNPReport struct {
	Version       uint32
	GuestSVN      uint32
	Policy        uint64   // bit 18: a migration agent may take the guest; bit 19: the host may debug it
	VMPL          uint32   // the privilege level of who asked, 0 the highest
	SignatureAlgo uint32   // 1: ECDSA on P-384 with SHA-384
	SignerInfo    uint32   // bits 2 to 4: 0 VCEK, 1 VLEK, 7 none
	ReportData    rtmr.Hex // 64 bytes, by who asked
	Measurement   rtmr.Hex // 48 bytes: SHA-384 of the guest's memory at launch
	HostData      rtmr.Hex // 32 bytes, by the host
	IDKeyDigest   rtmr.Hex // 48 bytes: SHA-384 of the key that signed the guest's ID block
	ReportedTCB   uint64
	ChipID        rtmr.Hex // 64 bytes, zeros where the host masks it

	Signed       []byte // what the signature is over: all before it
	Certificates []byte // a certificate table (GHCB specification, SNP Extended Guest Request) behind the report, or zeros
}

const (
	snpSignature      = 0x2A0
	snpSignatureEnd   = snpSignature + abi.EcdsaP384Sha384SignatureSize
	snpPolicyReserved = 1 << 17 // is always set
	snpPolicyMigrate  = 1 << 18
	snpPolicyDebug    = 1 << 19
)

// isSNP tells a report by the bits that its specification fixes: it has no magic.
func isSNP(data []byte) bool {
	if len(data) < SNPReportSize {
		return false
	}
	u32 := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
	version := u32(0)
	return version >= abi.MinSupportedReportVersion && version < 0x100 &&
		u32(0x08)&snpPolicyReserved != 0 && u32(0x30) <= 3 && u32(0x34) <= 1 && u32(0x4C) == 0 &&
		allZero(data[snpSignatureEnd:SNPReportSize])
}

// ParseSNP reads an attestation report, alone or with a certificate table
// behind it. The error wraps ErrUnsupported where its version is not read here.
func ParseSNP(data []byte) (*SNPReport, error) {
	if len(data) < SNPReportSize {
		return nil, fmt.Errorf("offset %d: the report ends, expected %d bytes", len(data), SNPReportSize)
	}
	u32 := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
	u64 := func(offset int) uint64 { return binary.LittleEndian.Uint64(data[offset:]) }
	p := &SNPReport{
		Version: u32(0), GuestSVN: u32(0x04), Policy: u64(0x08), VMPL: u32(0x30),
		SignatureAlgo: u32(0x34), SignerInfo: u32(0x48),
		ReportData: data[0x50:0x90], Measurement: data[0x90:0xC0], HostData: data[0xC0:0xE0], IDKeyDigest: data[0xE0:0x110],
		ReportedTCB: u64(0x180), ChipID: data[0x1A0:0x1E0],
		Signed: data[:snpSignature], Certificates: data[SNPReportSize:],
	}
	if p.Version < abi.MinSupportedReportVersion || p.Version > abi.MaxSupportedReportVersion {
		return nil, fmt.Errorf("%w: offset 0: VERSION %d, expected %d to %d", ErrUnsupported, p.Version, abi.MinSupportedReportVersion, abi.MaxSupportedReportVersion)
	}
	if !allZero(data[snpSignatureEnd:SNPReportSize]) {
		return nil, fmt.Errorf("offset %#x: what follows SIGNATURE's r and s is not zero", snpSignatureEnd)
	}
	return p, nil
}

// openSNP opens bytes that isSNP recognised.
func openSNP(data []byte, opts *Options) (*Quote, error) {
	if err := opts.only("an SEV-SNP report", "hardware", "snp-roots"); err != nil {
		return nil, err
	}
	q, p, err := snpQuote(data, opts)
	if err != nil {
		return nil, err
	}
	nonce, err := fieldNonce("REPORT_DATA", p.ReportData, opts.Nonce)
	if err != nil {
		return nil, err
	}
	q.Links = append(q.Links, nonce)
	return q, nil
}

// snpQuote checks all but who asked for the report, and why.
func snpQuote(data []byte, opts *Options) (*Quote, *SNPReport, error) {
	p, err := ParseSNP(data)
	if err != nil {
		return nil, nil, err
	}
	certs, err := p.certificates(opts.Hardware)
	if err != nil {
		return nil, nil, err
	}
	roots, err := trustedSNPRoots(opts)
	if err != nil {
		return nil, nil, err
	}
	q := &Quote{Kind: SNP, Version: int(p.Version), Values: rtmr.Values{rtmr.SHA384: {rtmr.Launch: p.Measurement}}, Facts: p.facts(), asked: asked{reportData: p.ReportData, vmpl: p.VMPL}}
	q.Links = []Link{p.signature(data, certs), p.chain(certs, roots, opts.now()), p.policy()}
	return q, p, nil
}

// policy tells of a guest that is open to its host.
func (p *SNPReport) policy() Link {
	if p.Policy&snpPolicyDebug != 0 {
		return Link{Policy, Failed, "POLICY allows debugging (bit 19): the host can read and change the guest's memory"}
	}
	if p.Policy&snpPolicyMigrate != 0 {
		return Link{Policy, Failed, "POLICY allows a migration agent (MIGRATE_MA, bit 18): another guest can take this one's memory"}
	}
	return Link{Policy, Verified, "POLICY allows neither debugging nor a migration agent"}
}

func (p *SNPReport) facts() []Fact {
	return []Fact{
		{"GUEST_SVN", fmt.Sprint(p.GuestSVN)},
		{"POLICY", fmt.Sprintf("%#x", p.Policy)},
		{"VMPL", fmt.Sprint(p.VMPL)},
		{"REPORT_DATA", p.ReportData.String()},
		{"MEASUREMENT", p.Measurement.String()},
		{"HOST_DATA", p.HostData.String()},
		{"ID_KEY_DIGEST", p.IDKeyDigest.String()},
		{"REPORTED_TCB", fmt.Sprintf("%016x", p.ReportedTCB)},
		{"CHIP_ID", p.ChipID.String()},
	}
}

// signer is the key that the report says it was signed with.
func (p *SNPReport) signer() abi.ReportSigner { return abi.ReportSigner(p.SignerInfo >> 2 & 7) }

// signature checks the report's signature by the certificate's key, whoever
// issued that.
func (p *SNPReport) signature(data []byte, certs []*x509.Certificate) Link {
	switch {
	case p.signer() != abi.VcekReportSigner && p.signer() != abi.VlekReportSigner:
		return Link{Signature, Failed, fmt.Sprintf("SIGNING_KEY is %d (%s), expected 0 (VCEK) or 1 (VLEK)", p.signer(), p.signer())}
	case len(certs) == 0:
		return Link{Signature, Missing, fmt.Sprintf("no %s given, the certificate of the key that signed", p.signer())}
	}
	key := p.leaf(certs)
	if err := verify.SnpReportSignature(data[:SNPReportSize], key); err != nil {
		return Link{Signature, Failed, fmt.Sprintf("not by the key of %s: %s", snpName(key), rtmr.Escape(err.Error()))}
	}
	return Link{Signature, Verified, "ECDSA P-384 by " + snpName(key)}
}

// chain checks that the certificate leads to a root, and is of the chip and the
// firmware that the report is of.
func (p *SNPReport) chain(certs []*x509.Certificate, roots *snpRoots, now time.Time) Link {
	if len(certs) == 0 {
		return Link{Chain, Missing, "no certificate given"}
	}
	leaf := p.leaf(certs)
	if want := snpCommonName(p.signer()); leaf.Subject.CommonName != want {
		return Link{Chain, Failed, fmt.Sprintf("%s is no certificate of a %s, expected the name %s", snpName(leaf), p.signer(), want)}
	}
	chain, err := roots.verify(leaf, certs, now)
	if err != nil {
		return Link{Chain, Failed, fmt.Sprintf("%s: %s", snpName(leaf), rtmr.Escape(err.Error()))}
	}
	if err := p.issuedFor(leaf); err != nil {
		return Link{Chain, Failed, rtmr.Escape(err.Error())}
	}
	names := make([]string, len(chain))
	for i, cert := range chain {
		names[i] = snpName(cert)
	}
	return Link{Chain, Verified, fmt.Sprintf("%s (%s); issued for this chip's REPORTED_TCB", strings.Join(names, ", "), roots.whose)}
}

// issuedFor holds what AMD writes in the certificate's extensions against the
// report: a VCEK's chip, and the firmware versions that both keys are derived
// from (AMD's VCEK Certificate and KDS Interface Specification, document 57230).
func (p *SNPReport) issuedFor(leaf *x509.Certificate) error {
	ext, err := kds.CertificateExtensions(leaf, p.signer())
	if err != nil {
		return fmt.Errorf("the certificate's extensions: %w", err)
	}
	if p.signer() == abi.VcekReportSigner && !allZero(p.ChipID) && !bytes.Equal(p.ChipID, ext.HWID) {
		return fmt.Errorf("the certificate is of the chip %x, the report of %s", ext.HWID, p.ChipID)
	}
	if uint64(ext.TCBVersion) != p.ReportedTCB {
		return fmt.Errorf("the certificate is for the TCB %016x, the report's REPORTED_TCB is %016x", uint64(ext.TCBVersion), p.ReportedTCB)
	}
	return nil
}

// leaf picks the certificate of the key that signed: the one with its name, and
// the first if none has it.
func (p *SNPReport) leaf(certs []*x509.Certificate) *x509.Certificate {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return c.Subject.CommonName == snpCommonName(p.signer()) })
	return certs[max(i, 0)]
}

func snpCommonName(key abi.ReportSigner) string { return "SEV-" + key.String() }

func snpName(c *x509.Certificate) string { return rtmr.Escape(c.Subject.CommonName) }

// certificates are those that were given, or else those behind the report.
func (p *SNPReport) certificates(given []byte) ([]*x509.Certificate, error) {
	if len(given) > 0 {
		certs, err := amdCertificates(given)
		if err != nil {
			return nil, fmt.Errorf("what vouches for the report: %w", err)
		}
		return certs, nil
	}
	certs, err := certificateTable(p.Certificates)
	if err != nil {
		return nil, fmt.Errorf("offset %#x: certificate table: %w", SNPReportSize, err)
	}
	return certs, nil
}

// amdCertificates reads a VCEK's or VLEK's certificate, and maybe its issuers',
// in PEM or DER, as AMD's key distribution service sends them.
func amdCertificates(data []byte) (certs []*x509.Certificate, err error) {
	if block, rest := pem.Decode(data); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("PEM block %d: %w", len(certs), err)
			}
			certs = append(certs, cert)
		}
		return certs, nil
	}
	certs, err = x509.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("expected a VCEK's or VLEK's certificate in PEM or DER: %w", err)
	}
	return certs, nil
}

// certificateTable reads the certificates that a host gives its guest with a
// report: entries of GUID (16 bytes), offset and length (le32), up to one of
// zeros, and then the certificates. What each is, its name tells, so the GUIDs
// are not looked at; what is no certificate, such as a CRL, is left out.
func certificateTable(table []byte) (certs []*x509.Certificate, err error) {
	const size, mostEntries = 24, 32 // there are kinds of certificates for five
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
		if cert, err := x509.ParseCertificate(table[offset : offset+length]); err == nil {
			certs = append(certs, cert)
		}
	}
	return certs, nil
}

// amdRoots are AMD's root certificates, and the intermediate ones of both keys,
// of all product lines that go-sev-guest carries.
var amdRoots = sync.OnceValues(func() (*snpRoots, error) {
	r := &snpRoots{whose: "AMD's", roots: x509.NewCertPool()}
	for _, bundle := range [][]byte{
		trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes, trust.AskArkGenoaVcekBytes,
		trust.AskArkGenoaVlekBytes, trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes,
	} {
		certs, err := amdCertificates(bundle)
		if err != nil || len(certs) != 2 {
			return nil, errors.New("AMD's embedded certificates cannot be read")
		}
		r.issuers = append(r.issuers, certs[0])
		r.roots.AddCert(certs[1])
	}
	return r, nil
})

type snpRoots struct {
	whose   string
	roots   *x509.CertPool
	issuers []*x509.Certificate
}

// trustedSNPRoots are AMD's, or those that were given in their place.
func trustedSNPRoots(opts *Options) (*snpRoots, error) {
	if len(opts.SNPRoots) == 0 {
		return amdRoots()
	}
	certs, err := amdCertificates(opts.SNPRoots)
	if err != nil {
		return nil, fmt.Errorf("the trusted roots given: %w", err)
	}
	r, own := &snpRoots{whose: "a given root", roots: x509.NewCertPool()}, false
	for _, cert := range certs {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			r.roots.AddCert(cert)
			own = true
		} else {
			r.issuers = append(r.issuers, cert)
		}
	}
	if !own {
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
