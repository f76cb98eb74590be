package replay_test

import (
	"strings"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

const corpus = "../../shared/corpus"

// TestCorpus folds third-party logs to the values that an independent parser
// found, and where a source publishes values, to those.
func TestCorpus(t *testing.T) {
	files := testlogs.Corpus(t)
	if files == nil {
		t.Skip("../shared/corpus is not here")
	}
	folded := 0
	for _, row := range files {
		if row.Format() == "" || row.Format() == "ima-ascii" {
			continue
		}
		folded++
		t.Run(row.File, func(t *testing.T) {
			l := testlogs.CorpusLog(t, row.File)
			for bank, regs := range row.Expected.Banks {
				name, padded := strings.CutSuffix(bank, "_zero_padded")
				alg, err := rtmr.ParseAlg(name)
				if err != nil || !alg.Available() {
					continue // sm3_256
				}
				profile := ""
				if padded {
					profile = "padded-sha1:" + name // its violation is 0xFF over the whole digest
				}
				values := fold(t, profile, l).Values()
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
