//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tallystick/bpf"
	"tallystick/evidence"
	"tallystick/guest/internal/fault"
	"tallystick/rtmr"
)

// Extender puts measurements into the journal and into the registers, each exactly
// once, whatever happens to its process.
//
// The journal leads the registers: a measurement is in the journal before its
// extend begins, and a register's next batch is journaled only when its last one is
// extended. So whoever opens the journal after a crash finds, among the last maxBatch
// measurements of each register, where it stands.
//
// A register that cannot be extended keeps none of the others waiting.
type Extender struct {
	device  rtmr.Device
	journal *Journal
	folder  *os.File // locked
	start   base     // the journal's first record
	notes   map[string]bool
	// stoppedAt is how many records there were with the last note that all of them were
	// extended.
	stoppedAt int
	lost      *recovery // what is believed of the journals that were put aside

	mu        lock
	now       atomic.Pointer[progress] // what Status tells while the lock is held
	registers map[rtmr.Register]*state
	undecided map[string]bool // digests in the journal of which nobody will know whether they were extended
	report    Recovery

	listed     int   // entries of the kernel's IMA list that were journaled
	listedSize int64 // and how many bytes of the list they and those before them are

	tapped   bool // Saw is called
	othersMu sync.Mutex
	others   []Other // that were not found in a register yet
}

// state is what is known of a register.
type state struct {
	value  bank            // what the journal stands for, without what is behind
	behind [][]rtmr.Digest // in the journal, and not in the register; but
	doubt  error           // why of the first of them nobody knows, if not nil
	failed bool            // the device would not, the last time
	ours   bool            // the journal has measurements of it
}

// Recovery is what was found when the journal was opened.
type Recovery struct {
	Records int    `json:"records"`           // in the journal
	Behind  int    `json:"behind"`            // of them, extended only now
	Torn    int    `json:"torn"`              // bytes of a record that was never whole, cut off
	Foreign string `json:"foreign,omitempty"` // registers that others extended, or ""
	Damaged string `json:"damaged,omitempty"` // where the last journal of this boot is that could not be believed, or ""
	Other   string `json:"other,omitempty"`   // where a journal of another boot or device was put aside just now, or ""
	Reason  string `json:"reason,omitempty"`  // why one was put aside
}

// ErrUndecided says of a measurement that is in the journal that nobody will know whether
// it was extended: others extended its register at the same time. The journal says so.
var ErrUndecided = fmt.Errorf("nobody will know whether it was extended: %w", rtmr.ErrUnknown)

// OpenExtender opens the journal at the path, or begins one, holds it against the
// device's registers, and extends what a process that died left, as far as the device
// will.
//
// A journal that contradicts itself or that cannot be read is put aside, under a
// name beside its own, and another one begun: measuring goes on, and the evidence
// has both. So is a journal of another boot or of another device, of which nothing is
// taken up.
//
// It calls each, if not nil, for what is in the journals of this boot: for one that was
// put aside, up to where it cannot be believed, and then for the one after it.
//
// Nobody else holds a journal in the same folder meanwhile; that is ErrJournalHeld.
func OpenExtender(ctx context.Context, device rtmr.Device, path string, each func(rtmr.Measurement)) (*Extender, error) {
	if each == nil {
		each = func(rtmr.Measurement) {}
	}
	// The lock comes first: registers that another still extends are not read.
	folder, err := holdFolder(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			folder.Close()
		}
	}()
	o := &opening{device: device, path: path, each: each}
	e, err := o.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	e.folder = folder
	// What cannot be extended now is tried again, and told of then.
	e.catchUp(ctx, sorted(e.registers))
	ok = true
	e.publish()
	return e, nil
}

// opening is an Extender before there is one.
type opening struct {
	device rtmr.Device
	path   string
	each   func(rtmr.Measurement)
	here   origin
	found  *recovery // in the journal
	lost   *recovery // in those that were put aside

	undecided map[string]bool // in all of them
}

// damage is why a journal cannot be believed.
type damage struct{ error }

func (d damage) Unwrap() error { return d.error }

func (o *opening) open(ctx context.Context) (*Extender, error) {
	var err error
	if o.here, err = originOf(o.device); err != nil {
		return nil, err
	}
	live, err := o.device.Read(ctx, writable(o.device)...)
	if err != nil {
		return nil, err
	}
	o.undecided = make(map[string]bool)
	o.found = newRecovery(o.here, live, o.undecided)
	journal, torn, err := openJournal(o.path, o.record)
	if err == nil {
		e, err := o.takeUp(journal, torn)
		if err == nil {
			return e, nil
		}
		journal.Close()
		if !errors.As(err, new(damage)) {
			return nil, err
		}
		return o.replace(ctx, err)
	}
	other := (*foreignJournal)(nil)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o.begin(live, "", nil)
	case errors.As(err, &other):
		e, err := o.begin(live, other.why, nil)
		if err == nil {
			e.report.Reason = other.text
		}
		return e, err
	case errors.As(err, new(*rtmr.SyntaxError)), errors.As(err, new(damage)):
		return o.replace(ctx, err)
	}
	return nil, err
}

// record takes the journal's next record.
func (o *opening) record(m rtmr.Measurement) error {
	if err := o.found.add(m); err != nil {
		return damage{err}
	}
	if o.found.records == 1 {
		for _, aside := range o.found.start.Damaged {
			if err := o.aside(inFolder(o.path, aside.Name)); err != nil {
				return err
			}
		}
	}
	o.each(m)
	return nil
}

// aside takes a journal that was put aside, as far as it can be believed.
func (o *opening) aside(path string) error {
	r := newRecovery(o.here, nil, o.undecided)
	err := readAside(path, func(m rtmr.Measurement) error {
		err := r.add(m)
		if err == nil {
			o.each(m)
		}
		return err
	})
	o.lose(r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lose remembers what a journal said that was put aside. Where it does not say what was
// taken over from the one before it, nothing of the kernel's list was extended in its
// time, and that one is what to go on from.
func (o *opening) lose(r *recovery) {
	if o.lost == nil || r.notes[takenOver] {
		o.lost = r
	}
}

func (o *opening) extender(registers map[rtmr.Register]*state) *Extender {
	return &Extender{device: o.device, mu: newLock(), lost: o.lost, notes: make(map[string]bool), registers: registers, undecided: o.undecided}
}

// takeUp goes on with a journal.
func (o *opening) takeUp(journal *Journal, torn []byte) (*Extender, error) {
	if err := o.found.torn(torn); err != nil {
		return nil, damage{err}
	}
	states, others := o.found.outcome(shared(o.device))
	e := o.extender(states)
	e.journal, e.start, e.notes = journal, o.found.start, o.found.notes
	e.stoppedAt = o.found.stoppedAt
	e.report.Records, e.report.Torn, e.report.Behind = o.found.records, len(torn), e.behind()
	if n := len(e.start.Damaged); n > 0 {
		last := e.start.Damaged[n-1]
		e.report.Damaged, e.report.Reason = inFolder(o.path, last.Name), last.Reason
	}
	if err := journal.cut(); err != nil {
		return nil, err
	}
	if others != nil {
		e.report.Foreign = fmt.Sprint(others.names())
		if err := e.rebase(others); err != nil {
			return nil, err
		}
		o.found.doubt(others)
	}
	return e, nil
}

// replace puts the journal, which is damaged, aside and begins another. What the sound
// part of it tells not to be extended is extended first: no other journal has it.
func (o *opening) replace(ctx context.Context, cause error) (*Extender, error) {
	states, others := o.found.outcome(shared(o.device))
	if others != nil {
		o.found.doubt(others)
	}
	e := o.extender(states)
	if err := e.catchUp(ctx, sorted(states)); err != nil {
		cause = fmt.Errorf("%w; %d measurements in it were not extended: %w", cause, e.behind(), err)
	}
	live, err := o.device.Read(ctx, writable(o.device)...)
	if err != nil {
		return nil, err
	}
	o.lose(o.found)
	return o.begin(live, asideDamaged, cause)
}

// begin begins a journal. One that is there is put aside.
func (o *opening) begin(live rtmr.Values, why string, cause error) (e *Extender, err error) {
	aside := ""
	if why != "" {
		if aside, err = asideFor(o.path, why); err != nil {
			return nil, err
		}
	}
	b := base{Reason: atStart, Registers: live, Boot: o.here.boot, Device: &o.here.device}
	e = o.extender(make(map[rtmr.Register]*state))
	if why == asideDamaged {
		b.Damaged = append(slices.Clone(o.found.start.Damaged), evidence.Aside{Name: filepath.Base(aside), Reason: cause.Error()})
		e.report.Damaged, e.report.Reason = aside, cause.Error()
	} else {
		e.report.Other = aside
	}
	first, err := b.measurement()
	if err != nil {
		return nil, err
	}
	if e.journal, err = newJournal(o.path, first); err != nil {
		return nil, err
	}
	if err := e.journal.install(aside); err != nil {
		e.journal.Close()
		return nil, err
	}
	e.start = b
	for _, reg := range b.names() {
		e.registers[reg] = &state{value: bankOf(live, reg)}
	}
	return e, nil
}

// shared reports whether others extend the device's registers as a matter of course:
// a TPM's, firmware, boot loader, kernel and systemd do.
func shared(device rtmr.Device) bool { return device.Describe().Kind == "tpm" }

// watched are the registers that nobody else is to extend.
func (e *Extender) watched() (registers []rtmr.Register) {
	for _, reg := range sorted(e.registers) {
		if !shared(e.device) || e.registers[reg].ours {
			registers = append(registers, reg)
		}
	}
	return registers
}

// writable are the registers that the device can extend.
func writable(device rtmr.Device) (registers []rtmr.Register) {
	for _, info := range device.Describe().Registers {
		if info.Writable {
			registers = append(registers, info.Register)
		}
	}
	return registers
}

// behind counts what is in the journal and not in the registers.
func (e *Extender) behind() (n int) {
	for _, s := range e.registers {
		n += len(s.behind)
	}
	return n
}

// rebase journals what registers hold, and goes on from there.
func (e *Extender) rebase(b *base) error {
	m, err := b.measurement()
	if err != nil {
		return err
	}
	if e.journal != nil { // as of one that is put aside
		fault.Point("base.before")
		if err := e.journal.Append([]rtmr.Measurement{m}); err != nil {
			return err
		}
		fault.Point("base.after")
	}
	for _, reg := range b.names() {
		e.registers[reg].value = bankOf(b.Registers, reg)
	}
	return nil
}

// Recovery returns what was found when the journal was opened.
func (e *Extender) Recovery() Recovery { return e.report }

// Damaged returns the paths of the journals of this boot that were put aside because
// they could not be believed, the last one last.
func (e *Extender) Damaged() (paths []string) {
	for _, aside := range e.start.Damaged {
		paths = append(paths, inFolder(e.journal.path, aside.Name))
	}
	return paths
}

// Extend puts measurements into the journal and into the registers, in order. Each
// has one digest for each bank of its register, and an Entry that explains them; or it
// is NoAction, and stands in the journal alone.
//
// It returns how many of them are in the journal. Those are not to be given again,
// whatever the error: what of them is not yet extended, if the device gives up, is
// extended before anything that comes later; but for one of which ErrUndecided tells.
func (e *Extender) Extend(ctx context.Context, batch ...rtmr.Measurement) (journaled int, err error) {
	return e.extendAll(ctx, batch, nil)
}

// extendAll is Extend, which calls then, if not nil, as soon as all of the batch is
// in the journal, with the lock held.
func (e *Extender) extendAll(ctx context.Context, batch []rtmr.Measurement, then func()) (journaled int, err error) {
	description := e.device.Describe()
	for i, m := range batch {
		if m.NoAction {
			continue
		}
		if err := description.CheckExtend(m.Register, m.Digests); err != nil {
			return 0, fmt.Errorf("measurement %d: %w", i, err)
		}
	}
	registers := registersOf(batch)
	e.mu.Lock()
	defer e.unlock()
	if len(batch) == 0 && then != nil {
		then()
	}
	for {
		if err := e.catchUp(ctx, registers); err != nil || journaled == len(batch) {
			return journaled, err
		}
		next := batch[journaled:min(len(batch), journaled+maxBatch)]
		if err := e.check(ctx, registersOf(next)); err != nil {
			return journaled, err
		}
		if err := e.journal.Append(next); err != nil {
			return journaled, err
		}
		journaled += len(next)
		for _, m := range next {
			if !m.NoAction {
				s := e.registers[m.Register]
				s.ours, s.behind = true, append(s.behind, m.Digests)
			}
		}
		if journaled == len(batch) && then != nil {
			then()
		}
		e.publishBehind()
	}
}

// registersOf returns the measurements' registers, each once.
func registersOf(batch []rtmr.Measurement) (registers []rtmr.Register) {
	for _, m := range batch {
		if !m.NoAction && !slices.Contains(registers, m.Register) {
			registers = append(registers, m.Register)
		}
	}
	return registers
}

// followed says how much of the kernel's list was journaled before.
func (e *Extender) followed(entries int, size int64) {
	e.mu.Lock()
	defer e.unlock()
	e.listed, e.listedSize = entries, size
}

// CatchUp extends what is in the journal and not in the registers.
func (e *Extender) CatchUp(ctx context.Context) error {
	e.mu.Lock()
	defer e.unlock()
	return e.catchUp(ctx, sorted(e.registers))
}

// catchUp extends what is in the journal and not in the registers, each as far as it
// can be.
func (e *Extender) catchUp(ctx context.Context, registers []rtmr.Register) (err error) {
	for _, reg := range registers {
		s := e.registers[reg]
		for len(s.behind) > 0 {
			failed := ctx.Err()
			if failed == nil {
				failed = e.extend(ctx, reg, s)
				s.failed = failed != nil
			}
			if failed != nil {
				err = errors.Join(err, failed)
				break
			}
		}
		if len(s.behind) == 0 {
			s.behind = nil // and its memory
		}
	}
	return err
}

// busyFor is how long a device may be busy, or not know what it did, before its error
// is returned.
const busyFor = 5 * time.Second

// extend extends a register by what is behind: by the first of it, or more where the
// device takes many. Who waits for it may go: what was begun is ended.
//
// As long as nobody knows whether the device extended, it is not asked to again: the
// register tells first.
func (e *Extender) extend(ctx context.Context, reg rtmr.Register, s *state) error {
	ctx = context.WithoutCancel(ctx)
	began := time.Now()
	again := func() bool { return !s.failed && time.Since(began) < busyFor }
	for {
		if s.doubt != nil {
			if done, err := e.settle(ctx, reg, s); done || err != nil {
				return err
			}
		}
		err := e.ask(ctx, reg, s)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rtmr.ErrUnknown):
			if s.doubt = err; !again() {
				return err
			}
		case errors.Is(err, rtmr.ErrBusy) && again():
			time.Sleep(time.Millisecond)
		default:
			return err
		}
	}
}

// batcher is a device that extends many at a time for less, and knows how many it did
// when there is an error: registers in the kernel.
type batcher interface {
	ExtendBatch(context.Context, []bpf.Entry) (done int, err error)
}

// ask has the device extend the register by the first that is behind, or by all if it
// takes many at a time.
func (e *Extender) ask(ctx context.Context, reg rtmr.Register, s *state) error {
	device, ok := e.device.(batcher)
	if !ok || len(s.behind) == 1 {
		fault.Point("extend.before")
		err := e.device.Extend(ctx, reg, s.behind[0])
		fault.Point("extend.after")
		if err == nil {
			s.extended(1)
		}
		return err
	}
	batch := make([]bpf.Entry, len(s.behind))
	for i, digests := range s.behind {
		batch[i] = bpf.Entry{Register: reg, Digests: digests}
	}
	fault.Point("batch.before")
	done, err := device.ExtendBatch(ctx, batch)
	fault.Point("batch.after")
	s.extended(done)
	return err
}

// extended says that the first n that were behind are in the register.
func (s *state) extended(n int) {
	for _, digests := range s.behind[:n] {
		s.value.extend(digests)
	}
	s.behind, s.doubt = s.behind[n:], nil
}

// settle learns from the register whether the first that is behind was extended. Where
// it was extended by others meanwhile and the tap does not tell in what order, nobody
// knows: that is journaled, and the extend is not tried again. As long as there is an
// error that leaves it behind, nothing is known.
func (e *Extender) settle(ctx context.Context, reg rtmr.Register, s *state) (done bool, err error) {
	live, err := e.device.Read(ctx, reg)
	if err != nil {
		return false, errors.Join(s.doubt, err)
	}
	fault.Point("settle.read")
	now := bankOf(live, reg)
	after := s.value.extended(s.behind[0])
	switch {
	case now.equal(after):
		s.extended(1)
		return true, nil
	case now.equal(s.value):
		s.doubt = nil
		return false, nil
	}
	b := &base{Reason: foreign, Registers: live,
		Behind: map[rtmr.Register]int{reg: len(s.behind) - 1}, Unknown: map[rtmr.Register]int{reg: 1}}
	if err := e.rebase(b); err != nil {
		return false, errors.Join(s.doubt, err)
	}
	err = fmt.Errorf("others extended %s meanwhile: %w (%v)", reg, ErrUndecided, s.doubt)
	e.undecided[undecidedKey(reg, s.behind[0])] = true
	s.behind, s.doubt = s.behind[1:], nil
	return true, err
}

// Note journals something that extends nothing: EV_NO_ACTION with a kind and JSON.
func (e *Extender) Note(kind string, about any) error {
	m, err := noteOf(kind, about)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.unlock()
	fault.Point("note.before")
	defer fault.Point("note.after")
	err = e.journal.Append([]rtmr.Measurement{m})
	if err == nil {
		e.notes[kind] = true
	}
	return err
}

// noted reports whether the journal has a note of the kind.
func (e *Extender) noted(kind string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notes[kind]
}

// young reports whether the journal has nothing but its first record.
func (e *Extender) young() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.journal.counts.Records == 1
}

// adopt takes another journal in the place of one that has nothing but its first record:
// one that begins with the base, says what was taken over, and folds to what the
// registers hold.
func (e *Extender) adopt(j *Journal, start base, registers []rtmr.Register) error {
	e.mu.Lock()
	defer e.unlock()
	if err := j.install(""); err != nil {
		return err
	}
	e.journal.Close()
	e.journal, e.start, e.notes[takenOver] = j, start, true
	for _, reg := range registers {
		e.registers[reg].ours = true
	}
	return nil
}

// undecidedKey is what a measurement is known by among those that are undecided.
func undecidedKey(reg rtmr.Register, digests []rtmr.Digest) string {
	return reg.String() + " " + string(digests[0].Sum)
}

// Undecided returns ErrUndecided for a measurement of which that is known.
func (e *Extender) Undecided(m rtmr.Measurement) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.undecided[undecidedKey(m.Register, m.Digests)] {
		return fmt.Errorf("others extended %s at the time: %w", m.Register, ErrUndecided)
	}
	return nil
}

// stopped is a note's kind: all of the journal before it is in the registers.
const stopped = evidence.NoteStopped

// Stop journals that nothing is behind, if that is so, and lets go as Close does. So if
// others extend before the journal is opened again, nothing of ours is in doubt.
func (e *Extender) Stop() error {
	e.mu.Lock()
	var err error
	if e.behind() == 0 && e.journal.err == nil && e.journal.counts.Records > e.stoppedAt {
		var m rtmr.Measurement
		if m, err = noteOf(stopped, struct{}{}); err == nil {
			err = e.journal.Append([]rtmr.Measurement{m})
		}
	}
	e.unlock()
	return errors.Join(err, e.Close())
}

// Close lets go of the journal and the device's registers, which stay.
func (e *Extender) Close() error { return errors.Join(e.journal.Close(), e.folder.Close()) }
