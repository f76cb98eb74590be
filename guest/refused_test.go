//go:build linux

package guest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallystick/guest"
	"tallystick/rtmr"
)

// A register that cannot be extended keeps no helper from its start, and what it was
// to be extended with is journaled once, however often that is tried.
func TestStartRefused(t *testing.T) {
	own := []guest.OwnEvent{{Type: guest.OwnType + "machine", PCR: 15, Data: []byte("{}")}}
	for _, c := range []struct {
		name, begins string
		own          []guest.OwnEvent
	}{
		{"own events", "{}", own},
		{"a list that was trimmed", `{"after":0,`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, d := &kernel{t, t.TempDir()}, &faulty{device: newDevice(), denied: rtmr2}
			d.device.Memory = td().Memory
			if c.own == nil {
				k.set(join(entries(10, false)[1:]...))
			}
			cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Own: c.own}
			for range 3 {
				h, err := guest.New(ctx, cfg)
				if err != nil {
					t.Fatal(err)
				}
				h.Close()
			}
			d.denied = rtmr.Register{}
			must(guest.New(ctx, cfg))(t).Close()
			n := 0
			for _, text := range check(t, d, cfg.Journal) {
				if strings.HasPrefix(text, c.begins) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d in the journal, expected 1", n)
			}
		})
	}
}

// What was read of the list is not read again where the copy has no room for it: each
// try is one write.
func TestFullCopy(t *testing.T) {
	dir := tmpfs(t)
	k, d := &kernel{t, t.TempDir()}, td()
	all := entries(400, false)
	k.set(join(all[:10]...))
	cfg := guest.Config{Device: d, Journal: filepath.Join(dir, "journal.cel"), IMADir: k.dir}
	run(t, cfg, caughtUp(10)).Close()
	cfg.Wake = guest.Poll(time.Millisecond)
	h := must(guest.New(ctx, cfg))(t)
	defer h.Close()
	fill(t, dir)
	k.set(join(all...))
	running, stop := withTimeout(t, 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- h.Run(running) }()
	until(t, running, func() bool { return strings.Contains(h.Status().Error, "no room") })
	// Nobody can read it now.
	if err := os.Rename(k.dir, k.dir+".away"); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "fill"))
	until(t, running, func() bool { return h.Status().IMA == 400 && h.Status().Behind == 0 })
	stop()
	<-done
	check(t, d, cfg.Journal)
}
