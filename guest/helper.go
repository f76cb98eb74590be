//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tallystick/evidence"
	"tallystick/guest/internal/fault"
	"tallystick/ima"
	"tallystick/rtmr"
)

// Waker says when the kernel has measured something: the tap does, or a clock.
type Waker interface {
	// Wait returns when there may be something new, or the context's error.
	Wait(ctx context.Context) error
}

// Poll is a Waker that looks again after a time.
type Poll time.Duration

// Wait waits for the time.
func (p Poll) Wait(ctx context.Context) error {
	t := time.NewTimer(time.Duration(p))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Config says what a Helper works on. Device and Journal have to be there.
type Config struct {
	Device  rtmr.Device
	Journal string // the journal's path
	// Locks is a folder that all helpers share, so that no two with other journals
	// extend one device; "" if nobody else could.
	Locks string
	// IMADir is where the kernel has its lists; IMADir if "". Root is the folder below
	// which its release stands, for the evidence; "/" if "".
	IMADir, Root string
	// Register is where IMA's entries are extended. The zero Register is, where
	// the device has PCRs, the entry's own, and else that of the UEFI rule
	// (rtmr.PCR.CC), which is RTMR2 for PCR 10.
	Register rtmr.Register
	// FirmwareLog is the firmware's, for the evidence; Mirror says that its events are
	// to be extended too, for registers that no firmware did.
	FirmwareLog *BootLog
	Mirror      bool
	// Prover makes the evidence's quotes; nil if there is to be none.
	Prover Prover
	// Own are extended where there is no FirmwareLog.
	Own   []OwnEvent
	Facts [][2]string // name and value of what else the evidence is to say
	Wake  Waker       // Poll(time.Second) if nil
	// Alive, if not nil, is called before each batch of measurements and before
	// each wait for more: a watchdog's sign of life.
	Alive func()
	// Tapped says that Saw is called for extends by other processes.
	Tapped bool
	About  About // for Status
	Log    *slog.Logger
}

// Helper extends what the kernel and applications measure, each exactly once.
type Helper struct {
	cfg      Config
	held     *os.File // the device's lock, or nil
	extender *Extender
	past     *past // until the list is followed

	// What is known once the kernel's list has an entry, and not before.
	followMu sync.Mutex
	follower *follower
	// kernelExtends says that the kernel extends IMA's entries into the device itself.
	kernelExtends bool

	started time.Time
	proving lock // one piece of evidence at a time
	proofs  proofs
	lag     lag

	// Locks are taken in this order: keysMu, the extender's, mu.
	keysMu sync.Mutex
	keys   map[string]rtmr.Measurement // of applications' measurements
	mu     sync.Mutex
	last   error  // why the last try failed; nil once one did not
	fault  *Fault // the last
	// missing are registers that the list names and the device does not have.
	missing []rtmr.Register

	busySince time.Time // since when the list cannot be opened, or zero
}

// New opens the journal, extends what a helper before it left, and what the boot is
// to be measured by. Run then follows the kernel.
func New(ctx context.Context, cfg Config) (*Helper, error) {
	cfg.complete()
	h := &Helper{cfg: cfg, past: newPast(), started: time.Now(), proving: newLock()}
	h.keys = h.past.keys
	started := false
	defer func() {
		if !started {
			h.Close()
		}
	}()
	if err := h.start(ctx, h.past); err != nil {
		return nil, err
	}
	started = true
	return h, nil
}

// start opens the journal, finds out what was extended before, makes ready to follow
// the kernel's list, and extends what the boot is measured by.
func (h *Helper) start(ctx context.Context, p *past) (err error) {
	if h.cfg.Locks != "" {
		if h.held, err = holdDevice(h.cfg.Locks, h.cfg.Device.Describe()); err != nil {
			return err
		}
	}
	if h.extender, err = OpenExtender(ctx, h.cfg.Device, h.cfg.Journal, p.add); err != nil {
		return err
	}
	h.tellRecovery()
	if h.extender.lost == nil && h.extender.Recovery().Records == 0 {
		// A copy of the list that is there is another boot's.
		if err := os.Remove(filepath.Join(h.cfg.folder(), spoolName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if p.over, err = h.judge(ctx, p); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(h.cfg.IMADir, listFiles[len(listFiles)-1])); err != nil {
		h.cfg.Log.Warn("this kernel has no IMA list (CONFIG_IMA, securityfs)", "error", err)
	}
	if err := h.begin(ctx); err != nil && !errors.Is(err, ErrJournalFull) { // of which Run tells
		return err
	}
	return h.measureBoot(ctx, p)
}

// complete puts in what was left out.
func (cfg *Config) complete() {
	if cfg.IMADir == "" {
		cfg.IMADir = IMADir
	}
	if cfg.Wake == nil {
		cfg.Wake = Poll(time.Second)
	}
	if cfg.Alive == nil {
		cfg.Alive = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
}

// folder is where the journal is.
func (cfg *Config) folder() string { return filepath.Dir(cfg.Journal) }

// tellRecovery logs what was found in the journal.
func (h *Helper) tellRecovery() {
	if h.cfg.Tapped {
		h.extender.Tapped()
	}
	r := h.extender.Recovery()
	if r.Records > 0 {
		h.cfg.Log.Info("journal taken up", "records", r.Records, "extended now", r.Behind, "torn bytes", r.Torn, "extended by others", r.Foreign)
	}
	if r.Other != "" {
		h.cfg.Log.Warn("a journal of another boot or device was there", "kept as", r.Other, "reason", r.Reason)
	}
	if r.Damaged != "" {
		h.cfg.Log.Error("the journal could not be believed", "kept as", r.Damaged, "reason", r.Reason)
	}
}

// measureBoot extends the firmware's log, or own events in its place, but for what
// the journal has. Where a journal was lost nobody knows which of them were
// extended, and none is.
func (h *Helper) measureBoot(ctx context.Context, p *past) (err error) {
	var batch []rtmr.Measurement
	switch {
	case p.lost:
		return nil
	case h.cfg.FirmwareLog != nil && h.cfg.Mirror:
		if batch, err = h.cfg.FirmwareLog.Mirror(h.cfg.Device.Describe()); err != nil {
			h.cfg.Log.Warn("the boot log ends early", "log", h.cfg.FirmwareLog.Path, "error", err)
		}
		batch = batch[min(p.events, len(batch)):]
	case h.cfg.FirmwareLog == nil && len(h.cfg.Own) > 0:
		return h.measureOwn(ctx, p)
	}
	fault.Point("mirror.before")
	err = h.extendBoot(ctx, batch)
	fault.Point("mirror.after")
	return err
}

// extendBoot extends what the boot is measured by. What of it is journaled, all of it, and
// cannot be extended is tried again by Run: no register keeps the helper from its start.
func (h *Helper) extendBoot(ctx context.Context, batch []rtmr.Measurement) error {
	n, err := h.extender.Extend(ctx, batch...)
	if err != nil && n == len(batch) {
		h.cfg.Log.Error("the boot's measurements are journaled, and not all are extended", "error", err)
		return nil
	}
	return err
}

// begin makes ready to follow the kernel's list behind what was extended, as soon as
// it has an entry: only that tells who extends it.
func (h *Helper) begin(ctx context.Context) error {
	h.followMu.Lock()
	defer h.followMu.Unlock()
	if h.follower != nil {
		return nil
	}
	first, err := firstEntry(ctx, h.cfg.IMADir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && first == nil {
		return nil
	}
	if err == nil {
		h.kernelExtends, err = kernelExtends(ctx, &h.cfg, first, h.past.trail)
	}
	if err == nil && !h.kernelExtends {
		err = h.takeOver(ctx, h.past)
	}
	if err != nil {
		return err
	}
	if err := h.tellHeadless(ctx, first); err != nil {
		return err
	}
	delivered, err := h.past.delivered(ctx, &h.cfg)
	if err != nil {
		return err
	}
	if h.follower, err = follow(ctx, &h.cfg, h.banks(), delivered, h.kernelExtends); err != nil {
		return err
	}
	h.past = nil
	h.extender.followed(len(delivered), h.follower.spool.size)
	return nil
}

// tellHeadless tells that the list was trimmed before any helper read it.
func (h *Helper) tellHeadless(ctx context.Context, first *ima.Entry) error {
	if _, ok := first.BootAggregate(); ok || h.past.gap || h.past.skipped > 0 || len(h.past.trail) > 0 {
		return nil
	}
	const text = "the IMA list does not begin with boot_aggregate: it was trimmed before it was read"
	h.cfg.Log.Error("measurements are missing", "error", text)
	n, err := h.extender.Extend(ctx, h.incident(evidence.GapType, gapData{0, text}))
	if n == 1 { // if it is not extended now, Run does
		h.past.gap = true
		return nil
	}
	return err
}

// gapData is a gap's data in the journal.
type gapData struct {
	After int    `json:"after"` // entries of the list
	Text  string `json:"text"`
}

// incident returns what nobody is to deny later as a measurement, into the register of
// IMA's entries. Where that is the kernel's to extend, or there is none, it stands in
// the journal alone.
func (h *Helper) incident(kind string, about any) rtmr.Measurement {
	data, err := json.Marshal(about)
	if err != nil {
		panic(err) // a slip in the source: it is of plain fields
	}
	pcr10, _ := rtmr.PCR(10).Register()
	info, ok := h.description(h.place(pcr10))
	m := rtmr.Measurement{Entry: appEntry{kind, data}}
	if !ok || !info.Writable || h.kernelExtends {
		n := evidence.Note{Kind: strings.TrimPrefix(kind, OwnType), About: data}
		m.NoAction, m.Entry = true, note(n.EventData())
		return m
	}
	m.Register = info.Register
	for _, a := range info.Banks {
		m.Digests = append(m.Digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, data)})
	}
	return m
}

// following returns what follows the list, or nil.
func (h *Helper) following() *follower {
	h.followMu.Lock()
	defer h.followMu.Unlock()
	return h.follower
}

// banks are the algorithms that the device's registers have.
func (h *Helper) banks() (banks []rtmr.Alg) {
	for _, info := range h.cfg.Device.Describe().Registers {
		for _, a := range info.Banks {
			if !slices.Contains(banks, a) {
				banks = append(banks, a)
			}
		}
	}
	return banks
}

// retry is how soon to try again what failed, whatever else wakes the helper.
const retry = 500 * time.Millisecond

// Run follows the kernel's list until the context ends, or until nothing can be
// journaled any more (ErrJournalBroken).
func (h *Helper) Run(ctx context.Context) error {
	var p pending
	defer h.finish()
	h.lag.began()
	for {
		h.cfg.Alive()
		more, err := h.step(ctx, &p)
		switch {
		case errors.Is(err, ErrJournalBroken):
			return err // for a helper that opens it again
		case err != nil:
			if err := Poll(retry).Wait(ctx); err != nil {
				return err
			}
		case !more:
			h.lag.ended()
			if err := h.cfg.Wake.Wait(ctx); err != nil {
				return err
			}
			h.lag.began()
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// finish extends what is in the journal when the helper is told to stop, if it can be:
// nobody may open the journal again before the kernel is another.
func (h *Helper) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), busyFor)
	defer cancel()
	if err := h.extender.CatchUp(ctx); err != nil {
		h.cfg.Log.Error("measurements in the journal are not extended", "error", err)
	}
}

// pending is what was read of the kernel's list and is not in the journal yet.
type pending struct {
	gap     *Gap               // before it, which is journaled first
	batch   []rtmr.Measurement // as the device takes them
	entries int
	size    int64 // of the list up to their end
}

// step takes the list's next entries, if none are pending, and extends them. More
// says that there may be further ones.
func (h *Helper) step(ctx context.Context, p *pending) (more bool, err error) {
	// A register that cannot be extended keeps no other waiting.
	behind := h.extender.CatchUp(ctx)
	if p.entries == 0 && p.gap == nil {
		if *p, err = h.take(ctx); err != nil {
			return false, err
		}
	}
	if err := h.tellGap(ctx, p); err != nil {
		return false, h.failed("journal a gap", err)
	}
	more = p.entries > 0
	if more && !h.kernelExtends {
		e := h.extender
		n, err := e.extendAll(ctx, p.batch, func() { e.listed, e.listedSize = e.listed+p.entries, p.size })
		p.batch = p.batch[n:]
		if record := (*RecordError)(nil); errors.As(err, &record) {
			// Too long for the journal, for one: it would be in the way for ever.
			h.cfg.Log.Error("an entry of the IMA list is not extended", "error", err)
			p.batch[record.Index] = h.leftOut(p.batch[record.Index], record.Err.Error())
			return true, nil
		}
		if len(p.batch) == 0 {
			*p = pending{}
		}
		if err != nil && ctx.Err() == nil {
			return false, h.failed("extend", err)
		}
	}
	*p = pending{}
	if err := ctx.Err(); err != nil {
		return false, err // what is behind, whoever opens the journal next extends
	}
	if behind != nil {
		return more, h.failed("extend", behind)
	}
	h.succeeded()
	return more, nil
}

// take takes the list's next entries, if there is a list.
func (h *Helper) take(ctx context.Context) (p pending, err error) {
	f := h.following()
	if f == nil {
		if err := h.begin(ctx); err != nil {
			return p, h.failed("begin with the IMA list", err)
		}
		if f = h.following(); f == nil {
			return p, nil
		}
	}
	p, err = h.next(f)
	if errors.Is(err, ErrListBusy) {
		return p, h.busy(err)
	}
	h.busySince = time.Time{}
	if err != nil {
		h.failed("read the IMA list", err)
	}
	return p, err
}

// next takes the list's next entries. A gap is no error of its.
func (h *Helper) next(f *follower) (p pending, err error) {
	batch, size, err := f.next(maxBatch)
	if errors.As(err, &p.gap) {
		err = nil // any other comes again
	}
	p.entries, p.size = len(batch), size
	p.batch = make([]rtmr.Measurement, 0, len(batch))
	for _, m := range batch {
		p.batch = append(p.batch, h.placed(m))
	}
	if p.entries > 0 || p.gap != nil {
		err = nil
	}
	return p, err
}

// tellGap tells of the gap, if there is one: until it is in the journal, nothing that
// is behind it is.
func (h *Helper) tellGap(ctx context.Context, p *pending) error {
	if p.gap == nil {
		return nil
	}
	fault.Point("gap.before")
	n, err := h.extender.Extend(ctx, h.incident(evidence.GapType, gapData{p.gap.After, p.gap.Error()}))
	fault.Point("gap.after")
	if n == 1 {
		h.cfg.Log.Error("measurements may be missing", "error", p.gap)
		p.gap = nil
	}
	return err
}

// listBusyFor is how long a list may be busy, by the monotonic clock, before that is told.
const listBusyFor = time.Minute

// busy tells of a list that nobody can open if it stays so.
func (h *Helper) busy(err error) error {
	if h.busySince.IsZero() {
		h.busySince = time.Now()
	}
	if time.Since(h.busySince) > listBusyFor {
		return h.failed("read the IMA list", err)
	}
	return err
}

// Saw tells of an extend by another process, which is journaled as that if it is
// found in the register. One that the device does not have is another's.
func (h *Helper) Saw(ctx context.Context, o Other) error {
	if _, ok := h.description(o.Register); !ok {
		return nil
	}
	h.extender.Saw(o)
	return h.extender.Check(ctx, o.Register)
}

// place returns the register into which an entry of a register goes.
func (h *Helper) place(r rtmr.Register) rtmr.Register {
	if !h.cfg.Register.IsZero() {
		return h.cfg.Register
	}
	if _, own := h.description(r); !own {
		r, _ = rtmr.PCR(r.Index()).CC()
	}
	return r
}

// placed gives a measurement the device's register and banks. Where it has none for
// it, it becomes one that says so.
func (h *Helper) placed(m rtmr.Measurement) rtmr.Measurement {
	if m.NoAction {
		return h.leftOut(m, "no TPM has the PCR, and the kernel extended nothing")
	}
	place := h.place(m.Register)
	info, ok := h.description(place)
	if !ok || !info.Writable {
		h.missed(m.Register)
		return h.leftOut(m, "the device has no register for "+m.Register.String())
	}
	m.Register = place
	if slices.ContainsFunc(m.Digests, func(d rtmr.Digest) bool { return !slices.Contains(info.Banks, d.Alg) }) {
		m.Digests = slices.DeleteFunc(m.Digests, func(d rtmr.Digest) bool { return !slices.Contains(info.Banks, d.Alg) })
	}
	return m
}

// leftOutData is in the journal in an entry's place.
type leftOutData struct {
	Template string   `json:"template"`
	Entry    rtmr.Hex `json:"entry"` // hashOf
	Text     string   `json:"text"`
}

// leftOut tells of an entry that cannot be extended.
func (h *Helper) leftOut(m rtmr.Measurement, why string) rtmr.Measurement {
	return h.incident(evidence.LeftOutType, leftOutData{m.Entry.Type(), hashOf(m.Entry.(*ima.Entry)), why})
}

// missed tells once of a register that the list names and the device does not have.
func (h *Helper) missed(r rtmr.Register) {
	h.mu.Lock()
	told := slices.Contains(h.missing, r)
	if !told {
		h.missing = append(h.missing, r)
	}
	h.mu.Unlock()
	if !told {
		h.cfg.Log.Error("entries of the IMA list are not extended: the device has no such register", "register", r)
	}
}

// failed tells of what is tried again.
func (h *Helper) failed(what string, err error) error {
	h.mu.Lock()
	news := h.last == nil || h.last.Error() != err.Error()
	h.last, h.fault = err, &Fault{err.Error(), time.Now()}
	h.mu.Unlock()
	if news {
		h.cfg.Log.Error("cannot "+what+", and tries again", "error", err)
	}
	return err
}

func (h *Helper) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		h.last = nil
		h.cfg.Log.Info("extends again")
	}
}

// ErrKeyUsed says that a key was used for another measurement.
var ErrKeyUsed = errors.New("the key was used for another measurement")

// Extend extends a register by an application's measurement, once for each key. It
// reports whether it was extended now, or had been before. With an error, now says that
// the measurement is in the journal, and is extended before anything that comes later;
// but after ErrUndecided nobody knows whether it was, and it will not be: the same key
// gets the same answer.
func (h *Helper) Extend(ctx context.Context, r rtmr.Register, kind string, app *App) (now bool, err error) {
	info, ok := h.description(r)
	if !ok {
		return false, fmt.Errorf("%s: %w: the device has %s", r, rtmr.ErrNotSupported, h.writable())
	}
	m, err := app.measurement(r, kind, info.Banks)
	if err != nil {
		return false, err
	}
	h.keysMu.Lock()
	defer h.keysMu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err // who asked is gone, and nothing was done
	}
	ctx = context.WithoutCancel(ctx) // what is journaled is extended, whoever waits for it
	if before, used := h.keys[app.Key]; used && app.Key != "" {
		if before.Register != r || before.Entry.Type() != m.Entry.Type() || !bytes.Equal(before.Entry.Data(), m.Entry.Data()) {
			return false, ErrKeyUsed // which key is nobody else's business
		}
		return false, errors.Join(h.extender.CatchUp(ctx), h.extender.Undecided(m))
	}
	n, err := h.extender.Extend(ctx, m)
	fault.Point("key.before")
	if n == 1 && app.Key != "" {
		h.keys[app.Key] = m
	}
	fault.Point("key.after")
	return n == 1, err
}

// writable are the registers that can be extended, for people.
func (h *Helper) writable() string {
	var names []string
	for _, r := range writable(h.cfg.Device) {
		names = append(names, r.String())
	}
	if len(names) > 4 {
		names = []string{names[0], "..", names[len(names)-1]}
	}
	return strings.Join(names, " ")
}

func (h *Helper) description(r rtmr.Register) (rtmr.RegisterInfo, bool) {
	d := h.cfg.Device.Describe()
	return d.Register(r)
}

// Close lets go of the journal. Run has to have ended.
func (h *Helper) Close() (err error) {
	if h.follower != nil {
		err = h.follower.close()
	}
	if h.extender != nil {
		err = errors.Join(err, h.extender.Stop())
	}
	if h.held != nil {
		err = errors.Join(err, h.held.Close())
	}
	return err
}
