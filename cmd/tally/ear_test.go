package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/veraison/ear"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

func init() { scriptCommands["results"] = results }

// resultAt is when the scripts' results are valid.
var resultAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

type claims = map[string]any

// results lays out a TD's log and quote, go-tdx-guest's, and what made-up verifiers found
// of that TD, in the claims of real ones; and keys. The tokens are signed by jwx.
func results(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: results")
	}
	folder, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", testlogs.GoTDXGuest).Output()
	ts.Check(err)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(folder)), "testing", "testdata", "ccel", name))
		ts.Check(err)
		return data
	}
	td := read("cos-113-tdx-quote.dat")
	q, err := quote.Open(td, quote.Options{Time: resultAt})
	ts.Check(err)

	verifier, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	sign := func(c claims) []byte {
		payload, err := json.Marshal(c)
		ts.Check(err)
		headers := jws.NewHeaders()
		ts.Check(headers.Set("kid", "k1"))
		token, err := jws.Sign(payload, jws.WithKey(jwa.PS384(), verifier, jws.WithProtectedHeaders(headers)))
		ts.Check(err)
		return token
	}
	files := map[string][]byte{
		"ccel.bin": read("ccel_data.dat"), "td.bin": td,
		"verifier.pem": publicPEM(ts, verifier), "other.pem": publicPEM(ts, other), "verifier.jwks": keySet(ts, verifier, "k1"), "others.jwks": keySet(ts, other, "k2"),
		"sign.pem": privatePEM(ts, other),
		"ita.jwt":  sign(itaToken(q, nil)), "answer.json": []byte(`{"token":"` + string(sign(itaToken(q, nil))) + `"}`),
		"stale.jwt":    sign(itaToken(q, claims{"attester_tcb_status": "OutOfDate"})),
		"debug.jwt":    sign(itaToken(q, claims{"tdx_is_debuggable": true})),
		"another.jwt":  sign(itaToken(q, claims{"tdx_rtmr2": strings.Repeat("22", 48)})),
		"short.jwt":    sign(itaToken(q, claims{"tdx_rtmr2": "22"})),
		"azure.jwt":    sign(azureToken()),
		"google.jwt":   sign(claims{"iss": "https://confidentialcomputing.googleapis.com", "hwmodel": "GCP_INTEL_TDX", "iat": resultAt.Unix()}),
		"unsigned.jwt": []byte(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(string(sign(itaToken(q, nil))), ".")[1] + "."),
	}
	ts.Setenv("ZEROS", strings.Repeat("00", 48))
	for name, data := range files {
		ts.Check(os.WriteFile(ts.MkAbs(name), data, 0o666))
	}
}

// itaToken are Intel Trust Authority's claims of a TD, and others in their place.
func itaToken(q *quote.Quote, change claims) claims {
	c := claims{
		"iss": "Intel Trust Authority", "iat": resultAt.Unix() - 10, "exp": resultAt.Unix() + 300,
		"attester_type": "TDX", "attester_tcb_status": "UpToDate", "tdx_is_debuggable": false, "tdx_seamsvn": 3,
		"attester_held_data": base64.StdEncoding.EncodeToString([]byte("the auditor's nonce")),
	}
	for r, value := range q.Values[rtmr.SHA384] {
		c["tdx_"+r.String()] = value.String()
	}
	maps.Copy(c, change)
	return c
}

func azureToken() claims {
	return claims{
		"iss": "https://sharedeus2.eus2.attest.azure.net", "iat": resultAt.Unix() - 10, "exp": resultAt.Unix() + 300, "x-ms-attestation-type": "sevsnpvm",
		"x-ms-compliance-status": "azure-compliant-cvm", "x-ms-sevsnpvm-is-debuggable": false, "x-ms-sevsnpvm-launchmeasurement": strings.Repeat("cc", 48),
	}
}

func publicPEM(ts *testscript.TestScript, key crypto.Signer) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	ts.Check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func privatePEM(ts *testscript.TestScript, key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func keySet(ts *testscript.TestScript, key crypto.Signer, kid string) []byte {
	public, err := jwk.Import(key.Public())
	ts.Check(err)
	ts.Check(public.Set("kid", kid))
	set := jwk.NewSet()
	ts.Check(set.AddKey(public))
	text, err := json.Marshal(set)
	ts.Check(err)
	return text
}

// emitted is what --emit-ear wrote: as Veraison's library reads it, and its own claims.
type emitted struct {
	*ear.AttestationResult
	claims claims
}

// tiers are the submodules' statuses and claims in one line each: "kernel affirming",
// "firmware contraindicated executables=99".
func (e *emitted) tiers() (out []string) {
	for name, a := range e.Submods {
		text := name + " " + a.Status.String()
		vector := a.TrustVector.AsMap()
		for _, claim := range slices.Sorted(maps.Keys(vector)) {
			if value := vector[claim]; value != 0 {
				text += " " + claim + "=" + json.Number(must(json.Marshal(value))).String()
			}
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// emits runs reconcile with --emit-ear, and reads what it wrote by Veraison's library,
// which verifies it.
func emits(t *testing.T, dir string, args ...string) (e *emitted, report verdictReport, status int) {
	t.Helper()
	out := t.TempDir()
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	der := must(x509.MarshalECPrivateKey(key))
	keyFile, file := filepath.Join(out, "key.pem"), filepath.Join(out, "result.jwt")
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tally", append(args, "--emit-ear", file, "--sign-key", keyFile)...)
	cmd.Dir = dir
	printed, err := cmd.Output() // a status of 1 is an answer
	if jerr := json.Unmarshal(printed, &report); jerr != nil {
		t.Fatalf("%v: %v\n%s", err, jerr, printed)
	}
	status = cmd.ProcessState.ExitCode()
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	e = &emitted{AttestationResult: &ear.AttestationResult{}}
	if err := e.Verify(token, jwa.ES384(), key.Public()); err != nil {
		t.Fatal(err)
	}
	payload := must(jws.Verify(token, jws.WithKey(jwa.ES384(), key.Public())))
	if err := json.Unmarshal(payload, &e.claims); err != nil {
		t.Fatal(err)
	}
	if names := must(os.ReadDir(out)); len(names) != 2 {
		t.Errorf("%v is left behind", names)
	}
	return e, report, status
}

// The result says what the verdict says, layer by layer.
func TestEmitEAR(t *testing.T) {
	const at = "2026-11-24T00:00:00Z"
	tdx := filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel")
	fixture := must(filepath.Abs("../../fixtures/shim-grub-sb-6.12"))
	sha1 := must(filepath.Abs("../../fixtures/sha1-6.12"))
	tpm := []string{"reconcile", "--json", "--quote", "quote-ecc-sha256.tpms_attest.bin", "--signature", "quote-ecc-sha256.tpmt_signature.bin", "--key", "ak-ecc.tpmt_public.bin", "--values", "values.json"}
	td := []string{"reconcile", "--json", "--at", at, "--quote", "cos-113-tdx-quote.dat"}
	all := must(quote.Open(must(os.ReadFile(filepath.Join(tdx, "cos-113-tdx-quote.dat"))), quote.Options{Time: resultAt})).Values
	expect := func(change func(rtmr.Values)) string {
		values := rtmr.Values{}
		for r, value := range all[rtmr.SHA384] {
			values.Set(rtmr.SHA384, r, value)
		}
		change(values)
		file := filepath.Join(t.TempDir(), "expect.json")
		if err := os.WriteFile(file, must(json.Marshal(values)), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, c := range []struct {
		name, dir string
		args      []string
		verdict   string
		whole     string // the status of all
		tiers     []string
	}{
		{"a TD whose platform is not looked up", tdx, append(slices.Clone(td), "ccel_data.dat"), "reconciled", "warning",
			[]string{"firmware warning", "hardware warning runtime-opaque=2"}},
		{"what was expected", tdx, append(slices.Clone(td), "--expect", expect(func(rtmr.Values) {}), "ccel_data.dat"), "reconciled", "warning",
			[]string{"firmware warning executables=3", "hardware warning configuration=2 runtime-opaque=2"}},
		{"another MRTD expected", tdx, append(slices.Clone(td), "--mrtd", strings.Repeat("00", 48), "ccel_data.dat"), "diverged", "contraindicated",
			[]string{"firmware contraindicated", "hardware contraindicated configuration=96 runtime-opaque=2"}},
		{"another RTMR expected", tdx, append(slices.Clone(td), "--expect", expect(func(v rtmr.Values) { v.Set(rtmr.SHA384, rtmr.MustParse("rtmr1"), make(rtmr.Hex, 48)) }), "ccel_data.dat"), "diverged", "contraindicated",
			[]string{"firmware contraindicated executables=99", "hardware warning configuration=2 runtime-opaque=2"}},
		{"a field that has to be another", tdx, append(slices.Clone(td), "--require", "XFAM=00", "ccel_data.dat"), "untrusted", "contraindicated",
			[]string{"firmware none", "hardware contraindicated configuration=96 runtime-opaque=2"}},
		{"a nonce that is another", tdx, append(slices.Clone(td), "--nonce", "0011223344556677", "ccel_data.dat"), "untrusted", "contraindicated",
			[]string{"firmware none", "hardware contraindicated runtime-opaque=2"}},
		{"no log", tdx, td, "diverged", "contraindicated",
			[]string{"firmware contraindicated executables=99", "hardware warning runtime-opaque=2", "kernel contraindicated executables=99"}},
		{"a TPM's quote by a key that was given", fixture, append(slices.Clone(tpm), "boot.bin", "ima.bin"), "reconciled", "warning",
			[]string{"firmware warning executables=33", "hardware warning", "kernel warning"}},
		{"the same, strictly", fixture, append(slices.Clone(tpm), "--strict", "boot.bin", "ima.bin"), "diverged", "contraindicated",
			[]string{"firmware contraindicated executables=33", "hardware warning", "kernel contraindicated"}},
		{"another boot's list", fixture, append(slices.Clone(tpm), "boot.bin", "../sig-6.12/ima.bin"), "diverged", "contraindicated",
			[]string{"firmware warning executables=33", "hardware warning", "kernel contraindicated executables=99 file-system=99"}},
		{"a list that ran on", fixture, append(slices.Clone(tpm), "boot.bin", "ima.bin", "ima_sha256.bin"), "diverged", "contraindicated",
			[]string{"firmware contraindicated executables=33", "hardware warning", "kernel contraindicated executables=33 file-system=32"}},
		{"the bank sha1 alone", sha1, []string{"reconcile", "--json", "--at", "2026-12-01T00:00:00Z", "--quote", "quote-ecc-sha1.tpms_attest.bin", "--signature", "quote-ecc-sha1.tpmt_signature.bin",
			"--key", "ak-ecc.tpmt_public.bin", "--activation", "activation-ecc.json", "--ek-cert", "ek-rsa-cert.der", "--ek-roots", "ek-roots.pem", "boot.bin", "ima.bin"}, "reconciled", "warning",
			[]string{"firmware warning", "hardware affirming hardware=2", "kernel warning"}},
		{"values alone", fixture, []string{"reconcile", "--json", "--values", "values.json", "boot.bin", "ima.bin"}, "untrusted", "none",
			[]string{"firmware none", "hardware none", "kernel none"}},
		{"values alone, let pass", fixture, []string{"reconcile", "--json", "--insecure-skip-signature", "--values", "values.json", "boot.bin", "ima.bin"}, "reconciled", "none",
			[]string{"firmware none", "hardware none", "kernel none"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, report, status := emits(t, c.dir, c.args...)
			if report.Verdict != c.verdict || (status == 0) != (c.verdict == "reconciled") || status > 1 {
				t.Errorf("%s (%s), status %d", report.Verdict, report.Sentence, status)
			}
			if got := e.tiers(); !slices.Equal(got, c.tiers) || e.claims["ear.status"] != c.whole {
				t.Errorf("%s\n%q, expected %s\n%q", e.claims["ear.status"], got, c.whole, c.tiers)
			}
			own := e.claims[evidenceClaim].(claims)
			if _, has := own["registers"]; own["verdict"] != c.verdict || own["text"] != report.Sentence || has != (c.verdict != "untrusted") {
				t.Errorf("%v", own)
			}
			for i, l := range own["logs"].([]any) {
				args := c.args[len(c.args)-len(own["logs"].([]any)):] // the logs come last
				if sum := sha256.Sum256(must(os.ReadFile(filepath.Join(c.dir, args[i])))); l.(claims)["sha256"] != hex.EncodeToString(sum[:]) {
					t.Errorf("%v, expected the digest %x", l, sum)
				}
			}
		})
	}
}

// A TPM that its maker vouches for makes all that its PCRs explain affirming; and what
// was written is read back, to the same registers.
func TestEmitEARRoundTrip(t *testing.T) {
	machines := fixtureMachines(t)
	i := slices.IndexFunc(machines, func(m testlogs.Machine) bool { return m.Name == "fixtures/sig-6.12+ima.bin" })
	m := machines[i]
	j := slices.IndexFunc(m.Quotes, func(q testlogs.TPMQuote) bool { return q.Name == "quote-ecc-sha256" })
	data := must(testlogs.TPMBundle(m, m.Quotes[j]).Marshal())
	dir := files(t, map[string][]byte{"tpm.cmw": data, "activation.json": m.Quotes[j].Activation, "roots.pem": m.Quotes[j].EKRoots, "boot.bin": m.Logs[0].Data, "ima.bin": m.Logs[1].Data})
	nonce := hex.EncodeToString(m.Quotes[j].Nonce)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	write := func(name, typ string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("key.pem", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key)))
	write("public.pem", "PUBLIC KEY", must(x509.MarshalPKIXPublicKey(key.Public())))

	at := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC) // the TPM's certificate is valid, and a result of now is not of the future
	if now := time.Now().Add(time.Hour); now.After(at) {
		at = now
	}
	evidence := []string{"reconcile", "--json", "--kernel", "6.12.117+deb13-cloud-amd64", "--nonce", nonce, "--activation", "activation.json", "--ek-roots", "roots.pem", "--at", at.UTC().Format(time.RFC3339)}
	first, status := verdictIn(t, dir, append(evidence, "--emit-ear", "result.jwt", "--sign-key", "key.pem", "tpm.cmw")...)
	if first.Verdict != "reconciled" || status != 0 {
		t.Fatalf("%s (%s)", first.Verdict, first.Text)
	}
	e := &emitted{AttestationResult: &ear.AttestationResult{}}
	token := must(os.ReadFile(filepath.Join(dir, "result.jwt")))
	if err := e.Verify(token, jwa.ES256(), key.Public()); err != nil {
		t.Fatal(err)
	}
	if got := e.tiers(); !slices.Equal(got, []string{"firmware affirming", "hardware affirming hardware=2", "kernel affirming"}) {
		t.Errorf("%q", got)
	}
	if *e.Nonce != base64.RawURLEncoding.EncodeToString(m.Quotes[j].Nonce) {
		t.Errorf("eat_nonce %s", *e.Nonce)
	}

	second, status := verdictIn(t, dir, "reconcile", "--json", "--kernel", "6.12.117+deb13-cloud-amd64", "--nonce", nonce, "--ear", "result.jwt", "--ear-key", "public.pem", "boot.bin", "ima.bin")
	if second.Verdict != "reconciled" || status != 0 || second.Quote.Kind != "ear" || second.Quote.Nonce != "match" || second.Quote.Signature != "verified" {
		t.Errorf("%s (%s), %+v", second.Verdict, second.Text, second.Quote)
	}
	quotedBy := func(report reconcileJSON) (out []string) {
		for _, o := range report.Registers {
			out = append(out, o.Alg.String()+":"+o.Register.String()+" "+o.Quoted.String())
		}
		slices.Sort(out)
		return out
	}
	if a, b := quotedBy(first), quotedBy(second); !slices.Equal(a, b) {
		t.Errorf("%q\n%q", a, b)
	}
	if text := second.Quote.Links[3].Text; !strings.HasPrefix(text, "submods.hardware.eat_nonce is the given nonce") {
		t.Errorf("%s", text)
	}
	// Beside the evidence that it is of.
	third, status := verdictIn(t, dir, append(evidence, "--ear", "result.jwt", "--ear-key", "public.pem", "tpm.cmw")...)
	if in := third.Quote.Inside; third.Verdict != "reconciled" || status != 0 || in == nil || in.Kind != "ear" || in.Binding != "verified" {
		t.Errorf("%s (%s), %+v", third.Verdict, third.Text, third.Quote)
	}
	both, _, _ := emits(t, dir, append(evidence, "--ear", "result.jwt", "--ear-key", "public.pem", "tpm.cmw")...)
	of := both.claims[evidenceClaim].(claims)["quote"].(claims)
	bundle, result := sha256.Sum256(data), sha256.Sum256(token)
	if of["sha256"] != hex.EncodeToString(bundle[:]) || of["inside"].(claims)["sha256"] != hex.EncodeToString(result[:]) {
		t.Errorf("%v, expected the digests %x and %x", of, bundle, result)
	}
	if got := both.tiers(); !slices.Equal(got, []string{"firmware affirming", "hardware affirming hardware=2 sourced-data=2", "kernel affirming"}) {
		t.Errorf("%q", got)
	}
}
