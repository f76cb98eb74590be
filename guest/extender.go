//go:build linux

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tallystick/bpf"
	"tallystick/rtmr"
)

// Extender puts measurements into the journal and into the registers, each exactly
// once, whatever happens to its process.
//
// The journal leads the registers: a measurement is in the journal before its
// extend begins, and the next batch is journaled only when this one is extended.
// So whoever opens the journal after a crash finds, among its last maxBatch
// measurements, where the registers stand.
type Extender struct {
	device  rtmr.Device
	journal *Journal

	mu     lock
	now    atomic.Pointer[progress] // what Status tells while the lock is held
	values map[rtmr.Register]bank   // what the journal stands for, without what is behind
	ours   map[rtmr.Register]bool   // the journal has measurements of it
	behind []kept                   // in the journal, and not in the registers; but
	doubt  error                    // why of the first of them nobody knows, if not nil
	report Recovery

	listed     int   // entries of the kernel's IMA list that were journaled
	listedSize int64 // and how many bytes of the list they and those before them are

	lost *recovery // what is known of a journal that was put aside

	tapped   bool // Saw is called
	othersMu sync.Mutex
	others   []Other // that were not found in a register yet
}

// Recovery is what was found when the journal was opened.
type Recovery struct {
	Records int    `json:"records"`           // in the journal
	Behind  int    `json:"behind"`            // of them, extended only now
	Torn    int    `json:"torn"`              // bytes of a record that was never whole, cut off
	Foreign string `json:"foreign,omitempty"` // registers that others extended, or ""
	Damaged string `json:"damaged,omitempty"` // where a journal that could not be believed was put aside, or ""
	Reason  string `json:"reason,omitempty"`  // why it could not
}

// OpenExtender opens the journal at the path, or makes one, holds it against the
// device's registers, and extends what a process that died left.
//
// A journal that contradicts itself or that cannot be read is put aside, under a
// name beside its own, and another one begun: measuring goes on, and the evidence
// has both.
//
// It calls each, if not nil, for what is in the journal; for one that is put aside,
// up to where it cannot be believed, and then for the new one.
func OpenExtender(ctx context.Context, device rtmr.Device, path string, each func(rtmr.Measurement)) (*Extender, error) {
	if each == nil {
		each = func(rtmr.Measurement) {}
	}
	// The lock comes first: registers that another still extends are not read.
	lock, err := lockJournal(path)
	if err != nil {
		return nil, err
	}
	var e *Extender
	defer func() {
		if e == nil {
			lock.Close()
		}
	}()
	if e, err = openUndamaged(ctx, device, path, each); err != nil {
		return nil, err
	}
	e.journal.lock = lock
	return e, nil
}

// openUndamaged opens the journal, or another one in its place.
func openUndamaged(ctx context.Context, device rtmr.Device, path string, each func(rtmr.Measurement)) (*Extender, error) {
	e, err := openExtender(ctx, device, path, each)
	if damage := (*damagedError)(nil); errors.As(err, &damage) {
		aside, err := putAside(path)
		if err != nil {
			return nil, err
		}
		if e, err = openExtender(ctx, device, path, each); err != nil {
			return nil, err
		}
		e.report.Damaged, e.report.Reason, e.lost = aside, damage.err.Error(), damage.found
		return e, nil
	}
	return e, err
}

// damagedError is a journal's that cannot be believed, but for what was found before
// that shows.
type damagedError struct {
	err   error
	found *recovery
}

func (e *damagedError) Error() string { return "the journal is damaged: " + e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// putAside renames the journal to the first name that is free.
func putAside(path string) (aside string, err error) {
	for i := 1; ; i++ {
		aside = fmt.Sprintf("%s.damaged-%d", path, i)
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			return aside, os.Rename(path, aside)
		} else if err != nil {
			return "", err
		}
	}
}

func openExtender(ctx context.Context, device rtmr.Device, path string, each func(rtmr.Measurement)) (*Extender, error) {
	live, err := device.Read(ctx, writable(device)...)
	if err != nil {
		return nil, err
	}
	found := newRecovery(live)
	journal, torn, err := openJournal(path, func(m rtmr.Measurement) error {
		if err := found.add(m); errors.As(err, new(*otherBootError)) {
			return &damagedError{err, nil}
		} else if err != nil {
			return &damagedError{err, found}
		}
		each(m)
		return nil
	})
	if syntax := (*rtmr.SyntaxError)(nil); errors.As(err, &syntax) {
		return nil, &damagedError{err, found}
	}
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			journal.Close()
		}
	}()
	e := &Extender{device: device, journal: journal, mu: newLock(), values: make(map[rtmr.Register]bank), ours: make(map[rtmr.Register]bool)}
	e.report.Records, e.report.Torn = found.records, len(torn)
	if err := e.begin(found, live, torn); err != nil {
		return nil, err
	}
	e.report.Behind = len(e.behind)
	if err := e.catchUp(ctx); err != nil {
		return nil, err
	}
	ok = true
	e.publish()
	return e, nil
}

// shared reports whether others extend the device's registers as a matter of course:
// a TPM's, firmware, boot loader, kernel and systemd do.
func shared(device rtmr.Device) bool { return device.Describe().Kind == "tpm" }

// watched are the registers that nobody else is to extend.
func (e *Extender) watched() (registers []rtmr.Register) {
	for reg := range e.values {
		if !shared(e.device) || e.ours[reg] {
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

// begin takes up what the journal and the registers say.
func (e *Extender) begin(found *recovery, live rtmr.Values, torn []byte) error {
	if found.records == 0 {
		for _, reg := range writable(e.device) {
			e.values[reg] = bankOf(live, reg)
		}
		if len(torn) > 0 {
			return &damagedError{fmt.Errorf("%d bytes, and no record", len(torn)), found}
		}
		return e.rebase(&base{Reason: atStart, Registers: live, Boot: bootID()})
	}
	behind, others := found.outcome(shared(e.device))
	if others != nil && len(torn) > 0 {
		// A length that was altered takes records after it for a part of its own.
		return &damagedError{fmt.Errorf("its last %d bytes are no record, and the registers are not what is before them", len(torn)), found}
	}
	for reg, s := range found.registers {
		e.values[reg] = s.value
		e.ours[reg] = s.ours
	}
	for i := len(behind) - 1; i >= 0; i-- { // which the values stand for
		e.values[behind[i].register] = bankOf(live, behind[i].register)
	}
	e.behind = behind
	if err := e.journal.cut(); err != nil {
		return err
	}
	if others != nil {
		e.report.Foreign = fmt.Sprint(others.names())
		return e.rebase(others)
	}
	return nil
}

// rebase journals what registers hold, and goes on from there.
func (e *Extender) rebase(b *base) error {
	m, err := b.measurement()
	if err != nil {
		return err
	}
	if err := e.journal.Append([]rtmr.Measurement{m}); err != nil {
		return err
	}
	for _, reg := range b.names() {
		e.values[reg] = bankOf(b.Registers, reg)
	}
	return nil
}

// Recovery returns what was found when the journal was opened.
func (e *Extender) Recovery() Recovery { return e.report }

// Extend puts measurements into the journal and into the registers, in order. Each
// has one digest for each bank of its register, and an Entry that explains them.
//
// It returns how many of them are in the journal. Those are not to be given again,
// whatever the error: what of them is not yet extended, if the device gives up, is
// extended before anything that comes later.
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
	e.mu.Lock()
	defer e.unlock()
	if len(batch) == 0 && then != nil {
		then()
	}
	for {
		if err := e.catchUp(ctx); err != nil || journaled == len(batch) {
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
			if m.NoAction {
				continue
			}
			e.ours[m.Register] = true
			e.behind = append(e.behind, kept{m.Register, m.Digests})
		}
		if journaled == len(batch) && then != nil {
			then()
		}
		e.publish()
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
	return e.catchUp(ctx)
}

// catchUp extends what is in the journal and not in the registers.
func (e *Extender) catchUp(ctx context.Context) error {
	if err := e.extendBatch(ctx); err != nil {
		return err
	}
	for len(e.behind) > 0 {
		if err := e.extend(ctx); err != nil {
			return err
		}
		e.behind = e.behind[1:]
	}
	e.behind = nil // and its memory
	return nil
}

// batcher is a device that extends many at a time for less, and always knows how
// many it did: registers in the kernel.
type batcher interface {
	ExtendBatch(context.Context, []bpf.Entry) (done int, err error)
}

// extendBatch extends what is behind, if the device takes many at a time.
func (e *Extender) extendBatch(ctx context.Context) error {
	device, ok := e.device.(batcher)
	if !ok || len(e.behind) < 2 {
		return nil
	}
	batch := make([]bpf.Entry, len(e.behind))
	for i, k := range e.behind {
		batch[i] = bpf.Entry{Register: k.register, Digests: k.digests}
	}
	done, err := device.ExtendBatch(ctx, batch)
	for _, k := range e.behind[:done] {
		e.values[k.register].extend(k.digests)
	}
	e.behind = e.behind[done:]
	return err
}

// busyFor is how long a device may be busy before its error is returned.
const busyFor = 5 * time.Second

// extend extends the first measurement that is behind, once. Who waits for it may go:
// what was begun is ended.
func (e *Extender) extend(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	k, began := e.behind[0], time.Now()
	for {
		if e.doubt != nil {
			done, err := e.settle(ctx, k)
			if done || err != nil {
				return err
			}
		}
		err := e.device.Extend(ctx, k.register, k.digests)
		switch {
		case err == nil:
			e.values[k.register].extend(k.digests)
			return nil
		case errors.Is(err, rtmr.ErrUnknown):
			e.doubt = err
		case errors.Is(err, rtmr.ErrBusy) && time.Since(began) < busyFor:
			time.Sleep(time.Millisecond)
		default:
			return err
		}
	}
}

// settle learns from the register whether an extend took place. Where it was
// extended by others meanwhile, nobody can tell: that is journaled, and the extend
// is not tried again. As long as there is an error nothing is known.
func (e *Extender) settle(ctx context.Context, k kept) (done bool, err error) {
	live, err := e.device.Read(ctx, k.register)
	if err != nil {
		return false, errors.Join(e.doubt, err)
	}
	now := bankOf(live, k.register)
	after := e.values[k.register].extended(k.digests)
	switch {
	case now.equal(after):
		e.values[k.register], done = after, true
	case now.equal(e.values[k.register]):
	default:
		later := -1 // without k itself, which is the first
		for _, b := range e.behind {
			if b.register == k.register {
				later++
			}
		}
		err := e.rebase(&base{Reason: foreign, Registers: live,
			Behind: map[rtmr.Register]int{k.register: later}, Unknown: map[rtmr.Register]int{k.register: 1}})
		if err != nil {
			return false, errors.Join(e.doubt, err)
		}
		done = true
	}
	e.doubt = nil
	return done, nil
}

// noteMagic begins a note's event data.
const noteMagic = "Tallystick Note\x00"

// Note journals something that extends nothing: EV_NO_ACTION with a kind and JSON.
func (e *Extender) Note(kind string, about any) error {
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.unlock()
	return e.journal.Append([]rtmr.Measurement{{NoAction: true, Entry: note(noteMagic + kind + "\x00" + string(text))}})
}

// Close lets go of the journal and the device's registers, which stay.
func (e *Extender) Close() error { return e.journal.Close() }
