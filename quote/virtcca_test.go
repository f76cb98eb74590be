package quote_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/veraison/go-cose"

	"tallystick/internal/ccatest"
	"tallystick/quote"
	"tallystick/rtmr"
)

// TestVirtCCA: both forms, with the device's certificate and its makers' in each
// form of file.
func TestVirtCCA(t *testing.T) {
	for name, token := range map[string]*ccatest.Token{"first": ccatest.VirtCCA1(nil), "second": ccatest.VirtCCA2(nil), "second, wrapped": wrapping(ccatest.VirtCCA2(nil)), "second, signed in DER": inDER(ccatest.VirtCCA2(nil))} {
		m := ccatest.NewMaker(token.Device())
		for form, opts := range map[string]quote.Options{
			"DER":                      {Hardware: m.Device.Raw, VirtCCARoots: m.Roots()},
			"PEM":                      {Hardware: certPEM(m.Device.Raw), VirtCCARoots: append(append([]byte{}, m.CA.Raw...), m.Root.Raw...)},
			"the CA beside the device": {Hardware: append(certPEM(m.Device.Raw), certPEM(m.CA.Raw)...), VirtCCARoots: certPEM(m.Root.Raw)},
		} {
			t.Run(name+"/"+form, func(t *testing.T) {
				opts.Time, opts.Nonce = in2025, []byte{0xCA, 0xFE}
				q := open(t, token.Sign(), opts)
				if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=verified" || !q.Trusted() || q.Kind != quote.VirtCCA {
					t.Errorf("%s, %s: %v", q.Kind, got, q.Links)
				}
				_, policy := q.Link(quote.Policy)
				if lacks := strings.Contains(strings.Join(q.Warnings, " "), "no platform token"); lacks == policy || policy != (token.Platform != nil) {
					t.Errorf("policy %v, %q", policy, q.Warnings)
				}
			})
		}
	}
}

func wrapping(token *ccatest.Token) *ccatest.Token {
	token.Message = ccatest.Wrapped
	return token
}

// inDER signs with ECDSA's signature in DER, which COSE does not have.
func inDER(token *ccatest.Token) *ccatest.Token {
	token.Message = func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
		protected := ccatest.Encode(map[int]int64{1: int64(alg)})
		digest := sha512.Sum512(ccatest.Encode([]any{"Signature1", protected, []byte{}, payload}))
		return ccatest.Encode([]any{protected, map[int]int{}, payload, must(ecdsa.SignASN1(rand.Reader, key.(*ecdsa.PrivateKey), digest[:]))})
	}
	return token
}

// TestVirtCCAForged: each link, broken alone.
func TestVirtCCAForged(t *testing.T) {
	m := ccatest.NewMaker(ccatest.DeviceKey().Public())
	second := ccatest.NewMaker(ccatest.Key(elliptic.P521(), "device").Public())
	other := ccatest.NewMaker(ccatest.Key(elliptic.P521(), "another").Public())
	all := quote.Options{Hardware: m.Device.Raw, VirtCCARoots: m.Roots(), Time: in2025, Nonce: []byte{0xCA, 0xFE}}
	with := func(edit func(opts *quote.Options)) quote.Options {
		opts := all
		edit(&opts)
		return opts
	}
	ofSecond := with(func(o *quote.Options) { o.Hardware, o.VirtCCARoots = second.Device.Raw, second.Roots() })
	edited := func(edit func(token *ccatest.Token)) []byte {
		token := ccatest.VirtCCA2(nil)
		edit(token)
		return token.Sign()
	}
	realm, _ := ccatest.VirtCCA1(nil).Messages()
	changed := ccatest.VirtCCA1(nil)
	changed.Realm[ccatest.RIM] = make([]byte, 32)
	for name, c := range map[string]struct {
		data  []byte
		opts  quote.Options
		links string // that are not verified
	}{
		"no certificate":                 {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.Hardware = nil }), "chain=missing binding=missing"},
		"no roots":                       {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.VirtCCARoots = nil }), "chain=missing"},
		"no self-signed root":            {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.VirtCCARoots = certPEM(m.CA.Raw) }), "chain=failed"},
		"no CA between":                  {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.VirtCCARoots = certPEM(m.Root.Raw) }), "chain=failed"},
		"expired":                        {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.Time = in2025.AddDate(1, 0, 0) }), "chain=failed"},
		"another device":                 {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.Hardware = other.Device.Raw }), "binding=failed"},
		"another nonce":                  {ccatest.VirtCCA1(nil).Sign(), with(func(o *quote.Options) { o.Nonce = []byte{1} }), "nonce=failed"},
		"another payload":                {ccatest.Collection(399, map[uint64]any{ccatest.RealmToken: withPayload(realm, ccatest.Encode(ccatest.Encode(changed.Realm)))}), all, "signature=failed"},
		"second: another device":         {edited(func(*ccatest.Token) {}), with(func(o *quote.Options) { o.Hardware, o.VirtCCARoots = other.Device.Raw, other.Roots() }), "chain=failed"},
		"second: another realm":          {edited(func(k *ccatest.Token) { k.Platform[ccatest.Challenge] = make([]byte, 32) }), ofSecond, "binding=failed"},
		"second: debugged":               {edited(func(k *ccatest.Token) { k.Platform[ccatest.Lifecycle] = 0x5000 }), ofSecond, "policy=failed"},
		"second: by the RAK":             {edited(func(k *ccatest.Token) { k.CPAK = k.RAK }), ofSecond, "chain=failed"},
		"second: the realm's by another": {edited(func(k *ccatest.Token) { k.RAK = k.CPAK }), ofSecond, "signature=failed"},
		"second: no platform token":      {edited(func(k *ccatest.Token) { k.Platform = nil }), ofSecond, "binding=failed"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, c.data, c.opts)
			var got []string
			for _, l := range q.Links {
				if l.Status != quote.Verified {
					got = append(got, l.Name+"="+string(l.Status))
				}
			}
			if strings.Join(got, " ") != c.links || q.Trusted() {
				t.Errorf("%q, expected %q: %v", got, c.links, q.Links)
			}
			checkLines(t, q)
		})
	}
	for name, opts := range map[string]quote.Options{
		"a certificate that is none": {Hardware: []byte("junk")}, "PEM of a key": {Hardware: spkiPEM(ccatest.DeviceKey().Public())},
		"roots that are none": {VirtCCARoots: []byte("junk")}, "a CPAK": {CCAKey: spkiPEM(&ccatest.Key(elliptic.P384(), "CPAK").PublicKey)},
	} {
		if q, err := quote.Open(ccatest.VirtCCA1(nil).Sign(), opts); err == nil {
			t.Errorf("%s: %+v", name, q)
		}
	}
}

// TestVirtCCAEvidence: the files that hold a token with the device's certificate and
// logs, which are taken from it in order of layers.
func TestVirtCCAEvidence(t *testing.T) {
	token := ccatest.VirtCCA2(nil)
	m := ccatest.NewMaker(token.Device())
	signed, pem := token.Sign(), certPEM(m.Device.Raw)
	numbers := func(b []byte) (out []int) {
		for _, v := range b {
			out = append(out, int(v))
		}
		return out
	}
	gta := map[string]any{"vcca_token": signed, "dev_cert": pem, "logs": []any{
		map[string]any{"log_type": "ImaLog", "log_data": []byte("ima")}, map[string]any{"log_type": "CCEL", "log_data": []byte("ccel")}}}
	for name, c := range map[string]struct {
		data []byte
		logs string
	}{
		"Global Trust Authority":           {mustJSON(t, map[string]any{"attester_type": "virt_cca", "evidence": gta}), "CCEL=ccel ImaLog=ima"},
		"Global Trust Authority, the part": {mustJSON(t, gta), "CCEL=ccel ImaLog=ima"},
		"secGear": {mustJSON(t, map[string]any{"evidence": numbers(signed), "dev_cert": numbers(m.Device.Raw), "ima_log": numbers([]byte("ima")),
			"uefi_log": map[string]any{"ccel_table": numbers([]byte("ta")), "ccel_data": numbers([]byte("ble"))}}), "uefi_log=table ima_log=ima"},
		"secGear, older": {mustJSON(t, map[string]any{"evidence": numbers(signed), "dev_cert": numbers(m.Device.Raw), "ima_log": nil, "event_log": numbers([]byte("ccel"))}), "event_log=ccel"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := quote.Options{VirtCCARoots: m.Roots(), Time: in2025, Nonce: []byte{0xCA, 0xFE}}
			q := open(t, c.data, opts)
			var logs []string
			for _, l := range q.Logs {
				logs = append(logs, l.Name+"="+string(l.Data))
			}
			if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=verified" || !q.Trusted() || strings.Join(logs, " ") != c.logs {
				t.Errorf("%s: %q, %v", got, logs, q.Links)
			}
			opts.Hardware = ccatest.NewMaker(ccatest.Key(elliptic.P521(), "another").Public()).Device.Raw // in place of the file's own
			if q := open(t, c.data, opts); q.Trusted() {
				t.Error("trusted by another device's certificate")
			}
		})
	}
	// Confidential Containers' agent has Arm's tokens so.
	arm := ccatest.New(rtmr.SHA256, nil)
	q := open(t, mustJSON(t, map[string]any{"token": numbers(arm.Sign())}), quote.Options{CCAKey: arm.PEM()})
	if !q.Trusted() || q.Kind != quote.CCA || len(q.Logs) != 0 {
		t.Errorf("%s: %v", q.Kind, q.Links)
	}
	for _, bad := range []string{`{"token":[217,1,143,300]}`, `{"token":"2QGP!"}`, `{"token":[217,1,143,160]}`, `{"evidence":{"vcca_token":7}}`, `[]`, `{"token":[217,1,143,-1]}`} {
		if q, err := quote.Open([]byte(bad), quote.Options{}); err == nil {
			t.Errorf("%s: %+v", bad, q)
		}
	}
}

// TestSoftInRealm: a realm's token stands for a software TPM's quote by its
// challenge, Arm's and virtCCA's, and for no other.
func TestSoftInRealm(t *testing.T) {
	soft, other := softQuote(t), softQuote(t)
	bound, another := soft.ReportData(), other.ReportData()
	for name, c := range map[string]struct {
		token     *ccatest.Token
		challenge []byte
		edit      func(o *quote.Options)
		chain     quote.Status
		trusted   bool
	}{
		"Arm's":             {ccatest.New(rtmr.SHA512, nil), bound[:], nil, quote.Verified, true},
		"virtCCA's":         {ccatest.VirtCCA2(nil), bound[:], nil, quote.Verified, true},
		"another quote's":   {ccatest.New(rtmr.SHA256, nil), another[:], nil, quote.Failed, false},
		"without its key":   {ccatest.New(rtmr.SHA256, nil), bound[:], func(o *quote.Options) { o.CCAKey = nil }, quote.Verified, false},
		"without its roots": {ccatest.VirtCCA2(nil), bound[:], func(o *quote.Options) { o.VirtCCARoots = nil }, quote.Verified, false},
	} {
		c.token.Realm[ccatest.Challenge] = c.challenge
		opts := softOptions(soft, nil)
		opts.Report, opts.Time = c.token.Sign(), in2025
		kind := quote.CCA
		if name == "virtCCA's" || name == "without its roots" {
			m := ccatest.NewMaker(c.token.Device())
			opts.Hardware, opts.VirtCCARoots, kind = m.Device.Raw, m.Roots(), quote.VirtCCA
		} else {
			opts.CCAKey = c.token.PEM()
		}
		if c.edit != nil {
			c.edit(&opts)
		}
		q := open(t, soft.Attest, opts)
		if q.Trusted() != c.trusted || q.Inside == nil || q.Inside.Kind != kind {
			t.Fatalf("%s: %+v, %+v", name, q.Links, q.Inside)
		}
		status(t, q, quote.Chain, c.chain, "report")
		status(t, q.Inside, quote.Binding, c.chain, "cca-realm-challenge is ")
		if _, ok := q.Inside.Link(quote.Nonce); ok || !strings.Contains(strings.Join(q.Warnings, " "), "nothing is held here against the report's rim (--expect)") || factNamed(q.Inside, "rem3") == "" {
			t.Errorf("%s: %q, %v", name, q.Warnings, q.Inside.Facts)
		}
	}
}

// TestVirtCCACorpus: a real token. Its device's certificate is not in the corpus, so
// its chain and binding are Missing. (With that certificate, which its publisher has
// in the same file, and Huawei's, both verify.)
func TestVirtCCACorpus(t *testing.T) {
	q := open(t, corpus(t, "virtcca/vcca_token.cbor"), quote.Options{Nonce: unhex("a0efa5f5c64ad1c8509eb8e8d1e44472da1c368b87c05423c89d6ed4d6dcf756")})
	if got := statuses(q); got != "signature=verified chain=missing binding=missing nonce=verified" || q.Kind != quote.VirtCCA || q.Trusted() {
		t.Errorf("%s, %s: %v", q.Kind, got, q.Links)
	}
	// Read off the file by hand; the registers are what its CCEL folds to by another
	// parser, as the corpus's index has it.
	for name, want := range map[string]string{
		"rim": "b23d801b7a7d00e53dc636f918237a62f8a30df39f46db9af7cd213713a041d8", "rem0": "e3579705477c2855a75f4127123fff3cd4f05a3b2442fda8829f95ea81ce308c",
		"rem1": "646fdfc8b716bf958471a20378f178c472679216c911ddd0349cd74924eda7e9", "rem2": "6cfeb56cd4309990fe30637f1621cdc71a87a041c5ca552683abe7a07290cd4b",
		"rem3": strings.Repeat("00", 32),
	} {
		if got := q.Values[rtmr.SHA256][rtmr.MustParse(name)].String(); got != want {
			t.Errorf("%s: %s, expected %s", name, got, want)
		}
	}
	key, ok := must(x509.ParsePKIXPublicKey(unhex(factNamed(q, "cca-realm-public-key")))).(*rsa.PublicKey)
	if !ok || key.N.BitLen() != 4096 {
		t.Errorf("the key: %v", key)
	}
	// Every byte of the claims is signed.
	data := corpus(t, "virtcca/vcca_token.cbor")
	for i := 0x16; i < len(data); i += 7 {
		data[i] ^= 4
		if q, err := quote.Open(data, quote.Options{}); err == nil && q.Links[0].Status == quote.Verified {
			t.Errorf("byte %d: verified", i)
		}
		data[i] ^= 4
	}
}

// FuzzOpenCCA: whatever is done to tokens, one is trusted only with the very
// registers that were signed.
func FuzzOpenCCA(f *testing.F) {
	second := ccatest.VirtCCA2(nil)
	m := ccatest.NewMaker(second.CPAK.Public())
	opts := []quote.Options{{CCAKey: ccatest.New(rtmr.SHA256, nil).PEM(), Time: in2025}, {Hardware: m.Device.Raw, VirtCCARoots: m.Roots(), Time: in2025}}
	var signed []rtmr.Values
	for _, token := range []*ccatest.Token{ccatest.New(rtmr.SHA256, nil), ccatest.New(rtmr.SHA512, nil).Legacy(), second} {
		data := token.Sign()
		f.Add(data)
		f.Add(mustJSON(f, map[string]any{"vcca_token": data, "dev_cert": m.Device.Raw}))
		p, err := quote.ParseCCA(data)
		if err != nil {
			f.Fatal(err)
		}
		q := must(quote.Open(data, opts[map[bool]int{true: 1}[p.VirtCCA]]))
		if !q.Trusted() {
			f.Fatal(q.Links)
		}
		signed = append(signed, q.Values)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, opts := range opts {
			q, err := quote.Open(data, opts)
			if err != nil || q.Kind != quote.CCA && q.Kind != quote.VirtCCA {
				continue
			}
			checkLines(t, q)
			if q.Trusted() && !slices.ContainsFunc(signed, func(v rtmr.Values) bool { return sameValues(v, q.Values) }) {
				t.Errorf("trusted, and states %v", q.Values)
			}
		}
	})
}
