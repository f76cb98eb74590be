package cel

import (
	"fmt"

	"tallystick/eventlog"
	"tallystick/rtmr"
)

// IndexKind is what a record's index counts. Its value is the TLV type.
type IndexKind uint8

// The kinds of index.
const (
	PCRIndex IndexKind = 1
	NVIndex  IndexKind = 2
	CCIndex  IndexKind = 108 // an eventlog.CCMRIndex, 1-based
)

func isIndexType(t uint64) bool {
	switch t {
	case uint64(PCRIndex), uint64(NVIndex), uint64(CCIndex):
		return true
	}
	return false
}

// Index is a record's index: what was extended, in the log's own words.
type Index struct {
	Kind   IndexKind
	Number uint32
}

// String returns "pcr 10", "nv_index 0x01d10200" or "ccmr 3".
func (x Index) String() string {
	switch x.Kind {
	case NVIndex:
		return fmt.Sprintf("nv_index 0x%08x", x.Number)
	case CCIndex:
		return fmt.Sprintf("ccmr %d", x.Number)
	}
	return fmt.Sprintf("pcr %d", x.Number)
}

// register returns the index's register, or none for an NV index. ok is false
// for a number that names nothing.
func (x Index) register(realm bool) (r rtmr.Register, ok bool) {
	switch x.Kind {
	case PCRIndex:
		return rtmr.PCR(x.Number).Register()
	case CCIndex:
		r, ok = eventlog.CCMRIndex(x.Number).Register()
		if realm {
			r = r.Realm()
		}
		return r, ok
	}
	return rtmr.Register{}, true
}

// Entry is one record of a canonical event log, as a Reader delivers it. It
// implements rtmr.Entry.
type Entry struct {
	RecNum  uint64 // as the log has it; where the log has none, the record's place among those of its index
	Index   Index
	Digests []rtmr.Digest // what extended, one a bank, in the record's order

	register rtmr.Register
	content  content
}

// content is what a record carries beside its digests, of one of CEL's kinds.
// Its values are untrusted.
type content interface {
	contentType() ContentType
	typeName() string
	detail() string
	subject() string
	data() []byte
	verify(d rtmr.Digest) (rtmr.Check, []byte)
	// unmeasured reports whether it extends nothing by its kind.
	unmeasured() bool
	// appendTLV appends the content's TLV, header included.
	appendTLV(b []byte) []byte
	// tree returns the content for JSON or CBOR.
	tree(f Format) any
}

// ContentType returns the record's content type.
func (e *Entry) ContentType() ContentType { return e.content.contentType() }

// Type returns the TCG event type's name, the IMA template's name, the name of
// the management event, or such as "systemd:phase" and "cos:image-ref".
func (e *Entry) Type() string { return e.content.typeName() }

// Detail renders the content on one line, after the index if that is an NV one.
// An IMA entry that the digests show to be a violation says so.
func (e *Entry) Detail() string {
	text := e.content.detail()
	if e.Index.Kind == NVIndex {
		text = e.Index.String() + " " + text
	}
	if _, isIMA := e.content.(imaTemplate); isIMA {
		if _, is := violation(e.Digests); is {
			text += " (violation)"
		}
	}
	return text
}

// Subject names what the record is about, so that records about one thing can
// be set side by side though their digests differ: what the TCG event or the
// IMA entry in it names, systemd's and COS's event without its value, a path,
// or the content's type. It is not escaped, and untrusted.
func (e *Entry) Subject() string {
	if e.Index.Kind == NVIndex {
		return e.Index.String() + " " + e.content.subject()
	}
	return e.content.subject()
}

// Data returns the event data, the template data, the string that systemd
// measured, or the value of any other content's TLV.
func (e *Entry) Data() []byte { return e.content.data() }

// Verify tells whether the content explains d, by the rules of its kind.
func (e *Entry) Verify(d rtmr.Digest) (rtmr.Check, []byte) { return e.content.verify(d) }

// Inner returns the *eventlog.Event of pcclient_std content, the *ima.Entry of
// ima_template content, and nil for others.
func (e *Entry) Inner() rtmr.Entry {
	switch c := e.content.(type) {
	case pcClient:
		return c.event
	case imaTemplate:
		return c.entry
	}
	return nil
}

// BootAggregate returns the digest of IMA's boot_aggregate, as
// ima.Entry.BootAggregate does; ok is false for every other entry.
func (e *Entry) BootAggregate() (d rtmr.Digest, ok bool) {
	if c, isIMA := e.content.(imaTemplate); isIMA {
		return c.entry.BootAggregate()
	}
	return d, false
}

// Measurement returns the record as a measurement, by the TCG log's rules for
// pcclient_std content. Its Index and Offset are those of no log.
func (e *Entry) Measurement() rtmr.Measurement {
	m := rtmr.Measurement{Register: e.register, Digests: e.Digests}
	if ev, ok := e.Inner().(*eventlog.Event); ok {
		m = ev.Measurement(e.register)
	}
	m.NoAction = e.register.IsZero() || e.content.unmeasured()
	m.Entry = e
	return m
}

// compare holds d against H(data).
func compare(d rtmr.Digest, data []byte) (rtmr.Check, []byte) {
	if !d.Alg.Available() {
		return rtmr.CannotCheck, nil
	}
	computed := d.Alg.AppendHash(nil, data)
	if string(computed) == string(d.Sum) {
		return rtmr.Verified, nil
	}
	return rtmr.Contradicts, computed
}

// verifyAny is for contents whose digest is known to be of one of several
// encodings, but not of which: a mismatch proves nothing.
func verifyAny(d rtmr.Digest, candidates ...[]byte) (rtmr.Check, []byte) {
	for _, data := range candidates {
		if c, _ := compare(d, data); c == rtmr.Verified {
			return c, nil
		}
	}
	return rtmr.CannotCheck, nil
}
