package quote_test

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"tallystick/bpf/attester"
	"tallystick/quote"
	"tallystick/rtmr"
	"tallystick/softtpm"
)

var softNonce = []byte("a nonce of a verifier")

// softQuote makes an attester and has it sign a quote of values that valuesOf made.
func softQuote(t testing.TB) *attester.Quote {
	t.Helper()
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	return softQuoteBy(t, a, 0, 7, 10)
}

func softQuoteBy(t testing.TB, a *attester.Attester, pcrs ...int) *attester.Quote {
	t.Helper()
	var selection []rtmr.Selected
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA1} {
		for _, i := range pcrs {
			register, _ := rtmr.PCR(i).Register()
			selection = append(selection, rtmr.Selected{Alg: alg, Register: register})
		}
	}
	q, err := a.Quote(valuesOf(rtmr.SHA1, rtmr.SHA256), selection, softNonce)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// softOptions are what a verifier has of a quote, with or without a report.
func softOptions(q *attester.Quote, report []byte) quote.Options {
	o := quote.Options{Signature: q.Signature, Key: q.Public, Nonce: softNonce}
	if report != nil {
		p := thePlatform().options()
		o.Report, o.TDXRoots, o.Time = report, p.TDXRoots, p.Time
	}
	return o
}

// tdReportFor makes a TD quote with that REPORTDATA; edit changes what is signed.
func tdReportFor(data [64]byte, edit func(f *forgery)) []byte {
	p := thePlatform()
	f := p.forgery(4, 0)
	copy(f.body[520:], data[:])
	if edit != nil {
		edit(f)
	}
	return p.sign(f)
}

// TestSoftSelfAsserted: without the hardware's report a software TPM's key is on
// its own word, whatever else holds; a verifier may accept that, and is told.
func TestSoftSelfAsserted(t *testing.T) {
	soft := softQuote(t)
	opts := softOptions(soft, nil)
	for name, c := range map[string]struct {
		edit func(o *quote.Options)
		want bool
	}{
		"refused":           {func(*quote.Options) {}, false},
		"accepted":          {func(o *quote.Options) { o.AcceptSelfAsserted = true }, true},
		"another's consent": {func(o *quote.Options) { o.SkipSignature = true }, false},
		"another key":       {func(o *quote.Options) { o.AcceptSelfAsserted, o.Key = true, softQuote(t).Public }, false},
		"another nonce":     {func(o *quote.Options) { o.AcceptSelfAsserted, o.Nonce = true, []byte("another") }, false},
		"no signature":      {func(o *quote.Options) { o.AcceptSelfAsserted, o.Signature = true, nil }, false},
	} {
		o := opts
		c.edit(&o)
		q := open(t, soft.Attest, o)
		if q.Kind != quote.SoftTPM || q.Version != 1 || q.Trusted() != c.want {
			t.Errorf("%s: %s, version %d, trusted is %v: %v", name, q.Kind, q.Version, q.Trusted(), q.Links)
		}
		status(t, q, quote.Chain, quote.SelfAsserted, "no report of the hardware's was given")
	}
	q := open(t, soft.Attest, quote.Options{AcceptSelfAsserted: true})
	if status(t, q, quote.Chain, quote.Missing, "no key"); q.Trusted() {
		t.Error("trusted without a key")
	}
	bound := soft.ReportData()
	if got := fact(open(t, soft.Attest, opts), "binding"); got != hex.EncodeToString(bound[:]) {
		t.Errorf("the binding is %s, expected %x", got, bound)
	}
}

// TestSoftReport: a TD quote stands for a key and a quote if REPORTDATA says so,
// and for no others.
func TestSoftReport(t *testing.T) {
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	soft, second, other := softQuoteBy(t, a, 0, 7, 10), softQuoteBy(t, a, 0, 7), softQuote(t)
	report := tdReportFor(soft.ReportData(), nil)
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: software(t, ecc256).pkix(t)})
	for name, c := range map[string]struct {
		quote  *attester.Quote
		report []byte
		edit   func(o *quote.Options)
		chain  quote.Status
		says   string // of the chain, or of what else fails
	}{
		"good":                   {soft, report, nil, quote.Verified, "the tdx report stands for the key and the quote"},
		"in hexadecimal":         {soft, []byte(hex.EncodeToString(report)), nil, quote.Verified, ""},
		"version 5":              {soft, thePlatform().sign(version5For(soft.ReportData())), nil, quote.Verified, ""},
		"another nonce":          {soft, report, func(o *quote.Options) { o.Nonce = []byte("another") }, quote.Verified, "extraData is"},
		"another quote":          {second, report, nil, quote.Failed, "expected the binding of nonce, key and quote"},
		"another's quote":        {other, report, nil, quote.Failed, "expected the binding of nonce, key and quote"},
		"another key":            {soft, report, func(o *quote.Options) { o.Key = other.Public }, quote.Failed, "expected the binding"},
		"another quote's report": {soft, tdReportFor(second.ReportData(), nil), nil, quote.Failed, "expected the binding"},
		"nobody's report":        {soft, tdReportFor([64]byte{}, nil), nil, quote.Failed, "REPORT_DATA is 0000"},
		"debugged":               {soft, tdReportFor(soft.ReportData(), func(f *forgery) { f.body[120] = 1 }), nil, quote.Verified, "TDATTRIBUTES has debug bits"},
		"edited report":          {soft, flip(report, 48+200), nil, quote.Verified, "signature"},
		"another root":           {soft, report, func(o *quote.Options) { o.TDXRoots = nil }, quote.Verified, "which is not Intel's root"},
		"a TDREPORT":             {soft, tdReportOf(soft.ReportData()), func(o *quote.Options) { o.TDXRoots = nil }, quote.Verified, "a MAC and no signature"},
		"a key without a name":   {soft, report, func(o *quote.Options) { o.Key = pemKey }, quote.Missing, "expected TPM2B_PUBLIC or TPMT_PUBLIC"},
		"no key":                 {soft, report, func(o *quote.Options) { o.Key = nil }, quote.Missing, "no key was given"},
	} {
		t.Run(name, func(t *testing.T) {
			o := softOptions(c.quote, c.report)
			if c.edit != nil {
				c.edit(&o)
			}
			o.AcceptSelfAsserted = true // which makes up for nothing that a report lacks
			q := open(t, c.quote.Attest, o)
			status(t, q, quote.Chain, c.chain, "")
			good := slices.Contains([]string{"good", "in hexadecimal", "version 5"}, name)
			if q.Trusted() != good || q.Inside == nil {
				t.Fatalf("trusted is %v: %v, inside %+v", q.Trusted(), q.Links, q.Inside)
			}
			said := false
			for _, l := range slices.Concat(q.Links, q.Inside.Links) {
				said = said || strings.Contains(l.Text, c.says) && (good || l.Status != quote.Verified)
			}
			if !said {
				t.Errorf("nothing says %q: %v, %v", c.says, q.Links, q.Inside.Links)
			}
		})
	}
}

func version5For(data [64]byte) *forgery {
	f := thePlatform().forgery(5, 3)
	copy(f.body[520:], data[:])
	return f
}

func tdReportOf(data [64]byte) []byte {
	b := tdReport(1)
	copy(b[128:], data[:])
	return b
}

// TestSoftReportRegisters: a TD's own registers are shown, for nothing here is
// held against them.
func TestSoftReportRegisters(t *testing.T) {
	soft := softQuote(t)
	report := tdReportFor(soft.ReportData(), nil)
	q := open(t, soft.Attest, softOptions(soft, report))
	want := open(t, report, quote.Options{}).Values[rtmr.SHA384]
	for register, value := range want {
		if register.Static() {
			if got := q.Launch()[rtmr.SHA384][register]; !bytes.Equal(got, value) {
				t.Errorf("%s is %s, expected %s", register, got, value)
			}
			continue
		}
		if got := fact(q.Inside, register.String()); got != value.String() {
			t.Errorf("%s is %q, expected %s", register, got, value)
		}
	}
	if len(want) != 5 || q.Values != nil || len(q.Warnings) != 1 {
		t.Errorf("%d registers of the TD, values %v, warnings %q", len(want), q.Values, q.Warnings)
	}
}

// TestSoftOptions: what a software TPM's quote is not held against.
func TestSoftOptions(t *testing.T) {
	soft := softQuote(t)
	real := software(t, ecc256)
	attest := real.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	report := tdReportFor(soft.ReportData(), nil)
	for name, c := range map[string]struct {
		attest []byte
		opts   quote.Options
		says   string
	}{
		"an EK":                        {soft.Attest, quote.Options{EKCert: []byte{1}}, "--ek-cert was given, and a software TPM's quote is not held against it"},
		"an HCL report":                {soft.Attest, quote.Options{HCL: []byte{1}}, "--hcl was given, and a software TPM's quote is not held against it"},
		"a VCEK and no report":         {soft.Attest, quote.Options{Hardware: []byte{1}}, "--hardware was given, and a software TPM's quote without --report"},
		"collateral and no report":     {soft.Attest, quote.Options{Collateral: fstest.MapFS{}}, "--collateral was given, and a software TPM's quote without --report"},
		"a VCEK beside a TD quote":     {soft.Attest, quote.Options{Report: report, Hardware: []byte{1}}, "the report: TD quote: --hardware was given"},
		"a report that is none":        {soft.Attest, quote.Options{Report: []byte("none")}, "the report: unsupported quote"},
		"a TPM's quote as the report":  {soft.Attest, quote.Options{Report: attest}, "the report: of the kind tpm, expected"},
		"itself as the report":         {soft.Attest, quote.Options{Report: soft.Attest}, "the report: of the kind soft-tpm, expected"},
		"a report of a hardware TPM":   {attest, quote.Options{Report: report}, "--report was given, and a TPM's quote without --hcl is not held against it"},
		"a report beside a TD's quote": {report, quote.Options{Report: report}, "--report was given, and a TD quote is not held against it"},
	} {
		if q, err := quote.Open(c.attest, c.opts); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, expected %s", name, q, err, c.says)
		}
	}
}

// TestSoftVersion: a version that is not known is not taken for a TPM's quote.
func TestSoftVersion(t *testing.T) {
	key := software(t, ecc256)
	key.firmware = softtpm.FirmwareVersion + 1
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	_, err := quote.Open(attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic()})
	if !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "version 2, expected 1") {
		t.Error(err)
	}
}

// TestSoftBundle: in a bundle it is self-asserted too, though its key was given;
// and one that came with the bundle is not even that.
func TestSoftBundle(t *testing.T) {
	b := newBundle(t)
	b.key.firmware = softtpm.FirmwareVersion
	for i, alg := range threeBanks {
		b.attests[i] = b.key.attest(allOf(alg), b.nonce, b.values)
	}
	for name, data := range b.forms(t) {
		q := open(t, data, quote.Options{Nonce: b.nonce, Key: b.key.tpmtPublic()})
		if status(t, q, quote.Chain, quote.SelfAsserted, ""); q.Kind != quote.SoftTPM || q.Trusted() {
			t.Errorf("%s: %s, trusted is %v", name, q.Kind, q.Trusted())
		}
		if !open(t, data, quote.Options{Nonce: b.nonce, Key: b.key.tpmtPublic(), AcceptSelfAsserted: true}).Trusted() {
			t.Errorf("%s: not accepted", name)
		}
		q = open(t, data, quote.Options{Nonce: b.nonce, AcceptSelfAsserted: true})
		if status(t, q, quote.Chain, quote.Missing, ""); q.Trusted() {
			t.Errorf("%s: trusted by its own key", name)
		}
	}
}

// FuzzSoftReport: whatever quote and report, if both are trusted then the
// report's REPORTDATA is the binding, and both were signed.
func FuzzSoftReport(f *testing.F) {
	key := software(f, ecc256)
	key.firmware = softtpm.FirmwareVersion
	attest := key.attest(allOf(rtmr.SHA256), softNonce, valuesOf(rtmr.SHA256))
	signature := key.sign(f, attest)
	name := rtmr.SHA256.AppendHash([]byte{0, 0x0b}, key.tpmtPublic())
	bound := softtpm.Binding(softNonce, name, attest)
	report := tdReportFor(bound, nil)
	f.Add(attest, report)
	f.Add(attest, tdReportOf(bound))
	f.Add(attest, tdReportFor([64]byte{1}, nil))
	f.Add(attest, []byte(hex.EncodeToString(report)))
	f.Add(key.attest(nil, nil, nil), attest)
	opts := thePlatform().options()
	opts.Signature, opts.Key = signature, key.tpmtPublic()
	f.Fuzz(func(t *testing.T, data, report []byte) {
		opts := opts
		opts.Report = report
		q, err := quote.Open(data, opts)
		if err != nil || q.Kind != quote.SoftTPM {
			return
		}
		checkLines(t, q)
		if !q.Trusted() {
			return
		}
		if fact(q.Inside, "REPORTDATA") != hex.EncodeToString(bound[:]) || !bytes.Contains(data, attest) {
			t.Errorf("trusted: %v, %v", q.Links, q.Inside.Links)
		}
	})
}
