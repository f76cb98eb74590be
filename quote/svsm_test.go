package quote_test

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// GUIDs as they stand in a services manifest, written out by hand from their text.
var (
	servicesGUID = []byte("\xbb\x9e\x84\x63\x92\x3d\x70\x46\xa1\xff\x58\xf9\xc9\x4b\x87\xbb") // 63849ebb-3d92-4670-a1ff-58f9c94b87bb
	vtpmGUID     = []byte("\xeb\xf1\x76\xc4\x23\x01\xa5\x45\x96\x41\xb4\xe7\xdd\xe5\xbf\xe3") // c476f1eb-0123-45a5-9641-b4e7dde5bfe3
)

type service struct{ guid, manifest []byte }

// servicesTable is a manifest of all services.
func servicesTable(services ...service) (table []byte) {
	at, size := 24*(1+len(services)), 0
	for _, s := range services {
		size += len(s.manifest)
	}
	table = binary.LittleEndian.AppendUint32(slices.Clone(servicesGUID), uint32(at+size))
	table = binary.LittleEndian.AppendUint32(table, uint32(len(services)))
	for _, s := range services {
		table = append(table, s.guid...)
		table = binary.LittleEndian.AppendUint32(table, uint32(at))
		table = binary.LittleEndian.AppendUint32(table, uint32(len(s.manifest)))
		at += len(s.manifest)
	}
	for _, s := range services {
		table = append(table, s.manifest...)
	}
	return table
}

// manifestOf is a vTPM's manifest of version 1.
func manifestOf(keys ...[]byte) []byte {
	m := binary.BigEndian.AppendUint32(nil, 1)
	m = binary.BigEndian.AppendUint32(m, uint32(len(keys)))
	for _, k := range keys {
		m = append(binary.BigEndian.AppendUint16(m, uint16(len(k))), k...)
	}
	return m
}

// svsmGuest is a guest with an SVSM and its vTPM: the keys are in software, and
// whoever makes the report is in AMD's place.
type svsmGuest struct {
	t      testing.TB
	amd    *amdLine
	ak     *softwareKey
	ek     *rsa.PrivateKey
	ekArea []byte
	attest []byte
	opts   quote.Options
}

var svsmNonce = []byte("a nonce of a verifier")

func newSVSM(t testing.TB) *svsmGuest {
	t.Helper()
	g := &svsmGuest{t: t, amd: newAMD(t, "Turin"), ak: software(t, ecc256), ek: rsa2048().(*rsa.PrivateKey)}
	g.ekArea = ekPublic(t, tpm2.RSAEKTemplate, g.ek.Public())
	g.attest = g.ak.attest(allOf(rtmr.SHA256), svsmNonce, valuesOf(rtmr.SHA256))
	g.opts = quote.Options{
		Nonce: svsmNonce, Signature: g.ak.sign(t, g.attest), Key: g.ak.tpmtPublic(),
		Hardware: g.amd.issue("SEV-VCEK", ext{turinSPL, turinChip, ""}), SNPRoots: g.amd.roots(), Time: in2025,
		SVSMManifest: g.ekArea, Activation: mustRecord(t, g.ak, g.ek),
	}
	g.opts.Report = g.report(svsmNonce, g.ekArea, nil)
	g.opts.Expect = rtmr.Values{rtmr.SHA384: {rtmr.Launch: g.opts.Report[0x90:0xC0]}}
	return g
}

func mustRecord(t testing.TB, ak *softwareKey, ek *rsa.PrivateKey) []byte {
	t.Helper()
	return mustJSON(t, record(t, ak, ek))
}

// report is of the SVSM, for a nonce that is filled up with zeros.
func (g *svsmGuest) report(nonce, manifest []byte, edit func([]byte)) []byte {
	g.t.Helper()
	sum := sha512.Sum512(slices.Concat(nonce, make([]byte, 64-len(nonce)), manifest))
	return g.amd.report(func(b []byte) {
		asTurin(b)
		copy(b[0x50:], sum[:])
		if edit != nil {
			edit(b)
		}
	})
}

// certify is what a key certifies another by: TPMS_ATTEST of the type certify, or
// creation, which have the same form.
func (k *softwareKey) certify(typ uint16, name []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0xff544347)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = append(b, 0, 2, 0, 0x0b, 0, 0) // qualifiedSigner, extraData
	b = append(b, make([]byte, 8+4+4)...)
	b = append(b, 1)
	b = append(b, make([]byte, 8)...)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name...)
	return append(b, 0, 1, 0xAA)
}

// certified has the guest's attestation key certified by one that signs, which is
// the manifest's.
func (g *svsmGuest) certified(typ uint16, signer *softwareKey) {
	name := must(tpm2.ObjectName(addressOf(g.ak.area())))
	g.opts.Activation = nil
	g.opts.SVSMManifest = signer.tpmtPublic()
	g.opts.Certify = signer.certify(typ, name.Buffer)
	g.opts.CertifySignature = signer.sign(g.t, g.opts.Certify)
	g.opts.Report = g.report(svsmNonce, g.opts.SVSMManifest, nil)
}

func addressOf[T any](v T) *T { return &v }

// TestSVSM: every way from the hardware to the quote, link by link.
func TestSVSM(t *testing.T) {
	nonce64 := slices.Repeat([]byte{7}, 64)
	for name, c := range map[string]struct {
		edit func(g *svsmGuest)
		says string // of the chain
	}{
		"activation": {func(*svsmGuest) {}, "its credential is what the seed, the key's name and the secret give, which is the services manifest's"},
		"activation_without_ekPublic": {func(g *svsmGuest) {
			r := record(t, g.ak, g.ek)
			r.EKPublic = nil
			g.opts.Activation = mustJSON(t, r)
		}, "the services manifest's"},
		"ekPublic_as_TPM2B": {func(g *svsmGuest) {
			r := record(t, g.ak, g.ek)
			r.EKPublic = append(binary.BigEndian.AppendUint16(nil, uint16(len(r.EKPublic))), r.EKPublic...)
			g.opts.Activation = mustJSON(t, r)
		}, ""},
		"certify":  {func(g *svsmGuest) { g.certified(0x8017, software(t, ecc384)) }, "endorsement key certified the key named 000b"},
		"creation": {func(g *svsmGuest) { g.certified(0x801a, software(t, rsa2048)) }, "endorsement key certified the key named 000b"},
		"certify_as_TPM2B": {func(g *svsmGuest) {
			g.certified(0x8017, software(t, ecc384))
			g.opts.Certify = append(binary.BigEndian.AppendUint16(nil, uint16(len(g.opts.Certify))), g.opts.Certify...)
		}, ""},
		"table": {func(g *svsmGuest) {
			g.opts.SVSMManifest = servicesTable(service{bytes.Repeat([]byte{1}, 16), []byte("x")}, service{vtpmGUID, g.ekArea}, service{bytes.Repeat([]byte{2}, 16), nil})
			g.opts.Report = g.report(svsmNonce, g.opts.SVSMManifest, nil)
		}, ""},
		"version_1": {func(g *svsmGuest) {
			g.opts.Activation = nil
			g.opts.SVSMManifest = manifestOf(g.ekArea, g.ak.tpmtPublic())
			g.opts.Report = g.report(svsmNonce, g.opts.SVSMManifest, nil)
		}, "the key stands in the services manifest"},
		"version_1_in_a_table": {func(g *svsmGuest) {
			g.opts.Activation = nil
			g.opts.SVSMManifest = servicesTable(service{vtpmGUID, manifestOf(g.ekArea, g.ak.tpmtPublic())})
			g.opts.Report = g.report(svsmNonce, g.opts.SVSMManifest, nil)
		}, "the key stands in the services manifest"},
		"version_1_and_activation": {func(g *svsmGuest) {
			g.opts.SVSMManifest = manifestOf(software(t, ecc384).tpmtPublic(), g.ekArea)
			g.opts.Report = g.report(svsmNonce, g.opts.SVSMManifest, nil)
		}, "the services manifest's"},
		"report_nonce": {func(g *svsmGuest) {
			g.opts.ReportNonce = nonce64
			g.opts.Report = g.report(nonce64, g.opts.SVSMManifest, nil)
		}, ""},
		"report_in_hexadecimal": {func(g *svsmGuest) { g.opts.Report = []byte(hex.EncodeToString(g.opts.Report)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := newSVSM(t)
			g.t = t
			c.edit(g)
			q := open(t, g.attest, g.opts)
			if got, want := statuses(q), "signature=verified chain=verified nonce=verified"; got != want || q.Kind != quote.SVSM {
				t.Errorf("%s: %s, expected %s: %v", q.Kind, got, want, q.Links)
			}
			status(t, q, quote.Chain, quote.Verified, c.says)
			if got, want := statuses(q.Inside), "signature=verified chain=verified binding=verified"; got != want || !q.Trusted() {
				t.Errorf("beside: %s, expected %s; trusted %t: %v", got, want, q.Trusted(), q.Inside.Links)
			}
			if err := q.Bind(valuesOf(rtmr.SHA256)); err != nil || !q.Trusted() {
				t.Errorf("%v, %v", err, q.Links)
			}
			if launch := q.Launch()[rtmr.SHA384][rtmr.Launch]; len(launch) != 48 {
				t.Errorf("launch %s", launch)
			}
		})
	}
}

// TestSVSMForged: each thing that may be another's, and the link that tells of it.
func TestSVSMForged(t *testing.T) {
	other := software(t, ecc384)
	otherEK := func(g *svsmGuest) []byte {
		return ekPublic(t, tpm2.RSAEKTemplate, fixedRSA("another", 2048).Public())
	}
	for name, c := range map[string]struct {
		edit   func(g *svsmGuest)
		inside bool // the link is the report's
		link   string
		want   quote.Status
		says   string
	}{
		"quote": {func(g *svsmGuest) { g.attest = flip(g.attest, len(g.attest)-1) }, false, quote.Signature, quote.Failed, "does not verify"},
		"nonce": {func(g *svsmGuest) { g.opts.Nonce, g.opts.ReportNonce = []byte("another"), svsmNonce }, false, quote.Nonce, quote.Failed, "extraData is"},
		"another_AK": {func(g *svsmGuest) {
			g.attest = other.attest(allOf(rtmr.SHA256), svsmNonce, valuesOf(rtmr.SHA256))
			g.opts.Signature, g.opts.Key = other.sign(t, g.attest), other.tpmtPublic()
		}, false, quote.Chain, quote.Failed, "akPublic is another key than the quote's"},
		"no_AK":                  {func(g *svsmGuest) { g.opts.Key = nil }, false, quote.Chain, quote.Missing, "no key was given"},
		"nothing_ties_it":        {func(g *svsmGuest) { g.opts.Activation = nil }, false, quote.Chain, quote.Missing, "nothing ties the key"},
		"nothing_ties_it_in_v1":  {func(g *svsmGuest) { g.opts.Activation, g.opts.SVSMManifest = nil, manifestOf(g.ekArea) }, false, quote.Chain, quote.Missing, "nothing ties the key"},
		"record_of_another_EK":   {func(g *svsmGuest) { g.opts.Activation = mustRecord(t, g.ak, fixedRSA("another", 2048)) }, false, quote.Chain, quote.Failed, "ekPublic is no key of the services manifest"},
		"manifest_of_another_EK": {func(g *svsmGuest) { g.opts.SVSMManifest = otherEK(g) }, true, quote.Binding, quote.Failed, "expected the SHA-512 of nonce and services manifest"},
		"another_EK_all_through": {func(g *svsmGuest) {
			g.opts.SVSMManifest = otherEK(g)
			g.opts.Activation = mustRecord(t, g.ak, fixedRSA("another", 2048))
		}, true, quote.Binding, quote.Failed, "REPORT_DATA is"},
		"record_without_seed": {func(g *svsmGuest) {
			r := record(t, g.ak, g.ek)
			r.EKPublic = nil
			r.Credential = flip(r.Credential, 40)
			g.opts.Activation = mustJSON(t, r)
		}, false, quote.Chain, quote.Failed, "credential is not what"},
		"secret_did_not_come_back": {func(g *svsmGuest) {
			r := record(t, g.ak, g.ek)
			r.Returned = flip(r.Returned, 0)
			g.opts.Activation = mustJSON(t, r)
		}, false, quote.Chain, quote.Failed, "not the one that was sent"},
		"not_a_record": {func(g *svsmGuest) { g.opts.Activation = []byte("{}") }, false, quote.Chain, quote.Failed, "no field"},
		"unrestricted_AK": {func(g *svsmGuest) {
			g.ak.unrestricted = true
			g.opts.Key, g.opts.Activation = g.ak.tpmtPublic(), mustRecord(t, g.ak, g.ek)
		}, false, quote.Chain, quote.Failed, "lacks the attributes fixedTPM, restricted"},
		"unrestricted_AK_in_v1": {func(g *svsmGuest) {
			g.ak.unrestricted = true
			g.opts.Key, g.opts.Activation = g.ak.tpmtPublic(), nil
			g.opts.SVSMManifest = manifestOf(g.ekArea, g.opts.Key)
		}, false, quote.Chain, quote.Failed, "stands in the services manifest, and lacks"},
		"EK_of_no_use": {func(g *svsmGuest) {
			template := tpm2.RSAEKTemplate
			template.ObjectAttributes.Restricted, template.ObjectAttributes.FixedTPM = false, false
			g.opts.SVSMManifest = ekPublic(t, template, g.ek.Public())
		}, false, quote.Chain, quote.Failed, "the manifest's endorsement key lacks the attributes fixedTPM, restricted"},
		"signing_EK_and_a_record": {func(g *svsmGuest) { g.opts.SVSMManifest = other.tpmtPublic() }, false, quote.Chain, quote.Failed, "lacks the attributes decrypt"},
		"record's_EK_signs": {func(g *svsmGuest) {
			g.opts.SVSMManifest = manifestOf(g.ekArea, other.tpmtPublic())
			r := record(t, g.ak, g.ek)
			r.EKPublic = other.tpmtPublic()
			g.opts.Activation = mustJSON(t, r)
		}, false, quote.Chain, quote.Failed, "lacks the attributes decrypt"},

		"certify_of_another_key": {func(g *svsmGuest) {
			g.certified(0x8017, other)
			g.opts.Certify = other.certify(0x8017, append([]byte{0, 0x0b}, make([]byte, 32)...))
			g.opts.CertifySignature = other.sign(t, g.opts.Certify)
		}, false, quote.Chain, quote.Failed, "is of the key named 000b0000"},
		"certify_by_another_key": {func(g *svsmGuest) {
			g.certified(0x8017, other)
			g.opts.CertifySignature = software(t, ecc256).sign(t, g.opts.Certify)
		}, false, quote.Chain, quote.Failed, "not by the services manifest's endorsement key"},
		"certify_changed": {func(g *svsmGuest) { g.certified(0x8017, other); g.opts.Certify[20] ^= 1 }, false, quote.Chain, quote.Failed, "does not verify"},
		"certify_by_a_decrypting_EK": {func(g *svsmGuest) {
			g.certified(0x8017, other)
			g.opts.SVSMManifest = g.ekArea
		}, false, quote.Chain, quote.Failed, "the manifest's endorsement key lacks the attributes sign"},
		"certify_by_an_unrestricted_EK": {func(g *svsmGuest) {
			free := software(t, ecc384)
			free.unrestricted = true
			g.certified(0x8017, free)
		}, false, quote.Chain, quote.Failed, "the manifest's endorsement key lacks the attributes fixedTPM, restricted"},
		"certify_of_an_unrestricted_AK": {func(g *svsmGuest) {
			g.ak.unrestricted = true
			g.opts.Key = g.ak.tpmtPublic()
			g.certified(0x8017, other)
		}, false, quote.Chain, quote.Failed, "the key lacks the attributes fixedTPM, restricted"},
		"certify_of_a_key_without_name": {func(g *svsmGuest) { g.certified(0x8017, other); g.opts.Key = g.ak.forms(t)["PEM"] }, false, quote.Chain, quote.Missing, "without its attributes"},
		"certify_beside_a_bad_record": {func(g *svsmGuest) {
			g.certified(0x8017, other)
			g.opts.Activation = []byte("{}")
		}, false, quote.Chain, quote.Failed, "the activation record"},

		"no_report":            {func(g *svsmGuest) { g.opts.Report, g.opts.Hardware, g.opts.SNPRoots = nil, nil, nil }, false, quote.Chain, quote.Missing, "no report"},
		"no_nonce":             {func(g *svsmGuest) { g.opts.Nonce = nil }, true, quote.Binding, quote.Missing, "none was given (--report-nonce, or --nonce)"},
		"another_report_nonce": {func(g *svsmGuest) { g.opts.ReportNonce = []byte("another") }, true, quote.Binding, quote.Failed, "REPORT_DATA is"},
		"guest's_own_report":   {func(g *svsmGuest) { g.opts.Report = g.report(svsmNonce, g.ekArea, func(b []byte) { b[0x30] = 2 }) }, true, quote.Binding, quote.Failed, "VMPL is 2, expected 0"},
		"host's_report": {func(g *svsmGuest) {
			g.opts.Report = g.report(svsmNonce, g.ekArea, func(b []byte) { copy(b[0x30:], "\xff\xff\xff\xff") })
		}, true, quote.Binding, quote.Failed, "VMPL is 4294967295, expected 0"},
		"debugged":            {func(g *svsmGuest) { g.opts.Report = g.report(svsmNonce, g.ekArea, func(b []byte) { b[0x0A] |= 8 }) }, true, quote.Policy, quote.Failed, "debugging"},
		"report_changed":      {func(g *svsmGuest) { g.opts.Report[0x90] ^= 1 }, true, quote.Signature, quote.Failed, ""},
		"report_data_changed": {func(g *svsmGuest) { g.opts.Report[0x50] ^= 1 }, true, quote.Binding, quote.Failed, ""},
		"AMD's_roots":         {func(g *svsmGuest) { g.opts.SNPRoots = nil }, true, quote.Chain, quote.Failed, ""},
		"no_VCEK":             {func(g *svsmGuest) { g.opts.Hardware = nil }, true, quote.Chain, quote.Missing, "no certificate"},
		"table_for_one":       {func(g *svsmGuest) { g.opts.SVSMManifest = servicesTable(service{vtpmGUID, g.ekArea}) }, true, quote.Binding, quote.Failed, "REPORT_DATA is"},
		// What a guest could have that asks for a report with a longer nonce, were
		// the nonce's size not one alone: its last bytes as the manifest's first.
		"nonce_runs_into_manifest": {func(g *svsmGuest) {
			sum := sha512.Sum512(slices.Concat(svsmNonce, g.ekArea))
			g.opts.Report = g.amd.report(func(b []byte) { asTurin(b); copy(b[0x50:], sum[:]) })
		}, true, quote.Binding, quote.Failed, "REPORT_DATA is"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newSVSM(t)
			g.t = t
			c.edit(g)
			q := open(t, g.attest, g.opts)
			at := q
			if c.inside {
				at = q.Inside
			}
			status(t, at, c.link, c.want, c.says)
			if q.Trusted() {
				t.Errorf("trusted: %v", q.Links)
			}
			g.opts.SkipSignature = true
			if c.link != quote.Signature && c.link != quote.Chain && open(t, g.attest, g.opts).Trusted() {
				t.Error("trusted where signatures are skipped")
			}
		})
	}
}

// TestSVSMOfAnyGuest: a guest without an SVSM can do all that one does, so unless its
// launch is expected nothing says that there is one.
func TestSVSMOfAnyGuest(t *testing.T) {
	g := newSVSM(t)
	for name, expected := range map[string]rtmr.Values{"nothing": nil, "another register": {rtmr.SHA384: {rtmr.MRTD: make(rtmr.Hex, 48)}}} {
		g.opts.Expect = expected
		q := open(t, g.attest, g.opts)
		status(t, q.Inside, quote.Binding, quote.NotChecked, "by an SVSM, or by a guest without one")
		if status(t, q, quote.Chain, quote.Verified, ""); !q.Trusted() {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
	g.opts.Expect = rtmr.Values{rtmr.SHA384: {rtmr.Launch: bytes.Repeat([]byte{1}, 48)}}
	if q := open(t, g.attest, g.opts); q.Trusted() {
		t.Error("an SVSM of another launch is trusted")
	} else {
		status(t, q.Inside, quote.Binding, quote.Failed, "expected the SVSM's")
	}
	g.opts.Expect = nil
	g.opts.Report[0x50] ^= 1
	status(t, open(t, g.attest, g.opts).Inside, quote.Binding, quote.Failed, "REPORT_DATA")
}

// TestSVSMErrors: what cannot be read, or does not go together.
func TestSVSMErrors(t *testing.T) {
	g := newSVSM(t)
	key := software(t, ecc256)
	for name, c := range map[string]struct {
		edit func(o *quote.Options)
		says string
	}{
		"a long nonce":              {func(o *quote.Options) { o.Nonce = make([]byte, 65) }, "--nonce has 65 bytes, and an SVSM's nonce has 64"},
		"a long report nonce":       {func(o *quote.Options) { o.ReportNonce = make([]byte, 65) }, "--report-nonce has 65 bytes"},
		"certify alone":             {func(o *quote.Options) { o.Certify = []byte{1} }, "--certify and --certify-signature go together"},
		"its signature alone":       {func(o *quote.Options) { o.CertifySignature = []byte{1} }, "go together"},
		"certify that is none":      {func(o *quote.Options) { o.Certify, o.CertifySignature = []byte{1}, key.sign(t, nil) }, "--certify: TPMS_ATTEST: offset 0: magic"},
		"a quote as certify":        {func(o *quote.Options) { o.Certify, o.CertifySignature = g.attest, key.sign(t, nil) }, "type: 0x8018 (quote), expected 0x8017 for a certify, or 0x801a for a creation"},
		"a signature that is none":  {func(o *quote.Options) { o.Certify, o.CertifySignature = key.certify(0x8017, nil), []byte{1} }, "--certify-signature: TPMT_SIGNATURE"},
		"a manifest that is none":   {func(o *quote.Options) { o.SVSMManifest = []byte("none") }, "the services manifest: the vTPM's manifest: unsupported quote"},
		"a TDREPORT as the report":  {func(o *quote.Options) { o.Report, o.Hardware, o.SNPRoots = tdReport(0), nil, nil }, "the report: of the kind tdreport, expected an SEV-SNP report"},
		"a report that is none":     {func(o *quote.Options) { o.Report = []byte("none") }, "the report: unsupported quote"},
		"EK roots":                  {func(o *quote.Options) { o.EKRoots = []byte{1} }, "--ek-roots was given, and a quote of an SVSM's vTPM is not held against it"},
		"certify without manifest":  {func(o *quote.Options) { *o = quote.Options{Certify: []byte{1}} }, "--certify was given, and a TPM's quote without --hcl"},
		"a manifest with a TDX one": {func(o *quote.Options) { o.TDXRoots = []byte{1} }, "--tdx-roots was given"},
	} {
		o := g.opts
		c.edit(&o)
		if q, err := quote.Open(g.attest, o); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v, expected %s", name, q, err, c.says)
		}
	}
}

// TestParseSVSMManifest: the forms, and each field that may be wrong.
func TestParseSVSMManifest(t *testing.T) {
	g := newSVSM(t)
	ak := g.ak.tpmtPublic()
	le := binary.LittleEndian
	table := servicesTable(service{vtpmGUID, g.ekArea}, service{bytes.Repeat([]byte{0xAB}, 16), []byte("manifest")})
	edited := func(at int, v uint32) []byte {
		b := slices.Clone(table)
		le.PutUint32(b[at:], v)
		return b
	}
	m, err := quote.ParseSVSMManifest(table)
	if err != nil || m.Version != 0 || len(m.Services) != 2 || !bytes.Equal(m.Keys[0], g.ekArea) ||
		m.Services[0].GUID != "c476f1eb-0123-45a5-9641-b4e7dde5bfe3" || string(m.Services[1].Manifest) != "manifest" || m.Services[1].GUID != "abababab-abab-abab-abab-abababababab" {
		t.Errorf("%+v, %v", m, err)
	}
	m, err = quote.ParseSVSMManifest(manifestOf(g.ekArea, ak))
	if err != nil || m.Version != 1 || m.Services != nil || len(m.Keys) != 2 || !bytes.Equal(m.Keys[1], ak) {
		t.Errorf("%+v, %v", m, err)
	}
	// A table's first bytes by hand: its GUID, 362 bytes, one service, which is the
	// vTPM, whose 314 bytes stand at 48.
	head := must(hex.DecodeString("bb9e8463923d7046a1ff58f9c94b87bb" + "6a010000" + "01000000" + "ebf176c42301a5459641b4e7dde5bfe3" + "30000000" + "3a010000"))
	if m, err := quote.ParseSVSMManifest(append(head, g.ekArea...)); err != nil || len(m.Services) != 1 || !bytes.Equal(m.Keys[0], g.ekArea) {
		t.Errorf("%+v, %v", m, err)
	}
	// A table of a lab's TPM and of a service without a manifest; its SHA-256 is by
	// Python's uuid (bytes_le) and struct.
	ek := must(quote.ParseActivation(testlogs.Read(t, testlogs.Fixture(t, "sig-6.12", "activation-ecc.json")))).EKPublic
	lab := servicesTable(service{vtpmGUID, ek}, service{unhex("67452301ab89efcd0123456789abcdef"), nil})
	if sum := sha256.Sum256(lab); hex.EncodeToString(sum[:]) != "c88cca6c91f31ff390bd2aef80f25840bc786e91b9236d8f06f13a9ed828df3b" {
		t.Errorf("%x", sum)
	}
	if m, err := quote.ParseSVSMManifest(lab); err != nil || !bytes.Equal(m.Keys[0], ek) || m.Services[1].GUID != "01234567-89ab-cdef-0123-456789abcdef" || len(m.Services[1].Manifest) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":                  {nil, "offset 0: it is empty"},
		"size":                   {edited(16, 7), "offset 16: size: 7, and the manifest has"},
		"size_and_more":          {append(slices.Clone(table), 0), "offset 16: size"},
		"many_services":          {edited(20, 0xFFFFFFFF), "offset 20: number of services: 4294967295 take"},
		"offset_in_the_header":   {edited(24+16, 71), "offset 40: services[0]: a manifest of"},
		"offset_out":             {edited(24+16, 0xFFFFFFF0), "offset 40: services[0]: a manifest of"},
		"size_out":               {edited(24+20, 0xFFFFFFFF), "offset 40: services[0]: a manifest of 4294967295 bytes"},
		"no_vtpm":                {servicesTable(service{servicesGUID, g.ekArea}), "1 services, and none is the vTPM"},
		"no_services":            {servicesTable(), "0 services, and none is the vTPM"},
		"vtpm_twice":             {servicesTable(service{vtpmGUID, g.ekArea}, service{vtpmGUID, g.ekArea}), "services[1].GUID: the vTPM's comes twice"},
		"vtpm_empty":             {servicesTable(service{vtpmGUID, nil}), "the vTPM's manifest: offset 48: it is empty"},
		"key_cut":                {g.ekArea[:len(g.ekArea)-1], "offset 0: TPMT_PUBLIC"},
		"key_and_more":           {append(slices.Clone(g.ekArea), 0), "offset 0: TPMT_PUBLIC"},
		"key_cut_in_a_table":     {servicesTable(service{vtpmGUID, g.ekArea[:99]}), "offset 48: TPMT_PUBLIC"},
		"as_TPM2B":               {append(binary.BigEndian.AppendUint16(nil, uint16(len(g.ekArea))), g.ekArea...), "expected the endorsement key's TPMT_PUBLIC"},
		"version_2":              {put(manifestOf(g.ekArea), 3, 2), "offset 0: it begins 0000000200000001"},
		"version_1_and_no_keys":  {manifestOf(), "offset 4: number of keys: none"},
		"version_1_of_many_keys": {put(manifestOf(g.ekArea), 4, 0xFF), "offset 4: number of keys: 4278190081 take"},
		"version_1_one_missing":  {put(manifestOf(g.ekArea), 7, 2), "keys[1]'s size: takes 2 bytes, and 0 are left"},
		"version_1_and_more":     {append(manifestOf(g.ekArea), 1), "1 bytes follow the last key"},
		"version_1_key_cut":      {put(manifestOf(g.ekArea), 8, 9), "keys[0]: takes"},
		"version_1_other_key":    {manifestOf(g.ekArea, []byte{0, 8, 0, 0, 0, 0, 0, 0, 0, 0}), "a key that begins 00080000"},
	} {
		m, err := quote.ParseSVSMManifest(c.data)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, expected %s", name, m, err, c.says)
		}
	}
	if _, err := quote.ParseSVSMManifest([]byte{0, 0, 0, 3}); !errors.Is(err, quote.ErrUnsupported) {
		t.Errorf("%v", err)
	}
	for n := range table {
		if m, err := quote.ParseSVSMManifest(table[:n]); err == nil {
			t.Fatalf("%d bytes were read as %+v", n, m)
		}
	}
}

// TestSVSMReportData: REPORT_DATA as Python's hashlib has it, of the nonce of a lab's
// machine, 32 zeros, and the table of TestParseSVSMManifest.
func TestSVSMReportData(t *testing.T) {
	read := func(name string) []byte { return testlogs.Read(t, testlogs.Fixture(t, "sig-6.12", name)) }
	g := &svsmGuest{t: t, amd: newAMD(t, "Turin")}
	record := read("activation-ecc.json")
	data := unhex("4bb4f0c049e5c849a03519231863f1c896b2ee5b3bcb3f8524ca9cabbf48179bc82a87cefdf03179f50a6bade7bec70c6f8a1e82cd380874f231815a7d543910")
	opts := quote.Options{
		Nonce: read("nonce.bin"), Signature: read("quote-ecc-sha256.tpmt_signature.bin"), Key: read("ak-ecc.tpmt_public.bin"), Activation: record,
		SVSMManifest: servicesTable(service{vtpmGUID, must(quote.ParseActivation(record)).EKPublic}, service{unhex("67452301ab89efcd0123456789abcdef"), nil}),
		Report:       g.amd.report(func(b []byte) { asTurin(b); copy(b[0x50:], data) }),
		Hardware:     g.amd.issue("SEV-VCEK", ext{turinSPL, turinChip, ""}), SNPRoots: g.amd.roots(), Time: in2025,
	}
	opts.Expect = rtmr.Values{rtmr.SHA384: {rtmr.Launch: opts.Report[0x90:0xC0]}}
	q := open(t, read("quote-ecc-sha256.tpms_attest.bin"), opts)
	if status(t, q.Inside, quote.Binding, quote.Verified, ""); !q.Trusted() {
		t.Errorf("%v, %v", q.Links, q.Inside.Links)
	}
}

// FuzzSVSM: whatever manifest, record and certification, if the evidence is trusted
// then REPORT_DATA is over that manifest, and the manifest has the key that ties the
// attestation key to it.
func FuzzSVSM(f *testing.F) {
	g := newSVSM(f)
	other := software(f, ecc384)
	table := servicesTable(service{vtpmGUID, g.ekArea})
	f.Add(g.ekArea, g.opts.Activation, []byte{}, []byte{})
	f.Add(table, g.opts.Activation, []byte{}, []byte{})
	f.Add(manifestOf(g.ekArea, g.ak.tpmtPublic()), []byte{}, []byte{}, []byte{})
	certify := other.certify(0x8017, must(tpm2.ObjectName(addressOf(g.ak.area()))).Buffer)
	f.Add(other.tpmtPublic(), []byte{}, certify, other.sign(f, certify))
	f.Fuzz(func(t *testing.T, manifest, activation, certify, signature []byte) {
		m, err := quote.ParseSVSMManifest(manifest)
		if err != nil {
			return
		}
		for _, k := range m.Keys {
			if !bytes.Contains(manifest, k) {
				t.Errorf("a key that is not in the manifest: %s", k)
			}
		}
		opts := g.opts
		opts.SVSMManifest, opts.Activation, opts.Certify, opts.CertifySignature = manifest, activation, certify, signature
		q, err := quote.Open(g.attest, opts)
		if err != nil {
			return
		}
		checkLines(t, q)
		if q.Trusted() && !bytes.Equal(manifest, g.ekArea) {
			t.Errorf("trusted: %v, %v", q.Links, q.Inside.Links)
		}
	})
}

// TestSwtpmBehindSVSM: the chain with a real TPM in the SVSM's place, which makes the
// keys and tpm2-tools the certifications: by the TCG's endorsement key, which
// decrypts, and by one that signs.
func TestSwtpmBehindSVSM(t *testing.T) {
	s := startSwtpm(t)
	g := &svsmGuest{t: t, amd: newAMD(t, "Turin")}
	s.run("tpm2_createek -c ek.ctx -G rsa -u ek.pub")
	s.run("tpm2_createprimary -C e -c signer.ctx -G ecc256:ecdsa-sha256:null -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign -g sha256 -f tss -o signer.pub")
	s.run("tpm2_createak -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -u ak.pub -n ak.name")
	s.run("tpm2_pcrextend 10:sha256=%064x", 1)
	s.run("tpm2_quote -c ak.ctx -l sha256:0,10 -q %x -m message -s signature -o pcrs", svsmNonce)
	s.run("tpm2_certify -c ak.ctx -C signer.ctx -g sha256 -f tss -o certify -s certify.sig")
	s.run("tpm2_certify -c ak.ctx -C ak.ctx -g sha256 -f tss -o self -s self.sig")
	s.run("tpm2_createprimary -C e -c other.ctx -G ecc384:ecdsa-sha256:null -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign -g sha256 -o other.pub --creation-hash creation.hash -t creation.ticket")
	s.run("tpm2_certifycreation -C signer.ctx -c other.ctx -d creation.hash -t creation.ticket -g sha256 -f tss -o creation.sig --attestation creation")
	s.run("tpm2_quote -c other.ctx -l sha256:0,10 -q %x -m message2 -s signature2 -o pcrs2", svsmNonce)
	record := activationOf(s)

	base := quote.Options{
		Nonce: svsmNonce, Signature: s.read("signature"), Key: s.read("ak.pub"),
		Hardware: g.amd.issue("SEV-VCEK", ext{turinSPL, turinChip, ""}), SNPRoots: g.amd.roots(), Time: in2025,
	}
	for name, c := range map[string]struct {
		manifest []byte
		edit     func(o *quote.Options)
		chain    quote.Status
	}{
		"activation": {s.read("ek.pub")[2:], func(o *quote.Options) { o.Activation = record }, quote.Verified},
		"certify":    {s.read("signer.pub")[2:], func(o *quote.Options) { o.Certify, o.CertifySignature = s.read("certify"), s.read("certify.sig") }, quote.Verified},
		"creation": {s.read("signer.pub")[2:], func(o *quote.Options) {
			o.Certify, o.CertifySignature = s.read("creation"), s.read("creation.sig")
			o.Key, o.Signature = s.read("other.pub"), s.read("signature2")
		}, quote.Verified},
		"version 1":       {manifestOf(s.read("ek.pub")[2:], s.read("ak.pub")[2:]), func(*quote.Options) {}, quote.Verified},
		"another's":       {s.read("signer.pub")[2:], func(o *quote.Options) { o.Certify, o.CertifySignature = s.read("creation"), s.read("creation.sig") }, quote.Failed},
		"its own":         {s.read("signer.pub")[2:], func(o *quote.Options) { o.Certify, o.CertifySignature = s.read("self"), s.read("self.sig") }, quote.Failed},
		"record and sign": {s.read("signer.pub")[2:], func(o *quote.Options) { o.Activation = record }, quote.Failed},
	} {
		o, message := base, "message"
		o.SVSMManifest, o.Report = c.manifest, g.report(svsmNonce, c.manifest, nil)
		if c.edit(&o); name == "creation" {
			message = "message2"
		}
		q := open(t, s.read(message), o)
		if l, _ := q.Link(quote.Chain); l.Status != c.chain || q.Trusted() != (c.chain == quote.Verified) {
			t.Errorf("%s: %v, beside it %v", name, q.Links, q.Inside.Links)
		}
		if c.chain == quote.Verified {
			values := must(quote.ParseTPM2ToolsPCRs(s.read("pcrs")))
			if err := q.Bind(values); err != nil || !q.Trusted() {
				t.Errorf("%s: %v, %v", name, err, q.Links)
			}
		}
	}
}
