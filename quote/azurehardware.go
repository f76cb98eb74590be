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
	inner := opts.inner()
	if err := inner.only("an SEV-SNP report", "hardware", "snp-roots"); err != nil {
		return nil, err
	}
	q, _, err := snpQuote(p.Report, &inner)
	return q, err
}

// openHCLTDReport opens a TDREPORT of an HCL report. Its MAC is for its own
// machine alone; a TD quote of the same TD and the same REPORTDATA, if given in
// Options.Hardware, vouches for it and is returned in its place.
func openHCLTDReport(report []byte, opts *Options) (*Quote, error) {
	inner := opts.inner()
	inner.Hardware = nil
	q, err := openTDReport(report, &Options{})
	if err != nil {
		return nil, err
	}
	if len(opts.Hardware) == 0 {
		if err := inner.only("a TDREPORT without --hardware"); err != nil {
			return nil, err
		}
	} else {
		td, err := openInside(opts.Hardware, inner)
		if err != nil {
			return nil, fmt.Errorf("what vouches for the report: %w", err)
		}
		if td.Kind != TDX {
			return nil, fmt.Errorf("what vouches for the report: a quote of the kind %s, expected %s", td.Kind, TDX)
		}
		td.Links = append(td.Links, repeats(td, q))
		q = td
	}
	q.Links = slices.DeleteFunc(q.Links, func(l Link) bool { return l.Name == Nonce })
	return q, nil
}

// repeats checks that a TD quote is of the same TD as a TDREPORT, and made for
// the same REPORTDATA.
func repeats(td, report *Quote) Link {
	for _, f := range report.Facts {
		if f.Name == "REPORTDATA" && !slices.Contains(td.Facts, f) {
			return Link{Binding, Failed, fmt.Sprintf("the TD quote's REPORTDATA is not the TDREPORT's, %s", f.Value)}
		}
	}
	bank := report.Values[rtmr.SHA384]
	for _, r := range slices.SortedFunc(maps.Keys(bank), rtmr.Register.Compare) {
		if got, want := td.Values[rtmr.SHA384][r], bank[r]; !bytes.Equal(got, want) {
			return Link{Binding, Failed, fmt.Sprintf("the TD quote's %s is %s, the TDREPORT's %s", r, got, want)}
		}
	}
	return Link{Binding, Verified, "the TD quote repeats the TDREPORT's REPORTDATA, MRTD and RTMRs"}
}
