//go:build linux

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// Other is an extend by another process, as the tap told of it.
type Other struct {
	Register rtmr.Register `json:"-"`
	Digest   rtmr.Digest   `json:"-"`
	PID      int           `json:"pid"`
	PPID     int           `json:"ppid"`
	Comm     string        `json:"comm"`
	CgroupID uint64        `json:"cgroup"`
	BootTime time.Duration `json:"boottime"` // nanoseconds
}

// OtherType is the type of a journal's entry for an extend by another process: its
// data tell who that was, and the digest is what was found in the register.
const OtherType = "other"

func (o *Other) measurement() (rtmr.Measurement, error) {
	text, err := json.Marshal(o)
	return rtmr.Measurement{Register: o.Register, Digests: []rtmr.Digest{o.Digest}, Entry: otherEntry(text)}, err
}

// otherEntry is an Other's entry before it is in the journal.
type otherEntry []byte

func (e otherEntry) Type() string                            { return OtherType }
func (e otherEntry) Detail() string                          { return rtmr.Escape(string(e)) }
func (e otherEntry) Data() []byte                            { return e }
func (e otherEntry) Verify(rtmr.Digest) (rtmr.Check, []byte) { return rtmr.CannotCheck, nil }

// theirs is a note's kind, and theirsAbout what it says: so many records of a register
// that follow are of extends by others. Those, unlike ours, were in the register before
// they were in the journal.
const theirs = evidence.NoteOthers

type theirsAbout struct {
	Register rtmr.Register `json:"register"`
	Count    int           `json:"count"`
}

// theirsNote goes before them.
func theirsNote(reg rtmr.Register, n int) (rtmr.Measurement, error) {
	return noteOf(theirs, theirsAbout{reg, n})
}

// maxOthers bounds the extends by others that wait to be found in a register.
const maxOthers = 1024

// Tapped says that Saw will be called for each extend by another process.
func (e *Extender) Tapped() { e.tapped = true }

// Saw tells of an extend by another process. It is believed if it is what a register
// was extended with.
func (e *Extender) Saw(o Other) {
	e.othersMu.Lock()
	defer e.othersMu.Unlock()
	if len(e.others) == maxOthers {
		e.others = slices.Delete(e.others, 0, 1)
	}
	e.others = append(e.others, o)
}

// Check holds registers against the journal. Where others extended one, that is
// journaled: as measurements of theirs, if the tap told of digests that the register
// was extended with, and else as a base of its value now.
func (e *Extender) Check(ctx context.Context, registers ...rtmr.Register) error {
	e.mu.Lock()
	defer e.unlock()
	return errors.Join(e.catchUp(ctx, registers), e.check(ctx, registers))
}

// check is Check, with the lock held. Of a register of which nobody knows whether it was
// extended it says nothing.
func (e *Extender) check(ctx context.Context, registers []rtmr.Register) error {
	if len(registers) == 0 {
		return nil
	}
	live, err := e.device.Read(ctx, registers...)
	if err != nil {
		return err
	}
	unexplained := &base{Reason: foreign, Registers: make(rtmr.Values), Behind: make(map[rtmr.Register]int)}
	before := &base{Reason: atFirst, Registers: make(rtmr.Values)}
	for _, reg := range sorted(e.registers) {
		s, now := e.registers[reg], bankOf(live, reg)
		if len(now) == 0 || now.equal(s.value) || s.doubt != nil {
			continue
		}
		if shared(e.device) && !s.ours {
			before.add(reg, now)
			continue
		}
		if len(s.behind) > 0 { // before which theirs would have to stand
			unexplained.add(reg, now)
			unexplained.Behind[reg] = len(s.behind)
			continue
		}
		theirs, ok := e.explain(reg, s.value, now)
		if !ok {
			unexplained.add(reg, now)
			continue
		}
		told, err := theirsNote(reg, len(theirs))
		if err != nil {
			return err
		}
		if err := e.journal.Append(append([]rtmr.Measurement{told}, theirs...)); err != nil {
			return err
		}
		s.value = now
	}
	for _, b := range []*base{unexplained, before} {
		if len(b.Registers) > 0 {
			if err := e.rebase(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellTime is how long the tap may take to tell of an extend that took place.
const tellTime = 50 * time.Millisecond

// explain returns the extends by others that lead from one value to another.
func (e *Extender) explain(reg rtmr.Register, from, to bank) (theirs []rtmr.Measurement, ok bool) {
	for began := time.Now(); ; time.Sleep(tellTime / 10) {
		if theirs, ok = e.explained(reg, from, to); ok || !e.tapped || time.Since(began) > tellTime {
			return theirs, ok
		}
	}
}

// explained looks for extends by others, one after another, that lead from one value
// to the other. Those before the first of them were in the register already.
func (e *Extender) explained(reg rtmr.Register, from, to bank) (theirs []rtmr.Measurement, ok bool) {
	e.othersMu.Lock()
	defer e.othersMu.Unlock()
	for first := range e.others {
		value := from
		theirs = theirs[:0]
		for i, o := range e.others[first:] {
			if o.Register != reg {
				continue
			}
			m, err := o.measurement()
			if err != nil {
				return nil, false
			}
			theirs = append(theirs, m)
			if value = value.extended(m.Digests); value.equal(to) {
				e.forget(reg, first+i+1)
				return theirs, true
			}
		}
	}
	return nil, false
}

// forget drops the register's extends among the first n.
func (e *Extender) forget(reg rtmr.Register, n int) {
	later := slices.Clone(e.others[n:])
	e.others = append(slices.DeleteFunc(e.others[:n], func(o Other) bool { return o.Register == reg }), later...)
}
