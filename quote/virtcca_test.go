package quote_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/veraison/go-cose"

	"tallystick/internal/ccatest"
	"tallystick/quote"
	"tallystick/rtmr"
)

// deviceKey is a device's RSA key, of virtCCA's size.
var deviceKey = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 4096)) })

// wrapped signs as virtCCA's monitor does: the claims are bytes in the payload.
func wrapped(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
	return ccatest.Sign1(ccatest.Encode(payload), key, alg)
}

// firstForm is virtCCA's token of the first form, by a device's RSA key.
func firstForm() *ccatest.Token {
	token := ccatest.New(rtmr.SHA256, nil)
	token.Platform, token.Message = nil, wrapped
	delete(token.Realm, ccatest.Profile)
	token.RAK, token.RealmAlg = deviceKey(), cose.AlgorithmPS256
	token.SetKey(ccatest.SPKI(token.RAK.Public()))
	return token
}

func virtCCAToken(testing.TB) []byte { return firstForm().Sign() }

// secondForm is virtCCA's token of the second form: on P-521, and with a platform
// token.
func secondForm() *ccatest.Token {
	token := ccatest.New(rtmr.SHA256, nil)
	delete(token.Realm, ccatest.Profile)
	token.Platform[ccatest.Profile] = "a profile of Huawei's"
	token.Platform[ccatest.Components] = []ccatest.Claims{{1: "BL1\x00", 2: make([]byte, 32), 4: "1", 5: []byte{}, 6: "sha-256"}}
	rak := ccatest.Key(elliptic.P521(), "RAK")
	token.RAK, token.CPAK = rak, ccatest.Key(elliptic.P521(), "device")
	token.RealmAlg, token.PlatformAlg = cose.AlgorithmES512, cose.AlgorithmES512
	token.SetKey(ccatest.Point(&rak.PublicKey))
	return token
}

// maker is who makes devices, in Huawei's place: a root, an intermediate CA, and
// devices' certificates.
type maker struct{ root, ca, device *x509.Certificate }

func newMaker(device crypto.PublicKey) maker {
	rootKey, caKey := ccatest.Key(elliptic.P521(), "root"), ccatest.Key(elliptic.P521(), "CA")
	certify := func(name string, key crypto.PublicKey, issuer *x509.Certificate, signer crypto.Signer, isCA bool) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{Organization: []string{"Maker"}, CommonName: name},
			NotBefore: in2025.Add(-time.Hour), NotAfter: in2025.Add(time.Hour), IsCA: isCA, BasicConstraintsValid: isCA, KeyUsage: x509.KeyUsageCertSign,
		}
		if issuer == nil {
			issuer = template
		}
		return must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, issuer, key, signer))))
	}
	m := maker{root: certify("Root", rootKey.Public(), nil, rootKey, true)}
	m.ca = certify("CA", caKey.Public(), m.root, rootKey, true)
	m.device = certify("Device", device, m.ca, caKey, false)
	return m
}

// roots are what to trust, in PEM.
func (m maker) roots() []byte { return append(certPEM(m.ca.Raw), certPEM(m.root.Raw)...) }

// TestVirtCCA: both forms, with the device's certificate and its makers' in each
// form of file.
func TestVirtCCA(t *testing.T) {
	for name, token := range map[string]*ccatest.Token{"first": firstForm(), "second": secondForm(), "second, wrapped": wrapping(secondForm()), "second, signed in DER": inDER(secondForm())} {
		device := token.CPAK.Public()
		if token.Platform == nil {
			device = token.RAK.Public()
		}
		m := newMaker(device)
		for form, opts := range map[string]quote.Options{
			"DER":                      {Hardware: m.device.Raw, VirtCCARoots: m.roots()},
			"PEM":                      {Hardware: certPEM(m.device.Raw), VirtCCARoots: append(append([]byte{}, m.ca.Raw...), m.root.Raw...)},
			"the CA beside the device": {Hardware: append(certPEM(m.device.Raw), certPEM(m.ca.Raw)...), VirtCCARoots: certPEM(m.root.Raw)},
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
	token.Message = wrapped
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
	m := newMaker(deviceKey().Public())
	second := newMaker(ccatest.Key(elliptic.P521(), "device").Public())
	other := newMaker(ccatest.Key(elliptic.P521(), "another").Public())
	all := quote.Options{Hardware: m.device.Raw, VirtCCARoots: m.roots(), Time: in2025, Nonce: []byte{0xCA, 0xFE}}
	with := func(edit func(opts *quote.Options)) quote.Options {
		opts := all
		edit(&opts)
		return opts
	}
	ofSecond := with(func(o *quote.Options) { o.Hardware, o.VirtCCARoots = second.device.Raw, second.roots() })
	edited := func(edit func(token *ccatest.Token)) []byte {
		token := secondForm()
		edit(token)
		return token.Sign()
	}
	realm, _ := firstForm().Messages()
	changed := firstForm()
	changed.Realm[ccatest.RIM] = make([]byte, 32)
	for name, c := range map[string]struct {
		data  []byte
		opts  quote.Options
		links string // that are not verified
	}{
		"no certificate":                 {virtCCAToken(t), with(func(o *quote.Options) { o.Hardware = nil }), "chain=missing binding=missing"},
		"no roots":                       {virtCCAToken(t), with(func(o *quote.Options) { o.VirtCCARoots = nil }), "chain=missing"},
		"no self-signed root":            {virtCCAToken(t), with(func(o *quote.Options) { o.VirtCCARoots = certPEM(m.ca.Raw) }), "chain=failed"},
		"no CA between":                  {virtCCAToken(t), with(func(o *quote.Options) { o.VirtCCARoots = certPEM(m.root.Raw) }), "chain=failed"},
		"expired":                        {virtCCAToken(t), with(func(o *quote.Options) { o.Time = in2025.AddDate(1, 0, 0) }), "chain=failed"},
		"another device":                 {virtCCAToken(t), with(func(o *quote.Options) { o.Hardware = other.device.Raw }), "binding=failed"},
		"another nonce":                  {virtCCAToken(t), with(func(o *quote.Options) { o.Nonce = []byte{1} }), "nonce=failed"},
		"another payload":                {ccatest.Collection(399, map[uint64]any{ccatest.RealmToken: withPayload(realm, ccatest.Encode(ccatest.Encode(changed.Realm)))}), all, "signature=failed"},
		"second: another device":         {edited(func(*ccatest.Token) {}), with(func(o *quote.Options) { o.Hardware, o.VirtCCARoots = other.device.Raw, other.roots() }), "chain=failed"},
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
		"a certificate that is none": {Hardware: []byte("junk")}, "PEM of a key": {Hardware: spkiPEM(deviceKey().Public())},
		"roots that are none": {VirtCCARoots: []byte("junk")}, "a CPAK": {CCAKey: spkiPEM(&ccatest.Key(elliptic.P384(), "CPAK").PublicKey)},
	} {
		if q, err := quote.Open(virtCCAToken(t), opts); err == nil {
			t.Errorf("%s: %+v", name, q)
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
	second := secondForm()
	m := newMaker(second.CPAK.Public())
	opts := []quote.Options{{CCAKey: ccatest.New(rtmr.SHA256, nil).PEM(), Time: in2025}, {Hardware: m.device.Raw, VirtCCARoots: m.roots(), Time: in2025}}
	var signed []rtmr.Values
	for _, token := range []*ccatest.Token{ccatest.New(rtmr.SHA256, nil), ccatest.New(rtmr.SHA512, nil).Legacy(), second} {
		data := token.Sign()
		f.Add(data)
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
