//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"tallystick/eventlog/cel"
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
	// IMADir is where the kernel has its lists; IMADir if "".
	IMADir string
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
	Facts  [][2]string // name and value of what else the evidence is to say
	Wake   Waker       // Poll(time.Second) if nil
	// Alive, if not nil, is called before each batch of measurements and before
	// each wait for more: a watchdog's sign of life.
	Alive func()
	// Tapped says that Saw is called for extends by other processes.
	Tapped bool
	Log    *slog.Logger
}

// Helper extends what the kernel and applications measure, each exactly once.
type Helper struct {
	cfg      Config
	extender *Extender
	list     *List

	// kernelExtends says that the kernel extends IMA's entries into the device itself.
	kernelExtends bool

	started time.Time
	proving sync.Mutex // one piece of evidence at a time

	// Locks are taken in this order: keysMu, the extender's, mu.
	keysMu sync.Mutex
	keys   map[string]rtmr.Measurement // of applications' measurements
	mu     sync.Mutex
	last   error // why the last try failed; nil once one did not
}

// New opens the journal, extends what a helper before it left, and the boot log if
// it is to be. Run then follows the kernel.
func New(ctx context.Context, cfg Config) (*Helper, error) {
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
	h := &Helper{cfg: cfg, keys: make(map[string]rtmr.Measurement), started: time.Now()}
	var trail Trail
	var first *base
	booted := 0
	extender, err := OpenExtender(ctx, cfg.Device, cfg.Journal, func(m rtmr.Measurement) {
		if b, ok, err := parseBase(m); ok && err == nil && first == nil {
			first = &b
		}
		switch entry := m.Entry.(*cel.Entry); entry.ContentType() {
		case cel.ContentIMATemplate:
			trail.Add(entry.Inner().(*ima.Entry))
		case cel.ContentPCClient:
			if !m.NoAction {
				booted++
			}
		case cel.ContentTallystick:
			h.remember(m)
		}
	})
	if err != nil {
		return nil, err
	}
	h.extender = extender
	if cfg.Tapped {
		extender.Tapped()
	}
	if r := extender.Recovery(); r.Records > 0 {
		cfg.Log.Info("journal taken up", "records", r.Records, "extended now", r.Behind, "torn bytes", r.Torn, "extended by others", r.Foreign)
	}
	if r := extender.Recovery(); r.Damaged != "" {
		cfg.Log.Error("the journal could not be believed", "kept as", r.Damaged, "reason", r.Reason)
		if trail, err = h.salvage(ctx, first); err != nil {
			extender.Close()
			return nil, err
		}
	}
	if h.kernelExtends, err = kernelExtends(cfg.Device, cfg.IMADir); err != nil {
		extender.Close()
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(cfg.IMADir, "binary_runtime_measurements")); err != nil {
		cfg.Log.Warn("this kernel has no IMA list (CONFIG_IMA, securityfs)", "error", err)
	}
	h.list = OpenList(cfg.IMADir, h.banks(), trail)
	extender.listed = len(trail)
	if cfg.FirmwareLog != nil && cfg.Mirror && extender.Recovery().Damaged == "" {
		if err := h.mirror(ctx, booted); err != nil {
			extender.Close()
			return nil, err
		}
	}
	return h, nil
}

// salvage finds how much of the kernel's list a helper whose journal is lost had
// extended: the entries that fold from the journal's first base to the registers.
// Where no number of them does, all count as extended, and that is journaled: an
// entry that was not is missing, as the log says, and none is extended twice.
func (h *Helper) salvage(ctx context.Context, first *base) (Trail, error) {
	fault.Point("salvage.before")
	live, err := h.cfg.Device.Read(ctx)
	if err != nil {
		return nil, err
	}
	list := OpenList(h.cfg.IMADir, h.banks(), nil)
	defer list.Close()
	var trail Trail
	proven, found := 0, false
	values := make(map[rtmr.Register]bank)
	for {
		batch, err := list.Next(maxBatch)
		if err != nil || len(batch) == 0 {
			break // what cannot be read now is told when it is followed
		}
		placed := h.placed(batch)
		trail = append(trail, TrailOf(placed)...)
		for i, m := range placed {
			if first == nil {
				continue
			}
			if values[m.Register] == nil {
				values[m.Register] = bankOf(first.Registers, m.Register)
			}
			values[m.Register] = values[m.Register].extended(m.Digests)
			if values[m.Register].equal(bankOf(live, m.Register)) {
				proven, found = len(trail)-len(placed)+i+1, true
			}
		}
	}
	if found {
		trail = trail[:proven]
	}
	h.cfg.Log.Warn("entries of the IMA list count as extended", "entries", len(trail), "proven", found)
	fault.Point("salvage.found")
	return trail, h.extender.Note("salvaged", map[string]any{"entries": len(trail), "proven": found})
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

// mirror extends the boot log, but for its first events that are in the journal. Not
// after a journal was lost: nobody knows which of them were extended.
func (h *Helper) mirror(ctx context.Context, done int) error {
	batch, err := h.cfg.FirmwareLog.Mirror(h.cfg.Device.Describe())
	if err != nil {
		h.cfg.Log.Warn("the boot log ends early", "log", h.cfg.FirmwareLog.Path, "error", err)
	}
	if done >= len(batch) {
		return nil
	}
	fault.Point("mirror.before")
	_, err = h.extender.Extend(ctx, batch[done:]...)
	fault.Point("mirror.after")
	return err
}

// Run follows the kernel's list until the context ends.
func (h *Helper) Run(ctx context.Context) error {
	defer h.list.Close()
	for h.kernelExtends {
		h.cfg.Alive()
		if err := h.cfg.Wake.Wait(ctx); err != nil {
			return err
		}
	}
	var pending []rtmr.Measurement
	for {
		h.cfg.Alive()
		if len(pending) == 0 {
			batch, err := h.list.Next(maxBatch)
			if err := h.noteGap(err); err != nil {
				h.failed("read the IMA list", err)
			}
			pending = h.placed(batch)
		}
		if len(pending) > 0 {
			n, err := h.extender.Extend(ctx, pending...)
			pending = pending[n:]
			if err == nil {
				h.succeeded()
				continue
			}
			h.failed("extend", err)
		}
		if err := h.cfg.Wake.Wait(ctx); err != nil {
			return err
		}
	}
}

// Saw tells of an extend by another process, which is journaled as that if it is
// found in the register.
func (h *Helper) Saw(ctx context.Context, o Other) error {
	h.extender.Saw(o)
	return h.extender.Check(ctx, o.Register)
}

// placed gives measurements the device's registers and banks.
func (h *Helper) placed(batch []rtmr.Measurement) (placed []rtmr.Measurement) {
	description := h.cfg.Device.Describe()
	for _, m := range batch {
		if !h.cfg.Register.IsZero() {
			m.Register = h.cfg.Register
		} else if _, own := description.Register(m.Register); !own {
			m.Register, _ = rtmr.PCR(m.Register.Index()).CC()
		}
		info, ok := description.Register(m.Register)
		if !ok || !info.Writable {
			h.failed("extend", fmt.Errorf("an IMA entry's register, %s, is none of the device's", m.Register))
			continue
		}
		var digests []rtmr.Digest
		for _, d := range m.Digests {
			if slices.Contains(info.Banks, d.Alg) {
				digests = append(digests, d)
			}
		}
		m.Digests = digests
		placed = append(placed, m)
	}
	return placed
}

// noteGap journals that the list may lack entries.
func (h *Helper) noteGap(err error) error {
	var gap *Gap
	if !errors.As(err, &gap) {
		return err
	}
	h.cfg.Log.Error("measurements may be missing", "error", gap)
	fault.Point("gap.before")
	defer fault.Point("gap.after")
	return h.extender.Note("gap", map[string]any{"after": gap.After, "text": gap.Error()})
}

func (h *Helper) failed(what string, err error) {
	h.mu.Lock()
	news := h.last == nil || h.last.Error() != err.Error()
	h.last = err
	h.mu.Unlock()
	if news {
		h.cfg.Log.Error("cannot "+what+", and tries again", "error", err)
	}
}

func (h *Helper) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		h.last = nil
		h.cfg.Log.Info("extends again")
	}
}

// remember notes the key of an application's measurement, of which the journal's
// reader keeps the memory.
func (h *Helper) remember(m rtmr.Measurement) {
	var app App
	if json.Unmarshal(m.Entry.Data(), &app) == nil && app.Key != "" {
		m.Entry = appEntry{m.Entry.Type(), bytes.Clone(m.Entry.Data())}
		m.Digests = nil
		h.keys[app.Key] = m
	}
}

// ErrKeyUsed says that a key was used for another measurement.
var ErrKeyUsed = errors.New("the key was used for another measurement")

// Extend extends a register by an application's measurement, once for each key. It
// reports whether it was extended now, or had been before.
func (h *Helper) Extend(ctx context.Context, r rtmr.Register, kind string, app *App) (now bool, err error) {
	info, ok := h.description(r)
	if !ok {
		return false, fmt.Errorf("%s: %w", r, rtmr.ErrNotSupported)
	}
	m, err := app.measurement(r, kind, info.Banks)
	if err != nil {
		return false, err
	}
	h.keysMu.Lock()
	defer h.keysMu.Unlock()
	if before, used := h.keys[app.Key]; used && app.Key != "" {
		if before.Register != r || before.Entry.Type() != m.Entry.Type() || !bytes.Equal(before.Entry.Data(), m.Entry.Data()) {
			return false, fmt.Errorf("key %q: %w", app.Key, ErrKeyUsed)
		}
		return false, h.extender.CatchUp(ctx)
	}
	n, err := h.extender.Extend(ctx, m)
	fault.Point("key.before")
	if n == 1 && app.Key != "" {
		h.keys[app.Key] = m
	}
	fault.Point("key.after")
	return n == 1, err
}

func (h *Helper) description(r rtmr.Register) (rtmr.RegisterInfo, bool) {
	d := h.cfg.Device.Describe()
	return d.Register(r)
}

// Close lets go of the journal. Run has to have ended.
func (h *Helper) Close() error { return h.extender.Close() }
