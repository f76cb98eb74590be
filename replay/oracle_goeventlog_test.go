package replay_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

var goEventlogAlgs = map[rtmr.Alg]register.HashAlg{
	rtmr.SHA1: register.HashSHA1, rtmr.SHA256: register.HashSHA256, rtmr.SHA384: register.HashSHA384,
}

// askGoEventlog parses a log with go-eventlog and says where it differs from
// us: in reading, in an event, or in that it rejects a value of ours.
func askGoEventlog(t *testing.T, l testlogs.Log) string {
	t.Helper()
	ours, f, ourErr := readTCG(t, l)
	log, err := tcg.ParseEventLog(l.Data, tcg.ParseOpts{AllowPadding: l.Format == "ccel"}) // as its tpmeventlog and ccel do
	if ourErr != nil || err != nil {
		return errorsDiffer(ourErr, err)
	}
	if l.Format != "tcg12" && len(ours) > 0 {
		ours = ours[1:] // it keeps the Spec ID event apart
	}
	for alg, h := range goEventlogAlgs {
		theirs := log.Events(h)
		if len(ours) != len(theirs) {
			return fmt.Sprintf("%d events", len(theirs))
		}
		for i, e := range theirs {
			if !ours[i].is(e.MRIndex(), uint32(e.Type), string(e.Data)) || !bytes.Equal(ours[i].digestIn(alg), e.Digest) {
				return fmt.Sprintf("event %d in %s is %+v", i, alg, e)
			}
		}
	}
	return valuesDiffer(f.Registers(), goEventlogAlgs, func(v replay.Value) bool {
		hash := goEventlogAlgs[v.Alg].CryptoHash()
		index := v.Register.Index()
		if v.Register.Kind() != rtmr.KindPCR {
			index++ // the CC-MR index
		}
		_, err := log.Verify([]register.MR{register.FakeMR{Index: index, Digest: v.Value, DigestAlg: hash}})
		return err == nil
	})
}

// TestGoEventlog: the same events, and our values are those that it accepts.
func TestGoEventlog(t *testing.T) {
	compare(t, []string{"tcg12", "tcg2", "ccel"}, map[string]string{
		"corpus/tpm-hcrtm/binary_measurements_hcrtm.bin":        "rejects sha1 pcr0, rejects sha256 pcr0",
		"corpus/tampered-event-data/uefi_event_log.bin":         "error: reached padding",
		"corpus/tampered-event-data/uefi_event_log_invalid.bin": "error: reached padding",
		"hcrtm":                                "rejects sha256 pcr0",
		"hcrtm_after_startup_locality_3":       "rejects sha256 pcr0",
		"no_action_of_no_register_in_a_cc_log": "1 events",
		"no_action_of_no_register":             "error: reached padding",
		"register_24":                          "no error",
		"event_without_a_digest_in_one_bank":   "rejects sha256 pcr4",
		"two_digests_in_one_bank":              "no error",
		"headerless":                           "error: parse first event",
		"header_without_vendor_size":           "error: failed to parse spec ID event",
		"header_of_version_2_1":                "invalid spec minor version, got 02",
		"padded_with_ff":                       "error: reached padding",
		"padded_with_zeros":                    "error: unexpected EOF",
	}, askGoEventlog)
}
