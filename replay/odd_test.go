package replay_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
)

// registersOf is a fold's registers as OddLog.Want has them.
func registersOf(t *testing.T, l testlogs.Log) (got []string, err error) {
	t.Helper()
	_, f, err := readTCG(t, l)
	for _, v := range f.Registers() {
		got = append(got, fmt.Sprintf("%s %s %s", v.Alg, v.Register, v.Value))
	}
	return got, err
}

// TestOddLogs folds them to values computed by hand.
func TestOddLogs(t *testing.T) {
	for _, odd := range testlogs.OddLogs() {
		t.Run(odd.Name, func(t *testing.T) {
			got, err := registersOf(t, odd.Log)
			if !slices.Equal(got, odd.Want) {
				t.Errorf("folded to %q, by hand %q", got, odd.Want)
			}
			if (err != nil) != (odd.Err != "") || err != nil && !strings.Contains(err.Error(), odd.Err) {
				t.Errorf("error %v, expected %q", err, odd.Err)
			}
		})
	}
}
