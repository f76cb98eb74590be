package quote

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"tallystick/rtmr"
	"tallystick/softtpm"
)

// A software TPM in a guest's kernel signs as a TPM does, by a key that it made
// when it started and that no manufacturer has certified. So the key is worth
// nothing by itself: what stands for it, and for the quote, is a report of the
// hardware's with the hash of both in REPORT_DATA (docs/evidence.md).
//
// The marker by which such a quote is told is for honest guests. Who leaves it
// out has a TPM's quote, whose key somebody has to vouch for too.

// softAttest returns the quote of a software TPM, of whatever version; nil if it
// is none.
func softAttest(data []byte) *tpmAttest {
	a, err := parseTPMAttest(data)
	if err != nil {
		return nil // openTPM says why
	}
	if _, ok := softtpm.Marked(a.firmwareVersion); !ok {
		return nil
	}
	return a
}

// soften makes a TPM's quote one of a software TPM, if it says that it is. Its
// key is then self-asserted, at best: an authority that vouches for it as
// a TPM's was deceived.
func (q *Quote) soften(a *tpmAttest, key *tpmKey) error {
	version, ok := softtpm.Marked(a.firmwareVersion)
	switch {
	case !ok:
		return nil
	case version != softtpm.Version:
		return fmt.Errorf("%w: firmwareVersion: a software TPM's quote of version %d, expected %d", ErrUnsupported, version, softtpm.Version)
	}
	q.Kind, q.Version = SoftTPM, version
	chain, _ := q.Link(Chain)
	q.setLink(both(chain, Link{Chain, SelfAsserted, "a software TPM's key, and no report of the hardware's was given (--report) that stands for it: who made this quote is the quote's own word"}))
	if key != nil && key.name != nil {
		q.Facts = append(q.Facts, Fact{"binding", rtmr.Hex(a.binding(key)).String()})
	}
	return nil
}

// binding is what REPORT_DATA has to be in a report that stands for the quote.
func (a *tpmAttest) binding(key *tpmKey) []byte {
	sum := softtpm.Binding(a.extraData, key.name, a.raw)
	return sum[:]
}

// openSoft opens a quote that softAttest recognised.
func openSoft(a *tpmAttest, opts *Options) (*Quote, error) {
	if err := opts.only("a software TPM's quote", append([]string{"signature", "key", "report", "hardware", "collateral", "tdx-roots", "snp-roots", "cca-key", "virtcca-roots"}, s390Flags...)...); err != nil {
		return nil, err
	}
	if len(opts.Report) == 0 {
		inner := opts.inner()
		if err := inner.only("a software TPM's quote without --report"); err != nil {
			return nil, err
		}
	}
	key, err := givenKey(opts)
	if err != nil {
		return nil, err
	}
	q, err := openTPM(a.raw, opts.Signature, key, keyChain(key, byCaller, opts), opts)
	if err != nil || len(opts.Report) == 0 {
		return q, err
	}
	report, err := openInside(opts.Report, opts.inner())
	if err != nil {
		return nil, fmt.Errorf("the report: %w", err)
	}
	if !slices.Contains([]Kind{SNP, TDX, TDReport, S390, CCA, VirtCCA}, report.Kind) {
		return nil, fmt.Errorf("%w: the report: of the kind %s, expected an SEV-SNP report, a TD quote, a TDREPORT, a Secure Execution exchange file or a realm's token", ErrUnsupported, report.Kind)
	}
	q.standFor(report, a, key, opts.Expect)
	return q, nil
}

// standFor puts the hardware's report beside the quote, and tells in both
// whether it stands for the key and the quote.
func (q *Quote) standFor(report *Quote, a *tpmAttest, key *tpmKey, expected rtmr.Values) {
	bound := report.binds(a, key)
	chain := Link{Chain, Verified, fmt.Sprintf("the %s report stands for the key and the quote, which stand or fall with it", report.Kind)}
	if bound.Status != Verified {
		chain.Status, chain.Text = bound.Status, fmt.Sprintf("the %s report does not stand for the key: %s", report.Kind, bound.Text)
	}
	q.setLink(chain)

	// The nonce is the quote's, and REPORT_DATA a hash over it.
	report.Links = slices.DeleteFunc(report.Links, func(l Link) bool { return l.Name == Nonce })
	if old, ok := report.Link(Binding); ok {
		bound = both(old, bound)
	}
	report.setLink(bound)

	for alg, bank := range report.Values { // no hardware has more than one
		for _, r := range slices.SortedFunc(maps.Keys(bank), rtmr.Register.Compare) {
			switch {
			case report.Kind == S390: // its launch digest is of the image that the verifier gave
			case !r.Static():
				report.Facts = append(report.Facts, Fact{r.String(), bank[r].String()})
			case expected[alg][r] == nil:
				q.Warnings = append(q.Warnings, fmt.Sprintf("nothing is held here against the report's %s (--expect), which tells, beside that of an image that you trust, whether the guest runs what keeps these registers honestly", r))
			}
		}
	}
	q.Inside = report
}

// binds checks that a hardware's report was made for this quote by this key, and
// that nothing in the guest stands above who asked for it.
func (q *Quote) binds(a *tpmAttest, key *tpmKey) Link {
	switch {
	case key == nil:
		return Link{Binding, Missing, fmt.Sprintf("no key was given (--key), whose name %s is a hash over", q.fieldName())}
	case key.name == nil:
		return Link{Binding, Missing, fmt.Sprintf("the key was given without its attributes, and %s is a hash over its name: expected TPM2B_PUBLIC or TPMT_PUBLIC", q.fieldName())}
	}
	want := rtmr.Hex(a.binding(key))
	switch {
	case !bytes.Equal(want, q.reportData):
		return Link{Binding, Failed, fmt.Sprintf("%s is %s, expected the binding of nonce, key and quote, %s", q.fieldName(), q.reportData, want)}
	case q.vmpl != 0:
		return Link{Binding, Failed, fmt.Sprintf("VMPL is %d, expected 0: what has a higher level than who asked could change the registers", q.vmpl)}
	}
	return Link{Binding, Verified, q.fieldName() + " is the binding of the quote's nonce, the key's name and the quote"}
}
