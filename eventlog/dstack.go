package eventlog

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

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
}

// DstackReader reads dstack's event log: a JSON array of objects imr,
// event_type, digest (SHA-384, hex), event, event_payload (hex).
//
// In RTMR0 to RTMR2 the records are the firmware's, and the payload is the
// TCG event data. In RTMR3 they are dstack's own (EVDstack).
type DstackReader struct {
	dec    *json.Decoder
	index  int
	event  Event
	digest [1]rtmr.Digest
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
	return &DstackReader{dec: json.NewDecoder(src)}
}

// Warnings returns nil: the format leaves nothing to be odd about.
func (r *DstackReader) Warnings() []string { return nil }

// Measurements yields the log's events in order, as Reader.Measurements does.
func (r *DstackReader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		if t, err := r.dec.Token(); err != nil || t != json.Delim('[') {
			yield(rtmr.Measurement{}, r.syntaxError("log", errors.New("expected a JSON array")))
			return
		}
		for r.dec.More() {
			m, err := r.next()
			if !yield(m, err) || err != nil {
				return
			}
			r.index++
		}
		if _, err := r.dec.Token(); err != nil {
			yield(rtmr.Measurement{}, r.syntaxError("log", fmt.Errorf("%w, expected the end of the array", err)))
		}
	}
}

func (r *DstackReader) next() (m rtmr.Measurement, err error) {
	offset := r.dec.InputOffset()
	var rec dstackRecord
	if err := r.dec.Decode(&rec); err != nil {
		return m, r.syntaxError("record", err)
	}
	if rec.IMR == nil || rec.Type == nil {
		return m, r.syntaxError("record", errors.New("expected an imr and an event_type"))
	}
	reg, ok := rtmr.Index(*rec.IMR).RTMR()
	if !ok {
		return m, r.syntaxError("imr", fmt.Errorf("%d, expected 0 to 3", *rec.IMR))
	}
	sum, err := hex.DecodeString(rec.Digest)
	if err != nil || len(sum) != rtmr.SHA384.Size() {
		return m, r.syntaxError("digest", fmt.Errorf("%q, expected %d hexadecimal digits", rec.Digest, 2*rtmr.SHA384.Size()))
	}
	payload, err := hex.DecodeString(rec.Payload)
	if err != nil {
		return m, r.syntaxError("event_payload", err)
	}
	r.digest[0] = rtmr.Digest{Alg: rtmr.SHA384, Sum: sum}
	r.event = Event{MRIndex: *rec.IMR + 1, EventType: EventType(*rec.Type), Digests: r.digest[:], EventData: payload}
	if r.event.EventType == EVDstack {
		r.event.EventData = append([]byte(rec.Event+":"), payload...)
	}
	m = r.event.Measurement(reg)
	m.Index, m.Offset = r.index, offset
	return m, nil
}

func (r *DstackReader) syntaxError(field string, err error) error {
	return &SyntaxError{Offset: r.dec.InputOffset(), Entry: r.index, Field: field, Err: err}
}
