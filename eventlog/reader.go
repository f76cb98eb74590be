package eventlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"tallystick/internal/window"
	"tallystick/rtmr"
)

// SyntaxError says what was malformed in a log, and where.
type SyntaxError = rtmr.SyntaxError

const (
	// maxEventSize bounds one event's data. Real ones reach some 100 KB (a
	// forbidden-signature database); a log is at most a few MB.
	maxEventSize = 64 << 20
	// maxBanks bounds the algorithms of one log; TPMs have at most five.
	maxBanks = 16
)

// Options tells a Reader what the log does not, or overrides it.
type Options struct {
	Format Format // FormatUnknown: by content
}

// Reader reads a TCG 1.2, crypto-agile or CC event log in one pass.
type Reader struct {
	in       *window.Reader
	format   Format
	spec     SpecID
	realm    bool
	index    int
	event    Event
	digests  [maxBanks]rtmr.Digest
	warnings []string
	notes    notes
}

// NewReader begins to read a log: it recognises the format and reads the
// header, if the log has one. The error is a *SyntaxError, or that of src.
func NewReader(src io.Reader, opts Options) (*Reader, error) {
	r := &Reader{in: window.New(src, DetectSize), format: opts.Format}
	prefix, err := r.in.Peek(DetectSize)
	if err := sourceError(err); err != nil {
		return nil, err
	}
	if r.format == FormatUnknown {
		if r.format, _ = Detect(prefix); r.format == FormatUnknown {
			return nil, r.syntaxError(0, "log", errors.New("not a TCG or CC event log: expected a Spec ID event or a TCG_PCR_EVENT record"))
		}
	}
	if r.format == CCEL {
		if err := r.skipACPITable(); err != nil {
			return nil, err
		}
	}
	if r.format != TCG12 {
		if err := r.readSpecID(); err != nil {
			return nil, err
		}
	}
	r.realm = r.realm || r.spec.isRealm()
	r.notes.cc = r.format == CCEL
	if !r.spec.unsigned { // CoCo's agent lists more banks than its records have
		r.notes.banks = len(r.spec.Banks)
	}
	return r, nil
}

// readSpecID learns the banks from the header and leaves the record to be
// delivered as the first event. A log without one is read by the named
// algorithms' sizes.
func (r *Reader) readSpecID() error {
	prefix, _ := r.in.Peek(DetectSize)
	at := min(sha1Header, len(prefix))
	data, _, ok := peekHeader(prefix)
	switch {
	case ok:
	case looksLikeHeader(prefix):
		data = prefix[at:]
	default:
		r.warn("no Spec ID event: a headerless log, read by the standard digest sizes")
		return nil
	}
	spec, err := ParseSpecID(data)
	if err != nil {
		return r.syntaxError(at, "Spec ID event", err)
	}
	spec.VendorInfo = bytes.Clone(spec.VendorInfo)
	r.spec = spec
	return nil
}

// Format returns the log's format.
func (r *Reader) Format() Format { return r.format }

// SpecID returns the crypto-agile header; its Banks are empty if there is none.
func (r *Reader) SpecID() SpecID { return r.spec }

// Warnings returns what was odd about the log but did not stop its reading.
// They are complete when Measurements has ended.
func (r *Reader) Warnings() []string { return append(r.warnings, r.notes.warnings()...) }

// Measurements yields the log's events in order, each valid until the next
// step. On malformed input it yields what came before, then a *SyntaxError,
// and ends. It can be called once.
func (r *Reader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return rtmr.UntilEOF(r.next)
}

// next returns the next event's measurement, or io.EOF.
func (r *Reader) next() (rtmr.Measurement, error) {
	header, err := r.in.Peek(12)
	if len(header) == 0 && err == io.EOF {
		return rtmr.Measurement{}, io.EOF
	}
	offset := r.in.Offset()
	n, done, err := r.record(header, err)
	if err != nil {
		return rtmr.Measurement{}, err
	}
	if done {
		return rtmr.Measurement{}, io.EOF
	}
	reg, err := r.register()
	if err != nil {
		return rtmr.Measurement{}, err
	}
	m := r.event.Measurement(reg)
	m.Index, m.Offset = r.index, offset
	r.notes.see(&m, &r.event)
	r.in.Skip(n)
	r.index++
	return m, nil
}

// record parses one record into r.event and returns its length; done says
// that padding began instead.
func (r *Reader) record(header []byte, peekErr error) (n int, done bool, err error) {
	if len(header) >= 8 && binary.LittleEndian.Uint64(header) == 1<<64-1 {
		return 0, true, r.finishPadding(0xFF)
	}
	if peekErr != nil {
		if allAre(header, 0) || allAre(header, 0xFF) {
			return 0, true, r.finishPadding(header[0])
		}
		return 0, false, r.truncated("event header", 12, header, peekErr)
	}
	if r.index > 0 && allAre(header, 0) { // index 0, EV_PREBOOT_CERT, no digests
		return 0, true, r.finishPadding(0)
	}
	r.event.MRIndex = binary.LittleEndian.Uint32(header)
	r.event.EventType = EventType(binary.LittleEndian.Uint32(header[4:]))
	if r.format == TCG12 || (r.index == 0 && len(r.spec.Banks) > 0) {
		return r.sha1Record()
	}
	return r.agileRecord(binary.LittleEndian.Uint32(header[8:]))
}

// sha1Record parses a TCG_PCR_EVENT: u32 index, u32 type, digest[20], u32
// size, data. The header of a crypto-agile log has this form too.
func (r *Reader) sha1Record() (n int, done bool, err error) {
	const sizeAt = 8 + 20
	b, err := r.in.Peek(sizeAt + 4)
	if err != nil {
		return 0, false, r.truncated("event header", sizeAt+4, b, err)
	}
	size := binary.LittleEndian.Uint32(b[sizeAt:])
	b, err = r.withData(sizeAt, size)
	if err != nil {
		return 0, false, err
	}
	r.digests[0] = rtmr.Digest{Alg: rtmr.SHA1, Sum: b[8:sizeAt:sizeAt]}
	r.event.Digests = r.digests[:1]
	r.event.EventData = b[sizeAt+4:]
	return len(b), false, nil
}

// agileRecord parses a TCG_PCR_EVENT2: u32 index, u32 type, u32 count,
// count × {u16 algorithm, digest}, u32 size, data.
func (r *Reader) agileRecord(count uint32) (n int, done bool, err error) {
	if count > maxBanks || (count == 0 && r.event.EventType != EVNoAction) {
		return 0, false, r.syntaxError(8, "digest count", fmt.Errorf("%d, expected 1 to %d", count, maxBanks))
	}
	sizeAt := 12
	for range count {
		b, err := r.in.Peek(sizeAt + 2)
		if err != nil {
			return 0, false, r.truncated("digest algorithm", sizeAt+2, b, err)
		}
		alg := rtmr.Alg(binary.LittleEndian.Uint16(b[sizeAt:]))
		k := r.spec.digestSize(alg)
		if k == 0 {
			return 0, false, r.syntaxError(sizeAt, "digest algorithm", fmt.Errorf("%s, expected one that the Spec ID event or the TCG registry gives a size", alg))
		}
		sizeAt += 2 + k
	}
	b, err := r.in.Peek(sizeAt + 4)
	if err != nil {
		return 0, false, r.truncated("event size", sizeAt+4, b, err)
	}
	b, err = r.withData(sizeAt, binary.LittleEndian.Uint32(b[sizeAt:]))
	if err != nil {
		return 0, false, err
	}
	if err := r.splitDigests(b[12:sizeAt], int(count)); err != nil {
		return 0, false, err
	}
	r.event.EventData = b[sizeAt+4:]
	return len(b), false, nil
}

// splitDigests points r.event.Digests into a record's digest list. A register
// is extended once an event in each bank, so no algorithm may stand twice.
func (r *Reader) splitDigests(b []byte, count int) error {
	for i := range count {
		alg := rtmr.Alg(binary.LittleEndian.Uint16(b))
		for _, d := range r.digests[:i] {
			if d.Alg == alg {
				return r.syntaxError(8, "digests", fmt.Errorf("%s twice in one event", alg))
			}
		}
		if !r.spec.declares(alg) {
			r.notes.undeclare(alg, r.index)
		}
		end := 2 + r.spec.digestSize(alg)
		r.digests[i] = rtmr.Digest{Alg: alg, Sum: b[2:end:end]}
		b = b[end:]
	}
	r.event.Digests = r.digests[:count]
	return nil
}

// withData returns the whole record, whose data size stands at sizeAt.
func (r *Reader) withData(sizeAt int, size uint32) ([]byte, error) {
	if size > maxEventSize {
		return nil, r.syntaxError(sizeAt, "event size", fmt.Errorf("%d bytes, expected at most %d", size, maxEventSize))
	}
	b, err := r.in.Peek(sizeAt + 4 + int(size))
	if err != nil {
		return nil, r.truncated("event data", sizeAt+4+int(size), b, err)
	}
	return b, nil
}

// register returns the event's register. An event that extends nothing may
// have any index: SP 800-155 events have 0xFFFFFFFF.
func (r *Reader) register() (rtmr.Register, error) {
	var reg rtmr.Register
	var ok bool
	expected := rtmr.NumPCRs - 1
	if r.format == CCEL {
		expected = rtmr.NumRTMRs
		reg, ok = r.ccRegister(CCMRIndex(r.event.MRIndex))
	} else {
		reg, ok = rtmr.PCR(r.event.MRIndex).Register()
	}
	if !ok && r.event.EventType != EVNoAction {
		return reg, r.syntaxError(0, "register index", fmt.Errorf("%d, expected 0 to %d", r.event.MRIndex, expected))
	}
	return reg, nil
}

func (r *Reader) warn(format string, args ...any) {
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// syntaxError is about the field at a distance from the record's beginning.
func (r *Reader) syntaxError(distance int, field string, err error) error {
	return &SyntaxError{Offset: r.in.Offset() + int64(distance), Entry: r.index, Field: field, Err: err}
}

// truncated reports a record that the end of the input cuts short.
func (r *Reader) truncated(field string, want int, have []byte, err error) error {
	if err := sourceError(err); err != nil {
		return err
	}
	return r.syntaxError(0, field, fmt.Errorf("the log ends %d bytes into a record of at least %d: %w", len(have), want, io.ErrUnexpectedEOF))
}

// sourceError returns err unless it only says that the input ended.
func sourceError(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

func allAre(b []byte, c byte) bool {
	for _, x := range b {
		if x != c {
			return false
		}
	}
	return len(b) > 0
}
