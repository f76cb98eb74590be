package quote_test

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	sevtest "github.com/google/go-sev-guest/testing"

	"tallystick/quote"
	"tallystick/rtmr"
)

// hclParts build an HCL report; their zero value and a type make a good one.
type hclParts struct {
	kind, hash    uint32 // 2 SNP, 4 TDX; 1 SHA-256 (0 too), 2 SHA-384, 3 SHA-512
	dataVersion   uint32
	extension     []byte
	runtime       string
	reportData    []byte // in place of the runtime's hash
	edit          func(report []byte)
	size, runSize int // added to the sizes that the headers say
	trailing      []byte
}

// ownModulus is of no use to sign with, but no RSA key has to be made for it.
var ownModulus = bytes.Repeat([]byte{0xC5}, 256)

func ownRuntime(userData string) string {
	return fmt.Sprintf(`{"keys":[{"kid":"HCLAkPub","key_ops":["sign"],"kty":"RSA","e":"AQAB","n":"%s"}],`+
		`"vm-configuration":{"secure-boot":true,"vmUniqueId":"1"},"user-data":"%s"}`,
		base64.RawURLEncoding.EncodeToString(ownModulus), userData)
}

var hclHash = map[uint32]rtmr.Alg{1: rtmr.SHA256, 2: rtmr.SHA384, 3: rtmr.SHA512}

func (p hclParts) build(t testing.TB) []byte {
	t.Helper()
	if p.kind == 0 {
		p.kind = 2
	}
	if p.hash == 0 {
		p.hash = 1
	}
	if p.dataVersion == 0 {
		p.dataVersion = 1
	}
	if p.runtime == "" {
		p.runtime = ownRuntime(strings.Repeat("00", 64))
	}
	if p.reportData == nil {
		p.reportData = hclHash[p.hash].AppendHash(nil, []byte(p.runtime))
	}
	report := make([]byte, abi.ReportSize)
	switch p.kind {
	case 2:
		copy(report, ownReport(t, ownSigner(t), p.reportData))
	case 4:
		report[0] = 0x81
		copy(report[128:], p.reportData)
		copy(report[528:], bytes.Repeat([]byte{7}, 48))
	}
	if p.edit != nil {
		p.edit(report)
	}
	words := func(words ...int) (out []byte) {
		for _, w := range words {
			out = binary.LittleEndian.AppendUint32(out, uint32(w))
		}
		return out
	}
	n := len(p.runtime) + len(p.extension)
	return slices.Concat([]byte("HCLA"), words(2, 32+len(report)+20+n+p.size, 2, 0, 0, 0, 0), report,
		words(20+n, int(p.dataVersion), int(p.kind), int(p.hash), len(p.runtime)+p.runSize), p.extension, []byte(p.runtime), p.trailing)
}

// The corpus' two reports, with every field read by hand and by encoding/json.
func TestParseHCLOfRealReports(t *testing.T) {
	for name, want := range map[string]struct {
		version, size uint32
		kind          quote.Kind
		reportData    int // its offset in the hardware's report
		hash          string
	}{
		"azure-snp/hcl_report.bin":     {1, 2346, quote.SNP, 0x50, "094f612be41d84ea09ac048e067568272608943c9937f6c714049b7c26baca0f"},
		"azure-tdx/hcl-report-tdx.bin": {2, 2438, quote.TDReport, 128, "e8f0796193ba21d6d43d2ea4bb6e4081ce4920729b348f39099cd2f65ecb6170"},
	} {
		t.Run(name, func(t *testing.T) {
			data, ok := corpusFile(t, name)
			if !ok {
				t.Skip("../shared/corpus is not here")
			}
			p, err := quote.ParseHCL(data)
			if err != nil {
				t.Fatal(err)
			}
			if p.Version != want.version || p.ReportSize != want.size || p.RequestType != 2 || p.Hardware != want.kind || p.DataVersion != 1 || p.Hash != rtmr.SHA256 {
				t.Errorf("%+v", p)
			}
			if got := p.ReportData(); got.String() != want.hash+strings.Repeat("00", 32) || !bytes.Equal(got, data[32+want.reportData:][:64]) {
				t.Errorf("REPORT_DATA %s", got)
			}
			if int(p.ReportSize)+len(p.Trailing) != 2600 || len(bytes.Trim(p.Trailing, "\x00")) != 0 {
				t.Errorf("%d bytes, and %d trailing, expected zeros up to 2600", p.ReportSize, len(p.Trailing))
			}
			var claims struct {
				Keys []struct{ Kid, N, E string }
				User string         `json:"user-data"`
				VM   map[string]any `json:"vm-configuration"`
			}
			if err := json.Unmarshal(data[1236:p.ReportSize], &claims); err != nil {
				t.Fatal(err)
			}
			n, err := base64.RawURLEncoding.DecodeString(claims.Keys[0].N)
			if err != nil || !p.AK.Equal(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}) || claims.Keys[0].Kid != "HCLAkPub" {
				t.Errorf("HCLAkPub: %v %v", p.AK, err)
			}
			if p.EK == nil || p.EK.N.BitLen() != 2048 || p.EK.Equal(p.AK) {
				t.Errorf("HCLEkPub: %v", p.EK)
			}
			if p.UserData.String() != claims.User || len(p.UserData) != 64 || len(p.VM) != len(claims.VM) {
				t.Errorf("user-data %s, vm-configuration %v", p.UserData, p.VM)
			}
		})
	}
}

// The corpus' SNP report, from AMD's root down to the vTPM's key.
func TestHCLOfSNP(t *testing.T) {
	data, ok := corpusFile(t, "azure-snp/hcl_report.bin")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	vcek, _ := corpusFile(t, "azure-snp/vcek.bin")
	for name, c := range map[string]struct {
		opts          quote.Options
		links, inside string
	}{
		"with_vcek":      {quote.Options{Hardware: vcek}, "binding=verified nonce=not-checked", "signature=verified chain=verified"},
		"without":        {quote.Options{}, "binding=verified nonce=not-checked", "signature=missing chain=missing"},
		"unasked_nonce":  {quote.Options{Hardware: vcek, Nonce: []byte("mine")}, "binding=verified nonce=failed", "signature=verified chain=verified"},
		"zero_user_data": {quote.Options{Hardware: vcek, Nonce: make([]byte, 64)}, "binding=verified nonce=verified", "signature=verified chain=verified"},
		"unsigned_is_ok": {quote.Options{SkipSignature: true}, "binding=verified nonce=not-checked", "signature=skipped chain=skipped"},
	} {
		t.Run(name, func(t *testing.T) {
			c.opts.Time = in2025
			q, err := quote.Open(data, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got := statuses(q); got != c.links {
				t.Errorf("%s, want %s: %v", got, c.links, q.Links)
			}
			if got := statuses(q.Inside); got != c.inside {
				t.Errorf("inside: %s, want %s: %v", got, c.inside, q.Inside.Links)
			}
			if broken := strings.Contains(c.links+c.inside, "failed") || strings.Contains(c.inside, "missing"); q.Trusted() == broken {
				t.Errorf("trusted: %v", q.Trusted())
			}
			if q.Kind != quote.Azure || q.Version != 1 || q.Inside.Kind != quote.SNP || q.Inside.Version != 3 {
				t.Errorf("%+v", q)
			}
			if len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "vTPM") {
				t.Errorf("warnings %q", q.Warnings)
			}
			if factNamed(q, "vm-configuration secure-boot") != "true" {
				t.Errorf("facts %v", q.Facts)
			}
		})
	}
}

// The corpus' TDX report. Its RTMRs are zeros: the paravisor extends none.
func TestHCLOfTDX(t *testing.T) {
	data, ok := corpusFile(t, "azure-tdx/hcl-report-tdx.bin")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	q, err := quote.Open(data, quote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if q.Kind != quote.Azure || q.Version != 2 || q.Inside.Kind != quote.TDReport || q.Trusted() {
		t.Errorf("%+v", q)
	}
	if l, _ := q.Link(quote.Binding); l.Status != quote.Verified {
		t.Errorf("%v", l)
	}
	if l, _ := q.Inside.Link(quote.Signature); l.Status != quote.Missing {
		t.Errorf("%v", l)
	}
	bank := q.Values[rtmr.SHA384]
	if len(bank) != 5 || bank[rtmr.MRTD].String()[:8] != "75f3acc2" {
		t.Errorf("values %v", q.Values)
	}
	for i := range rtmr.NumRTMRs {
		r, _ := rtmr.Index(i).RTMR()
		if !bytes.Equal(bank[r], make([]byte, 48)) {
			t.Errorf("%s is %s", r, bank[r])
		}
	}
}

// A report of the test's own is the control for those that are forged.
func TestHCLBinding(t *testing.T) {
	sum := func(alg rtmr.Alg, more ...byte) []byte {
		return append(alg.AppendHash(nil, []byte(ownRuntime(strings.Repeat("00", 64)))), more...)
	}
	for name, c := range map[string]struct {
		parts hclParts
		want  quote.Status
		says  string
	}{
		"sha256":                 {hclParts{}, quote.Verified, "sha256"},
		"sha384":                 {hclParts{hash: 2}, quote.Verified, "sha384"},
		"sha512":                 {hclParts{hash: 3}, quote.Verified, "sha512"},
		"tdx":                    {hclParts{kind: 4}, quote.Verified, "sha256"},
		"extension_of_version_2": {hclParts{dataVersion: 2, extension: []byte{1, 2, 3, 4}}, quote.Verified, "sha256"},
		"other_runtime_data":     {hclParts{reportData: rtmr.SHA256.AppendHash(nil, []byte("other"))}, quote.Failed, "expected the runtime data's sha256"},
		"other_hash_type":        {hclParts{hash: 2, reportData: sum(rtmr.SHA256)}, quote.Failed, "sha384"},
		"rest_is_not_zero":       {hclParts{reportData: sum(rtmr.SHA256, make([]byte, 31)...)[:63], edit: flipAt(0x50 + 63)}, quote.Failed, "and zeros"},
		"rest_of_tdx":            {hclParts{kind: 4, edit: flipAt(128 + 32)}, quote.Failed, "and zeros"},
		"empty_report_data":      {hclParts{reportData: make([]byte, 64)}, quote.Failed, ""},
		"guest_asked":            {hclParts{edit: func(b []byte) { b[0x30] = 2 }}, quote.Failed, "VMPL is 2, expected 0"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := quote.Open(c.parts.build(t), quote.Options{})
			if err != nil {
				t.Fatal(err)
			}
			l, _ := q.Link(quote.Binding)
			if l.Status != c.want || !strings.Contains(l.Text, c.says) {
				t.Errorf("%v, want %s: %s", l, c.want, c.says)
			}
			if q.Trusted() {
				t.Error("no hardware vouches for it, and it is trusted")
			}
		})
	}
}

// The bytes of a real report that anything is said of: none may be changed and
// the report be trusted still.
func TestHCLTampered(t *testing.T) {
	data, ok := corpusFile(t, "azure-snp/hcl_report.bin")
	if !ok {
		t.Skip("../shared/corpus is not here")
	}
	vcek, _ := corpusFile(t, "azure-snp/vcek.bin")
	opts := quote.Options{Hardware: vcek, Time: in2025}
	open := func(data []byte) (trusted bool) {
		q, err := quote.Open(data, opts)
		return err == nil && q.Trusted()
	}
	if !open(data) {
		t.Fatal("the control is not trusted")
	}
	step := 5 // of the hardware's report, whose every byte has the same signature
	for at := 32; at < 2346; at += step {
		if at >= 1216-step {
			step = 1
		}
		unmeasured := at >= 1216 && at < 1224 // the data's size and version
		changed := slices.Clone(data)
		changed[at] ^= 0x20
		if open(changed) && !unmeasured {
			t.Errorf("offset %d was changed, and the report is trusted", at)
		}
	}
	if tdx, _ := corpusFile(t, "azure-tdx/hcl-report-tdx.bin"); open(slices.Concat(data[:1216], tdx[1216:])) {
		t.Error("trusted with another report's runtime data")
	}
	opts.Hardware = amdPEM(ownSigner(t).Vcek.Raw)
	if open(data) {
		t.Error("trusted with another chip's VCEK")
	}
}

func TestHCLTruncated(t *testing.T) {
	whole := hclParts{}.build(t)
	for n := range whole {
		if p, err := quote.ParseHCL(whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes were read as %+v", n, len(whole), p)
		}
		if q, err := quote.Open(whole[:n], quote.Options{}); err == nil {
			t.Fatalf("%d of %d bytes were opened as %s", n, len(whole), q.Kind)
		}
	}
}

func TestParseHCLRefuses(t *testing.T) {
	key := `{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"` + base64.RawURLEncoding.EncodeToString(ownModulus) + `"}`
	for name, c := range map[string]struct {
		parts       hclParts
		says        string
		unsupported bool
	}{
		"trusted_launch":    {hclParts{kind: 3}, "offset 1224: report type 3 (Trusted Launch, no hardware)", true},
		"vbs":               {hclParts{kind: 1}, "report type 1 (VBS)", true},
		"unknown_type":      {hclParts{kind: 99}, "report type 99", true},
		"unknown_hash":      {hclParts{hash: 4, reportData: []byte{1}}, "offset 1228: hash type 4", false},
		"runtime_too_long":  {hclParts{runSize: 1}, "offset 1232: ", false},
		"runtime_is_huge":   {hclParts{runSize: -1 << 20}, "offset 1232: 429", false},
		"no_json":           {hclParts{runtime: "hello"}, "offset 1236: runtime data: ", false},
		"array":             {hclParts{runtime: "[]"}, "runtime data: ", false},
		"two_attestation":   {hclParts{runtime: `{"keys":[` + key + "," + key + `]}`}, "HCLAkPub: comes twice", false},
		"key_of_a_curve":    {hclParts{runtime: `{"keys":[{"kid":"HCLAkPub","kty":"EC"}]}`}, `HCLAkPub: kty "EC", expected RSA`, false},
		"modulus_padded":    {hclParts{runtime: `{"keys":[{"kid":"HCLEkPub","kty":"RSA","e":"AQAB","n":"AA=="}]}`}, "HCLEkPub: n ", false},
		"modulus_empty":     {hclParts{runtime: `{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":""}]}`}, "HCLAkPub: n ", false},
		"exponent_one":      {hclParts{runtime: strings.Replace(`{"keys":[`+key+`]}`, "AQAB", "AQ", 1)}, "HCLAkPub: e ", false},
		"exponent_is_huge":  {hclParts{runtime: strings.Replace(`{"keys":[`+key+`]}`, "AQAB", "gAAAAA", 1)}, "HCLAkPub: e ", false},
		"user_data_no_hex":  {hclParts{runtime: `{"user-data":"xy"}`}, "user-data: ", false},
		"snp_of_version_99": {hclParts{edit: func(b []byte) { b[0] = 99 }}, "offset 32: snp: ", true},
		"no_tdreport":       {hclParts{kind: 4, edit: func(b []byte) { b[0] = 0 }}, "offset 32: tdreport: ", true},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := quote.Open(c.parts.build(t), quote.Options{})
			if err == nil {
				t.Fatalf("was opened: %+v", q)
			}
			if !strings.Contains(err.Error(), c.says) || errors.Is(err, quote.ErrUnsupported) != c.unsupported {
				t.Errorf("%v, expected it to say %s", err, c.says)
			}
		})
	}
}

func TestHCLNonce(t *testing.T) {
	nonce := []byte("the verifier's nonce")
	withNonce := ownRuntime(strings.ToUpper(fmt.Sprintf("%x", nonce)) + strings.Repeat("00", 64-len(nonce)))
	for name, c := range map[string]struct {
		runtime string
		nonce   []byte
		want    quote.Status
	}{
		"in_user_data": {withNonce, nonce, quote.Verified},
		"none_given":   {withNonce, nil, quote.NotChecked},
		"other":        {withNonce, []byte("another nonce"), quote.Failed},
		"prefix":       {withNonce, nonce[:5], quote.Failed},
		"no_user_data": {ownRuntime(""), nonce, quote.Failed},
		"neither":      {ownRuntime(""), nil, quote.NotChecked},
	} {
		q, err := quote.Open(hclParts{runtime: c.runtime}.build(t), quote.Options{Nonce: c.nonce})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if l, _ := q.Link(quote.Nonce); l.Status != c.want {
			t.Errorf("%s: %v, want %s", name, l, c.want)
		}
		if l, inside := q.Inside.Link(quote.Nonce); inside {
			t.Errorf("%s: the hardware's report was held against the nonce: %v", name, l)
		}
	}
}

// What no hash is over is told of where it does not fit.
func TestHCLWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		parts hclParts
		says  string
	}{
		"report_size": {hclParts{size: 1}, "the header says"},
		"trailing":    {hclParts{trailing: []byte{0, 0, 9, 0}}, "3 bytes behind the report are not zeros"},
		"padding":     {hclParts{trailing: make([]byte, 100)}, ""},
	} {
		q, err := quote.Open(c.parts.build(t), quote.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		all := strings.Join(q.Warnings, "\n")
		if c.says == "" && len(q.Warnings) != 1 || !strings.Contains(all, c.says) {
			t.Errorf("%s: %q", name, q.Warnings)
		}
	}
}

// A name in vm-configuration is the input's, and is shown.
func TestHCLFactsAreEscaped(t *testing.T) {
	q, err := quote.Open(hclParts{runtime: `{"vm-configuration":{"\u001b[31m":"\u202e"}}`}.build(t), quote.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range q.Facts {
		if strings.ContainsAny(f.Name+f.Value, "\x1b\u202e") {
			t.Errorf("%q", f)
		}
	}
}

func FuzzParseHCL(f *testing.F) {
	for _, parts := range []hclParts{{}, {kind: 4, hash: 3}, {dataVersion: 2, extension: make([]byte, 4)}, {runtime: "{}", trailing: make([]byte, 8)}} {
		f.Add(parts.build(f))
	}
	raw := sevtest.CreateRawReport(&sevtest.TestReportOptions{Version: 3})
	raw[0x0A] &^= 8 // POLICY's bit 19, by which the host may debug the guest
	f.Add(raw[:abi.ReportSize])
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := quote.ParseHCL(data)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(data, slices.Concat(p.Runtime, p.Trailing)) || !json.Valid(p.Runtime) {
			t.Fatalf("runtime data %q", p.Runtime)
		}
		if p.AK != nil && (p.AK.N.Sign() <= 0 || p.AK.E < 3) {
			t.Fatalf("HCLAkPub %v", p.AK)
		}
		q, err := quote.Open(data, quote.Options{})
		if err != nil {
			return
		}
		if q.Trusted() {
			t.Fatal("trusted, and nothing vouches for it")
		}
		l, _ := q.Link(quote.Binding)
		bound := bytes.HasPrefix(p.ReportData(), p.Hash.AppendHash(nil, p.Runtime))
		if l.Status == quote.Verified && !bound {
			t.Fatalf("%v", l)
		}
	})
}
