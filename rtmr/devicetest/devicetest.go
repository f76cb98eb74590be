// Package devicetest is what every rtmr.Device has to do, as a test.
package devicetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"tallystick/rtmr"
)

// Run tests a device that nobody else uses. It extends all of its writable
// registers.
func Run(t *testing.T, d rtmr.Device) {
	s := &suite{d: d, description: d.Describe()}
	t.Run("Describe", s.describe)
	t.Run("Read", s.read)
	t.Run("Extend", s.extend)
	t.Run("Refused", s.refused)
	t.Run("Concurrent", s.concurrent)
}

type suite struct {
	d           rtmr.Device
	description rtmr.Description
}

func (s *suite) describe(t *testing.T) {
	d := s.description
	if d.Kind == "" || d.Name == "" || len(d.Registers) == 0 {
		t.Fatalf("%+v: something is empty", d)
	}
	var seen []rtmr.Register
	for _, info := range d.Registers {
		if len(info.Banks) == 0 || !slices.IsSorted(info.Banks) || len(slices.Compact(slices.Clone(info.Banks))) != len(info.Banks) {
			t.Errorf("%s: banks %v, expected some, each once, in rising order", info.Register, info.Banks)
		}
		if info.Writable && info.Register.Static() {
			t.Errorf("%s: a static register that is writable", info.Register)
		}
		if slices.Contains(seen, info.Register) {
			t.Errorf("%s: twice", info.Register)
		}
		seen = append(seen, info.Register)
	}
	if again := s.d.Describe(); fmt.Sprint(again) != fmt.Sprint(d) {
		t.Errorf("described as %+v, then as %+v", d, again)
	}
}

// values reads registers and fails the test unless each is there in each bank,
// of its size, and no other is.
func (s *suite) values(t testing.TB, registers ...rtmr.Register) rtmr.Values {
	t.Helper()
	values, err := s.d.Read(context.Background(), registers...)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	infos, err := s.description.Select(registers)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, info := range infos {
		for _, a := range info.Banks {
			n++
			if got := values[a][info.Register]; len(got) != a.Size() {
				t.Fatalf("read: %s %s has %d bytes, expected %d", a, info.Register, len(got), a.Size())
			}
		}
	}
	for _, bank := range values {
		n -= len(bank)
	}
	if n != 0 {
		t.Fatalf("read: %d values that were not asked for", -n)
	}
	return values
}

func (s *suite) read(t *testing.T) {
	all := s.values(t)
	for _, info := range s.description.Registers {
		one := s.values(t, info.Register)
		for _, a := range info.Banks {
			if !bytes.Equal(one[a][info.Register], all[a][info.Register]) {
				t.Errorf("%s %s read alone is another", a, info.Register)
			}
			clear(one[a][info.Register])
			one[a][info.Register][0] = 0x5A
		}
	}
	s.same(t, all, "after what was read was written to")
	if _, err := s.d.Read(context.Background(), s.absent()); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("read %s: %v, expected ErrNotSupported", s.absent(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.d.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v, expected context.Canceled", err)
	}
}

// absent is a register that the device does not have.
func (s *suite) absent() rtmr.Register {
	for _, name := range []string{"rem3", "rtmr3", "pcr23"} {
		if r := rtmr.MustParse(name); !slices.ContainsFunc(s.description.Registers, func(i rtmr.RegisterInfo) bool { return i.Register == r }) {
			return r
		}
	}
	return rtmr.Register{}
}

// same fails the test unless all registers have these values.
func (s *suite) same(t *testing.T, want rtmr.Values, when string) {
	t.Helper()
	got := s.values(t)
	for a, bank := range want {
		for r, value := range bank {
			if !bytes.Equal(got[a][r], value) {
				t.Errorf("%s: %s %s is %s, expected %s", when, a, r, got[a][r], value)
			}
		}
	}
}

// fold is the extend by the standard library's hashes.
func fold(values rtmr.Values, r rtmr.Register, digests []rtmr.Digest) {
	for _, d := range digests {
		h := d.Alg.New()
		h.Write(values[d.Alg][r])
		h.Write(d.Sum)
		values[d.Alg][r] = h.Sum(nil)
	}
}

// digests are one for each of the register's banks.
func digests(info rtmr.RegisterInfo, sum func(a rtmr.Alg) []byte) (digests []rtmr.Digest) {
	for _, a := range info.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: sum(a)})
	}
	return digests
}

func hashes(info rtmr.RegisterInfo, text string) []rtmr.Digest {
	return digests(info, func(a rtmr.Alg) []byte { return a.AppendHash(nil, []byte(text)) })
}

func (s *suite) writable(t *testing.T) (infos []rtmr.RegisterInfo) {
	for _, info := range s.description.Registers {
		if info.Writable {
			infos = append(infos, info)
		}
	}
	if len(infos) == 0 {
		t.Fatal("no register is writable")
	}
	return infos
}

func (s *suite) extend(t *testing.T) {
	want := s.values(t)
	for i, info := range s.writable(t) {
		for _, batch := range [][]rtmr.Digest{
			hashes(info, fmt.Sprint("measurement ", i)),
			digests(info, func(a rtmr.Alg) []byte { return make([]byte, a.Size()) }),
			digests(info, func(a rtmr.Alg) []byte { return bytes.Repeat([]byte{0xFF}, a.Size()) }),
		} {
			slices.Reverse(batch)
			kept := fmt.Sprint(batch)
			if err := s.d.Extend(context.Background(), info.Register, batch); err != nil {
				t.Fatalf("extend %s: %v", info.Register, err)
			}
			if fmt.Sprint(batch) != kept {
				t.Errorf("extend %s wrote to its digests", info.Register)
			}
			fold(want, info.Register, batch)
		}
	}
	s.same(t, want, "after extends")
}

func (s *suite) refused(t *testing.T) {
	before := s.values(t)
	info := s.writable(t)[0]
	good := hashes(info, "x")
	with := func(i int, d rtmr.Digest) []rtmr.Digest {
		changed := slices.Clone(good)
		changed[i] = d
		return changed
	}
	alg := good[0].Alg
	type test struct {
		name     string
		register rtmr.Register
		digests  []rtmr.Digest
		want     error
	}
	tests := []test{
		{"a register that is not there", s.absent(), good, rtmr.ErrNotSupported},
		{"no register", rtmr.Register{}, good, rtmr.ErrNotSupported},
		{"a short digest", info.Register, with(0, rtmr.Digest{Alg: alg, Sum: good[0].Sum[1:]}), rtmr.ErrShort},
		{"an empty digest", info.Register, with(0, rtmr.Digest{Alg: alg}), rtmr.ErrShort},
		{"a long digest", info.Register, with(0, rtmr.Digest{Alg: alg, Sum: make([]byte, alg.Size()+1)}), rtmr.ErrDigests},
		{"no digest", info.Register, nil, rtmr.ErrDigests},
		{"a bank left out", info.Register, good[1:], rtmr.ErrDigests},
		{"a bank twice", info.Register, append(slices.Clone(good), good[0]), rtmr.ErrDigests},
		{"a bank that is not there", info.Register, append(slices.Clone(good), rtmr.Digest{Alg: rtmr.SHA3512, Sum: make([]byte, 64)}), rtmr.ErrDigests},
	}
	for _, static := range s.description.Registers {
		if !static.Writable {
			tests = append(tests, test{"a register that cannot be extended", static.Register, hashes(static, "x"), rtmr.ErrNotWritable})
		}
	}
	for _, c := range tests {
		if err := s.d.Extend(context.Background(), c.register, c.digests); !errors.Is(err, c.want) {
			t.Errorf("%s (%s): %v, expected %v", c.name, c.register, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.d.Extend(ctx, info.Register, good); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v, expected context.Canceled", err)
	}
	s.same(t, before, "after what was refused")
}

// concurrent extends one register by the same digests from several goroutines
// and reads it meanwhile: every value that is read is one of those that the
// register goes through, and the last is of all extends.
func (s *suite) concurrent(t *testing.T) {
	const extenders, each = 4, 25
	info := s.writable(t)[0]
	digest := hashes(info, "always the same")
	steps := []rtmr.Values{s.values(t, info.Register)}
	for range extenders * each {
		next := make(rtmr.Values)
		for _, a := range info.Banks {
			next.Set(a, info.Register, steps[len(steps)-1][a][info.Register])
		}
		fold(next, info.Register, digest)
		steps = append(steps, next)
	}

	var wg, reader sync.WaitGroup
	done := make(chan struct{})
	for range extenders {
		wg.Go(func() {
			for range each {
				if err := s.d.Extend(context.Background(), info.Register, digest); err != nil {
					t.Errorf("extend %s: %v", info.Register, err)
					return
				}
			}
		})
	}
	reader.Go(func() {
		for {
			got, err := s.d.Read(context.Background(), info.Register)
			if err != nil {
				t.Errorf("read %s: %v", info.Register, err)
				return
			}
			for _, a := range info.Banks {
				value := got[a][info.Register]
				if !slices.ContainsFunc(steps, func(v rtmr.Values) bool { return bytes.Equal(v[a][info.Register], value) }) {
					t.Errorf("%s %s was read as %s, which it never is", a, info.Register, value)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(done)
	reader.Wait()
	s.same(t, steps[len(steps)-1], "after concurrent extends")
}
