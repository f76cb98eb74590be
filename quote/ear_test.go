package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/veraison/ear"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// The tokens are signed by jwx, which is another implementation of JOSE than the
// one that reads them here.

// object is a JSON object.
type object = map[string]any

// resultSigner is a verifier of the test's own.
type resultSigner struct {
	alg jwa.SignatureAlgorithm
	key crypto.Signer
}

var resultSigners = sync.OnceValue(func() map[string]resultSigner {
	curve := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return k
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return map[string]resultSigner{
		"ES256": {jwa.ES256(), curve(elliptic.P256())}, "ES384": {jwa.ES384(), curve(elliptic.P384())}, "ES512": {jwa.ES512(), curve(elliptic.P521())},
		"RS256": {jwa.RS256(), rsaKey}, "RS384": {jwa.RS384(), rsaKey}, "RS512": {jwa.RS512(), rsaKey},
		"PS256": {jwa.PS256(), rsaKey}, "PS384": {jwa.PS384(), rsaKey}, "PS512": {jwa.PS512(), rsaKey},
		"EdDSA": {jwa.EdDSA(), edKey},
	}
})

// sign signs claims, with members of the header beside the algorithm.
func (s resultSigner) sign(t testing.TB, claims any, header object) []byte {
	t.Helper()
	payload, isText := claims.([]byte)
	if !isText {
		var err error
		if payload, err = json.Marshal(claims); err != nil {
			t.Fatal(err)
		}
	}
	protected := jws.NewHeaders()
	for name, value := range header {
		if err := protected.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(s.alg, s.key, jws.WithProtectedHeaders(protected)))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// pem is the public key as a file.
func (s resultSigner) pem(t testing.TB) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: s.der(t)})
}

func (s resultSigner) der(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// certificate is one of the key, valid in 2026.
func (s resultSigner) certificate(t testing.TB) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "verifier"},
		NotBefore: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// jwk is the public key's members, as jwx writes them, and others.
func (s resultSigner) jwk(t testing.TB, more object) object {
	t.Helper()
	key, err := jwk.Import(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	members := object{}
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	maps.Copy(members, more)
	return members
}

func text(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resultAt is when the tests' tokens are valid.
var resultAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// digest is a made-up register's value: n bytes of a letter.
func digest(letter string, n int) string { return strings.Repeat(letter+letter, n) }

// itaClaims are an Intel Trust Authority token's as its EAT profile and its clients' samples
// name them.
func itaClaims() object {
	return object{
		"iss": "Intel Trust Authority", "iat": resultAt.Unix() - 10, "nbf": resultAt.Unix() - 10, "exp": resultAt.Unix() + 300,
		"ver": "1.0.0", "eat_profile": "https://portal.trustauthority.intel.com/eat_profile.html", "intuse": "generic",
		"attester_type": "TDX", "attester_tcb_status": "UpToDate", "attester_tcb_date": "2024-03-13T00:00:00Z", "dbgstat": "disabled",
		"tdx_mrtd": digest("a", 48), "tdx_rtmr0": digest("0", 48), "tdx_rtmr1": digest("1", 48), "tdx_rtmr2": digest("2", 48), "tdx_rtmr3": digest("3", 48),
		"tdx_is_debuggable": false, "tdx_td_attributes": "0000001000000000", "tdx_td_attributes_debug": false, "tdx_seamsvn": 3,
		"tdx_report_data": digest("d", 64), "attester_held_data": base64.StdEncoding.EncodeToString([]byte("held data")),
		"verifier_nonce":       object{"val": base64.StdEncoding.EncodeToString([]byte("a nonce of Intel's")), "iat": "MjAyNg==", "signature": "AA=="},
		"policy_ids_unmatched": nil,
	}
}

// compositeClaims are the same in the form of version 2, where a TD's are nested.
func compositeClaims() object {
	claims, td := object{"ver": "2.0.0"}, object{}
	for name, value := range itaClaims() {
		switch {
		case strings.HasPrefix(name, "tdx_"), strings.HasPrefix(name, "attester_"), name == "dbgstat", name == "verifier_nonce":
			td[name] = value
		case name != "ver":
			claims[name] = value
		}
	}
	claims["tdx"] = td
	claims["nvgpu"] = object{"attester_type": "NVGPU", "x-nvidia-overall-att-result": true}
	return claims
}

// maaClaims are those of Azure's guest attestation of an SEV-SNP guest, as Microsoft's
// examples name them.
func maaClaims() object {
	return object{
		"iss": "https://sharedeus2.eus2.attest.azure.net", "iat": resultAt.Unix() - 10, "nbf": resultAt.Unix() - 10, "exp": resultAt.Unix() + 300,
		"secureboot": true, "x-ms-attestation-type": "azurevm", "x-ms-ver": "1.0", "x-ms-azurevm-attested-pcrs": []int{0, 1, 2},
		"x-ms-isolation-tee": object{
			"x-ms-attestation-type": "sevsnpvm", "x-ms-compliance-status": "azure-compliant-cvm",
			"x-ms-sevsnpvm-is-debuggable": false, "x-ms-sevsnpvm-migration-allowed": false, "x-ms-sevsnpvm-vmpl": 0, "x-ms-sevsnpvm-guestsvn": 8,
			"x-ms-sevsnpvm-launchmeasurement": digest("c", 48), "x-ms-sevsnpvm-reportdata": digest("e", 32) + digest("0", 32),
			"x-ms-runtime": object{"keys": []object{{"kid": "HCLAkPub", "kty": "RSA"}}, "user-data": hex.EncodeToString([]byte("user data")) + digest("0", 55)},
		},
		"x-ms-runtime": object{"client-payload": object{"nonce": base64.StdEncoding.EncodeToString([]byte("client's nonce"))}},
	}
}

// trusteeClaims are an EAR as Confidential Containers' Trustee writes it, of a TD.
func trusteeClaims() object {
	return object{
		"eat_profile": ear.EatTrusteeProfile, "iat": resultAt.Unix() - 10, "exp": resultAt.Unix() + 300, "iss": "CoCo-Attestation-Service",
		"ear.verifier-id": object{"developer": "https://confidentialcontainers.org", "build": "attestation-service 0.1.0"},
		"submods": object{"cpu0": object{
			"ear.status": "affirming", "ear.appraisal-policy-id": "default",
			"ear.trustworthiness-vector": object{"configuration": 2, "executables": 3, "hardware": 2},
			"ear.veraison.annotated-evidence": object{
				"init_data": digest("0", 48), "report_data": digest("d", 64),
				"runtime_data_claims": object{"nonce": base64.StdEncoding.EncodeToString([]byte("kbs nonce"))},
				"tdx": object{
					"quote": object{"header": object{"version": "0400"}, "body": object{
						"mr_td": digest("a", 48), "rtmr_0": digest("0", 48), "rtmr_1": digest("1", 48), "rtmr_2": digest("2", 48), "rtmr_3": digest("3", 48),
						"report_data": digest("d", 64), "td_attributes": "0000001000000000"}},
					"td_attributes": object{"debug": false}, "tcb_status": "UpToDate",
				},
			},
		}},
	}
}

// snpSubmod, tpmSubmod and realmSubmod are other TEEs' evidence in such a token.
func snpSubmod() object {
	return object{"snp": object{"measurement": digest("c", 48), "policy_debug_allowed": false, "policy_migrate_ma": false}, "report_data": digest("d", 64)}
}

func tpmSubmod() object {
	return object{"az-snp-vtpm": object{"measurement": digest("c", 48), "tpm": object{"pcr00": digest("4", 32), "pcr23": digest("5", 32)}}}
}

func realmSubmod() object {
	b64 := func(s string) string {
		b, _ := hex.DecodeString(s)
		return base64.StdEncoding.EncodeToString(b)
	}
	return object{"cca": object{"realm": object{
		"cca-realm-hash-algo-id": "sha-256", "cca-realm-initial-measurement": b64(digest("6", 32)),
		"cca-realm-extensible-measurements": []string{b64(digest("7", 32)), b64(digest("8", 32)), b64(digest("9", 32)), b64(digest("b", 32))},
		"cca-realm-challenge":               b64(digest("d", 64)),
	}}}
}

// withEvidence puts another TEE's evidence into Trustee's token.
func withEvidence(evidence object) object {
	claims := trusteeClaims()
	claims["submods"].(object)["cpu0"].(object)["ear.veraison.annotated-evidence"] = evidence
	return claims
}

// ownClaims are tally's.
func ownClaims() object {
	return object{
		"eat_profile": ear.EatProfile, "iat": resultAt.Unix() - 10, "ear.status": "affirming",
		"ear.verifier-id":         object{"developer": "tallystick", "build": "tally"},
		"submods":                 object{"hardware": object{"ear.status": "affirming"}},
		"ear.tallystick.evidence": object{"version": 1, "registers": object{"sha256": object{"pcr0": digest("4", 32), "pcr10": digest("5", 32)}}},
	}
}

// openResult opens claims that the verifier ES256 signed.
func openResult(t testing.TB, claims any, opts quote.Options) (*quote.Quote, error) {
	t.Helper()
	s := resultSigners()["ES256"]
	opts.EARKey = s.pem(t)
	if opts.Time.IsZero() {
		opts.Time = resultAt
	}
	return quote.OpenEAR(s.sign(t, claims, nil), opts)
}

func mustResult(t testing.TB, claims any, opts quote.Options) *quote.Quote {
	t.Helper()
	q, err := openResult(t, claims, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// set returns claims with one changed; nil deletes it. The path's parts are apart.
func set(claims object, value any, path ...string) object {
	at := claims
	for _, name := range path[:len(path)-1] {
		at = at[name].(object)
	}
	if last := path[len(path)-1]; value == nil {
		delete(at, last)
	} else {
		at[last] = value
	}
	return claims
}

func TestEAR(t *testing.T) {
	td := map[string]string{"sha384:mrtd": digest("a", 48), "sha384:rtmr0": digest("0", 48), "sha384:rtmr1": digest("1", 48), "sha384:rtmr2": digest("2", 48), "sha384:rtmr3": digest("3", 48)}
	launch := map[string]string{"sha384:launch": digest("c", 48)}
	for _, c := range []struct {
		name   string
		claims object
		values map[string]string
		from   string // the fact "registers"
		result string // in the link's text
	}{
		{"Intel Trust Authority", itaClaims(), td, "tdx_mrtd, tdx_rtmr0, tdx_rtmr1, tdx_rtmr2, tdx_rtmr3", `attester_tcb_status is "UpToDate"`},
		{"Intel Trust Authority, composite", compositeClaims(), td, "tdx: tdx_mrtd, tdx_rtmr0, tdx_rtmr1, tdx_rtmr2, tdx_rtmr3", `tdx.attester_tcb_status is "UpToDate"`},
		{"Azure Attestation, guest", maaClaims(), launch, "x-ms-isolation-tee: x-ms-sevsnpvm-launchmeasurement", `x-ms-isolation-tee.x-ms-compliance-status is "azure-compliant-cvm"`},
		{"Azure Attestation, TD", set(itaClaims(), "tdxvm", "x-ms-attestation-type"), td, "tdx_mrtd, tdx_rtmr0, tdx_rtmr1, tdx_rtmr2, tdx_rtmr3", `attester_tcb_status is "UpToDate"`},
		{"Trustee, TD", trusteeClaims(), td, "submods.cpu0.ear.veraison.annotated-evidence.tdx.quote.body: mr_td, rtmr_0, rtmr_1, rtmr_2, rtmr_3", "cpu0 is affirming (configuration 2, executables 3, hardware 2)"},
		{"Trustee, SEV-SNP", withEvidence(snpSubmod()), launch, "submods.cpu0.ear.veraison.annotated-evidence.snp: measurement", "cpu0 is affirming"},
		{"Trustee, Azure's vTPM", withEvidence(tpmSubmod()), map[string]string{"sha384:launch": digest("c", 48), "sha256:pcr0": digest("4", 32), "sha256:pcr23": digest("5", 32)},
			"submods.cpu0.ear.veraison.annotated-evidence.az-snp-vtpm.tpm: pcr00, pcr23; submods.cpu0.ear.veraison.annotated-evidence.az-snp-vtpm: measurement", "cpu0 is affirming"},
		{"Trustee, realm", withEvidence(realmSubmod()), map[string]string{"sha256:rim": digest("6", 32), "sha256:rem0": digest("7", 32), "sha256:rem1": digest("8", 32), "sha256:rem2": digest("9", 32), "sha256:rem3": digest("b", 32)},
			"submods.cpu0.ear.veraison.annotated-evidence.cca.realm: cca-realm-initial-measurement, cca-realm-extensible-measurements", "cpu0 is affirming"},
		{"Veraison, realm", withEvidence(realmSubmod()["cca"].(object)["realm"].(object)), map[string]string{"sha256:rim": digest("6", 32), "sha256:rem0": digest("7", 32), "sha256:rem1": digest("8", 32), "sha256:rem2": digest("9", 32), "sha256:rem3": digest("b", 32)},
			"submods.cpu0.ear.veraison.annotated-evidence: cca-realm-initial-measurement, cca-realm-extensible-measurements", "cpu0 is affirming"},
		{"tally", ownClaims(), map[string]string{"sha256:pcr0": digest("4", 32), "sha256:pcr10": digest("5", 32)}, "ear.tallystick.evidence.registers.sha256: pcr0, pcr10", "ear.status is affirming; hardware is affirming"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := mustResult(t, c.claims, quote.Options{})
			if !q.Trusted() || q.Kind != quote.EAR {
				t.Errorf("%s, trusted %t: %v", q.Kind, q.Trusted(), q.Links)
			}
			if got := flat(q.Values); !maps.Equal(got, c.values) {
				t.Errorf("values %v, expected %v", got, c.values)
			}
			if got := fact(q, "registers"); got != c.from {
				t.Errorf("registers are of %q, expected %q", got, c.from)
			}
			if l, _ := q.Link(quote.Result); !strings.Contains(l.Text, c.result) {
				t.Errorf("%q does not have %q", l.Text, c.result)
			}
		})
	}
}

// flat are values by "bank:register".
func flat(values rtmr.Values) map[string]string {
	out := map[string]string{}
	for alg, bank := range values {
		for r, value := range bank {
			out[rtmr.Selected{Alg: alg, Register: r}.String()] = value.String()
		}
	}
	return out
}

// The names of draft-ietf-rats-ear-03 have underscores.
func TestEARDraftNames(t *testing.T) {
	claims := text(t, trusteeClaims())
	for _, name := range []string{"ear.status", "ear.trustworthiness-vector", "ear.appraisal-policy-id", "ear.veraison.annotated-evidence", "ear.verifier-id"} {
		claims = bytes.ReplaceAll(claims, []byte(`"`+name+`"`), []byte(`"`+strings.NewReplacer(".", "_", "-", "_").Replace(name)+`"`))
	}
	claims = bytes.ReplaceAll(claims, []byte(ear.EatTrusteeProfile), []byte("tag:ietf.org,2026:rats/ear#03"))
	q := mustResult(t, claims, quote.Options{})
	if !q.Trusted() || len(q.Values[rtmr.SHA384]) != 5 || len(q.Warnings) > 0 {
		t.Errorf("%v, %v, %v", q.Links, q.Values, q.Warnings)
	}
}

// Every algorithm verifies, by the key in every form that it can be given in.
func TestEARKeys(t *testing.T) {
	for name, s := range resultSigners() {
		t.Run(name, func(t *testing.T) {
			der := s.certificate(t)
			onlyCert := object{"kty": s.jwk(t, nil)["kty"], "kid": "k1", "x5c": []string{base64.StdEncoding.EncodeToString(der)}}
			other := resultSigners()["ES512"].jwk(t, object{"kid": "other"})
			forms := map[string][]byte{
				"PEM": s.pem(t), "DER": s.der(t), "certificate, DER": der, "certificate, PEM": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
				"JWK": text(t, s.jwk(t, nil)), "JWK for this use": text(t, s.jwk(t, object{"kid": "k1", "use": "sig", "alg": name, "key_ops": []string{"verify"}})),
				"JWK set":                                text(t, object{"keys": []object{other, s.jwk(t, object{"kid": "k1"})}}),
				"JWK set of one without a name":          text(t, object{"keys": []object{s.jwk(t, nil)}}),
				"JWK set with a key not for this":        text(t, object{"keys": []object{s.jwk(t, object{"kid": "e", "use": "enc"}), {"kty": "oct", "kid": "s", "k": "AA"}, s.jwk(t, object{"kid": "k1"})}}),
				"JWK set with certificates":              text(t, object{"keys": []object{s.jwk(t, object{"kid": "k1", "x5c": []string{base64.StdEncoding.EncodeToString(der)}})}}),
				"JWK set with certificates, white space": append([]byte(" \n"), text(t, object{"keys": []object{s.jwk(t, object{"kid": "k1"})}})...),
			}
			if s.jwk(t, nil)["kty"] != "OKP" {
				forms["JWK set with certificates alone"] = text(t, object{"keys": []object{onlyCert}})
			}
			token := s.sign(t, itaClaims(), object{"kid": "k1", "typ": "JWT", "jku": "https://elsewhere.example/certs"})
			for form, key := range forms {
				q, err := quote.OpenEAR(token, quote.Options{EARKey: key, Time: resultAt})
				if err != nil {
					t.Errorf("%s: %v", form, err)
					continue
				}
				if l, _ := q.Link(quote.Signature); l.Status != quote.Verified || !q.Trusted() {
					t.Errorf("%s: %v", form, q.Links)
				}
			}
			// A service's answer has the token in JSON.
			answer := text(t, object{"token": string(token)})
			if q, err := quote.OpenEAR(append(answer, '\n'), quote.Options{EARKey: s.pem(t), Time: resultAt}); err != nil || !q.Trusted() {
				t.Errorf("a service's answer: %v", err)
			}
		})
	}
}

// earModule is where Veraison's library is in the module cache.
func earModule(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/veraison/ear").Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		t.Fatalf("github.com/veraison/ear is not in the module cache: %v", err)
	}
	return string(bytes.TrimSpace(out))
}

// What Veraison's library signs is read, by the key that it publishes for its tests;
// and what is signed here its library verifies.
func TestEARVeraison(t *testing.T) {
	data := filepath.Join(earModule(t), "arc", "data")
	private, err := jwk.ParseKey(testlogs.Read(t, filepath.Join(data, "skey.json")))
	if err != nil {
		t.Fatal(err)
	}
	evidence := withEvidence(snpSubmod())["submods"].(object)["cpu0"].(object)["ear.veraison.annotated-evidence"].(object)
	result := ear.NewAttestationResult("cpu", "build", "developer")
	result.Submods["cpu"].Status = ear.NewTrustTier(ear.TrustTierAffirming)
	result.Submods["cpu"].TrustVector.Hardware = ear.GenuineHardwareClaim
	result.Submods["cpu"].VeraisonAnnotatedEvidence = &evidence
	nonce := "c29tZSBub25jZQ"
	result.Nonce = &nonce
	token, err := result.Sign(jwa.ES256(), private)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.OpenEAR(token, quote.Options{EARKey: testlogs.Read(t, filepath.Join(data, "pkey.json")), Nonce: []byte("some nonce")})
	if err != nil {
		t.Fatal(err)
	}
	if !q.Trusted() || flat(q.Values)["sha384:launch"] != digest("c", 48) {
		t.Errorf("%v, %v", q.Links, q.Values)
	}
	if l, _ := q.Link(quote.Nonce); l.Status != quote.Verified {
		t.Errorf("%v", l)
	}

	key, err := quote.ParseSigningKey(testlogs.Read(t, filepath.Join(data, "skey.json")))
	if err != nil {
		t.Fatal(err)
	}
	own, err := key.Sign(testlogs.Read(t, filepath.Join(data, "ear-claims-tv-ok.json")))
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwk.ParseKey(testlogs.Read(t, filepath.Join(data, "pkey.json")))
	if err != nil {
		t.Fatal(err)
	}
	var again ear.AttestationResult
	if err := again.Verify(own, jwa.ES256(), public); err != nil {
		t.Fatal(err)
	}
	if again.Submods["test"].TrustVector.Executables != ear.ApprovedBootClaim {
		t.Errorf("%v", again.Submods["test"].TrustVector)
	}
	// The same token states no register.
	if _, err := quote.OpenEAR(own, quote.Options{EARKey: testlogs.Read(t, filepath.Join(data, "pkey.json"))}); err == nil || !strings.Contains(err.Error(), "no claim states a register's value") {
		t.Errorf("%v", err)
	}
}

// What the verifier found.
func TestEARResult(t *testing.T) {
	vector := func(claims object) object {
		return set(trusteeClaims(), claims, "submods", "cpu0", "ear.trustworthiness-vector")
	}
	status := func(v any) object {
		return set(vector(object{}), v, "submods", "cpu0", "ear.status")
	}
	for _, c := range []struct {
		name   string
		claims object
		status quote.Status
		text   string
		warn   string
	}{
		{"affirming, by number", status(2), quote.Verified, "cpu0 is affirming", ""},
		{"warning", status("warning"), quote.Warned, "cpu0 is warning", ""},
		{"contraindicated", status("contraindicated"), quote.Failed, "cpu0 is contraindicated", ""},
		{"none", status("none"), quote.Failed, "cpu0 is none", ""},
		{"none, by number", status(0), quote.Failed, "cpu0 is none", ""},
		{"affirming with a claim that warns", vector(object{"hardware": 32}), quote.Warned, "cpu0 is affirming, though a claim of it is warning (hardware 32)", ""},
		{"affirming with a claim that contraindicates", vector(object{"hardware": 2, "executables": 99}), quote.Failed, "though a claim of it is contraindicated (executables 99, hardware 2)", ""},
		{"affirming with a negative claim that contraindicates", vector(object{"executables": -100}), quote.Failed, "(executables -100)", ""},
		{"affirming with a claim of its own", vector(object{"own": 97}), quote.Failed, "(own 97)", ""},
		{"affirming with claims that say nothing", vector(object{"hardware": 0, "executables": 1, "configuration": -1}), quote.Verified, "cpu0 is affirming", ""},
		{"a claim by its tag", vector(object{"executables": "contraindicated_rt"}), quote.Failed, "(executables 96)", ""},
		{"a second submodule", set(trusteeClaims(), object{"ear.status": "contraindicated"}, "submods", "gpu0"), quote.Failed, "gpu0 is contraindicated", ""},
		{"the whole is worse", set(trusteeClaims(), "warning", "ear.status"), quote.Warned, "ear.status is warning", ""},
		{"a profile that nobody knows", set(trusteeClaims(), "tag:example.com,2026:own", "eat_profile"), quote.Verified, "cpu0 is affirming", "eat_profile is"},

		{"TCB with holes in software", set(itaClaims(), "SWHardeningNeeded", "attester_tcb_status"), quote.Verified, `"SWHardeningNeeded"`, `attester_tcb_status is "SWHardeningNeeded"`},
		{"TCB configuration", set(itaClaims(), "ConfigurationAndSWHardeningNeeded", "attester_tcb_status"), quote.Verified, `"ConfigurationAndSWHardeningNeeded"`, "attester_tcb_status is"},
		{"TCB out of date", set(itaClaims(), "OutOfDate", "attester_tcb_status"), quote.Warned, `"OutOfDate"`, ""},
		{"TCB out of date, configuration", set(itaClaims(), "OutOfDateConfigurationNeeded", "attester_tcb_status"), quote.Warned, `"OutOfDateConfigurationNeeded"`, ""},
		{"TCB relaunch", set(itaClaims(), "TDRelaunchAdvised", "attester_tcb_status"), quote.Warned, `"TDRelaunchAdvised"`, ""},
		{"TCB revoked", set(itaClaims(), "Revoked", "attester_tcb_status"), quote.Failed, `"Revoked"`, ""},
		{"TCB unknown", set(itaClaims(), "Fine", "attester_tcb_status"), quote.Failed, "none of Intel's TCB statuses", ""},
		{"TCB not said", set(itaClaims(), nil, "attester_tcb_status"), quote.Missing, "no claim says what the verifier found", ""},
		{"TCB nested, out of date", set(compositeClaims(), "OutOfDate", "tdx", "attester_tcb_status"), quote.Warned, `tdx.attester_tcb_status is "OutOfDate"`, ""},
		{"a policy that does not match", set(itaClaims(), []object{{"id": "p"}}, "policy_ids_unmatched"), quote.Warned, "policy_ids_unmatched: 1 of the policies", ""},

		{"compliant container", set(maaClaims(), "azure-compliant-uvm", "x-ms-isolation-tee", "x-ms-compliance-status"), quote.Verified, "azure-compliant-uvm", ""},
		{"not compliant", set(maaClaims(), "azure-noncompliant", "x-ms-isolation-tee", "x-ms-compliance-status"), quote.Failed, "expected azure-compliant-cvm", ""},
		{"compliance not said", set(maaClaims(), nil, "x-ms-isolation-tee", "x-ms-compliance-status"), quote.Missing, "no claim says", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := mustResult(t, c.claims, quote.Options{})
			l, _ := q.Link(quote.Result)
			if l.Status != c.status || !strings.Contains(l.Text, c.text) {
				t.Errorf("%s %q, expected %s %q", l.Status, l.Text, c.status, c.text)
			}
			if q.Trusted() != (c.status == quote.Verified) {
				t.Errorf("trusted: %t", q.Trusted())
			}
			if !strings.Contains(strings.Join(q.Warnings, "\n"), c.warn) || c.warn == "" && len(q.Warnings) > 0 {
				t.Errorf("warnings %q", q.Warnings)
			}
			accepting := mustResult(t, c.claims, quote.Options{EARAcceptWarning: true})
			if accepting.Trusted() != (c.status == quote.Verified || c.status == quote.Warned) {
				t.Errorf("accepting warnings, trusted: %t", accepting.Trusted())
			}
		})
	}
}

// What lets the host in is the guest's policy, and no verifier's word makes it good.
func TestEARPolicy(t *testing.T) {
	body := []string{"submods", "cpu0", "ear.veraison.annotated-evidence", "tdx", "quote", "body", "td_attributes"}
	debug := []string{"submods", "cpu0", "ear.veraison.annotated-evidence", "tdx", "td_attributes", "debug"}
	snp := func(name string, v any) object {
		evidence := snpSubmod()
		evidence["snp"].(object)[name] = v
		return withEvidence(evidence)
	}
	for _, c := range []struct {
		name   string
		claims object
		status quote.Status
		text   string
	}{
		{"Intel, closed", itaClaims(), quote.Verified, "tdx_is_debuggable is false, tdx_td_attributes_debug is false, tdx_td_attributes has no debug bit set"},
		{"Intel, debuggable", set(itaClaims(), true, "tdx_is_debuggable"), quote.Failed, "tdx_is_debuggable is true"},
		{"Intel, attribute", set(itaClaims(), true, "tdx_td_attributes_debug"), quote.Failed, "tdx_td_attributes_debug is true"},
		{"Intel, attributes", set(itaClaims(), "0100001000000000", "tdx_td_attributes"), quote.Failed, "tdx_td_attributes has debug bits set (0x01)"},
		{"Intel, dbgstat", set(itaClaims(), "enabled", "dbgstat"), quote.Failed, `dbgstat is "enabled"`},
		{"Intel, nested", set(compositeClaims(), true, "tdx", "tdx_is_debuggable"), quote.Failed, "tdx.tdx_is_debuggable is true"},
		{"Azure, debuggable", set(maaClaims(), true, "x-ms-isolation-tee", "x-ms-sevsnpvm-is-debuggable"), quote.Failed, "x-ms-sevsnpvm-is-debuggable is true"},
		{"Azure, migration", set(maaClaims(), true, "x-ms-isolation-tee", "x-ms-sevsnpvm-migration-allowed"), quote.Failed, "migration-allowed is true"},
		{"Trustee, attributes", set(trusteeClaims(), "0200000000000000", body...), quote.Failed, "td_attributes has debug bits set (0x02)"},
		{"Trustee, flag", set(trusteeClaims(), true, debug...), quote.Failed, "td_attributes.debug is true"},
		{"Trustee, SNP", snp("policy_debug_allowed", true), quote.Failed, "policy_debug_allowed is true"},
		{"Trustee, SNP, as older ones write it", snp("policy_debug_allowed", "1"), quote.Failed, "policy_debug_allowed is true"},
		{"Trustee, SNP migration", snp("policy_migrate_ma", 1), quote.Failed, "policy_migrate_ma is true"},
	} {
		q := mustResult(t, c.claims, quote.Options{EARAcceptWarning: true})
		if l, _ := q.Link(quote.Policy); l.Status != c.status || !strings.Contains(l.Text, c.text) || q.Trusted() != (c.status == quote.Verified) {
			t.Errorf("%s: %v, trusted %t", c.name, l, q.Trusted())
		}
	}
}

func TestEARNonce(t *testing.T) {
	nonce := []byte("sixteen byte nonce")
	b64 := base64.StdEncoding.EncodeToString(nonce)
	padded := hex.EncodeToString(nonce) + digest("0", 64-len(nonce))
	submod := []string{"submods", "cpu0"}
	evidence := append(slices.Clone(submod), "ear.veraison.annotated-evidence")
	in := func(claims object, v any, path ...string) object { return set(claims, v, path...) }
	for _, c := range []struct {
		name   string
		claims object
		where  string // in the link's text, "" if the nonce is nowhere
	}{
		{"nowhere in Intel's", itaClaims(), ""},
		{"nowhere in Azure's", maaClaims(), ""},
		{"nowhere in an EAR", trusteeClaims(), ""},
		{"no place for it", ownClaims(), ""},
		{"eat_nonce, as it is", in(ownClaims(), string(nonce), "eat_nonce"), "eat_nonce is the given nonce of 18 bytes, which the verifier echoes"},
		{"eat_nonce, base64", in(ownClaims(), b64, "eat_nonce"), "eat_nonce"},
		{"eat_nonce, base64url without padding", in(ownClaims(), strings.TrimRight(b64, "="), "eat_nonce"), "eat_nonce"},
		{"eat_nonce, hexadecimal", in(ownClaims(), hex.EncodeToString(nonce), "eat_nonce"), "eat_nonce"},
		{"eat_nonce, one of several", in(ownClaims(), []string{"another", b64}, "eat_nonce"), "eat_nonce"},
		{"eat_nonce, other case", in(ownClaims(), strings.ToUpper(string(nonce)), "eat_nonce"), ""},
		{"eat_nonce does not pad", in(ownClaims(), padded, "eat_nonce"), ""},
		{"tally's, of the hardware", in(ownClaims(), b64, "submods", "hardware", "eat_nonce"), "submods.hardware.eat_nonce is the given nonce of 18 bytes"},
		{"a submodule's", in(trusteeClaims(), b64, append(submod, "eat_nonce")...), "submods.cpu0.eat_nonce is the given nonce of 18 bytes"},
		{"Trustee's runtime data", in(trusteeClaims(), b64, append(evidence, "runtime_data_claims", "nonce")...), "runtime_data_claims.nonce"},
		{"Trustee's report data", in(trusteeClaims(), padded, append(evidence, "report_data")...), "annotated-evidence.report_data"},
		{"Trustee's quote", in(trusteeClaims(), padded, append(evidence, "tdx", "quote", "body", "report_data")...), "body.report_data"},
		{"Intel's report data", in(itaClaims(), padded, "tdx_report_data"), "tdx_report_data"},
		{"Intel's report data with more behind", in(itaClaims(), padded[:126]+"01", "tdx_report_data"), ""},
		{"Intel's held data", in(itaClaims(), b64, "attester_held_data"), "attester_held_data"},
		{"Intel's nonce", in(itaClaims(), b64, "verifier_nonce", "val"), "verifier_nonce.val is the given nonce of 18 bytes, which the verifier echoes"},
		{"Intel's runtime data", in(itaClaims(), object{"user-data": padded}, "attester_runtime_data"), "attester_runtime_data.user-data"},
		{"Intel's, nested", in(compositeClaims(), b64, "tdx", "attester_held_data"), "tdx.attester_held_data"},
		{"Azure's client payload", in(maaClaims(), b64, "x-ms-runtime", "client-payload", "nonce"), "x-ms-runtime.client-payload.nonce"},
		{"Azure's user data", in(maaClaims(), padded, "x-ms-isolation-tee", "x-ms-runtime", "user-data"), "x-ms-runtime.user-data"},
		{"Azure's report data", in(maaClaims(), padded, "x-ms-isolation-tee", "x-ms-sevsnpvm-reportdata"), "x-ms-sevsnpvm-reportdata"},
		{"in another submodule than the registers", set(trusteeClaims(), object{"ear.status": "affirming", "eat_nonce": b64}, "submods", "gpu0"), ""},
		{"in one of two submodules with registers", set(set(trusteeClaims(), b64, append(submod, "eat_nonce")...), object{"ear.status": "affirming", "ear.veraison.annotated-evidence": object{"tpm": object{"pcr00": digest("4", 32)}}}, "submods", "tpm0"), ""},
		{"in both", set(set(trusteeClaims(), b64, append(submod, "eat_nonce")...), object{"ear.status": "affirming", "eat_nonce": b64, "ear.veraison.annotated-evidence": object{"tpm": object{"pcr00": digest("4", 32)}}}, "submods", "tpm0"), "submods.cpu0.eat_nonce, submods.tpm0.eat_nonce is the given nonce"},
		{"Azure's echo", in(maaClaims(), b64, "nonce"), "which the verifier echoes"},
	} {
		want := map[bool]quote.Status{true: quote.Verified, false: quote.Failed}[c.where != ""]
		q := mustResult(t, c.claims, quote.Options{Nonce: nonce})
		if l, _ := q.Link(quote.Nonce); l.Status != want || !strings.Contains(l.Text, c.where) || q.Trusted() != (c.where != "") {
			t.Errorf("%s: %v, trusted %t", c.name, l, q.Trusted())
		}
		q = mustResult(t, c.claims, quote.Options{})
		if l, _ := q.Link(quote.Nonce); l.Status != quote.NotChecked || !q.Trusted() {
			t.Errorf("%s, not asked for: %v", c.name, l)
		}
	}
}

func TestEARValidity(t *testing.T) {
	for _, c := range []struct {
		name          string
		nbf, iat, exp any // seconds from now, or nil
		status        quote.Status
		text          string
	}{
		{"valid", -10, -10, 10, quote.Verified, "issued at 2026-06-01T11:59:50Z, valid until 2026-06-01T12:00:10Z"},
		{"without an end", nil, -10, nil, quote.NotChecked, "it does not say until when it holds"},
		{"without a beginning", nil, nil, 10, quote.Verified, "valid until"},
		{"expired", -10, -10, -1, quote.Failed, "expired at 2026-06-01T11:59:59Z"},
		{"expired now", -10, -10, 0, quote.Failed, "expired"},
		{"not yet valid", 61, -10, 100, quote.Failed, "not valid before"},
		{"clocks apart", 60, 60, 100, quote.Verified, "issued at"},
		{"issued later", nil, 61, 100, quote.Failed, "issued at 2026-06-01T12:01:01Z (iat), and that is after"},
		{"of no time", nil, nil, nil, quote.Missing, "nothing says of when the result is"},
		{"of no time but nbf", -10, nil, nil, quote.Missing, "nothing says of when the result is"},
	} {
		claims := itaClaims()
		for name, v := range map[string]any{"nbf": c.nbf, "iat": c.iat, "exp": c.exp} {
			if seconds, ok := v.(int); ok {
				set(claims, resultAt.Unix()+int64(seconds), name)
			} else {
				set(claims, nil, name)
			}
		}
		q := mustResult(t, claims, quote.Options{})
		if l, _ := q.Link(quote.Validity); l.Status != c.status || !strings.Contains(l.Text, c.text) || q.Trusted() != (c.status == quote.Verified || c.status == quote.NotChecked) {
			t.Errorf("%s: %v, trusted %t", c.name, l, q.Trusted())
		}
	}
	// A nonce bounds its age.
	q := mustResult(t, set(itaClaims(), nil, "exp"), quote.Options{Nonce: []byte("held data")})
	if l, _ := q.Link(quote.Validity); l.Status != quote.Verified || !strings.Contains(l.Text, "as new as the nonce") {
		t.Errorf("with a nonce: %v", l)
	}
}

// What cannot be is an error that names the claim.
func TestEARMalformed(t *testing.T) {
	evidence := []string{"submods", "cpu0", "ear.veraison.annotated-evidence"}
	realm := func(name string, v any) object {
		claims := realmSubmod()
		claims["cca"].(object)["realm"].(object)[name] = v
		return withEvidence(claims)
	}
	twice := func(claims object, name string) []byte {
		return bytes.Replace(text(t, claims), []byte("{"), fmt.Appendf(nil, "{%q:%q,", name, digest("f", 48)), 1)
	}
	both := itaClaims()
	maps.Copy(both, trusteeClaims())
	for _, c := range []struct {
		name   string
		claims any
		error  string
	}{
		{"a register too short", set(itaClaims(), digest("0", 47), "tdx_rtmr0"), "tdx_rtmr0: sha384:rtmr0 has 47 bytes, expected 48"},
		{"a register too long", set(itaClaims(), digest("0", 49), "tdx_mrtd"), "tdx_mrtd: sha384:mrtd has 49 bytes, expected 48"},
		{"a register of nothing", set(itaClaims(), "", "tdx_rtmr1"), "tdx_rtmr1: sha384:rtmr1 has 0 bytes"},
		{"a register in base64", set(itaClaims(), base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x5A}, 48)), "tdx_rtmr1"), "tdx_rtmr1: \"Wlpa"},
		{"a register that is a number", set(itaClaims(), 7, "tdx_rtmr1"), `tdx_rtmr1: "7", expected a string`},
		{"a register twice", twice(itaClaims(), "tdx_rtmr0"), `"tdx_rtmr0" comes twice`},
		{"a register twice, escaped", bytes.Replace(twice(itaClaims(), "tdx_rtmr0"), []byte("tdx_rtmr0"), []byte(`tdx_rtmr\u0030`), 1), `"tdx_rtmr0" comes twice`},
		{"a nested claim twice", bytes.Replace(text(t, compositeClaims()), []byte(`"tdx":{`), []byte(`"tdx":{"tdx_mrtd":"00",`), 1), `"tdx.tdx_mrtd" comes twice`},
		{"a submodule twice", bytes.Replace(text(t, trusteeClaims()), []byte(`"submods":{`), []byte(`"submods":{"cpu0":{},`), 1), `"submods.cpu0" comes twice`},
		{"two values of a register", set(compositeClaims(), digest("f", 48), "tdx_rtmr0"), "tdx.tdx_rtmr0: sha384:rtmr0 is 0000"},
		{"two guests, Azure", set(maaClaims(), digest("a", 48), "tdx_mrtd"), "claims of two guests: a TD (tdx_mrtd) and an SEV guest (x-ms-isolation-tee.x-ms-sevsnpvm-launchmeasurement)"},
		{"two guests, Trustee", set(trusteeClaims(), snpSubmod()["snp"], append(evidence, "snp")...), "claims of two guests: a TD"},
		{"two guests, submodules", set(trusteeClaims(), object{"ear.status": "affirming", "ear.veraison.annotated-evidence": realmSubmod()}, "submods", "cpu1"), "claims of two guests: a TD"},
		{"two TDs", set(trusteeClaims(), object{"ear.status": "affirming", "ear.veraison.annotated-evidence": object{"tdx": object{"quote": object{"body": object{"mr_td": digest("f", 48)}}}}}, "submods", "cpu1"), "sha384:mrtd is ffff"},
		{"two kinds of result", both, "claims of two kinds of result"},
		{"no register", set(ownClaims(), nil, "ear.tallystick.evidence"), "no claim states a register's value"},
		{"no such result", object{"iss": "https://confidentialcomputing.googleapis.com", "hwmodel": "GCP_INTEL_TDX", "iat": 1}, `no claim tells what it is`},
		{"no submodule's status", set(trusteeClaims(), object{"ear.appraisal-policy-id": "p"}, "submods", "gpu0"), "submods.gpu0.ear.status: missing"},
		{"a status that is none of them", set(trusteeClaims(), "fine", "submods", "cpu0", "ear.status"), `submods.cpu0.ear.status: "fine", expected none, affirming`},
		{"a status of another number", set(trusteeClaims(), 3, "submods", "cpu0", "ear.status"), `submods.cpu0.ear.status: "3", expected`},
		{"a status that is a truth value", set(trusteeClaims(), true, "submods", "cpu0", "ear.status"), `submods.cpu0.ear.status: true, expected`},
		{"a status between two", bytes.Replace(text(t, trusteeClaims()), []byte(`"affirming"`), []byte("2.9"), 1), `ear.status: "2.9", expected an integer`},
		{"a trust claim out of range", set(trusteeClaims(), object{"hardware": 128}, "submods", "cpu0", "ear.trustworthiness-vector"), "hardware: \"128\", expected a trustworthiness claim"},
		{"a trust claim that is a truth value", set(trusteeClaims(), object{"hardware": true}, "submods", "cpu0", "ear.trustworthiness-vector"), "hardware: true, expected an integer"},
		{"a vector that is a list", set(trusteeClaims(), []int{2}, "submods", "cpu0", "ear.trustworthiness-vector"), "ear.trustworthiness-vector: a list, expected an object"},
		{"submodules that are a list", set(ownClaims(), []int{2}, "submods"), "no claim tells what it is"},
		{"attributes too short", set(itaClaims(), "00", "tdx_td_attributes"), "tdx_td_attributes: has 1 bytes, expected 8"},
		{"a flag that is neither", set(itaClaims(), "maybe", "tdx_is_debuggable"), `tdx_is_debuggable: "maybe", expected true or false`},
		{"a time with a fraction", bytes.Replace(text(t, itaClaims()), []byte(`"exp":`), []byte(`"exp":1.5e9,"x":`), 1), `exp: "1.5e9", expected an integer`},
		{"a time beyond all", set(itaClaims(), int64(1)<<62, "exp"), "exp: 4611686018427387904, expected seconds"},
		{"a time before all", set(itaClaims(), -1, "nbf"), "nbf: -1, expected seconds"},
		{"a time that is text", set(itaClaims(), "2026", "iat"), `iat: "2026", expected an integer`},
		{"a realm's hash that nobody knows", realm("cca-realm-hash-algo-id", "md5"), `cca-realm-hash-algo-id: "md5", expected`},
		{"a realm's value of another size", realm("cca-realm-initial-measurement", "AAAA"), "cca-realm-initial-measurement: sha256:rim has 3 bytes, expected 32"},
		{"too many of a realm's values", realm("cca-realm-extensible-measurements", []string{b32, b32, b32, b32, b32}), "a list of 5, expected a list of 4"},
		{"too few of a realm's values", realm("cca-realm-extensible-measurements", []string{b32}), "a list of 1, expected a list of 4"},
		{"a realm's values that are no list", realm("cca-realm-extensible-measurements", b32), "expected a list of 4"},
		{"a bank that nobody knows", set(ownClaims(), object{"md5": object{}}, "ear.tallystick.evidence", "registers"), "registers.md5: expected a hash algorithm"},
		{"a register that nobody knows", set(ownClaims(), object{"sha256": object{"pcr24": b32}}, "ear.tallystick.evidence", "registers"), "sha256.pcr24: expected a register"},
		{"nested too deep", []byte(strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)), "nested more than 32 deep"},
		{"a list", []byte(`[1]`), "expected a JSON object"},
		{"more behind", append(text(t, itaClaims()), "{}"...), "more follows the JSON object"},
		{"an end too early", text(t, itaClaims())[:100], "payload: offset"},
		{"text with terminal controls", set(itaClaims(), "\x1b[2J", "tdx_mrtd"), `tdx_mrtd: "\x1b[2J", expected hexadecimal`},
	} {
		if _, err := openResult(t, c.claims, quote.Options{}); err == nil || !strings.Contains(err.Error(), c.error) {
			t.Errorf("%s: %v, expected %q", c.name, err, c.error)
		}
	}
}

var b32 = base64.StdEncoding.EncodeToString(make([]byte, 32))
