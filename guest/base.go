//go:build linux

package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// base is a record of the journal that says what registers held when what comes
// after it began: at the journal's start, and where somebody else extended one.
// It extends nothing (EV_NO_ACTION).
type base struct {
	Reason    string      `json:"reason"`
	Registers rtmr.Values `json:"registers"`
	// Behind counts the last entries of these registers before this record that
	// were extended after it, and Unknown those before them of which it is not
	// known whether they were extended.
	Behind  map[rtmr.Register]int `json:"behind,omitempty"`
	Unknown map[rtmr.Register]int `json:"unknown,omitempty"`
}

// The reasons.
const (
	atStart = "start"
	foreign = "extended by others"
	atFirst = "before the first measurement" // of a register that others extend too
)

// baseMagic begins a base's event data, as other informational events have it.
const baseMagic = "Tallystick Base\x00"

func (b *base) measurement() (rtmr.Measurement, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return rtmr.Measurement{}, err
	}
	return rtmr.Measurement{NoAction: true, Entry: note(append([]byte(baseMagic), text...))}, nil
}

// parseBase returns the base that a record is; ok is false for any other record.
func parseBase(m rtmr.Measurement) (b base, ok bool, err error) {
	if !m.NoAction {
		return b, false, nil
	}
	text, ok := bytes.CutPrefix(m.Entry.Data(), []byte(baseMagic))
	if !ok {
		return b, false, nil
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, true, fmt.Errorf("base: %w", err)
	}
	return b, true, b.Registers.Validate()
}

// note is the data of an event that extends nothing.
type note []byte

func (n note) Type() string                                  { return "EV_NO_ACTION" }
func (n note) Data() []byte                                  { return n }
func (n note) Detail() string                                { return rtmr.Escape(string(n)) }
func (n note) Verify(rtmr.Digest) (c rtmr.Check, sum []byte) { return rtmr.CannotCheck, nil }

// add adds a register's value.
func (b *base) add(reg rtmr.Register, value bank) {
	for a, v := range value {
		b.Registers.Set(a, reg, v)
	}
}

// names are the registers of which the base tells.
func (b *base) names() (registers []rtmr.Register) {
	for _, values := range b.Registers {
		for reg := range values {
			if !slices.Contains(registers, reg) {
				registers = append(registers, reg)
			}
		}
	}
	slices.SortFunc(registers, rtmr.Register.Compare)
	return registers
}
