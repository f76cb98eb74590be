package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"
	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"tallystick/internal/snptest"
	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// signatureOf opens a token, and returns what came of its signature; "error" where it
// cannot be read.
func signatureOf(t testing.TB, token, key []byte) (quote.Status, string) {
	t.Helper()
	q, err := quote.OpenEAR(token, quote.Options{EARKey: key, Time: resultAt})
	if err != nil {
		return "error", err.Error()
	}
	l, _ := q.Link(quote.Signature)
	if q.Trusted() != (l.Status == quote.Verified) {
		t.Errorf("%v, and trusted is %t", l, q.Trusted())
	}
	return l.Status, l.Text
}

// No character of a token can be changed.
func TestEARForgedBytes(t *testing.T) {
	for name, s := range resultSigners() {
		token := s.sign(t, itaClaims(), object{"kid": "k1"})
		key := s.pem(t)
		for at := 0; at < len(token); at += 1 + len(token)/200 {
			for _, c := range []byte("A_.=") {
				if token[at] == c {
					continue
				}
				forged := bytes.Clone(token)
				forged[at] = c
				if status, text := signatureOf(t, forged, key); status == quote.Verified {
					t.Fatalf("%s: byte %d of %d is %q in place of %q, and the signature %s: %s", name, at, len(token), c, token[at], status, text)
				}
			}
		}
		last := bytes.LastIndexByte(token, '.') + 1
		for what, forged := range map[string][]byte{
			"no signature": token[:last], "half a signature": token[:(last+len(token))/2], "a longer signature": append(bytes.Clone(token), "AAAA"...),
			"another's signature": slices.Concat(token[:last], s.sign(t, maaClaims(), nil)[bytes.LastIndexByte(s.sign(t, maaClaims(), nil), '.')+1:]),
			"padding":             append(bytes.Clone(token), '='), "a line end inside": slices.Concat(token[:last], []byte("\n"), token[last:]),
		} {
			if status, text := signatureOf(t, forged, key); status == quote.Verified {
				t.Errorf("%s: %s: %s: %s", name, what, status, text)
			}
		}
	}
}

// rawToken joins a header, claims and a signature, as nothing that checks would.
func rawToken(header, payload, signature []byte) []byte {
	enc := base64.RawURLEncoding.EncodeToString
	return []byte(enc(header) + "." + enc(payload) + "." + enc(signature))
}

// The header is the sender's word: it chooses no key, and no algorithm that the key is not for.
func TestEARForgedHeader(t *testing.T) {
	ec, ps := resultSigners()["ES256"], resultSigners()["PS256"]
	claims := text(t, itaClaims())
	signed := func(s resultSigner, header object) []byte { return s.sign(t, claims, header) }
	hmacOf := func(secret []byte) []byte {
		header := []byte(`{"alg":"HS256"}`)
		mac := hmac.New(sha256.New, secret)
		mac.Write(rawToken(header, claims, nil)[:len(rawToken(header, claims, nil))-1])
		return rawToken(header, claims, mac.Sum(nil))
	}
	swapAlg := func(token []byte, header string) []byte {
		parts := bytes.Split(token, []byte("."))
		parts[0] = []byte(base64.RawURLEncoding.EncodeToString([]byte(header)))
		return bytes.Join(parts, []byte("."))
	}
	attacker := resultSigner{jwa.ES256(), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
	ownKey, err := jwk.Import(attacker.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	set := func(keys ...object) []byte { return text(t, object{"keys": keys}) }
	ecKey := func(more object) object { return ec.jwk(t, more) }
	otherKey := attacker.jwk(t, object{"kid": "other"})

	for _, c := range []struct {
		name       string
		token, key []byte
		status     quote.Status
		text       string
	}{
		{"no algorithm", rawToken([]byte(`{"alg":"none"}`), claims, nil), ec.pem(t), quote.Failed, "alg none: the token is not signed"},
		{"no algorithm, in other letters", rawToken([]byte(`{"alg":"nOnE"}`), claims, nil), ec.pem(t), quote.Failed, "not signed"},
		{"no algorithm named", rawToken([]byte(`{"typ":"JWT"}`), claims, nil), ec.pem(t), "error", "header.alg: missing"},
		{"an algorithm that is a number", rawToken([]byte(`{"alg":1}`), claims, nil), ec.pem(t), "error", `header.alg: "1", expected a string`},
		{"two algorithms", rawToken([]byte(`{"alg":"none","alg":"ES256"}`), claims, nil), ec.pem(t), "error", `"alg" comes twice`},
		{"the public key as a secret", hmacOf(ec.pem(t)), ec.pem(t), quote.Failed, "a secret that both sides know"},
		{"the public key's DER as a secret", hmacOf(ec.der(t)), ec.der(t), quote.Failed, "a secret that both sides know"},
		{"an algorithm that nobody knows", rawToken([]byte(`{"alg":"ES256K"}`), claims, make([]byte, 64)), ec.pem(t), quote.Failed, "cannot be verified here"},
		{"PSS called PKCS #1", swapAlg(signed(ps, nil), `{"alg":"RS256"}`), ps.pem(t), quote.Failed, "it does not verify"},
		{"another hash", swapAlg(signed(ps, nil), `{"alg":"PS384"}`), ps.pem(t), quote.Failed, "it does not verify"},
		{"RSA for an ECC key", signed(ps, nil), ec.pem(t), quote.Failed, "alg is \"PS256\", and the key is an ECC key on P-256"},
		{"ECC for an RSA key", signed(ec, nil), ps.pem(t), quote.Failed, "and the key is an RSA key"},
		{"another curve", signed(ec, nil), resultSigners()["ES384"].pem(t), quote.Failed, "and the key is an ECC key on P-384"},
		{"Ed25519 for an ECC key", signed(resultSigners()["EdDSA"], nil), ec.pem(t), quote.Failed, "alg is \"EdDSA\""},
		{"the key is for another algorithm", signed(ps, nil), text(t, ps.jwk(t, object{"alg": "PS384"})), quote.Failed, `the key is for "PS384"`},
		{"by another key", signed(attacker, nil), ec.pem(t), quote.Failed, "it does not verify"},
		{"by a key in the header", signed(attacker, object{"jwk": ownKey}), ec.pem(t), quote.Failed, "it does not verify"},
		{"by a certificate in the header", rawToken(text(t, object{"alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(attacker.certificate(t))}}), claims, make([]byte, 64)), ec.pem(t), quote.Failed, "it does not verify"},
		{"an extension that has to be understood", rawToken([]byte(`{"alg":"ES256","crit":["exp"],"exp":1}`), claims, make([]byte, 64)), ec.pem(t), quote.Failed, "crit"},
		{"a payload that is not encoded", rawToken([]byte(`{"alg":"ES256","b64":false}`), claims, make([]byte, 64)), ec.pem(t), quote.Failed, "b64"},

		{"a set, and the token's key in it", signed(ec, object{"kid": "k1"}), set(otherKey, ecKey(object{"kid": "k1"})), quote.Verified, "kid k1"},
		{"a set, and another's name", signed(ec, object{"kid": "other"}), set(otherKey, ecKey(object{"kid": "k1"})), quote.Failed, "it does not verify"},
		{"a set, and no such name", signed(ec, object{"kid": "k2"}), set(otherKey, ecKey(object{"kid": "k1"})), quote.Failed, `kid is "k2", which none of the 2 keys has`},
		{"a set, and no name", signed(ec, nil), set(otherKey, ecKey(object{"kid": "k1"})), quote.Failed, "the token names no key (kid), and 2 are given"},
		{"a set without names", signed(ec, object{"kid": "k1"}), set(attacker.jwk(t, nil), ecKey(nil)), quote.Failed, "which none of the 2 keys has"},
		{"a set without names, and no name", signed(ec, nil), set(ecKey(nil), attacker.jwk(t, nil)), quote.Failed, "the token names no key"},
		{"a set of one, and another name", signed(ec, object{"kid": "k2"}), set(ecKey(object{"kid": "k1"})), quote.Failed, `kid is "k2", the key's "k1"`},
		{"a set of one, and no name", signed(ec, nil), set(ecKey(object{"kid": "k1"})), quote.Verified, ""},
		{"one key, and another name", signed(ec, object{"kid": "k2"}), text(t, ecKey(object{"kid": "k1"})), quote.Failed, `kid is "k2", the key's "k1"`},
		{"a set's key for encryption", signed(ec, object{"kid": "k1"}), set(ecKey(object{"kid": "k1", "use": "enc"})), quote.Failed, `use: a key for "enc"`},
		{"a set's key for other operations", signed(ec, object{"kid": "k1"}), set(ecKey(object{"kid": "k1", "key_ops": []string{"encrypt"}})), quote.Failed, "not for verifying"},
		{"a set's secret", rawToken([]byte(`{"alg":"HS256","kid":"k1"}`), claims, make([]byte, 32)), set(object{"kty": "oct", "kid": "k1", "k": "AA"}), quote.Failed, "kty oct: a shared secret"},

		{"no key", signed(ec, nil), nil, quote.Missing, "--ear-key"},
	} {
		status, text := signatureOf(t, c.token, c.key)
		if status != c.status || !strings.Contains(text, c.text) {
			t.Errorf("%s: %s %q, expected %s %q", c.name, status, text, c.status, c.text)
		}
	}
}

// What is no key for it is an error, whatever the token.
func TestEARKeyMalformed(t *testing.T) {
	ec, other := resultSigners()["ES256"], resultSigners()["ES384"]
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	block := func(name string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der})
	}
	private := block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(ec.key)))
	jwkOf := func(more object) []byte { return text(t, ec.jwk(t, more)) }
	without := func(name string) []byte {
		members := ec.jwk(t, nil)
		delete(members, name)
		return text(t, members)
	}
	for _, c := range []struct {
		name  string
		key   []byte
		error string
	}{
		{"text", []byte("a key"), "expected a public key or certificate in PEM or DER, a JWK or a JWK set"},
		{"a private key", private, `PEM of type "PRIVATE KEY", expected PUBLIC KEY or CERTIFICATE`},
		{"PEM without an end", []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n"), "no block ends"},
		{"PEM of nothing", block("PUBLIC KEY", nil), "neither a public key nor a certificate"},
		{"DER of nothing", []byte{0x30, 0x00}, "neither a public key nor a certificate"},
		{"RSA too short", must(x509.MarshalPKIXPublicKey(&small.PublicKey)), "an RSA key of 1024 bits, expected 2048 to 8192"},
		{"P-224", must(x509.MarshalPKIXPublicKey(&must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).PublicKey)), "P-224"},
		{"JSON that ends", []byte(`{"kty":"EC"`), "the JSON ends early"},
		{"a member twice", []byte(`{"kty":"EC","kty":"EC"}`), `"kty" comes twice`},
		{"two keys in PEM", append(ec.pem(t), other.pem(t)...), "more than one block"},
		{"no kind", []byte(`{"kid":"k"}`), `kty "", expected EC, RSA or OKP`},
		{"a secret", []byte(`{"kty":"oct","k":"AA"}`), "kty oct: a shared secret"},
		{"another curve", jwkOf(object{"crv": "secp256k1"}), `crv "secp256k1", expected`},
		{"no x", without("x"), "x \"\", expected 32 bytes"},
		{"x too short", jwkOf(object{"x": "AAAA"}), `x "AAAA", expected 32 bytes in base64url`},
		{"no point", jwkOf(object{"x": strings.Repeat("A", 43)}), "no point on P-256"},
		{"another key's certificate", jwkOf(object{"x5c": []string{base64.StdEncoding.EncodeToString(other.certificate(t))}}), "the certificate is of another key"},
		{"a certificate that is none", jwkOf(object{"x5c": []string{"AAAA"}}), "x5c: "},
		{"a certificate in another encoding", jwkOf(object{"x5c": []string{"*"}}), "x5c: not base64"},
		{"x5c that is a number", jwkOf(object{"x5c": 1}), `x5c: "1", expected a string`},
		{"a kid that is a number", jwkOf(object{"kid": 1}), `kid: "1", expected a string`},
		{"RSA without n", []byte(`{"kty":"RSA","e":"AQAB"}`), "expected a modulus"},
		{"RSA of even exponent", []byte(`{"kty":"RSA","e":"AA","n":"AQAB"}`), "expected an exponent"},
		{"X25519", []byte(`{"kty":"OKP","crv":"X25519","x":"` + strings.Repeat("A", 43) + `"}`), `crv "X25519", expected Ed25519`},
		{"a set of nothing", []byte(`{"keys":[]}`), "it has no keys"},
		{"a set of numbers", []byte(`{"keys":[1]}`), `key 0: "1", expected an object`},
		{"a set with a name twice", text(t, object{"keys": []object{ec.jwk(t, object{"kid": "k"}), other.jwk(t, object{"kid": "k"})}}), `kid "k" comes twice`},
	} {
		if _, err := quote.OpenEAR(ec.sign(t, itaClaims(), nil), quote.Options{EARKey: c.key, Time: resultAt}); err == nil || !strings.Contains(err.Error(), c.error) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.error)
		}
	}
}

// What is no token.
func TestEARNoToken(t *testing.T) {
	for _, c := range []struct{ token, error string }{
		{"", "1 parts with dots between them, expected 3"},
		{"a.b", "2 parts"},
		{"a.b.c.d.e", "5 parts"},
		{"*.e30.AA", "header: not in base64url"},
		{"e30.*.AA", "payload: not in base64url"},
		{"e30.e30.*", "signature: not in base64url"},
		{"e30=.e30.AA", "header: not in base64url"},
		{"e31.e30.AA", "header: not in base64url"}, // with bits behind the last byte
		{"W10.e30.AA", "header: offset 2: expected a JSON object"},
		{`{"token":1}`, `without the string "token"`},
		{`{"tokens":"a"}`, `without the string "token"`},
		{`{"token":"a","token":"b"}`, `"token" comes twice`},
		{`{"token":"a.b"}`, "2 parts"},
	} {
		if _, err := quote.OpenEAR([]byte(c.token), quote.Options{}); err == nil || !strings.Contains(err.Error(), c.error) {
			t.Errorf("%q: %v, expected %q", c.token, err, c.error)
		}
	}
}

// A certificate's own time is told, and its key is trusted all the same.
func TestEARCertificateExpired(t *testing.T) {
	s := resultSigners()["ES256"]
	at := time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)
	claims := set(itaClaims(), at.Unix()+100, "exp")
	q, err := quote.OpenEAR(s.sign(t, claims, nil), quote.Options{EARKey: s.certificate(t), Time: at})
	if err != nil || !q.Trusted() || len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "valid from 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z, and not at 2028") {
		t.Errorf("%v, %v", err, q)
	}
}

// Who gives what results are not held against is told so.
func TestEAROptions(t *testing.T) {
	s := resultSigners()["ES256"]
	token := s.sign(t, itaClaims(), nil)
	for flag, opts := range map[string]quote.Options{
		"signature": {Signature: []byte{1}}, "key": {Key: []byte{1}}, "hcl": {HCL: []byte{1}}, "report": {Report: []byte{1}},
		"tdx-roots": {TDXRoots: []byte{1}}, "snp-roots": {SNPRoots: []byte{1}},
	} {
		if _, err := quote.OpenEAR(token, opts); err == nil || !strings.Contains(err.Error(), "--"+flag+" was given") {
			t.Errorf("--%s: %v", flag, err)
		}
	}
	if _, err := quote.Open([]byte(`{"sha256":{"pcr0":"`+digest("0", 32)+`"}}`), quote.Options{EARKey: s.pem(t)}); err == nil || !strings.Contains(err.Error(), "--ear-key was given") {
		t.Errorf("%v", err)
	}
	skipped, err := quote.OpenEAR(s.sign(t, itaClaims(), nil), quote.Options{SkipSignature: true, Time: resultAt})
	if l, _ := skipped.Link(quote.Signature); err != nil || !skipped.Trusted() || l.Status != quote.Skipped {
		t.Errorf("%v, %v", l, err)
	}
}

// cosResult is Intel Trust Authority's token with the registers of go-tdx-guest's quote.
func cosResult(t testing.TB) (td *quote.Quote, claims object) {
	t.Helper()
	data := testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel", "cos-113-tdx-quote.dat"))
	td, err := quote.Open(data, quote.Options{Time: realAt})
	if err != nil {
		t.Fatal(err)
	}
	claims = itaClaims()
	for r, value := range td.Values[rtmr.SHA384] {
		claims["tdx_"+r.String()] = value.String()
	}
	claims["tdx_report_data"] = fact(td, "REPORTDATA")
	return td, claims
}

// A result beside a quote stands or falls with it, and they have to agree.
func TestEARBeside(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(claims object)
		status  quote.Status
		text    string
		warning string
	}{
		{"the same", func(object) {}, quote.Verified, "sha384:mrtd, sha384:rtmr0..rtmr3", ""},
		{"a register less", func(c object) { delete(c, "tdx_rtmr3") }, quote.Verified, "sha384:rtmr0..rtmr2", ""},
		{"another RTMR2", func(c object) { c["tdx_rtmr2"] = digest("2", 48) }, quote.Failed, "sha384:rtmr2 is 2222", ""},
		{"another MRTD", func(c object) { c["tdx_mrtd"] = digest("a", 48) }, quote.Failed, "sha384:mrtd is aaaa", ""},
		{"no run-time register", func(c object) { delete(c, "tdx_rtmr0"); delete(c, "tdx_rtmr1"); delete(c, "tdx_rtmr2") }, quote.Missing, "sha384:mrtd, sha384:rtmr3, which every guest has that was launched so", ""},
	} {
		td, claims := cosResult(t)
		c.change(claims)
		result := mustResult(t, claims, quote.Options{})
		if err := td.Beside(result); err != nil {
			t.Fatal(err)
		}
		l, _ := td.Inside.Link(quote.Binding)
		if td.Inside != result || l.Status != c.status || !strings.Contains(l.Text, c.text) || td.Trusted() != (c.status == quote.Verified) {
			t.Errorf("%s: %v, trusted %t", c.name, l, td.Trusted())
		}
		if !strings.Contains(strings.Join(result.Warnings, ""), c.warning) || c.warning == "" && len(result.Warnings) > 0 {
			t.Errorf("%s: %q", c.name, result.Warnings)
		}
	}
	td, _ := cosResult(t)
	if err := td.Beside(mustResult(t, maaClaims(), quote.Options{})); err != nil {
		t.Fatal(err)
	}
	if l, _ := td.Inside.Link(quote.Binding); l.Status != quote.Missing || td.Trusted() {
		t.Errorf("another guest's: %v", l)
	}
	td, _ = cosResult(t)
	other, _ := cosResult(t)
	if err := td.Beside(other); err == nil || !strings.Contains(err.Error(), "expected an attestation result") {
		t.Errorf("%v", err)
	}
	// REPORTDATA tells two guests apart that measured the same, and ties a result without
	// run-time registers to its report.
	for data, want := range map[string]struct {
		registers bool
		status    quote.Status
		text      string
	}{
		digest("e", 32) + digest("0", 32): {false, quote.Verified, "sha384:launch, and is of the same report"},
		digest("f", 32) + digest("0", 32): {false, quote.Missing, "which every guest has that was launched so"},
		digest("0", 64):                   {false, quote.Missing, "which every guest has"},
	} {
		snp := snpQuoteOf(t, digest("c", 48), digest("e", 32)+digest("0", 32))
		result := mustResult(t, set(maaClaims(), data, "x-ms-isolation-tee", "x-ms-sevsnpvm-reportdata"), quote.Options{})
		if err := snp.Beside(result); err != nil {
			t.Fatal(err)
		}
		if l, _ := snp.Inside.Link(quote.Binding); l.Status != want.status || !strings.Contains(l.Text, want.text) {
			t.Errorf("REPORT_DATA %.8s..: %v", data, l)
		}
	}
	live := open(t, testdata.RawQuote, quote.Options{Time: realAt})
	claims := set(itaClaims(), digest("d", 64), "tdx_report_data")
	for r, value := range live.Values[rtmr.SHA384] {
		claims["tdx_"+r.String()] = value.String()
	}
	if err := live.Beside(mustResult(t, claims, quote.Options{})); err != nil {
		t.Fatal(err)
	}
	if l, _ := live.Inside.Link(quote.Binding); l.Status != quote.NotChecked || !strings.Contains(l.Text, "is of another report") || !live.Trusted() {
		t.Errorf("another report: %v, trusted %t", l, live.Trusted())
	}

	// A result that fails by itself takes the quote with it.
	td, claims = cosResult(t)
	if err := td.Beside(mustResult(t, set(claims, "Revoked", "attester_tcb_status"), quote.Options{})); err != nil || td.Trusted() {
		t.Errorf("%v, trusted %t", err, td.Trusted())
	}
}

// snpQuoteOf is a report of a made-up hardware maker.
func snpQuoteOf(t testing.TB, measurement, reportData string) *quote.Quote {
	t.Helper()
	amd := must(snptest.New())
	report := must(amd.Report(func(report []byte) {
		copy(report[0x50:], must(hex.DecodeString(reportData)))
		copy(report[0x90:], must(hex.DecodeString(measurement)))
	}))
	return open(t, report, quote.Options{Hardware: amd.Vcek.Raw, SNPRoots: amd.Roots(), Time: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)})
}

// A TPM's quote has a digest over its registers, and the result has their values.
func TestEARBesideTPM(t *testing.T) {
	key := software(t, ecc256)
	values := valuesOf(rtmr.SHA256)
	attest := key.attest(allOf(rtmr.SHA256), []byte("nonce"), values)
	registers := object{}
	for r, value := range values[rtmr.SHA256] {
		registers[r.String()] = value.String()
	}
	for _, c := range []struct {
		name   string
		change func(object)
		status quote.Status
	}{
		{"the same", func(object) {}, quote.Verified},
		{"another", func(r object) { r["pcr10"] = digest("f", 32) }, quote.Failed},
		{"one less", func(r object) { delete(r, "pcr10") }, quote.Missing},
	} {
		q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic()})
		stated := maps.Clone(registers)
		c.change(stated)
		if err := q.Beside(mustResult(t, set(ownClaims(), object{"sha256": stated}, "ear.tallystick.evidence", "registers"), quote.Options{})); err != nil {
			t.Fatal(err)
		}
		if l, _ := q.Inside.Link(quote.Binding); l.Status != c.status || q.Trusted() != (c.status == quote.Verified) {
			t.Errorf("%s: %v, trusted %t", c.name, l, q.Trusted())
		}
	}
}

// What is signed here, jwx verifies; with every kind of key, from every form of its file.
func TestSigningKey(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512", "PS256", "EdDSA"} {
		s := resultSigners()[alg]
		forms := map[string][]byte{"PKCS #8": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(s.key))})}
		switch key := s.key.(type) {
		case *ecdsa.PrivateKey:
			der := must(x509.MarshalECPrivateKey(key))
			forms["SEC 1"] = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
			forms["SEC 1, behind its parameters"] = append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), forms["SEC 1"]...)
		case *rsa.PrivateKey:
			forms["PKCS #1"] = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
		}
		private := must(jwk.Import(s.key))
		forms["JWK"] = must(json.Marshal(private))
		want := must(private.Thumbprint(crypto.SHA256)) // another implementation's of RFC 7638
		for form, file := range forms {
			key, err := quote.ParseSigningKey(file)
			if err != nil {
				t.Errorf("%s: %s: %v", alg, form, err)
				continue
			}
			token := must(key.Sign(text(t, itaClaims())))
			if _, err := jws.Verify(token, jws.WithKey(s.alg, s.key.Public())); err != nil {
				t.Errorf("%s: %s: %v", alg, form, err)
			}
			if status, text := signatureOf(t, token, s.pem(t)); status != quote.Verified {
				t.Errorf("%s: %s: %s %s", alg, form, status, text)
			}
			header := must(jws.Parse(token)).Signatures()[0].ProtectedHeaders()
			if kid, _ := header.KeyID(); kid != base64.RawURLEncoding.EncodeToString(want) {
				t.Errorf("%s: %s: kid %q, expected %x", alg, form, kid, want)
			}
		}
	}
}

func TestSigningKeyJWK(t *testing.T) {
	rsaKey, ec, ed := resultSigners()["PS256"].key, resultSigners()["ES256"].key, resultSigners()["EdDSA"].key
	with := func(key crypto.Signer, more object) []byte {
		members := object{}
		if err := json.Unmarshal(must(json.Marshal(must(jwk.Import(key)))), &members); err != nil {
			t.Fatal(err)
		}
		for name, value := range more {
			if members[name] = value; value == nil {
				delete(members, name)
			}
		}
		return text(t, members)
	}
	for alg, verify := range map[string]jwa.SignatureAlgorithm{"RS256": jwa.RS256(), "PS384": jwa.PS384(), "PS512": jwa.PS512()} {
		key, err := quote.ParseSigningKey(with(rsaKey, object{"alg": alg, "kid": "mine"}))
		if err != nil {
			t.Fatal(err)
		}
		token := must(key.Sign([]byte("{}")))
		if _, err := jws.Verify(token, jws.WithKey(verify, rsaKey.Public())); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		if kid, _ := must(jws.Parse(token)).Signatures()[0].ProtectedHeaders().KeyID(); kid != "mine" {
			t.Errorf("kid %q", kid)
		}
	}
	other := with(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), nil)
	var members object
	if err := json.Unmarshal(other, &members); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		file  []byte
		error string
	}{
		{"a public key", with(ec, object{"d": nil}), "the member d is missing"},
		{"an algorithm for other keys", with(ec, object{"alg": "PS256"}), `alg "PS256" is not for an ECC key on P-256`},
		{"no algorithm", with(ec, object{"alg": "none"}), "not signed"},
		{"a shared secret's algorithm", with(ec, object{"alg": "HS256"}), "a secret that both sides know"},
		{"another key's d", with(ec, object{"d": members["d"]}), "not that of the public one"},
		{"d too short", with(ec, object{"d": "AAAA"}), "d: not as long"},
		{"d zero", with(ec, object{"d": strings.Repeat("A", 43)}), "d: no private key on P-256"},
		{"Ed25519's d too short", with(ed, object{"d": "AAAA"}), "d: not 32 bytes"},
		{"another Ed25519 seed", with(ed, object{"d": strings.Repeat("A", 43)}), "not that of the public one"},
		{"RSA without p", with(rsaKey, object{"p": nil}), "p: not a number"},
		{"RSA of another p", with(rsaKey, object{"p": "AQAB"}), "they do not make a private key"},
		{"a set", []byte(`{"keys":[]}`), "a set, expected one private key"},
		{"no JSON", []byte(`{`), "the JSON ends early"},
		{"no key", []byte("key"), "neither PEM nor a JWK"},
		{"a public key in PEM", resultSigners()["ES256"].pem(t), `PEM of type "PUBLIC KEY", expected PRIVATE KEY`},
		{"an encrypted key", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0}}), "the private key is encrypted"},
		{"PEM that holds none", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0}}), "PEM: "},
		{"RSA too short", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(must(rsa.GenerateKey(rand.Reader, 1024))))}), "an RSA key of 1024 bits"},
	} {
		if _, err := quote.ParseSigningKey(c.file); err == nil || !strings.Contains(err.Error(), c.error) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.error)
		} else if secret, ok := members["d"].(string); ok && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error has the private key in it: %v", c.name, err)
		}
	}
}

// fuzzSigner signs for the fuzz targets; ed25519 is fast, and the same each time.
var fuzzSigner = resultSigner{jwa.EdDSA(), ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}

// FuzzEARClaims reads whatever a trusted verifier may sign. What is trusted has values
// of their banks' sizes, of one guest, and found good.
func FuzzEARClaims(f *testing.F) {
	for _, claims := range []object{itaClaims(), compositeClaims(), maaClaims(), trusteeClaims(), withEvidence(snpSubmod()), withEvidence(tpmSubmod()), withEvidence(realmSubmod()), ownClaims()} {
		f.Add(text(f, claims), []byte("nonce"))
	}
	key := fuzzSigner.pem(f)
	f.Fuzz(func(t *testing.T, payload, nonce []byte) {
		token, err := jws.Sign(payload, jws.WithKey(fuzzSigner.alg, fuzzSigner.key))
		if err != nil {
			return // nothing that could be signed
		}
		q, err := quote.OpenEAR(token, quote.Options{EARKey: key, Nonce: nonce, Time: resultAt})
		if err != nil {
			return
		}
		if err := q.Values.Validate(); err != nil || len(q.Values) == 0 {
			t.Errorf("%v: %v", q.Values, err)
		}
		if l, _ := q.Link(quote.Signature); l.Status != quote.Verified {
			t.Errorf("%v", l)
		}
		for _, l := range q.Links {
			if q.Trusted() && (l.Status == quote.Failed || l.Status == quote.Missing || l.Status == quote.Warned) {
				t.Errorf("trusted with %v", l)
			}
			if rtmr.Escape(l.Text) != l.Text && !strings.Contains(l.Text, `\`) {
				t.Errorf("%q is not fit for a terminal", l.Text)
			}
		}
		again, err := quote.OpenEAR(token, quote.Options{EARKey: key, Nonce: nonce, Time: resultAt})
		if err != nil || len(again.Links) != len(q.Links) || !slices.Equal(again.Links, q.Links) {
			t.Errorf("not the same again: %v, %v, %v", err, q.Links, again)
		}
	})
}

// FuzzEAR reads whatever comes as a token and a key. Nothing verifies that the key did not
// sign.
func FuzzEAR(f *testing.F) {
	signed := fuzzSigner.sign(f, itaClaims(), object{"kid": "k"})
	f.Add(signed, fuzzSigner.pem(f))
	f.Add(text(f, object{"token": string(signed)}), text(f, fuzzSigner.jwk(f, object{"kid": "k"})))
	f.Add(rawToken([]byte(`{"alg":"none"}`), text(f, maaClaims()), nil), fuzzSigner.der(f))
	f.Add(rawToken([]byte(`{"alg":"ES256","kid":"k"}`), text(f, trusteeClaims()), make([]byte, 64)), text(f, object{"keys": []object{fuzzSigner.jwk(f, object{"kid": "k"})}}))
	f.Add(signed, fuzzSigner.certificate(f))
	f.Fuzz(func(t *testing.T, token, key []byte) {
		q, err := quote.OpenEAR(token, quote.Options{EARKey: key, Time: resultAt})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q is not fit for a terminal", err)
			}
			return
		}
		if l, _ := q.Link(quote.Signature); l.Status == quote.Verified && !bytes.Equal(bytes.TrimSpace(token), signed) && !bytes.Contains(token, []byte("token")) {
			t.Errorf("%v", l)
		}
	})
}

// FuzzSigningKey reads whatever comes as a private key. What is one signs what verifies.
func FuzzSigningKey(f *testing.F) {
	for _, key := range []crypto.Signer{fuzzSigner.key, resultSigners()["ES256"].key} {
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
		f.Add(must(json.Marshal(must(jwk.Import(key)))))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		key, err := quote.ParseSigningKey(file)
		if err != nil {
			return
		}
		if _, err := key.Sign([]byte("{}")); err != nil {
			t.Errorf("%v", err)
		}
	})
}
