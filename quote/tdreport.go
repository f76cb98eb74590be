package quote

import (
	"bytes"
	"crypto/sha512"
	"fmt"

	"tallystick/rtmr"
)

// TDReportSize is a TDREPORT's size in bytes.
const TDReportSize = 1024

// TDXReport is a TDREPORT: a part that the CPU MACs for its own machine,
// REPORTMACSTRUCT, and what it has hashes of. Nothing in it has been checked. The
// slices point into the data that was parsed.
//
// The layout is TDREPORT_STRUCT of Intel's TDX Module ABI specification.
type TDXReport struct {
	Subtype, Version byte     // of REPORTTYPE; its type is 0x81, TDX
	CPUSVN           rtmr.Hex // 16 bytes
	TEETCBInfoHash   rtmr.Hex // SHA-384 of TEE_TCB_INFO
	TEEInfoHash      rtmr.Hex // SHA-384 of TDINFO
	MAC              rtmr.Hex // 32 bytes

	TEETCBInfo rtmr.Hex // 239 bytes
	TDInfo     rtmr.Hex // 512 bytes

	TDXBody
	Trailing []byte
}

// isTDReport tells a TDREPORT by REPORTTYPE and the reserved bytes behind it.
func isTDReport(data []byte) bool {
	return len(data) >= 16 && data[0] == teeTDX && bytes.Count(data[3:16], []byte{0}) == 13
}

// ParseTDReport reads a TDREPORT, as TDG.MR.REPORT and /dev/tdx_guest give it.
func ParseTDReport(data []byte) (*TDXReport, error) {
	if len(data) < TDReportSize {
		return nil, fmt.Errorf("%d bytes, expected %d", len(data), TDReportSize)
	}
	if data[0] != teeTDX {
		return nil, fmt.Errorf("%w: offset 0: REPORTTYPE.TYPE %#x, expected 0x81 (TDX)", ErrUnsupported, data[0])
	}
	p := &TDXReport{Subtype: data[1], Version: data[2], Trailing: data[TDReportSize:]}
	p.CPUSVN = data[16:32]
	p.TEETCBInfoHash = data[32:80]
	p.TEEInfoHash = data[80:128]
	p.REPORTDATA = data[128:192]
	p.MAC = data[224:256]

	tcb := data[256:495] // TEE_TCB_INFO: VALID (8 bytes) comes first
	p.TEETCBInfo = tcb
	p.TEETCBSVN = tcb[8:24]
	p.MRSEAM = tcb[24:72]
	p.MRSIGNERSEAM = tcb[72:120]
	p.SEAMATTRIBUTES = tcb[120:128]

	info := data[512:TDReportSize] // TDINFO_STRUCT
	p.TDInfo = info
	p.TDATTRIBUTES = info[0:8]
	p.XFAM = info[8:16]
	p.MRTD = info[16:64]
	p.MRCONFIGID = info[64:112]
	p.MROWNER = info[112:160]
	p.MROWNERCONFIG = info[160:208]
	for i := range p.RTMR {
		p.RTMR[i] = info[208+48*i:][:48]
	}
	if p.Version > 0 { // TDX 1.5: TEE_TCB_SVN2 and SERVTD_HASH in what was reserved
		p.TEETCBSVN2 = tcb[128:144]
		p.MRSERVICETD = info[400:448]
	}
	return p, nil
}

// openTDReport opens bytes that isTDReport recognised.
func openTDReport(data []byte, opts *Options) (*Quote, error) {
	p, err := ParseTDReport(data)
	if err != nil {
		return nil, err
	}
	if err := opts.only("a TDREPORT"); err != nil {
		return nil, err
	}
	q := &Quote{Kind: TDReport, Version: int(p.Version), Values: p.values(), Facts: p.facts(), Warnings: append(tdxTrailing(p.Trailing), p.warnings()...), asked: asked{reportData: p.REPORTDATA}}
	nonce, err := fieldNonce("REPORTDATA", p.REPORTDATA, opts.Nonce)
	if err != nil {
		return nil, err
	}
	q.Links = []Link{
		{Signature, Missing, "a TDREPORT has a MAC and no signature: only the machine that made it can check it, and makes a quote of it"},
		nonce,
		p.binding(),
		p.policy(),
	}
	return q, nil
}

// binding holds the two hashes that the MAC is over against the structures that
// carry the values.
func (p *TDXReport) binding() Link {
	for _, part := range []struct {
		hash, of string
		want     []byte
		data     []byte
	}{
		{"TEE_TCB_INFO_HASH", "TEE_TCB_INFO", p.TEETCBInfoHash, p.TEETCBInfo},
		{"TEE_INFO_HASH", "TDINFO", p.TEEInfoHash, p.TDInfo},
	} {
		if sum := sha512.Sum384(part.data); !bytes.Equal(sum[:], part.want) {
			return Link{Binding, Failed, fmt.Sprintf("%s is %x, but SHA-384 of the report's %s is %x", part.hash, part.want, part.of, sum)}
		}
	}
	return Link{Binding, Verified, "TEE_INFO_HASH and TEE_TCB_INFO_HASH are the SHA-384 of the report's TDINFO (registers) and TEE_TCB_INFO (TDX module)"}
}
