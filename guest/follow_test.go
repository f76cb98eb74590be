//go:build linux

package guest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tallystick/guest"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

var banks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}

// kernel is a folder as the kernel's, whose list a test writes.
type kernel struct {
	t   *testing.T
	dir string
}

func (k *kernel) set(list []byte) {
	k.t.Helper()
	// In place, as the kernel's: what is open goes on.
	err := os.WriteFile(filepath.Join(k.dir, "binary_runtime_measurements"), list, 0o644)
	if err != nil {
		k.t.Fatal(err)
	}
}

// stage moves all of the list to the staged part, as the kernel does for an A
// (Linux 7.2, ima_queue_stage).
func (k *kernel) stage() {
	k.t.Helper()
	list, err := os.ReadFile(filepath.Join(k.dir, "binary_runtime_measurements"))
	if err == nil {
		err = os.WriteFile(filepath.Join(k.dir, "binary_runtime_measurements_staged"), list, 0o644)
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.set(nil)
}

// unstage empties the staged part, as for a D.
func (k *kernel) unstage() {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, "binary_runtime_measurements_staged"), nil, 0o644); err != nil {
		k.t.Fatal(err)
	}
}

func fixture(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../fixtures", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// all takes what the list has for now.
func all(t *testing.T, l *guest.List) (batch []rtmr.Measurement) {
	t.Helper()
	for {
		more, err := l.Next(7)
		if err != nil {
			t.Fatal(err)
		}
		if len(more) == 0 {
			return batch
		}
		batch = append(batch, more...)
	}
}

// machineValues are what the machine's TPM held.
func machineValues(t *testing.T, machine string) (values rtmr.Values) {
	t.Helper()
	if err := json.Unmarshal(fixture(t, machine+"/values.json"), &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// held fails the test unless the measurements fold to what the machine's TPM held.
func held(t *testing.T, machine string, batch []rtmr.Measurement) {
	t.Helper()
	values := machineValues(t, machine)
	fold := replay.New(replay.Options{})
	for i := range batch {
		fold.Add(&batch[i])
	}
	for _, a := range banks {
		if got, want := fold.Values()[a][pcr10], values[a][pcr10]; !bytes.Equal(got, want) {
			t.Errorf("%s pcr10 is %s after %d entries, the TPM had %s", a, got, len(batch), want)
		}
	}
}

// A list grows under its reader, by any number of bytes.
func TestListGrows(t *testing.T) {
	const machine = "violations-7.3"
	list := fixture(t, machine+"/ima.bin")
	k := &kernel{t, t.TempDir()}
	l := guest.OpenList(k.dir, banks, nil)
	defer l.Close()
	var batch []rtmr.Measurement
	for n := 0; n < len(list); n += 977 {
		if n > 0 {
			k.set(list[:n])
			batch = append(batch, all(t, l)...)
		}
	}
	k.set(list)
	batch = append(batch, all(t, l)...)
	held(t, machine, batch)
	if more, err := l.Next(10); len(more) > 0 || err != nil {
		t.Errorf("%d more, %v", len(more), err)
	}
}

// A helper that starts again goes on where the one before it stopped.
func TestListResumed(t *testing.T) {
	const machine = "sig-6.12"
	k := &kernel{t, t.TempDir()}
	k.set(fixture(t, machine+"/ima.bin"))
	whole := all(t, guest.OpenList(k.dir, banks, nil))
	for _, n := range []int{0, 1, 2, len(whole) / 2, len(whole) - 1, len(whole)} {
		got := all(t, guest.OpenList(k.dir, banks, guest.TrailOf(whole[:n])))
		held(t, machine, append(whole[:n:n], got...))
	}
}

// A list is trimmed under its reader, and goes on.
func TestListTrimmed(t *testing.T) {
	const machine = "violations-7.3"
	list := fixture(t, machine+"/ima.bin")
	var offsets []int64
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, m.Offset)
	}
	read, trimmed := len(offsets)/2, len(offsets)/3
	for _, c := range []struct {
		name string
		from int // the first entry that is left
		gap  bool
	}{
		{"some that were read are left", trimmed, false},
		{"the last that was read is left", read - 1, false},
		{"none that was read is left", read, true},
		{"some were never read", read + 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := &kernel{t, t.TempDir()}
			k.set(list[:offsets[read]])
			l := guest.OpenList(k.dir, banks, nil)
			defer l.Close()
			batch := all(t, l)
			k.set(list[offsets[c.from]:])
			var gap *guest.Gap
			for {
				more, err := l.Next(5)
				if err != nil && !errors.As(err, &gap) {
					t.Fatal(err)
				}
				if len(more) == 0 {
					break
				}
				batch = append(batch, more...)
			}
			if (gap != nil) != c.gap {
				t.Errorf("gap: %v", gap)
			}
			if c.from <= read {
				held(t, machine, batch)
			}
		})
	}
}

// A kernel with IMA_STAGING had its list trimmed in two ways (fixtures/staging-7.3):
// all of it is delivered, also by readers that go on where another stopped, and held
// against what the machine's TPM had.
func TestListStaged(t *testing.T) {
	const machine = "staging-7.3"
	staged, current, last := fixture(t, machine+"/staged1-ima.bin"), fixture(t, machine+"/current2-ima.bin"), fixture(t, machine+"/ima.bin")
	half := staged[:offsetOf(t, staged, 30)]
	for _, restart := range []bool{false, true} {
		k := &kernel{t, t.TempDir()}
		l := guest.OpenList(k.dir, banks, nil)
		var batch []rtmr.Measurement
		next := func() {
			t.Helper()
			batch = append(batch, all(t, l)...)
			if restart {
				l.Close()
				l = guest.OpenList(k.dir, banks, guest.TrailOf(batch))
			}
		}
		k.unstage()
		k.set(half)
		next()
		k.set(staged) // of which nothing was read when it is staged
		k.stage()
		k.set(current[:offsetOf(t, current, 10)])
		next()
		k.unstage()
		k.set(current)
		next()
		k.set(last) // without its first 50
		next()
		held(t, machine, batch)
		l.Close()
	}
}

// What was staged is deleted before it was read, or before anything behind it was: a
// gap is told, once, and what is there is delivered, once.
func TestListStagedAndLost(t *testing.T) {
	staged, current := fixture(t, "staging-7.3/staged1-ima.bin"), fixture(t, "staging-7.3/current2-ima.bin")
	k := &kernel{t, t.TempDir()}
	k.unstage()
	k.set(staged)
	l := guest.OpenList(k.dir, banks, nil)
	defer l.Close()
	n := len(all(t, l))
	k.stage()
	k.unstage()
	gaps := 0
	next := func() {
		t.Helper()
		for {
			more, err := l.Next(100)
			if errors.As(err, new(*guest.Gap)) {
				gaps++
			} else if err != nil {
				t.Fatal(err)
			}
			if n += len(more); len(more) == 0 {
				return
			}
		}
	}
	next()
	next()
	k.set(current)
	next()
	next()
	if want := count(t, staged) + count(t, current); n != want || gaps != 1 {
		t.Errorf("%d entries of %d, %d gaps", n, want, gaps)
	}
}

// offsetOf is where a list's n-th entry begins.
func offsetOf(t *testing.T, list []byte, n int) int {
	before, _ := split(t, list, func(i int, _ *ima.Entry) bool { return i == n })
	return len(before)
}
