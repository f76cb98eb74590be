//go:build linux

package docs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jws"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

func init() { pages["ear.md"] = verifiers }

// verifiers lays out a TD's log and quote, and what a made-up verifier found of it.
func verifiers(t *testing.T, s *shell) {
	folder := filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "testing", "testdata", "ccel")
	td := testlogs.Read(t, filepath.Join(folder, "cos-113-tdx-quote.dat"))
	s.write(t, "ccel.bin", testlogs.Read(t, filepath.Join(folder, "ccel_data.dat")))
	s.write(t, "td.bin", td)

	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	q, err := quote.Open(td, quote.Options{Time: at})
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]map[string]any{
		"ita.jwt": nil, "stale.jwt": {"attester_tcb_status": "OutOfDate"}, "another.jwt": {"tdx_rtmr2": strings.Repeat("22", 48)},
	} {
		claims := map[string]any{
			"iss": "Intel Trust Authority", "iat": at.Unix() - 10, "exp": at.Unix() + 300, "attester_type": "TDX",
			"attester_tcb_status": "UpToDate", "tdx_is_debuggable": false, "tdx_seamsvn": 3,
			"attester_held_data": base64.StdEncoding.EncodeToString([]byte("the guest's own key")),
		}
		for r, value := range q.Values[rtmr.SHA384] {
			claims["tdx_"+r.String()] = value.String()
		}
		maps.Copy(claims, change)
		s.write(t, name, signResult(t, key, claims))
	}
	s.write(t, "ita.jwks", keySet(t, key))

	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err1 := x509.MarshalPKCS8PrivateKey(own)
	public, err2 := x509.MarshalPKIXPublicKey(own.Public())
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	s.write(t, "sign.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	s.write(t, "sign.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

// signResult signs claims as Intel's service does, by another implementation than tally's.
func signResult(t *testing.T, key crypto.Signer, claims map[string]any) []byte {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	headers := jws.NewHeaders()
	if err := headers.Set("kid", "k1"); err != nil {
		t.Fatal(err)
	}
	token, err := jws.Sign(payload, jws.WithKey(jwa.PS384(), key, jws.WithProtectedHeaders(headers)))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func keySet(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	public, err := jwk.Import(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := public.Set("kid", "k1"); err != nil {
		t.Fatal(err)
	}
	set := jwk.NewSet()
	if err := set.AddKey(public); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
