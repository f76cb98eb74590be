package quote

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// HCLReport is the report that Azure's paravisor (its host compatibility layer,
// HCL, or OpenHCL) leaves in a confidential VM's vTPM, at NV index 0x01400001,
// as its bytes say: nothing in it has been checked. Open checks it. The slices
// point into the data that was parsed.
//
// The hardware's report stands for the runtime data, by their hash in
// REPORT_DATA, and these for the vTPM, by its attestation key. All else is not
// measured. The layout is OpenHCL's IgvmAttestRequest (openvmm,
// openhcl_attestation_protocol/src/igvm_attest/get.rs); integers are
// little-endian.
type HCLReport struct {
	Version     uint32 // of the header: 1 or 2
	ReportSize  uint32 // the bytes up to the runtime data's end, by the header
	RequestType uint32

	Hardware Kind   // SNP or TDReport
	Report   []byte // the hardware's report: 1184 or 1024 bytes

	DataVersion uint32   // of what stands before the runtime data
	Hash        rtmr.Alg // of the runtime data in REPORT_DATA
	Runtime     []byte   // the runtime data, JSON, as they are hashed
	end         int      // of the runtime data
	Trailing    []byte   // the NV index has 2600 bytes, whatever the report needs

	HCLClaims
}

// HCLClaims are what an HCL report's runtime data say.
type HCLClaims struct {
	AK, EK *rsa.PublicKey // the vTPM's HCLAkPub and HCLEkPub, nil where they are not
	// UserData is what the guest wrote to the NV index 0x01400002 before it read
	// the report, 64 bytes; nil where there is none.
	UserData rtmr.Hex
	VM       []Fact // vm-configuration, by name
}

// Where an HCL report's parts stand.
const (
	hclHeader  = 32            // signature, version, report size, request type, status, 3 reserved words
	hclSlot    = SNPReportSize // for the hardware's report, whichever it is
	hclData    = hclHeader + hclSlot
	hclRuntime = hclData + 20 // size, version, report type, hash type, size of the runtime data

	hclTypeSNP, hclTypeTDX = 2, 4
)

var hclHashes = map[uint32]rtmr.Alg{1: rtmr.SHA256, 2: rtmr.SHA384, 3: rtmr.SHA512}

func isHCL(data []byte) bool { return bytes.HasPrefix(data, []byte("HCLA")) }

// ParseHCL reads an HCL report. The error names the offset and the field, and
// wraps ErrUnsupported where the report is of no hardware that is read here.
func ParseHCL(data []byte) (*HCLReport, error) {
	if !isHCL(data) {
		return nil, fmt.Errorf("offset 0: signature: %q, expected HCLA", data[:min(4, len(data))])
	}
	if len(data) < hclRuntime {
		return nil, fmt.Errorf("offset %d: the report ends, expected %d bytes and the runtime data", len(data), hclRuntime)
	}
	u32 := func(offset int) uint32 { return binary.LittleEndian.Uint32(data[offset:]) }
	p := &HCLReport{Version: u32(4), ReportSize: u32(8), RequestType: u32(12), DataVersion: u32(hclData + 4)}

	slot := data[hclHeader:hclData]
	switch kind := u32(hclData + 8); kind {
	case hclTypeSNP:
		p.Hardware, p.Report = SNP, slot
	case hclTypeTDX:
		p.Hardware, p.Report = TDReport, slot[:TDReportSize]
	default:
		return nil, fmt.Errorf("%w: offset %d: report type %d%s, expected 2 (SNP) or 4 (TDX)", ErrUnsupported, hclData+8, kind, hclTypeName[kind])
	}
	var ok bool
	if p.Hash, ok = hclHashes[u32(hclData+12)]; !ok {
		return nil, fmt.Errorf("offset %d: hash type %d, expected 1 (SHA-256), 2 (SHA-384) or 3 (SHA-512)", hclData+12, u32(hclData+12))
	}
	size := u32(hclData + 16)
	at := hclRuntime + p.extension(u32(hclData), size)
	if left := max(len(data)-at, 0); uint64(size) > uint64(left) {
		return nil, fmt.Errorf("offset %d: %d bytes of runtime data, and the report has %d left", hclData+16, size, left)
	}
	p.end = at + int(size)
	p.Runtime, p.Trailing = data[at:p.end], data[p.end:]
	if err := p.parse(p.Runtime); err != nil {
		return nil, fmt.Errorf("offset %d: runtime data: %w", at, err)
	}
	return p, nil
}

var hclTypeName = map[uint32]string{1: " (VBS)", 3: " (Trusted Launch, no hardware)"}

// extension returns how many bytes stand between the five words and the runtime
// data: from version 2 on four, IgvmAttestRequestDataExt, where the data's size
// says so.
func (p *HCLReport) extension(dataSize, runtimeSize uint32) int {
	const words, ext = hclRuntime - hclData, 4
	if p.DataVersion >= 2 && uint64(dataSize) == uint64(runtimeSize)+words+ext {
		return ext
	}
	return 0
}

// parse reads the runtime data.
func (c *HCLClaims) parse(runtime []byte) (err error) {
	var claims struct {
		Keys     []jwk                      `json:"keys"`
		VM       map[string]json.RawMessage `json:"vm-configuration"`
		UserData string                     `json:"user-data"`
	}
	if err := json.Unmarshal(runtime, &claims); err != nil {
		return err
	}
	for _, key := range claims.Keys {
		switch key.ID {
		case "HCLAkPub":
			err = key.set(&c.AK)
		case "HCLEkPub":
			err = key.set(&c.EK)
		}
		if err != nil {
			return fmt.Errorf("keys: %s: %w", key.ID, err)
		}
	}
	if claims.UserData != "" {
		if c.UserData, err = hex.DecodeString(claims.UserData); err != nil {
			return fmt.Errorf("user-data: %w", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(claims.VM)) {
		c.VM = append(c.VM, Fact{"vm-configuration " + rtmr.Escape(name), rtmr.Escape(string(claims.VM[name]))})
	}
	return nil
}

// jwk is an RSA key as RFC 7517 and RFC 7518 §6.3.1 write it.
type jwk struct {
	ID   string `json:"kid"`
	Type string `json:"kty"`
	N    string `json:"n"`
	E    string `json:"e"`
}

func (k jwk) set(key **rsa.PublicKey) error {
	if *key != nil {
		return errors.New("comes twice")
	}
	if k.Type != "RSA" {
		return fmt.Errorf("kty %s, expected RSA", quoted(k.Type))
	}
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	if err != nil || len(n) == 0 || n[0] == 0 {
		return fmt.Errorf("n %s, expected a modulus in base64url", quoted(k.N))
	}
	e, err := base64.RawURLEncoding.DecodeString(k.E)
	exponent := new(big.Int).SetBytes(e)
	if err != nil || exponent.BitLen() > 31 || exponent.Cmp(big.NewInt(3)) < 0 {
		return fmt.Errorf("e %s, expected an exponent of 3 to %d in base64url", quoted(k.E), math.MaxInt32)
	}
	*key = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	return nil
}

// ReportData returns the hardware report's REPORT_DATA, or REPORTDATA as TDX
// spells it: 64 bytes.
func (p *HCLReport) ReportData() rtmr.Hex {
	if p.Hardware == TDReport {
		return p.Report[128:192] // TDREPORT_STRUCT, REPORTMACSTRUCT
	}
	return p.Report[0x50:0x90]
}

// openHCL opens bytes that isHCL recognised: a report by itself.
func openHCL(data []byte, opts *Options) (*Quote, error) {
	p, err := ParseHCL(data)
	if err != nil {
		return nil, err
	}
	if err := opts.only("an HCL report", "hardware", "collateral", "tdx-roots", "snp-roots"); err != nil {
		return nil, err
	}
	q, err := p.quote(opts)
	if err != nil {
		return nil, err
	}
	nonce, err := p.nonce(opts.Nonce)
	if err != nil {
		return nil, err
	}
	q.Links = append(q.Links, nonce)
	q.Values = q.Inside.Values
	q.Warnings = append(q.Warnings, "the report says nothing of what was booted: that is in the vTPM's PCRs, of which its key HCLAkPub signs a quote")
	return q, nil
}

// hclKey returns the key by which opts.HCL makes the vTPM's quotes checkable,
// and the report, to stand inside the quote: it vouches for the key, and the
// quote's own extraData for freshness.
func hclKey(opts *Options) (*rsa.PublicKey, *Quote, error) {
	p, err := ParseHCL(opts.HCL)
	if err != nil {
		return nil, nil, fmt.Errorf("HCL report: %w", err)
	}
	if p.AK == nil {
		return nil, nil, errors.New("HCL report: the runtime data have no key HCLAkPub")
	}
	q, err := p.quote(opts)
	if err != nil {
		return nil, nil, fmt.Errorf("HCL report: %w", err)
	}
	return p.AK, q, nil
}

// quote checks the report, but for its freshness.
func (p *HCLReport) quote(opts *Options) (*Quote, error) {
	inside, err := openHardware(p, opts)
	if err != nil {
		return nil, fmt.Errorf("offset %d: %s: %w", hclHeader, p.Hardware, err)
	}
	return &Quote{
		Kind: Azure, Version: int(p.Version), Inside: inside,
		Links: []Link{p.binding()}, Facts: p.facts(), Warnings: p.warnings(),
	}, nil
}

// binding checks that the hardware reported of these runtime data, and that the
// paravisor asked it to: whoever else in the VM can ask chooses REPORT_DATA too.
func (p *HCLReport) binding() Link {
	want := make(rtmr.Hex, len(p.ReportData()))
	copy(want, p.Hash.AppendHash(nil, p.Runtime))
	if !bytes.Equal(want, p.ReportData()) {
		return Link{Binding, Failed, fmt.Sprintf("REPORT_DATA is %s, expected the runtime data's %s and zeros, %s", p.ReportData(), p.Hash, want)}
	}
	if vmpl := binary.LittleEndian.Uint32(p.Report[0x30:]); p.Hardware == SNP && vmpl != 0 {
		return Link{Binding, Failed, fmt.Sprintf("VMPL is %d, expected 0: not the paravisor asked for this report", vmpl)}
	}
	return Link{Binding, Verified, fmt.Sprintf("REPORT_DATA is the %s of the runtime data with the vTPM's keys", p.Hash)}
}

// nonce holds user-data against the verifier's nonce: a guest that writes it to
// NV index 0x01400002 gets a new report with it (Microsoft's "Guest attestation
// for confidential VMs: design detail").
func (p *HCLReport) nonce(nonce []byte) (Link, error) {
	if len(p.UserData) == 0 && len(nonce) > 0 {
		return Link{Nonce, Failed, "the runtime data have no user-data, where a nonce would stand"}, nil
	}
	if len(p.UserData) == 0 {
		return Link{Nonce, NotChecked, "no nonce given, and no user-data in the runtime data"}, nil
	}
	return fieldNonce("user-data", p.UserData, nonce)
}

func (p *HCLReport) facts() []Fact {
	facts := []Fact{{"hardware report", string(p.Hardware)}, {"hash", p.Hash.String()}}
	for _, key := range []struct {
		name string
		key  *rsa.PublicKey
	}{{"HCLAkPub", p.AK}, {"HCLEkPub", p.EK}} {
		if key.key != nil {
			facts = append(facts, Fact{key.name, fmt.Sprintf("RSA %d, modulus %x", key.key.N.BitLen(), key.key.N)})
		}
	}
	if p.UserData != nil {
		facts = append(facts, Fact{"user-data", p.UserData.String()})
	}
	return append(facts, p.VM...)
}

// warnings tell of what no hash is over and does not fit.
func (p *HCLReport) warnings() (w []string) {
	if uint64(p.ReportSize) != uint64(p.end) {
		w = append(w, fmt.Sprintf("the header says that the report has %d bytes, its parts have %d", p.ReportSize, p.end))
	}
	if !allZero(p.Trailing) {
		w = append(w, fmt.Sprintf("%d bytes behind the report are not zeros", len(strings.TrimRight(string(p.Trailing), "\x00"))))
	}
	return w
}
