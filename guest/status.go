//go:build linux

package guest

import (
	"context"
	"time"

	"tallystick/rtmr"
)

// Status is how a Helper fares.
type Status struct {
	Device   rtmr.Description `json:"device"`
	Started  time.Time        `json:"started"`
	IMA      int              `json:"ima"`     // entries of the kernel's list that were extended since boot
	Journal  int64            `json:"journal"` // bytes
	Behind   int              `json:"behind"`  // in the journal and not in the registers
	Recovery Recovery         `json:"recovery"`
	Error    string           `json:"error,omitempty"` // why the last try failed; "" once one did not
}

// Status returns how the Helper fares now.
func (h *Helper) Status() Status {
	s := Status{Device: h.cfg.Device.Describe(), Started: h.started, Recovery: h.extender.Recovery()}
	s.Journal, s.Behind, s.IMA = h.extender.state()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil {
		s.Error = h.last.Error()
	}
	return s
}

// Values reads the registers while nothing is extended, so that they are what the
// journal folds to unless others extend.
func (h *Helper) Values(ctx context.Context) (rtmr.Values, error) {
	h.extender.mu.Lock()
	defer h.extender.mu.Unlock()
	return h.cfg.Device.Read(ctx)
}

func (e *Extender) state() (journal int64, behind, listed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.journal.Size(), e.behind(), e.listed
}
