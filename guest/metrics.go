//go:build linux

package guest

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bounds are a histogram's, in seconds: those around 50 ms for what extends wait, and
// up to half a minute for hardware's quotes.
var bounds = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// histogram counts times.
type histogram struct {
	counts [len(bounds) + 1]uint64
	sum    float64
}

func (h *histogram) add(d time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], d.Seconds())
	h.counts[i]++
	h.sum += d.Seconds()
}

// exposition writes the text format of Prometheus, version 0.0.4.
type exposition struct{ w io.Writer }

// label escapes a label's value.
var label = strings.NewReplacer("\\", `\\`, "\n", `\n`, `"`, `\"`)

func (e exposition) family(name, kind, help string) {
	fmt.Fprintf(e.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes one, with labels by name and value.
func (e exposition) sample(name string, value float64, labels ...string) {
	io.WriteString(e.w, name)
	for i := 0; i < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		fmt.Fprintf(e.w, `%s%s="%s"`, sep, labels[i], label.Replace(strings.ToValidUTF8(labels[i+1], "\uFFFD")))
	}
	if len(labels) > 0 {
		io.WriteString(e.w, "}")
	}
	fmt.Fprintf(e.w, " %s\n", strconv.FormatFloat(value, 'g', -1, 64))
}

func (e exposition) gauge(name, help string, value float64) {
	e.family(name, "gauge", help)
	e.sample(name, value)
}

func (e exposition) counter(name, help string, value float64) {
	e.family(name, "counter", help)
	e.sample(name, value)
}

func (e exposition) histogram(name, help string, h histogram) {
	e.family(name, "histogram", help)
	n := uint64(0)
	for i, c := range h.counts {
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'g', -1, 64)
		}
		n += c
		e.sample(name+"_bucket", float64(n), "le", le)
	}
	e.sample(name+"_sum", h.sum)
	e.sample(name+"_count", float64(n))
}

// helper writes a Helper's.
func (e exposition) helper(h *Helper) {
	s := h.Status()
	e.family("tallystick_build_info", "gauge", "1; labelled with what this helper is.")
	e.sample("tallystick_build_info", 1, "version", Version, "goversion", runtime.Version())
	e.family("tallystick_device_info", "gauge", "1; labelled with the kind of the device whose registers are extended.")
	e.sample("tallystick_device_info", 1, "kind", s.Device.Kind)
	e.gauge("tallystick_start_time_seconds", "When the helper began, in Unix time.", float64(s.Started.UnixNano())/1e9)

	e.counter("tallystick_ima_entries_total", "Entries of the kernel's IMA list that were journaled since boot.", float64(s.IMA))
	if s.Lag != nil {
		e.gauge("tallystick_ima_lag_entries", "Entries of the kernel's IMA list that are not journaled yet.", float64(s.Lag.Entries))
		e.gauge("tallystick_ima_lag_seconds", "How long the helper has been behind the kernel's IMA list.", s.Lag.Seconds)
	}
	e.counter("tallystick_application_measurements_total", "Measurements by applications in the journal.", float64(s.Journal.Applications))
	e.family("tallystick_foreign_extends_total", "counter", "Times that others extended a register, by whether it is known what with.")
	e.sample("tallystick_foreign_extends_total", float64(s.Journal.Others), "explained", "true")
	e.sample("tallystick_foreign_extends_total", float64(s.Journal.Unexplained), "explained", "false")
	e.gauge("tallystick_behind_measurements", "Measurements in the journal and not in the registers.", float64(s.Behind))

	e.gauge("tallystick_journal_bytes", "Size of the journal.", float64(s.Journal.Bytes))
	e.counter("tallystick_journal_records_total", "Records of the journal.", float64(s.Journal.Records))
	if s.Journal.Room >= 0 {
		e.gauge("tallystick_journal_free_bytes", "What is free in the journal's file system.", float64(s.Journal.Room))
	}
	e.gauge("tallystick_journal_damaged", "1 if a journal could not be believed and was put aside.", one(s.Recovery.Damaged != ""))
	e.gauge("tallystick_failing", "1 if the last try to extend failed.", one(s.Error != ""))
	if b := s.BootLog; b != nil {
		e.gauge("tallystick_boot_log_registers_differing", "Registers that the boot log does not fold to.", float64(len(b.Differ)))
		e.gauge("tallystick_boot_log_unreadable", "1 if the boot log cannot be read to its end.", one(b.Problem != ""))
	}
	e.tap(s.Tap)
	e.guard(s.Guard)
	e.proofs(&h.proofs)
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (e exposition) tap(sources []TapStatus) {
	if len(sources) == 0 {
		return
	}
	for _, f := range []struct {
		name, kind, help string
		value            func(s *TapStatus) float64
	}{
		{"tallystick_tap_active", "gauge", "1 if the source is tapped, 0 if it is polled.", func(s *TapStatus) float64 { return one(s.Method != "") }},
		{"tallystick_tap_measurements_total", "counter", "Measurements that the tap saw.", func(s *TapStatus) float64 { return float64(s.Measured) }},
		{"tallystick_tap_records_lost_total", "counter", "Measurements for which the tap had no room.", func(s *TapStatus) float64 { return float64(s.Lost) }},
		{"tallystick_tap_calls_missed_total", "counter", "Calls in the kernel, at most, at which the tap did not run.", func(s *TapStatus) float64 { return float64(s.Missed) }},
	} {
		e.family(f.name, f.kind, f.help)
		for _, s := range sources {
			e.sample(f.name, f.value(&s), "source", s.Source)
		}
	}
}

func (e exposition) guard(g *GuardStatus) {
	if g == nil {
		return
	}
	e.gauge("tallystick_guard_armed", "1 if the guard keeps others from the registers.", one(g.State != "off"))
	e.gauge("tallystick_guard_sealed", "1 if others get none of the hardware's reports.", one(g.State == "sealed"))
	if len(g.Denied) == 0 {
		return
	}
	e.family("tallystick_guard_denials_total", "counter", "What others were denied.")
	for _, what := range sortedKeys(g.Denied) {
		e.sample("tallystick_guard_denials_total", float64(g.Denied[what]), "attempt", what)
	}
}

func (e exposition) proofs(p *proofs) {
	p.mu.Lock()
	now, quote, held := p.now, p.quoteTimes, p.heldTimes
	p.mu.Unlock()
	e.family("tallystick_evidence_total", "counter", "Evidence that was asked for, by what came of it.")
	e.sample("tallystick_evidence_total", float64(now.Made), "result", "made")
	e.sample("tallystick_evidence_total", float64(now.Failed), "result", "failed")
	if now.Last != nil {
		e.gauge("tallystick_evidence_last_timestamp_seconds", "When the last quote was made, in Unix time.", float64(now.Last.UnixNano())/1e9)
	}
	e.histogram("tallystick_quote_seconds", "How long quotes took.", quote)
	e.histogram("tallystick_extends_held_seconds", "How long extends waited for evidence, beside the quote.", held)
}
