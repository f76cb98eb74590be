//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/rtmr"
)

// faulty is a device that fails as its functions say.
type faulty struct {
	*device
	name, kind string
	readFails  func() error
	denied     rtmr.Register
}

func (d *faulty) Describe() rtmr.Description {
	x := d.device.Describe()
	if d.kind != "" {
		x.Kind = d.kind
	}
	if d.name != "" {
		x.Name = d.name
	}
	return x
}

func (d *faulty) Read(ctx context.Context, r ...rtmr.Register) (rtmr.Values, error) {
	if d.readFails != nil {
		if err := d.readFails(); err != nil {
			return nil, err
		}
	}
	return d.device.Read(ctx, r...)
}

func (d *faulty) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	if r == d.denied {
		return fmt.Errorf("extend %s: %w", r, rtmr.ErrDenied)
	}
	return d.device.Extend(ctx, r, digests)
}

// put extends texts into a register.
func put(t *testing.T, e *guest.Extender, r rtmr.Register, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if n, err := e.Extend(ctx, measurement(r, text)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
}

// values are what texts make of a register.
func values(t *testing.T, r rtmr.Register, texts ...string) rtmr.Hex {
	t.Helper()
	d := newDevice()
	for _, text := range texts {
		if err := d.Memory.Extend(ctx, r, measurement(r, text).Digests); err != nil {
			t.Fatal(err)
		}
	}
	return value(t, d, r)
}

func value(t *testing.T, d rtmr.Device, r rtmr.Register) rtmr.Hex {
	t.Helper()
	return must(d.Read(ctx, r))(t)[rtmr.SHA256][r]
}

// An extend took place, the device does not know, and cannot be read at that moment:
// when it can be again, the extend is not made a second time.
func TestUnknownAndUnread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := &faulty{device: newDevice()}
	e := open(t, d, path)
	defer e.Close()
	failure, lost := errors.New("input/output error"), false
	d.after = func() error {
		if lost {
			return nil
		}
		lost = true
		return rtmr.ErrUnknown
	}
	d.readFails = func() error {
		if lost {
			return failure
		}
		return nil
	}
	if n, err := e.Extend(ctx, measurement(pcr10, "one")); n != 1 || !errors.Is(err, failure) {
		t.Fatal(n, err)
	}
	if err := e.CatchUp(ctx); !errors.Is(err, failure) { // and once more, for good measure
		t.Fatal(err)
	}
	d.readFails = nil
	if err := e.CatchUp(ctx); err != nil {
		t.Fatal(err)
	}
	check(t, d, path)
	if got := value(t, d, pcr10); !bytes.Equal(got, values(t, pcr10, "one")) {
		t.Errorf("pcr10 holds %s", got)
	}
}

// Who asked for an extend has gone, and the device does not know whether it extended:
// that is found out all the same.
func TestUnknownAndCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	defer e.Close()
	asking, gone := context.WithCancel(ctx)
	d.after = func() error {
		gone()
		d.after = nil
		return rtmr.ErrUnknown
	}
	if n, err := e.Extend(asking, measurement(pcr10, "one")); n != 1 || err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(n, err)
	}
	put(t, e, pcr10, "two")
	check(t, d, path)
	if got := value(t, d, pcr10); !bytes.Equal(got, values(t, pcr10, "one", "two")) {
		t.Errorf("pcr10 holds %s", got)
	}
}

// An extend that the device does not know of and others' beside it, and no room to
// journal that: the device is not asked again, and the base comes when there is room.
func TestUnknownForeignFull(t *testing.T) {
	dir := tmpfs(t)
	path := filepath.Join(dir, "journal.cel")
	d := newDevice()
	open(t, d, path).Close()
	pad(t, d, path, 800) // room for the measurement and not for a base
	e := open(t, d, path)
	defer e.Close()
	fill(t, dir)
	extends := 0
	d.after = func() error {
		if extends++; extends == 1 {
			d.Memory.Extend(ctx, pcr10, measurement(pcr10, "others'").Digests)
			return rtmr.ErrUnknown
		}
		return nil
	}
	for range 2 {
		if _, err := e.Extend(ctx, measurement(pcr10, "one")); !errors.Is(err, guest.ErrJournalFull) {
			t.Fatal(err)
		}
	}
	os.Remove(filepath.Join(dir, "fill"))
	if err := e.CatchUp(ctx); !errors.Is(err, guest.ErrUndecided) {
		t.Errorf("%v, want ErrUndecided", err)
	}
	if err := e.CatchUp(ctx); err != nil || extends != 1 {
		t.Errorf("%v; extended %d times", err, extends)
	}
	var last evidence.Base
	for _, b := range bases(t, path) {
		last = b
	}
	if last.Reason != evidence.Foreign || last.Unknown[pcr10] != 1 || last.Behind[pcr10] != 0 || !bytes.Equal(last.Registers[rtmr.SHA256][pcr10], value(t, d, pcr10)) {
		t.Errorf("%+v", last)
	}
}

// tmpfs mounts a small file system.
func tmpfs(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("a file system cannot be mounted:", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill leaves no page free.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// pad makes the journal, which nobody holds, so long that its last page has so many
// bytes left, with nothing reserved behind it.
func pad(t *testing.T, d rtmr.Device, path string, left int) {
	t.Helper()
	e := open(t, d, path)
	size := func() int { return int(must(os.Stat(path))(t).Size()) }
	before := size()
	put(t, e, pcr10, "x")
	one := size() - before - 1
	n := 4096 - left - (size()+one)%4096
	for n < 1 {
		n += 4096
	}
	put(t, e, pcr10, strings.Repeat("x", n))
	e.Close()
	content := must(os.ReadFile(path))(t)
	if got := len(content) % 4096; got != 4096-left {
		t.Fatal(got)
	}
	os.Remove(path)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bases are those of a journal.
func bases(t *testing.T, path string) (found []evidence.Base) {
	t.Helper()
	for m, err := range cel.NewReader(bytes.NewReader(must(os.ReadFile(path))(t)), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if b, ok, err := evidence.ParseBase(m.Entry.Data()); err != nil {
			t.Fatal(err)
		} else if ok {
			found = append(found, b)
		}
	}
	return found
}

// restart writes the journal as that of another start would be.
func restart(t *testing.T, path string, change func(*evidence.Base)) {
	t.Helper()
	var b bytes.Buffer
	w := cel.NewWriter(&b, cel.TLV)
	for m, err := range cel.NewReader(bytes.NewReader(must(os.ReadFile(path))(t)), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if base, ok, _ := evidence.ParseBase(m.Entry.Data()); ok && m.Index == 0 {
			change(&base)
			m.Entry = informational(must(base.EventData())(t))
		}
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

type informational string

func (e informational) Type() string                            { return "EV_NO_ACTION" }
func (e informational) Detail() string                          { return string(e) }
func (e informational) Data() []byte                            { return []byte(e) }
func (e informational) Verify(rtmr.Digest) (rtmr.Check, []byte) { return rtmr.CannotCheck, nil }

// A journal is of another boot, or of another device, though the registers hold what
// they held when it began: nothing of it is extended, it is kept and called what it is.
func TestOtherJournal(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*evidence.Base)
		device *faulty
		aside  string
	}{
		{"boot", func(b *evidence.Base) { b.Boot = "7d1cf6a2-0f4c-4b8c-9d4a-5f7b4f1f7c11" }, &faulty{device: newDevice()}, ".other-boot"},
		{"no boot", func(b *evidence.Base) { b.Boot = "" }, &faulty{device: newDevice()}, ".other-boot"},
		{"kind", func(b *evidence.Base) {}, &faulty{device: newDevice(), kind: "tpm"}, ".other-device"},
		{"name", func(b *evidence.Base) {}, &faulty{device: newDevice(), name: "another"}, ".other-device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.cel")
			for range 2 { // the second takes the first one's place
				e := open(t, newDevice(), path)
				put(t, e, pcr10, "one", "two")
				e.Close()
				restart(t, path, c.change)
				content := must(os.ReadFile(path))(t)
				e, err := guest.OpenExtender(ctx, c.device, path, func(m rtmr.Measurement) { t.Errorf("taken up: %s", m.Entry.Data()) })
				if err != nil {
					t.Fatal(err)
				}
				if r := e.Recovery(); r.Other != path+c.aside || r.Damaged != "" || r.Behind != 0 || r.Records != 0 || r.Reason == "" {
					t.Errorf("%+v", r)
				}
				if got := value(t, c.device, pcr10); !bytes.Equal(got, values(t, pcr10)) {
					t.Errorf("pcr10 was extended, to %s", got)
				}
				if kept := must(os.ReadFile(path + c.aside))(t); !bytes.Equal(kept, content) {
					t.Error("it was not kept")
				}
				e.Close()
				b := bases(t, path)[0]
				d := c.device.Describe()
				if want := (evidence.Device{Kind: d.Kind, Name: d.Name}); b.Boot != bootID(t) || b.Device == nil || *b.Device != want || len(b.Damaged) != 0 {
					t.Errorf("the new one begins with %+v", b)
				}
				os.Remove(path)
			}
		})
	}
}

func bootID(t *testing.T) string {
	return strings.TrimSpace(string(must(os.ReadFile("/proc/sys/kernel/random/boot_id"))(t)))
}

// What a damaged journal says before the damage is not lost: what it has that was not
// extended is, and whoever opens the next journal, and the one after, is told of it.
func TestDamagedIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	put(t, e, pcr11, "eleven")
	e.Close()
	// As if the process had died behind the write, and then the file was spoilt.
	d.before = func() error { return errors.New("no") }
	e = open(t, d, path)
	e.Extend(ctx, measurement(pcr10, "journaled alone"))
	e.Close()
	d.before = nil
	spoil(t, path)
	for i := range 3 {
		if i == 2 { // a second one
			spoil(t, path)
		}
		var told []string
		e, err := guest.OpenExtender(ctx, d, path, func(m rtmr.Measurement) {
			if !m.NoAction {
				told = append(told, string(m.Entry.Data()))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(value(t, d, pcr10), values(t, pcr10, "journaled alone")) || !bytes.Equal(value(t, d, pcr11), values(t, pcr11, "eleven")) {
			t.Errorf("opening %d: other registers", i)
		}
		if want := []string{"eleven", "journaled alone"}; !slices.Equal(told, want) {
			t.Errorf("opening %d: told of %q, want %q", i, told, want)
		}
		want := []string{path + ".damaged-1"}
		if i == 2 {
			want = append(want, path+".damaged-2")
		}
		if r := e.Recovery(); !slices.Equal(e.Damaged(), want) || r.Damaged != want[len(want)-1] || r.Reason == "" {
			t.Errorf("opening %d: %q, %+v", i, e.Damaged(), r)
		}
		e.Close()
	}
}

// spoil appends what is no record.
func spoil(t *testing.T, path string) {
	t.Helper()
	f := must(os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600))(t)
	defer f.Close()
	if _, err := f.WriteString("no record at all"); err != nil {
		t.Fatal(err)
	}
}

// A helper dies while it puts a journal aside, with both names there: the next one does
// it again.
func TestPutAsideTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	if err := os.WriteFile(path, []byte("no record at all, as long as it may be"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, path+".damaged-1"); err != nil {
		t.Fatal(err)
	}
	e := open(t, newDevice(), path)
	defer e.Close()
	if got := e.Damaged(); !slices.Equal(got, []string{path + ".damaged-1"}) {
		t.Errorf("%q", got)
	}
}

// A process died in a write to the journal and others extended: what the journal has is
// extended, and it stays the journal.
func TestTornAndForeign(t *testing.T) {
	for _, theirs := range []rtmr.Register{pcr10, pcr11} {
		t.Run(theirs.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.cel")
			d := newDevice()
			e := open(t, d, path)
			put(t, e, pcr10, "a", "b")
			put(t, e, pcr11, "c")
			d.before = func() error { return errors.New("input/output error") }
			if n, err := e.Extend(ctx, measurement(pcr10, "journaled")); n != 1 || err == nil {
				t.Fatal(n, err)
			}
			whole := must(os.ReadFile(path))(t)
			d.before = nil
			put(t, e, pcr10, "torn")
			more := must(os.ReadFile(path))(t)[len(whole):]
			e.Close()
			for cut := 1; cut < len(more); cut++ {
				if err := os.WriteFile(path, append(bytes.Clone(whole), more[:cut]...), 0o600); err != nil {
					t.Fatal(err)
				}
				d := newDevice()
				for _, text := range []string{"a", "b"} {
					d.Memory.Extend(ctx, pcr10, measurement(pcr10, text).Digests)
				}
				d.Memory.Extend(ctx, pcr11, measurement(pcr11, "c").Digests)
				d.Memory.Extend(ctx, theirs, measurement(theirs, "others'").Digests)
				e := open(t, d, path)
				if r := e.Recovery(); r.Damaged != "" || r.Torn != cut || r.Foreign != fmt.Sprint([]rtmr.Register{theirs}) {
					t.Fatalf("cut at %d: %+v", cut, r)
				}
				if got := value(t, d, pcr10); theirs == pcr11 && !bytes.Equal(got, values(t, pcr10, "a", "b", "journaled")) {
					t.Fatalf("cut at %d: what was journaled was not extended", cut)
				}
				e.Close()
			}
		})
	}
}

// A length is altered in every way that one bit allows, in a record before which the
// register is known not to stand: that is no torn write.
func TestAlteredLength(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	e := open(t, newDevice(), path)
	put(t, e, pcr10, "first")
	before := len(must(os.ReadFile(path))(t))
	put(t, e, pcr10, "second", "third")
	e.Close()
	content := must(os.ReadFile(path))(t)
	aside := 0
	for at := before; at < len(content); at++ {
		for bit := range 8 {
			altered := bytes.Clone(content)
			altered[at] ^= 1 << bit
			if err := os.WriteFile(path, altered, 0o600); err != nil {
				t.Fatal(err)
			}
			d := newDevice()
			for _, text := range []string{"first", "second", "third"} {
				d.Memory.Extend(ctx, pcr10, measurement(pcr10, text).Digests)
			}
			e := open(t, d, path)
			r := e.Recovery()
			e.Close()
			if r.Torn > 0 {
				t.Fatalf("byte %d, bit %d: taken for a torn write: %+v", at-before, bit, r)
			}
			if r.Damaged != "" {
				aside++
				os.Remove(r.Damaged)
			}
		}
	}
	if aside < 8*8 {
		t.Errorf("put aside %d times", aside)
	}
}

// Helpers start at once and find a damaged journal: one holds the journal, and only one
// was put aside.
func TestPutAsideRace(t *testing.T) {
	for range 100 {
		path := filepath.Join(t.TempDir(), "journal.cel")
		if err := os.WriteFile(path, []byte("this is no journal at all, and long enough to be a record, or what?"), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDevice()
		var mu sync.Mutex
		var held []*guest.Extender
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				<-start
				e, err := guest.OpenExtender(ctx, d, path, nil)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					held = append(held, e)
				} else if !errors.Is(err, guest.ErrJournalHeld) {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait() // none is closed before all have tried
		if len(held) != 1 {
			t.Fatalf("%d helpers at once", len(held))
		}
		if aside := must(filepath.Glob(path + ".damaged-*"))(t); len(aside) != 1 {
			t.Errorf("put aside: %q", aside)
		}
		held[0].Close()
	}
}

// The journal, or its folder, is taken away or replaced while it is held: nobody else
// gets the path, unless all of the folder is another one.
func TestHeldWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	defer e.Close()
	put(t, e, pcr10, "one")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.OpenExtender(ctx, d, path, nil); !errors.Is(err, guest.ErrJournalHeld) {
		t.Errorf("%v, want ErrJournalHeld", err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.OpenExtender(ctx, d, path, nil); !errors.Is(err, guest.ErrJournalHeld) {
		t.Errorf("replaced: %v, want ErrJournalHeld", err)
	}
}

// One register cannot be extended for good: the others can, also after a restart, and
// what waits for it is not forgotten.
func TestOneRegisterFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := &faulty{device: newDevice(), denied: pcr11}
	for i := range 2 {
		e := open(t, d, path)
		n, err := e.Extend(ctx, measurement(pcr11, fmt.Sprint("denied ", i)))
		if want := 1 - i; n != want || !errors.Is(err, rtmr.ErrDenied) { // no more than the one waits
			t.Fatalf("%d journaled, %v; want %d, ErrDenied", n, err, want)
		}
		put(t, e, pcr10, fmt.Sprint(i))
		if err := e.CatchUp(ctx); !errors.Is(err, rtmr.ErrDenied) {
			t.Error(err)
		}
		e.Close()
	}
	d.denied = rtmr.Register{}
	e := open(t, d, path)
	defer e.Close()
	if r := e.Recovery(); r.Behind != 1 || r.Foreign != "" {
		t.Errorf("%+v", r)
	}
	check(t, d, path)
	if got := value(t, d, pcr11); !bytes.Equal(got, values(t, pcr11, "denied 0")) {
		t.Errorf("pcr11 holds %s", got)
	}
}

// limitFiles has writes behind n bytes of any file fail, until the function it returns
// is called.
func limitFiles(t *testing.T, n int64) (lift func()) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	set := func(limit uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: before.Max}); err != nil {
			t.Error(err)
		}
	}
	set(uint64(n))
	lift = sync.OnceFunc(func() { set(before.Cur); signal.Reset(syscall.SIGXFSZ) })
	t.Cleanup(lift)
	return lift
}

// Nothing can be written to the journal any more: that is told as what it is, ends a
// helper's Run, and a helper that opens it again goes on.
func TestJournalBroken(t *testing.T) {
	k := &kernel{t, t.TempDir()}
	k.set(nil)
	d := newDevice()
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Wake: guest.Poll(time.Millisecond)}
	h, err := guest.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	before := must(os.ReadFile(cfg.Journal))(t)
	lift := limitFiles(t, int64(len(before))+1)
	app := must(guest.Measure("x", "", strings.NewReader("x")))(t)
	if _, err := h.Extend(ctx, pcr11, "test", app); !errors.Is(err, guest.ErrJournalBroken) || !errors.Is(err, syscall.EFBIG) {
		t.Errorf("%v, want ErrJournalBroken, EFBIG", err)
	}
	lift()
	if _, err := h.Extend(ctx, pcr11, "test", app); !errors.Is(err, guest.ErrJournalBroken) {
		t.Errorf("%v, want ErrJournalBroken still", err)
	}
	k.set(fixture(t, "sig-6.12/ima.bin"))
	running, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	if err := h.Run(running); !errors.Is(err, guest.ErrJournalBroken) {
		t.Errorf("Run ended by %v", err)
	}
	h.Close()
	if after := must(os.ReadFile(cfg.Journal))(t); !bytes.Equal(before, after) {
		t.Error("something was written all the same")
	}
	e := open(t, d, cfg.Journal)
	defer e.Close()
	put(t, e, pcr10, "again")
	if r := e.Recovery(); r.Damaged != "" || r.Foreign != "" || r.Torn != 0 {
		t.Errorf("%+v", r)
	}
	check(t, d, cfg.Journal)
}

// A measurement that no journal can have is refused, and the next one is not.
func TestRecordError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	put(t, e, pcr10, "first")
	large := measurement(pcr10, "large")
	large.Entry = event(strings.Repeat("x", cel.MaxRecordSize))
	var refused *guest.RecordError
	if n, err := e.Extend(ctx, measurement(pcr10, "with it"), large); n != 0 || !errors.As(err, &refused) || refused.Index != 1 {
		t.Errorf("%d, %v; want a RecordError of measurement 1", n, err)
	}
	put(t, e, pcr10, "second")
	if texts := check(t, d, path); !slices.Equal(texts, []string{"first", "second"}) {
		t.Errorf("journaled: %.80q", texts)
	}
	e.Close()
	next := make(map[cel.Index]uint64)
	for m, err := range cel.NewReader(bytes.NewReader(must(os.ReadFile(path))(t)), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		entry := m.Entry.(*cel.Entry)
		if entry.RecNum != next[entry.Index] {
			t.Errorf("record %d of %s has the number %d", next[entry.Index], entry.Index, entry.RecNum)
		}
		next[entry.Index]++
	}
}

// A helper ended in order, and others extended then: nothing of ours is in doubt.
func TestStopped(t *testing.T) {
	for _, orderly := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "journal.cel")
		d := newDevice()
		e := open(t, d, path)
		put(t, e, pcr10, "one", "two")
		end := e.Close
		if orderly {
			end = e.Stop
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		d.Memory.Extend(ctx, pcr10, measurement(pcr10, "others'").Digests)
		e = open(t, d, path)
		e.Close()
		all := bases(t, path)
		unknown := all[len(all)-1].Unknown[pcr10]
		if want := map[bool]int{true: 0, false: 2}[orderly]; len(all) != 2 || unknown != want {
			t.Errorf("in order %t: %d bases, %d measurements unknown, want %d", orderly, len(all), unknown, want)
		}
		if got := e.Undecided(measurement(pcr10, "two")); errors.Is(got, guest.ErrUndecided) == orderly {
			t.Errorf("in order %t: %v", orderly, got)
		}
	}
}

// Stopped again and again, a helper that does nothing has no journal that grows.
func TestStoppedIdle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	put(t, e, pcr10, "one")
	e.Stop()
	before := must(os.ReadFile(path))(t)
	for range 3 {
		open(t, d, path).Stop()
	}
	if after := must(os.ReadFile(path))(t); !bytes.Equal(before, after) {
		t.Errorf("%d bytes, and %d before", len(after), len(before))
	}
}

// An application's extend, of which nobody knows: because others extended while it was
// in doubt, or while no helper ran that could tell. It is told so, also when it asks
// again with its key, and after a restart.
func TestUndecidedKey(t *testing.T) {
	app := must(guest.Measure("x", "key", strings.NewReader("x")))(t)
	theirs := measurement(pcr11, "others'").Digests
	for name, begin := range map[string]func(d *device, h *guest.Helper){
		"in doubt": func(d *device, h *guest.Helper) {
			d.before = func() error {
				d.before = nil
				d.Memory.Extend(ctx, pcr11, theirs)
				return rtmr.ErrUnknown
			}
			if now, err := h.Extend(ctx, pcr11, "test", app); !errors.Is(err, guest.ErrUndecided) {
				t.Errorf("extended %t, %v; want ErrUndecided", now, err)
			}
		},
		"while no helper ran": func(d *device, h *guest.Helper) {
			d.before = func() error { return errors.New("input/output error") }
			if _, err := h.Extend(ctx, pcr11, "test", app); err == nil {
				t.Error("no error")
			}
			d.before = nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice()
			cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir()}
			h := must(guest.New(ctx, cfg))(t)
			begin(d, h)
			h.Close()
			if name == "while no helper ran" {
				d.Memory.Extend(ctx, pcr11, theirs)
			}
			for range 2 {
				h = must(guest.New(ctx, cfg))(t)
				for range 2 {
					if now, err := h.Extend(ctx, pcr11, "test", app); now || !errors.Is(err, guest.ErrUndecided) {
						t.Errorf("extended %t, %v; want ErrUndecided", now, err)
					}
				}
				h.Close()
			}
			if got := value(t, d, pcr11); !bytes.Equal(got, values(t, pcr11, "others'")) {
				t.Errorf("pcr11 holds %s", got)
			}
		})
	}
}

// A journal is damaged, the helper dies before it has journaled what it took over, and
// that journal is damaged too: nothing of the list is extended twice, and no key's.
func TestDamagedAgain(t *testing.T) {
	k := &kernel{t, t.TempDir()}
	list := fixture(t, "sig-6.12/ima.bin")
	entries := count(t, list)
	half, _ := split(t, list, func(i int, _ *ima.Entry) bool { return i == entries/2 })
	d := pcrs(banks...)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir}
	app := must(guest.Measure("x", "key", strings.NewReader("x")))(t)
	h := must(guest.New(ctx, cfg))(t)
	if now, err := h.Extend(ctx, pcr11, "test", app); !now || err != nil {
		t.Fatal(now, err)
	}
	h.Close()
	k.set(half)
	run(t, cfg, caughtUp(count(t, half))).Close()
	alone := must(d.Read(ctx, pcr11))(t)
	content := must(os.ReadFile(cfg.Journal))(t)
	content[len(content)/2] ^= 1
	if err := os.WriteFile(cfg.Journal, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		open(t, d, cfg.Journal).Close() // which has begun another journal when it dies
		spoil(t, cfg.Journal)
	}
	k.set(list)
	for range 2 {
		h = run(t, cfg, caughtUp(entries))
		if now, err := h.Extend(ctx, pcr11, "test", app); now || err != nil {
			t.Errorf("the key is forgotten: %t, %v", now, err)
		}
		h.Close()
	}
	if got, want := value(t, d, pcr10), machineValues(t, "sig-6.12")[rtmr.SHA256][pcr10]; !bytes.Equal(got, want) {
		t.Errorf("pcr10 is %s, want %s", got, want)
	}
	if got := value(t, d, pcr11); !bytes.Equal(got, alone[rtmr.SHA256][pcr11]) {
		t.Errorf("pcr11 is %s", got)
	}
}

// There is a journal without a whole record, and nothing was extended in this boot: all
// of it is measured.
func TestDamagedFirst(t *testing.T) {
	const machine = "shim-grub-sb-6.12"
	k := &kernel{t, t.TempDir()}
	list := fixture(t, machine+"/ima.bin")
	k.set(list)
	d := pcrs(banks...)
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir,
		Mirror: true, FirmwareLog: &guest.BootLog{Path: "boot.bin", Data: fixture(t, machine+"/boot.bin")}}
	spoil(t, cfg.Journal)
	run(t, cfg, caughtUp(count(t, list))).Close()
	sameAsTPM(t, machine, d)
}

// Helpers of two folders do not extend one device, and do two.
func TestDeviceHeld(t *testing.T) {
	locks := t.TempDir()
	helper := func(name string) (*guest.Helper, error) {
		return guest.New(ctx, guest.Config{Device: &faulty{device: newDevice(), name: name}, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir(), Locks: locks})
	}
	one := must(helper("one"))(t)
	if _, err := helper("one"); !errors.Is(err, guest.ErrDeviceHeld) {
		t.Errorf("%v, want ErrDeviceHeld", err)
	}
	must(helper("two"))(t).Close()
	one.Close()
	must(helper("one"))(t).Close()
}
