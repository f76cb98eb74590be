package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/ccatoken"
	ccaplatform "github.com/veraison/ccatoken/platform"
	ccarealm "github.com/veraison/ccatoken/realm"
	"github.com/veraison/go-cose"
	"github.com/veraison/psatoken"

	"tallystick/internal/ccatest"
	"tallystick/internal/readertest"
	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// tfRMM is TF-RMM's token and its platform's key, which ship with ccatoken.
func tfRMM(t testing.TB) (token, cpak []byte) {
	t.Helper()
	dir := filepath.Join(testlogs.ModuleDir(t, testlogs.CCAToken), "realm", "testvectors", "tf-rmm")
	return testlogs.Read(t, filepath.Join(dir, "cca_token.cbor")), testlogs.Read(t, filepath.Join(dir, "cca_platform.pub"))
}

// TestCCAOfTFRMM: the token of Arm's reference monitor verifies, and says what
// ccatoken reads in it.
func TestCCAOfTFRMM(t *testing.T) {
	token, cpak := tfRMM(t)
	q := open(t, token, quote.Options{CCAKey: cpak, Nonce: bytes.Repeat([]byte{0xAB}, 64)})
	if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=verified" || !q.Trusted() || q.Kind != quote.CCA {
		t.Errorf("%s, %v", got, q.Links)
	}
	var ev ccatoken.Evidence
	if err := ev.UnmarshalCBOR(token); err != nil {
		t.Fatal(err)
	}
	rim, rems := must(ev.RealmClaims.GetInitialMeasurement()), must(ev.RealmClaims.GetExtensibleMeasurements())
	want := rtmr.Values{rtmr.SHA256: {rtmr.RIM: rim}}
	for i, rem := range rems {
		want.Set(rtmr.SHA256, rtmr.MustParse(fmt.Sprintf("rem%d", i)), rem)
	}
	if !sameValues(q.Values, want) || len(rems) != 4 {
		t.Errorf("%v, expected %v", q.Values, want)
	}
	components := must(ev.PlatformClaims.GetSoftwareComponents())
	facts := map[string]string{
		"cca-platform-profile":                              must(ev.PlatformClaims.GetProfile()),
		"cca-platform-challenge":                            hex.EncodeToString(must(ev.PlatformClaims.GetNonce())),
		"cca-platform-implementation-id":                    hex.EncodeToString(must(ev.PlatformClaims.GetImplID())),
		"cca-platform-instance-id":                          hex.EncodeToString(must(ev.PlatformClaims.GetInstID())),
		"cca-platform-config":                               hex.EncodeToString(must(ev.PlatformClaims.GetConfig())),
		"cca-platform-lifecycle":                            fmt.Sprint(must(ev.PlatformClaims.GetSecurityLifeCycle())),
		"cca-platform-lifecycle.state":                      ccaplatform.LifeCycleToState(must(ev.PlatformClaims.GetSecurityLifeCycle())).String(),
		"cca-platform-verification-service":                 must(ev.PlatformClaims.GetVSI()),
		"cca-platform-hash-algo-id":                         must(ev.PlatformClaims.GetHashAlgID()),
		"cca-realm-challenge":                               hex.EncodeToString(must(ev.RealmClaims.GetChallenge())),
		"cca-realm-personalization-value":                   hex.EncodeToString(must(ev.RealmClaims.GetPersonalizationValue())),
		"cca-realm-hash-algo-id":                            must(ev.RealmClaims.GetHashAlgID()),
		"cca-realm-public-key":                              hex.EncodeToString(must(ev.RealmClaims.GetPubKey())),
		"cca-realm-public-key-hash-algo-id":                 must(ev.RealmClaims.GetPubKeyHashAlgID()),
		"cca-platform-sw-components.0.component-type":       must(components[0].GetMeasurementType()),
		"cca-platform-sw-components.3.version":              must(components[3].GetVersion()),
		"cca-platform-sw-components.2.measurement-value":    hex.EncodeToString(must(components[2].GetMeasurementValue())),
		"cca-platform-sw-components.1.signer-id":            hex.EncodeToString(must(components[1].GetSignerID())),
		"cca-platform-sw-components.0.hash-algo-id":         "sha-256",
		"cca-platform-sw-components.1.hash-algo-id":         "",
		"cca-platform-sw-components.4.measurement-value":    "",
		"cca-realm-profile":                                 "",
		"cca-realm-instance-id":                             "",
		"cca-realm-mec-policy":                              "",
		"cca-platform-sw-components.0.measurement-value.x":  "",
		"cca-platform-client-id":                            "",
		"cca-platform-manufacturing-config":                 "",
		"cca-realm-extensible-measurements (are registers)": "",
	}
	for name, want := range facts {
		if got := factNamed(q, name); got != want {
			t.Errorf("%s: %q, ccatoken reads %q", name, got, want)
		}
	}
}

func sameValues(a, b rtmr.Values) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errors.Join(errA, errB) == nil && bytes.Equal(x, y)
}

// ccatokens are tokens that ccatoken made and signed, of both of its profiles.
func ccatokens(t testing.TB) map[string][]byte {
	t.Helper()
	rak, cpak := ccatest.Key(elliptic.P384(), "RAK"), ccatest.Key(elliptic.P384(), "CPAK")
	made := map[string][]byte{}
	for name, p := range map[string]ccaplatform.IClaims{"legacy": ccaplatform.NewLegacyClaims(), "2023": ccaplatform.NewClaims()} {
		r := ccarealm.NewClaims()
		key := ccatest.COSEKey(&rak.PublicKey)
		if name == "legacy" {
			r.(*ccarealm.Claims).Profile, key = nil, ccatest.Point(&rak.PublicKey)
		}
		sum := sha512.Sum512([]byte("what was booted"))
		version := "3.4.2"
		for _, err := range []error{
			p.SetImplID(bytes.Repeat([]byte{7}, 32)), p.SetInstID(append([]byte{1}, bytes.Repeat([]byte{8}, 32)...)),
			p.SetConfig([]byte{1}), p.SetHashAlgID("sha-256"), p.SetSecurityLifeCycle(0x30FF),
			p.SetSoftwareComponents([]psatoken.ISwComponent{&psatoken.SwComponent{MeasurementValue: pointerTo(sum[:]), SignerID: pointerTo(sum[:32]), Version: &version}}),
			r.SetChallenge(bytes.Repeat([]byte{0xAB}, 64)), r.SetPersonalizationValue(bytes.Repeat([]byte{9}, 64)), r.SetHashAlgID("sha-512"),
			r.SetInitialMeasurement(sum[:]), r.SetExtensibleMeasurements([][]byte{sum[:], make([]byte, 64), sum[:], make([]byte, 64)}),
			r.SetPubKeyHashAlgID("sha-512"), r.SetPubKey(key),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		ev := &ccatoken.Evidence{}
		if err := ev.SetClaims(p, r); err != nil {
			t.Fatal(err)
		}
		signed, err := ev.ValidateAndSign(must(cose.NewSigner(cose.AlgorithmES384, cpak)), must(cose.NewSigner(cose.AlgorithmES384, rak)))
		if err != nil {
			t.Fatal(err)
		}
		made[name] = signed
	}
	return made
}

func pointerTo[T any](v T) *T { return &v }

// TestCCAOfCcatoken: what ccatoken signs is verified, in SHA-512 too.
func TestCCAOfCcatoken(t *testing.T) {
	cpak := ccatest.New(rtmr.SHA256, nil).PEM()
	for name, token := range ccatokens(t) {
		q := open(t, token, quote.Options{CCAKey: cpak})
		if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=not-checked" || !q.Trusted() {
			t.Errorf("%s: %s, %v", name, got, q.Links)
		}
		sum := sha512.Sum512([]byte("what was booted"))
		bank := q.Values[rtmr.SHA512]
		if len(q.Values) != 1 || len(bank) != 5 || !bytes.Equal(bank[rtmr.RIM], sum[:]) || !bytes.Equal(bank[rtmr.MustParse("rem2")], sum[:]) || bytes.Equal(bank[rtmr.MustParse("rem3")], sum[:]) {
			t.Errorf("%s: %v", name, q.Values)
		}
	}
}

// TestCCAForms: the collection's forms, and the tokens' in it.
func TestCCAForms(t *testing.T) {
	forms := map[string]func(realm, platform []byte) []byte{
		"399_bytes":   func(r, p []byte) []byte { return collection(399, r, p) },
		"399_zeros":   func(r, p []byte) []byte { return append(collection(399, r, p), make([]byte, 4096)...) },
		"399_records": func(r, p []byte) []byte { return collection(399, []any{263, r}, []any{263, p}) },
		"907_records": func(r, p []byte) []byte { return collection(907, []any{263, r}, []any{263, p}) },
		"907_media_type": func(r, p []byte) []byte {
			return collection(907, []any{"application/eat+cwt", r}, []any{`application/eat+cwt; eat_profile="x"`, p, 4})
		},
		"399_as_they_are": func(r, p []byte) []byte { return collection(399, cbor.RawMessage(r), cbor.RawMessage(p)) },
		"untagged":        func(r, p []byte) []byte { return collection(399, r[1:], p[1:]) },
		"untagged_as_they_are": func(r, p []byte) []byte {
			return collection(907, cbor.RawMessage(r[1:]), cbor.RawMessage(p[1:]))
		},
		"more_in_it": func(r, p []byte) []byte {
			return ccatest.Collection(399, map[uint64]any{ccatest.RealmToken: r, ccatest.PlatformToken: p, 44242: []any{"a log", map[int]bool{1: true}}})
		},
	}
	for name, token := range map[string]*ccatest.Token{
		"2023": ccatest.New(rtmr.SHA256, nil), "legacy": ccatest.New(rtmr.SHA512, nil).Legacy(), "2024": ccatest.New(rtmr.SHA384, nil).Version2(),
	} {
		realm, platform := token.Messages()
		for form, wrap := range forms {
			t.Run(name+"/"+form, func(t *testing.T) {
				q := open(t, wrap(realm, platform), quote.Options{CCAKey: token.PEM(), Nonce: []byte{0xCA, 0xFE}})
				if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=verified" || !q.Trusted() {
					t.Errorf("%s, %v", got, q.Links)
				}
				if unread := strings.Join(q.Warnings, " "); (form == "more_in_it") != strings.Contains(unread, "collection 44242") || strings.Contains(unread, "claim") {
					t.Errorf("%q", q.Warnings)
				}
			})
		}
	}
}

func collection(tag uint64, realm, platform any) []byte {
	return ccatest.Collection(tag, map[uint64]any{ccatest.RealmToken: realm, ccatest.PlatformToken: platform})
}

// TestCCAWarnings: of claims that are not known, in all or the first few, and of
// profiles that do not go together. A realm without a profile may have a COSE_Key.
func TestCCAWarnings(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil)
	token.Realm[99], token.Platform[-75000] = "x", map[string]int{"x": 1}
	token.Platform[ccatest.Components].([]ccatest.Claims)[1][7] = true
	q := open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	if want := []string{"not read: realm claim 99, cca-platform-sw-components 1 7, platform claim -75000"}; !slices.Equal(q.Warnings, want) || !q.Trusted() {
		t.Errorf("%q, %v", q.Warnings, q.Links)
	}
	for i := range int64(50) {
		token.Realm[1000+i] = i
	}
	q = open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	if !strings.HasSuffix(q.Warnings[0], "realm claim 1006, and 45 more") || !q.Trusted() {
		t.Errorf("%q, %v", q.Warnings, q.Links)
	}
	token = ccatest.New(rtmr.SHA256, nil)
	delete(token.Realm, ccatest.Profile)
	q = open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	if want := []string{`the profiles are of different versions: the platform's is tag:arm.com,2023:cca_platform#1.0.0, the realm's is ""`}; !slices.Equal(q.Warnings, want) || !q.Trusted() {
		t.Errorf("%q, %v", q.Warnings, q.Links)
	}
}

// TestCCAVersion2: version 2's claims are facts.
func TestCCAVersion2(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil).Version2()
	q := open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	for name, want := range map[string]string{
		"cca-realm-profile": "tag:arm.com,2024:realm#2.0.0", "cca-realm-instance-id": "01" + strings.Repeat("3d", 32),
		"cca-realm-mec-policy": "1", "cca-realm-lfa-policy": "0", "cca-platform-client-id": "1",
	} {
		if got := factNamed(q, name); got != want {
			t.Errorf("%s: %q, expected %q", name, got, want)
		}
	}
}

// TestCCAAlgorithms: each algorithm goes with its curve alone, whoever signed.
func TestCCAAlgorithms(t *testing.T) {
	curves := map[cose.Algorithm]elliptic.Curve{cose.AlgorithmES256: elliptic.P256(), cose.AlgorithmES384: elliptic.P384(), cose.AlgorithmES512: elliptic.P521()}
	for alg, right := range curves {
		for _, curve := range curves {
			token := ccatest.New(rtmr.SHA256, nil)
			token.CPAK, token.PlatformAlg = ccatest.Key(curve, "CPAK"), alg
			want := map[bool]quote.Status{true: quote.Verified, false: quote.Failed}[curve == right]
			q := open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
			if link, _ := q.Link(quote.Chain); link.Status != want {
				t.Errorf("%s on %s: %+v", alg, curve.Params().Name, link)
			}
			token = ccatest.New(rtmr.SHA256, nil)
			rak := ccatest.Key(curve, "RAK")
			token.RAK, token.RealmAlg = rak, alg
			token.SetKey(ccatest.COSEKey(&rak.PublicKey))
			q = open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
			if link, _ := q.Link(quote.Signature); link.Status != want {
				t.Errorf("realm, %s on %s: %+v", alg, curve.Params().Name, link)
			}
		}
	}
	// RFC 9864's names say the curve, and sign as the others do.
	token := ccatest.New(rtmr.SHA256, nil)
	token.Message = func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
		return handSigned(payload, key.(*ecdsa.PrivateKey), ccatest.Encode(map[int]int{1: -51}), map[int]int{})
	}
	q := open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	if got := statuses(q); got != "signature=verified chain=verified binding=verified nonce=not-checked" || !strings.Contains(q.Links[0].Text, "ESP384") {
		t.Errorf("ESP384: %v", q.Links)
	}
}

// handSigned makes a COSE_Sign1 by ES384 with headers of any kind, by RFC 9052
// §4.4 and without go-cose.
func handSigned(payload []byte, key *ecdsa.PrivateKey, protected []byte, unprotected any) []byte {
	digest := sha512.Sum384(ccatest.Encode([]any{"Signature1", protected, []byte{}, payload}))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 96)
	r.FillBytes(sig[:48])
	s.FillBytes(sig[48:])
	return ccatest.Encode(cbor.Tag{Number: 18, Content: []any{protected, unprotected, payload, sig}})
}

// TestCCAHeaders: headers that are not what is signed by, or that would have to be
// understood, are refused.
func TestCCAHeaders(t *testing.T) {
	good := ccatest.Encode(map[int]int{1: -35})
	for name, c := range map[string]struct {
		protected   []byte
		unprotected any
		err         string // "" where the signature is looked at
		link        quote.Status
	}{
		"as they should be":    {good, map[int]int{}, "", quote.Verified},
		"a content type":       {ccatest.Encode(map[int]any{1: -35, 3: "application/eat+cwt"}), map[int]int{}, "", quote.Verified},
		"a kid":                {good, map[int]any{4: []byte("kid")}, "", quote.Verified},
		"a text label":         {good, map[string]int{"x": 1}, "", quote.Verified},
		"no alg":               {ccatest.Encode(map[int]int{}), map[int]int{}, "none in the protected headers", ""},
		"no protected headers": {nil, map[int]int{}, "", ""},
		"alg unprotected":      {ccatest.Encode(map[int]int{3: 0}), map[int]int{1: -35}, "in the unprotected headers", ""},
		"alg in both":          {good, map[int]int{1: -35}, "label 1 comes twice", ""},
		"alg zero":             {ccatest.Encode(map[int]int{1: 0}), map[int]int{}, "none in the protected headers", ""},
		"alg twice":            {[]byte{0xA2, 1, 0x38, 34, 1, 0x38, 34}, map[int]int{}, "label 1 comes twice", ""},
		"alg as text":          {ccatest.Encode(map[int]string{1: "ES384"}), map[int]int{}, "text, expected an integer", ""},
		"critical":             {ccatest.Encode(map[int]any{1: -35, 2: []int{99}, 99: 1}), map[int]int{}, "have to be understood", ""},
		"HMAC":                 {ccatest.Encode(map[int]int{1: 5}), map[int]int{}, "", quote.Failed},
		"EdDSA":                {ccatest.Encode(map[int]int{1: -8}), map[int]int{}, "", quote.Failed},
		"ES256":                {ccatest.Encode(map[int]int{1: -7}), map[int]int{}, "", quote.Failed},
		"PS384":                {ccatest.Encode(map[int]int{1: -38}), map[int]int{}, "", quote.Failed},
		"RS256":                {ccatest.Encode(map[int]int{1: -257}), map[int]int{}, "", quote.Failed},
		"a trailing byte":      {append(bytes.Clone(good), 0), map[int]int{}, "follow the protected headers", ""},
		"indefinite":           {[]byte{0xBF, 1, 0x38, 34, 0xFF}, map[int]int{}, "definite length", ""},
	} {
		t.Run(name, func(t *testing.T) {
			token := ccatest.New(rtmr.SHA256, nil)
			token.Message = func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
				return handSigned(payload, key.(*ecdsa.PrivateKey), c.protected, c.unprotected)
			}
			q, err := quote.Open(token.Sign(), quote.Options{CCAKey: token.PEM()})
			if (err != nil) != (c.link == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, expected %q", err, c.err)
			}
			if err != nil {
				return
			}
			for _, name := range []string{quote.Signature, quote.Chain} {
				if link, _ := q.Link(name); link.Status != c.link {
					t.Errorf("%+v", link)
				}
			}
		})
	}
}

// TestCCASecondOpinion: what ccatoken refuses is not trusted, such as a content type
// that is none, to which no heed is paid here.
func TestCCASecondOpinion(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil)
	token.Message = func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
		return handSigned(payload, key.(*ecdsa.PrivateKey), ccatest.Encode(map[int]int{1: -35, 3: -1}), map[int]int{})
	}
	q := open(t, token.Sign(), quote.Options{CCAKey: token.PEM()})
	if link, _ := q.Link(quote.Chain); link.Status != quote.Failed || !strings.HasPrefix(link.Text, "ccatoken refuses the token: ") || q.Trusted() {
		t.Errorf("%+v", link)
	}
	checkLines(t, q)
}

// TestCCAForged: each claim, binding, key and signature, changed by one who has not
// the keys, and by one who has the realm's.
func TestCCAForged(t *testing.T) {
	other := ccatest.Key(elliptic.P384(), "another")
	resign := func(edit func(token *ccatest.Token)) func() []byte {
		return func() []byte {
			token := ccatest.New(rtmr.SHA256, nil)
			edit(token)
			return token.Sign()
		}
	}
	keep := func(edit func(realm, platform ccatest.Claims)) func() []byte { // the signatures
		return func() []byte {
			signed, edited := ccatest.New(rtmr.SHA256, nil), ccatest.New(rtmr.SHA256, nil)
			edit(edited.Realm, edited.Platform)
			realm, platform := signed.Messages()
			return collection(399, withPayload(realm, ccatest.Encode(edited.Realm)), withPayload(platform, ccatest.Encode(edited.Platform)))
		}
	}
	changed := func(b any) []byte {
		return append(slices.Clone(b.([]byte)[:len(b.([]byte))-1]), b.([]byte)[len(b.([]byte))-1]^1)
	}
	for name, c := range map[string]struct {
		token func() []byte
		links string // that are not verified
	}{
		"nothing":         {resign(func(*ccatest.Token) {}), ""},
		"realm challenge": {keep(func(r, p ccatest.Claims) { r[10] = changed(r[10]) }), "signature=failed nonce=failed"},
		"RPV":             {keep(func(r, p ccatest.Claims) { r[44235] = changed(r[44235]) }), "signature=failed"},
		"RIM":             {keep(func(r, p ccatest.Claims) { r[44238] = changed(r[44238]) }), "signature=failed"},
		"REM":             {keep(func(r, p ccatest.Claims) { r[44239].([][]byte)[2] = bytes.Repeat([]byte{1}, 32) }), "signature=failed"},
		"REMs exchanged": {keep(func(r, p ccatest.Claims) {
			v := r[44239].([][]byte)
			v[0] = bytes.Repeat([]byte{2}, 32)
			v[0], v[3] = v[3], v[0]
		}), "signature=failed"},
		"realm profile":               {keep(func(r, p ccatest.Claims) { r[265] = "tag:arm.com,2024:realm#2.0.0" }), "signature=failed"},
		"realm profile left out":      {keep(func(r, p ccatest.Claims) { delete(r, 265) }), "signature=failed"},
		"key hash algorithm":          {keep(func(r, p ccatest.Claims) { r[44240] = "sha-512" }), "signature=failed binding=failed"},
		"realm key":                   {keep(func(r, p ccatest.Claims) { r[44237] = ccatest.COSEKey(&other.PublicKey) }), "signature=failed binding=failed"},
		"a claim added":               {keep(func(r, p ccatest.Claims) { r[99] = 1 }), "signature=failed"},
		"platform challenge":          {keep(func(r, p ccatest.Claims) { p[10] = changed(p[10]) }), "chain=failed binding=failed"},
		"implementation":              {keep(func(r, p ccatest.Claims) { p[2396] = changed(p[2396]) }), "chain=failed"},
		"instance":                    {keep(func(r, p ccatest.Claims) { p[256] = changed(p[256]) }), "chain=failed"},
		"config":                      {keep(func(r, p ccatest.Claims) { p[2401] = []byte{} }), "chain=failed"},
		"lifecycle":                   {keep(func(r, p ccatest.Claims) { p[2395] = 0x3004 }), "chain=failed"},
		"component":                   {keep(func(r, p ccatest.Claims) { p[2399] = p[2399].([]ccatest.Claims)[1:] }), "chain=failed"},
		"platform profile":            {keep(func(r, p ccatest.Claims) { p[265] = "http://arm.com/CCA-SSD/1.0.0" }), "chain=failed"},
		"verification service":        {keep(func(r, p ccatest.Claims) { delete(p, 2400) }), "chain=failed"},
		"platform hash algorithm":     {keep(func(r, p ccatest.Claims) { p[2402] = "sha-512" }), "chain=failed"},
		"another's platform token":    {swapped(t), "chain=failed binding=failed"},
		"a realm of another's making": {resign(func(k *ccatest.Token) { k.RAK = other; k.Realm[44237] = ccatest.COSEKey(&other.PublicKey) }), "binding=failed"},
		"and its platform":            {resign(func(k *ccatest.Token) { k.RAK, k.CPAK = other, other; k.SetKey(ccatest.COSEKey(&other.PublicKey)) }), "chain=failed"},
		"the realm's key of another":  {resign(func(k *ccatest.Token) { k.SetKey(ccatest.COSEKey(&other.PublicKey)) }), "signature=failed"},
		"a compressed key": {resign(func(k *ccatest.Token) {
			k.SetKey(ccatest.Encode(map[int]any{1: 2, -1: 2, -2: make([]byte, 48), -3: true}))
		}), "signature=failed"},
		"a key that may not verify":   {resign(func(k *ccatest.Token) { k.SetKey(keyWith(k, 4, []int{1})) }), "signature=failed"},
		"a key for another algorithm": {resign(func(k *ccatest.Token) { k.SetKey(keyWith(k, 3, -7)) }), "signature=failed"},
		"a key off the curve":         {resign(func(k *ccatest.Token) { k.SetKey(keyWith(k, -3, make([]byte, 48))) }), "signature=failed"},
		"a key of a short x":          {resign(func(k *ccatest.Token) { k.SetKey(keyWith(k, -2, make([]byte, 47))) }), "signature=failed"},
		"a key on a named curve":      {resign(func(k *ccatest.Token) { k.SetKey(keyWith(k, -1, "P-384")) }), "signature=failed"}, // go-cose panics at it
		"a symmetric key":             {resign(func(k *ccatest.Token) { k.SetKey(ccatest.Encode(map[int]any{1: 4, -1: make([]byte, 32)})) }), "signature=failed"},
		"an empty key":                {resign(func(k *ccatest.Token) { k.SetKey([]byte{}) }), "signature=failed"},
		"a point, by a profile":       {resign(func(k *ccatest.Token) { k.SetKey(ccatest.Point(k.RAK.Public().(*ecdsa.PublicKey))) }), "signature=failed"},
		"debug of realms":             {resign(func(k *ccatest.Token) { k.Platform[2395] = 0x4000 }), "policy=failed"},
		"debug of the root":           {resign(func(k *ccatest.Token) { k.Platform[2395] = 0x5001 }), "policy=failed"},
		"in the factory":              {resign(func(k *ccatest.Token) { k.Platform[2395] = 0x1000 }), "policy=failed"},
		"a lifecycle of 0":            {resign(func(k *ccatest.Token) { k.Platform[2395] = 0 }), "policy=failed"},
		"a lifecycle below secured":   {resign(func(k *ccatest.Token) { k.Platform[2395] = 0x2FFF }), "policy=failed"},
		"a lifecycle above secured":   {resign(func(k *ccatest.Token) { k.Platform[2395] = 0x3100 }), "policy=failed"},
		"no platform token":           {resign(func(k *ccatest.Token) { k.Platform = nil }), "chain=missing binding=missing"},
		"the challenge of another":    {resign(func(k *ccatest.Token) { k.Realm[10] = make([]byte, 64) }), "nonce=failed"},
		"zeros cut off a challenge":   {resign(func(k *ccatest.Token) { k.Realm[10] = append([]byte{0xCA, 0xFE}, bytes.Repeat([]byte{1}, 62)...) }), "nonce=failed"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, c.token(), quote.Options{CCAKey: ccatest.New(rtmr.SHA256, nil).PEM(), Nonce: []byte{0xCA, 0xFE}})
			var got []string
			for _, l := range q.Links {
				if l.Status != quote.Verified {
					got = append(got, l.Name+"="+string(l.Status))
				}
			}
			if strings.Join(got, " ") != c.links || q.Trusted() != (c.links == "") {
				t.Errorf("%q, expected %q: %v", got, c.links, q.Links)
			}
			checkLines(t, q)
		})
	}
}

// keyWith is the realm's COSE_Key with one label more, or another value of it.
func keyWith(token *ccatest.Token, label int, value any) []byte {
	key := map[int]any{}
	if err := cbor.Unmarshal(token.Realm[ccatest.PublicKey].([]byte), &key); err != nil {
		panic(err)
	}
	for k, v := range key { // labels of any integer type
		delete(key, k)
		key[k] = v
	}
	key[label] = value
	return ccatest.Encode(key)
}

// withPayload puts another payload into a COSE_Sign1.
func withPayload(message, payload []byte) []byte {
	var tag cbor.Tag
	if err := cbor.Unmarshal(message, &tag); err != nil {
		panic(err)
	}
	tag.Content.([]any)[2] = payload
	return ccatest.Encode(tag)
}

// swapped is a good realm token with the platform token of another machine's.
func swapped(t *testing.T) func() []byte {
	return func() []byte {
		mine, other := ccatest.New(rtmr.SHA256, nil), ccatest.New(rtmr.SHA256, nil)
		key := ccatest.Key(elliptic.P384(), "another")
		other.RAK, other.CPAK = key, key
		other.SetKey(ccatest.COSEKey(&key.PublicKey))
		realm, _ := mine.Messages()
		_, platform := other.Messages()
		return collection(399, realm, platform)
	}
}

// TestCCAFlipped: no bit of a token can be changed but those that say nothing.
func TestCCAFlipped(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil)
	good, opts := token.Sign(), quote.Options{CCAKey: token.PEM(), Nonce: []byte{0xCA, 0xFE}}
	want := open(t, good, opts)
	for i := range good {
		data := bytes.Clone(good)
		data[i] ^= 1 << (i % 8)
		q, err := quote.Open(data, opts)
		if err == nil && q.Trusted() && (!sameValues(q.Values, want.Values) || !slices.Equal(q.Facts, want.Facts)) {
			t.Errorf("byte %d: trusted, and says something else", i)
		}
		if _, err := quote.Open(good[:i], opts); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
}

// TestCCAMalformed: what is wrong is said, with its place.
func TestCCAMalformed(t *testing.T) {
	edited := func(edit func(token *ccatest.Token)) []byte {
		token := ccatest.New(rtmr.SHA256, nil)
		edit(token)
		return token.Sign()
	}
	realm, platform := ccatest.New(rtmr.SHA256, nil).Messages()
	payload := func(p []byte) []byte {
		token := ccatest.New(rtmr.SHA256, nil)
		return collection(399, ccatest.Sign1(p, token.RAK, token.RealmAlg), platform)
	}
	claims := ccatest.Encode(ccatest.New(rtmr.SHA256, nil).Realm)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"another tag":              {append([]byte{0xD9, 1, 0x90}, collection(399, realm, platform)[3:]...), "unsupported quote: "},
		"an array":                 {append([]byte{0xD9, 1, 0x8F}, ccatest.Encode([]int{1, 2, 3})...), "unsupported quote"},
		"no realm token":           {ccatest.Collection(399, map[uint64]any{ccatest.PlatformToken: platform}), "offset 3: the collection has no realm token (44241)"},
		"an empty collection":      {append([]byte{0xD9, 1, 0x8F, 0xA0}, 0), "no realm token"},
		"a byte behind":            {append(collection(399, realm, platform), 1), "1 bytes follow the token"},
		"a token twice":            {slices.Concat([]byte{0xD9, 1, 0x8F, 0xA2}, entry(ccatest.RealmToken, realm), entry(ccatest.RealmToken, realm)), "label 44241 comes twice"},
		"an indefinite collection": {slices.Concat([]byte{0xD9, 1, 0x8F, 0xBF}, entry(ccatest.RealmToken, realm), []byte{0xFF}), "begins 0xbf, expected a CBOR item of definite length"},
		"an indefinite realm token": {slices.Concat([]byte{0xD9, 1, 0x8F, 0xA1}, ccatest.Encode(ccatest.RealmToken), []byte{0x5F}, ccatest.Encode(realm), []byte{0xFF}),
			"offset 7: realm token: begins 0x5f"},
		"another content format":    {collection(907, []any{264, realm}, []any{263, platform}), "264, expected 263"},
		"another media type":        {collection(907, []any{"application/cwt", realm}, platform), `"application/cwt", expected application/eat+cwt`},
		"a record of one":           {collection(907, []any{263}, platform), "an array of 1 items"},
		"a token as text":           {collection(399, "x", platform), "text, expected"},
		"a token as a number":       {collection(399, 7, platform), "expected an array"},
		"COSE_Mac0":                 {collection(399, append([]byte{0xD1}, realm[1:]...), platform), "tag 17, expected 18"},
		"five items":                {collection(399, ccatest.Encode([]any{[]byte{}, map[int]int{}, []byte{}, []byte{}, 0}), platform), "an array of 5 items"},
		"a byte behind the realm's": {collection(399, append(bytes.Clone(realm), 0), platform), "1 bytes follow the realm token"},
		"no payload":                {collection(399, ccatest.Encode([]any{[]byte{0xA1, 1, 0x38, 34}, map[int]int{}, nil, []byte{}}), platform), "realm token's payload: a simple value, expected bytes"},
		"a byte behind the claims":  {payload(append(bytes.Clone(claims), 0)), "1 bytes follow the realm claims"},
		"claims in an array":        {payload(ccatest.Encode([]int{1})), "an array, expected a map"},
		"no claims":                 {payload([]byte{}), "the data end"},
		"a claim twice":             {payload(slices.Concat([]byte{claims[0] + 1}, claims[1:], []byte{10, 0x41, 0})), "label 10 comes twice"},
		"a claim twice, longer":     {payload(slices.Concat([]byte{claims[0] + 1}, claims[1:], []byte{0x18, 10, 0x41, 0})), "label 10 comes twice"},
		"a claim of a text label":   {payload(slices.Concat([]byte{claims[0] + 2}, claims[1:], []byte{0x61, 'x', 0, 0x61, 'x', 0})), `label "x" comes twice`},
		"indefinite claims":         {payload(slices.Concat([]byte{0xBF}, claims[1:], []byte{0xFF})), "definite length"},
		"no challenge":              {edited(func(k *ccatest.Token) { delete(k.Realm, 10) }), "realm claims: no cca-realm-challenge (10)"},
		"a short challenge":         {edited(func(k *ccatest.Token) { k.Realm[10] = make([]byte, 63) }), "cca-realm-challenge: 63 bytes, expected 64"},
		"challenges":                {edited(func(k *ccatest.Token) { k.Realm[10] = [][]byte{make([]byte, 64)} }), "cca-realm-challenge: an array, expected bytes"},
		"a short RPV":               {edited(func(k *ccatest.Token) { k.Realm[44235] = []byte{} }), "cca-realm-personalization-value: 0 bytes"},
		"no REMs":                   {edited(func(k *ccatest.Token) { delete(k.Realm, 44239) }), "no cca-realm-extensible-measurements (44239)"},
		"three REMs":                {edited(func(k *ccatest.Token) { k.Realm[44239] = k.Realm[44239].([][]byte)[1:] }), "cca-realm-extensible-measurements: 3, expected 4"},
		"five REMs":                 {edited(func(k *ccatest.Token) { k.Realm[44239] = append(k.Realm[44239].([][]byte), make([]byte, 32)) }), "5, expected 4"},
		"a REM of another size":     {edited(func(k *ccatest.Token) { k.Realm[44239].([][]byte)[3] = make([]byte, 64) }), "cca-realm-extensible-measurements 3: 64 bytes, expected 32 of sha-256"},
		"a RIM of another size":     {edited(func(k *ccatest.Token) { k.Realm[44238] = make([]byte, 48) }), "cca-realm-initial-measurement: 48 bytes, expected 32 of sha-256"},
		"a REM of no hash's size":   {edited(func(k *ccatest.Token) { k.Realm[44239].([][]byte)[0] = make([]byte, 20) }), "20 bytes, expected 32, 48 or 64"},
		"another hash":              {edited(func(k *ccatest.Token) { k.Realm[44236] = "sha-1" }), `cca-realm-hash-algo-id: "sha-1", expected sha-256, sha-384 or sha-512`},
		"a hash with a NUL":         {edited(func(k *ccatest.Token) { k.Realm[44236] = "sha-256\x00" }), "cca-realm-hash-algo-id: "},
		"another hash of the key":   {edited(func(k *ccatest.Token) { k.Realm[44240] = "sha256" }), `cca-realm-public-key-hash-algo-id: "sha256"`},
		"another realm profile":     {edited(func(k *ccatest.Token) { k.Realm[265] = "tag:arm.com,2030:realm#9" }), "unsupported quote"},
		"another platform profile":  {edited(func(k *ccatest.Token) { k.Platform[265] = "http://arm.com/psa/2.0.0" }), `cca-platform-profile "http://arm.com/psa/2.0.0"`},
		"no platform profile":       {edited(func(k *ccatest.Token) { delete(k.Platform, 265) }), "platform claims: no cca-platform-profile (265)"},
		"a short instance":          {edited(func(k *ccatest.Token) { k.Platform[256] = make([]byte, 32) }), "cca-platform-instance-id: 32 bytes, expected 33"},
		"an instance of another kind": {edited(func(k *ccatest.Token) { k.Platform[256] = make([]byte, 33) }),
			"cca-platform-instance-id: begins 00, expected 01"},
		"a wide lifecycle":       {edited(func(k *ccatest.Token) { k.Platform[2395] = 0x13000 }), "cca-platform-lifecycle: 77824, expected at most 65535"},
		"a negative lifecycle":   {edited(func(k *ccatest.Token) { k.Platform[2395] = -1 }), "a negative integer, expected an unsigned integer"},
		"no components":          {edited(func(k *ccatest.Token) { k.Platform[2399] = []int{} }), "an empty array"},
		"a component of text":    {edited(func(k *ccatest.Token) { k.Platform[2399] = []string{"BL"} }), "cca-platform-sw-components 0: text, expected a map"},
		"one without a hash":     {edited(func(k *ccatest.Token) { k.Platform[2399] = []ccatest.Claims{{5: make([]byte, 32)}} }), "no cca-platform-sw-components 0 measurement-value (2)"},
		"one without a signer":   {edited(func(k *ccatest.Token) { k.Platform[2399] = []ccatest.Claims{{2: make([]byte, 32)}} }), "signer-id (5)"},
		"a label beyond 32 bits": {payload(slices.Concat([]byte{claims[0] + 1}, claims[1:], []byte{0x1B, 1, 0, 0, 0, 0, 0, 0, 10, 0})), "an integer beyond 32 bits"},
		"nested deeply":          {payload(slices.Concat([]byte{claims[0] + 1, 1}, bytes.Repeat([]byte{0x81}, 40), []byte{0}, claims[1:])), "nested deeper than 16"},
		"a length beyond":        {append([]byte{0xD9, 1, 0x8F, 0xA1}, 0x19, 0xAC, 0xD1, 0x5B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF), "takes 18446744073709551615 bytes, and 0 are left"},
		"items beyond":           {append([]byte{0xD9, 1, 0x8F, 0xBB}, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF), "18446744073709551615 items in 0 bytes"},
		"bad text":               {payload(slices.Concat([]byte{claims[0] + 1, 1, 0x61, 0xFF}, claims[1:])), "no UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := quote.Open(c.data, quote.Options{})
			if err == nil {
				t.Fatalf("no error: %+v", q)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, expected %q", err, c.want)
			}
			readertest.CheckLine(t, err.Error(), 1<<10)
		})
	}
}

func entry(label int, token []byte) []byte {
	return append(ccatest.Encode(label), ccatest.Encode(token)...)
}

// TestCCAKeys: a platform attestation key in each form, alone and in sets.
func TestCCAKeys(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil)
	data, cpak := token.Sign(), token.CPAK.Public().(*ecdsa.PublicKey)
	other := &ccatest.Key(elliptic.P384(), "another").PublicKey
	instance, implementation := token.Platform[256].([]byte), token.Platform[2396].([]byte)
	wrong := append([]byte{1}, make([]byte, 32)...)
	anchor := func(key *ecdsa.PublicKey, instance, implementation []byte) map[string]any {
		return map[string]any{"pkey": jwkOf(key, ""), "instance-id": hex.EncodeToString(instance), "implementation-id": hex.EncodeToString(implementation)}
	}
	js := func(v any) []byte { return mustJSON(t, v) }
	keys := func(k ...any) []byte { return js(map[string]any{"keys": k}) }
	for name, c := range map[string]struct {
		keys []byte
		want quote.Status
	}{
		"PEM":                              {token.PEM(), quote.Verified},
		"DER":                              {ccatest.SPKI(cpak), quote.Verified},
		"JWK":                              {js(jwkOf(cpak, "")), quote.Verified},
		"PEM, many":                        {append(spkiPEM(other), token.PEM()...), quote.Verified},
		"a set":                            {keys(jwkOf(other, ""), jwkOf(cpak, "")), quote.Verified},
		"a set, by kid in hex":             {keys(jwkOf(other, "x"), jwkOf(cpak, hex.EncodeToString(instance))), quote.Verified},
		"a set, by kid in base64url":       {keys(jwkOf(other, "x"), jwkOf(cpak, base64.RawURLEncoding.EncodeToString(instance))), quote.Verified},
		"a set, of names":                  {keys(jwkOf(other, "x"), jwkOf(cpak, "y")), quote.Verified},
		"trust anchors":                    {js([]any{anchor(other, wrong, implementation), anchor(cpak, instance, implementation)}), quote.Verified},
		"none":                             {nil, quote.Missing},
		"another":                          {spkiPEM(other), quote.Failed},
		"a set of others":                  {keys(jwkOf(other, "x"), jwkOf(other, "")), quote.Failed},
		"another by the instance's kid":    {keys(jwkOf(other, hex.EncodeToString(instance)), jwkOf(cpak, "y")), quote.Failed},
		"another's anchor of the instance": {js([]any{anchor(other, instance, implementation)}), quote.Failed},
		"an anchor of another instance":    {js([]any{anchor(cpak, wrong, implementation)}), quote.Missing},
		"an anchor of another make":        {js([]any{anchor(cpak, instance, make([]byte, 32))}), quote.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, data, quote.Options{CCAKey: c.keys})
			if link, _ := q.Link(quote.Chain); link.Status != c.want || q.Trusted() != (c.want == quote.Verified) {
				t.Errorf("%+v", link)
			}
		})
	}
	// By the token's own kid.
	token.Message = func(payload []byte, key crypto.Signer, alg cose.Algorithm) []byte {
		return handSigned(payload, key.(*ecdsa.PrivateKey), ccatest.Encode(map[int]any{1: -35}), map[int]any{4: []byte("cpak-7")})
	}
	data = token.Sign()
	for id, want := range map[string]quote.Status{"cpak-7": quote.Verified, "cpak-8": quote.Failed} {
		q := open(t, data, quote.Options{CCAKey: keys(jwkOf(other, map[string]string{"cpak-7": "cpak-8", "cpak-8": "cpak-7"}[id]), jwkOf(cpak, id))})
		if link, _ := q.Link(quote.Chain); link.Status != want {
			t.Errorf("kid %s: %+v", id, link)
		}
	}
	for name, bad := range map[string][]byte{
		"junk": []byte("junk"), "an RSA key": ccatest.SPKI(ccatest.DeviceKey().Public()), "a certificate": certPEM(newAuthority(t, "x").cert.Raw), "an empty set": []byte(`{"keys":[]}`), "an empty list": []byte(`[]`),
		"a JWK of another type": []byte(`{"kty":"RSA"}`), "P-224": []byte(`{"kty":"EC","crv":"P-224"}`), "no base64url": []byte(`{"kty":"EC","crv":"P-384","x":"=","y":""}`),
		"short": []byte(`{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}`), "off the curve": js(map[string]string{"kty": "EC", "crv": "P-256", "x": base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "y": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}),
		"an anchor of none": js([]any{map[string]any{"pkey": jwkOf(cpak, "")}}), "an anchor with a misspelling": js([]any{map[string]any{"pkey": jwkOf(cpak, ""), "instance_id": hex.EncodeToString(wrong)}}),
		"an anchor without a key": js([]any{map[string]any{"instance-id": hex.EncodeToString(wrong)}}),
		"no JSON":                 []byte(`{`), "no hex": []byte(`[{"pkey":{},"instance-id":"x"}]`),
	} {
		if q, err := quote.Open(data, quote.Options{CCAKey: bad}); err == nil || !strings.Contains(err.Error(), "the platform attestation key given: ") {
			t.Errorf("%s: %v, %+v", name, err, q)
		}
	}
}

func spkiPEM(key crypto.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ccatest.SPKI(key)})
}

// jwkOf writes a key as RFC 7518 §6.2.1 has it.
func jwkOf(key *ecdsa.PublicKey, id string) map[string]string {
	point := ccatest.Point(key)
	size := len(point) / 2
	jwk := map[string]string{"kty": "EC", "crv": key.Params().Name,
		"x": base64.RawURLEncoding.EncodeToString(point[1:][:size]), "y": base64.RawURLEncoding.EncodeToString(point[1+size:])}
	if id != "" {
		jwk["kid"] = id
	}
	return jwk
}

// TestCCAOptions: what a token is not held against is refused.
func TestCCAOptions(t *testing.T) {
	token := ccatest.New(rtmr.SHA256, nil)
	for _, opts := range []quote.Options{
		{Hardware: []byte("x")}, {Key: []byte("x")}, {SNPRoots: []byte("x")}, {VirtCCARoots: []byte("x")}, {Collateral: os.DirFS(".")},
		{Nonce: make([]byte, 65)},
	} {
		if q, err := quote.Open(token.Sign(), opts); err == nil {
			t.Errorf("%+v: %+v", opts, q)
		}
	}
	report := make([]byte, quote.SNPReportSize)
	report[0], report[0x0A] = 2, 2
	if _, err := quote.Open(report, quote.Options{CCAKey: token.PEM()}); err == nil || !strings.Contains(err.Error(), "--cca-key was given, and an SEV-SNP report is not held against it") {
		t.Errorf("%v", err)
	}
}

// FuzzParseCCA: what is parsed is well-formed CBOR, and what ccatoken reads of it
// is what is read here; it panics at nothing of which it is asked.
func FuzzParseCCA(f *testing.F) {
	for _, token := range []*ccatest.Token{ccatest.New(rtmr.SHA256, nil), ccatest.New(rtmr.SHA512, nil).Legacy(), ccatest.New(rtmr.SHA384, nil).Version2()} {
		realm, platform := token.Messages()
		f.Add(token.Sign())
		f.Add(collection(907, []any{263, realm}, []any{263, platform}))
		f.Add(collection(399, cbor.RawMessage(realm), platform[1:]))
	}
	f.Add(ccatest.VirtCCA1(nil).Sign())
	if token, ok := corpusFile(f, "virtcca/vcca_token.cbor"); ok {
		f.Add(token)
	}
	token, _ := tfRMM(f)
	f.Add(token)
	strict := must(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 64}.DecMode())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := quote.ParseCCA(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 1<<10)
		}
		ev := &ccatoken.Evidence{}
		decoded := ev.UnmarshalCBOR(data)
		if err != nil {
			return
		}
		// What ccatoken is asked of here has a key that was read: go-cose panics at a
		// COSE_Key whose curve is no integer (v1.3.0-rc.1, Key.UnmarshalCBOR).
		if q, err := quote.Open(data, quote.Options{}); decoded == nil && err == nil && !strings.HasPrefix(q.Links[0].Text, "the realm token's key: ") {
			ev.Validate()
			ev.Verify(ccatest.New(rtmr.SHA256, nil).CPAK.Public())
		}
		// Well-formed, and no label twice; the tags that no claim has may say what they will.
		var whole, payload cbor.RawMessage
		rest, err := strict.UnmarshalFirst(data, &whole)
		if err != nil || len(bytes.Trim(rest, "\x00")) > 0 {
			t.Fatalf("parsed, and the CBOR is malformed: %v", err)
		}
		if err := strict.Unmarshal(p.Realm.Payload, &payload); err != nil {
			t.Fatalf("parsed, and the realm's claims are malformed: %v", err)
		}
		if payload[0]>>5 == 2 {
			var wrapped []byte
			if err := strict.Unmarshal(payload, &wrapped); err != nil {
				t.Fatal(err)
			}
			payload = wrapped
		}
		claims := map[any]cbor.RawMessage{}
		if err := strict.Unmarshal(payload, &claims); err != nil {
			t.Fatalf("parsed, and the realm's claims are malformed: %v", err)
		}
		if ev.RealmClaims != nil && !p.VirtCCA {
			sameAsCcatoken(t, p, ev)
		}
	})
}

// sameAsCcatoken holds what was parsed against what ccatoken read.
func sameAsCcatoken(t *testing.T, p *quote.CCAToken, ev *ccatoken.Evidence) {
	t.Helper()
	same := func(name string, got, want []byte, err error) {
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %x, ccatoken reads %x", name, got, want)
		}
	}
	rim, err := ev.RealmClaims.GetInitialMeasurement()
	same("RIM", p.Realm.RIM, rim, err)
	rems, err := ev.RealmClaims.GetExtensibleMeasurements()
	for i := range rems {
		same("REM", p.Realm.REM[i], rems[i], err)
	}
	challenge, err := ev.RealmClaims.GetChallenge()
	same("challenge", p.Realm.Challenge, challenge, err)
	if key := ev.RealmClaims.(*ccarealm.Claims).PublicKey; key != nil {
		same("key", p.Realm.PublicKey, *key, nil)
	}
	if p.Platform == nil {
		t.Fatal("no platform token, and ccatoken has one")
	}
	instance, err := ev.PlatformClaims.GetInstID()
	same("instance", p.Platform.InstanceID, instance, err)
	nonce, err := ev.PlatformClaims.GetNonce()
	same("platform challenge", p.Platform.Challenge, nonce, err)
	if lifecycle, err := ev.PlatformClaims.GetSecurityLifeCycle(); err == nil && lifecycle != p.Platform.Lifecycle {
		t.Errorf("lifecycle %#x, ccatoken reads %#x", p.Platform.Lifecycle, lifecycle)
	}
}

// FuzzCCAKeys: whatever is given as keys, a token is trusted by the one that signed
// it alone.
func FuzzCCAKeys(f *testing.F) {
	token := ccatest.New(rtmr.SHA256, nil)
	data, cpak := token.Sign(), token.CPAK.Public().(*ecdsa.PublicKey)
	f.Add(token.PEM())
	f.Add(ccatest.SPKI(cpak))
	f.Add(mustJSON(f, jwkOf(cpak, "x")))
	f.Add(mustJSON(f, map[string]any{"keys": []any{jwkOf(cpak, "")}}))
	f.Add(mustJSON(f, []any{map[string]any{"pkey": jwkOf(cpak, ""), "instance-id": hex.EncodeToString(token.Platform[256].([]byte))}}))
	point := ccatest.Point(cpak)[1:]
	f.Fuzz(func(t *testing.T, keys []byte) {
		q, err := quote.Open(data, quote.Options{CCAKey: keys})
		if err != nil {
			readertest.CheckLine(t, err.Error(), 1<<10)
			return
		}
		checkLines(t, q)
		if link, _ := q.Link(quote.Chain); link.Status == quote.Verified && !holdsPoint(keys, point) {
			t.Errorf("verified by %q", keys)
		}
	})
}

// holdsPoint reports whether a point's x stands in a file of keys, in any of the
// encodings that they have.
func holdsPoint(keys, point []byte) bool {
	x := point[:len(point)/2]
	if bytes.Contains(keys, x) || bytes.Contains(keys, []byte(base64.RawURLEncoding.EncodeToString(x))) {
		return true
	}
	for block, rest := pem.Decode(keys); block != nil; block, rest = pem.Decode(rest) {
		if bytes.Contains(block.Bytes, x) {
			return true
		}
	}
	return bytes.ContainsRune(keys, 0x5C) // escaped in JSON
}
