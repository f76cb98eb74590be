//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/replay"
	"tallystick/rtmr"
)

var (
	ctx   = context.Background()
	pcr10 = rtmr.MustParse("pcr10")
	pcr11 = rtmr.MustParse("pcr11")
)

// event is an entry whose digests are those of its text.
type event string

func (e event) Type() string   { return "test" }
func (e event) Detail() string { return string(e) }
func (e event) Data() []byte   { return []byte(e) }
func (e event) Verify(d rtmr.Digest) (rtmr.Check, []byte) {
	return rtmr.CannotCheck, nil
}

func measurement(r rtmr.Register, text string) rtmr.Measurement {
	m := rtmr.Measurement{Register: r, Entry: event(text)}
	for _, a := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256} {
		m.Digests = append(m.Digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte(text))})
	}
	return m
}

// device is registers in memory that can be made to fail.
type device struct {
	*rtmr.Memory
	before, after func() error // of an extend; nil errors let it pass
}

func newDevice() *device {
	return &device{Memory: rtmr.NewMemory([]rtmr.Alg{rtmr.SHA1, rtmr.SHA256}, pcr10, pcr11)}
}

func (d *device) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	if d.before != nil {
		if err := d.before(); err != nil {
			return err
		}
	}
	if err := d.Memory.Extend(ctx, r, digests); err != nil {
		return err
	}
	if d.after != nil {
		return d.after()
	}
	return nil
}

// journaled folds the journal, and lists the texts of its measurements.
func journaled(t *testing.T, path string) (rtmr.Values, []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fold := replay.New(replay.Options{})
	var texts []string
	for m, err := range cel.NewReader(bytes.NewReader(content), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		fold.Add(&m)
		if !m.NoAction {
			texts = append(texts, string(m.Entry.Data()))
		}
	}
	return fold.Values(), texts
}

// check fails the test unless the journal folds to the registers' values.
func check(t *testing.T, d rtmr.Device, path string) []string {
	t.Helper()
	folded, texts := journaled(t, path)
	held, err := d.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for a, bank := range folded {
		for r, value := range bank {
			if !bytes.Equal(held[a][r], value) {
				t.Fatalf("%s %s holds %s, the journal of %d folds to %s", a, r, held[a][r], len(texts), value)
			}
		}
	}
	return texts
}

func open(t *testing.T, d rtmr.Device, path string) *guest.Extender {
	t.Helper()
	e, err := guest.OpenExtender(ctx, d, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// The process dies at random moments, before and after an extend and while it
// writes to the journal: nothing is lost, and nothing is extended twice.
func TestCrash(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crash(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func crash(t *testing.T, random *rand.Rand) {
	const total = 2000
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	died := errors.New("died")
	var all []rtmr.Measurement
	for i := range total {
		all = append(all, measurement([]rtmr.Register{pcr10, pcr10, pcr11}[random.IntN(3)], fmt.Sprint("event ", i)))
	}
	crashes := 0
	for next := 0; next < total; crashes++ {
		left := random.IntN(300) // extends until it dies
		dies := func() error {
			if left--; left < 0 {
				panic(died)
			}
			return nil
		}
		d.before, d.after = nil, nil
		if random.IntN(2) == 0 {
			d.before = dies
		} else {
			d.after = dies
		}
		func() {
			var e *guest.Extender
			defer func() {
				if r := recover(); r != nil && r != died {
					panic(r)
				}
				if e != nil {
					e.Close()
				}
			}()
			e = open(t, d, path)
			_, texts := journaled(t, path)
			next = len(texts)
			for next < total {
				n := min(total-next, 1+random.IntN(600))
				done, err := e.Extend(ctx, all[next:next+n]...)
				if err != nil || done != n {
					t.Fatalf("%d of %d, %v", done, n, err)
				}
				next += n
			}
		}()
	}
	d.before, d.after = nil, nil
	open(t, d, path).Close()
	texts := check(t, d, path)
	for i, text := range texts {
		if want := fmt.Sprint("event ", i); text != want {
			t.Fatalf("entry %d is %q, want %q", i, text, want)
		}
	}
	if len(texts) != total || crashes < 5 {
		t.Errorf("%d entries after %d crashes", len(texts), crashes)
	}
}

// clone returns a device with the same values.
func clone(t *testing.T, extends []rtmr.Measurement) *device {
	t.Helper()
	d := newDevice()
	for _, m := range extends {
		if err := d.Extend(ctx, m.Register, m.Digests); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// The process dies within a write to the journal, at each byte of a batch: what is
// whole is extended, and what is not is not missed.
func TestTorn(t *testing.T) {
	var first, second []rtmr.Measurement
	for i := range 10 {
		first = append(first, measurement(pcr10, fmt.Sprint("first ", i)))
	}
	for i := range 3 {
		second = append(second, measurement(pcr10, fmt.Sprint("second ", i)))
	}
	path := filepath.Join(t.TempDir(), "journal.cel")
	e := open(t, newDevice(), path)
	extend := func(batch []rtmr.Measurement) []byte {
		if n, err := e.Extend(ctx, batch...); n != len(batch) || err != nil {
			t.Fatalf("%d of %d, %v", n, len(batch), err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	before := extend(first)
	after := extend(second)
	e.Close()

	whole := make(map[int]int)
	for cut := len(before); cut <= len(after); cut++ {
		if err := os.WriteFile(path, after[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		d := clone(t, first)
		e := open(t, d, path)
		r := e.Recovery()
		n := len(check(t, d, path))
		if r.Behind != n-len(first) || r.Damaged != "" || r.Foreign != "" {
			t.Fatalf("cut at %d: %+v, and %d entries", cut, r, n)
		}
		whole[n]++
		for i, m := range second[n-len(first):] {
			if _, err := e.Extend(ctx, m); err != nil {
				t.Fatalf("cut at %d: %d: %v", cut, i, err)
			}
		}
		if texts := check(t, d, path); len(texts) != len(first)+len(second) {
			t.Fatalf("cut at %d: %d entries", cut, len(texts))
		}
		if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, after) {
			t.Fatalf("cut at %d: another journal than without a crash", cut)
		}
		e.Close()
	}
	if len(whole) != 4 || whole[13] != 1 {
		t.Errorf("entries by cut: %v, want 10 to 13", whole)
	}
}

// Each bit of a journal is flipped: it is put aside, or what was altered counts
// as extended by others, and measuring goes on. No journal is believed that does
// not fold to the registers.
func TestFlipped(t *testing.T) {
	var batch []rtmr.Measurement
	for i := range 4 {
		batch = append(batch, measurement(pcr10, fmt.Sprint("event ", i)))
	}
	path := filepath.Join(t.TempDir(), "journal.cel")
	e := open(t, newDevice(), path)
	if _, err := e.Extend(ctx, batch...); err != nil {
		t.Fatal(err)
	}
	e.Close()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for bit := range 8 * len(content) {
		dir := t.TempDir()
		path := filepath.Join(dir, "journal.cel")
		flipped := bytes.Clone(content)
		flipped[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, flipped, 0o600); err != nil {
			t.Fatal(err)
		}
		d := clone(t, batch)
		e, err := guest.OpenExtender(ctx, d, path, nil)
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if _, err := e.Extend(ctx, measurement(pcr10, "another")); err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		switch r := e.Recovery(); {
		case r.Damaged != "":
			kinds["aside"]++
			if kept, err := os.ReadFile(r.Damaged); err != nil || !bytes.Equal(kept, flipped) || r.Reason == "" {
				t.Fatalf("bit %d: %v, or not what was there; %v", bit, err, r.Reason)
			}
		case r.Other != "":
			kinds["another boot's or device's"]++
		case r.Foreign != "":
			kinds["foreign"]++
		case r.Behind != 0:
			t.Fatalf("bit %d: %+v: an altered journal was extended", bit, r)
		default:
			kinds["believed"]++ // an entry's text, of which nothing is known here
			check(t, d, path)
		}
		e.Close()
	}
	t.Logf("%v of %d bits", kinds, 8*len(content))
	if kinds["aside"] == 0 || kinds["foreign"] == 0 {
		t.Error("expected both")
	}
}

// What a device says of an extend, and what is then true of it.
func TestFaults(t *testing.T) {
	failure := errors.New("failure")
	for _, c := range []struct {
		name          string
		before, after error // of the third extend
		twice         bool  // somebody else extends meanwhile
		want          error
		behind        int
		foreign       bool
	}{
		{name: "not extended, and told so", before: failure, want: failure, behind: 1},
		{name: "not extended, unknown", before: rtmr.ErrUnknown},
		{name: "extended, unknown", after: rtmr.ErrUnknown},
		{name: "busy for a while", before: rtmr.ErrBusy},
		{name: "unknown, and others extend", after: rtmr.ErrUnknown, twice: true, foreign: true, want: guest.ErrUndecided},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.cel")
			d := newDevice()
			calls, failed := 0, false
			once := func(err error) func() error {
				return func() error {
					if calls++; calls < 3 || err == nil || failed {
						return nil
					}
					failed = true
					if c.twice {
						d.Memory.Extend(ctx, pcr10, measurement(pcr10, "others'").Digests)
					}
					return err
				}
			}
			d.before, d.after = once(c.before), nil
			if c.after != nil {
				d.before, d.after = nil, once(c.after)
			}
			e := open(t, d, path)
			var batch []rtmr.Measurement
			for i := range 5 {
				batch = append(batch, measurement(pcr10, fmt.Sprint("event ", i)))
			}
			n, err := e.Extend(ctx, batch...)
			if n != len(batch) || !errors.Is(err, c.want) {
				t.Fatalf("%d journaled, %v; want %d, %v", n, err, len(batch), c.want)
			}
			if _, err := e.Extend(ctx, measurement(pcr10, "last")); err != nil {
				t.Fatal(err)
			}
			_, texts := journaled(t, path)
			if len(texts) != 6 || texts[5] != "last" {
				t.Errorf("journaled: %v", texts)
			}
			if !c.foreign {
				check(t, d, path)
			}
			e.Close()
			e = open(t, d, path) // which a base makes right again
			if r := e.Recovery(); r.Behind != 0 || r.Foreign != "" {
				t.Errorf("%+v", r)
			}
			e.Close()
		})
	}
}

// Somebody else extends while no helper runs: it is told, and measuring goes on.
func TestForeign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	d := newDevice()
	e := open(t, d, path)
	if _, err := e.Extend(ctx, measurement(pcr10, "ours"), measurement(pcr11, "ours too")); err != nil {
		t.Fatal(err)
	}
	e.Close()
	d.Memory.Extend(ctx, pcr10, measurement(pcr10, "others'").Digests)
	for i := range 2 {
		e = open(t, d, path)
		want := []string{"[pcr10]", ""}[i]
		if r := e.Recovery(); r.Foreign != want || r.Behind != 0 || r.Damaged != "" {
			t.Errorf("opening %d: %+v, want %q", i, r, want)
		}
		if _, err := e.Extend(ctx, measurement(pcr10, "more")); err != nil {
			t.Fatal(err)
		}
		e.Close()
	}
}

func TestHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.cel")
	e := open(t, newDevice(), path)
	defer e.Close()
	if _, err := guest.OpenExtender(ctx, newDevice(), path, nil); !errors.Is(err, guest.ErrJournalHeld) {
		t.Errorf("%v, want ErrJournalHeld", err)
	}
}

// Others extend between two of ours. What the tap told of is in the log as theirs;
// what it did not is told of too, and measuring goes on.
func TestOthers(t *testing.T) {
	other := func(text string) guest.Other {
		return guest.Other{Register: pcr10, Digest: measurement(pcr10, text).Digests[1], PID: 42, Comm: "evil\x1b"}
	}
	for _, c := range []struct {
		name    string
		extends []string // by others
		told    []string // by the tap
		whole   bool     // the journal explains the register
		entries []string
	}{
		{"nobody", nil, nil, true, []string{"first", "second"}},
		{"one", []string{"a"}, []string{"a"}, true, []string{"first", "other", "second"}},
		{"three", []string{"a", "b", "a"}, []string{"a", "b", "a"}, true, []string{"first", "other", "other", "other", "second"}},
		{"some before were not found", []string{"b"}, []string{"x", "y", "b"}, true, []string{"first", "other", "second"}},
		{"one is not told of", []string{"a", "b"}, []string{"a"}, false, []string{"first", "second"}},
		{"what is told of did not happen", nil, []string{"a"}, true, []string{"first", "second"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.cel")
			d := rtmr.NewMemory([]rtmr.Alg{rtmr.SHA256}, pcr10)
			extend := func(e *guest.Extender, text string) {
				m := measurement(pcr10, text)
				m.Digests = m.Digests[1:]
				if _, err := e.Extend(ctx, m); err != nil {
					t.Fatal(err)
				}
			}
			e := open(t, d, path)
			e.Tapped()
			extend(e, "first")
			for _, text := range c.extends {
				if err := d.Extend(ctx, pcr10, measurement(pcr10, text).Digests[1:]); err != nil {
					t.Fatal(err)
				}
			}
			for _, text := range c.told {
				e.Saw(other(text))
			}
			extend(e, "second")
			e.Close()

			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var entries []string
			for m, err := range cel.NewReader(bytes.NewReader(content), cel.TLV).Measurements() {
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case m.NoAction:
				case m.Entry.Type() == guest.OtherType:
					entries = append(entries, "other")
				default:
					entries = append(entries, string(m.Entry.Data()))
				}
			}
			if fmt.Sprint(entries) != fmt.Sprint(c.entries) {
				t.Errorf("journaled: %q, want %q", entries, c.entries)
			}
			if c.whole {
				check(t, d, path)
			}
			e = open(t, d, path)
			defer e.Close()
			if r := e.Recovery(); r.Behind != 0 || r.Foreign != "" || r.Damaged != "" {
				t.Errorf("%+v", r)
			}
		})
	}
}
