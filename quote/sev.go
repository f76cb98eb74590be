package quote

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// SEVMeasurement is an SEV or SEV-ES guest's launch measurement as its bytes say:
// nothing in it has been checked. Open checks it. The slices point into the data
// that was parsed, if that was binary.
//
// It is MEASURE and MNONCE of LAUNCH_MEASURE (AMD Secure Encrypted Virtualization
// API, document 55766):
//
//	MEASURE = HMAC-SHA-256(TIK, 04 ‖ API_MAJOR ‖ API_MINOR ‖ BUILD ‖ le32 POLICY ‖ LD ‖ MNONCE)
//
// and states neither the launch digest LD nor what stands before it. So it can only
// be held against what its reader has: the TIK, which is the guest owner's secret,
// and the digest that is expected.
type SEVMeasurement struct {
	Measure rtmr.Hex // 32 bytes
	MNonce  rtmr.Hex // 16 bytes, by the firmware
	SEVGuest
}

// SEVGuest is what an SEV guest's launch measurement is over, beside the digest.
// QEMU and libvirt print it with the measurement; nil is what they did not.
type SEVGuest struct {
	SEVAPI    *SEVAPI // the firmware's
	SEVBuild  *uint8  // the firmware's, BUILD or build-id
	SEVPolicy *uint32 // the guest's, POLICY
}

// SEVAPI is the version of the API that a firmware has.
type SEVAPI struct{ Major, Minor uint8 }

// String writes the version as "1.55".
func (a SEVAPI) String() string { return fmt.Sprintf("%d.%d", a.Major, a.Minor) }

const (
	sevMeasureSize = 32
	sevSize        = sevMeasureSize + 16
	sevTIKSize     = 16
)

// sevPolicyFields are POLICY's (document 55766, "Guest Policy").
var sevPolicyFields = []bitField{
	flag("NODBG", 0), flag("NOKS", 1), flag("ES", 2), flag("NOSEND", 3), flag("DOMAIN", 4), flag("SEV", 5),
	{"API_MAJOR", 16, 23}, {"API_MINOR", 24, 31},
}

const sevNODBG, sevNOKS, sevES, sevNOSEND, sevDOMAIN, sevSEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5

// ParseSEV reads a launch measurement: the 48 bytes, or these in base64 or
// hexadecimal, or what QEMU or libvirt print of it (parseSEVText).
func ParseSEV(data []byte) (*SEVMeasurement, error) {
	if isSEVText(data) {
		return parseSEVText(data)
	}
	blob := data
	if len(data) != sevSize {
		var ok bool
		if blob, ok = decodeText(data); !ok || len(blob) != sevSize {
			return nil, fmt.Errorf("%d bytes, expected %d, or these in base64 or hexadecimal", len(data), sevSize)
		}
	}
	return &SEVMeasurement{Measure: blob[:sevMeasureSize], MNonce: blob[sevMeasureSize:]}, nil
}

// isSEV tells a launch measurement where a TIK was given: 48 bytes have no magic.
func isSEV(data []byte) bool {
	_, err := ParseSEV(data)
	return err == nil
}

// openSEV opens what isSEV, or isSEVText, recognised.
func openSEV(data []byte, opts *Options) (*Quote, error) {
	if err := opts.only("an SEV launch measurement", "tik", "sev-api", "sev-build", "sev-policy", "hardware", "snp-roots"); err != nil {
		return nil, err
	}
	m, err := ParseSEV(data)
	if err != nil {
		return nil, err
	}
	if err := m.complete(opts.SEVGuest); err != nil {
		return nil, err
	}
	tik, err := parseTIK(opts.TIK)
	if err != nil {
		return nil, err
	}
	chain, err := sevChain(tik, opts)
	if err != nil {
		return nil, err
	}
	launch := opts.Expect[rtmr.SHA256][rtmr.Launch]
	q := &Quote{Kind: SEV, Facts: m.facts()}
	if m.SEVPolicy != nil {
		q.Warnings = sevWarnings(*m.SEVPolicy)
	}
	signature := m.signature(tik, launch)
	if signature.Status == Verified {
		q.Values = rtmr.Values{rtmr.SHA256: {rtmr.Launch: bytes.Clone(launch)}}
	}
	q.Links = []Link{signature, chain, m.policy(), m.nonce(opts.Nonce)}
	return q, nil
}

// sevWarnings tell of what lies open to the host in every guest but SEV-ES'.
func sevWarnings(policy uint32) []string {
	if policy&sevES != 0 {
		return nil
	}
	return []string{"POLICY.ES is 0: the processor's registers are not encrypted when the guest leaves it, so the host sees and may change them"}
}

// parseTIK reads a transport integrity key; nil if none was given.
func parseTIK(given []byte) ([]byte, error) {
	if len(given) == 0 || len(given) == sevTIKSize {
		return given, nil
	}
	if key, ok := decodeText(given); ok && len(key) == sevTIKSize {
		return key, nil
	}
	return nil, fmt.Errorf("the TIK: %d bytes, expected %d, or these in hexadecimal or base64", len(given), sevTIKSize)
}

// complete adds what was given, and refuses it where the evidence says otherwise.
func (g *SEVGuest) complete(given SEVGuest) error {
	differs := func(flag, of string, want, got any) error {
		return fmt.Errorf("--%s is %v, and the evidence states %s %v", flag, want, of, got)
	}
	switch {
	case g.SEVAPI != nil && given.SEVAPI != nil && *g.SEVAPI != *given.SEVAPI:
		return differs("sev-api", "API version", given.SEVAPI, g.SEVAPI)
	case g.SEVBuild != nil && given.SEVBuild != nil && *g.SEVBuild != *given.SEVBuild:
		return differs("sev-build", "build", *given.SEVBuild, *g.SEVBuild)
	case g.SEVPolicy != nil && given.SEVPolicy != nil && *g.SEVPolicy != *given.SEVPolicy:
		return differs("sev-policy", "policy", fmt.Sprintf("%#x", *given.SEVPolicy), fmt.Sprintf("%#x", *g.SEVPolicy))
	}
	if given.SEVAPI != nil {
		g.SEVAPI = given.SEVAPI
	}
	if given.SEVBuild != nil {
		g.SEVBuild = given.SEVBuild
	}
	if given.SEVPolicy != nil {
		g.SEVPolicy = given.SEVPolicy
	}
	return nil
}

// signature holds the MAC against a launch digest. Which of the MAC's parts is not
// the one that was measured, it cannot tell.
func (m *SEVMeasurement) signature(tik []byte, launch rtmr.Hex) Link {
	var missing []string
	for _, part := range []struct {
		name  string
		there bool
	}{
		{"the TIK (--tik)", tik != nil}, {"the launch digest (--expect, as sha256 launch)", launch != nil},
		{"the firmware's API version (--sev-api)", m.SEVAPI != nil}, {"its build (--sev-build)", m.SEVBuild != nil}, {"the guest's policy (--sev-policy)", m.SEVPolicy != nil},
	} {
		if !part.there {
			missing = append(missing, part.name)
		}
	}
	switch {
	case len(missing) > 0:
		return Link{Signature, Missing, "not given, and what the MAC is by or over: " + strings.Join(missing, ", ")}
	case len(launch) != sha256.Size:
		return Link{Signature, Failed, fmt.Sprintf("the launch digest has %d bytes, expected %d", len(launch), sha256.Size)}
	case !hmac.Equal(m.Measure, m.mac(tik, launch)):
		return Link{Signature, Failed, fmt.Sprintf("the MAC is not by this TIK over the launch digest %s, MNONCE, API %s, build %d and policy %#x: one of them is another", launch, m.SEVAPI, *m.SEVBuild, *m.SEVPolicy)}
	}
	return Link{Signature, Verified, fmt.Sprintf("HMAC-SHA-256 by the TIK over the launch digest %s, MNONCE, API %s, build %d and policy %#x", launch, m.SEVAPI, *m.SEVBuild, *m.SEVPolicy)}
}

// mac is what MEASURE is, of that digest.
func (m *SEVMeasurement) mac(tik, launch []byte) []byte {
	h := hmac.New(sha256.New, tik)
	h.Write([]byte{0x04, m.SEVAPI.Major, m.SEVAPI.Minor, *m.SEVBuild})
	h.Write(binary.LittleEndian.AppendUint32(nil, *m.SEVPolicy))
	h.Write(launch)
	h.Write(m.MNonce)
	return h.Sum(nil)
}

// sevChain tells what the key is worth. Certificates of a platform may show that it is
// not genuine, and never that it is the one for whose key, its PDH, the owner made the
// session: they are public, and the launch measurement has nothing of a PDH.
func sevChain(tik []byte, opts *Options) (Link, error) {
	if tik == nil {
		return Link{Chain, Missing, "no TIK was given (--tik)"}, nil
	}
	if len(opts.Hardware) == 0 {
		return Link{Chain, NotChecked, "the TIK was given and is taken as it is: known to the guest's owner and to a genuine platform's firmware alone, as it is where the session was made for a PDH whose certificates (--hardware) lead to AMD"}, nil
	}
	roots, err := trustedSEVRoots(opts)
	if err != nil {
		return Link{}, err
	}
	certs, err := parseSEVCerts(opts.Hardware)
	if err != nil {
		return Link{}, fmt.Errorf("what vouches for the platform: %w", err)
	}
	pek, link := roots.chain(certs)
	if link.Status != Verified {
		return link, nil
	}
	pdhs := sevCertsOf(certs, sevPDH)
	if len(pdhs) != 1 {
		return Link{Chain, Missing, fmt.Sprintf("%d certificates of a PDH, expected one (--hardware)", len(pdhs))}, nil
	}
	if err := pdhs[0].signedBy(pek); err != nil {
		return Link{Chain, Failed, err.Error()}, nil
	}
	return Link{Chain, NotChecked, "the platform whose certificates were given is genuine (PDH, " + link.Text + "); that the TIK's session was made for its PDH is taken as it is"}, nil
}

// nonce tells that there is no room for the verifier's.
func (m *SEVMeasurement) nonce(given []byte) Link {
	if len(given) > 0 {
		return Link{Nonce, Missing, "a launch measurement has no room for a verifier's nonce: MNONCE is the firmware's. That it is of this launch, a TIK tells that was made for it"}
	}
	return Link{Nonce, NotChecked, "MNONCE is the firmware's: that it is of this launch, a TIK tells that was made for it"}
}

// policy is the MAC's part, so that it holds is the signature's matter.
func (m *SEVMeasurement) policy() Link {
	if m.SEVPolicy == nil {
		return Link{Policy, Missing, "no policy was given (--sev-policy)"}
	}
	return sevPolicy(*m.SEVPolicy)
}

// sevPolicy tells of a guest that is open to its host.
func sevPolicy(p uint32) Link {
	var open []string
	if p&sevNODBG == 0 {
		open = append(open, "debugging (NODBG is 0): the host can read and change the guest's memory")
	}
	if p&sevNOKS == 0 {
		open = append(open, "another guest with this one's key (NOKS is 0): the host can launch one that reads and changes this one's memory")
	}
	if p&(sevNOSEND|sevDOMAIN|sevSEV) == 0 {
		open = append(open, "sending the guest to whoever has a key (NOSEND, DOMAIN and SEV are 0): the host can have its memory sent to itself")
	}
	if len(open) > 0 {
		return Link{Policy, Failed, "POLICY allows " + strings.Join(open, "; and ")}
	}
	return Link{Policy, Verified, "POLICY allows neither debugging, nor another guest with its key, nor sending it to what is no SEV platform"}
}

func (m *SEVMeasurement) facts() []Fact {
	facts := []Fact{{"MEASURE", m.Measure.String()}, {"MNONCE", m.MNonce.String()}}
	if m.SEVAPI != nil {
		facts = append(facts, decimal("API_MAJOR", m.SEVAPI.Major), decimal("API_MINOR", m.SEVAPI.Minor))
	}
	if m.SEVBuild != nil {
		facts = append(facts, decimal("BUILD", *m.SEVBuild))
	}
	if m.SEVPolicy != nil {
		facts = append(facts, wordFacts("POLICY", uint64(*m.SEVPolicy), sevPolicyFields)...)
	}
	return facts
}

var errNoSEV = errors.New("no launch measurement")
