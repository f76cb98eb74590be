package quote_test

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"tallystick/quote"
	"tallystick/rtmr"
)

func TestOpenTDReport(t *testing.T) {
	data := corpus(t, "tdx-live/tdx_tdreport_live.bin")
	q := open(t, data, quote.Options{Nonce: make([]byte, 64)})
	if q.Kind != quote.TDReport || q.Trusted() {
		t.Errorf("%s, trusted is %v", q.Kind, q.Trusted())
	}
	wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Missing, quote.Binding: quote.Verified, quote.Nonce: quote.Verified})
	q = open(t, data, quote.Options{SkipSignature: true})
	if wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Skipped, quote.Nonce: quote.NotChecked}); !q.Trusted() {
		t.Errorf("not trusted without its signature: %v", q.Links)
	}
}

// A quote of the same machine and image, another boot: what is fixed at launch
// stands in both.
func TestTDReportAgainstQuote(t *testing.T) {
	report := open(t, corpus(t, "tdx-live/tdx_tdreport_live.bin"), quote.Options{})
	other := open(t, corpus(t, "tdx-live/tdx_quote_live.dat"), quote.Options{})
	fact := func(q *quote.Quote, name string) string {
		for _, f := range q.Facts {
			if f.Name == name {
				return f.Value
			}
		}
		return "none"
	}
	for _, name := range []string{"TEE_TCB_SVN", "MRSEAM", "MRSIGNERSEAM", "SEAMATTRIBUTES", "TDATTRIBUTES", "XFAM", "MRCONFIGID", "MROWNER", "MROWNERCONFIG"} {
		if got, want := fact(report, name), fact(other, name); got != want || got == "none" {
			t.Errorf("%s is %s, in the quote %s", name, got, want)
		}
	}
	mrtd := rtmr.MRTD
	if got, want := report.Values[rtmr.SHA384][mrtd], other.Values[rtmr.SHA384][mrtd]; got.String() != want.String() {
		t.Errorf("MRTD is %s, in the quote %s", got, want)
	}
}

// As text, and in a bundle.
func TestTDReportText(t *testing.T) {
	b := tdReport(1)
	want := open(t, b, quote.Options{})
	for _, text := range []string{hex.EncodeToString(b), `{"quote":"` + hex.EncodeToString(b) + `"}`} {
		if q := open(t, []byte(text), quote.Options{}); !reflect.DeepEqual(q, want) {
			t.Errorf("%.20s: %+v", text, q)
		}
	}
	if _, err := quote.Open(b, quote.Options{Nonce: make([]byte, 65)}); err == nil {
		t.Error("a nonce of 65 bytes is no error")
	}
}

// tdReport makes a TDREPORT whose hashes are right.
func tdReport(version byte) []byte {
	b := make([]byte, quote.TDReportSize)
	for i := 256; i < len(b); i++ {
		b[i] = byte(i * 5)
	}
	b[0], b[2] = 0x81, version
	clear(b[512:520])
	tcb, info := sha512.Sum384(b[256:495]), sha512.Sum384(b[512:])
	copy(b[32:], tcb[:])
	copy(b[80:], info[:])
	return b
}

func TestTDReportBinding(t *testing.T) {
	for name, test := range map[string]struct {
		offset int
		want   quote.Status
		text   string
	}{
		"as it is":          {1023 - 0, quote.Verified, ""},
		"RTMR2":             {816, quote.Failed, "TEE_INFO_HASH"},
		"MRTD":              {528, quote.Failed, "TEE_INFO_HASH"},
		"MRSEAM":            {280, quote.Failed, "TEE_TCB_INFO_HASH"},
		"TEE_INFO_HASH":     {80, quote.Failed, "TEE_INFO_HASH"},
		"TEE_TCB_INFO_HASH": {32, quote.Failed, "TEE_TCB_INFO_HASH"},
		"behind TEE_TCB_INFO, where nothing is bound": {500, quote.Verified, ""},
	} {
		b := tdReport(1)
		if name != "as it is" {
			b[test.offset] ^= 1
		}
		q := open(t, b, quote.Options{})
		l, _ := q.Link(quote.Binding)
		if l.Status != test.want || !strings.Contains(l.Text, test.text) {
			t.Errorf("%s: %v", name, l)
		}
	}
}

func TestParseTDReport(t *testing.T) {
	b := tdReport(1)
	p, err := quote.ParseTDReport(append(b, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	// TDX Module ABI: TDREPORT_STRUCT; FACTS of the project for the registers.
	for offset, got := range map[int]rtmr.Hex{
		16: p.CPUSVN, 32: p.TEETCBInfoHash, 80: p.TEEInfoHash, 128: p.REPORTDATA, 224: p.MAC, 264: p.TEETCBSVN, 280: p.MRSEAM, 328: p.MRSIGNERSEAM,
		376: p.SEAMATTRIBUTES, 384: p.TEETCBSVN2, 512: p.TDATTRIBUTES, 520: p.XFAM, 528: p.MRTD, 576: p.MRCONFIGID, 624: p.MROWNER, 672: p.MROWNERCONFIG,
		720: p.RTMR[0], 768: p.RTMR[1], 816: p.RTMR[2], 864: p.RTMR[3], 912: p.MRSERVICETD,
	} {
		if !reflect.DeepEqual([]byte(got), b[offset:][:len(got)]) || len(got) == 0 {
			t.Errorf("%d: %x", offset, got)
		}
	}
	if p, _ := quote.ParseTDReport(tdReport(0)); p.MRSERVICETD != nil || p.TEETCBSVN2 != nil {
		t.Error("version 0 has fields of TDX 1.5")
	}
}

func TestTDReportTruncated(t *testing.T) {
	b := tdReport(1)
	for n := range len(b) {
		if _, err := quote.Open(b[:n], quote.Options{}); err == nil {
			t.Fatalf("%d bytes are a TDREPORT", n)
		}
	}
	if q := open(t, append(b, 1), quote.Options{}); len(q.Warnings) != 1 {
		t.Errorf("warnings %q", q.Warnings)
	}
	if _, err := quote.ParseTDReport(make([]byte, 1024)); !errors.Is(err, quote.ErrUnsupported) {
		t.Errorf("type 0: %v", err)
	}
}
