//go:build linux

package guest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/rtmr"
)

// listEntry is an ima-ng record of a little-endian SHA-1 list.
func listEntry(pcr uint32, name string, violation bool) []byte {
	digest, hash := rtmr.SHA256.AppendHash(nil, []byte(name)), []byte(nil)
	if violation {
		digest, hash = make([]byte, 32), make([]byte, 20)
	}
	var data []byte
	for _, field := range []string{"sha256:\x00" + string(digest), name + "\x00"} {
		data = append(binary.LittleEndian.AppendUint32(data, uint32(len(field))), field...)
	}
	if !violation {
		hash = rtmr.SHA1.AppendHash(nil, data)
	}
	b := append(binary.LittleEndian.AppendUint32(nil, pcr), hash...)
	b = append(binary.LittleEndian.AppendUint32(b, 6), "ima-ng"...)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(data))), data...)
}

func entries(n int, violations bool) (list [][]byte) {
	for i := range n {
		name := fmt.Sprintf("/%02d", i)
		if i == 0 {
			name = "boot_aggregate"
		}
		list = append(list, listEntry(10, name, violations))
	}
	return list
}

func join(entries ...[]byte) []byte { return bytes.Join(entries, nil) }

// followed takes what the list has for now, and counts the gaps.
func followed(t *testing.T, l *guest.List) (n, gaps int) {
	t.Helper()
	for {
		batch, err := l.Next(100)
		if errors.As(err, new(*guest.Gap)) {
			gaps++
		} else if err != nil {
			t.Fatal(err)
		}
		if n += len(batch); len(batch) == 0 {
			return n, gaps
		}
	}
}

// Violations are listed as often as they happen, and begin alike: a list that was
// trimmed to some is told, and nothing of it is taken for what was delivered.
func TestListTrimmedToViolations(t *testing.T) {
	v := listEntry(10, "/same", true)
	for name, c := range map[string]struct {
		before, after []byte
		want          int // entries, of both
	}{
		"another violation":        {join(entries(10, true)...), join(entries(20, true)[5:]...), 20},
		"an equal violation":       {join(listEntry(10, "boot_aggregate", false), v), join(v, listEntry(10, "/c", false)), 3},
		"equal violations, longer": {join(v, v, v, v), join(v, v, v), 4},
	} {
		t.Run(name, func(t *testing.T) {
			k := &kernel{t, t.TempDir()}
			k.set(c.before)
			l := guest.OpenList(k.dir, banks, nil)
			defer l.Close()
			n, gaps := followed(t, l)
			l.Close() // as one that goes on where another stopped
			k.set(c.after)
			more, told := followed(t, l)
			if n+more != c.want || gaps != 0 || told != 1 {
				t.Errorf("%d entries of %d, %d gaps", n+more, c.want, told)
			}
		})
	}
}

// What is read while nobody can tell whether the list was trimmed is not delivered.
func TestListTrimmedUnseen(t *testing.T) {
	k, list := &kernel{t, t.TempDir()}, entries(20, false)
	k.set(join(list[:10]...))
	l := guest.OpenList(k.dir, banks, nil)
	defer l.Close()
	n, _ := followed(t, l)
	path := filepath.Join(k.dir, "binary_runtime_measurements")
	k.set(join(list[5:]...))
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if batch, err := l.Next(100); len(batch) > 0 || err == nil {
		t.Errorf("%d entries, %v", len(batch), err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	more, gaps := followed(t, l)
	if n+more != 20 || gaps != 0 {
		t.Errorf("%d entries of 20, %d gaps", n+more, gaps)
	}
}

// In place of an entry for which the device has no register, or no TPM has one, its
// absence is extended: so the evidence has all of the list, and a helper that starts
// again doubles nothing.
func TestLeftOut(t *testing.T) {
	list := entries(20, false)
	list[5], list[9] = listEntry(16, "/no RTMR", false), listEntry(24, "/no PCR", false)
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(join(list...))
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: k.dir, Prover: prover(t, d)}
	var want rtmr.Hex
	for i := range 2 {
		h := run(t, cfg, caughtUp(20))
		if b := bundle(t, h); !bytes.Equal(b.IMAList, join(list...)) {
			t.Errorf("evidence has %d bytes of the list", len(b.IMAList))
		}
		h.Close()
		held := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2]
		if i == 0 {
			want = held
		} else if !bytes.Equal(held, want) {
			t.Error("a helper that started again extended something")
		}
	}
	check(t, d, cfg.Journal)
	var types []string
	for m, err := range cel.NewReader(bytes.NewReader(must(os.ReadFile(cfg.Journal))(t)), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Register == rtmr2 {
			types = append(types, m.Entry.Type())
		}
	}
	ng := func(n int) string { return strings.Repeat("ima-ng ", n) }
	if got, want := strings.Join(types, " "), ng(5)+"own:left-out "+ng(3)+"own:left-out "+strings.TrimSpace(ng(10)); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// A gap is extended, once, before what is behind it, also where the journal has no
// room at first.
func TestGapTold(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("no tmpfs: cannot mount one:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	k, d := &kernel{t, t.TempDir()}, td()
	k.set(join(entries(10, false)...))
	cfg := guest.Config{Device: d, Journal: filepath.Join(dir, "journal.cel"), IMADir: k.dir}
	run(t, cfg, caughtUp(10)).Close()
	cfg.Wake = guest.Poll(time.Millisecond)
	h := must(guest.New(ctx, cfg))(t)
	defer h.Close()
	fillUp(t, filepath.Join(dir, "fill"), 0)
	exhaust(t, h)
	k.set(join(listEntry(10, "/behind 1", false), listEntry(10, "/behind 2", false)))
	running, stop := withTimeout(t, 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- h.Run(running) }()
	freed := false
	until(t, running, func() bool {
		s := h.Status()
		if !freed && strings.Contains(s.Error, "no room") {
			if s.IMA != 10 {
				t.Errorf("%d entries extended without room", s.IMA)
			}
			freed = os.Remove(filepath.Join(dir, "fill")) == nil
		}
		return s.IMA == 12 && s.Behind == 0
	})
	stop()
	<-done
	if !freed {
		t.Error("there was room")
	}
	texts := check(t, d, cfg.Journal)
	gaps := 0
	for i, text := range texts {
		if strings.HasPrefix(text, `{"after":10,`) {
			gaps++
			if i != len(texts)-3 {
				t.Errorf("the gap is entry %d of %d", i, len(texts))
			}
		}
	}
	if gaps != 1 {
		t.Errorf("%d gaps: %q", gaps, texts)
	}
}

// fillUp takes a file system's room, but for so many bytes.
func fillUp(t *testing.T, name string, left int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := int64(0)
	for {
		k, err := f.Write(make([]byte, 512))
		n += int64(k)
		if err != nil {
			break
		}
	}
	if err := f.Truncate(n - int64(left)); err != nil {
		t.Fatal(err)
	}
}

// The journal's file system is full: nothing is extended, not for applications either,
// which is said; and when there is room it goes on, though nothing wakes the helper.
func TestFullJournal(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skip("no tmpfs: cannot mount one:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	k, d := &kernel{t, t.TempDir()}, td()
	all := entries(3000, false)
	k.set(join(all[:10]...))
	woken := make(idler) // and never is
	h := must(guest.New(ctx, guest.Config{Device: d, Journal: filepath.Join(dir, "journal.cel"), IMADir: k.dir, Wake: woken}))(t)
	defer h.Close()
	fillUp(t, filepath.Join(dir, "fill"), 0)
	k.set(join(all...))
	done := make(chan error, 1)
	running, stop := withTimeout(t, 20*time.Second)
	go func() { done <- h.Run(running) }()
	until(t, running, func() bool { return strings.Contains(h.Status().Error, "no room") })
	before, n := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2], h.Status().IMA
	app := must(guest.Measure("x", "a key", strings.NewReader("x")))(t)
	exhaust(t, h)
	if now, err := h.Extend(ctx, rtmr3, "test", app); now || !errors.Is(err, guest.ErrJournalFull) {
		t.Errorf("an application's extend without room: %v, %v", now, err)
	}
	if got := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2]; !bytes.Equal(got, before) || h.Status().IMA != n {
		t.Error("extended without room")
	}
	if err := os.Remove(filepath.Join(dir, "fill")); err != nil {
		t.Fatal(err)
	}
	until(t, running, func() bool { s := h.Status(); return s.IMA == 3000 && s.Behind == 0 && s.Error == "" })
	if now, err := h.Extend(ctx, rtmr3, "test", app); !now || err != nil {
		t.Errorf("with room: %v, %v", now, err)
	}
	stop()
	<-done
	check(t, d, filepath.Join(dir, "journal.cel"))
	if got, want := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2], foldOf(t, rtmr.SHA384, join(all...)); !bytes.Equal(got, want) {
		t.Errorf("rtmr2 is %s, of the list it is %x", got, want)
	}
}

// exhaust has applications extend until the room that the journal had reserved is used
// up.
func exhaust(t *testing.T, h *guest.Helper) {
	t.Helper()
	for range 3000 {
		a := must(guest.Measure("x", "", strings.NewReader("x")))(t)
		if _, err := h.Extend(ctx, rtmr3, "test", a); errors.Is(err, guest.ErrJournalFull) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the journal has room")
}
