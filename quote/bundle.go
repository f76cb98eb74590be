package quote

import (
	"errors"
	"fmt"
	"slices"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// A bundle brings its quote, what goes with that, and its logs in one file, all of
// it by whoever sends it. So nothing is believed here for being in the bundle: its
// key is nobody's until something that the verifier holds stands for it, its
// certificates lead to the verifier's roots or nowhere, and the nonce is the
// verifier's.

// openBundle opens a bundle of package evidence.
func openBundle(data []byte, opts *Options) (*Quote, error) {
	b, err := evidence.Read(data)
	if errors.Is(err, evidence.ErrVersion) {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	q, err := openBundled(b, opts)
	if err != nil {
		return nil, err
	}
	q.Bundle = b
	for _, l := range b.Logs() {
		q.Logs = append(q.Logs, Log{Name: l.Item, Data: l.Data, Checked: l.Role == evidence.Checked})
	}
	q.state(&b.Statement)
	if n := len(b.Damaged); n > 0 {
		q.Warnings = append(q.Warnings, fmt.Sprintf("the bundle has %d journals that were put aside as damaged (damaged-journal-1 ..), which are not read here", n))
	}
	return q, nil
}

// openBundled opens a bundle's quote, with what goes with it.
func openBundled(b *evidence.Bundle, opts *Options) (*Quote, error) {
	with := *opts
	for _, own := range []struct {
		flag    string
		bundled []byte
		option  *[]byte
	}{
		{"signature", b.Signature, &with.Signature}, {"hcl", b.HCL, &with.HCL}, {"report", b.Report, &with.Report},
	} {
		switch {
		case len(own.bundled) > 0 && len(*own.option) > 0:
			return nil, fmt.Errorf("--%s was given, and the bundle has its own", own.flag)
		case len(own.bundled) > 0:
			*own.option = own.bundled
		}
	}
	switch {
	case isTDReport(b.TDQuote):
		return openTDReport(b.TDQuote, opts)
	case isDCAPQuote(b.TDQuote):
		return openTDX(b.TDQuote, opts)
	case len(b.TDQuote) > 0:
		return nil, fmt.Errorf("%w: %s: neither a TD quote nor a TDREPORT", ErrUnsupported, evidence.ItemTDQuote)
	case len(b.Attest) == 0:
		return valuesAlone(b.Values, opts)
	}
	if a := softAttest(b.Attest); a != nil {
		if len(with.Key) == 0 {
			with.Key = b.Public // self-asserted, unless the report stands for it
		}
		q, err := openSoft(a, &with)
		return bindBundled(q, err, b)
	}
	if len(with.HCL) > 0 {
		q, err := openAzure(b.Attest, &with)
		return bindBundled(q, err, b)
	}
	if len(b.Report) > 0 {
		return nil, fmt.Errorf("%s: it stands for a software TPM's quote, and %s is not marked as one", evidence.ItemReport, evidence.ItemAttest)
	}
	return openBundledTPM(b, opts)
}

// bindBundled places a quote's registers by the values in its bundle.
func bindBundled(q *Quote, err error, b *evidence.Bundle) (*Quote, error) {
	if err != nil || len(b.Values) == 0 {
		return q, err
	}
	if err := q.Bind(b.Values); err != nil {
		return nil, fmt.Errorf("%s: %w", evidence.ItemValues, err)
	}
	return q, nil
}

// openBundledTPM opens the quote of a TPM, whose key came with it.
func openBundledTPM(b *evidence.Bundle, opts *Options) (*Quote, error) {
	if err := opts.only("a bundle's TPM quote", "key", "ek-cert", "ek-roots", "activation"); err != nil {
		return nil, err
	}
	key, err := parseTPMKey(b.Public)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", evidence.ItemPublic, err)
	}
	with := *opts
	if len(with.EKCert) == 0 && len(opts.EKRoots) > 0 && fitsCertificate(opts.Activation) {
		with.EKCert = b.EKCertificate
	}
	one := &tpmBundle{quotes: []bundledQuote{{b.Attest, b.Signature}}, key: key, values: b.Values}
	return one.open(&with)
}

// fitsCertificate reports whether a certificate from elsewhere can stand beside the
// record of an activation: if the record says of which endorsement key it is, by
// its public area. Else the bundle would choose the TPM of which the record is.
func fitsCertificate(activation []byte) bool {
	if len(activation) == 0 {
		return true
	}
	a, err := ParseActivation(activation)
	return err == nil && len(a.EKPublic) > 0 && len(a.EKCertificate) == 0
}

// state notes what a bundle's sender says of itself, which nothing signs.
func (q *Quote) state(s *evidence.Statement) {
	add := func(name, value string) {
		if value != "" {
			q.Facts = append(q.Facts, Fact{"stated " + rtmr.Escape(name), rtmr.Escape(value)})
		}
	}
	add("helper", s.Helper)
	add("device", s.Device.Kind)
	add("device name", s.Device.Name)
	add("kernel", s.Kernel)
	if !s.Time.IsZero() {
		add("time", s.Time.UTC().Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	add("nonce", s.Nonce.String())
	for _, f := range s.Facts {
		add(f.Name, f.Value)
	}
	for _, text := range s.Warnings {
		q.Warnings = append(q.Warnings, "the helper says: "+rtmr.Escape(text))
	}
	if kinds, known := kindsOf[s.Device.Kind]; known && !slices.Contains(kinds, q.Kind) {
		q.Warnings = append(q.Warnings, fmt.Sprintf("the helper says that its device is of the kind %s, and the bundle's quote is of the kind %s", s.Device.Kind, q.Kind))
	}
}

// kindsOf are the kinds of quote that a device's registers come with.
var kindsOf = map[string][]Kind{
	"tdx": {TDX, TDReport, Values}, "tpm": {TPM, Azure, Values}, "bpf": {SoftTPM, Values}, "memory": {Values},
}
