package quote_test

import (
	"strings"
	"testing"

	"github.com/google/go-sev-guest/verify/testdata"

	"tallystick/quote"
)

// TestRequire: a field is held against what the caller wants, in its own notation, and as a
// number by <= and >=; one that the evidence does not have is not met.
func TestRequire(t *testing.T) {
	for text, want := range map[string]quote.Status{
		"VMPL=0": quote.Verified, "VMPL=0x0": quote.Failed, "VMPL<=0": quote.Verified, "VMPL>=0": quote.Verified,
		"VMPL=1": quote.Failed, "VMPL>=1": quote.Failed, "VMPL=0.0": quote.Failed,
		"POLICY=0xb0000": quote.Verified, "POLICY=0xB0000": quote.Verified, "POLICY=0x0b0000": quote.Verified, "POLICY=0xb0001": quote.Failed, "POLICY=0x100000000000b0000": quote.Failed, "POLICY=720896": quote.Failed, "POLICY<=0xb0000": quote.Verified,
		"POLICY>=0xb0001": quote.Failed, "POLICY<=720895": quote.Failed,
		"HOST_DATA>=1": quote.Failed, "vmpl=0": quote.Missing, "DEBUG=0": quote.Missing,
	} {
		q := open(t, testdata.AttestationBytes, quote.Options{SkipSignature: true, Time: in2025})
		r, err := quote.ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		before := len(q.Links)
		q.Require(r)
		link, _ := q.Link(quote.Required)
		if len(q.Links) != before+1 || link.Status != want || !strings.HasPrefix(link.Text, text+": ") {
			t.Errorf("%s: %+v, expected %s", text, link, want)
		}
		if q.Trusted() && want != quote.Verified {
			t.Errorf("%s: trusted all the same", text)
		}
	}
}

// TestRequireInside: a field of the report inside counts as the evidence's own.
func TestRequireInside(t *testing.T) {
	q := &quote.Quote{Facts: []quote.Fact{{Name: "SVN", Value: "3"}, {Name: "NAME", Value: "Guest"}, {Name: "ID", Value: "c0ffee"}, {Name: "DATA", Value: "16"}, {Name: "ZERO", Value: "0x0"}, {Name: "ONES", Value: "0xffffffffffffffff"}}, Inside: &quote.Quote{Facts: []quote.Fact{{Name: "SVN", Value: "2"}, {Name: "VMPL", Value: "0"}}}}
	for text, want := range map[string]quote.Status{"NAME=Guest": quote.Verified, "NAME=guest": quote.Failed, "ID=c0FFee": quote.Verified, "DATA=16": quote.Verified, "DATA=0x10": quote.Failed, "ZERO=0x00": quote.Verified, "ZERO=0x10000000000000000": quote.Failed, "ONES=0x10000000000000000": quote.Failed, "ONES=0xFFFFFFFFFFFFFFFF": quote.Verified, "SVN>=2": quote.Verified, "SVN>=3": quote.Failed, "VMPL=0": quote.Verified} {
		r, err := quote.ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		q.Links = nil
		q.Require(r)
		if got, _ := q.Link(quote.Required); got.Status != want {
			t.Errorf("%s: %+v, expected %s", text, got, want)
		}
	}
}

// TestRequirementText: what is no requirement is refused, and not taken for a weaker one.
func TestRequirementText(t *testing.T) {
	for _, text := range []string{"", "VMPL", "=0", "VMPL=", "VMPL>0", "VMPL!=0", "VMPL==0", "VMPL>=", "VMPL>=x", "VMPL>=01", "POLICY=0xz", "POLICY=0x", "VMPL >=1", "SVN>=4294967296"} {
		if r, err := quote.ParseRequirement(text); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
}

// TestRequireAttributes: TDATTRIBUTES of a real quote, 0x40000000, bit by bit.
func TestRequireAttributes(t *testing.T) {
	real := realQuotes(t)[0]
	if got := fact(open(t, real.data, quote.Options{Time: in2025}), "TDATTRIBUTES"); got != "0000004000000000" {
		t.Fatalf("TDATTRIBUTES %s", got)
	}
	for text, want := range map[string]quote.Status{
		"TDATTRIBUTES.DEBUG=0": quote.Verified, "TDATTRIBUTES.PKS=1": quote.Verified,
		"TDATTRIBUTES.MIGRATABLE=1": quote.Failed, "TDATTRIBUTES.PERFMON=0": quote.Verified, "TDATTRIBUTES.ANY=0": quote.Missing,
	} {
		r, err := quote.ParseRequirement(text)
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, real.data, quote.Options{Time: in2025})
		q.Require(r)
		if got, _ := q.Link(quote.Required); got.Status != want {
			t.Errorf("%s: %+v, expected %s", text, got, want)
		}
	}
}
