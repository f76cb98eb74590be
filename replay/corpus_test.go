package replay_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

const corpus = "../../shared/corpus"

// TestCorpus folds third-party logs to the values that an independent parser
// found, and where a source publishes values, to those.
func TestCorpus(t *testing.T) {
	index, err := os.ReadFile(filepath.Join(corpus, "index.json"))
	if err != nil {
		t.Skip("../shared/corpus is not here")
	}
	var rows []struct {
		File, Kind string
		Expected   struct {
			Banks map[string]map[string]string
		}
	}
	if err := json.Unmarshal(index, &rows); err != nil {
		t.Fatal(err)
	}
	folded := 0
	for _, row := range rows {
		if row.Kind == "ima-ascii" || len(row.Expected.Banks) == 0 {
			continue
		}
		folded++
		t.Run(row.File, func(t *testing.T) {
			values := foldFile(t, filepath.Join(corpus, row.File), row.Kind)
			for bank, regs := range row.Expected.Banks {
				alg, err := rtmr.ParseAlg(bank)
				if err != nil || !alg.Available() {
					continue // sm3_256, and the index's own *_zero_padded
				}
				for name, want := range regs {
					reg, err := rtmr.ParseRegister(name)
					if err != nil {
						reg = rtmr.MustParse("pcr" + name)
					}
					got := values[alg][reg]
					if got == nil && reg.Kind() == rtmr.KindRTMR { // a CC log without SHA-384 is a realm's
						rem, _ := rtmr.Index(reg.Index()).REM()
						got = values[alg][rem]
					}
					if got.String() != want {
						t.Errorf("%s %s: folded to %s, expected %s", bank, reg, got, want)
					}
				}
			}
		})
	}
	if folded < 8 {
		t.Errorf("only %d logs in the corpus have expected values", folded)
	}
}

func foldFile(t *testing.T, path, kind string) rtmr.Values {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	f := replay.New(replay.Options{})
	switch kind {
	case "ima-binary":
		r, rerr := ima.NewReader(file, ima.Options{Banks: []rtmr.Alg{rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}})
		if rerr != nil {
			t.Fatal(rerr)
		}
		_, err = f.Log(r.Measurements())
	case "dstack-eventlog-json":
		_, err = f.Log(eventlog.NewDstackReader(file).Measurements())
	default:
		r, rerr := eventlog.NewReader(file, eventlog.Options{})
		if rerr != nil {
			t.Fatal(rerr)
		}
		_, err = f.Log(r.Measurements())
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Values()
}
