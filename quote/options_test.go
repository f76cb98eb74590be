package quote_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-sev-guest/verify/testdata"

	"tallystick/evidence"
	"tallystick/quote"
	"tallystick/rtmr"
)

// TestUnusedOptions: who gives a key counts on its being asked for. Evidence of
// a kind that is not held against it is refused, and not judged without it.
func TestUnusedOptions(t *testing.T) {
	given := map[string]quote.Options{
		"signature": {Signature: []byte{1}}, "key": {Key: []byte{1}}, "ek-cert": {EKCert: []byte{1}}, "ek-roots": {EKRoots: []byte{1}},
		"activation": {Activation: []byte{1}}, "hcl": {HCL: []byte{1}}, "hardware": {Hardware: []byte{1}}, "report": {Report: []byte{1}},
		"collateral": {Collateral: fstest.MapFS{}}, "tdx-roots": {TDXRoots: []byte{1}}, "snp-roots": {SNPRoots: []byte{1}},
		"svsm-manifest": {SVSMManifest: []byte{1}}, "report-nonce": {ReportNonce: []byte{1}}, "certify": {Certify: []byte{1}}, "certify-signature": {CertifySignature: []byte{1}},
		"tik": {TIK: []byte{1}}, "sev-api": {SEVGuest: quote.SEVGuest{SEVAPI: &quote.SEVAPI{}}},
		"sev-build": {SEVGuest: quote.SEVGuest{SEVBuild: new(uint8)}}, "sev-policy": {SEVGuest: quote.SEVGuest{SEVPolicy: new(uint32)}},
	}
	key := software(t, ecc256)
	tdreport := make([]byte, quote.TDReportSize)
	tdreport[0] = 0x81
	for name, c := range map[string]struct {
		data []byte
		used string
	}{
		"TD quote":                  {realQuotes(t)[0].data, "collateral tdx-roots"},
		"TDREPORT":                  {tdreport, ""},
		"SNP report":                {testdata.AttestationBytes, "hardware snp-roots"},
		"values":                    {[]byte(`{"sha1":{"pcr1":"` + strings.Repeat("00", 20) + `"}}`), ""},
		"TPM's quote":               {key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256)), "signature key ek-cert ek-roots activation hcl svsm-manifest"},
		"software TPM's quote":      {softQuote(t).Attest, "signature key report"},
		"go-attestation's JSON":     {newBundle(t).forms(t)["go-attestation"], "key ek-cert ek-roots activation"},
		"a bundle's TD quote":       {must(tdBundle(realQuotes(t)[0].data).Marshal()), "collateral tdx-roots"},
		"a bundle's TPM quote":      {bundledTPM(t), "key ek-cert ek-roots activation hcl signature"},
		"go-tpm-tools' attestation": {newBundle(t).forms(t)["binarypb"], "key ek-cert ek-roots activation"},
	} {
		for flag, opts := range given {
			if slices.Contains(strings.Fields(c.used), flag) {
				continue
			}
			if q, err := quote.Open(c.data, opts); err == nil || !strings.HasSuffix(err.Error(), "is not held against it") || !strings.Contains(err.Error(), "--"+flag+" ") {
				t.Errorf("%s with %s: %v, %v", name, flag, q, err)
			}
		}
	}
}

func bundledTPM(t *testing.T) []byte {
	t.Helper()
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	return must((&evidence.Bundle{Attest: attest, Signature: key.sign(t, attest), Public: key.tpmtPublic()}).Marshal())
}
