package eventlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"tallystick/rtmr"
)

// dstackRecord is one object of dstack's event log. The imr is 0-based: 0 is
// RTMR0, unlike CCEL's index.
type dstackRecord struct {
	IMR     *uint32 `json:"imr"`
	Type    *uint32 `json:"event_type"`
	Digest  string  `json:"digest"`
	Event   string  `json:"event"`
	Payload string  `json:"event_payload"`
	Version int     `json:"version"` // of a run-time event's digest; left out for 1
}

// DstackReader reads dstack's event log: a JSON array of objects imr,
// event_type, digest (SHA-384, hex), event, event_payload (hex).
//
// In RTMR0 to RTMR2 the records are the firmware's, and the payload is the
// TCG event data. In RTMR3 they are dstack's own (EVDstack). To save space
// dstack's API leaves out what the other half of a record tells: the payload
// of the former, whose EventData are nil then, and the digest of the latter,
// which is computed here (cc-eventlog, tdx.rs, TdxEvent::stripped). Verify says
// CannotCheck of either.
type DstackReader struct {
	src        watched
	dec        *json.Decoder
	index      int
	event      Event
	digest     [1]rtmr.Digest
	unrecorded unrecorded
}

// DetectDstack recognises dstack's log by its first object's keys.
func DetectDstack(prefix []byte) bool {
	b := bytes.TrimLeft(prefix, " \t\r\n")
	if len(b) == 0 || b[0] != '[' {
		return false
	}
	object := b
	if end := bytes.IndexByte(b, '}'); end >= 0 {
		object = b[:end]
	}
	return bytes.Contains(object, []byte(`"imr"`)) && bytes.Contains(object, []byte(`"event_type"`))
}

// NewDstackReader returns a reader of src.
func NewDstackReader(src io.Reader) *DstackReader {
	r := &DstackReader{src: watched{src: src, limit: maxDstackRecord}}
	r.dec = json.NewDecoder(&r.src)
	return r
}

// maxDstackRecord bounds one record; real ones have some KB.
const maxDstackRecord = 16 << 20

var errDstackRecord = fmt.Errorf("a record of more than %d bytes", maxDstackRecord)

// watched remembers an error of the source, which the decoder reports as its
// own, and stops at the limit, for the decoder keeps a record whole.
type watched struct {
	src         io.Reader
	err         error
	read, limit int64
}

func (w *watched) Read(p []byte) (int, error) {
	if w.read >= w.limit {
		return 0, errDstackRecord
	}
	n, err := w.src.Read(p[:min(int64(len(p)), w.limit-w.read)])
	w.read += int64(n)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// Warnings tells of digests that the log leaves out. It is complete when
// Measurements has ended.
func (r *DstackReader) Warnings() []string { return r.unrecorded.warnings() }

// Measurements yields the log's events in order, as Reader.Measurements does;
// an error of the source it yields as it is.
func (r *DstackReader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		if t, err := r.dec.Token(); err != nil || t != json.Delim('[') {
			yield(rtmr.Measurement{}, r.syntaxError(0, "log", errors.New("expected a JSON array")))
			return
		}
		for r.more() {
			m, err := r.next()
			if !yield(m, err) || err != nil {
				return
			}
			r.index++
		}
		if _, err := r.dec.Token(); err != nil {
			yield(rtmr.Measurement{}, r.syntaxError(r.dec.InputOffset(), "log", fmt.Errorf("%w, expected the end of the array", err)))
			return
		}
		if _, err := r.dec.Token(); err != io.EOF {
			yield(rtmr.Measurement{}, r.syntaxError(r.dec.InputOffset(), "log", errors.New("more after the array's end")))
		}
	}
}

// more lets the decoder read one more record and reports whether there is one.
func (r *DstackReader) more() bool {
	r.src.limit = r.dec.InputOffset() + maxDstackRecord
	return r.dec.More()
}

func (r *DstackReader) next() (m rtmr.Measurement, err error) {
	var raw json.RawMessage
	if err := r.dec.Decode(&raw); err != nil {
		return m, r.syntaxError(r.dec.InputOffset(), "record", err)
	}
	offset := r.dec.InputOffset() - int64(len(raw))
	var rec dstackRecord
	if err := json.Unmarshal(raw, &rec); err != nil {
		return m, r.mistyped(offset, err)
	}
	if rec.IMR == nil || rec.Type == nil {
		return m, r.syntaxError(offset, "record", errors.New("expected an imr and an event_type"))
	}
	reg, ok := rtmr.Index(*rec.IMR).RTMR()
	if !ok {
		return m, r.syntaxError(offset, "imr", fmt.Errorf("%d, expected 0 to 3", *rec.IMR))
	}
	payload, err := hex.DecodeString(rec.Payload)
	if err != nil {
		return m, r.syntaxError(offset, "event_payload", err)
	}
	r.event = Event{MRIndex: *rec.IMR + 1, EventType: EventType(*rec.Type), EventData: payload}
	switch {
	case r.event.EventType == EVDstack:
		r.event.EventData = append([]byte(rec.Event+":"), payload...)
	case len(payload) == 0:
		r.event.EventData = nil
	}
	r.event.unrecorded = rec.Digest == "" && r.event.EventType == EVDstack
	sum, err := r.sum(&rec, payload)
	if err != nil {
		return m, r.syntaxError(offset, "digest", err)
	}
	r.digest[0] = rtmr.Digest{Alg: rtmr.SHA384, Sum: sum}
	r.event.Digests = r.digest[:]
	if r.event.unrecorded {
		r.unrecorded++
	}
	m = r.event.Measurement(reg)
	m.Index, m.Offset = r.index, offset
	return m, nil
}

// mistyped reports a record whose members are not of the types that they have
// in dstack's log; the decoder's error would quote a number however long.
func (r *DstackReader) mistyped(offset int64, err error) error {
	var te *json.UnmarshalTypeError
	if errors.As(err, &te) && te.Field != "" {
		return r.syntaxError(offset, te.Field, fmt.Errorf("JSON %.40s, expected %s", te.Value, te.Type))
	}
	return r.syntaxError(offset, "record", errors.New("expected a JSON object"))
}

func (r *DstackReader) syntaxError(offset int64, field string, err error) error {
	if r.src.err != nil {
		return r.src.err
	}
	return &SyntaxError{Offset: offset, Entry: r.index, Field: field, Err: err}
}

// sum returns a record's digest, that of a run-time event by its version where
// it is left out.
func (r *DstackReader) sum(rec *dstackRecord, payload []byte) ([]byte, error) {
	if r.event.unrecorded {
		switch rec.Version {
		case 0, 1:
			return rtmr.SHA384.AppendHash(nil, r.event.dstackV1(nil)), nil
		case 2:
			return rtmr.SHA384.AppendHash(nil, dstackJSON([]byte(rec.Event), payload)), nil
		}
		return nil, fmt.Errorf("left out in version %d of a run-time event, expected version 1 or 2", rec.Version)
	}
	sum, err := hex.DecodeString(rec.Digest)
	if err != nil || len(sum) != rtmr.SHA384.Size() {
		return nil, fmt.Errorf("%.100q, expected %d hexadecimal digits", rec.Digest, 2*rtmr.SHA384.Size())
	}
	return sum, nil
}

// dstackV1 appends what version 1 of a run-time event's digest is of:
// le32(type) ‖ ":" ‖ name ‖ ":" ‖ payload.
func (e *Event) dstackV1(b []byte) []byte {
	b = append(binary.LittleEndian.AppendUint32(b, uint32(e.EventType)), ':')
	return append(b, e.EventData...)
}

// dstackJSON returns what version 2 of the digest is of: the object
// {"name":"..","payload":"hex","type":134217729} as RFC 8785 writes it.
func dstackJSON(name, payload []byte) []byte {
	b := appendJCS([]byte(`{"name":`), name)
	b = append(b, `,"payload":"`...)
	b = hex.AppendEncode(b, payload)
	return fmt.Appendf(b, `","type":%d}`, uint32(EVDstack))
}

// appendJCS appends a string as RFC 8785 §3.2.2.2 writes it. encoding/json
// escapes more than that: <, >, & and two line separators.
func appendJCS(b, s []byte) []byte {
	const short, letters = "\b\f\n\r\t\"\\", `bfnrt"\`
	b = append(b, '"')
	for _, c := range s {
		if i := strings.IndexByte(short, c); i >= 0 {
			b = append(b, '\\', letters[i])
		} else if c < 0x20 {
			b = fmt.Appendf(b, `\u%04x`, c)
		} else {
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// verifyDstack checks dstack's run-time event (EVDstack) against either version
// of its digest (cc-eventlog, runtime_events.rs). Where the name ends is not
// told, and it may hold a colon.
func (e *Event) verifyDstack(d rtmr.Digest) (rtmr.Check, []byte) {
	const maxColons = 8 // in a name
	var buf [512]byte
	v1 := e.dstackV1(buf[:0])
	if hashesTo(d, v1) {
		return rtmr.Verified, nil
	}
	for at, n := 0, 0; n <= maxColons; n++ {
		i := bytes.IndexByte(e.EventData[at:], ':')
		if i < 0 {
			break
		}
		at += i + 1
		if hashesTo(d, dstackJSON(e.EventData[:at-1], e.EventData[at:])) {
			return rtmr.Verified, nil
		}
	}
	return mustBe(d, v1)
}
