//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/replay"
	"tallystick/rtmr"
)

// Evidence is asked for while the kernel's list is followed and applications extend:
// each bundle is of one moment, in which the journal folds to the values and has the
// IMA list's entries, no more and no fewer.
func TestEvidence(t *testing.T) {
	dir := t.TempDir()
	list, err := os.Create(filepath.Join(dir, "binary_runtime_measurements"))
	if err != nil {
		t.Fatal(err)
	}
	if err := imagen.Write(list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, 2000); err != nil {
		t.Fatal(err)
	}
	list.Close()
	d := newDevice()
	prover, err := guest.NewProver(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	h, err := guest.New(ctx, guest.Config{Device: d, Journal: filepath.Join(dir, "journal.cel"), IMADir: dir, Prover: prover})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	running, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Run(running); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	wg.Go(func() {
		for i := 0; running.Err() == nil && i < 2000; i++ {
			app, err := guest.Measure("x", fmt.Sprint("key ", i), strings.NewReader("x"))
			if err == nil {
				_, err = h.Extend(ctx, pcr11, "test", app)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	for range 20 {
		oneMoment(t, bundle(t, h))
	}
	stop()
	wg.Wait()
}

// bundle has the helper make evidence, and reads it.
func bundle(t *testing.T, h *guest.Helper) *evidence.Bundle {
	t.Helper()
	e, err := h.Evidence(ctx, []byte{1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var data bytes.Buffer
	if n, err := e.WriteTo(&data); err != nil || n != e.Size() {
		t.Fatalf("%d of %d bytes, %v", n, e.Size(), err)
	}
	b, err := evidence.Read(data.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func oneMoment(t *testing.T, b *evidence.Bundle) {
	t.Helper()
	fold := replay.New(replay.Options{})
	journaled, listed := 0, 0
	for m, err := range cel.NewReader(bytes.NewReader(b.Journal), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		fold.Add(&m)
		if m.Entry.(*cel.Entry).ContentType() == cel.ContentIMATemplate {
			journaled++
		}
	}
	for _, v := range fold.Registers() {
		if !bytes.Equal(v.Value, b.Values[v.Alg][v.Register]) {
			t.Fatalf("%s %s is %s, the journal folds to %s", v.Alg, v.Register, b.Values[v.Alg][v.Register], v.Value)
		}
	}
	if len(b.IMAList) > 0 {
		r, err := ima.NewReader(bytes.NewReader(b.IMAList), ima.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range r.Measurements() {
			if err != nil {
				t.Fatal(err)
			}
			listed++
		}
	}
	if listed != journaled {
		t.Fatalf("%d entries in the list, %d in the journal", listed, journaled)
	}
}
