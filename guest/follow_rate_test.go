//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/rtmr"
)

const manyEntries = 110_000

// manyIn writes a long list into a folder.
func manyIn(t testing.TB, dir string) {
	t.Helper()
	var list bytes.Buffer
	if err := imagen.Write(&list, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, manyEntries); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "binary_runtime_measurements"), list.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// floor is the least that following a list takes: it is read 4 KiB at a time, as the
// kernel gives it, each entry is hashed for each bank, and each bank is extended.
func floor(t testing.TB, dir string) time.Duration {
	t.Helper()
	began := time.Now()
	file, err := os.Open(filepath.Join(dir, "binary_runtime_measurements"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var unread []byte
	page := make([]byte, 4<<10)
	values := make(map[rtmr.Alg][]byte)
	for _, a := range bpf.Banks {
		values[a] = make([]byte, a.Size())
	}
	layout := ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}
	entries := 0
	var sum [rtmr.MaxDigestSize]byte
	var e ima.Entry
	for {
		n, err := syscall.Read(int(file.Fd()), page)
		if n == 0 || err != nil {
			break
		}
		unread = append(unread, page[:n]...)
		for {
			n, err := layout.ParseRecord(unread, &e)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			for _, a := range bpf.Banks {
				a.Extend(values[a], a.AppendHash(sum[:0], e.Data()))
			}
			unread = unread[n:]
			entries++
		}
	}
	if entries != manyEntries {
		t.Fatalf("%d entries", entries)
	}
	return time.Since(began)
}

// catchUp is how long a new helper takes to follow the list to its end.
func catchUp(t testing.TB, d rtmr.Device, dir string) time.Duration {
	t.Helper()
	state, err := os.MkdirTemp("/dev/shm", "tallystick") // as /run is
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(state)
	began := time.Now()
	idle := make(idler, 1)
	h, err := guest.New(ctx, guest.Config{Device: d, Journal: filepath.Join(state, "journal.cel"), IMADir: dir, Wake: idle})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	<-idle
	took := time.Since(began)
	if s := h.Status(); s.IMA != manyEntries || s.Error != "" {
		t.Fatalf("%+v", s)
	}
	stop()
	<-done
	return took
}

// idler tells when a helper has nothing to do.
type idler chan struct{}

func (i idler) Wait(ctx context.Context) error {
	select {
	case i <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

var _ = io.EOF

func TestRate(t *testing.T) {
	dir := t.TempDir()
	manyIn(t, dir)
	pins := filepath.Join(dir, "bpf")
	if err := os.Mkdir(pins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, "mode=0755"); err != nil {
		t.Skip("no BPF: cannot mount a BPF file system:", err)
	}
	t.Cleanup(func() { unix.Unmount(pins, unix.MNT_DETACH) })
	for i := range 3 {
		f := floor(t, dir)
		m := catchUp(t, pcrs(bpf.Banks...), dir)
		k, err := bpf.Open(bpf.Options{Path: filepath.Join(pins, string(rune('a'+i)))})
		if err != nil {
			t.Skip("no BPF:", err)
		}
		b := catchUp(t, k, dir)
		k.Close()
		t.Logf("floor %v, memory %v (%.1f), bpf %v (%.1f)", f, m, m.Seconds()/f.Seconds(), b, b.Seconds()/f.Seconds())
	}
}
