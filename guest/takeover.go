//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"tallystick/guest/internal/fault"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// takenOver is a note's kind, and takeover what it says: so many entries of the
// kernel's list count as extended, by helpers of which the journal does not tell; and
// whether they lead to what the registers held.
const takenOver = "taken-over"

type takeover struct {
	Entries int    `json:"entries"`
	Proven  bool   `json:"proven"`
	Reason  string `json:"reason"`
	// Lost says that a journal of this boot was: what is extended once in a boot
	// was, as far as anybody will know.
	Lost bool `json:"lost"`

	start func(rtmr.Register) bank // where the list's entries lead on from
	live  rtmr.Values              // and to
}

// judge says whether something was extended of which the journal does not tell; nil
// if not:
//
//   - The journal was put aside. It is believed up to where it is damaged, and the
//     list goes on from there to what the registers hold.
//   - There is none, and the registers are not what the boot left. A helper of the
//     kernel before a kexec extended them, whose /run is gone; or, of registers that
//     do not outlive a kernel, somebody removed the journal.
func (h *Helper) judge(ctx context.Context, p *past) (*takeover, error) {
	lost, r, live := h.extender.lost, h.extender.Recovery(), h.extender.start.Registers
	if h.extender.noted(takenOver) {
		return nil, nil
	}
	t := &takeover{live: live, start: h.atBoot(), Lost: lost != nil || !h.survivesKexec()}
	switch {
	case lost != nil:
		t.Reason = "the journal was damaged: " + r.Reason
		reset := h.reset()
		t.start = func(r rtmr.Register) bank {
			if known := lost.registers[r]; known != nil {
				return known.value.clone()
			}
			return bankOf(reset, r)
		}
	case !h.moved(live, t.start):
		return nil, nil
	case t.Lost:
		t.Reason = "the journal is gone, and the registers were extended"
	default:
		t.Reason = "the registers were extended, by a kernel before this one or by a helper whose journal is gone"
	}
	p.lost = p.lost || t.Lost
	return t, nil
}

// takeOver finds out which entries of the list were extended, and journals it. Where
// no number of them leads to what the registers hold, all count as extended, of a
// journal of this boot: one that was not is missing, as the note says, and none is
// extended twice. Of a kernel before this one it is those before the list's last
// boot_aggregate: the list may be carried over (CONFIG_IMA_KEXEC).
func (h *Helper) takeOver(ctx context.Context, p *past) error {
	t := p.over
	if t == nil {
		return nil
	}
	fault.Point("takeover.before")
	delivered, err := p.delivered(ctx, &h.cfg) // beside the journal's, those of a takeover before
	if err != nil {
		return err
	}
	w, err := h.walk(ctx, delivered, t)
	if err != nil {
		return err
	}
	fault.Point("takeover.walked")
	switch {
	case w.proven >= 0:
		t.Proven, t.Entries = true, w.proven
		if h.extender.lost == nil && h.extender.young() {
			if done, err := h.rebuild(ctx, p, t, w.registers); done || err != nil {
				return err
			}
		}
	case t.Lost:
		t.Entries = len(w.trail)
	default:
		t.Entries = w.aggregate
	}
	if err := h.extender.Note(takenOver, t); err != nil {
		return err
	}
	h.cfg.Log.Warn("entries of the IMA list count as extended", "entries", t.Entries, "proven", t.Proven, "reason", t.Reason)
	p.skipped, p.trail, p.over = t.Entries, nil, nil
	return nil
}

// rebuild makes a journal of entries of the list that lead from what the boot left to
// what the registers hold, as the helper that extended them had it; done is false if
// they do not, in all registers. It takes the journal's place at once, and whole.
func (h *Helper) rebuild(ctx context.Context, p *past, t *takeover, registers []rtmr.Register) (done bool, err error) {
	start := h.extender.start
	start.Registers = make(rtmr.Values)
	for a, bank := range t.live {
		start.Registers[a] = maps.Clone(bank)
	}
	values := make(map[rtmr.Register]bank)
	for _, reg := range registers {
		values[reg] = t.start(reg)
		start.add(reg, t.start(reg))
	}
	first, err := start.measurement()
	if err != nil {
		return false, err
	}
	j, err := newJournal(h.cfg.Journal, first)
	if err != nil {
		return false, err
	}
	defer func() {
		if !done {
			err = errors.Join(err, j.Close(), os.Remove(h.cfg.Journal+".new"))
		}
	}()
	trail, err := h.write(ctx, j, t, values)
	if err != nil {
		return false, err
	}
	for reg, value := range values {
		if !value.equal(bankOf(t.live, reg)) {
			return false, nil
		}
	}
	fault.Point("rebuild.written")
	if err := h.extender.adopt(j, start, registers); err != nil {
		return false, err
	}
	fault.Point("rebuild.adopted")
	h.cfg.Log.Warn("the journal was made anew of entries of the IMA list that lead to the registers", "entries", t.Entries, "reason", t.Reason)
	p.trail, p.over = trail, nil
	return true, nil
}

// write journals the entries, and makes of the values what they make of the registers.
func (h *Helper) write(ctx context.Context, j *Journal, t *takeover, values map[rtmr.Register]bank) (trail Trail, err error) {
	remark, err := noteOf(takenOver, takeover{Proven: true, Reason: t.Reason, Lost: t.Lost})
	if err != nil {
		return nil, err
	}
	if err := j.Append([]rtmr.Measurement{remark}); err != nil {
		return nil, err
	}
	list := OpenList(h.cfg.IMADir, h.banks(), nil)
	defer list.Close()
	for len(trail) < t.Entries {
		batch, err := nextOf(ctx, list, min(maxBatch, t.Entries-len(trail)))
		if err != nil || len(batch) == 0 {
			return nil, errors.Join(err, fmt.Errorf("the IMA list ends after %d of %d entries", len(trail), t.Entries))
		}
		trail = append(trail, TrailOf(batch)...)
		for i := range batch {
			if batch[i] = h.placed(batch[i]); !batch[i].NoAction {
				values[batch[i].Register].extend(batch[i].Digests)
			}
		}
		if err := j.Append(batch); err != nil {
			return nil, err
		}
	}
	return trail, nil
}

// walked is what a walk over the kernel's list found.
type walked struct {
	trail     Trail // of all entries
	proven    int   // so many lead to what all registers hold; -1 for none
	aggregate int   // index of the last boot_aggregate
	registers []rtmr.Register
}

// walk folds the list's entries behind the trail from where the registers started,
// and finds where they are what they are.
func (h *Helper) walk(ctx context.Context, trail Trail, t *takeover) (w walked, err error) {
	w = walked{trail: slices.Clone(trail), proven: len(trail)} // if nothing is behind it
	list := OpenList(h.cfg.IMADir, h.banks(), trail)
	defer list.Close()
	values, differ := make(map[rtmr.Register]bank), make(map[rtmr.Register]bool)
	for {
		batch, err := nextOf(ctx, list, maxBatch)
		if err != nil && !errors.As(err, new(*Gap)) {
			return w, err
		}
		if len(batch) == 0 {
			return w, nil
		}
		for i, m := range batch {
			if _, ok := m.Entry.(*ima.Entry).BootAggregate(); ok {
				w.aggregate = len(w.trail) + i
			}
			if m = h.placed(m); m.NoAction {
				continue
			}
			value, live := values[m.Register], bankOf(t.live, m.Register)
			if value == nil {
				value = t.start(m.Register)
				values[m.Register] = value
				w.registers = append(w.registers, m.Register)
				if differ[m.Register] = !value.equal(live); differ[m.Register] {
					w.proven = -1 // entries that come before prove nothing
				}
			}
			value.extend(m.Digests)
			if differ[m.Register] = !value.equal(live); !slices.Contains(slices.Collect(maps.Values(differ)), true) {
				w.proven = len(w.trail) + i + 1
			}
		}
		w.trail = append(w.trail, TrailOf(batch)...)
	}
}

// reset is what the device's registers hold before anything is extended.
func (h *Helper) reset() rtmr.Values {
	values := make(rtmr.Values)
	for _, info := range h.cfg.Device.Describe().Registers {
		for _, a := range info.Banks {
			values.Set(a, info.Register, info.Register.ResetValue(a))
		}
	}
	return values
}

// atBoot returns what registers hold when the boot is over: what the firmware's log
// folds to, where the firmware extended it.
func (h *Helper) atBoot() func(rtmr.Register) bank {
	fold := replay.New(replay.Options{})
	if h.cfg.FirmwareLog != nil && !h.cfg.Mirror {
		h.cfg.FirmwareLog.fold(fold) // as far as it goes; the check has told
	}
	folded, reset := fold.Values(), h.reset()
	return func(r rtmr.Register) bank {
		if b := bankOf(folded, r); len(b) > 0 {
			return b
		}
		return bankOf(reset, r)
	}
}

// survivesKexec reports whether the registers outlive the kernel.
func (h *Helper) survivesKexec() bool {
	kind := h.cfg.Device.Describe().Kind
	return kind == "tdx" || kind == "tpm"
}

// moved reports whether a register in which IMA's entries go was extended. Of
// registers in the kernel, any other counts as well: nobody but a helper extends them.
func (h *Helper) moved(live rtmr.Values, start func(rtmr.Register) bank) bool {
	pcr10, _ := rtmr.PCR(10).Register()
	ours := h.place(pcr10)
	for _, info := range h.cfg.Device.Describe().Registers {
		if info.Register != ours && h.survivesKexec() || !info.Writable {
			continue
		}
		for a, value := range start(info.Register) {
			if now, ok := live[a][info.Register]; ok && !bytes.Equal(now, value) {
				return true
			}
		}
	}
	return false
}
