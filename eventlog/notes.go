package eventlog

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// notes remembers, in a few words of memory, oddities of real firmware that
// an investigator should hear of and that are no faults.
type notes struct {
	separators [32]uint8 // by index: how many EV_SEPARATOR events
	cc         bool      // the indices are CC-MR indices
	called     bool      // a boot option was called
	started    uint8     // ExitBootServices invocations
	returned   uint8     // and successful returns
	banks      int       // of the header, 0 if there is none
	short      int       // events with fewer digests than that
	pcr0       bool      // PCR 0 has been extended
	late       bool      // StartupLocality came after that

	undeclared []undeclared
}

// undeclared is an algorithm that the Spec ID event does not declare and that
// events have digests in. Only those with a name are read: a dozen.
type undeclared struct {
	alg           rtmr.Alg
	first, events int
}

func (n *notes) undeclare(alg rtmr.Alg, entry int) {
	i := slices.IndexFunc(n.undeclared, func(u undeclared) bool { return u.alg == alg })
	if i < 0 {
		i = len(n.undeclared)
		n.undeclared = append(n.undeclared, undeclared{alg: alg, first: entry})
	}
	n.undeclared[i].events++
}

// EV_EFI_ACTION's strings (EDK2's IndustryStandard/UefiTcgPlatform.h).
var (
	bootOption     = []byte("Calling EFI Application from Boot Option")
	exitInvocation = []byte("Exit Boot Services Invocation")
	exitSuccess    = []byte("Exit Boot Services Returned with Success")
)

func (n *notes) see(m *rtmr.Measurement, e *Event) {
	if !m.NoAction && len(e.Digests) < n.banks {
		n.short++
	}
	switch {
	case m.NoAction:
		n.late = n.late || (m.Locality != 0 && n.pcr0)
		return
	case e.EventType == EVSeparator && e.MRIndex < uint32(len(n.separators)):
		n.separators[e.MRIndex] = min(n.separators[e.MRIndex], 254) + 1
	case e.EventType == EVEFIAction && bytes.Equal(e.EventData, bootOption):
		n.called = true
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
	switch {
	case n.cc && n.separators[1] == 2 && n.separators[2] == 0:
		out = append(out, "two EV_SEPARATOR events of RTMR0 and none of RTMR1: OVMF before August 2024 measures both into RTMR0")
	case len(twice) > 0:
		out = append(out, fmt.Sprintf("repeated EV_SEPARATOR at index %s: a known firmware habit", strings.Join(twice, ", ")))
	}
	switch {
	case n.called && n.started == 0:
		out = append(out, "a boot option was called and ExitBootServices was not: the log may have been taken before that, without the final events table")
	case n.started > 0 && n.returned == 0:
		out = append(out, "no return from ExitBootServices: events after the log was taken are missing (TPM2 final events table)")
	}
	if n.short > 0 {
		out = append(out, fmt.Sprintf("%d events have fewer digests than the %d banks of the Spec ID event: those banks do not fold to what a TPM holds", n.short, n.banks))
	}
	for _, u := range n.undeclared {
		out = append(out, fmt.Sprintf("%d events, the first of them entry %d, have a digest in %s, which the Spec ID event does not declare: read by that algorithm's size", u.events, u.first, u.alg))
	}
	if n.returned > 1 {
		out = append(out, fmt.Sprintf("ExitBootServices returned %d times: the final events table may have been appended twice", n.returned))
	}
	if n.late {
		out = append(out, "a StartupLocality event stands behind events that extended PCR 0; it has no effect there")
	}
	return out
}
