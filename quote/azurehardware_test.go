package quote

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// The corpus' TPM quote is signed by the key that its HCL report vouches for,
// and the report leads on to AMD.
func TestHCLKeySignsTheQuote(t *testing.T) {
	read := func(name string) []byte {
		path, ok := testlogs.Shared(t, "corpus", "azure-snp", name)
		if !ok {
			t.Skip("../shared/corpus is not here")
		}
		return testlogs.Read(t, path)
	}
	opts := Options{HCL: read("hcl_report.bin"), Hardware: read("vcek.bin"), Nonce: []byte("the TPM quote's, and not the report's"),
		Time: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)}
	key, q, err := hclKey(&opts)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(read("tpm_quote.msg"))
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], read("tpm_quote.sig")); err != nil {
		t.Error(err)
	}
	if !q.Trusted() || q.Kind != Azure || q.Inside.Kind != SNP || len(q.Links) != 1 {
		t.Errorf("%+v", q)
	}
	opts.HCL[0x50+32] ^= 1
	if _, q, err := hclKey(&opts); err != nil || q.Trusted() {
		t.Errorf("REPORT_DATA was changed: %v %v", q, err)
	}
}

func TestHCLKeyRefuses(t *testing.T) {
	withoutKey := make([]byte, hclRuntime)
	copy(withoutKey, "HCLA")
	withoutKey[hclHeader] = 2 // the SNP report's version
	for i, word := range []uint32{22, 1, hclTypeSNP, 1, 2} {
		binary.LittleEndian.PutUint32(withoutKey[hclData+4*i:], word)
	}
	for name, c := range map[string]struct {
		hcl  []byte
		says string
	}{
		"no_report": {[]byte("HCL"), "signature"},
		"cut":       {withoutKey, "runtime data"},
		"no_key":    {append(withoutKey, "{}"...), "no key HCLAkPub"},
	} {
		if _, _, err := hclKey(&Options{HCL: c.hcl}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A TD quote stands for a TDREPORT if it repeats it, and for no other.
func TestTDQuoteForTDReport(t *testing.T) {
	report := make([]byte, TDReportSize)
	report[0] = 0x81
	for i := 128; i < 192; i++ {
		report[i] = byte(i)
	}
	report[528], report[720+3*48] = 7, 9
	same := func() *Quote {
		p, err := ParseTDReport(bytes.Clone(report))
		if err != nil {
			t.Fatal(err)
		}
		return &Quote{Kind: TDX, Values: p.values(), Facts: []Fact{{"REPORTDATA", p.REPORTDATA.String()}}, Links: []Link{{Signature, Verified, ""}}}
	}
	opener := openInside
	defer func() { openInside = opener }()
	for name, c := range map[string]struct {
		edit func(q *Quote)
		want Status
	}{
		"same":              {func(*Quote) {}, Verified},
		"other_report_data": {func(q *Quote) { q.Facts[0].Value = strings.Repeat("00", 64) }, Failed},
		"no_report_data":    {func(q *Quote) { q.Facts = nil }, Failed},
		"other_mrtd":        {func(q *Quote) { q.Values[rtmr.SHA384][rtmr.MRTD][0] ^= 1 }, Failed},
		"other_rtmr3":       {func(q *Quote) { q.Values[rtmr.SHA384][rtmr.MustParse("rtmr3")][47] ^= 1 }, Failed},
		"no_rtmr0":          {func(q *Quote) { delete(q.Values[rtmr.SHA384], rtmr.MustParse("rtmr0")) }, Failed},
	} {
		openInside = func(data []byte, opts Options) (*Quote, error) {
			if string(data) != "a TD quote" || opts.Nonce != nil || opts.Hardware != nil {
				t.Errorf("%s: opened with %+v", name, opts)
			}
			q := same()
			c.edit(q)
			return q, nil
		}
		q, err := openHCLTDReport(report, &Options{Hardware: []byte("a TD quote"), Nonce: []byte{1}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l, _ := q.Link(Binding); l.Status != c.want || q.Trusted() != (c.want == Verified) {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
	openInside = opener
	values := []byte(`{"sha384":{"mrtd":"` + strings.Repeat("00", 48) + `"}}`)
	if q, err := openHCLTDReport(report, &Options{Hardware: values}); err == nil || !strings.Contains(err.Error(), "kind values") {
		t.Errorf("bare values vouch for a TDREPORT: %v %v", q, err)
	}
}
