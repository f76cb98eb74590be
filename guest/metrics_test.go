//go:build linux

package guest_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"

	"tallystick/guest"
)

// about is all that a Status can tell beside the Helper's own.
func about() guest.About {
	return guest.About{
		Chosen:  []string{"not tdx: not supported", "memory: as asked for"},
		BootLog: &guest.BootLogStatus{Path: "/log", Events: 3, Match: []string{"sha384 rtmr0"}, Differ: []string{"sha384 rtmr1"}, Problem: "it ends early"},
		Tap: func() []guest.TapStatus {
			return []guest.TapStatus{
				{Source: "ima", Method: "kprobe", Measured: 7, Lost: 2, Missed: 1},
				{Source: "tsm", Poll: 1, Reason: "no \"BTF\"\nhere \\ \xff"},
			}
		},
		Guard: func() *guest.GuardStatus {
			return &guest.GuardStatus{State: "sealed", Reason: "x", Hooks: []string{"bpf"}, Missing: []string{"file_ioctl"}, Restart: "seccomp",
				Denied: map[string]uint64{"unpin": 3, "open-map": 4}, Lost: 5}
		},
	}
}

// full is a helper of which everything can be told.
func full(t *testing.T) *guest.Helper {
	t.Helper()
	dir := t.TempDir()
	d := newDevice()
	h, err := guest.New(ctx, guest.Config{Device: d, Journal: filepath.Join(dir, "journal.cel"), IMADir: dir, Prover: &prover{Device: d}, About: about()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if !extends(t, h) {
		t.Fatal("not extended")
	}
	oneMoment(t, bundle(t, h))
	return h
}

// The metrics are what Prometheus' own parser reads, named as its documentation asks:
// counters end in _total and are in base units.
func TestMetrics(t *testing.T) {
	client := serve(t, &guest.Server{Helper: full(t), Log: slog.New(slog.DiscardHandler)}, filepath.Join(t.TempDir(), "socket"))
	ask(t, client, "GET", "/v1/status", "")
	ask(t, client, "POST", "/v1/extend", "{")
	code, text := ask(t, client, "GET", "/metrics", "")
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	parser := expfmt.TextParser{}
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	values := make(map[string]float64)
	for name, f := range families {
		kind := f.GetType().String()
		counter := strings.HasSuffix(name, "_total")
		if !strings.HasPrefix(name, "tallystick_") || counter != (kind == "COUNTER") || f.GetHelp() == "" || regexp.MustCompile(`milli|micro|nano|_ms|_kb|_count$`).MatchString(name) {
			t.Errorf("%s is a %s: %q", name, kind, f.GetHelp())
		}
		for _, m := range f.GetMetric() {
			key := name
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			switch kind {
			case "COUNTER":
				values[key] = m.GetCounter().GetValue()
			case "GAUGE":
				values[key] = m.GetGauge().GetValue()
			case "HISTOGRAM":
				values[key] = float64(m.GetHistogram().GetSampleCount())
				buckets := m.GetHistogram().GetBucket()
				if last := buckets[len(buckets)-1]; last.GetCumulativeCount() != m.GetHistogram().GetSampleCount() {
					t.Errorf("%s: %v", name, m)
				}
			}
		}
	}
	for name, want := range map[string]float64{
		"tallystick_build_info " + guest.Version + " " + runtime.Version(): 1,
		"tallystick_device_info memory":                                    1,
		"tallystick_ima_entries_total":                                     0,
		"tallystick_application_measurements_total":                        1,
		"tallystick_foreign_extends_total false":                           0,
		"tallystick_behind_measurements":                                   0,
		"tallystick_journal_damaged":                                       0,
		"tallystick_failing":                                               0,
		"tallystick_boot_log_registers_differing":                          1,
		"tallystick_boot_log_unreadable":                                   1,
		"tallystick_tap_active ima":                                        1,
		"tallystick_tap_active tsm":                                        0,
		"tallystick_tap_records_lost_total ima":                            2,
		"tallystick_guard_armed":                                           1,
		"tallystick_guard_sealed":                                          1,
		"tallystick_guard_denials_total unpin":                             3,
		"tallystick_evidence_total made":                                   1,
		"tallystick_evidence_total failed":                                 0,
		"tallystick_quote_seconds":                                         1,
		"tallystick_extends_held_seconds":                                  1,
		"tallystick_http_requests_total status 200":                        1,
		"tallystick_http_requests_total extend 400":                        1,
		"tallystick_connections_refused_total":                             0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, expected %v", name, got, want)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%v", text, slices.Sorted(maps.Keys(values)))
	}
}

// members lists a JSON value's members, with those of what is in it.
func members(prefix string, v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			key := strings.TrimPrefix(prefix+"."+name, ".")
			into[key] = true
			members(key, inner, into)
		}
	case []any:
		for _, inner := range v {
			members(prefix, inner, into)
		}
	}
}

// The members of the status are those of docs/json.md, to the letter: its example has
// each of them.
func TestStatusMembers(t *testing.T) {
	s := full(t).Status()
	now := time.Now()
	fault := &guest.Fault{Text: "x", Time: now}
	s.Lag, s.Error, s.LastError, s.Evidence.Error = &guest.Lag{}, "x", fault, fault
	s.Recovery = guest.Recovery{Records: 1, Foreign: "pcr10", Damaged: "x", Reason: "x"}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	got, documented := make(map[string]bool), make(map[string]bool)
	for _, c := range []struct {
		text []byte
		into map[string]bool
	}{{text, got}, {statusExample(t), documented}} {
		var v any
		if err := json.Unmarshal(c.text, &v); err != nil {
			t.Fatalf("%v: %s", err, c.text)
		}
		members("", v, c.into)
	}
	for name := range got {
		if !documented[name] && !strings.HasPrefix(name, "guard.denied.") {
			t.Errorf("%s is not in docs/json.md", name)
		}
	}
	for name := range documented {
		if !got[name] && !strings.HasPrefix(name, "guard.denied.") {
			t.Errorf("%s is in docs/json.md alone", name)
		}
	}
}

// statusExample is the example of docs/json.md.
func statusExample(t *testing.T) []byte {
	t.Helper()
	text := must(os.ReadFile("../docs/json.md"))(t)
	_, section, ok := bytes.Cut(text, []byte("## tallyd status --json\n"))
	if !ok {
		t.Fatal("docs/json.md has no section for tallyd status --json")
	}
	var example []byte
	for line := range bytes.Lines(section) {
		if bytes.HasPrefix(line, []byte("    ")) {
			example = append(example, line...)
		} else if len(example) > 0 && len(bytes.TrimSpace(line)) > 0 {
			break
		}
	}
	return bytes.ReplaceAll(example, []byte(`{..}`), []byte(`{}`))
}
