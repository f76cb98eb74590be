package ccatest_test

import (
	"bytes"
	"crypto"
	"encoding/json"
	"testing"

	"tallystick/internal/ccatest"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// TestFoldIMA: the fold by hand is what a TPM had quoted in each bank.
func TestFoldIMA(t *testing.T) {
	var values rtmr.Values
	if err := json.Unmarshal(testlogs.Read(t, testlogs.Fixture(t, "four-banks-6.12", "values.json")), &values); err != nil {
		t.Fatal(err)
	}
	list := testlogs.Read(t, testlogs.Fixture(t, "four-banks-6.12", "ima.bin"))
	for alg, h := range map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384, rtmr.SHA512: crypto.SHA512} {
		want := values[alg][rtmr.MustParse("pcr10")]
		if got := ccatest.FoldIMA(h, testlogs.Zeros(h), list); !bytes.Equal(got, want) {
			t.Errorf("%s: %x, expected %s", alg, got, want)
		}
	}
}
