package quote

import (
	"crypto/x509"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/bpf/attester"
	"tallystick/internal/snptest"
	"tallystick/rtmr"
)

// ownRoots are an authority of the tests' own: nobody publishes a report that a
// VLEK signed.
func ownRoots(t *testing.T) snptest.Authority {
	t.Helper()
	s, err := snptest.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signed makes a report whose signature is good, whatever it says.
func signed(t *testing.T, s snptest.Authority, edit func(report []byte)) []byte {
	t.Helper()
	report, err := s.Report(edit)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// One thing wrong at a time, under a good signature. The certificates are of
// the chip 00.. and the TCB 0.
func TestSNPChain(t *testing.T) {
	s := ownRoots(t)
	vlek := func(b []byte) { b[0x48] = 1 << 2 }
	for name, c := range map[string]struct {
		edit func(report []byte)
		cert *x509.Certificate
		time time.Time
		want Status
		says string
	}{
		"vcek":              {func([]byte) {}, s.Vcek, snptest.Day, Verified, "SEV-VCEK, SEV-Milan, ARK-Milan"},
		"vlek":              {vlek, s.Vlek, snptest.Day, Verified, "SEV-VLEK, SEV-VLEK-Milan, ARK-Milan"},
		"other_chip":        {func(b []byte) { b[0x1A0] = 1 }, s.Vcek, snptest.Day, Failed, "is of the chip 00"},
		"vlek_has_no_chip":  {func(b []byte) { vlek(b); b[0x1A0] = 1 }, s.Vlek, snptest.Day, Verified, ""},
		"older_firmware":    {func(b []byte) { b[0x180] = 1 }, s.Vcek, snptest.Day, Failed, "REPORTED_TCB is 0000000000000001"},
		"vlek_old_firmware": {func(b []byte) { vlek(b); b[0x187] = 1 }, s.Vlek, snptest.Day, Failed, "REPORTED_TCB is 0100000000000000"},
		"expired":           {func([]byte) {}, s.Vcek, snptest.Day.AddDate(30, 0, 0), Failed, "expired"},
		"issuer_as_key":     {func([]byte) {}, s.Ask, snptest.Day, Failed, "SEV-Milan is no certificate of a VCEK"},
		"vcek_for_vlek":     {vlek, s.Vcek, snptest.Day, Failed, "SEV-VCEK is no certificate of a VLEK"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := Open(signed(t, s, c.edit), Options{Hardware: c.cert.Raw, SNPRoots: s.Roots(), Time: c.time})
			if err != nil {
				t.Fatal(err)
			}
			chain, _ := q.Link(Chain)
			if chain.Status != c.want || !strings.Contains(chain.Text, c.says) || q.Trusted() != (c.want == Verified) {
				t.Errorf("%v, expected %s: %s", q.Links, c.want, c.says)
			}
			sig, _ := q.Link(Signature)
			if byOther := strings.HasSuffix(name, "_key") || name == "vcek_for_vlek"; sig.Status != Verified && !byOther {
				t.Errorf("%v", sig)
			}
		})
	}
}

// The authority that stood in for AMD above means nothing where it is not given,
// and no certificate is a root for being given without one.
func TestSNPRootsAreAMDs(t *testing.T) {
	s := ownRoots(t)
	hardware := slices.Concat(s.Vcek.Raw, s.Ask.Raw, s.Ark.Raw)
	q, err := Open(signed(t, s, func([]byte) {}), Options{Hardware: hardware, Time: snptest.Day})
	if err != nil || q.Trusted() {
		t.Errorf("%+v %v", q, err)
	}
	if q, err := Open(signed(t, s, func([]byte) {}), Options{Hardware: hardware, SNPRoots: s.Ask.Raw, Time: snptest.Day}); err == nil {
		t.Errorf("an issuer as a root: %+v", q)
	}
	r, err := amdRoots()
	if err != nil {
		t.Fatal(err)
	}
	for _, issuer := range r.issuers {
		if _, err := issuer.Verify(x509.VerifyOptions{Roots: r.roots, CurrentTime: snptest.Day}); err != nil {
			t.Errorf("%s: %v", issuer.Subject.CommonName, err)
		}
	}
}

// An HCL report that is good to the last byte, and what of it may not change
// even under a signature that is good again.
func TestHCLUnderOwnRoots(t *testing.T) {
	s := ownRoots(t)
	runtime := []byte(`{"keys":[],"user-data":""}`)
	for name, c := range map[string]struct {
		edit func(report []byte)
		want bool
	}{
		"good":             {func([]byte) {}, true},
		"guest_asked":      {func(b []byte) { b[0x30] = 2 }, false},
		"not_its_hash":     {func(b []byte) { b[0x50] ^= 1 }, false},
		"more_than_a_hash": {func(b []byte) { b[0x50+63] = 1 }, false},
	} {
		report := signed(t, s, func(b []byte) {
			copy(b[0x50:], hclHashes[1].AppendHash(nil, runtime))
			c.edit(b)
		})
		hcl := slices.Concat([]byte("HCLA"), make([]byte, 28), report, make([]byte, 20), runtime)
		for i, word := range []int{20 + len(runtime), 1, hclTypeSNP, 1, len(runtime)} {
			binary.LittleEndian.PutUint32(hcl[hclData+4*i:], uint32(word))
		}
		q, err := Open(hcl, Options{Hardware: s.Vcek.Raw, SNPRoots: s.Roots(), Time: snptest.Day})
		if err != nil || q.Trusted() != c.want || !q.Inside.Trusted() {
			t.Errorf("%s: %+v %v", name, q, err)
		}
	}
}

// An SNP report that stands for a software TPM's quote, and what of it may not
// change even under a good signature.
func TestSoftTPMBesideSNP(t *testing.T) {
	s := ownRoots(t)
	soft, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	pcr10 := rtmr.Selected{Alg: rtmr.SHA256, Register: rtmr.MustParse("pcr10")}
	quoted, err := soft.Quote(rtmr.Values{rtmr.SHA256: {pcr10.Register: make(rtmr.Hex, 32)}}, []rtmr.Selected{pcr10}, []byte("nonce"))
	if err != nil {
		t.Fatal(err)
	}
	bound := quoted.ReportData()
	for name, c := range map[string]struct {
		edit func(report []byte)
		cert *x509.Certificate
		link string // of the report, that fails
		says string
	}{
		"good":            {func([]byte) {}, s.Vcek, "", ""},
		"of_another":      {func(b []byte) { b[0x50] ^= 1 }, s.Vcek, Binding, "expected the binding of nonce, key and quote"},
		"of_nobody":       {func(b []byte) { clear(b[0x50:0x90]) }, s.Vcek, Binding, "REPORT_DATA is 0000"},
		"vmpl_1":          {func(b []byte) { b[0x30] = 1 }, s.Vcek, Binding, "VMPL is 1, expected 0"},
		"debugged":        {func(b []byte) { b[0x0A] |= 8 }, s.Vcek, Policy, "allows debugging"},
		"migrated":        {func(b []byte) { b[0x0A] |= 4 }, s.Vcek, Policy, "migration agent"},
		"another_chip":    {func(b []byte) { b[0x1A0] = 1 }, s.Vcek, Chain, "is of the chip 00"},
		"another_signed":  {func([]byte) {}, s.Vlek, Signature, "not by the key of SEV-VLEK"},
		"no_certificates": {func([]byte) {}, &x509.Certificate{}, Signature, "no VCEK given"},
	} {
		t.Run(name, func(t *testing.T) {
			report := signed(t, s, func(b []byte) {
				copy(b[0x50:], bound[:])
				c.edit(b)
			})
			q, err := Open(quoted.Attest, Options{
				Signature: quoted.Signature, Key: quoted.Public, Nonce: []byte("nonce"),
				Report: report, Hardware: c.cert.Raw, SNPRoots: s.Roots(), Time: snptest.Day,
			})
			if err != nil {
				t.Fatal(err)
			}
			if q.Kind != SoftTPM || q.Inside.Kind != SNP || q.Trusted() != (name == "good") {
				t.Fatalf("%s: trusted is %v: %v, %v", q.Kind, q.Trusted(), q.Links, q.Inside.Links)
			}
			if l, _ := q.Inside.Link(c.link); !strings.Contains(l.Text, c.says) || l.Status == Verified {
				t.Errorf("%v, expected %s: %s", q.Inside.Links, c.link, c.says)
			}
			if chain, _ := q.Link(Chain); (chain.Status == Verified) != (c.link != Binding) {
				t.Errorf("the key's chain: %v", chain)
			}
			if _, ok := q.Inside.Link(Nonce); ok {
				t.Error("the report has a link for the nonce, which is the quote's")
			}
		})
	}
}
