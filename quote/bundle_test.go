package quote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"
	snpabi "github.com/google/go-sev-guest/abi"
	snppb "github.com/google/go-sev-guest/proto/sevsnp"
	tdxabi "github.com/google/go-tdx-guest/abi"
	tdxpb "github.com/google/go-tdx-guest/proto/tdx"
	attestpb "github.com/google/go-tpm-tools/proto/attest"
	tpmpb "github.com/google/go-tpm-tools/proto/tpm"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

var threeBanks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}

// bundle is a machine with a software TPM: one key, a quote over each bank.
type bundle struct {
	key     *softwareKey
	values  rtmr.Values
	attests [][]byte
	nonce   []byte
}

func newBundle(t testing.TB) bundle {
	t.Helper()
	b := bundle{key: software(t, ecc256), values: valuesOf(threeBanks...), nonce: []byte("nonce")}
	for _, alg := range threeBanks {
		b.attests = append(b.attests, b.key.attest(allOf(alg), b.nonce, b.values))
	}
	return b
}

// goAttestation is the bundle as go-attestation's own types write it.
func (b bundle) goAttestation(t testing.TB) attest.PlatformParameters {
	t.Helper()
	p := attest.PlatformParameters{Public: b.key.tpmtPublic(), EventLog: []byte("a log")}
	for _, a := range b.attests {
		p.Quotes = append(p.Quotes, attest.Quote{Quote: a, Signature: b.key.sign(t, a)})
	}
	for alg, bank := range b.values {
		for register, value := range bank {
			p.PCRs = append(p.PCRs, attest.PCR{Index: register.Index(), Digest: bytes.Clone(value), DigestAlg: goHash[alg]})
		}
	}
	return p
}

// goTPMTools is the bundle as go-tpm-tools' own types write it.
func (b bundle) goTPMTools(t testing.TB) *attestpb.Attestation {
	t.Helper()
	a := &attestpb.Attestation{AkPub: b.key.tpmtPublic(), EventLog: []byte("a log"), CanonicalEventLog: []byte("another"),
		InstanceInfo: &attestpb.GCEInstanceInfo{Zone: "here", ProjectId: "p\x1b[31m", InstanceName: "vm", ProjectNumber: 7, InstanceId: 8}}
	for i, raw := range b.attests {
		pcrs := &tpmpb.PCRs{Hash: tpmpb.HashAlgo(threeBanks[i]), Pcrs: map[uint32][]byte{}}
		for register, value := range b.values[threeBanks[i]] {
			pcrs.Pcrs[uint32(register.Index())] = bytes.Clone(value)
		}
		a.Quotes = append(a.Quotes, &tpmpb.Quote{Quote: raw, RawSig: b.key.sign(t, raw), Pcrs: pcrs})
	}
	return a
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// forms are the bundle in each kind of file.
func (b bundle) forms(t testing.TB) map[string][]byte {
	t.Helper()
	a := b.goTPMTools(t)
	binary, err1 := proto.Marshal(a)
	text, err2 := prototext.MarshalOptions{Multiline: true, EmitASCII: true}.Marshal(a)
	js, err3 := protojson.Marshal(a)
	names, err4 := protojson.MarshalOptions{UseProtoNames: true}.Marshal(a)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"go-attestation": mustJSON(t, b.goAttestation(t)),
		"binarypb": binary, "textproto": text, "protojson": js, "protojson with proto names": names}
}

// TestBundles: all quotes of a bundle are verified, its values bound to them,
// its log handed on; its key is anyone's until the caller says otherwise.
func TestBundles(t *testing.T) {
	b := newBundle(t)
	root := newAuthority(t, "root")
	for name, data := range b.forms(t) {
		t.Run(name, func(t *testing.T) {
			q := open(t, data, quote.Options{Nonce: b.nonce})
			status(t, q, quote.Signature, quote.Verified, "")
			status(t, q, quote.Chain, quote.Missing, "comes with its own evidence")
			status(t, q, quote.Nonce, quote.Verified, "")
			status(t, q, quote.Binding, quote.Verified, "")
			if q.Trusted() {
				t.Error("trusted by its own key")
			}
			if len(q.Composites) != 3 || len(q.Values) != 3 || len(q.Values[rtmr.SHA384]) != 9 || string(q.Logs[0].Data) != "a log" {
				t.Errorf("%v, %v, %v", q.Composites, q.Values, q.Logs)
			}
			if fact(q, "quotes[2].resetCount") != "7" || strings.ContainsRune(fact(q, "instance_info"), '\x1b') {
				t.Errorf("facts %v", q.Facts)
			}
			for form, key := range b.key.forms(t) {
				q = open(t, data, quote.Options{Nonce: b.nonce, Key: key})
				status(t, q, quote.Chain, quote.NotChecked, "taken as it is")
				if !q.Trusted() || fact(q, "keyName") == "" {
					t.Errorf("with its key as %s: %v", form, q.Links)
				}
			}
			q = open(t, data, quote.Options{Nonce: b.nonce, Key: software(t, ecc384).tpmtPublic()})
			status(t, q, quote.Signature, quote.Failed, "quote 1 of 3")
			if !strings.Contains(strings.Join(q.Warnings, "\n"), "another than the key that was given") {
				t.Errorf("warnings %q", q.Warnings)
			}
			cert := certPEM(root.issue(t, b.key.signer.Public(), akCertificate))
			q = open(t, data, quote.Options{Nonce: b.nonce, Key: cert, EKRoots: root.pem(), Time: epoch})
			status(t, q, quote.Chain, quote.Verified, `leads to "CN=root"`)
		})
	}
}

// TestBundleForgeries: one quote of three, one value of many.
func TestBundleForgeries(t *testing.T) {
	b := newBundle(t)
	for name, test := range map[string]struct {
		change func(*attest.PlatformParameters)
		link   string
		status quote.Status
		word   string
	}{
		"second_signature": {func(p *attest.PlatformParameters) { p.Quotes[1].Signature = p.Quotes[2].Signature }, quote.Signature, quote.Failed, "quote 2 of 3"},
		"third_nonce": {func(p *attest.PlatformParameters) {
			a := b.key.attest(allOf(rtmr.SHA384), []byte("old"), b.values)
			p.Quotes[2] = attest.Quote{Quote: a, Signature: b.key.sign(t, a)}
		}, quote.Nonce, quote.Failed, "quote 3 of 3"},
		"a_value": {func(p *attest.PlatformParameters) {
			for i := range p.PCRs {
				if p.PCRs[i].Index == 4 {
					p.PCRs[i].Digest[0] ^= 1
				}
			}
		}, quote.Binding, quote.Failed, "the quote signs"},
		"a_value_left_out": {func(p *attest.PlatformParameters) {
			for i := range p.PCRs {
				if p.PCRs[i].Index == 4 {
					p.PCRs[i].Index = 20
				}
			}
			p.PCRs = dedupe(p.PCRs)
		}, quote.Binding, quote.Missing, "pcr4"},
	} {
		t.Run(name, func(t *testing.T) {
			p := b.goAttestation(t)
			test.change(&p)
			q := open(t, mustJSON(t, p), quote.Options{Nonce: b.nonce, Key: b.key.tpmtPublic()})
			status(t, q, test.link, test.status, test.word)
			if q.Trusted() {
				t.Error("trusted")
			}
		})
	}
}

// dedupe keeps the first value of each register.
func dedupe(pcrs []attest.PCR) (kept []attest.PCR) {
	type key struct {
		index int
		alg   uint
	}
	seen := map[key]bool{}
	for _, p := range pcrs {
		if k := (key{p.Index, uint(p.DigestAlg)}); !seen[k] {
			seen[k] = true
			kept = append(kept, p)
		}
	}
	return kept
}

// TestMalformedBundles: what is of such a format and cannot be read.
func TestMalformedBundles(t *testing.T) {
	public := newBundle(t).key.tpmtPublic()
	for name, test := range map[string]struct {
		v    any
		want string
	}{
		"no_quotes":     {map[string]any{"Public": public, "Quotes": []any{}}, "0 quotes, expected 1 to 64"},
		"pcr_24":        {map[string]any{"Public": public, "Quotes": []any{map[string]any{}}, "PCRs": []any{map[string]any{"Index": 24}}}, "PCRs[0].Index: 24"},
		"pcr_-1":        {map[string]any{"Public": public, "Quotes": []any{map[string]any{}}, "PCRs": []any{map[string]any{"Index": -1}}}, "PCRs[0].Index: -1"},
		"pcr_2^32":      {map[string]any{"Public": public, "Quotes": []any{map[string]any{}}, "PCRs": []any{map[string]any{"Index": 1 << 32, "DigestAlg": 5}}}, "PCRs[0].Index: 4294967296"},
		"md5":           {map[string]any{"Public": public, "Quotes": []any{map[string]any{}}, "PCRs": []any{map[string]any{"DigestAlg": 2}}}, "PCRs[0].DigestAlg: 2"},
		"empty_quote":   {map[string]any{"Public": public, "Quotes": []any{map[string]any{}}}, "quote 1 of 1: TPMS_ATTEST: offset 0"},
		"no_base64":     {map[string]any{"Public": "!", "Quotes": []any{}}, "base64"},
		"quotes_a_text": {map[string]any{"Public": public, "Quotes": []any{7}}, "a JSON number"},
		"tpm12":         {map[string]any{"TPMVersion": 1, "Public": public, "Quotes": []any{}}, "TPM 1.2"},
		"key_cut_off":   {map[string]any{"Public": public[:40], "Quotes": []any{}}, "the field Public: "},
	} {
		_, err := quote.Open(mustJSON(t, test.v), quote.Options{})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, expected %q", name, err, test.want)
		}
	}
}

// TestGoAttestationDumps: the module's own test data. The nonce is empty.
func TestGoAttestationDumps(t *testing.T) {
	dir := testlogs.ModuleDir(t, testlogs.GoAttestation)
	data := testlogs.Read(t, filepath.Join(dir, "attest", "testdata", "windows_gcp_shielded_vm.json"))
	var dump struct {
		AK    attest.AttestationParameters
		Quote attest.Quote
		Log   struct{ PCRs []attest.PCR }
	}
	if err := json.Unmarshal(data, &dump); err != nil {
		t.Fatal(err)
	}
	ak, err := attest.ParseAKPublic(dump.AK.Public)
	if err != nil {
		t.Fatal(err)
	}
	if err := ak.Verify(dump.Quote, dump.Log.PCRs, nil); err != nil {
		t.Fatalf("go-attestation itself: %v", err)
	}
	q := open(t, data, quote.Options{Nonce: []byte{}, Key: dump.AK.Public})
	for _, name := range []string{quote.Signature, quote.Nonce, quote.Binding} {
		status(t, q, name, quote.Verified, "")
	}
	if !q.Trusted() || len(q.Values[rtmr.SHA1]) != 24 || len(q.Logs) != 1 {
		t.Errorf("%v, %d values", q.Links, len(q.Values[rtmr.SHA1]))
	}

	old := testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoEventlog), "testdata", "legacydata", "linux_tpm12.json"))
	if _, err := quote.Open(old, quote.Options{}); !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "TPM 1.2") {
		t.Errorf("a TPM 1.2's: %v", err)
	}
}

// TestAKCert: go-tpm-tools' ak_cert, with its intermediates, is a chain.
func TestAKCert(t *testing.T) {
	b := newBundle(t)
	root, stranger := newAuthority(t, "root"), newAuthority(t, "stranger")
	middle := root.authority(t, "intermediate")
	marshal := func(a *attestpb.Attestation) []byte {
		data, err := proto.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	a := b.goTPMTools(t)
	a.AkCert, a.IntermediateCerts = middle.issue(t, b.key.signer.Public(), akCertificate), [][]byte{middle.cert.Raw}
	opts := quote.Options{Nonce: b.nonce, EKRoots: root.pem(), Time: epoch}
	q := open(t, marshal(a), opts)
	status(t, q, quote.Chain, quote.Verified, `leads to "CN=root"`)
	if !q.Trusted() {
		t.Errorf("%v", q.Links)
	}
	opts.EKRoots = nil
	status(t, open(t, marshal(a), opts), quote.Chain, quote.Missing, "no roots")
	opts.EKRoots = stranger.pem()
	status(t, open(t, marshal(a), opts), quote.Chain, quote.Failed, "unknown authority")
	opts.EKRoots = root.pem()
	a.IntermediateCerts = nil
	status(t, open(t, marshal(a), opts), quote.Chain, quote.Failed, "unknown authority")
	a.AkCert = root.issue(t, software(t, ecc384).signer.Public(), akCertificate)
	q = open(t, marshal(a), opts)
	status(t, q, quote.Chain, quote.Missing, "")
	if q.Trusted() || !strings.Contains(strings.Join(q.Warnings, "\n"), "another key than ak_pub") {
		t.Errorf("%v, %q", q.Links, q.Warnings)
	}
	a.AkPub, a.AkCert = nil, root.issue(t, b.key.signer.Public(), akCertificate)
	status(t, open(t, marshal(a), opts), quote.Chain, quote.Verified, "")
}

// tdxQuote is a quote of go-tdx-guest's test data, in the form in which
// go-tpm-tools holds it.
func tdxQuote(t testing.TB) *tdxpb.QuoteV4 {
	t.Helper()
	raw := testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel", "cos-113-tdx-quote.dat"))
	parsed, err := tdxabi.QuoteToProto(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(*tdxpb.QuoteV4)
}

// snpReport is a report of zeros but for what makes it one.
func snpReport(t testing.TB) *snppb.Attestation {
	t.Helper()
	raw := make([]byte, snpabi.ReportSize)
	raw[0], raw[0x34], raw[0xa] = 2, 1, 2 // version, signature algorithm, the policy's reserved bit
	report, err := snpabi.ReportToProto(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &snppb.Attestation{Report: report}
}

// TestSNPInside: an SNP report beside the TPM's quote; what does not sign the
// TPM's key is said.
func TestSNPInside(t *testing.T) {
	a := newBundle(t).goTPMTools(t)
	a.TeeAttestation = &attestpb.Attestation_SevSnpAttestation{SevSnpAttestation: snpReport(t)}
	data, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	q := open(t, data, quote.Options{})
	if q.Inside == nil || q.Inside.Kind != quote.SNP || q.Inside.Trusted() || q.Trusted() {
		t.Errorf("%+v", q.Inside)
	}
	if l, _ := q.Inside.Link(quote.Signature); l.Status == quote.Verified {
		t.Errorf("a report without a certificate is verified: %s", l.Text)
	}
	a.GetSevSnpAttestation().CertificateChain = &snppb.CertificateChain{VcekCert: []byte("no certificate")}
	if data, err = proto.Marshal(a); err != nil {
		t.Fatal(err)
	}
	if _, err := quote.Open(data, quote.Options{}); err == nil || !strings.Contains(err.Error(), "sev_snp_attestation") {
		t.Errorf("a certificate that is none: %v", err)
	}
}

// TestTDXInside: a TDX quote beside the TPM's is put together byte for byte.
func TestTDXInside(t *testing.T) {
	b := newBundle(t)
	a := b.goTPMTools(t)
	a.TeeAttestation = &attestpb.Attestation_TdxAttestation{TdxAttestation: tdxQuote(t)}
	data, err := proto.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	q := open(t, data, quote.Options{})
	if q.Inside == nil || q.Inside.Kind != quote.TDX || len(q.Inside.Values[rtmr.SHA384]) != 5 {
		t.Errorf("%v, %v", q.Inside, q.Facts)
	}
	a.TeeAttestation = &attestpb.Attestation_TdxAttestation{TdxAttestation: &tdxpb.QuoteV4{}}
	if data, err = proto.Marshal(a); err != nil {
		t.Fatal(err)
	}
	if _, err := quote.Open(data, quote.Options{}); err == nil || !strings.Contains(err.Error(), "tdx_attestation: ") {
		t.Errorf("an empty TDX quote: %v", err)
	}
}
