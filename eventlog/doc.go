// Package eventlog reads boot event logs: TCG 1.2, TCG crypto-agile, the
// confidential-computing log that ACPI's CCEL table points to, the CoCo
// attestation agent's AAEL in all its forms, and dstack's JSON log. It parses
// and never judges.
//
// [NewReader] recognises the binary formats by content and
// [Reader.Measurements] yields their events; [NewAAELReader] reads the agent's
// older text log, and [NewDstackReader] dstack's:
//
//	r, err := eventlog.NewReader(f, eventlog.Options{})
//	for m, err := range r.Measurements() { .. }
//
// What was measured is only the digest. The event type and the event data are
// what the log's author says; [Event.Verify] tells where they can be held
// against the digest, and [Event.Detail] renders them.
//
// Package eventlog/cel reads the canonical event log's encodings.
package eventlog
