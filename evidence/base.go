package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"tallystick/rtmr"
)

// Base is a record of the journal that says what registers held when what comes
// after it began: at the journal's start, and where somebody else extended one. It
// is an EV_NO_ACTION event, which extends nothing, and as much the sender's word as
// all of the journal.
type Base struct {
	Reason    string      `json:"reason"`
	Registers rtmr.Values `json:"registers"`
	// Boot is the kernel's name of the boot (/proc/sys/kernel/random/boot_id) and
	// Device the registers' device, both at the journal's start: what follows was
	// extended into these registers and no others.
	Boot   string  `json:"boot,omitempty"`
	Device *Device `json:"device,omitempty"`
	// Damaged are the journals of the same boot and device that were put aside before
	// this one began, the last one last.
	Damaged []Aside `json:"damaged,omitempty"`
	// Behind counts the last entries of these registers before this record that
	// were extended after it, and Unknown those before them of which it is not
	// known whether they were extended.
	Behind  map[rtmr.Register]int `json:"behind,omitempty"`
	Unknown map[rtmr.Register]int `json:"unknown,omitempty"`
}

// Device names a device as its rtmr.Description does.
type Device struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// Aside is a journal that was put aside: the file, in the same folder, and why.
type Aside struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// The reasons.
const (
	AtStart = "start"
	Foreign = "extended by others"
)

// Names are the registers of which the base tells, in order.
func (b *Base) Names() (names []rtmr.Register) {
	for _, values := range b.Registers {
		names = slices.AppendSeq(names, maps.Keys(values))
	}
	slices.SortFunc(names, rtmr.Register.Compare)
	return slices.Compact(names)
}

// baseMagic begins a base's event data, as other informational events have it.
const baseMagic = "Tallystick Base\x00"

// EventData returns the base as the data of an EV_NO_ACTION event.
func (b *Base) EventData() ([]byte, error) {
	text, err := json.Marshal(b)
	return append([]byte(baseMagic), text...), err
}

// ParseBase reads the data of an EV_NO_ACTION event; ok is false for any other than
// a base's.
func ParseBase(data []byte) (b Base, ok bool, err error) {
	text, ok := bytes.CutPrefix(data, []byte(baseMagic))
	if !ok {
		return b, false, nil
	}
	if err = readJSON(text, maxStatement, &b); err == nil {
		err = b.Registers.Validate()
	}
	if err != nil {
		return Base{}, true, fmt.Errorf("base: %w", err)
	}
	return b, true, nil
}
