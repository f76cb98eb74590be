//go:build linux

package guest

import (
	"encoding/json"

	"tallystick/evidence"
	"tallystick/rtmr"
)

// base is what registers held when what comes after it in the journal began: at the
// journal's start, and where somebody else extended one.
type base evidence.Base

// The reasons.
const (
	atStart = "start"
	foreign = "extended by others"
	atFirst = "before the first measurement" // of a register that others extend too
)

func (b *base) measurement() (rtmr.Measurement, error) {
	data, err := (*evidence.Base)(b).EventData()
	return rtmr.Measurement{NoAction: true, Entry: note(data)}, err
}

// parseBase returns the base that a record is; ok is false for any other record.
func parseBase(m rtmr.Measurement) (b base, ok bool, err error) {
	if !m.NoAction {
		return b, false, nil
	}
	parsed, ok, err := evidence.ParseBase(m.Entry.Data())
	return base(parsed), ok, err
}

// add adds a register's value.
func (b *base) add(reg rtmr.Register, value bank) {
	for a, v := range value {
		b.Registers.Set(a, reg, v)
	}
}

// names are the registers of which the base tells.
func (b *base) names() []rtmr.Register { return (*evidence.Base)(b).Names() }

// noteOf is something that extends nothing: EV_NO_ACTION with a kind and JSON.
func noteOf(kind string, about any) (rtmr.Measurement, error) {
	text, err := json.Marshal(about)
	n := evidence.Note{Kind: kind, About: text}
	return rtmr.Measurement{NoAction: true, Entry: note(n.EventData())}, err
}

// parseNote returns what a note says; ok is false for any other record.
func parseNote(m rtmr.Measurement) (n evidence.Note, ok bool) {
	if !m.NoAction {
		return n, false
	}
	n, ok, err := evidence.ParseNote(m.Entry.Data())
	return n, ok && err == nil
}

// note is the data of an event that extends nothing.
type note []byte

func (n note) Type() string                            { return "EV_NO_ACTION" }
func (n note) Data() []byte                            { return n }
func (n note) Detail() string                          { return rtmr.Escape(string(n)) }
func (n note) Verify(rtmr.Digest) (rtmr.Check, []byte) { return rtmr.CannotCheck, nil }
