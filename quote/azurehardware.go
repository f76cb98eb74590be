package quote

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"tallystick/rtmr"
)

// openHardware opens the hardware's report that an HCL report holds, and what
// vouches for it in turn. Whose report it is, its REPORT_DATA tells, so the
// verifier's nonce is not looked for there.
func openHardware(p *HCLReport, opts *Options) (*Quote, error) {
	if p.Hardware == TDReport {
		return openHCLTDReport(p.Report, opts)
	}
	q, _, err := snpQuote(p.Report, opts)
	return q, err
}

// openTDQuote is Open. A variable that is set late breaks the cycle of formats,
// openHCL, Open and formats.
var openTDQuote func(data []byte, opts Options) (*Quote, error)

func init() { openTDQuote = Open }

// tdReportFields are those of a TDREPORT that a TD quote repeats (TDREPORT_STRUCT,
// Intel's TDX Module ABI specification).
type tdReportFields struct {
	reportData rtmr.Hex
	values     rtmr.Values // mrtd and the RTMRs
}

func readTDReport(report []byte) tdReportFields {
	const mrtd, rtmr0, size = 528, 720, 48
	bank := map[rtmr.Register]rtmr.Hex{rtmr.MRTD: report[mrtd:][:size]}
	for i := range rtmr.NumRTMRs {
		r, _ := rtmr.Index(i).RTMR()
		bank[r] = report[rtmr0+i*size:][:size]
	}
	return tdReportFields{report[128:192], rtmr.Values{rtmr.SHA384: bank}}
}

// openHCLTDReport opens a TDREPORT of an HCL report. Its MAC is for its own
// machine alone; a TD quote of the same TD and the same REPORTDATA, if given in
// Options.Hardware, vouches for it and is returned in its place.
func openHCLTDReport(report []byte, opts *Options) (*Quote, error) {
	if report[0] != 0x81 {
		return nil, fmt.Errorf("%w: REPORTTYPE.TYPE %#x, expected 0x81 (TDX)", ErrUnsupported, report[0])
	}
	fields := readTDReport(report)
	if len(opts.Hardware) == 0 {
		return &Quote{
			Kind: TDReport, Version: int(report[2]), Values: fields.values,
			Links: []Link{{Signature, Missing, "a TDREPORT is MACed for its own machine, and no TD quote given that repeats it"}},
			Facts: []Fact{{"REPORTDATA", fields.reportData.String()}},
		}, nil
	}
	inner := *opts
	inner.Nonce, inner.HCL, inner.Hardware = nil, nil, nil
	q, err := openTDQuote(opts.Hardware, inner)
	if err != nil {
		return nil, fmt.Errorf("what vouches for the report: %w", err)
	}
	if q.Kind != TDX {
		return nil, fmt.Errorf("what vouches for the report: a quote of the kind %s, expected %s", q.Kind, TDX)
	}
	q.Links = append(q.Links, fields.bindTo(q))
	return q, nil
}

// bindTo checks that a TD quote is of the same TD as the TDREPORT, and made for
// the same REPORTDATA.
func (f tdReportFields) bindTo(q *Quote) Link {
	if !slices.Contains(q.Facts, Fact{"REPORTDATA", f.reportData.String()}) {
		return Link{Binding, Failed, fmt.Sprintf("the TD quote's REPORTDATA is not the TDREPORT's, %s", f.reportData)}
	}
	bank := f.values[rtmr.SHA384]
	for _, r := range slices.SortedFunc(maps.Keys(bank), rtmr.Register.Compare) {
		if got, want := q.Values[rtmr.SHA384][r], bank[r]; !bytes.Equal(got, want) {
			return Link{Binding, Failed, fmt.Sprintf("the TD quote's %s is %s, the TDREPORT's %s", r, got, want)}
		}
	}
	return Link{Binding, Verified, "the TD quote repeats the TDREPORT's REPORTDATA, MRTD and RTMRs"}
}
