package replay_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-attestation/attest"

	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

var attestAlgs = map[rtmr.Alg]attest.HashAlg{
	rtmr.SHA1: attest.HashSHA1, rtmr.SHA256: attest.HashSHA256, rtmr.SHA384: attest.HashSHA384, rtmr.SHA512: attest.HashSHA512,
}

var cryptoHashes = map[rtmr.Alg]crypto.Hash{
	rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384, rtmr.SHA512: crypto.SHA512,
}

func attestPCR(v replay.Value) attest.PCR {
	return attest.PCR{Index: v.Register.Index(), Digest: v.Value, DigestAlg: cryptoHashes[v.Alg]}
}

// askGoAttestation parses a log with go-attestation and says where it differs
// from us: in reading, in an event, or in that it rejects a value of ours.
func askGoAttestation(t *testing.T, l testlogs.Log) string {
	t.Helper()
	ours, f, ourErr := readTCG(t, l)
	log, err := attest.ParseEventLog(l.Data)
	if ourErr != nil || err != nil {
		return errorsDiffer(ourErr, err)
	}
	if l.Format == "tcg2" && len(ours) > 0 {
		ours = ours[1:] // it keeps the Spec ID event apart
	}
	for alg, h := range attestAlgs {
		theirs := log.Events(h)
		if len(ours) != len(theirs) {
			return fmt.Sprintf("%d events", len(theirs))
		}
		for i, e := range theirs {
			if !ours[i].is(uint32(e.Index), uint32(e.Type), string(e.Data)) || !bytes.Equal(ours[i].digestIn(alg), e.Digest) {
				return fmt.Sprintf("event %d in %s is %+v", i, alg, e)
			}
		}
	}
	return valuesDiffer(f.Registers(), attestAlgs, func(v replay.Value) bool {
		_, err := log.Verify([]attest.PCR{attestPCR(v)})
		return err == nil
	})
}

// TestGoAttestation: the same events, and our values are those that it accepts.
func TestGoAttestation(t *testing.T) {
	compare(t, []string{"tcg12", "tcg2"}, map[string]string{
		"corpus/tpm-hcrtm/binary_measurements_hcrtm.bin":        "error: unknown algorithm ID 12",
		"corpus/tampered-event-data/uefi_event_log.bin":         "error: unknown algorithm ID ffff",
		"corpus/tampered-event-data/uefi_event_log_invalid.bin": "error: unknown algorithm ID ffff",
		"hcrtm":                              "rejects sha256 pcr0",
		"hcrtm_after_startup_locality_3":     "rejects sha256 pcr0",
		"register_24":                        "no error",
		"sm3_bank":                           "error: unknown algorithm ID 12",
		"bank_of_an_unknown_algorithm":       "error: unknown algorithm ID 99",
		"event_without_a_digest_in_one_bank": "rejects sha256 pcr4",
		"two_digests_in_one_bank":            "no error",
		"headerless":                         "error: parse first event",
		"header_without_vendor_size":         "error: failed to parse spec ID event",
		"header_of_version_2_1":              "invalid spec minor version, got 02",
		"padded_with_ff":                     "error: unknown algorithm ID ffff",
		"padded_with_zeros":                  "error: unexpected EOF",
	}, askGoAttestation)
}

// TestGoAttestationQuote: a TPM's signature over PCR values, checked by
// go-attestation, holds for the values that we fold from the logs beside it.
func TestGoAttestationQuote(t *testing.T) {
	path := filepath.Join(testlogs.ModuleDir(t, testlogs.GoAttestation), "attest", "testdata", "windows_gcp_shielded_vm.json")
	var dump struct {
		AK    attest.AttestationParameters
		Quote struct{ Nonce, Quote, Signature []byte }
		Log   struct{ Raw []byte }
	}
	if err := json.Unmarshal(testlogs.Read(t, path), &dump); err != nil {
		t.Fatal(err)
	}
	windows := fold(t, "", testlogs.Log{Format: "tcg12", Data: dump.Log.Raw}).Values()
	verifyQuote(t, windows, testlogs.TPMQuote{Name: "windows_gcp_shielded_vm", Bank: rtmr.SHA1, PCRs: rtmr.NumPCRs,
		Attest: dump.Quote.Quote, Signature: dump.Quote.Signature, Key: dump.AK.Public, Nonce: dump.Quote.Nonce})
	for _, m := range testlogs.Machines(t) {
		values := fold(t, m.Profile, m.Logs...).Values()
		for _, q := range m.Quotes {
			q.Name = m.Name + "/" + q.Name
			verifyQuote(t, values, q)
		}
	}
}

// verifyQuote checks a quote with our values of its PCRs, and that it does not
// hold for others.
func verifyQuote(t *testing.T, values rtmr.Values, q testlogs.TPMQuote) {
	t.Helper()
	ak, err := attest.ParseAKPublic(q.Key)
	if err != nil {
		t.Fatal(err)
	}
	var pcrs []attest.PCR
	for i := range q.PCRs {
		reg, _ := rtmr.PCR(i).Register()
		v := replay.Value{Register: reg, Alg: q.Bank, Value: values[q.Bank][reg]}
		if v.Value == nil {
			v.Value = reg.ResetValue(q.Bank)
		}
		pcrs = append(pcrs, attestPCR(v))
	}
	quote := attest.Quote{Quote: q.Attest, Signature: q.Signature}
	if err := ak.Verify(quote, pcrs, q.Nonce); err != nil {
		t.Errorf("%s: %v", q.Name, err)
	}
	pcrs[7].Digest = bytes.Repeat([]byte{0xEE}, q.Bank.Size())
	if ak.Verify(quote, pcrs, q.Nonce) == nil {
		t.Errorf("%s holds for any value", q.Name)
	}
}
