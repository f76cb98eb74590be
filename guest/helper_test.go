//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallystick/guest"
	"tallystick/rtmr"
)

// run runs a helper until the condition holds.
func run(t *testing.T, cfg guest.Config, until func(h *guest.Helper) bool) *guest.Helper {
	t.Helper()
	cfg.Wake = guest.Poll(time.Millisecond)
	h, err := guest.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	for !until(h) {
		if ctx.Err() != nil {
			t.Fatalf("the condition did not come true: %+v", h.Status())
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	return h
}

func pcrs(banks ...rtmr.Alg) *rtmr.Memory {
	var registers []rtmr.Register
	for i := range rtmr.NumPCRs {
		r, _ := rtmr.PCR(i).Register()
		registers = append(registers, r)
	}
	return rtmr.NewMemory(banks, registers...)
}

// A boot log and an IMA list come to the values that the machine's TPM had.
func TestHelper(t *testing.T) {
	for _, machine := range []string{"shim-grub-sb-6.12", "violations-7.3", "uki-ovmf2025-7.3"} {
		t.Run(machine, func(t *testing.T) {
			k := &kernel{t, t.TempDir()}
			list := fixture(t, machine+"/ima.bin")
			k.set(list[:len(list)/3])
			d := pcrs(banks...)
			cfg := guest.Config{
				Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir,
				Mirror: true, FirmwareLog: &guest.BootLog{Path: "boot.bin", Data: fixture(t, machine+"/boot.bin")},
			}
			some := run(t, cfg, func(h *guest.Helper) bool { return h.Status().IMA > 0 })
			some.Close()
			k.set(list)
			entries := len(all(t, guest.OpenList(k.dir, banks, nil)))
			h := run(t, cfg, caughtUp(entries))
			if s := h.Status(); s.Error != "" {
				t.Error(s.Error)
			}
			check(t, d, cfg.Journal)
			sameAsTPM(t, machine, d)
		})
	}
}

// sameAsTPM holds the registers that logs explain against the machine's TPM.
func sameAsTPM(t *testing.T, machine string, d rtmr.Device) {
	t.Helper()
	want := machineValues(t, machine)
	got, err := d.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range banks {
		for _, i := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14} {
			r, _ := rtmr.PCR(i).Register()
			if !bytes.Equal(got[a][r], want[a][r]) {
				t.Errorf("%s %s is %s, the TPM had %s", a, r, got[a][r], want[a][r])
			}
		}
	}
}

// An application's request is answered once for each key, and again by a helper
// that starts anew.
func TestApp(t *testing.T) {
	k := &kernel{t, t.TempDir()}
	d := rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmr.MRTD, rtmr.MustParse("rtmr2"), rtmr.MustParse("rtmr3"))
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	rtmr3 := rtmr.MustParse("rtmr3")
	app := func(name, key string) *guest.App {
		a, err := guest.Measure(name, key, strings.NewReader("content of "+name))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i := range 2 {
		h, err := guest.New(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			now, err := h.Extend(ctx, rtmr3, "image", app("a", "key 1"))
			if err != nil || now != (i == 0) {
				t.Fatalf("helper %d: %v, %v", i, now, err)
			}
			i = 1
		}
		if _, err := h.Extend(ctx, rtmr3, "image", app("b", "key 1")); !errors.Is(err, guest.ErrKeyUsed) {
			t.Errorf("another measurement with the key: %v", err)
		}
		if now, err := h.Extend(ctx, rtmr3, "image", app("a", "")); err != nil || !now {
			t.Errorf("without a key: %v, %v", now, err)
		}
		if _, err := h.Extend(ctx, rtmr.MRTD, "image", app("a", "")); !errors.Is(err, rtmr.ErrNotWritable) {
			t.Errorf("mrtd: %v", err)
		}
		if _, err := h.Extend(ctx, rtmr.MustParse("pcr10"), "image", app("a", "")); !errors.Is(err, rtmr.ErrNotSupported) {
			t.Errorf("pcr10: %v", err)
		}
		if _, err := h.Extend(ctx, rtmr3, "an image", app("a", "")); err == nil {
			t.Error("a type with a space")
		}
		h.Close()
	}
	if texts := check(t, d, cfg.Journal); len(texts) != 3 || !strings.Contains(texts[0], `"name":"a"`) {
		t.Errorf("journaled: %q", texts)
	}
}

// A journal that is lost takes nothing with it: what its helper had extended is
// found in the kernel's list.
func TestSalvage(t *testing.T) {
	const machine = "sig-6.12"
	k := &kernel{t, t.TempDir()}
	list := fixture(t, machine+"/ima.bin")
	k.set(list[:len(list)/2])
	d := pcrs(banks...)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	half := len(all(t, guest.OpenList(k.dir, banks, nil)))
	run(t, cfg, caughtUp(half)).Close()

	content, err := os.ReadFile(cfg.Journal)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(cfg.Journal, content, 0o600); err != nil {
		t.Fatal(err)
	}
	k.set(list)
	entries := len(all(t, guest.OpenList(k.dir, banks, nil)))
	h := run(t, cfg, caughtUp(entries))
	if r := h.Status().Recovery; r.Damaged == "" && r.Foreign == "" {
		t.Errorf("%+v, expected to be told", r)
	}
	held(t, machine, all(t, guest.OpenList(k.dir, banks, nil)))
	want, got := machineValues(t, machine), must(d.Read(ctx, pcr10))(t)
	for _, a := range banks {
		if !bytes.Equal(got[a][pcr10], want[a][pcr10]) {
			t.Errorf("%s pcr10 is %s, the TPM had %s", a, got[a][pcr10], want[a][pcr10])
		}
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func withTimeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	c, cancel := context.WithTimeout(ctx, d)
	t.Cleanup(cancel)
	return c, cancel
}

// until waits for a condition.
func until(t *testing.T, within context.Context, true func() bool) {
	t.Helper()
	for !true() {
		if within.Err() != nil {
			t.Fatal("the condition did not come true")
		}
		time.Sleep(time.Millisecond)
	}
}

// Of an extend of another device's register the helper takes no notice: a machine may
// have several.
func TestSawOfAnother(t *testing.T) {
	k := &kernel{t, t.TempDir()}
	cfg := guest.Config{Device: pcrs(rtmr.SHA256), Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Tapped: true}
	h, err := guest.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	rtmr2 := rtmr.MustParse("rtmr2")
	if err := h.Saw(ctx, guest.Other{Register: rtmr2, Digest: rtmr.Digest{Alg: rtmr.SHA384, Sum: make([]byte, 48)}}); err != nil {
		t.Error(err)
	}
}
