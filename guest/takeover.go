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

// takeOver finds out what was extended by helpers of which the journal does not tell,
// and journals it:
//
//   - the journal was put aside. It is believed up to where it is damaged, and the
//     list goes on from there to what the registers hold. Where no number of its
//     entries leads there, all count as extended: one that was not is missing, as the
//     note says, and none is extended twice.
//   - there is none, and the registers are not what the boot left: a helper of the
//     kernel before a kexec extended them, whose /run is gone; registers in the
//     kernel would be new ones, so theirs was removed. Entries of the list that lead
//     to what they hold are its own (the list may be carried over, CONFIG_IMA_KEXEC);
//     where none do, those before the list's last boot_aggregate are, or, of
//     registers in the kernel, all.
func (h *Helper) takeOver(ctx context.Context, p *past) error {
	lost, fresh := h.extender.lost, h.extender.Recovery().Records == 0
	if lost == nil && !fresh {
		return nil
	}
	live, err := h.cfg.Device.Read(ctx)
	if err != nil {
		return err
	}
	start := h.atBoot()
	if lost != nil {
		start = func(r rtmr.Register) bank {
			if known := lost.registers[r]; known != nil {
				return known.value.clone()
			}
			return bankOf(h.reset(), r)
		}
	} else if !h.moved(live, start) {
		return nil
	}
	t := takeover{Lost: lost != nil || !h.survivesKexec(), Reason: "the journal of this boot is not there"}
	if lost != nil {
		t.Reason = "the journal was damaged: " + h.extender.Recovery().Reason
	} else if !t.Lost {
		t.Reason = "a kernel before this one extended the registers"
	}
	w, err := h.walk(ctx, p.trail, start, live)
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
	p.skipped, p.trail, p.lost = t.Entries, nil, p.lost || t.Lost
	h.cfg.Log.Warn("entries of the IMA list count as extended", "entries", t.Entries, "proven", t.Proven, "reason", t.Reason)
	return h.extender.Note(takenOver, t)
}

// walked is what a walk over the kernel's list found.
type walked struct {
	trail     Trail // of all entries
	proven    int   // so many lead to what the registers hold; -1 for none
	aggregate int   // index of the last boot_aggregate
}

// walk folds the list's entries behind the trail from where the registers started,
// and finds where they are what they are.
func (h *Helper) walk(ctx context.Context, trail Trail, start func(rtmr.Register) bank, live rtmr.Values) (w walked, err error) {
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
			m, ok := h.placed(m)
			if !ok {
				continue
			}
			entry := m.Entry.(*ima.Entry)
			if values[m.Register] == nil {
				values[m.Register] = start(m.Register)
				if len(w.trail) > 0 && values[m.Register].equal(bankOf(live, m.Register)) {
					w.proven = len(w.trail) + i
				}
			}
			values[m.Register].extend(m.Digests)
			if _, ok := entry.BootAggregate(); ok {
				w.aggregate = len(w.trail) + i
			}
			if values[m.Register].equal(bankOf(live, m.Register)) {
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
