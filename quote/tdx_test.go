package quote_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/abi"
	pb "github.com/google/go-tdx-guest/proto/tdx"
	"github.com/google/go-tdx-guest/testing/testdata"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// realQuote is a quote of somebody's TD.
type realQuote struct {
	name    string
	data    []byte
	version int
	intel   bool // its chain leads to Intel's root
}

// realQuotes are those of go-tdx-guest, and of ../shared/corpus if it is here.
func realQuotes(t testing.TB) []realQuote {
	t.Helper()
	cos := testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel", "cos-113-tdx-quote.dat"))
	all := []realQuote{
		{"go-tdx-guest v4", testdata.RawQuote, 4, true},
		{"go-tdx-guest v5, TDX 1.5", testdata.RawQuoteV5, 5, true},
		{"go-tdx-guest cos-113", cos, 4, true},
	}
	for _, name := range []string{"tdx-ccel-ima/quote.bin", "tdx-dstack/quote.bin", "tdx-live/tdx_quote_live.dat"} {
		if path, ok := testlogs.Shared(t, "corpus", filepath.FromSlash(name)); ok {
			all = append(all, realQuote{name, testlogs.Read(t, path), 4, name != "tdx-ccel-ima/quote.bin"})
		}
	}
	return all
}

// corpus reads a file of ../shared/corpus, without which the test is skipped.
func corpus(t testing.TB, name string) []byte {
	t.Helper()
	path, ok := testlogs.Shared(t, "corpus", filepath.FromSlash(name))
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	return testlogs.Read(t, path)
}

// realAt is a time when every real quote's certificates are valid.
var realAt = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// body is what go-tdx-guest's structures for versions 4 and 5 have in common.
type body interface {
	GetTeeTcbSvn() []byte
	GetMrSeam() []byte
	GetMrSignerSeam() []byte
	GetSeamAttributes() []byte
	GetTdAttributes() []byte
	GetXfam() []byte
	GetMrTd() []byte
	GetMrConfigId() []byte
	GetMrOwner() []byte
	GetMrOwnerConfig() []byte
	GetRtmrs() [][]byte
	GetReportData() []byte
}

// wantFields compares a quote with what go-tdx-guest's parser makes of it.
func wantFields(t testing.TB, data []byte, q *quote.TDXQuote) {
	t.Helper()
	parsed, err := abi.QuoteToProto(data)
	if err != nil {
		t.Fatalf("go-tdx-guest: %v", err)
	}
	var (
		header *pb.Header
		b      body
		auth   *pb.Ecdsa256BitQuoteV4AuthData
		svn2   []byte
		svtd   []byte
		extra  []byte
	)
	switch p := parsed.(type) {
	case *pb.QuoteV4:
		header, b, auth, extra = p.GetHeader(), p.GetTdQuoteBody(), p.GetSignedData(), p.GetExtraBytes()
	case *pb.QuoteV5:
		v5 := p.GetTdQuoteBodyDescriptor().GetTdQuoteBodyV5()
		header, b, auth, extra = p.GetHeader(), v5, p.GetSignedData(), p.GetExtraBytes()
		svn2, svtd = v5.GetTeeTcbSvn2(), v5.GetMrServiceTd()
		if got := int32(q.BodyType); got != p.GetTdQuoteBodyDescriptor().GetTdQuoteBodyType() {
			t.Errorf("body type %d, expected %d", got, p.GetTdQuoteBodyDescriptor().GetTdQuoteBodyType())
		}
	}
	if got := [3]uint32{uint32(q.Version), uint32(q.AttestationKeyType), q.TEEType}; got != [3]uint32{header.GetVersion(), header.GetAttestationKeyType(), header.GetTeeType()} {
		t.Errorf("header %v, expected %v", got, header)
	}
	qe := auth.GetCertificationData().GetQeReportCertificationData()
	report, _ := abi.EnclaveReportToAbiBytes(qe.GetQeReport())
	for _, f := range []struct {
		name      string
		got, want []byte
	}{
		{"QE vendor id", q.QEVendorID, header.GetQeVendorId()}, {"user data", q.UserData, header.GetUserData()},
		{"TEE_TCB_SVN", q.TEETCBSVN, b.GetTeeTcbSvn()}, {"MRSEAM", q.MRSEAM, b.GetMrSeam()}, {"MRSIGNERSEAM", q.MRSIGNERSEAM, b.GetMrSignerSeam()},
		{"SEAMATTRIBUTES", q.SEAMATTRIBUTES, b.GetSeamAttributes()}, {"TDATTRIBUTES", q.TDATTRIBUTES, b.GetTdAttributes()}, {"XFAM", q.XFAM, b.GetXfam()},
		{"MRTD", q.MRTD, b.GetMrTd()}, {"MRCONFIGID", q.MRCONFIGID, b.GetMrConfigId()}, {"MROWNER", q.MROWNER, b.GetMrOwner()},
		{"MROWNERCONFIG", q.MROWNERCONFIG, b.GetMrOwnerConfig()}, {"REPORTDATA", q.REPORTDATA, b.GetReportData()},
		{"RTMR0", q.RTMR[0], b.GetRtmrs()[0]}, {"RTMR1", q.RTMR[1], b.GetRtmrs()[1]}, {"RTMR2", q.RTMR[2], b.GetRtmrs()[2]}, {"RTMR3", q.RTMR[3], b.GetRtmrs()[3]},
		{"TEE_TCB_SVN_2", q.TEETCBSVN2, svn2}, {"MRSERVICETD", q.MRSERVICETD, svtd},
		{"signature", q.Signature, auth.GetSignature()}, {"attestation key", q.AttestationKey, auth.GetEcdsaAttestationKey()},
		{"QE report", q.QEReport, report}, {"QE report signature", q.QEReportSignature, qe.GetQeReportSignature()},
		{"QE authentication data", q.QEAuthData, qe.GetQeAuthData().GetData()},
		{"certificates", q.Certification, qe.GetPckCertificateChainData().GetPckCertChain()}, {"trailing", q.Trailing, extra},
	} {
		if !bytes.Equal(f.got, f.want) {
			t.Errorf("%s is %x, expected %x", f.name, f.got, f.want)
		}
	}
}

func TestParseTDX(t *testing.T) {
	p := thePlatform()
	quotes := realQuotes(t)
	for _, v := range []struct {
		name              string
		version, bodyType uint16
	}{{"forged v4", 4, 0}, {"forged v5, TDX 1.0", 5, 2}, {"forged v5, TDX 1.5", 5, 3}} {
		quotes = append(quotes, realQuote{name: v.name, data: p.sign(p.forgery(v.version, v.bodyType)), version: int(v.version)})
	}
	for _, real := range quotes {
		t.Run(real.name, func(t *testing.T) {
			q, err := quote.ParseTDX(real.data)
			if err != nil {
				t.Fatal(err)
			}
			wantFields(t, real.data, q)
		})
	}
}

func TestOpenTDX(t *testing.T) {
	for _, real := range realQuotes(t) {
		t.Run(real.name, func(t *testing.T) {
			q := open(t, real.data, quote.Options{Time: realAt})
			if q.Kind != quote.TDX || q.Version != real.version {
				t.Errorf("%s of version %d, expected tdx of %d", q.Kind, q.Version, real.version)
			}
			chain := quote.Verified
			if !real.intel {
				chain = quote.Failed
			}
			wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Verified, quote.Chain: chain, quote.Collateral: quote.NotChecked, quote.Nonce: quote.NotChecked})
			if q.Trusted() != real.intel {
				t.Errorf("trusted is %v: %v", q.Trusted(), q.Links)
			}
			if err := q.Values.Validate(); err != nil || len(q.Values[rtmr.SHA384]) != 5 {
				t.Errorf("values %v, %v", q.Values, err)
			}
		})
	}
}

// What the logs fold to, others have computed: see the corpus's index.
func TestTDXValues(t *testing.T) {
	var index []struct {
		File     string
		Expected struct {
			Banks map[string]map[string]rtmr.Hex
		}
	}
	if err := json.Unmarshal(corpus(t, "index.json"), &index); err != nil {
		t.Fatal(err)
	}
	for evidence, log := range map[string]string{
		"tdx-dstack/quote.bin":           "tdx-dstack/event_log.json",
		"tdx-dstack/quote-report.json":   "tdx-dstack/event_log.json",
		"tdx-live/tdx_quote_live.dat":    "tdx-live/tdx_ccel_live2.dat",
		"tdx-live/tdx_tdreport_live.bin": "tdx-live/tdx_ccel_live.bin",
	} {
		values := open(t, corpus(t, evidence), quote.Options{}).Values[rtmr.SHA384]
		compared := 0
		for _, entry := range index {
			if entry.File != log {
				continue
			}
			for name, want := range entry.Expected.Banks["sha384"] {
				compared++
				if got := values[rtmr.MustParse(name)]; !bytes.Equal(got, want) {
					t.Errorf("%s: %s is %s, expected %s", evidence, name, got, want)
				}
			}
		}
		if compared == 0 {
			t.Errorf("%s: no values in the index", log)
		}
	}
}

// Intel's root is known by its hash. That it is the one that go-tdx-guest
// embeds, trusting the latter's file shows.
func TestTDXRoot(t *testing.T) {
	pem := testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "verify", "trusted_root.pem"))
	for _, roots := range [][]byte{nil, pem} {
		q := open(t, testdata.RawQuote, quote.Options{TDXRoots: roots, Time: realAt})
		wantLinks(t, q, map[string]quote.Status{quote.Chain: quote.Verified})
	}
	q := open(t, testdata.RawQuote, quote.Options{TDXRoots: pemOf(thePlatform().root), Time: realAt})
	wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Verified, quote.Chain: quote.Failed})
	if _, err := quote.Open(testdata.RawQuote, quote.Options{TDXRoots: []byte("none")}); err == nil {
		t.Error("roots without a certificate are taken")
	}
}

// A root of Intel's name and another key is nobody's: anyone can make one.
func TestTDXRootOfTheSameName(t *testing.T) {
	p := thePlatform()
	q := open(t, p.sign(p.forgery(4, 0)), quote.Options{Time: forgedAt})
	wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Verified, quote.Chain: quote.Failed, quote.Collateral: quote.NotChecked})
	if q.Trusted() {
		t.Error("trusted")
	}
}

func TestTDXForgery(t *testing.T) {
	p := thePlatform()
	other := certify("Intel SGX PCK Certificate", false, certify("Intel SGX PCK Platform CA", true, p.root, nil), sgxExtension())
	at := func(offset int) func([]byte) []byte {
		return func(b []byte) []byte { b[offset] ^= 1; return b }
	}
	forge := func(edit func(f *forgery)) func([]byte) []byte {
		return func([]byte) []byte {
			f := p.forgery(4, 0)
			edit(f)
			return p.sign(f)
		}
	}
	const auth, qe = 636, 636 + 64 + 64 + 6
	for name, test := range map[string]struct {
		edit             func(quote []byte) []byte
		signature, chain quote.Status
		text             string
	}{
		"signature flipped":        {at(auth), quote.Failed, quote.Verified, "not one by the attestation key"},
		"attestation key flipped":  {at(auth + 64), quote.Failed, quote.Verified, "no point on P-256"},
		"user data flipped":        {at(30), quote.Failed, quote.Verified, "not one by the attestation key"},
		"RTMR0 flipped":            {at(376), quote.Failed, quote.Verified, "not one by the attestation key"},
		"RTMR3 flipped":            {at(520 + 47), quote.Failed, quote.Verified, "not one by the attestation key"},
		"REPORTDATA flipped":       {at(568), quote.Failed, quote.Verified, "not one by the attestation key"},
		"QE report flipped":        {at(qe + 70), quote.Failed, quote.Verified, "the QE report is not signed"},
		"QE report data flipped":   {at(qe + 320), quote.Failed, quote.Verified, "of another attestation key"},
		"QE report data's zeros":   {at(qe + 383), quote.Failed, quote.Verified, "of another attestation key"},
		"QE report signature":      {at(qe + 384), quote.Failed, quote.Verified, "the QE report is not signed"},
		"authentication data":      {at(qe + 384 + 64 + 2), quote.Failed, quote.Verified, "of another attestation key"},
		"QE report of other quote": {func(b []byte) []byte { copy(b[qe:], p.sign(p.withKey())[qe:][:448]); return b }, quote.Failed, quote.Verified, "of another attestation key"},
		"no certificates":          {forge(func(f *forgery) { f.chain = nil }), quote.Missing, quote.Missing, "the quote has no certificates"},
		"PPID for a certificate":   {forge(func(f *forgery) { f.certType, f.chain = 3, make([]byte, 404) }), quote.Missing, quote.Missing, "type 3 holds no certificates"},
		"PCK removed":              {forge(func(f *forgery) { f.chain = pemOf(p.ca, p.root) }), quote.Failed, quote.Failed, "the QE report is not signed"},
		"intermediate removed":     {forge(func(f *forgery) { f.chain = pemOf(p.pck, p.root) }), quote.Verified, quote.Failed, "2 certificates"},
		"root removed":             {forge(func(f *forgery) { f.chain = pemOf(p.pck, p.ca) }), quote.Verified, quote.Failed, "2 certificates"},
		"PCK of another CA":        {forge(func(f *forgery) { f.chain = pemOf(other, p.ca, p.root) }), quote.Failed, quote.Failed, "the QE report is not signed"},
		"intermediate of another": {forge(func(f *forgery) {
			f.chain = pemOf(p.pck, certify("Intel SGX PCK Platform CA", true, p.root, nil), p.root)
		}), quote.Verified, quote.Failed, "unknown authority"},
		"root of another":       {forge(func(f *forgery) { f.chain = pemOf(p.pck, p.ca, certify("Intel SGX Root CA", true, nil, nil)) }), quote.Verified, quote.Failed, "go-tdx-guest refuses"},
		"certificates cut":      {forge(func(f *forgery) { f.chain = f.chain[:len(f.chain)-40] }), quote.Verified, quote.Failed, "certificate 2 cannot be decoded"},
		"text for certificates": {forge(func(f *forgery) { f.chain = []byte("no PEM at all") }), quote.Missing, quote.Missing, "certificate 0 cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, test.edit(p.sign(p.forgery(4, 0))), p.options())
			wantLinks(t, q, map[string]quote.Status{quote.Signature: test.signature, quote.Chain: test.chain})
			if q.Trusted() {
				t.Error("trusted")
			}
			signature, _ := q.Link(quote.Signature)
			chain, _ := q.Link(quote.Chain)
			if !strings.Contains(signature.Text+chain.Text, test.text) {
				t.Errorf("texts %q and %q, expected %q in one", signature.Text, chain.Text, test.text)
			}
		})
	}
}

// withKey is a forgery by another attestation key of the same platform.
func (p *platform) withKey() *forgery {
	f := p.forgery(4, 0)
	f.attestation = newKey()
	return f
}

// In a real quote too: flips, where Intel's chain still verifies.
func TestTDXForgeryOfARealQuote(t *testing.T) {
	for _, offset := range []int{184, 376, 424, 472, 520, 568, 636, 636 + 64 + 64 + 6 + 384} {
		b := bytes.Clone(testdata.RawQuote)
		b[offset] ^= 0x80
		q := open(t, b, quote.Options{Time: realAt})
		wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Failed, quote.Chain: quote.Verified})
		if q.Trusted() {
			t.Errorf("trusted with byte %d flipped", offset)
		}
	}
}

// Every byte before the certificates is vouched for: none can be changed.
func TestTDXEveryByte(t *testing.T) {
	p := thePlatform()
	f := p.forgery(5, 3)
	data := p.sign(f)
	before := len(data) - len(f.chain)
	for i := range before {
		b := bytes.Clone(data)
		b[i] ^= 1 << (i % 8)
		if q, err := quote.Open(b, p.options()); err == nil && q.Trusted() {
			t.Errorf("byte %d of %d is changed and the quote trusted", i, before)
		}
	}
}

// offline fails the test when it is asked for anything.
type offline struct{ t *testing.T }

func (o offline) RoundTrip(r *http.Request) (*http.Response, error) {
	o.t.Errorf("a request for %s", r.URL)
	return nil, errors.New("offline")
}

func TestTDXAsksNoNetwork(t *testing.T) {
	network := http.DefaultTransport
	http.DefaultTransport = offline{t}
	defer func() { http.DefaultTransport = network }()
	p := thePlatform()
	for _, missing := range []string{"none", "tcb.json", "qe.json", "chain.pem", "pckcrl", "rootca.crl"} {
		opts := p.options()
		files := p.collateral().files()
		delete(files, missing)
		opts.Collateral = files
		open(t, p.sign(p.forgery(4, 0)), opts)
	}
}

func TestTDXTime(t *testing.T) {
	p := thePlatform()
	data := p.sign(p.forgery(5, 3))
	for name, test := range map[string]struct {
		at    time.Time
		chain quote.Status
	}{
		"valid":         {forgedAt, quote.Verified},
		"expired":       {forgedAt.AddDate(2, 0, 0), quote.Failed},
		"not yet valid": {forgedAt.AddDate(-2, 0, 0), quote.Failed},
	} {
		opts := p.options()
		opts.Time = test.at
		q := open(t, data, opts)
		wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Verified, quote.Chain: test.chain})
		if l, _ := q.Link(quote.Chain); test.chain == quote.Failed && !strings.Contains(l.Text, "expired or is not yet valid") {
			t.Errorf("%s: %s", name, l.Text)
		}
	}
}

func TestTDXNonce(t *testing.T) {
	p := thePlatform()
	f := p.forgery(4, 0)
	nonce := []byte("a nonce of 32 bytes is usual....")
	copy(f.body[520:], append(bytes.Clone(nonce), make([]byte, 32)...))
	data := p.sign(f)
	full := append(bytes.Clone(nonce), make([]byte, 32)...)
	for name, test := range map[string]struct {
		nonce []byte
		want  quote.Status
	}{
		"none":              {nil, quote.NotChecked},
		"empty":             {[]byte{}, quote.NotChecked},
		"padded":            {nonce, quote.Verified},
		"whole":             {full, quote.Verified},
		"wrong":             {bytes.Repeat([]byte{1}, 32), quote.Failed},
		"prefix":            {nonce[:31], quote.Failed},
		"one zero too many": {full[:33], quote.Verified},
	} {
		opts := p.options()
		opts.Nonce = test.nonce
		q := open(t, data, opts)
		wantLinks(t, q, map[string]quote.Status{quote.Nonce: test.want})
		if q.Trusted() != (test.want != quote.Failed) {
			t.Errorf("%s: trusted is %v", name, q.Trusted())
		}
	}
	if _, err := quote.Open(data, quote.Options{Nonce: make([]byte, 65)}); err == nil {
		t.Error("a nonce of 65 bytes is no error")
	}
}

func TestTDXSkipSignature(t *testing.T) {
	p := thePlatform()
	b := p.sign(p.forgery(4, 0))
	b[376] ^= 1
	opts := p.options()
	opts.SkipSignature = true
	q := open(t, b, opts)
	wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Skipped, quote.Chain: quote.Verified})
	opts.Nonce = []byte("wrong")
	if open(t, b, opts).Trusted() {
		t.Error("a wrong nonce is skipped with the signature")
	}
}

// The host can read and change a TD that is under debug.
func TestTDXDebug(t *testing.T) {
	p := thePlatform()
	f := p.forgery(4, 0)
	f.body[120] = 1
	q := open(t, p.sign(f), p.options())
	l, _ := q.Link(quote.Policy)
	if l.Status != quote.Failed || !strings.Contains(l.Text, "debug") || q.Trusted() {
		t.Errorf("%s: %s", l.Status, l.Text)
	}
}

// A TD that may be migrated is told of: by whom, its owner may not have said.
func TestTDXMigratable(t *testing.T) {
	p := thePlatform()
	for bit, want := range map[byte]int{0x20: 1, 0x40: 0} {
		f := p.forgery(4, 0)
		f.body[123] = bit
		q := open(t, p.sign(f), p.options())
		if len(q.Warnings) != want || want > 0 && !strings.Contains(q.Warnings[0], "MIGRATABLE is set") {
			t.Errorf("bit %#x: warnings %q", bit, q.Warnings)
		}
	}
}

func TestTDXTrailing(t *testing.T) {
	p := thePlatform()
	for name, test := range map[string]struct {
		trailing []byte
		warnings int
	}{
		"none":        {nil, 0},
		"zeros":       {make([]byte, 8192), 0},
		"other bytes": {append(make([]byte, 10), 1), 1},
	} {
		f := p.forgery(5, 2)
		f.trailing = test.trailing
		q := open(t, p.sign(f), p.options())
		if !q.Trusted() || len(q.Warnings) != test.warnings {
			t.Errorf("%s: %v, warnings %q", name, q.Links, q.Warnings)
		}
	}
}

// A file that is cut short is an error, or, cut in the padding, the same quote.
func TestTDXTruncated(t *testing.T) {
	p := thePlatform()
	for _, data := range [][]byte{testdata.RawQuote, testdata.RawQuoteV5, p.sign(p.forgery(5, 2))} {
		whole, err := quote.ParseTDX(data)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(data) {
			q, err := quote.Open(data[:n], quote.Options{Time: realAt, TDXRoots: pemOf(p.root)})
			switch size := len(data) - len(whole.Trailing); {
			case n < size && err == nil:
				t.Fatalf("%d of %d bytes are a quote", n, size)
			case n >= size && err != nil:
				t.Fatalf("%d bytes, %d of padding: %v", n, n-size, err)
			case n >= size && !reflect.DeepEqual(q.Values, open(t, data, quote.Options{}).Values):
				t.Fatalf("%d bytes: other values", n)
			}
		}
	}
}

// Sizes that the bytes do not bear out.
func TestParseTDXMalformed(t *testing.T) {
	p := thePlatform()
	const auth = 636
	for name, test := range map[string]struct {
		offset int
		value  []byte
		want   string
	}{
		"signature data beyond the end": {632, le32(1 << 31), "offset 636: signature data: takes 2147483648 bytes"},
		"signature data of no bytes":    {632, le32(0), "offset 636: signature: takes 64 bytes, and 0 are left"},
		"signature data short":          {632, le32(500), "offset 770: certification data"},
		"certification data beyond":     {auth + 130, le32(-1), "offset 770: certification data: takes 4294967295 bytes"},
		"certification data short":      {auth + 130, le32(500), "bytes follow the certification data"},
		"authentication data beyond":    {770 + 448, []byte{0xff, 0xff}, "offset 1220: QE authentication data: takes 65535 bytes"},
		"certificates beyond":           {770 + 448 + 2 + 19 + 2, le32(1 << 20), "offset 1245: PCK certification data: takes 1048576 bytes"},
		"certificates short":            {770 + 448 + 2 + 19 + 2, le32(7), "bytes follow the PCK certification data"},
	} {
		b := p.sign(p.forgery(4, 0))
		copy(b[test.offset:], test.value)
		if _, err := quote.ParseTDX(b); err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, quote.ErrUnsupported) {
			t.Errorf("%s: %v, expected %q", name, err, test.want)
		}
	}
	b := p.sign(p.forgery(5, 3))
	copy(b[50:], le32(584))
	if _, err := quote.ParseTDX(b); err == nil || !strings.Contains(err.Error(), "584 bytes for type 3, expected 648") {
		t.Errorf("a body of type 3 and 584 bytes: %v", err)
	}
}

func TestTDXUnsupported(t *testing.T) {
	p := thePlatform()
	v4 := func(offset int, value ...byte) []byte {
		b := p.sign(p.forgery(4, 0))
		copy(b[offset:], value)
		return b
	}
	v5 := p.sign(p.forgery(5, 3))
	v5[48] = 1
	outer := p.forgery(4, 0)
	outer.outerType = 5
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"SGX, version 3":          {v4(0, 3, 0, 2, 0, 0), "version 3, attestation key type 2, TEE type 0x0 (an SGX quote)"},
		"SGX, version 4":          {v4(4, 0), "version 4, attestation key type 2, TEE type 0x0 (an SGX quote)"},
		"version 6":               {v4(0, 6), "version 6"},
		"ECDSA P-384":             {v4(2, 3), "attestation key type 3"},
		"SGX body in version 5":   {v5, "body type 1 of 648 bytes"},
		"certification data of 5": {p.sign(outer), "certification data type 5"},
	} {
		_, err := quote.Open(test.data, quote.Options{})
		if !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, expected %q", name, err, test.want)
		}
	}
	cwt := append([]byte{0xd8, 0x3d, 0xd2, 0x84, 0x43, 0xa1, 0x01, 0x26}, make([]byte, 9000)...)
	if _, err := quote.ParseTDX(cwt); !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "a DICE or CWT payload") {
		t.Errorf("a CWT: %v", err)
	}
	if _, err := quote.Open(cwt, quote.Options{}); !errors.Is(err, quote.ErrUnsupported) {
		t.Errorf("a CWT: %v", err)
	}
}

// As people paste it.
func TestTDXText(t *testing.T) {
	p := thePlatform()
	data := p.sign(p.forgery(4, 0))
	want := open(t, data, p.options())
	lines := func(s string) string {
		var b strings.Builder
		for len(s) > 76 {
			b.WriteString(s[:76] + "\r\n")
			s = s[76:]
		}
		return b.String() + s + "\n"
	}
	for name, text := range map[string]string{
		"hexadecimal":       hex.EncodeToString(data),
		"upper case":        strings.ToUpper(hex.EncodeToString(data)),
		"0x":                "0x" + hex.EncodeToString(data) + "\n",
		"hexadecimal lines": lines(hex.EncodeToString(data)),
		"base64":            base64.StdEncoding.EncodeToString(data),
		"base64 lines":      lines(base64.StdEncoding.EncodeToString(data)),
		"base64url":         base64.RawURLEncoding.EncodeToString(data),
	} {
		if q := open(t, []byte(text), p.options()); !reflect.DeepEqual(q, want) {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

func TestTDXBundle(t *testing.T) {
	q := open(t, corpus(t, "tdx-dstack/quote-report.json"), quote.Options{Time: realAt})
	want := open(t, corpus(t, "tdx-dstack/quote.bin"), quote.Options{Time: realAt})
	if len(q.Logs) != 1 || q.Logs[0].Name != "event_log" {
		t.Fatalf("logs %v", q.Logs)
	}
	var got, log any
	if err := json.Unmarshal(q.Logs[0].Data, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(corpus(t, "tdx-dstack/event_log.json"), &log); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, log) {
		t.Error("the log is not that of event_log.json")
	}
	if q.Logs = nil; !reflect.DeepEqual(q, want) {
		t.Errorf("%+v\nexpected %+v", q, want)
	}
	if !q.Trusted() {
		t.Errorf("not trusted: %v", q.Links)
	}
}

func TestTDXBundleForms(t *testing.T) {
	p := thePlatform()
	data := p.sign(p.forgery(4, 0))
	for name, test := range map[string]struct {
		bundle   map[string]any
		logs     []quote.Log
		warnings int
	}{
		"quote alone":          {map[string]any{"quote": hex.EncodeToString(data)}, nil, 0},
		"log as JSON":          {map[string]any{"quote": hex.EncodeToString(data), "event_log": []int{1}}, []quote.Log{{Name: "event_log", Data: []byte("[1]")}}, 0},
		"CoCo's":               {map[string]any{"quote": base64.StdEncoding.EncodeToString(data), "cc_eventlog": "AAEC"}, []quote.Log{{Name: "cc_eventlog", Data: []byte{0, 1, 2}}}, 0},
		"CoCo's without a log": {map[string]any{"quote": base64.StdEncoding.EncodeToString(data), "cc_eventlog": nil}, nil, 0},
		"other report_data":    {map[string]any{"quote": hex.EncodeToString(data), "report_data": "0102"}, nil, 1},
		"short report_data":    {map[string]any{"quote": hex.EncodeToString(data), "report_data": hex.EncodeToString(data[568:632])}, nil, 0},
	} {
		q := open(t, must(json.Marshal(test.bundle)), p.options())
		if !reflect.DeepEqual(q.Logs, test.logs) || len(q.Warnings) != test.warnings || !q.Trusted() {
			t.Errorf("%s: logs %+v, warnings %q", name, q.Logs, q.Warnings)
		}
	}
	for name, bundle := range map[string]string{
		"a quote that is none": `{"quote":"0400"}`, "a number": `{"quote":4}`, "another spelling": `{"Quote":"` + hex.EncodeToString(data) + `"}`,
	} {
		if _, err := quote.Open([]byte(bundle), quote.Options{}); !errors.Is(err, quote.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
