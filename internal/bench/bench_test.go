package main

import (
	"strings"
	"testing"
	"time"
)

// All measures run, on little, and each gives a result or says why not.
func TestMeasures(t *testing.T) {
	b := &bench{dir: t.TempDir(), rounds: 1, list: 2000, peerList: 2000, pipeList: 2000, faultList: 500, repeats: 1}
	sections, err := b.all()
	if err != nil {
		t.Fatal(err)
	}
	text := string(report(sections, b.rounds))
	for _, s := range sections {
		if !strings.Contains(text, "\n## "+s.title+"\n") || len(s.rows)+len(s.skipped) == 0 {
			t.Errorf("%s: no result", s.title)
		}
	}
}

func TestRatio(t *testing.T) {
	of := []time.Duration{20, 60, 20, 90, 20}
	by := []time.Duration{10, 20, 10, 10, 10} // 2, 3, 2, 9, 2
	if got, want := ratio(of, by), (spread{median: 2, low: 2, high: 3}); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}
