package quote_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-attestation/attest"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

var goHash = map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384}

// checkquote runs tpm2_checkquote, which takes a key as TPM2B_PUBLIC,
// TPMT_PUBLIC or PEM, and an absent nonce for an empty one.
func checkquote(t testing.TB, command string, message, signature, key, nonce []byte, more ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	args := append([]string{"-g", "sha256", "-q", hex.EncodeToString(nonce)}, more...)
	for flag, data := range map[string][]byte{"-m": message, "-s": signature, "-u": key} {
		path := filepath.Join(dir, flag[1:])
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, flag, path)
	}
	out, err := exec.Command(command, args...).CombinedOutput()
	return string(out), err
}

// agreeWithCheckquote: it verifies what we verify, where it is installed.
func agreeWithCheckquote(t *testing.T, message, signature, key, nonce []byte) {
	t.Helper()
	command, err := exec.LookPath("tpm2_checkquote")
	if err != nil {
		return // TestCheckquote says so
	}
	if out, err := checkquote(t, command, message, signature, key, nonce); err != nil {
		t.Errorf("tpm2_checkquote: %v\n%s", err, out)
	}
}

// disagreeWithCheckquote: it refuses what we refuse.
func disagreeWithCheckquote(t *testing.T, message []byte, o quote.Options) {
	t.Helper()
	command, err := exec.LookPath("tpm2_checkquote")
	if err != nil || o.Signature == nil || o.Key == nil {
		return
	}
	if out, err := checkquote(t, command, message, o.Signature, o.Key, o.Nonce); err == nil {
		t.Errorf("tpm2_checkquote verifies it:\n%s", out)
	}
}

// TestCheckquote: tpm2_checkquote verifies every quote of every capture, and
// refuses each with another nonce and a flipped signature, as we do.
func TestCheckquote(t *testing.T) {
	command := tool(t, "tpm2_checkquote", "tpm2-tools")
	for _, c := range captures(t) {
		t.Run(c.Machine+"/"+c.Name, func(t *testing.T) {
			if out, err := checkquote(t, command, c.Attest, c.Signature, c.Key, c.Nonce); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for _, forged := range []quote.Options{
				{Key: c.Key, Signature: c.Signature, Nonce: flip(c.Nonce, 31)},
				{Key: c.Key, Signature: flip(c.Signature, len(c.Signature)-1), Nonce: c.Nonce},
			} {
				disagreeWithCheckquote(t, c.Attest, forged)
				if open(t, c.Attest, forged).Trusted() {
					t.Error("trusted")
				}
			}
		})
	}
}

// TestGoAttestation: go-attestation verifies each capture with the values of its
// TPM, and finds the same fault in others. It takes exactly the selected ones.
func TestGoAttestation(t *testing.T) {
	for _, c := range captures(t) {
		ak, err := attest.ParseAKPublic(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, c.Attest, quote.Options{Signature: c.Signature, Key: c.Key, Nonce: c.Nonce})
		if err := q.Bind(c.Held); err != nil {
			t.Fatal(err)
		}
		var pcrs []attest.PCR
		for register, value := range q.Values[c.Bank] {
			pcrs = append(pcrs, attest.PCR{Index: register.Index(), Digest: bytes.Clone(value), DigestAlg: goHash[c.Bank]})
		}
		theirs := attest.Quote{Quote: c.Attest, Signature: c.Signature}
		if err := ak.Verify(theirs, pcrs, c.Nonce); err != nil {
			t.Errorf("%s/%s: %v", c.Machine, c.Name, err)
		}
		pcrs[0].Digest[0] ^= 1
		if err := ak.Verify(theirs, pcrs, c.Nonce); err == nil {
			t.Errorf("%s/%s: another value passes", c.Machine, c.Name)
		}
	}
}

// TestKeyName: the name is the one that the lab's TPM gave the key.
func TestKeyName(t *testing.T) {
	dir, ok := testlogs.Shared(t, "lab", "captures", "ng-small-6.1")
	if !ok {
		t.Skip("../shared/lab/captures is not here")
	}
	for _, kind := range []string{"rsa", "ecc"} {
		read := func(name string) []byte { return testlogs.Read(t, filepath.Join(dir, name)) }
		key, name := read("ak-"+kind+".tpmt_public.bin"), read("ak-"+kind+".name.bin")
		sum := sha256.Sum256(key)
		if !bytes.Equal(name[2:], sum[:]) {
			t.Fatal("the capture's name is not its key's")
		}
		q := open(t, read("quote-"+kind+"-sha256.tpms_attest.bin"), quote.Options{Key: key})
		if got := fact(q, "keyName"); got != hex.EncodeToString(name) {
			t.Errorf("%s: %s, expected %x", kind, got, name)
		}
	}
}

func fact(q *quote.Quote, name string) string {
	for _, f := range q.Facts {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}
