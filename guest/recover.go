//go:build linux

package guest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// maxBatch is how many measurements are in the journal before they are extended,
// at the most: so a crash leaves no more than these to look at.
const maxBatch = 512

// recovery reads a journal beside the registers' live values, in one pass and
// bounded memory, and finds for each register the prefix of its measurements that
// folds to its value.
type recovery struct {
	live      rtmr.Values
	registers map[rtmr.Register]*recovered
	last      []kept // the last measurements, maxBatch at most
	records   int
}

// otherBootError says that a journal is another boot's. Registers may hold what they
// held when that began, and none of it was extended into these.
type otherBootError struct{ journal, now string }

func (e *otherBootError) Error() string {
	return fmt.Sprintf("the journal is of the boot %s, and this one is %s", e.journal, e.now)
}

// bootID is the kernel's name of this boot, or "".
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// recovered is what of one register is known.
type recovered struct {
	value  bank // what the journal folds it to, from its last base
	live   bank
	found  bool // some prefix folds to the live value,
	behind int  // and so many measurements came after it
	ours   bool // the journal has measurements of it
}

// kept is a measurement whose memory is its own.
type kept struct {
	register rtmr.Register
	digests  []rtmr.Digest
}

// bank is a register's value in each of its banks.
type bank map[rtmr.Alg]rtmr.Hex

func bankOf(values rtmr.Values, r rtmr.Register) bank {
	b := make(bank)
	for a, v := range values {
		if value, ok := v[r]; ok {
			b[a] = bytes.Clone(value)
		}
	}
	return b
}

func (b bank) equal(c bank) bool {
	if len(b) != len(c) {
		return false
	}
	for a, value := range b {
		if !bytes.Equal(value, c[a]) {
			return false
		}
	}
	return true
}

// extend makes the value what the digests make of it.
func (b bank) extend(digests []rtmr.Digest) {
	for _, d := range digests {
		if value, ok := b[d.Alg]; ok {
			d.Alg.Extend(value, d.Sum)
		}
	}
}

// extended returns what the digests make of the value.
func (b bank) extended(digests []rtmr.Digest) bank {
	c := b.clone()
	c.extend(digests)
	return c
}

func (b bank) clone() bank {
	c := make(bank, len(b))
	for a, value := range b {
		c[a] = bytes.Clone(value)
	}
	return c
}

func newRecovery(live rtmr.Values) *recovery {
	return &recovery{live: live, registers: make(map[rtmr.Register]*recovered)}
}

// add takes the journal's next record.
func (r *recovery) add(m rtmr.Measurement) error {
	r.records++
	b, ok, err := parseBase(m)
	if err != nil {
		return err
	}
	if ok {
		if boot := bootID(); r.records == 1 && b.Boot != "" && b.Boot != boot {
			return &otherBootError{b.Boot, boot}
		}
		r.rebase(b)
		return nil
	}
	if m.NoAction {
		return nil
	}
	for _, d := range m.Digests {
		if check, computed := m.Entry.Verify(d); check == rtmr.Contradicts {
			return fmt.Errorf("record %d: %s says %s, and its data give %x", r.records-1, m.Register, d, computed)
		}
	}
	reg := r.registers[m.Register]
	if reg == nil {
		return fmt.Errorf("record %d: %s has no base before it", r.records-1, m.Register)
	}
	reg.extend(m.Digests)
	r.keep(m)
	return nil
}

func (r *recovery) rebase(b base) {
	for _, reg := range b.names() {
		state := &recovered{value: bankOf(b.Registers, reg), live: bankOf(r.live, reg)}
		if before := r.registers[reg]; before != nil {
			state.ours = before.ours
		}
		state.compare()
		first := r.kept(reg) - b.Behind[reg] // that comes after the base
		r.last = slices.DeleteFunc(r.last, func(k kept) bool {
			if k.register != reg {
				return false
			}
			first--
			return first >= 0
		})
		for _, k := range r.last {
			if k.register == reg {
				state.extend(k.digests)
			}
		}
		r.registers[reg] = state
	}
}

// extend takes the register's next measurement.
func (s *recovered) extend(digests []rtmr.Digest) {
	s.value.extend(digests)
	s.behind++
	s.ours = true
	s.compare()
}

func (s *recovered) compare() {
	if s.value.equal(s.live) {
		s.found, s.behind = true, 0
	}
}

func (r *recovery) keep(m rtmr.Measurement) {
	if len(r.last) == maxBatch {
		r.last = slices.Delete(r.last, 0, 1)
	}
	k := kept{register: m.Register}
	for _, d := range m.Digests {
		k.digests = append(k.digests, rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)})
	}
	r.last = append(r.last, k)
}

// outcome returns the measurements that are in the journal and not in the
// registers, in order, and a base for those registers whose value no prefix folds
// to. Then others extended them: what of the last batch was extended is not known.
// Of shared registers, only those count that the helper extended too.
func (r *recovery) outcome(shared bool) (behind []kept, others *base) {
	behindOf := make(map[rtmr.Register]int)
	for reg, s := range r.registers {
		live := bankOf(r.live, reg)
		switch n := r.kept(reg); {
		case len(live) == 0: // a register that the device does not have
		case shared && !s.ours:
			s.value = live
		case s.found && s.behind <= n:
			behindOf[reg] = s.behind
		default:
			if others == nil {
				others = &base{Reason: foreign, Registers: make(rtmr.Values), Unknown: make(map[rtmr.Register]int)}
			}
			others.add(reg, live)
			if n > 0 {
				others.Unknown[reg] = n
			}
		}
	}
	for i := len(r.last) - 1; i >= 0; i-- {
		if k := r.last[i]; behindOf[k.register] > 0 {
			behindOf[k.register]--
			behind = append(behind, k)
		}
	}
	slices.Reverse(behind)
	return behind, others
}

// kept counts the register's measurements among the last.
func (r *recovery) kept(reg rtmr.Register) (n int) {
	for _, k := range r.last {
		if k.register == reg {
			n++
		}
	}
	return n
}
