package quote

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"tallystick/rtmr"
)

// SEVReport is an SEV or SEV-ES guest's attestation report as its bytes say: nothing
// in it has been checked. Open checks it. The slices point into the data that was
// parsed.
//
// Unlike a launch measurement it states the launch digest, has the verifier's nonce,
// may be asked for while the guest runs, and is signed by the platform. The layout is
// that of GET_ATTESTATION_REPORT (document 55766): 208 bytes, little-endian. QEMU
// gives it in answer to query-sev-attestation-report.
type SEVReport struct {
	MNonce       rtmr.Hex // 16 bytes, by who asked
	LaunchDigest rtmr.Hex // 32 bytes
	Policy       uint32
	SigUsage     uint32 // 0x1002, the PEK's
	SigAlgo      uint32 // 2: ECDSA with SHA-256, 0x102 with SHA-384

	Signed    []byte // what the signature is over: MNONCE, LAUNCH_DIGEST and POLICY
	Signature []byte // r and s, 72 bytes each
}

const (
	sevReportSize   = 0xD0
	sevReportSigned = 0x34
	sevReportSig    = 0x40
)

// isSEVReport tells a report by what its signature says of itself: it has no magic.
func isSEVReport(data []byte) bool {
	if len(data) != sevReportSize {
		return false
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	return sevKeyUsage(u32(sevReportSigned)) == sevPEK && sevAlgo(u32(sevReportSigned+4))&^sevSHA384 == sevECDSA && u32(sevReportSigned+8) == 0
}

// sevReportBytes returns a report's bytes, of which the data may be hexadecimal or
// base64 text, or QEMU's answer in JSON.
func sevReportBytes(data []byte) (report []byte, ok bool) {
	if isSEVReport(data) {
		return data, true
	}
	if isJSONObject(data) {
		var answer struct {
			Data   string `json:"data"`
			Return struct {
				Data string `json:"data"`
			} `json:"return"`
		}
		if json.Unmarshal(data, &answer) != nil {
			return nil, false
		}
		report, err := decodeBase64(answer.Return.Data + answer.Data)
		return report, err == nil && isSEVReport(report)
	}
	report, ok = decodeText(data)
	return report, ok && isSEVReport(report)
}

func isSEVReportForm(data []byte) bool {
	_, ok := sevReportBytes(data)
	return ok
}

// ParseSEVReport reads an attestation report of 208 bytes.
func ParseSEVReport(data []byte) (*SEVReport, error) {
	if len(data) != sevReportSize {
		return nil, fmt.Errorf("the report has %d bytes, expected %d", len(data), sevReportSize)
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	p := &SEVReport{
		MNonce: data[:0x10], LaunchDigest: data[0x10:0x30], Policy: u32(0x30), SigUsage: u32(0x34), SigAlgo: u32(0x38),
		Signed: data[:sevReportSigned], Signature: data[sevReportSig:],
	}
	if !isSEVReport(data) {
		return nil, fmt.Errorf("%w: offset 0x34: SIG_USAGE %#x, SIG_ALGO %#x and reserved %#x, expected 0x1002 (PEK), 2 or 0x102 (ECDSA), and 0", ErrUnsupported, p.SigUsage, p.SigAlgo, u32(0x3C))
	}
	return p, nil
}

// openSEVReport opens what isSEVReportForm recognised.
func openSEVReport(data []byte, opts *Options) (*Quote, error) {
	if err := opts.only("an SEV attestation report", "hardware", "snp-roots"); err != nil {
		return nil, err
	}
	report, _ := sevReportBytes(data)
	p, err := ParseSEVReport(report)
	if err != nil {
		return nil, err
	}
	nonce, err := fieldNonce("MNONCE", p.MNonce, opts.Nonce)
	if err != nil {
		return nil, err
	}
	roots, err := trustedSEVRoots(opts)
	if err != nil {
		return nil, err
	}
	var certs []*sevCert
	if len(opts.Hardware) > 0 {
		if certs, err = parseSEVCerts(opts.Hardware); err != nil {
			return nil, fmt.Errorf("what vouches for the report: %w", err)
		}
	}
	pek, chain := roots.chain(certs)
	q := &Quote{
		Kind: SEV, Values: rtmr.Values{rtmr.SHA256: {rtmr.Launch: p.LaunchDigest}}, Warnings: sevWarnings(p.Policy),
		Facts: append([]Fact{{"MNONCE", p.MNonce.String()}, {"LAUNCH_DIGEST", p.LaunchDigest.String()}}, wordFacts("POLICY", uint64(p.Policy), sevPolicyFields)...),
	}
	q.Links = []Link{p.signature(pek), chain, sevPolicy(p.Policy), nonce}
	return q, nil
}

// signature checks the report's signature by the PEK, whoever certified that.
func (p *SEVReport) signature(pek *sevCert) Link {
	if pek == nil {
		return Link{Signature, Missing, "no PEK given, the certificate of the key that signed"}
	}
	s := sevSignature{usage: sevKeyUsage(p.SigUsage), algo: sevAlgo(p.SigAlgo), value: p.Signature}
	if err := s.verify(p.Signed, pek.public); err != nil {
		return Link{Signature, Failed, fmt.Sprintf("not by the PEK: %s", err)}
	}
	return Link{Signature, Verified, fmt.Sprintf("ECDSA with %s by the PEK", s.algo.hash())}
}
