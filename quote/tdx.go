package quote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// TDXQuote is a TD quote as its bytes say: nothing in it has been checked. Open
// checks it. The slices point into the data that was parsed.
//
// The layout is that of Intel's TDX DCAP Quoting Library API, appendix A.3
// (version 4) and A.4 (version 5). Integers are little-endian.
type TDXQuote struct {
	TDXHeader
	// BodyType is version 5's: 2 for a TD report of TDX 1.0 (584 bytes), 3 for
	// one of TDX 1.5 (648 bytes). It is 0 in version 4, which has no such field
	// and always TDX 1.0's body.
	BodyType uint16
	TDXBody

	// Signed is what the signature is over: the header, in version 5 the body's
	// type and size, and the body.
	Signed rtmr.Hex
	// Signature is ECDSA's r ‖ s and AttestationKey the point's x ‖ y, both on
	// P-256, 32 bytes a number, big-endian.
	Signature, AttestationKey rtmr.Hex

	// QEReport is the quoting enclave's SGX report (384 bytes), with the PCK's
	// signature (r ‖ s) on it. Its REPORTDATA binds AttestationKey ‖ QEAuthData.
	QEReport, QEReportSignature, QEAuthData rtmr.Hex

	// CertificationType says what Certification is; 5 is a chain of PEM
	// certificates: PCK, intermediate CA, root CA.
	CertificationType uint16
	Certification     []byte

	Trailing []byte // what stands behind the quote: padding, usually zeros
}

// TDXHeader is a quote's header, 48 bytes.
type TDXHeader struct {
	Version            uint16
	AttestationKeyType uint16   // 2: ECDSA on P-256
	TEEType            uint32   // 0x81: TDX
	QEVendorID         rtmr.Hex // 16 bytes
	UserData           rtmr.Hex // 20 bytes
}

// TDXBody is a TD report's body as a quote carries it: 584 bytes, and 64 more
// of TDX 1.5.
type TDXBody struct {
	TEETCBSVN      rtmr.Hex // 16 bytes, one a component
	MRSEAM         rtmr.Hex // 48 bytes: the TDX module's measurement
	MRSIGNERSEAM   rtmr.Hex // 48 bytes
	SEAMATTRIBUTES rtmr.Hex // 8 bytes
	TDATTRIBUTES   rtmr.Hex // 8 bytes, little-endian; bit 0 is DEBUG
	XFAM           rtmr.Hex // 8 bytes, little-endian
	MRTD           rtmr.Hex // 48 bytes
	MRCONFIGID     rtmr.Hex // 48 bytes
	MROWNER        rtmr.Hex // 48 bytes
	MROWNERCONFIG  rtmr.Hex // 48 bytes
	RTMR           [rtmr.NumRTMRs]rtmr.Hex
	REPORTDATA     rtmr.Hex // 64 bytes: the verifier's nonce, or a hash over it

	TEETCBSVN2  rtmr.Hex // 16 bytes, of the TDX module that runs now; nil before TDX 1.5
	MRSERVICETD rtmr.Hex // 48 bytes; nil before TDX 1.5
}

// What is read here, of what the format has room for.
const (
	keyTypeECDSAP256 = 2
	teeTDX           = 0x81

	bodyTDX10, bodyTDX10Size = 2, 584
	bodyTDX15, bodyTDX15Size = 3, 648

	certQEReport = 6 // a QE report, its signature, and certification data of the PCK
	certPCKChain = 5 // PEM certificates
)

// intelQE is the QE vendor id that Intel's quoting enclaves write, in the UUID
// form 939a7233-f79c-4ca9-940a-0db3957f0607. It stands at
// offset 12 of SGX's quotes of version 3, too.
var intelQE = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// isDCAPQuote tells a DCAP quote of any version and TEE by its header: what is
// not read has to be named, and not taken for something else.
func isDCAPQuote(data []byte) bool {
	if len(data) < 8 {
		return false
	}
	version, tee := binary.LittleEndian.Uint16(data), binary.LittleEndian.Uint32(data[4:])
	vendor := len(data) >= 28 && bytes.Equal(data[12:28], intelQE)
	return version < 0x100 && (vendor || tee == teeTDX && data[2] != 0)
}

// ParseTDX reads a TD quote of version 4 or 5. Bytes behind the quote are
// Trailing: quotes come in buffers of a fixed size.
//
// The error wraps ErrUnsupported where the header is of another version, TEE or
// key type, or the quote is of a form that is not read here. All others are of
// malformed quotes, and name the offset and the field.
func ParseTDX(data []byte) (*TDXQuote, error) {
	r := littleEndian(data)
	q := &TDXQuote{}
	if err := q.parseHeader(r); err != nil {
		return nil, err
	}
	if err := q.parseBody(r); err != nil {
		return nil, err
	}
	q.Signed = data[:r.off]
	auth := r.nested("signature data", r.u32("signature data size"))
	q.Trailing = data[r.off:]
	q.parseSignature(auth)
	if r.err == nil {
		r.err = auth.err
	}
	if r.err != nil {
		return nil, r.err
	}
	return q, nil
}

func (q *TDXQuote) parseHeader(r *fields) error {
	q.Version = r.u16("version")
	q.AttestationKeyType = r.u16("attestation key type")
	q.TEEType = r.u32("TEE type")
	seen := fmt.Sprintf("version %d, attestation key type %d, TEE type %#x%s", q.Version, q.AttestationKeyType, q.TEEType, tdxGuess(r.data))
	switch {
	case r.err != nil:
		return r.err
	case q.Version != 4 && q.Version != 5, q.TEEType != teeTDX, q.AttestationKeyType != keyTypeECDSAP256:
		return fmt.Errorf("%w: %s, expected version 4 or 5, key type 2 (ECDSA P-256), TEE type 0x81 (TDX)", ErrUnsupported, seen)
	}
	r.bytes("reserved", 4) // the QE's and the PCE's SVN in earlier revisions
	q.QEVendorID = r.bytes("QE vendor id", 16)
	q.UserData = r.bytes("user data", 20)
	return r.err
}

// tdxGuess says what a header that makes no sense may be of.
func tdxGuess(data []byte) string {
	switch {
	case len(data) >= 8 && binary.LittleEndian.Uint16(data) == 3 && binary.LittleEndian.Uint32(data[4:]) == 0:
		return " (an SGX quote)"
	case len(data) >= 8 && binary.LittleEndian.Uint32(data[4:]) == 0 && len(data) >= 28 && bytes.Equal(data[12:28], intelQE):
		return " (an SGX quote)"
	case len(data) > 0 && data[0]>>5 >= 4 && data[0]>>5 <= 6:
		// Arrays, maps and tags (RFC 8949 §3.1). DICE evidence is a CWT, and a
		// reason for quotes above 8 KB (Linux, drivers/virt/coco/tdx-guest).
		return fmt.Sprintf(" (begins %.4x, which could be CBOR: a DICE or CWT payload)", data)
	}
	return ""
}

func (q *TDXQuote) parseBody(r *fields) error {
	size := uint32(bodyTDX10Size)
	if q.Version == 5 {
		at := r.off
		q.BodyType = r.u16("body type")
		size = r.u32("body size")
		want := map[uint16]uint32{bodyTDX10: bodyTDX10Size, bodyTDX15: bodyTDX15Size}[q.BodyType]
		switch {
		case r.err != nil:
			return r.err
		case want == 0:
			return fmt.Errorf("%w: offset %d: body type %d of %d bytes, expected 2 (TDX 1.0) or 3 (TDX 1.5)", ErrUnsupported, at, q.BodyType, size)
		case size != want:
			return fmt.Errorf("offset %d: body size: %d bytes for type %d, expected %d", at+2, size, q.BodyType, want)
		}
	}
	q.TEETCBSVN = r.bytes("TEE_TCB_SVN", 16)
	q.MRSEAM = r.bytes("MRSEAM", 48)
	q.MRSIGNERSEAM = r.bytes("MRSIGNERSEAM", 48)
	q.SEAMATTRIBUTES = r.bytes("SEAMATTRIBUTES", 8)
	q.TDATTRIBUTES = r.bytes("TDATTRIBUTES", 8)
	q.XFAM = r.bytes("XFAM", 8)
	q.MRTD = r.bytes("MRTD", 48)
	q.MRCONFIGID = r.bytes("MRCONFIGID", 48)
	q.MROWNER = r.bytes("MROWNER", 48)
	q.MROWNERCONFIG = r.bytes("MROWNERCONFIG", 48)
	for i := range q.RTMR {
		q.RTMR[i] = r.bytes(fmt.Sprintf("RTMR%d", i), 48)
	}
	q.REPORTDATA = r.bytes("REPORTDATA", 64)
	if q.BodyType == bodyTDX15 {
		q.TEETCBSVN2 = r.bytes("TEE_TCB_SVN_2", 16)
		q.MRSERVICETD = r.bytes("MRSERVICETD", 48)
	}
	return r.err
}

// parseSignature reads the ECDSA 256-bit quote signature data structure: r
// has it and nothing else.
func (q *TDXQuote) parseSignature(r *fields) {
	q.Signature = r.bytes("signature", 64)
	q.AttestationKey = r.bytes("attestation key", 64)
	at := r.off
	if t := r.u16("certification data type"); r.err == nil && t != certQEReport {
		r.err = fmt.Errorf("%w: offset %d: certification data type %d, expected 6 (QE report certification data)", ErrUnsupported, at, t)
	}
	cert := r.nested("certification data", r.u32("certification data size"))
	r.end("the certification data")

	q.QEReport = cert.bytes("QE report", 384)
	q.QEReportSignature = cert.bytes("QE report signature", 64)
	q.QEAuthData = cert.bytes("QE authentication data", int64(cert.u16("QE authentication data size")))
	q.CertificationType = cert.u16("PCK certification data type")
	q.Certification = cert.bytes("PCK certification data", int64(cert.u32("PCK certification data size")))
	cert.end("the PCK certification data")
	if r.err == nil {
		r.err = cert.err
	}
}

// values are the registers of a TD.
func (b *TDXBody) values() rtmr.Values {
	bank := map[rtmr.Register]rtmr.Hex{rtmr.MRTD: b.MRTD}
	for i, value := range b.RTMR {
		reg, _ := rtmr.Index(i).RTMR()
		bank[reg] = value
	}
	return rtmr.Values{rtmr.SHA384: bank}
}

// facts are the fields that are no registers.
func (b *TDXBody) facts() []Fact {
	facts := []Fact{}
	for _, f := range []struct {
		name  string
		value rtmr.Hex
	}{
		{"TEE_TCB_SVN", b.TEETCBSVN}, {"MRSEAM", b.MRSEAM}, {"MRSIGNERSEAM", b.MRSIGNERSEAM}, {"SEAMATTRIBUTES", b.SEAMATTRIBUTES},
		{"TDATTRIBUTES", b.TDATTRIBUTES}, {"XFAM", b.XFAM}, {"MRCONFIGID", b.MRCONFIGID}, {"MROWNER", b.MROWNER},
		{"MROWNERCONFIG", b.MROWNERCONFIG}, {"REPORTDATA", b.REPORTDATA}, {"TEE_TCB_SVN_2", b.TEETCBSVN2}, {"MRSERVICETD", b.MRSERVICETD},
	} {
		if f.value != nil {
			facts = append(facts, Fact{f.name, f.value.String()})
		}
		if f.name == "TDATTRIBUTES" {
			facts = append(facts, attributeFacts(f.value)...)
		}
	}
	return facts
}

// tdAttributes are the bits of TDATTRIBUTES (TDX Module ABI Specification, ATTRIBUTES
// Definition; Linux, arch/x86/include/asm/shared/tdx.h).
var tdAttributes = []struct {
	bit  int
	name string
}{
	{0, "DEBUG"}, {4, "HGS_PLUS_PROF"}, {5, "PERF_PROF"}, {6, "PMT_PROF"}, {16, "ICSSD"}, {27, "LASS"},
	{28, "SEPT_VE_DISABLE"}, {29, "MIGRATABLE"}, {30, "PKS"}, {31, "KL"}, {62, "TPA"}, {63, "PERFMON"},
}

func attributeFacts(attributes []byte) (facts []Fact) {
	if len(attributes) != 8 {
		return nil
	}
	value := binary.LittleEndian.Uint64(attributes)
	for _, a := range tdAttributes {
		facts = append(facts, Fact{"TDATTRIBUTES." + a.name, fmt.Sprint(value >> a.bit & 1)})
	}
	return facts
}

// policy tells of a TD that is open to its host. ATTRIBUTES[7:0] is TUD, the
// group of attributes that put the TD under debug; any of them makes it
// untrusted (TDX Module Base Architecture Specification, TD attributes).
func (b *TDXBody) policy() Link {
	if len(b.TDATTRIBUTES) > 0 && b.TDATTRIBUTES[0] != 0 {
		return Link{Policy, Failed, fmt.Sprintf("TDATTRIBUTES has debug bits set (%#02x): the host can read and change this TD, registers included", b.TDATTRIBUTES[0])}
	}
	return Link{Policy, Verified, "TDATTRIBUTES has no debug bit set"}
}

// warnings tells of what the owner may not have meant to allow.
func (b *TDXBody) warnings() []string {
	if len(b.TDATTRIBUTES) < 4 || b.TDATTRIBUTES[3]&0x20 == 0 {
		return nil
	}
	return []string{"TDATTRIBUTES.MIGRATABLE is set: the host may bind a migration TD of its own choice, which can take this one (--require TDATTRIBUTES.MIGRATABLE=0 refuses that)"}
}

// tdxTrailing tells of bytes behind the evidence that are no padding.
func tdxTrailing(b []byte) []string {
	if strings.Trim(string(b), "\x00") == "" {
		return nil
	}
	return []string{fmt.Sprintf("%d bytes follow the evidence and are not zeros: %.16x..", len(b), b)}
}
