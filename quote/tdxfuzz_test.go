package quote_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-tdx-guest/testing/testdata"

	"tallystick/internal/readertest"
	"tallystick/quote"
	"tallystick/rtmr"
)

// forgedQuotes are seeds: quotes of each version, and what they sign.
func forgedQuotes() (quotes, signed [][]byte) {
	p := thePlatform()
	for _, v := range [][2]uint16{{4, 0}, {5, 2}, {5, 3}} {
		data := p.sign(p.forgery(v[0], v[1]))
		quotes = append(quotes, data)
		signed = append(signed, must(quote.ParseTDX(data)).Signed)
	}
	return quotes, signed
}

// FuzzParseTDX: what is parsed is what go-tdx-guest parses, field by field.
func FuzzParseTDX(f *testing.F) {
	quotes, _ := forgedQuotes()
	for _, data := range append(quotes, testdata.RawQuote, testdata.RawQuoteV5) {
		f.Add(data)
		f.Add(data[:700])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := quote.ParseTDX(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		if q.CertificationType == 5 { // go-tdx-guest reads no other
			wantFields(t, data, q)
		}
	})
}

// FuzzOpenTDX: whatever is done to a quote or its text, it is trusted only with
// the very header and body that the platform signed.
func FuzzOpenTDX(f *testing.F) {
	quotes, signed := forgedQuotes()
	for _, data := range quotes {
		f.Add(data)
		f.Add([]byte(hex.EncodeToString(data)))
		f.Add([]byte(base64.StdEncoding.EncodeToString(data)))
		f.Add([]byte(`{"quote":"` + hex.EncodeToString(data) + `","event_log":"[]","report_data":"00"}`))
	}
	f.Add(tdReport(1))
	opts := thePlatform().options()
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := quote.Open(data, opts)
		if err != nil {
			readertest.CheckLine(t, err.Error(), len(data))
			return
		}
		checkLines(t, q)
		if !q.Trusted() || q.Kind != quote.TDX {
			return
		}
		var stated []byte // the RTMRs and REPORTDATA, which stand side by side
		for i := range rtmr.Index(rtmr.NumRTMRs) {
			reg, _ := i.RTMR()
			stated = append(stated, q.Values[rtmr.SHA384][reg]...)
		}
		for _, fact := range q.Facts {
			if fact.Name == "REPORTDATA" {
				stated = append(stated, unhex(fact.Value)...)
			}
		}
		if !slices.ContainsFunc(signed, func(s []byte) bool {
			return bytes.Contains(s, stated) && bytes.Contains(s, q.Values[rtmr.SHA384][rtmr.MRTD])
		}) {
			t.Errorf("trusted, and not what was signed: %v", q)
		}
	})
}

func checkLines(t *testing.T, q *quote.Quote) {
	t.Helper()
	for _, l := range q.Links {
		readertest.CheckLine(t, l.Text, 1<<10)
	}
	for _, w := range q.Warnings {
		readertest.CheckLine(t, w, 1<<10)
	}
}

// FuzzParseTDReport: the binding holds where the hashes do, and fields stand
// within the report.
func FuzzParseTDReport(f *testing.F) {
	f.Add(tdReport(0))
	f.Add(tdReport(1))
	f.Add(tdReport(1)[:1000])
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := quote.ParseTDReport(data)
		if err != nil {
			if len(data) >= quote.TDReportSize && !errors.Is(err, quote.ErrUnsupported) {
				t.Errorf("%d bytes: %v", len(data), err)
			}
			return
		}
		if len(p.Trailing) != len(data)-quote.TDReportSize || !bytes.Contains(data[512:], p.RTMR[3]) {
			t.Errorf("fields beyond the report: %+v", p)
		}
	})
}

// FuzzCollateral: one file of an unknown kind beside good ones never makes a
// platform better, and what is said of it is one line.
func FuzzCollateral(f *testing.F) {
	p := thePlatform()
	c := p.collateral()
	c.levels[0]["tcbStatus"] = "OutOfDate"
	for _, files := range []fstest.MapFS{c.files(), p.collateral().files()} {
		for _, file := range files {
			f.Add(file.Data)
		}
	}
	f.Add(revocationList(p.ca, nil))
	f.Add([]byte("HTTP/2 200\r\nTCB-Info-Issuer-Chain: -----BEGIN%20CERTIFICATE-----%0A\r\n\r\n{}"))
	f.Add([]byte(`{"tcb_info":"{}","tcb_info_signature":"00","root_ca_crl":"30","pck_crl":"{"}`))
	data := p.sign(p.forgery(4, 0))
	bad := c.files()
	opts := p.options()
	f.Fuzz(func(t *testing.T, content []byte) {
		files := fstest.MapFS{"fuzz": {Data: content}}
		if c, err := quote.ReadTDXCollateral(files); err != nil || len(c.Warnings) > 1 {
			t.Fatalf("warnings %q, %v", c.Warnings, err)
		}
		for name, file := range bad {
			files[name] = file
		}
		opts.Collateral = files
		q, err := quote.Open(data, opts)
		if err != nil {
			t.Fatal(err)
		}
		checkLines(t, q)
		l, _ := q.Link(quote.Collateral)
		readertest.CheckLine(t, l.Text, math.MaxInt32)
		if l.Status == quote.Verified && !strings.Contains(string(content), "UpToDate") {
			t.Errorf("up to date by %q: %s", content, l.Text)
		}
	})
}
