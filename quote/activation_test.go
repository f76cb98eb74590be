package quote_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"testing"

	legacy "github.com/google/go-tpm/legacy/tpm2"
	"github.com/google/go-tpm/legacy/tpm2/credactivation"
	"github.com/google/go-tpm/tpm2"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// ekPublic is an endorsement key's TPMT_PUBLIC, by the TCG's template for it.
func ekPublic(t testing.TB, template tpm2.TPMTPublic, public crypto.PublicKey) []byte {
	t.Helper()
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: public.(*rsa.PublicKey).N.Bytes()})
	return tpm2.Marshal(template)
}

// record makes a credential with go-tpm, which hands the seed out to nobody: it
// is decrypted with the endorsement key, as a TPM does.
func record(t testing.TB, ak *softwareKey, ek *rsa.PrivateKey) quote.Activation {
	t.Helper()
	return recordOf(t, ak, ek, tpm2.RSAEKTemplate, crypto.SHA256)
}

// recordOf is record for an endorsement key of another template.
func recordOf(t testing.TB, ak *softwareKey, ek *rsa.PrivateKey, template tpm2.TPMTPublic, hash crypto.Hash) quote.Activation {
	t.Helper()
	area := ekPublic(t, template, ek.Public())
	parsed, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		t.Fatal(err)
	}
	encapsulation, err := tpm2.ImportEncapsulationKey(parsed)
	if err != nil {
		t.Fatal(err)
	}
	akArea := ak.area()
	name, err := tpm2.ObjectName(&akArea)
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret of 24 bytes, no")
	credential, encrypted, err := tpm2.CreateCredential(rand.Reader, encapsulation, name.Buffer, secret)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := rsa.DecryptOAEP(hash.New(), nil, ek, encrypted, []byte("IDENTITY\x00"))
	if err != nil {
		t.Fatal(err)
	}
	return quote.Activation{EKPublic: area, AKPublic: ak.tpmtPublic(), AKName: name.Buffer,
		Credential: credential, EncryptedSecret: encrypted, Sent: secret, Returned: secret, Seed: seed}
}

// TestActivationOfUnrestrictedKey: a TPM activates a credential for a key that
// signs what its owner made up, whichever file tells what the key is.
func TestActivationOfUnrestrictedKey(t *testing.T) {
	ak, ek := software(t, ecc256), rsa2048().(*rsa.PrivateKey)
	ak.unrestricted = true
	root := newAuthority(t, "manufacturer")
	attest := ak.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	for form, key := range ak.forms(t) {
		q := open(t, attest, quote.Options{Signature: ak.sign(t, attest), Key: key, Activation: mustJSON(t, record(t, ak, ek)),
			EKCert: root.issue(t, ek.Public(), ekCertificate), EKRoots: root.pem(), Time: epoch})
		status(t, q, quote.Chain, quote.Failed, "lacks the attributes fixedTPM, restricted")
		if q.Trusted() {
			t.Errorf("trusted with its key as %s", form)
		}
	}
}

// TestActivation: a record that holds, and each way in which it does not.
func TestActivation(t *testing.T) {
	ak, ek := software(t, ecc256), rsa2048().(*rsa.PrivateKey)
	other := software(t, ecc384)
	attest := ak.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	root := newAuthority(t, "manufacturer")
	ekCert := root.issue(t, ek.Public(), ekCertificate)
	for name, test := range map[string]struct {
		change func(*quote.Activation, *quote.Options)
		status quote.Status
		word   string
	}{
		"holds":                      {func(a *quote.Activation, o *quote.Options) {}, quote.Verified, `leads to "CN=manufacturer"; an activation record ties the key to the endorsement key: its credential is what`},
		"key_as_PEM":                 {func(a *quote.Activation, o *quote.Options) { o.Key = ak.forms(t)["PEM"] }, quote.Verified, ""},
		"key_as_PEM_and_no_akPublic": {func(a *quote.Activation, o *quote.Options) { o.Key = ak.forms(t)["PEM"]; a.AKPublic = nil }, quote.Failed, "without the structure"},
		"no_akPublic":                {func(a *quote.Activation, o *quote.Options) { a.AKPublic = nil }, quote.Verified, ""},
		"no_akName":                  {func(a *quote.Activation, o *quote.Options) { a.AKName = nil }, quote.Verified, ""},
		"with_size": {func(a *quote.Activation, o *quote.Options) {
			a.Credential = append(binary.BigEndian.AppendUint16(nil, uint16(len(a.Credential))), a.Credential...)
		}, quote.Verified, ""},
		"no_seed":           {func(a *quote.Activation, o *quote.Options) { a.Seed = nil }, quote.Verified, "on the verifier's own word"},
		"no_ekPublic":       {func(a *quote.Activation, o *quote.Options) { a.EKPublic = nil }, quote.Verified, ""},
		"certificate_in_it": {func(a *quote.Activation, o *quote.Options) { a.EKCertificate, o.EKCert = o.EKCert, nil }, quote.Verified, ""},
		"no_certificate":    {func(a *quote.Activation, o *quote.Options) { o.EKCert = nil }, quote.Missing, "no certificate"},
		"no_roots":          {func(a *quote.Activation, o *quote.Options) { o.EKRoots = nil }, quote.Missing, "no roots"},
		"other_roots":       {func(a *quote.Activation, o *quote.Options) { o.EKRoots = newAuthority(t, "stranger").pem() }, quote.Failed, "unknown authority"},
		"no_EK_at_all":      {func(a *quote.Activation, o *quote.Options) { a.EKPublic, o.EKCert = nil, nil }, quote.Failed, "no endorsement key"},
		"another_EK": {func(a *quote.Activation, o *quote.Options) {
			o.EKCert = root.issue(t, ecc256().Public(), ekCertificate)
		}, quote.Failed, "another key than the EK certificate's"},
		"another_secret":     {func(a *quote.Activation, o *quote.Options) { a.Returned = flip(a.Returned, 0) }, quote.Failed, "not the one that was sent"},
		"another_AK":         {func(a *quote.Activation, o *quote.Options) { *a = record(t, other, ek) }, quote.Failed, "another key than the quote's"},
		"another_AK's_name":  {func(a *quote.Activation, o *quote.Options) { *a = record(t, other, ek); a.AKPublic = nil }, quote.Failed, "the quote's key has the name"},
		"name_not_the_key's": {func(a *quote.Activation, o *quote.Options) { a.AKName = flip(a.AKName, 9) }, quote.Failed, "akPublic has the name"},
		"another_seed":       {func(a *quote.Activation, o *quote.Options) { a.Seed = flip(a.Seed, 0) }, quote.Failed, "credential is not what"},
		"another_credential": {func(a *quote.Activation, o *quote.Options) { a.Credential = flip(a.Credential, 40) }, quote.Failed, "credential is not what"},
		"credential_of_another_AK": {func(a *quote.Activation, o *quote.Options) {
			b := record(t, other, ek)
			a.Credential, a.Seed = b.Credential, b.Seed
		}, quote.Failed, "credential is not what"},
		"nothing_sent": {func(a *quote.Activation, o *quote.Options) { a.Sent, a.Returned = nil, nil }, quote.Failed, `no field "sent"`},
	} {
		t.Run(name, func(t *testing.T) {
			a := record(t, ak, ek)
			opts := quote.Options{Signature: ak.sign(t, attest), Key: ak.tpmtPublic(), EKCert: ekCert, EKRoots: root.pem(), Time: epoch}
			test.change(&a, &opts)
			var err error
			if opts.Activation, err = json.Marshal(a); err != nil {
				t.Fatal(err)
			}
			q := open(t, attest, opts)
			status(t, q, quote.Chain, test.status, test.word)
		})
	}
}

// TestActivationTemplates: a credential is protected by the endorsement key's own
// hash and cipher, which its certificate does not say.
func TestActivationTemplates(t *testing.T) {
	ak, ek := software(t, ecc256), rsa2048().(*rsa.PrivateKey)
	attest := ak.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	root := newAuthority(t, "manufacturer")
	opts := quote.Options{Signature: ak.sign(t, attest), Key: ak.tpmtPublic(), EKCert: root.issue(t, ek.Public(), ekCertificate), EKRoots: root.pem(), Time: epoch}
	strong := tpm2.RSAEKTemplate
	strong.NameAlg = tpm2.TPMAlgSHA384
	strong.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048, Symmetric: tpm2.TPMTSymDefObject{
		Algorithm: tpm2.TPMAlgAES, KeyBits: tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)), Mode: tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB)}})
	a := recordOf(t, ak, ek, strong, crypto.SHA384)
	opts.Activation = mustJSON(t, a)
	status(t, open(t, attest, opts), quote.Chain, quote.Verified, "its credential is what")
	a.EKPublic = nil // taken for one of the low range
	opts.Activation = mustJSON(t, a)
	status(t, open(t, attest, opts), quote.Chain, quote.Failed, "credential is not what")

	a = record(t, ak, ek)
	a.EKPublic = software(t, rsa2048).tpmtPublic() // the same key as one that signs
	opts.Activation = mustJSON(t, a)
	status(t, open(t, attest, opts), quote.Chain, quote.Failed, "symmetric.algorithm: 0x0010, expected 0x0006")
}

// TestActivationOfACapture: the credential is made by go-tpm's older code, which
// is what go-attestation calls, for an endorsement key of one of the lab's TPMs.
// The certificate in that capture is of another key.
func TestActivationOfACapture(t *testing.T) {
	dir, ok := testlogs.Shared(t, "lab", "captures", "ng-small-6.1")
	if !ok {
		t.Skip("../shared/lab/captures is not here")
	}
	read := func(name string) []byte { return testlogs.Read(t, filepath.Join(dir, name)) }
	area, name := read("ek-rsa.tpmt_public.bin"), read("ak-ecc.name.bin")
	ek, err := legacy.DecodePublic(area)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ek.Key()
	if err != nil {
		t.Fatal(err)
	}
	credential, secret, err := credactivation.Generate(&legacy.HashValue{Alg: legacy.AlgSHA256, Value: name[2:]}, public, 16, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	// In go-attestation's own JSON, with what a verifier adds.
	activation, err := json.Marshal(map[string]any{
		"Credential": credential, "Secret": secret, "ekPublic": area, "akName": hex.EncodeToString(name),
		"sent": hex.EncodeToString([]byte("secret")), "returned": hex.EncodeToString([]byte("secret")),
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := quote.Options{Key: read("ak-ecc.tpmt_public.bin"), Signature: read("quote-ecc-sha256.tpmt_signature.bin"), Activation: activation}
	q := open(t, read("quote-ecc-sha256.tpms_attest.bin"), opts)
	status(t, q, quote.Chain, quote.Missing, "computed again; no certificate")
	opts.EKCert = read("ek-rsa-cert.der")
	q = open(t, read("quote-ecc-sha256.tpms_attest.bin"), opts)
	status(t, q, quote.Chain, quote.Failed, "another key than the EK certificate's")
}

// TestParseActivation: records that are none.
func TestParseActivation(t *testing.T) {
	for _, data := range []string{"", "[]", "{}", `{"credential":"!"}`, `{"credential":"AA==","secret":"AA==","sent":"00","returned":"00"}`, `{"sent":"0"}`, `{"akName":7}`} {
		if a, err := quote.ParseActivation([]byte(data)); err == nil || bytes.ContainsRune([]byte(err.Error()), '\n') {
			t.Errorf("%s: %v, %v", data, a, err)
		}
	}
}
