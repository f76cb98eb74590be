//go:build linux

package tdx

import (
	"encoding/binary"
	"fmt"

	"tallystick/rtmr"
)

// layout is where the registers stand in what the TDX module or the quoting
// enclave made, and the caller's 64 bytes.
type layout struct{ mrtd, rtmr0, reportData int }

var (
	// TDREPORT_STRUCT of Intel's TDX Module ABI specification.
	tdReport = layout{mrtd: 528, rtmr0: 720, reportData: 128}
	// Intel's TDX DCAP Quoting Library API, A.3 and A.4: version 5 has a type and
	// a size, six bytes, before what is version 4's body.
	quoteV4 = layout{mrtd: 184, rtmr0: 376, reportData: 568}
	quoteV5 = layout{mrtd: 190, rtmr0: 382, reportData: 574}
)

const (
	tdReportSize = 1024
	teeTDX       = 0x81
)

// quoteLayout tells which quote this is. A host may have its quoting service
// give something else than Intel's: that is an error, and no fault of the quote.
func quoteLayout(quote []byte) (l layout, err error) {
	if len(quote) < quoteV5.reportData+64 || binary.LittleEndian.Uint32(quote[4:]) != teeTDX {
		return layout{}, fmt.Errorf("a quote of another format than Intel's, beginning %.8x", quote)
	}
	switch version := binary.LittleEndian.Uint16(quote); version {
	case 4:
		return quoteV4, nil
	case 5:
		return quoteV5, nil
	default:
		return layout{}, fmt.Errorf("a quote of version %d, expected 4 or 5", version)
	}
}

func (l layout) value(b []byte, r rtmr.Register) []byte {
	at, size := l.mrtd, rtmr.SHA384.Size()
	if r.Kind() == rtmr.KindRTMR {
		at = l.rtmr0 + size*r.Index()
	}
	return b[at : at+size : at+size]
}
