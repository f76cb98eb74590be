//go:build linux

package lab

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// Activate has the guest's TPM prove that an attestation key, "rsa" or "ecc", is
// in the same TPM as its RSA endorsement key, and returns the record of it: what
// tally's --activation takes. The secret is made here.
func (g *Guest) Activate(e *Evidence, key string) []byte {
	g.t.Helper()
	ek, err := endorsementKey(e.EKCerts["rsa2048"])
	if err != nil {
		g.t.Fatalf("lab: endorsement key: %v", err)
	}
	ak, err := tpm2.Unmarshal[tpm2.TPMTPublic](e.Keys[key])
	if err != nil {
		g.t.Fatalf("lab: key %s: %v", key, err)
	}
	name, err := tpm2.ObjectName(ak)
	if err != nil {
		g.t.Fatalf("lab: key %s: %v", key, err)
	}
	to, err := tpm2.ImportEncapsulationKey(ek)
	if err != nil {
		g.t.Fatalf("lab: endorsement key: %v", err)
	}
	sent := make([]byte, 32)
	rand.Read(sent)
	credential, secret, err := tpm2.CreateCredential(rand.Reader, to, name.Buffer, sent)
	if err != nil {
		g.t.Fatalf("lab: credential: %v", err)
	}
	returned := g.Run("labtpm", "activate", "--key", key, "--credential", hex.EncodeToString(credential), "--secret", hex.EncodeToString(secret))
	record, err := json.MarshalIndent(map[string]any{
		"ekPublic": tpm2.Marshal(*ek), "akPublic": e.Keys[key],
		"credential": credential, "secret": secret,
		"sent": hex.EncodeToString(sent), "returned": strings.TrimSpace(returned),
	}, "", " ")
	if err != nil {
		g.t.Fatalf("lab: %v", err)
	}
	return append(record, '\n')
}

// endorsementKey returns the public area of the key that an RSA endorsement
// key's certificate is of: TCG's template, with its modulus.
func endorsementKey(der []byte) (*tpm2.TPMTPublic, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	public := tpm2.RSAEKTemplate
	public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	return &public, nil
}

// EKRoots returns the certificates of the authority that made the endorsement
// key's certificate, PEM: its own and its root's.
func (g *Guest) EKRoots() []byte {
	g.t.Helper()
	var all []byte
	for _, name := range []string{"cert.pem", "swtpm-localca-rootca-cert.pem"} {
		cert, err := os.ReadFile(filepath.Join(g.dir, "tpm", "ca", name))
		if err != nil {
			g.t.Fatalf("lab: %v", err)
		}
		all = append(all, cert...)
	}
	return all
}
