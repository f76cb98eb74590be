//go:build linux

package guest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// maxBatch is how many measurements of a register are in the journal before they are
// extended, at the most: so a crash leaves no more than these to look at.
const maxBatch = 512

// recovery reads a journal beside the registers' live values, in one pass and
// bounded memory, and finds for each register the prefix of its measurements that
// folds to its value.
type recovery struct {
	here      origin
	live      rtmr.Values
	registers map[rtmr.Register]*recovered
	notes     map[string]bool // kinds of the notes
	start     base            // the first record
	records   int
	stoppedAt int             // records with the last note that all was extended
	undecided map[string]bool // see Extender
}

// recovered is what of one register is known.
type recovered struct {
	value  bank // what the journal folds it to, from its last base
	live   bank
	found  bool // some prefix folds to the live value,
	behind int  // and so many measurements came after it
	ours   bool // the journal has measurements of it
	last   [][]rtmr.Digest
	theirs int // so many of its records that are to come are others'
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

// origin is of what boot and device a journal is.
type origin struct {
	boot   string
	device evidence.Device
}

// originOf is of what boot and device a journal is that begins now.
func originOf(device rtmr.Device) (origin, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	d := device.Describe()
	return origin{strings.TrimSpace(string(id)), evidence.Device{Kind: d.Kind, Name: d.Name}}, err
}

// foreignJournal says that a journal is another boot's or another device's. Registers
// may hold what they held when that began, and none of it was extended into these.
type foreignJournal struct{ why, text string }

func (e *foreignJournal) Error() string { return e.text }

// admit reports why a journal that begins with the base is none of this boot and device.
func (o origin) admit(b base) error {
	if b.Boot != o.boot {
		return &foreignJournal{asideOtherBoot, fmt.Sprintf("it is of the boot %q, and this is %q", b.Boot, o.boot)}
	}
	if b.Device == nil || *b.Device != o.device {
		return &foreignJournal{asideOtherDevice, fmt.Sprintf("it is of the device %+v, and this is %+v", b.Device, o.device)}
	}
	return nil
}

func newRecovery(here origin, live rtmr.Values, undecided map[string]bool) *recovery {
	return &recovery{here: here, live: live, registers: make(map[rtmr.Register]*recovered), notes: make(map[string]bool), undecided: undecided}
}

// add takes the journal's next record.
func (r *recovery) add(m rtmr.Measurement) error {
	b, ok, err := parseBase(m)
	if err == nil && r.records == 0 {
		err = r.begin(b, ok)
	}
	r.records++
	if err != nil {
		return fmt.Errorf("record %d: %w", r.records-1, err)
	}
	switch {
	case ok:
		r.rebase(b)
		return nil
	case m.NoAction:
		return r.note(m)
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
	reg.add(cloneDigests(m.Digests))
	reg.theirs = max(0, reg.theirs-1)
	return nil
}

// note takes a note.
func (r *recovery) note(m rtmr.Measurement) error {
	n, ok := parseNote(m)
	if !ok {
		return nil
	}
	r.notes[n.Kind] = true
	switch n.Kind {
	case stopped:
		r.stoppedAt = r.records
		for _, s := range r.registers {
			s.last, s.behind, s.found = nil, 0, s.value.equal(s.live)
		}
		return nil
	case theirs:
	default:
		return nil
	}
	var told theirsAbout
	if err := json.Unmarshal(n.About, &told); err != nil {
		return fmt.Errorf("record %d: note %q: %w", r.records-1, n.Kind, err)
	}
	if reg := r.registers[told.Register]; reg != nil {
		reg.theirs = told.Count
	}
	return nil
}

// begin takes the journal's first record.
func (r *recovery) begin(b base, ok bool) error {
	if !ok || b.Reason != atStart {
		return errors.New("no base of a start, as a journal begins with")
	}
	r.start = b
	return r.here.admit(b)
}

func (r *recovery) rebase(b base) {
	r.doubt(&b)
	for _, reg := range b.names() {
		state := &recovered{value: bankOf(b.Registers, reg), live: bankOf(r.live, reg)}
		state.compare()
		if before := r.registers[reg]; before != nil {
			state.ours = before.ours
			after := min(max(b.Behind[reg], 0), len(before.last)) // that come after the base
			for _, digests := range before.last[len(before.last)-after:] {
				state.add(digests)
			}
		}
		r.registers[reg] = state
	}
}

// doubt notes what a base's registers have that may not have been extended.
func (r *recovery) doubt(b *base) {
	for reg, n := range b.Unknown {
		if s := r.registers[reg]; s != nil {
			s.doubted(r.undecided, reg, n, b.Behind[reg])
		}
	}
}

// doubted notes the last n measurements before the last of all, so many as later says,
// as undecided.
func (s *recovered) doubted(undecided map[string]bool, reg rtmr.Register, n, later int) {
	end := max(0, len(s.last)-max(0, later))
	for _, digests := range s.last[max(0, end-max(0, n)):end] {
		undecided[undecidedKey(reg, digests)] = true
	}
}

// add takes the register's next measurement.
func (s *recovered) add(digests []rtmr.Digest) {
	if len(s.last) == maxBatch {
		s.last = s.last[1:]
	}
	s.last = append(s.last, digests)
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

// stands reports whether it is known how much of the journal the register has.
func (s *recovered) stands() bool { return s.found && s.behind <= len(s.last) }

func cloneDigests(digests []rtmr.Digest) (c []rtmr.Digest) {
	for _, d := range digests {
		c = append(c, rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)})
	}
	return c
}

// torn reports why the bytes behind the last whole record cannot be what a process
// that died while it appended left.
func (r *recovery) torn(tail []byte) error {
	if r.records == 0 {
		return fmt.Errorf("%d bytes, and no record", len(tail))
	}
	if len(tail) == 0 {
		return nil
	}
	t, ok := parseTear(tail)
	if !ok {
		return fmt.Errorf("its last %d bytes are no part of one record", len(tail))
	}
	if s := r.registers[t.register]; s != nil && s.theirs == 0 && !s.stands() && t.digests != nil && s.value.extended(t.digests).equal(s.live) {
		return fmt.Errorf("its last record is not whole, and %s was extended by it", t.register)
	}
	return nil
}

// outcome returns what is known of the registers, and a base for those whose value no
// prefix folds to. Then others extended them: what of the last batch was extended is
// not known. Of shared registers, only those count that the helper extended too.
func (r *recovery) outcome(shared bool) (states map[rtmr.Register]*state, others *base) {
	states = make(map[rtmr.Register]*state)
	for reg, s := range r.registers {
		if len(s.live) == 0 { // a register that the device does not have
			continue
		}
		states[reg] = &state{value: s.live.clone(), ours: s.ours}
		switch n := len(s.last); {
		case shared && !s.ours:
		case s.stands():
			states[reg].behind = slices.Clone(s.last[n-s.behind:])
		default:
			if others == nil {
				others = &base{Reason: foreign, Registers: make(rtmr.Values), Unknown: make(map[rtmr.Register]int)}
			}
			others.add(reg, s.live)
			if n > 0 {
				others.Unknown[reg] = n
			}
		}
	}
	return states, others
}

// sorted are the registers in their order.
func sorted[V any](registers map[rtmr.Register]V) []rtmr.Register {
	return slices.SortedFunc(maps.Keys(registers), rtmr.Register.Compare)
}
