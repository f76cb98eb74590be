package eventlog

import (
	"bytes"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// notes remembers, in a few words of memory, oddities of real firmware that
// an investigator should hear of and that are no faults.
type notes struct {
	separators [32]uint8 // by index: how many EV_SEPARATOR events
	started    uint8     // ExitBootServices invocations
	returned   uint8     // and successful returns
	pcr0       bool      // PCR 0 has been extended
	late       bool      // StartupLocality came after that
}

var (
	exitInvocation = []byte("Exit Boot Services Invocation")
	exitSuccess    = []byte("Exit Boot Services Returned with Success")
)

func (n *notes) see(m *rtmr.Measurement, e *Event) {
	switch {
	case m.NoAction:
		n.late = n.late || (m.Locality != 0 && n.pcr0)
		return
	case e.EventType == EVSeparator && e.MRIndex < uint32(len(n.separators)):
		n.separators[e.MRIndex] = min(n.separators[e.MRIndex], 254) + 1
	case e.EventType == EVEFIAction && bytes.Equal(e.EventData, exitInvocation):
		n.started = min(n.started, 254) + 1
	case e.EventType == EVEFIAction && bytes.Equal(e.EventData, exitSuccess):
		n.returned = min(n.returned, 254) + 1
	}
	if m.Register.Kind() == rtmr.KindPCR && m.Register.Index() == 0 {
		n.pcr0 = true
	}
}

func (n *notes) warnings() []string {
	var out []string
	var twice []string
	for i, k := range n.separators {
		if k > 1 {
			twice = append(twice, fmt.Sprintf("%d (%d times)", i, k))
		}
	}
	if len(twice) > 0 {
		out = append(out, fmt.Sprintf("repeated EV_SEPARATOR at index %s: a known firmware habit", strings.Join(twice, ", ")))
	}
	if n.started > 0 && n.returned == 0 {
		out = append(out, "no return from ExitBootServices: events after the log was taken are missing (TPM2 final events table)")
	}
	if n.returned > 1 {
		out = append(out, fmt.Sprintf("ExitBootServices returned %d times: the final events table may have been appended twice", n.returned))
	}
	if n.late {
		out = append(out, "a StartupLocality event stands behind events that extended PCR 0; it has no effect there")
	}
	return out
}
