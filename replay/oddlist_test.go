package replay_test

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// TestOddLists folds them to values computed by hand, in two banks. One list
// has an entry that its own data contradict.
func TestOddLists(t *testing.T) {
	for _, odd := range testlogs.OddLists() {
		for bank, h := range map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256} {
			t.Run(odd.Name+"/"+bank.String(), func(t *testing.T) {
				f := replay.New(replay.Options{Banks: []rtmr.Alg{bank}})
				r, err := ima.NewReader(bytes.NewReader(odd.List), ima.Options{Banks: []rtmr.Alg{bank}})
				if err == nil {
					_, err = f.Log(r.Measurements())
				}
				var got []string
				for _, v := range f.Registers() {
					got = append(got, fmt.Sprintf("%s %s", v.Register, v.Value))
				}
				if want := odd.Registers(h); !slices.Equal(got, want) {
					t.Errorf("folded to %q, by hand %q", got, want)
				}
				if (err != nil) != (odd.Err != "") || err != nil && !strings.Contains(err.Error(), odd.Err) {
					t.Errorf("error %v, expected %q", err, odd.Err)
				}
				findings := 0
				if odd.Name == "forged" {
					findings = 1
				}
				if n := len(f.Findings()); n != findings {
					t.Errorf("%d findings, expected %d", n, findings)
				}
			})
		}
	}
}
