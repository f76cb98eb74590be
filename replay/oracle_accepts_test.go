package replay_test

import (
	"bytes"
	"crypto"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"

	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// verifiers are the libraries that hold a log against values.
var verifiers = map[string]func(log []byte, values ...replay.Value) error{
	"go-eventlog": func(log []byte, values ...replay.Value) error {
		var mrs []register.MR
		for _, v := range values {
			mrs = append(mrs, register.FakeMR{Index: v.Register.Index(), Digest: v.Value, DigestAlg: cryptoHashes[v.Alg]})
		}
		_, err := tcg.ParseAndReplay(log, mrs, tcg.ParseOpts{})
		return err
	},
	"go-attestation": func(raw []byte, values ...replay.Value) error {
		log, err := attest.ParseEventLog(raw)
		if err != nil {
			return err
		}
		var pcrs []attest.PCR
		for _, v := range values {
			pcrs = append(pcrs, attestPCR(v))
		}
		_, err = log.Verify(pcrs)
		return err
	},
}

// TestVerifiersAccept: values that the log does not fold to, and that both
// libraries pass without a word. What we fold differs from each.
func TestVerifiersAccept(t *testing.T) {
	separator := testlogs.Event{Index: 5, Type: testlogs.Separator, Data: make([]byte, 4)}
	log := testlogs.TCG2(testlogs.SHA1And256, separator)
	right := fold(t, "", testlogs.Log{Format: "tcg2", Data: log}).Registers()
	sha1, sha256 := right[0], right[1]
	wrong := sha256
	wrong.Value = slices.Repeat([]byte{0xEE}, 32)
	unlogged := replay.Value{Register: rtmr.MustParse("pcr7"), Alg: rtmr.SHA256, Value: wrong.Value}
	exited := sha256
	exited.Value = testlogs.Fold(crypto.SHA256, sha256.Value,
		testlogs.Hash(crypto.SHA256, []byte("Exit Boot Services Invocation")),
		testlogs.Hash(crypto.SHA256, []byte("Exit Boot Services Returned with Success")))
	for name, verify := range verifiers {
		for _, tc := range []struct {
			name   string
			values []replay.Value
		}{
			{"register_that_moved_without_an_event", []replay.Value{unlogged}},
			{"sha256_mismatch_beside_a_sha1_match", []replay.Value{sha1, wrong}},
			{"exit_boot_services_that_is_not_in_the_log", []replay.Value{exited}},
		} {
			t.Run(name+"/"+tc.name, func(t *testing.T) {
				if err := verify(log, tc.values...); err != nil {
					t.Errorf("it rejects them now: %v", err)
				}
				if last := tc.values[len(tc.values)-1]; slices.ContainsFunc(right, func(v replay.Value) bool {
					return v.Alg == last.Alg && v.Register == last.Register && slices.Equal(v.Value, last.Value)
				}) {
					t.Errorf("we fold to %s %s too", last.Alg, last.Register)
				}
			})
		}
		if verify(log, wrong) == nil {
			t.Errorf("%s accepts anything", name)
		}
	}
}

// TestGoEventlogOverflows: an event's type is whatever the log's author wrote.
// Asked for one that it has no name for, go-eventlog's panic message calls the
// method that panics: the stack overflows, which no recover can catch.
func TestGoEventlogOverflows(t *testing.T) {
	const child = "TALLYSTICK_TEST_OVERFLOW"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestGoEventlogOverflows$")
		cmd.Env = append(os.Environ(), child+"=1")
		if out, err := cmd.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("stack overflow")) {
			t.Errorf("it survives now: %v", err)
		}
		return
	}
	debug.SetMaxStack(1 << 20)
	log := testlogs.TCG2(testlogs.SHA256Only, testlogs.Event{Index: 5, Type: 0x800000E1, Data: []byte("SPDM firmware blob")})
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = recover() }()
	parsed.Events(register.HashSHA256)[0].UntrustedType()
}
