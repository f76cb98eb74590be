package quote_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"

	attestpb "github.com/google/go-tpm-tools/proto/attest"
	"github.com/google/go-tpm/tpm2"
	"google.golang.org/protobuf/proto"

	"tallystick/internal/readertest"
	"tallystick/quote"
	"tallystick/rtmr"
)

// openFuzzed opens data that nobody vouches for. All text that comes of it is
// printable, in proportion to the input, and so is what was allocated.
func openFuzzed(t *testing.T, data []byte, opts quote.Options) (q *quote.Quote) {
	t.Helper()
	size := len(data) + len(opts.Signature) + len(opts.Key) + len(opts.EKCert) + len(opts.Activation)
	var err error
	used := readertest.Allocated(func() { q, err = quote.Open(data, opts) })
	if limit := uint64(8<<20 + 256*size); used > limit {
		t.Errorf("%d bytes allocated for %d", used, size)
	}
	if err != nil {
		readertest.CheckLine(t, err.Error(), size)
		return nil
	}
	for _, l := range q.Links {
		readertest.CheckLine(t, l.Text, size)
	}
	for _, f := range q.Facts {
		readertest.CheckLine(t, f.Name, size)
		readertest.CheckLine(t, f.Value, 16*size) // 24 registers of a bank stand in 8 bytes
	}
	for _, w := range q.Warnings {
		readertest.CheckLine(t, w, size)
	}
	return q
}

// FuzzTPMAttest: what we read as a quote go-tpm reads as the same one.
func FuzzTPMAttest(f *testing.F) {
	key := software(f, ecc256)
	values := valuesOf(rtmr.SHA1, rtmr.SHA256)
	for _, selection := range [][]bank{allOf(rtmr.SHA256), {{rtmr.SHA256, 4, []int{1}}, {rtmr.SHA1, 3, []int{0, 23}}}, nil} {
		attest := key.attest(selection, []byte("nonce"), values)
		f.Add(attest)
		f.Add(append([]byte{0, byte(len(attest))}, attest...))
	}
	f.Add([]byte{0xff, 'T', 'C', 'G', 0x80, 0x18})
	f.Fuzz(func(t *testing.T, data []byte) {
		q := openFuzzed(t, data, quote.Options{})
		if q == nil || q.Kind != quote.TPM || q.Logs != nil || data[0] == '{' || q.Values != nil {
			return
		}
		if q.Trusted() {
			t.Error("trusted without a signature")
		}
		if data[0] != 0xff {
			data = data[2:]
		}
		theirs, err := tpm2.Unmarshal[tpm2.TPMSAttest](data)
		if err != nil {
			return // another format
		}
		info, err := theirs.Attested.Quote()
		if err != nil {
			t.Fatal(err)
		}
		got := q.Composites[0]
		if !bytes.Equal(info.PCRDigest.Buffer, got.Digest.Sum) || hex.EncodeToString(theirs.ExtraData.Buffer) != fact(q, "extraData") {
			t.Errorf("go-tpm reads %+v", theirs)
		}
		var want []string
		for _, s := range info.PCRSelect.PCRSelections {
			for i := range 8 * len(s.PCRSelect) {
				if s.PCRSelect[i/8]&(1<<(i%8)) != 0 {
					register, _ := rtmr.PCR(i).Register()
					want = append(want, rtmr.Selected{Alg: rtmr.Alg(s.Hash), Register: register}.String())
				}
			}
		}
		if len(want) != len(got.Selection) {
			t.Fatalf("selects %v, go-tpm %v", got.Selection, want)
		}
		for i, s := range got.Selection {
			if s.String() != want[i] {
				t.Errorf("selects %v, go-tpm %v", got.Selection, want)
			}
		}
	})
}

// FuzzTPMSignature: none but the signature verifies. An RSASSA signature has one form.
func FuzzTPMSignature(f *testing.F) {
	key := software(f, rsa2048)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	plain := key.plain(f, attest)
	f.Add(key.sign(f, attest))
	f.Add(plain)
	ec := software(f, ecc256)
	f.Add(ec.sign(f, attest))
	f.Add(ec.plain(f, attest))
	public := key.tpmtPublic()
	f.Fuzz(func(t *testing.T, data []byte) {
		q := openFuzzed(t, attest, quote.Options{Signature: data, Key: public})
		if q == nil {
			return
		}
		if l, _ := q.Link(quote.Signature); l.Status == quote.Verified && !bytes.Contains(data, plain) {
			t.Errorf("%x verifies", data)
		}
	})
}

// FuzzTPMKey: a key in the TPM's structure has the name that is its hash, and a
// key in PEM or DER is one that crypto/x509 reads.
func FuzzTPMKey(f *testing.F) {
	key := software(f, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	signature := key.sign(f, attest)
	for _, form := range key.forms(f) {
		f.Add(form)
	}
	f.Add(software(f, rsa2048).tpmtPublic())
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCEKTemplate))
	f.Fuzz(func(t *testing.T, data []byte) {
		q := openFuzzed(t, attest, quote.Options{Signature: signature, Key: data})
		if q == nil {
			return
		}
		name := fact(q, "keyName")
		if len(name) == 4+64 && name[:4] == "000b" {
			whole, inner := sha256.Sum256(data), sha256.Sum256(data[2:])
			if name[4:] != hex.EncodeToString(whole[:]) && name[4:] != hex.EncodeToString(inner[:]) {
				t.Errorf("the name %s is no hash of %x", name, data)
			}
		}
	})
}

// FuzzGoAttestation: a bundle that vouches for itself is never trusted.
func FuzzGoAttestation(f *testing.F) {
	b := newBundle(f)
	f.Add(mustJSON(f, b.goAttestation(f)))
	dump := map[string]any{"Static": map[string]any{"TPMVersion": 2}, "AK": map[string]any{"Public": b.key.tpmtPublic()},
		"Quote": map[string]any{"Quote": b.attests[0], "Signature": b.key.sign(f, b.attests[0])}, "Log": map[string]any{"Raw": []byte("log")}}
	f.Add(mustJSON(f, dump))
	f.Add([]byte(`{"Public":"","Quotes":[{}],"PCRs":[{"Index":24,"DigestAlg":5}]}`))
	fuzzBundle(f)
}

// FuzzGoTPMTools: likewise, in binary, text and JSON.
func FuzzGoTPMTools(f *testing.F) {
	b := newBundle(f)
	for name, data := range b.forms(f) {
		if name != "go-attestation" {
			f.Add(data)
		}
	}
	cert := newAuthority(f, "root").issue(f, b.key.signer.Public(), akCertificate)
	data, err := proto.Marshal(&attestpb.Attestation{AkPub: b.key.tpmtPublic(), AkCert: cert, Quotes: b.goTPMTools(f).Quotes[:1]})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`quotes: {}`))
	a := &attestpb.Attestation{AkPub: b.key.tpmtPublic(), Quotes: b.goTPMTools(f).Quotes[:1]}
	for _, tee := range []func(){
		func() { a.TeeAttestation = &attestpb.Attestation_TdxAttestation{TdxAttestation: tdxQuote(f)} },
		func() { a.TeeAttestation = &attestpb.Attestation_TdxAttestation{} },
		func() { a.TeeAttestation = &attestpb.Attestation_SevSnpAttestation{SevSnpAttestation: snpReport(f)} },
		func() { a.TeeAttestation = &attestpb.Attestation_SevSnpAttestation{} },
	} {
		tee()
		if data, err = proto.Marshal(a); err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	fuzzBundle(f)
}

func fuzzBundle(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		q := openFuzzed(t, data, quote.Options{})
		if q == nil || q.Kind != quote.TPM && q.Kind != quote.SoftTPM {
			return
		}
		if q.Trusted() {
			t.Error("trusted on its own word")
		}
		logs := 0
		for _, l := range q.Logs {
			logs += len(l.Data)
		}
		if logs > len(data) {
			t.Errorf("logs of %d bytes in %d", logs, len(data))
		}
		if err := q.Values.Validate(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzActivation: a record ties the key only if what was sent came back.
func FuzzActivation(f *testing.F) {
	ak := software(f, ecc256)
	ek := rsa2048().(*rsa.PrivateKey)
	attest := ak.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	root := newAuthority(f, "manufacturer")
	opts := quote.Options{Signature: ak.sign(f, attest), Key: ak.tpmtPublic(), EKCert: root.issue(f, ek.Public(), ekCertificate), EKRoots: root.pem(), Time: epoch}
	a := record(f, ak, ek)
	f.Add(mustJSON(f, a))
	a.Seed = nil
	f.Add(mustJSON(f, a))
	a.EKPublic = tpm2.Marshal(tpm2.ECCEKTemplate)
	f.Add(mustJSON(f, a))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		opts := opts
		opts.Activation = data
		q := openFuzzed(t, attest, opts)
		if q == nil {
			return
		}
		l, _ := q.Link(quote.Chain)
		if l.Status != quote.Verified {
			return
		}
		a, err := quote.ParseActivation(data)
		if err != nil || !bytes.Equal(a.Sent, a.Returned) {
			t.Errorf("%v: verified, %s", err, l.Text)
		}
	})
}

// FuzzTPM2ToolsPCRs: what is read are values of their banks' sizes, no more of
// them than bytes.
func FuzzTPM2ToolsPCRs(f *testing.F) {
	f.Add(serialized([]bank{{rtmr.SHA256, 3, []int{0, 7}}, {rtmr.SHA1, 3, []int{10}}}, valuesOf(rtmr.SHA1, rtmr.SHA256)))
	f.Add(marshaled([]bank{{rtmr.SHA256, 3, []int{0, 7}}, {rtmr.SHA1, 3, []int{10}}}, valuesOf(rtmr.SHA1, rtmr.SHA256)))
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var values rtmr.Values
		var err error
		if used := readertest.Allocated(func() { values, err = quote.ParseTPM2ToolsPCRs(data) }); used > uint64(1<<20+1024*len(data)) {
			t.Errorf("%d bytes allocated for %d", used, len(data))
		}
		if err != nil {
			readertest.CheckLine(t, err.Error(), 16*len(data))
			return
		}
		if err := values.Validate(); err != nil {
			t.Error(err)
		}
		sum := 0
		for _, bank := range values {
			for _, value := range bank {
				sum += len(value)
			}
		}
		if sum > len(data) {
			t.Errorf("%d bytes of values in %d", sum, len(data))
		}
		if _, err := json.Marshal(values); err != nil {
			t.Error(err)
		}
	})
}
