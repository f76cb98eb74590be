//go:build linux

package docs_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"tallystick/internal/snptest"
	"tallystick/quote"
)

// sev lays out the evidence of an SEV-SNP guest, of one with an SVSM, whose vTPM is a
// machine of the lab's, and of an SEV-ES guest's launch.
func sev(t *testing.T, s *shell) {
	sources(t, s)
	_, q := tpmMachine(t)
	record, err := quote.ParseActivation(q.Activation)
	if err != nil {
		t.Fatal(err)
	}
	amd, err := snptest.New()
	if err != nil {
		t.Fatal(err)
	}
	launch := bytes.Repeat([]byte{0xA5}, 48)
	report := func(data []byte) []byte {
		r, err := amd.Report(func(b []byte) {
			copy(b[0x50:], data)
			copy(b[0x90:], launch)
			binary.LittleEndian.PutUint64(b[0x38:], 0x73_08_000000000003) // CURRENT_TCB
		})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	nonce := bytes.Repeat([]byte("nonce "), 11)[:64]
	sum := sha512.Sum512(slices.Concat(q.Nonce, make([]byte, 64-len(q.Nonce)), record.EKPublic))
	for name, data := range map[string][]byte{
		"report.bin": report(nonce), "nonce.hex": []byte(hex.EncodeToString(nonce)), "vcek.der": amd.Vcek.Raw, "amd.pem": amd.Roots(),
		"launch.json": fmt.Appendf(nil, "{\"sha384\":{\"launch\":\"%x\"}}\n", launch),
		"tpm.quote":   q.Attest, "tpm.sig": q.Signature, "ak.pub": record.AKPublic, "tpm.nonce": []byte(hex.EncodeToString(q.Nonce)),
		"manifest.bin": record.EKPublic, "activation.json": q.Activation, "svsm.bin": report(sum[:]),

		// By openssl: HMAC-SHA-256 of 04 01 37 18, 27000000, the digest and the nonce 00..0f.
		"guest_tik.bin": []byte("0123456789abcdef"),
		"launch-measure.json": []byte(`{"return": {"data": "8Fu02sZgtZ39zaNGk5dA05LMW+wG7t7lrdJOW4OhGo8AAQIDBAUGBwgJCgsMDQ4P"}}
{"return": {"enabled": true, "api-minor": 55, "handle": 1, "state": "launch-secret", "api-major": 1, "sev-type": "sev", "build-id": 24, "policy": 39}}
`),
		"sev-launch.json": []byte(`{"sha256":{"launch":"d67e5f54e5845e07fecd0582828d5b0dc8f55be0529d7bec66923a2c44ceb037"}}` + "\n"),
	} {
		s.write(t, name, data)
	}

}
