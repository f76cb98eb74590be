package cel

import (
	"errors"
	"fmt"
	"io"
	"math"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/rtmr"
)

// maxPending is how much of a CBOR log the Writer holds back, to give the
// array a definite length as deterministic CBOR wants it. A longer log becomes
// an array of indefinite length.
const maxPending = 16 << 20

// Writer writes a canonical event log, one Write of the underlying writer a
// record (but CBOR's first 16 MiB, which come with Close).
//
// A measurement's Entry becomes the content: a TCG event pcclient_std, an IMA
// entry ima_template, an *Entry its own again. Any other, or none, becomes
// content of the project's own type with the entry's type and data; it becomes
// EV_NO_ACTION if the measurement is NoAction. The digests are the
// measurement's, which extended the register, whatever the entry says.
//
// A realm's register is written with its CC-MR index, as a TD's is; unless it
// has a SHA-256 or SHA-512 digest and no SHA-384 one, Reader.Realm is needed to
// read it back as a realm's.
type Writer struct {
	w       io.Writer
	format  Format
	count   int
	recnums recNums
	buf     []byte
	pending []byte
	flowing bool // CBOR: the array is of indefinite length and has begun
	err     error
}

// NewWriter returns a Writer of the format TLV, JSON, CBOR or JSONLines.
func NewWriter(w io.Writer, f Format) *Writer {
	return &Writer{w: w, format: f, recnums: newRecNums()}
}

// Continue tells the Writer of a record that the log already holds, so that
// record numbers go on from there. In JSON and CBOR a log cannot be continued.
func (w *Writer) Continue(e *Entry) { w.recnums.saw(e.Index, e.RecNum) }

var errClosed = errors.New("canonical event log: the writer is closed")

// Write writes one measurement. If the format cannot represent it, the error
// says what of it, and nothing was written. After an error of the underlying
// writer, all that follow return it.
func (w *Writer) Write(m rtmr.Measurement) error {
	if w.err != nil {
		return w.err
	}
	e, err := entryOf(m)
	if err == nil {
		e.RecNum = w.recnums.next[e.Index]
		err = w.encode(e)
	}
	if err == nil && len(w.buf) > MaxRecordSize {
		err = fmt.Errorf("a record of %d bytes, expected at most %d", len(w.buf), MaxRecordSize)
	}
	if err != nil {
		return fmt.Errorf("entry %d: as %s: %w", w.count, w.format, err)
	}
	if w.err = w.emit(); w.err != nil {
		return w.err
	}
	w.recnums.saw(e.Index, e.RecNum)
	w.count++
	return nil
}

// Close ends the log: a JSON or CBOR array needs it. It does not close the
// underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	w.err = errClosed
	switch {
	case w.format == JSON && w.count == 0:
		return w.output([]byte("[]\n"))
	case w.format == JSON:
		return w.output([]byte("\n]\n"))
	case w.format == CBOR && w.flowing:
		return w.output([]byte{cborBreak})
	case w.format == CBOR:
		head, err := cborEncoding.Marshal(uint64(w.count))
		if err != nil {
			return err
		}
		head[0] |= cborArray << 5
		return w.output(append(head, w.pending...))
	}
	return nil
}

func (w *Writer) output(b []byte) error {
	_, err := w.w.Write(b)
	return err
}

// encode puts the record into w.buf, without what stands between records.
func (w *Writer) encode(e *Entry) (err error) {
	w.buf = w.buf[:0]
	switch w.format {
	case TLV:
		w.buf, err = appendRecordTLV(w.buf, e)
	case JSON, JSONLines:
		w.buf, err = appendJSON(w.buf, recordTree(e, JSON))
	case CBOR:
		w.buf, err = appendCBOR(w.buf, recordTree(e, CBOR))
	default:
		err = errors.New("this format can be read and not written")
	}
	return err
}

// emit writes w.buf and what stands between records.
func (w *Writer) emit() error {
	switch {
	case w.format == JSONLines:
		w.buf = append(w.buf, '\n')
	case w.format == JSON && w.count == 0:
		return w.output(append([]byte("[\n"), w.buf...))
	case w.format == JSON:
		return w.output(append([]byte(",\n"), w.buf...))
	case w.format == CBOR && !w.flowing:
		w.pending = append(w.pending, w.buf...)
		if len(w.pending) <= maxPending {
			return nil
		}
		head := []byte{cborArray<<5 | 31}
		all := append(head, w.pending...)
		w.flowing, w.pending = true, nil
		return w.output(all)
	}
	return w.output(w.buf)
}

// appendRecordTLV writes numbers in the widths that go-eventlog insists on: 8
// bytes of recnum, 1 byte of index where that is enough.
func appendRecordTLV(b []byte, e *Entry) ([]byte, error) {
	if t := e.content.contentType(); t > maxTLVType {
		return b, fmt.Errorf("content type %d does not fit a TLV", uint64(t))
	}
	b = appendNumber(b, tlvRecNum, e.RecNum, 8)
	width := 1
	if e.Index.Number > math.MaxUint8 {
		width = 4
	}
	b = appendNumber(b, byte(e.Index.Kind), uint64(e.Index.Number), width)
	for _, d := range e.Digests {
		if d.Alg > maxTLVType {
			return b, fmt.Errorf("the algorithm %s does not fit a TLV", d.Alg)
		}
	}
	b = appendNested(b, tlvDigests, func(b []byte) []byte {
		for _, d := range e.Digests {
			b = appendTLV(b, byte(d.Alg), d.Sum)
		}
		return b
	})
	return e.content.appendTLV(b), nil
}

// entryOf makes the record of a measurement, and makes sure that it says the
// same as the measurement did.
func entryOf(m rtmr.Measurement) (*Entry, error) {
	index, err := indexOf(m)
	if err != nil {
		return nil, err
	}
	for i, d := range m.Digests {
		if _, err := checkDigest(m.Digests[:i], d); err != nil {
			return nil, fmt.Errorf("digests: %w", err)
		}
	}
	realm := m.Register.Kind() == rtmr.KindREM || m.Register.Kind() == rtmr.KindRIM
	if likely, known := realmByDigests(m.Digests); known && likely && !realm && index.Kind == CCIndex {
		return nil, fmt.Errorf("%s without a SHA-384 digest would be read as a realm's register", m.Register)
	}
	e := &Entry{Index: index, Digests: m.Digests}
	e.content = contentOf(m, e)
	if e.register, _ = index.register(realm); e.register != m.Register {
		return nil, fmt.Errorf("the register %s cannot be told from the index %s", m.Register, index)
	}
	if got := e.Measurement(); got.NoAction != m.NoAction || got.Locality != m.Locality {
		return nil, fmt.Errorf("a measurement with no-action %t, locality %d cannot be content %s of type %s, which says %t, %d",
			m.NoAction, m.Locality, e.ContentType(), e.Type(), got.NoAction, got.Locality)
	}
	return e, nil
}

func indexOf(m rtmr.Measurement) (Index, error) {
	if m.Register.Kind() == rtmr.KindPCR {
		return Index{PCRIndex, uint32(m.Register.Index())}, nil
	}
	if i, ok := eventlog.CCMR(m.Register); ok {
		return Index{CCIndex, uint32(i)}, nil
	}
	switch e := m.Entry.(type) {
	case *Entry:
		return e.Index, nil
	case *eventlog.Event:
		return Index{PCRIndex, e.MRIndex}, nil
	case *ima.Entry:
		return Index{PCRIndex, e.Column()}, nil
	}
	if m.NoAction { // as SP 800-155 events have it
		return Index{PCRIndex, math.MaxUint32}, nil
	}
	return Index{}, errors.New("a measurement without a register")
}

func contentOf(m rtmr.Measurement, e *Entry) content {
	switch entry := m.Entry.(type) {
	case *Entry:
		if ev, ok := entry.Inner().(*eventlog.Event); ok {
			return newPCClient(e, ev.EventType, ev.EventData)
		}
		return entry.content
	case *eventlog.Event:
		// An event whose data were left out would contradict its digest.
		if entry.EventData != nil || entry.EventType == eventlog.EVNoAction {
			return newPCClient(e, entry.EventType, entry.EventData)
		}
	case *ima.Entry:
		if !entry.Opaque() {
			return imaTemplate{entry}
		}
	}
	var name string
	var data []byte
	if m.Entry != nil {
		name, data = m.Entry.Type(), m.Entry.Data()
	}
	switch {
	case m.NoAction && m.Locality != 0:
		return newPCClient(e, eventlog.EVNoAction, append([]byte("StartupLocality\x00"), m.Locality))
	case m.NoAction:
		return newPCClient(e, eventlog.EVNoAction, data)
	case m.Locality != 0:
		return newPCClient(e, eventlog.EVEFIHCRTMEvent, data)
	}
	return foreign{name, data}
}

// newPCClient makes an event of what e already has.
func newPCClient(e *Entry, t eventlog.EventType, data []byte) pcClient {
	return pcClient{&eventlog.Event{MRIndex: e.Index.Number, EventType: t, Digests: e.Digests, EventData: data}}
}
