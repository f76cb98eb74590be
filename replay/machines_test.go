package replay_test

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/internal/testlogs"
	"tallystick/replay"
	"tallystick/rtmr"
)

// source is a reader of any format.
type source interface {
	Measurements() iter.Seq2[rtmr.Measurement, error]
	Warnings() []string
}

// openLog reads a log as what its origin says it is.
func openLog(l testlogs.Log, opts ima.Options) (source, error) {
	src := bytes.NewReader(l.Data)
	switch l.Format {
	case "tcg12", "tcg2", "ccel":
		format := map[string]eventlog.Format{"tcg12": eventlog.TCG12, "tcg2": eventlog.TCG2, "ccel": eventlog.CCEL}[l.Format]
		return eventlog.NewReader(src, eventlog.Options{Format: format})
	case "dstack":
		return eventlog.NewDstackReader(src), nil
	case "ima":
		return ima.NewReader(src, opts)
	case "ima-ascii":
		return ima.NewASCIIReader(src, opts)
	}
	return nil, fmt.Errorf("no reader of %s", l.Format)
}

// fold folds logs, one above the other.
func fold(t testing.TB, profile string, logs ...testlogs.Log) *replay.Fold {
	t.Helper()
	opts := ima.Options{Banks: []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}}
	if profile != "" {
		var err error
		if opts.Profile, err = ima.ParseProfile(profile); err != nil {
			t.Fatal(err)
		}
	}
	f := replay.New(replay.Options{})
	for _, l := range logs {
		src, err := openLog(l, opts)
		if err == nil {
			_, err = f.Log(src.Measurements())
		}
		if err != nil {
			t.Fatalf("%s: %v", l.Name, err)
		}
	}
	return f
}

// TestMachines folds every real machine's logs to the values that its TPM, its
// quote, or the log's own publisher gave. A register that no event is of must
// still hold its reset value. Where a quote is another boot's, the registers
// that tell the two apart must differ, and they alone.
func TestMachines(t *testing.T) {
	for _, m := range testlogs.Machines(t) {
		t.Run(m.Name, func(t *testing.T) {
			values := fold(t, m.Profile, m.Logs...).Values()
			compared := 0
			for alg, bank := range m.Held {
				for reg, want := range bank {
					got := values[alg][reg]
					if got == nil {
						got = reg.ResetValue(alg)
					}
					compared++
					if slices.Contains(m.Differ, reg) == slices.Equal(got, want) {
						t.Errorf("%s %s: folded to %s, expected %s of %s", alg, reg, got, want, m.By)
					}
				}
			}
			if compared < rtmr.NumRTMRs-1 {
				t.Errorf("only %d values to compare with", compared)
			}
		})
	}
}
