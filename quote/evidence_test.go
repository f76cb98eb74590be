package quote_test

import (
	"crypto/x509"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/evidence"
	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// tdBundle is a bundle of a TD's quote, with a log of each role.
func tdBundle(quote []byte) *evidence.Bundle {
	return &evidence.Bundle{
		TDQuote: quote, BootLog: []byte("a boot log"), IMAList: []byte("a list"), Journal: []byte("a journal"),
		Damaged: [][]byte{{1}},
		Statement: evidence.Statement{
			Helper: "tallyd\x1b[31m", Device: rtmr.Description{Kind: "tdx", Name: "a TD"}, Kernel: "6.16",
			Logs: []evidence.LogRole{
				{Item: evidence.ItemBootLog, Role: evidence.Folded}, {Item: evidence.ItemIMAList, Role: evidence.Checked},
				{Item: evidence.ItemJournal, Role: evidence.Folded},
			},
			Nonce: []byte{1}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Facts: []evidence.Fact{{Name: "tap\n", Value: "on"}}, Warnings: []string{"a\nwarning"},
		},
	}
}

// TestBundleOfTD: a bundle's quote is judged as the quote alone is, by what the
// verifier gives, and what the bundle says is said to be its word.
func TestBundleOfTD(t *testing.T) {
	p := thePlatform()
	quotes, _ := forgedQuotes()
	quotes = append(quotes, tdReport(0))
	for i, data := range quotes {
		opts := p.options()
		if i == len(quotes)-1 {
			opts = quote.Options{}
		} else {
			opts.Collateral = p.collateral().files()
		}
		for _, nonce := range [][]byte{nil, {1, 2, 3}} {
			opts.Nonce = nonce
			alone, err := quote.Open(data, opts)
			if err != nil {
				continue // not every forged quote can be read
			}
			q := open(t, must(tdBundle(data).Marshal()), opts)
			if q.Kind != alone.Kind || !reflect.DeepEqual(q.Links, alone.Links) || !reflect.DeepEqual(q.Values, alone.Values) || q.Trusted() != alone.Trusted() {
				t.Errorf("quote %d: %+v, alone %+v", i, q, alone)
			}
			checkLines(t, q)
			stated := q.Facts[len(alone.Facts):]
			want := []quote.Fact{
				{Name: "stated helper", Value: `tallyd\x1b[31m`}, {Name: "stated device", Value: "tdx"}, {Name: "stated device name", Value: "a TD"},
				{Name: "stated kernel", Value: "6.16"}, {Name: "stated time", Value: "2026-01-02T03:04:05Z"}, {Name: "stated nonce", Value: "01"},
				{Name: `stated tap\n`, Value: "on"},
			}
			if !slices.Equal(stated, want) {
				t.Errorf("quote %d: stated %v", i, stated)
			}
			logs := []quote.Log{{Name: "boot-log", Data: []byte("a boot log")}, {Name: "ima-list", Data: []byte("a list"), Checked: true}, {Name: "cel-journal", Data: []byte("a journal")}}
			if !reflect.DeepEqual(q.Logs, logs) {
				t.Errorf("quote %d: logs %+v", i, q.Logs)
			}
			warnings := strings.Join(q.Warnings[len(alone.Warnings):], "; ")
			if !strings.Contains(warnings, `the helper says: a\nwarning`) || !strings.Contains(warnings, "1 journals that were put aside") {
				t.Errorf("quote %d: warnings %s", i, warnings)
			}
		}
	}
}

func TestBundleOfAnotherKind(t *testing.T) {
	b := tdBundle(nil)
	b.Values = valuesOf(rtmr.SHA256)
	b.Statement.Device.Kind = "tpm"
	if q := open(t, must(b.Marshal()), quote.Options{}); q.Kind != quote.Values || q.Trusted() || len(q.Warnings) != 2 {
		t.Errorf("%+v", q)
	}
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, b.Values)
	b.Attest, b.Signature, b.Public = attest, key.sign(t, attest), key.tpmtPublic()
	b.Statement.Device.Kind = "bpf"
	q := open(t, must(b.Marshal()), quote.Options{})
	if !slices.Contains(q.Warnings, "the helper says that its device is of the kind bpf, and the bundle's quote is of the kind tpm") {
		t.Errorf("%q", q.Warnings)
	}
	if l, _ := q.Link(quote.Chain); l.Status != quote.Missing {
		t.Errorf("%+v", q.Links)
	}
	if l, _ := q.Link(quote.Binding); l.Status != quote.Verified {
		t.Errorf("%+v", q.Links)
	}

	b = tdBundle([]byte("neither"))
	if q, err := quote.Open(must(b.Marshal()), quote.Options{}); !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "td-quote: neither") {
		t.Errorf("%v, %v", q, err)
	}
	data := must(tdBundle(tdReport(0)).Marshal())
	data[len(data)-1] ^= 1
	if q, err := quote.Open(data[:len(data)-1], quote.Options{}); err == nil || !strings.HasPrefix(err.Error(), "an evidence bundle: ") {
		t.Errorf("%v, %v", q, err)
	}
}

// TestBundleOfAzure: a real vTPM's quote with the real HCL report that stands for its
// key, as one file.
func TestBundleOfAzure(t *testing.T) {
	read := func(name string) []byte {
		path, ok := testlogs.Shared(t, "corpus", "azure-snp", name)
		if !ok {
			t.Skip("../shared/corpus is not here")
		}
		return testlogs.Read(t, path)
	}
	b := &evidence.Bundle{Attest: read("tpm_quote.msg"), Signature: read("tpm_quote.sig"), HCL: read("hcl_report.bin")}
	b.Statement.Device.Kind = "tpm"
	opts := quote.Options{Hardware: read("vcek.bin"), Time: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)}
	q := open(t, must(b.Marshal()), opts)
	with := opts
	with.Signature, with.HCL = b.Signature, b.HCL
	alone := open(t, b.Attest, with)
	if q.Kind != quote.Azure || !q.Trusted() || !reflect.DeepEqual(q.Links, alone.Links) || !reflect.DeepEqual(q.Inside.Links, alone.Inside.Links) || len(q.Warnings) != len(alone.Warnings) {
		t.Errorf("%+v, alone %+v", q, alone)
	}
	opts.HCL = b.HCL
	if _, err := quote.Open(must(b.Marshal()), opts); err == nil || !strings.Contains(err.Error(), "--hcl was given, and the bundle has its own") {
		t.Error(err)
	}
	b.HCL[0x50+32] ^= 1
	opts.HCL = nil
	if q := open(t, must(b.Marshal()), opts); q.Trusted() {
		t.Errorf("%+v", q)
	}
}

// TestBundleCertificate: which endorsement key an activation is of, the verifier's
// record says, and no bundle.
func TestBundleCertificate(t *testing.T) {
	read := func(machine, name string) []byte { return testlogs.Read(t, testlogs.Fixture(t, machine, name)) }
	const machine, other = "sig-6.12", "violations-7.3"
	record, err := quote.ParseActivation(read(machine, "activation-ecc.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		record      func(r *quote.Activation)
		certificate []byte
		want        quote.Status
	}{
		"the record has the key":               {func(*quote.Activation) {}, read(machine, "ek-rsa-cert.der"), quote.Verified},
		"of another key":                       {func(*quote.Activation) {}, read(other, "ek-rsa-cert.der"), quote.Failed},
		"the record has a certificate":         {func(r *quote.Activation) { r.EKCertificate = read(machine, "ek-rsa-cert.der") }, read(other, "ek-rsa-cert.der"), quote.Verified},
		"the record says of no key at all":     {func(r *quote.Activation) { r.EKPublic = nil }, read(machine, "ek-rsa-cert.der"), quote.Failed},
		"no certificate in the bundle, either": {func(*quote.Activation) {}, nil, quote.Missing},
	} {
		r := *record
		c.record(&r)
		b := &evidence.Bundle{
			Attest: read(machine, "quote-ecc-sha256.tpms_attest.bin"), Signature: read(machine, "quote-ecc-sha256.tpmt_signature.bin"),
			Public: read(machine, "ak-ecc.tpmt_public.bin"), EKCertificate: c.certificate,
		}
		opts := quote.Options{Activation: mustJSON(t, r), EKRoots: slices.Concat(read(machine, "ek-roots.pem"), read(other, "ek-roots.pem")),
			Time: certificateTime(t, read(machine, "ek-rsa-cert.der"))}
		q := open(t, must(b.Marshal()), opts)
		if l, _ := q.Link(quote.Chain); l.Status != c.want {
			t.Errorf("%s: %+v, expected %s", name, l, c.want)
		}
	}
}

// TestBundleIsNoReport: what stands for other evidence is the hardware's own.
func TestBundleIsNoReport(t *testing.T) {
	soft := softQuote(t)
	_, err := quote.Open(soft.Attest, quote.Options{Signature: soft.Signature, Key: soft.Public, Report: must(tdBundle(tdReport(0)).Marshal())})
	if !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "an evidence bundle, expected a report") {
		t.Error(err)
	}
}

func FuzzOpenBundle(f *testing.F) {
	soft := softQuote(f)
	f.Add(must(tdBundle(tdReport(0)).Marshal()))
	f.Add(must(tdBundle(thePlatform().sign(thePlatform().forgery(4, 0))).Marshal()))
	f.Add(must((&evidence.Bundle{Attest: soft.Attest, Signature: soft.Signature, Public: soft.Public, Report: tdReport(0)}).Marshal()))
	f.Add(must((&evidence.Bundle{Values: valuesOf(rtmr.SHA256)}).Marshal()))
	f.Fuzz(func(t *testing.T, data []byte) {
		if !evidence.Is(data) {
			return
		}
		q := openFuzzed(t, data, quote.Options{})
		if q != nil && q.Trusted() {
			t.Errorf("trusted, and nothing was given to trust it by: %+v", q)
		}
	})
}

// certificateTime is when a certificate is valid.
func certificateTime(t *testing.T, der []byte) time.Time {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.NotBefore.Add(24 * time.Hour)
}
