//go:build linux

package docs_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"

	"tallystick/internal/ccatest"
	"tallystick/rtmr"
)

// realm lays out a realm's logs, its token and the platform's key, and tokens of
// virtCCA with a device's certificate.
func realm(t *testing.T, s *shell) {
	nonce := []byte("a nonce of who verifies a realm!")[:32]
	r := ccatest.NewRealm(t, rtmr.SHA256)
	challenge := append(append([]byte{}, nonce...), make([]byte, 32)...)
	arm, huawei := ccatest.New(rtmr.SHA256, r.Values), ccatest.VirtCCA1(r.Values)
	arm.Realm[ccatest.Challenge], huawei.Realm[ccatest.Challenge] = challenge, challenge
	maker := ccatest.NewMaker(huawei.Device())
	signed := huawei.Sign()
	evidence, err := json.Marshal(map[string]any{"attester_type": "virt_cca", "evidence": map[string]any{
		"vcca_token": signed, "dev_cert": maker.Device.Raw,
		"logs": []any{map[string]any{"log_type": "ImaLog", "log_data": r.IMA}, map[string]any{"log_type": "CCEL", "log_data": r.CCEL}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nonce": []byte(hex.EncodeToString(nonce) + "\n"), "ccel.bin": r.CCEL, "ima.bin": r.IMA,
		"token.cbor": arm.Sign(), "cpak.pem": arm.PEM(), "expect.json": fmt.Appendf(nil, `{"sha256":{"rim":"%x"}}`, arm.Realm[ccatest.RIM]),
		"virtcca.cbor": signed, "device.der": maker.Device.Raw, "roots.pem": maker.Roots(), "evidence.json": evidence,
	} {
		s.write(t, name, data)
	}
}
