//go:build linux

package guest_test

import (
	"bytes"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// outliving is registers that outlive a kernel, as a TD's and a TPM's do.
type outliving struct {
	*rtmr.Memory
	kind string
}

func (d outliving) Describe() rtmr.Description {
	x := d.Memory.Describe()
	x.Kind = d.kind
	return x
}

var (
	rtmr2 = rtmr.MustParse("rtmr2")
	rtmr3 = rtmr.MustParse("rtmr3")
)

func td() outliving {
	return outliving{rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmr.MRTD, rtmr.MustParse("rtmr0"), rtmr.MustParse("rtmr1"), rtmr2, rtmr3), "tdx"}
}

// caughtUp says that so many entries of the list were followed, and more were waited
// for.
func caughtUp(n int) func(h *guest.Helper) bool {
	return func(h *guest.Helper) bool { s := h.Status(); return s.IMA >= n && s.Behind == 0 }
}

// foldOf is what entries of a list make of a register, one after another.
func foldOf(t *testing.T, alg rtmr.Alg, lists ...[]byte) []byte {
	t.Helper()
	value := make([]byte, alg.Size())
	for _, list := range lists {
		r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: []rtmr.Alg{alg}})
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range r.Measurements() {
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(m.Digests, func(d rtmr.Digest) bool { return d.Alg == alg })
			alg.Extend(value, m.Digests[i].Sum)
		}
	}
	return value
}

// split cuts a list before its n-th entry that satisfies what.
func split(t *testing.T, list []byte, what func(i int, e *ima.Entry) bool) (before, behind []byte) {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if what(m.Index, m.Entry.(*ima.Entry)) {
			return list[:m.Offset], list[m.Offset:]
		}
	}
	t.Fatal("no such entry")
	return nil, nil
}

// secondBoot is where the list of another kernel begins in one that was carried over.
func secondBoot(i int, e *ima.Entry) bool {
	_, ok := e.BootAggregate()
	return ok && i > 0
}

func count(t *testing.T, list []byte) int {
	k := &kernel{t, t.TempDir()}
	k.set(list)
	return len(all(t, guest.OpenList(k.dir, nil, nil)))
}

// After a kexec /run is gone and a TD's registers are what they were. The list is a
// new one: all of it is extended, once, and the journal's base says from where.
func TestKexecNotCarried(t *testing.T) {
	first, second := fixture(t, "kexec-6.12/first-ima.bin"), fixture(t, "kexec-6.12/ima.bin")
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(first)
	run(t, guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}, caughtUp(count(t, first))).Close()

	k.set(second)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	for range 2 { // and by a helper that starts again
		run(t, cfg, caughtUp(count(t, second))).Close()
		if got, want := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2], foldOf(t, rtmr.SHA384, first, second); !bytes.Equal(got, want) {
			t.Errorf("rtmr2 is %s, of both lists it is %x", got, want)
		}
	}
	base := must(os.ReadFile(cfg.Journal))(t)
	if want := rtmr.Hex(foldOf(t, rtmr.SHA384, first)).String(); !bytes.Contains(base, []byte(want)) {
		t.Errorf("no base of %s in the journal", want)
	}
}

// The list is carried over the kexec: what the helper before it extended is not
// extended again, and the journal, which is made anew, folds from a TD's start to
// what the registers hold. A power cut in between changes nothing.
func TestKexecCarried(t *testing.T) {
	list := fixture(t, "kexec-carried-7.3/ima.bin")
	first, _ := split(t, list, secondBoot)
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(first)
	run(t, guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}, caughtUp(count(t, first))).Close()

	k.set(list)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Prover: prover(t, d)}
	for range 2 {
		h := run(t, cfg, caughtUp(count(t, list)))
		if got, want := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2], foldOf(t, rtmr.SHA384, list); !bytes.Equal(got, want) {
			t.Errorf("rtmr2 is %s, of the list it is %x", got, want)
		}
		check(t, d, cfg.Journal)
		b := bundle(t, h)
		oneMoment(t, b)
		if !bytes.Equal(b.IMAList, list) {
			t.Errorf("evidence has %d bytes of a list of %d", len(b.IMAList), len(list))
		}
		h.Close()
	}
}

// What the helper before the kexec extended cannot be proven, for an application
// extended the register too: what the first kernel measured counts as extended.
func TestKexecCarriedUnproven(t *testing.T) {
	list := fixture(t, "kexec-carried-7.3/ima.bin")
	first, second := split(t, list, secondBoot)
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(first)
	h := run(t, guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}, caughtUp(count(t, first)))
	if _, err := h.Extend(ctx, rtmr2, "test", must(guest.Measure("x", "", strings.NewReader("x")))(t)); err != nil {
		t.Fatal(err)
	}
	h.Close()
	want := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2]
	r, err := ima.NewReader(bytes.NewReader(second), ima.Options{Banks: []rtmr.Alg{rtmr.SHA384}})
	if err != nil {
		t.Fatal(err)
	}
	for m := range r.Measurements() {
		rtmr.SHA384.Extend(want, m.Digests[1].Sum)
	}
	k.set(list)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	for range 2 {
		run(t, cfg, caughtUp(count(t, list))).Close()
		if got := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2]; !bytes.Equal(got, want) {
			t.Errorf("rtmr2 is %s, expected %s", got, want)
		}
	}
}

func prover(t *testing.T, d rtmr.Device) guest.Prover {
	t.Helper()
	return must(guest.NewProver(ctx, d))(t)
}

// The journal is put aside, or removed; the helper starts, and starts again: neither
// the boot log nor the list is extended a second time.
func TestJournalLost(t *testing.T) {
	const machine = "shim-grub-sb-6.12"
	for name, lose := range map[string]func(path string) error{
		"removed":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"damaged": func(path string) error {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content[len(content)/2] ^= 1
			return os.WriteFile(path, content, 0o600)
		},
		"damaged at its beginning": func(path string) error {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content[3] ^= 1
			return os.WriteFile(path, content, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := &kernel{t, t.TempDir()}
			list := fixture(t, machine+"/ima.bin")
			half, _ := split(t, list, func(i int, _ *ima.Entry) bool { return i == count(t, list)/2 })
			k.set(half)
			d := pcrs(banks...)
			cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Prover: prover(t, d),
				Mirror: true, FirmwareLog: &guest.BootLog{Path: "boot.bin", Data: fixture(t, machine+"/boot.bin")},
				Own: []guest.OwnEvent{{Type: "own:test", PCR: 15, Data: []byte("x")}}} // which a boot log is in place of
			run(t, cfg, caughtUp(count(t, half))).Close()
			if err := lose(cfg.Journal); err != nil {
				t.Fatal(err)
			}
			for _, now := range [][]byte{half, list, list} {
				k.set(now)
				h := run(t, cfg, caughtUp(count(t, now)))
				b := bundle(t, h)
				if name != "removed" && name != "truncated" && len(b.Damaged) != 1 {
					t.Errorf("%d damaged journals in the evidence", len(b.Damaged))
				}
				if !bytes.Equal(b.IMAList, now) {
					t.Errorf("evidence has %d bytes of a list of %d", len(b.IMAList), len(now))
				}
				h.Close()
			}
			sameAsTPM(t, machine, d)
		})
	}
}

// A TPM whose kernel extends IMA's entries itself: the helper extends applications'
// alone, and its evidence's logs fold to the registers, also where the list was
// trimmed meanwhile, and where the helper starts before the list is there.
func TestKernelExtends(t *testing.T) {
	const machine = "sig-6.12"
	list := fixture(t, machine+"/ima.bin")
	entries := count(t, list)
	half, rest := split(t, list, func(i int, _ *ima.Entry) bool { return i == entries/2 })
	d := outliving{pcrs(banks...), "tpm"}
	// What firmware and kernel extended, by the machine's own values.
	for m, err := range logOf(t, evidence.ItemBootLog, fixture(t, machine+"/boot.bin")) {
		if err != nil {
			t.Fatal(err)
		}
		if !m.NoAction {
			extendAs(t, d, m)
		}
	}
	imaInto := func(list []byte) {
		r := must(ima.NewReader(bytes.NewReader(list), ima.Options{Banks: banks}))(t)
		for m, err := range r.Measurements() {
			if err != nil {
				t.Fatal(err)
			}
			extendAs(t, d, m)
		}
	}
	k := &kernel{t, t.TempDir()}
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Prover: prover(t, d),
		FirmwareLog: &guest.BootLog{Path: "boot.bin", Data: fixture(t, machine+"/boot.bin")}}
	extend := func(h *guest.Helper, text string) {
		now, err := h.Extend(ctx, rtmr.MustParse("pcr15"), "test", must(guest.Measure(text, text, strings.NewReader(text)))(t))
		if !now || err != nil {
			t.Fatal(now, err)
		}
	}
	fold := func(h *guest.Helper) {
		t.Helper()
		b := bundle(t, h)
		if !bytes.Equal(b.IMAList, list[:len(b.IMAList)]) {
			t.Error("another list")
		}
		all := replay.New(replay.Options{})
		for _, log := range b.Logs() {
			if log.Role != "folded" {
				t.Errorf("%s is %s", log.Item, log.Role)
			}
			if _, err := all.Log(logOf(t, log.Item, log.Data)); err != nil {
				t.Fatalf("%s: %v", log.Item, err)
			}
		}
		for _, v := range all.Registers() {
			if live := b.Values[v.Alg][v.Register]; len(live) > 0 && !bytes.Equal(live, v.Value) {
				t.Errorf("%s %s is %s, the logs fold to %s", v.Alg, v.Register, live, v.Value)
			}
		}
	}
	h := run(t, cfg, func(*guest.Helper) bool { return true }) // no list yet
	extend(h, "early")
	h.Close()
	k.set(half)
	imaInto(half)
	h = run(t, cfg, func(*guest.Helper) bool { return true })
	extend(h, "a")
	fold(h)
	// All is staged, and there is more; the staged part is deleted while no helper runs.
	k.stage()
	k.set(rest[:len(rest)/2])
	fold0, _ := split(t, rest, func(i int, _ *ima.Entry) bool { return i == 20 })
	k.set(fold0)
	imaInto(fold0)
	fold(h)
	h.Close()
	k.unstage()
	k.set(rest)
	imaInto(rest[len(fold0):])
	h = run(t, cfg, func(*guest.Helper) bool { return true })
	extend(h, "b")
	fold(h)
	h.Close()
	sameAsTPM(t, machine, d)
	n := 0
	for _, text := range check(t, d, cfg.Journal) {
		if strings.Contains(text, `"name":`) {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d of 3 extends by applications in the journal", n)
	}
}

// logOf reads a log of a bundle.
func logOf(t *testing.T, item string, data []byte) iter.Seq2[rtmr.Measurement, error] {
	t.Helper()
	switch item {
	case evidence.ItemBootLog:
		return must(eventlog.NewReader(bytes.NewReader(data), eventlog.Options{}))(t).Measurements()
	case evidence.ItemIMAList:
		return must(ima.NewReader(bytes.NewReader(data), ima.Options{Banks: banks}))(t).Measurements()
	}
	return cel.NewReader(bytes.NewReader(data), cel.TLV).Measurements()
}

// extendAs extends a device as a log's entry says that another was.
func extendAs(t *testing.T, d rtmr.Device, m rtmr.Measurement) {
	t.Helper()
	if err := d.Extend(ctx, m.Register, m.Digests); err != nil {
		t.Fatal(err)
	}
}

// Measurements of which nobody knows whether they were extended, for others extended
// while no helper ran: who asks again with the key is not told that it was.
func TestKeyInDoubt(t *testing.T) {
	d := newDevice()
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir()}
	app := func(key string) *guest.App { return must(guest.Measure("x", key, strings.NewReader("x")))(t) }
	h := must(guest.New(ctx, cfg))(t)
	if now, err := h.Extend(ctx, pcr10, "test", app("known")); !now || err != nil {
		t.Fatal(now, err)
	}
	d.before = func() error { return errors.New("input/output error") }
	if _, err := h.Extend(ctx, pcr11, "test", app("in doubt")); err == nil {
		t.Fatal("no error")
	}
	d.before = nil
	h.Close()
	if err := d.Memory.Extend(ctx, pcr11, measurement(pcr11, "others'").Digests); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h = must(guest.New(ctx, cfg))(t)
		if now, err := h.Extend(ctx, pcr11, "test", app("in doubt")); now || !errors.Is(err, guest.ErrUndecided) {
			t.Errorf("in doubt: %v, %v", now, err)
		}
		if now, err := h.Extend(ctx, pcr10, "test", app("known")); now || err != nil {
			t.Errorf("known: %v, %v", now, err)
		}
		h.Close()
	}
}

// A helper that is told to stop extends what it has journaled: after a kexec nobody
// would.
func TestStopExtends(t *testing.T) {
	k, d := &kernel{t, t.TempDir()}, &device{Memory: pcrs(banks...)}
	list := join(entries(100, false)...)
	k.set(list)
	running, stop := withTimeout(t, 20*time.Second)
	n := 0
	d.after = func() error {
		if n++; n == 10 {
			stop()
		}
		return nil
	}
	h := must(guest.New(ctx, guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}))(t)
	defer h.Close()
	h.Run(running)
	if s := h.Status(); s.IMA != 100 || s.Behind != 0 {
		t.Errorf("%d of the list journaled, %d of them not extended", s.IMA, s.Behind)
	}
}

// An entry that is too long for the journal ends nothing: its absence is extended.
func TestLongEntry(t *testing.T) {
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(join(listEntry(10, "boot_aggregate", false), listEntry(10, strings.Repeat("x", cel.MaxRecordSize-120), false), listEntry(10, "/b", false)))
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	for range 2 {
		run(t, cfg, caughtUp(3)).Close()
		if texts := check(t, d, cfg.Journal); len(texts) != 3 || !strings.HasPrefix(texts[1], `{"template":"ima-ng","entry":"`) {
			t.Errorf("%.200q", texts)
		}
	}
}
