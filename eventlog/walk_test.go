package eventlog_test

import (
	"bytes"
	"io"
	"iter"
	"strings"
	"testing"

	"tallystick/eventlog"
	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// realLogs returns every genuine boot log that is here, by name.
func realLogs(t testing.TB) map[string][]byte {
	t.Helper()
	logs := make(map[string][]byte)
	for _, l := range testlogs.OfFormat(t, "tcg12", "tcg2", "ccel", "dstack") {
		if !strings.Contains(l.Name, "_invalid") { // an altered copy
			logs[l.Name] = l.Data
		}
	}
	return logs
}

// events returns a log's events. A fault ends them, which is for the reader's
// own tests to judge.
func events(t testing.TB, b []byte) iter.Seq2[rtmr.Measurement, *eventlog.Event] {
	t.Helper()
	return func(yield func(rtmr.Measurement, *eventlog.Event) bool) {
		all := dstackOr(t, bytes.NewReader(b), b)
		for m, err := range all {
			if err != nil {
				t.Logf("the log ends early: %v", err)
				return
			}
			if !yield(m, m.Entry.(*eventlog.Event)) {
				return
			}
		}
	}
}

func dstackOr(t testing.TB, src io.Reader, b []byte) iter.Seq2[rtmr.Measurement, error] {
	t.Helper()
	if eventlog.DetectDstack(b) {
		return eventlog.NewDstackReader(src).Measurements()
	}
	r, err := eventlog.NewReader(src, eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Measurements()
}
