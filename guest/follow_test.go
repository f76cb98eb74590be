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
