//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// takenOver is a note's kind, and takeover what it says: so many entries of the
// kernel's list count as extended, by helpers of which the journal does not tell; and
// whether they lead to what the registers held.
const takenOver = "taken over"

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
	lost, r := h.extender.lost, h.extender.Recovery()
	if lost == nil && r.Records > 0 {
		return nil, nil
	}
	live, err := h.cfg.Device.Read(ctx)
	if err != nil {
		return nil, err
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
	w, err := h.walk(ctx, p.trail, t)
	if err != nil {
		return err
	}
	switch {
	case w.proven >= 0:
		t.Proven, t.Entries = true, w.proven
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

// walked is what a walk over the kernel's list found.
type walked struct {
	trail     Trail // of all entries
	proven    int   // so many lead to what the registers hold; -1 for none
	aggregate int   // index of the last boot_aggregate
}

// walk folds the list's entries behind the trail from where the registers started,
// and finds where they are what they are.
func (h *Helper) walk(ctx context.Context, trail Trail, t *takeover) (w walked, err error) {
	w = walked{trail: slices.Clone(trail), proven: -1}
	list := OpenList(h.cfg.IMADir, h.banks(), trail)
	defer list.Close()
	values := make(map[rtmr.Register]bank)
	for {
		batch, err := nextOf(ctx, list, maxBatch)
		if err != nil && !errors.As(err, new(*Gap)) {
			return w, err
		}
		if len(batch) == 0 {
			return w, nil
		}
		for i, m := range batch {
			if m = h.placed(m); m.NoAction {
				continue
			}
			if _, ok := m.Entry.(*ima.Entry).BootAggregate(); ok {
				w.aggregate = len(w.trail) + i
			}
			value, live := values[m.Register], bankOf(t.live, m.Register)
			if value == nil {
				value = t.start(m.Register)
				values[m.Register] = value
				if len(w.trail) > 0 && value.equal(live) {
					w.proven = len(w.trail) + i
				}
			}
			if value.extend(m.Digests); value.equal(live) {
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
