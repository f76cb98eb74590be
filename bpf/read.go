//go:build linux

package bpf

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"tallystick/rtmr"
)

// Snapshot is all registers as they were at one moment.
type Snapshot struct {
	state registersState
}

// Read is rtmr.Device's: the registers' values at one moment.
func (r *Registers) Read(ctx context.Context, registers ...rtmr.Register) (rtmr.Values, error) {
	infos, err := r.description.Select(registers)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read registers: %w", err)
	}
	s, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	values := make(rtmr.Values)
	for _, info := range infos {
		for _, a := range info.Banks {
			values.Set(a, info.Register, s.Value(info.Register, a))
		}
	}
	return values, nil
}

// Snapshot returns all registers as they are now. It never returns a register of
// one moment beside one of another, nor a part of a value. It returns
// rtmr.ErrBusy if they were changing for a second.
func (r *Registers) Snapshot() (*Snapshot, error) {
	s := new(Snapshot)
	started := time.Now()
	for try := 1; ; try++ {
		if ok, err := r.readOnce(&s.state); ok || err != nil {
			return s, err
		}
		if try%64 == 0 {
			if time.Since(started) > busyFor {
				return nil, fmt.Errorf("read registers: %w", rtmr.ErrBusy)
			}
			time.Sleep(10 * time.Microsecond) // the CPU may be what the extender lacks
		}
	}
}

// readOnce copies the registers and reports whether they belong together: the
// sequence was even, and the same in a copy made before and in one made after.
// One copy's own sequence says nothing, as the kernel copies in no known order.
func (r *Registers) readOnce(s *registersState) (bool, error) {
	var before, after registersState
	for _, c := range []*registersState{&before, s, &after} {
		if err := r.state.Lookup(uint32(0), c); err != nil {
			return false, fmt.Errorf("read registers: %w", explain(err))
		}
	}
	return before.Sequence&1 == 0 && before.Sequence == after.Sequence, nil
}

// Values returns every register's value, by bank.
func (s *Snapshot) Values() rtmr.Values {
	v := make(rtmr.Values, len(Banks))
	for _, a := range Banks {
		v[a] = make(map[rtmr.Register]rtmr.Hex, rtmr.NumPCRs)
		for i := range s.state.Reg {
			reg, _ := rtmr.PCR(i).Register()
			v[a][reg] = bytes.Clone(s.state.Reg[i].bank(a))
		}
	}
	return v
}

// Value returns a register's value in a bank, or nil where there is none.
func (s *Snapshot) Value(reg rtmr.Register, a rtmr.Alg) rtmr.Hex {
	if reg.Kind() != rtmr.KindPCR {
		return nil
	}
	return bytes.Clone(s.state.Reg[reg.Index()].bank(a))
}

// Extends returns how many extends there have been since the reset, and when
// the last was, as time since boot in which the machine's sleep counts
// (CLOCK_BOOTTIME); 0 if there was none.
func (s *Snapshot) Extends() (n uint64, last time.Duration) {
	return s.state.Extends, time.Duration(s.state.Updated)
}

// RegisterExtends is Extends for one register.
func (s *Snapshot) RegisterExtends(reg rtmr.Register) (n uint64, last time.Duration) {
	if reg.Kind() != rtmr.KindPCR {
		return 0, 0
	}
	r := &s.state.Reg[reg.Index()]
	return r.Extends, time.Duration(r.Updated)
}
