package replay_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/replay"
	"tallystick/rtmr"
)

var sha256List = ima.Layout{Alg: rtmr.SHA256, Order: binary.LittleEndian}

// Nothing is allocated for an event: a log and one many times as long cost
// the same allocations, with their data checked.
func TestNoAllocationPerEvent(t *testing.T) {
	boot, err := os.ReadFile("../fixtures/shim-grub-sb-6.12/boot.bin")
	if err != nil {
		t.Fatal(err)
	}
	long := append(bytes.Clone(boot), bytes.Repeat(boot[headerSize(t, boot):], 99)...)
	foldBoot := func(log []byte, skip bool) int {
		r, err := eventlog.NewReader(bytes.NewReader(log), eventlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		n, err := replay.New(replay.Options{SkipVerify: skip}).Log(r.Measurements())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var short, many bytes.Buffer
	if imagen.Write(&short, sha256List, 1000) != nil || imagen.Write(&many, sha256List, 100_000) != nil {
		t.Fatal("no lists")
	}
	foldIMA := func(list []byte) int {
		r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: fixtureBanks})
		if err != nil {
			t.Fatal(err)
		}
		n, err := replay.New(replay.Options{}).Log(r.Measurements())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	shortIMA, longIMA := templateIMA(t, 1000), templateIMA(t, 100_000)
	for _, tc := range []struct {
		name        string
		short, long func() int
	}{
		{"tcg_unchecked", func() int { return foldBoot(boot, true) }, func() int { return foldBoot(long, true) }},
		{"tcg", func() int { return foldBoot(boot, false) }, func() int { return foldBoot(long, false) }},
		{"template_ima", func() int { return foldIMA(shortIMA) }, func() int { return foldIMA(longIMA) }},
		{"ima", func() int { return foldIMA(short.Bytes()) }, func() int { return foldIMA(many.Bytes()) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			more := tc.long() - tc.short()
			few := testing.AllocsPerRun(5, func() { tc.short() })
			many := testing.AllocsPerRun(5, func() { tc.long() })
			t.Logf("%d more events, %.0f and %.0f allocations", more, few, many)
			if perEvent := (many - few) / float64(more); more < 4000 || perEvent > 0.01 {
				t.Errorf("%.3f allocations an event", perEvent)
			}
		})
	}
}

// templateIMA is a list of the template "ima", whose data a record interrupts.
func templateIMA(t *testing.T, entries int) (list []byte) {
	t.Helper()
	l := ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}
	for i := range entries {
		data := binary.LittleEndian.AppendUint64(bytes.Repeat([]byte{0xAB}, 20), uint64(i))
		var err error
		if list, err = l.AppendRecord(list, 10, ima.NewEntry("ima", data, l.Order)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// headerSize returns where a crypto-agile log's second event begins.
func headerSize(t *testing.T, log []byte) int64 {
	t.Helper()
	r, err := eventlog.NewReader(bytes.NewReader(log), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err == nil && m.Index == 1 {
			return m.Offset
		}
	}
	t.Fatal("the log has one event")
	return 0
}

// A list from a pipe is folded in memory that does not grow with it.
func TestPipeInBoundedMemory(t *testing.T) {
	const entries, bound = 500_000, 16 << 20 // a list of 68 MB
	pipe, w := io.Pipe()
	go func() { w.CloseWithError(imagen.Write(w, sha256List, entries)) }()
	r, err := ima.NewReader(pipe, ima.Options{Banks: fixtureBanks})
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // what tests before this left
	var start, now runtime.MemStats
	runtime.ReadMemStats(&start)
	var peak uint64
	f := replay.New(replay.Options{})
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		f.Add(&m)
		if m.Index%50_000 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapInuse-min(start.HeapInuse, now.HeapInuse))
		}
	}
	if events := f.Registers()[0].Events; events != entries || len(f.Findings()) > 0 {
		t.Errorf("%d events, findings %v", events, f.Findings())
	}
	if peak > bound {
		t.Errorf("%d MB of heap, want at most %d", peak>>20, bound>>20)
	}
}
