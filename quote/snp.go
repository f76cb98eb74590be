package quote

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/verify"

	"tallystick/rtmr"
)

// SNPReportSize is an attestation report's size in bytes.
const SNPReportSize = abi.ReportSize

// SNPReport is an SEV-SNP attestation report as its bytes say: nothing in it
// has been checked. Open checks it. The slices point into the data that was
// parsed.
//
// The layout is ATTESTATION_REPORT of AMD's SEV Secure Nested Paging Firmware
// ABI Specification (document 56860). Integers are little-endian.
type SNPReport struct {
	Version       uint32   // 2 to 5
	GuestSVN      uint32   // of the guest's ID block
	Policy        uint64   // what the guest allows its host, by snpPolicyFields
	FamilyID      rtmr.Hex // 16 bytes, of the guest's ID block
	ImageID       rtmr.Hex // 16 bytes, of the guest's ID block
	VMPL          uint32   // the privilege level of who asked, 0 the highest; SNPHostVMPL where the host did
	SignatureAlgo uint32   // 1: ECDSA on P-384 with SHA-384
	PlatformInfo  uint64   // how the machine is set up, by snpPlatformFields
	SignerInfo    uint32   // bit 0 AUTHOR_KEY_EN, bit 1 MASK_CHIP_KEY; bits 2 to 4: 0 VCEK, 1 VLEK, 7 none

	ReportData      rtmr.Hex // 64 bytes, by who asked
	Measurement     rtmr.Hex // 48 bytes: SHA-384 of the guest's memory at launch
	HostData        rtmr.Hex // 32 bytes, by the host
	IDKeyDigest     rtmr.Hex // 48 bytes: SHA-384 of the key that signed the guest's ID block
	AuthorKeyDigest rtmr.Hex // 48 bytes: SHA-384 of the key that certified that key
	ReportID        rtmr.Hex // 32 bytes, of this guest
	ReportIDMA      rtmr.Hex // 32 bytes, of its migration agent

	ReportedTCB  uint64 // the firmware's versions that the signing key is derived from
	CurrentTCB   uint64 // those that run
	CommittedTCB uint64 // those below which the machine cannot go
	LaunchTCB    uint64 // those that ran when the guest was launched or imported

	// The processor's family, with the extended one added, model and stepping;
	// zeros before version 3.
	CPUIDFamily, CPUIDModel, CPUIDStepping uint8
	ChipID                                 rtmr.Hex // 64 bytes, zeros where the host masks it
	Current, Committed                     SNPFirmware

	// Bits for mitigations of weaknesses, as of the launch and as of now; zeros
	// before version 5.
	LaunchMitVector, CurrentMitVector uint64

	Signed       []byte // what the signature is over: all before it
	Certificates []byte // a certificate table (GHCB specification, SNP Extended Guest Request) behind the report, or zeros
}

// SNPFirmware is a version of the SEV firmware.
type SNPFirmware struct{ Major, Minor, Build uint8 }

// SNPHostVMPL stands in VMPL of a report that the host asked for (SNP_HV_REPORT_REQ).
const SNPHostVMPL = 0xFFFFFFFF

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
	version, vmpl := u32(0), u32(0x30)
	return version >= abi.MinSupportedReportVersion && version < 0x100 &&
		u32(0x08)&snpPolicyReserved != 0 && (vmpl <= 3 || vmpl == SNPHostVMPL) && u32(0x34) <= 1 && u32(0x4C) == 0 &&
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
	firmware := func(offset int) SNPFirmware {
		return SNPFirmware{Major: data[offset+2], Minor: data[offset+1], Build: data[offset]}
	}
	p := &SNPReport{
		Version: u32(0), GuestSVN: u32(0x04), Policy: u64(0x08), FamilyID: data[0x10:0x20], ImageID: data[0x20:0x30],
		VMPL: u32(0x30), SignatureAlgo: u32(0x34), CurrentTCB: u64(0x38), PlatformInfo: u64(0x40), SignerInfo: u32(0x48),
		ReportData: data[0x50:0x90], Measurement: data[0x90:0xC0], HostData: data[0xC0:0xE0], IDKeyDigest: data[0xE0:0x110],
		AuthorKeyDigest: data[0x110:0x140], ReportID: data[0x140:0x160], ReportIDMA: data[0x160:0x180],
		ReportedTCB: u64(0x180), ChipID: data[0x1A0:0x1E0], CommittedTCB: u64(0x1E0),
		Current: firmware(0x1E8), Committed: firmware(0x1EC), LaunchTCB: u64(0x1F0),
		Signed: data[:snpSignature], Certificates: data[SNPReportSize:],
	}
	if p.Version < abi.MinSupportedReportVersion || p.Version > abi.MaxSupportedReportVersion {
		return nil, fmt.Errorf("%w: offset 0: VERSION %d, expected %d to %d", ErrUnsupported, p.Version, abi.MinSupportedReportVersion, abi.MaxSupportedReportVersion)
	}
	if p.Version >= abi.ReportVersion3 {
		p.CPUIDFamily, p.CPUIDModel, p.CPUIDStepping = data[0x188], data[0x189], data[0x18A]
	}
	if p.Version >= abi.ReportVersion5 {
		p.LaunchMitVector, p.CurrentMitVector = u64(0x1F8), u64(0x200)
	}
	if !allZero(data[snpSignatureEnd:SNPReportSize]) {
		return nil, fmt.Errorf("offset %#x: what follows SIGNATURE's r and s is not zero", snpSignatureEnd)
	}
	return p, nil
}

// reserved names the ranges that the report's version reserves and that are not
// zeros: a later firmware says something there that is not read here.
func (p *SNPReport) reserved() (warnings []string) {
	ranges := [][2]int{{0x18B, 0x1A0}, {0x1EB, 0x1EC}, {0x1EF, 0x1F0}, {0x208, snpSignature}}
	if p.Version < abi.ReportVersion3 {
		ranges[0][0] = 0x188
	}
	if p.Version < abi.ReportVersion5 {
		ranges[3][0] = 0x1F8
	}
	for _, r := range ranges {
		if b := p.Signed[r[0]:r[1]]; !allZero(b) {
			warnings = append(warnings, fmt.Sprintf("the bytes from %#x to %#x, which version %d reserves, are not zeros: %.64x", r[0], r[1]-1, p.Version, b))
		}
	}
	return warnings
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

// isSNPText tells a report as people paste it, in hexadecimal or base64.
func isSNPText(data []byte) bool {
	b, ok := decodeText(data)
	return ok && isSNP(b)
}

func openSNPText(data []byte, opts *Options) (*Quote, error) {
	b, _ := decodeText(data)
	return openSNP(b, opts)
}

// snpQuote checks all but who asked for the report, and why.
func snpQuote(data []byte, opts *Options) (*Quote, *SNPReport, error) {
	p, err := ParseSNP(data)
	if err != nil {
		return nil, nil, err
	}
	hardware, err := p.hardware(opts.Hardware)
	if err != nil {
		return nil, nil, err
	}
	roots, err := trustedSNPRoots(opts)
	if err != nil {
		return nil, nil, err
	}
	q := &Quote{
		Kind: SNP, Version: int(p.Version), Facts: p.facts(), Warnings: p.reserved(), asked: asked{reportData: p.ReportData, vmpl: p.VMPL},
		Values: rtmr.Values{rtmr.SHA384: {rtmr.Launch: p.Measurement}},
	}
	link, chain := p.chain(hardware, roots, opts.now())
	q.Links = []Link{p.signature(data, hardware.certs), link}
	if len(hardware.crls) > 0 {
		q.Links = append(q.Links, hardware.revocation(chain, opts.now()))
	}
	q.Links = append(q.Links, p.policy())
	if chain != nil && p.signer() == abi.VlekReportSigner {
		if ext, err := snpExtensionsOf(chain[0]); err == nil {
			q.Facts = append(q.Facts, Fact{"CSP_ID", rtmr.Escape(ext.cspID)})
		}
	}
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
