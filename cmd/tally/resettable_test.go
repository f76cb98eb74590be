//go:build !windows

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"tallystick/bpf/attester"
	"tallystick/evidence"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// tpmQuoteOf is a TPM's quote of registers' SHA-256 values, by a key that is trusted.
func tpmQuoteOf(t *testing.T, values rtmr.Values, registers ...rtmr.Register) (attest, signature, public []byte) {
	t.Helper()
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	var selection []rtmr.Selected
	for _, r := range registers {
		selection = append(selection, rtmr.Selected{Alg: rtmr.SHA256, Register: r})
	}
	soft, err := a.Quote(values, selection, []byte{0xca, 0xfe})
	if err != nil {
		t.Fatal(err)
	}
	said, err := tpm2.Unmarshal[tpm2.TPMSAttest](soft.Attest)
	if err != nil {
		t.Fatal(err)
	}
	said.FirmwareVersion = 1 // a chip's
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	attest = tpm2.Marshal(said)
	sum := sha256.Sum256(attest)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](soft.Public)
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: key.X.FillBytes(make([]byte, 32))}, Y: tpm2.TPM2BECCParameter{Buffer: key.Y.FillBytes(make([]byte, 32))},
	})
	return attest, tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash:       tpm2.TPMAlgSHA256,
		SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
	})}), tpm2.Marshal(area)
}

// TestResettable: a log in registers of a TPM that any program may reset is vouched for
// by nobody, however well it folds.
func TestResettable(t *testing.T) {
	m, _ := sigMachine(t)
	for name, c := range map[string]struct{ verdict, text string }{
		"pcr10": {"reconciled", "the one quoted value"},
		"pcr15": {"reconciled", "the entries that ima-list has for pcr10 are in pcr15"},
		"pcr16": {"diverged", "nothing vouches for cel-journal: anybody may reset pcr16"},
		"pcr23": {"diverged", "nothing vouches for cel-journal: anybody may reset pcr23"},
	} {
		t.Run(name, func(t *testing.T) {
			register := rtmr.MustParse(name)
			g := testlogs.NewGuest(t, []rtmr.Alg{rtmr.SHA256}, register)
			g.IMA(t, m.Logs[1].Data, register)
			b := &evidence.Bundle{IMAList: m.Logs[1].Data, Journal: g.Journal(), Values: g.Values(t), Statement: evidence.Statement{
				Device: rtmr.Description{Kind: "tpm"},
				Logs:   []evidence.LogRole{{Item: evidence.ItemIMAList, Role: evidence.Checked}, {Item: evidence.ItemJournal, Role: evidence.Folded}},
			}}
			b.Attest, b.Signature, b.Public = tpmQuoteOf(t, b.Values, register)
			key := files(t, map[string][]byte{"key": b.Public})
			report, status := bundleVerdict(t, b, "--nonce", "cafe", "--key", filepath.Join(key, "key"))
			if report.Verdict != c.verdict || (status == 0) != (c.verdict == "reconciled") || report.Quote.Kind != "tpm" || !strings.Contains(report.Text, c.text) {
				t.Errorf("%s of kind %s (%s), expected %s (%s)", report.Verdict, report.Quote.Kind, report.Text, c.verdict, c.text)
			}
		})
	}
}
