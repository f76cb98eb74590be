//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/rtmr"
)

// prover states a device's values, and calls what a test wants at each step.
type prover struct {
	rtmr.Device
	quoting, finishing func()
	quotes             int
}

func (p *prover) Prove(ctx context.Context, _ []byte, b *evidence.Bundle) (err error) {
	p.quotes++
	if p.quoting != nil {
		p.quoting()
	}
	b.Values, err = p.Read(ctx)
	return err
}

func (p *prover) Finish(context.Context, *evidence.Bundle) error {
	if p.finishing != nil {
		p.finishing()
	}
	return nil
}

// proving is a helper with the prover, and a list of n entries.
func proving(t *testing.T, d rtmr.Device, p *prover, n int) *guest.Helper {
	t.Helper()
	dir := t.TempDir()
	list, err := os.Create(filepath.Join(dir, "binary_runtime_measurements"))
	if err != nil {
		t.Fatal(err)
	}
	if err := imagen.Write(list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, n); err != nil {
		t.Fatal(err)
	}
	list.Close()
	count := filepath.Join(dir, "runtime_measurements_count")
	if err := os.WriteFile(count, fmt.Appendln(nil, n), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Device = d
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: dir, Prover: p, Wake: guest.Poll(time.Millisecond)}
	h, err := guest.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- h.Run(running) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		h.Close()
	})
	until(t, "the list is extended", func() bool { return h.Status().IMA == n })
	return h
}

// until waits for a condition.
func until(t *testing.T, what string, true func() bool) {
	t.Helper()
	for began := time.Now(); !true(); time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: not in a minute", what)
		}
	}
}

// extends reports whether an extend is done soon.
func extends(t *testing.T, h *guest.Helper) bool {
	t.Helper()
	app, err := guest.Measure("x", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := h.Extend(ctx, pcr11, "test", app)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
		return err == nil
	case <-time.After(10 * time.Second):
		return false
	}
}

// writer is a Writer that does something else first.
type writer struct {
	bytes.Buffer
	first func()
}

func (w *writer) Write(p []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return w.Buffer.Write(p)
}

// While a quote is made nothing is extended, however long that takes; while the rest of
// the evidence is made and written, extends go on, and none of them is in it. Beside the
// quote extends wait for less than 50 ms, with a long list and a long journal.
func TestEvidenceHolds(t *testing.T) {
	const entries, quote, most = 110_000, 100 * time.Millisecond, 50 * time.Millisecond
	d := newDevice()
	p := new(prover)
	h := proving(t, d, p, entries)
	waited := make(chan bool, 1)
	p.quoting = func() {
		before := must(d.Read(ctx))(t)
		began := make(chan struct{})
		go func() { close(began); waited <- extends(t, h) }()
		<-began
		time.Sleep(quote) // which is how long this quote takes
		if after := must(d.Read(ctx))(t); !bytes.Equal(before[rtmr.SHA256][pcr11], after[rtmr.SHA256][pcr11]) {
			t.Error("extended while a quote was made")
		}
	}
	p.finishing = func() {
		if !<-waited || !extends(t, h) {
			t.Error("extends wait for what is behind the quote")
		}
	}
	held := time.Hour
	for range 5 { // the best of several: this machine may be busy
		e, err := h.Evidence(ctx, []byte{1})
		if err != nil {
			t.Fatal(err)
		}
		w := &writer{first: func() {
			if !extends(t, h) {
				t.Error("extends wait for the logs to be written")
			}
		}}
		if n, err := e.WriteTo(w); err != nil || n != e.Size() {
			t.Fatalf("%d of %d bytes, %v", n, e.Size(), err)
		}
		e.Close()
		b, err := evidence.Read(w.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		oneMoment(t, b)
		status := h.Status().Evidence
		if status.QuoteSeconds < quote.Seconds() {
			t.Errorf("the quote took %v s", status.QuoteSeconds)
		}
		held = min(held, time.Duration(status.HeldSeconds*float64(time.Second)))
	}
	t.Logf("extends waited %v beside the quote", held)
	if held >= most {
		t.Errorf("extends waited %v beside the quote, expected less than %v", held, most)
	}
}

// A client that goes away leaves nothing half done.
func TestClientGone(t *testing.T) {
	d := newDevice()
	p := new(prover)
	h := proving(t, d, p, 3)
	app, err := guest.Measure("x", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	extending, release := make(chan struct{}), make(chan struct{})
	d.before = func() error { d.before = nil; close(extending); <-release; return nil }

	first, leave := context.WithCancel(ctx)
	errs := make(chan error, 2)
	go func() { _, err := h.Extend(first, pcr11, "first", app); errs <- err }()
	<-extending
	leave() // while its measurement is journaled and not extended: it is extended
	second, leave := context.WithCancel(ctx)
	go func() { _, err := h.Extend(second, pcr11, "second", app); errs <- err }()
	leave() // while it waits for the first, or before: it is not journaled
	if _, err := h.Values(second); !errors.Is(err, context.Canceled) {
		t.Errorf("values: %v", err)
	}
	close(release)
	if a, b := <-errs, <-errs; (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), context.Canceled) {
		t.Errorf("%v and %v, expected one to be extended and one not", a, b)
	}
	if s := h.Status(); s.Behind != 0 || s.Journal.Applications != 1 {
		t.Errorf("%+v", s)
	}

	// Who waits for another's evidence and goes away has no quote made for it.
	quoting, finish := make(chan struct{}), make(chan struct{})
	p.quoting = func() { close(quoting); <-finish }
	go func() { _, err := h.Evidence(ctx, []byte{1}); errs <- err }()
	<-quoting
	third, leave := context.WithTimeout(ctx, 10*time.Millisecond)
	defer leave()
	if _, err := h.Evidence(third, []byte{1}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("evidence: %v", err)
	}
	close(finish)
	if err := <-errs; err != nil || p.quotes != 1 {
		t.Errorf("%d quotes, %v", p.quotes, err)
	}
}

// The journal of the evidence is the one that is held, whatever is at its path.
func TestEvidenceOfTheJournalHeld(t *testing.T) {
	d := newDevice()
	p := &prover{Device: d}
	path := filepath.Join(t.TempDir(), "journal.cel")
	h, err := guest.New(ctx, guest.Config{Device: d, Journal: path, IMADir: t.TempDir(), Prover: p})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if !extends(t, h) {
		t.Fatal("not extended")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	oneMoment(t, bundle(t, h))
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	oneMoment(t, bundle(t, h))

	// Those that were put aside are in it, the last nine, by whichever process.
	for i := range 11 {
		if err := os.WriteFile(fmt.Sprintf("%s.damaged-%d", path, i+1), fmt.Append(nil, i+1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if damaged := bundle(t, h).Damaged; len(damaged) != 9 || string(damaged[0]) != "3" || string(damaged[8]) != "11" {
		t.Errorf("%q", damaged)
	}
}

func TestEvidenceRefuses(t *testing.T) {
	h := proving(t, newDevice(), new(prover), 1)
	for _, nonce := range [][]byte{nil, make([]byte, 65), make([]byte, 32)} {
		if e, err := h.Evidence(ctx, nonce); err == nil {
			e.Close()
			t.Errorf("a nonce %x", nonce)
		}
	}
	if e, err := h.Evidence(ctx, bytes.Repeat([]byte{1}, 64)); err != nil {
		t.Error(err)
	} else if _, err := e.WriteTo(io.Discard); err != nil {
		t.Error(err)
	}
}
