package eventlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"tallystick/internal/window"
	"tallystick/rtmr"
)

// The Confidential Containers attestation agent keeps a log of its own, the
// AAEL, in /run/attestation-agent/eventlog. Since July 2025 it is crypto-agile
// records of EV_EVENT_TAG without a header, and for evidence the agent puts
// them behind the CCEL's or, where there is none, behind a header of its own
// (guest-components attestation-agent, eventlog/tcg2.rs and attester's
// utils.rs): Reader reads all of these. Before, it was text: AAELReader.

// isAgentHeader reports whether data are those of the header that the agent
// makes for itself: a TCG_EfiSpecIDEvent without a signature, zeros up to the
// number of algorithms, SHA-384 the first of them (attester's utils.rs,
// EL_HEADER).
func isAgentHeader(data []byte) bool {
	const zeros = len(specIDSignature) + 4 + 4
	sha384 := []byte{0x0C, 0, 48, 0}
	return len(data) > zeros+4 && allAre(data[:zeros], 0) && bytes.HasPrefix(data[zeros+4:], sha384)
}

// isAgentLog reports whether a log without a header is the agent's in a TD or
// a CSV guest, where the index is a CC-MR index: 4, RTMR3, for the agent's
// default of PCR 17 (attester's tdx/mod.rs, pcr_to_ccmr). With a vTPM the
// digests are SHA-256 and the index is the PCR.
func isAgentLog(prefix []byte) bool {
	n, at, ok := tcg2Record(prefix)
	if !ok || EventType(binary.LittleEndian.Uint32(prefix[4:])) != EVEventTag {
		return false
	}
	index := binary.LittleEndian.Uint32(prefix)
	alg := rtmr.Alg(binary.LittleEndian.Uint16(prefix[12:]))
	t, ok := parseTagged(prefix[at:min(n, len(prefix))])
	return ok && t.id == tagAAEL && index >= 1 && index <= rtmr.NumRTMRs && (alg == rtmr.SHA384 || alg == rtmr.SM3)
}

// AAELReader reads the agent's older log, and Intel ACON's, which has the same
// form. Its first line tells the algorithm and the register's value before it:
//
//	INIT sha384/0000..00
//	Domain Operation Content
//
// Each line, the first included, is one event whose digest is that of its
// bytes without the line end. The lines have no digests: the Measurement's is
// made from the line, and the entry's Verify says CannotCheck.
//
// The log names no register. A log in SHA-384 is taken for a TD's, where the
// agent's default, PCR 17, is RTMR3; in SHA-256 or SHA-512 for a vTPM's PCR 17.
type AAELReader struct {
	in       *window.Reader
	index    int
	alg      rtmr.Alg
	reg      rtmr.Register
	entry    aaelEntry
	digest   [1]rtmr.Digest
	sum      [rtmr.MaxDigestSize]byte
	warnings []string
}

const (
	aaelInit = "INIT "
	// maxAAELLine bounds one line. Contents are small JSON objects.
	maxAAELLine = 1 << 20
)

// DetectAAEL recognises the agent's text log by its first line.
func DetectAAEL(prefix []byte) bool {
	line, _, whole := bytes.Cut(prefix, []byte{'\n'})
	_, _, err := parseAAELInit(line)
	return err == nil && (whole || len(prefix) < DetectSize)
}

// NewAAELReader returns a reader of src.
func NewAAELReader(src io.Reader) *AAELReader {
	return &AAELReader{in: window.New(src, 4<<10)}
}

// Warnings returns what was odd about the log but did not stop its reading.
// They are complete when Measurements has ended.
func (r *AAELReader) Warnings() []string {
	return slices.Concat(r.warnings, unrecorded(r.index).warnings())
}

// Measurements yields the log's lines in order, as Reader.Measurements does.
func (r *AAELReader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for {
			m, err := r.next()
			if err == io.EOF && r.index > 0 {
				return
			}
			if err == io.EOF {
				err = r.syntaxError("INIT", errors.New("the log is empty"))
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// next returns the next line's measurement, or io.EOF.
func (r *AAELReader) next() (m rtmr.Measurement, err error) {
	line, size, err := r.line()
	if err != nil {
		return m, err
	}
	if r.index == 0 {
		if err := r.begin(line); err != nil {
			return m, r.syntaxError("INIT", err)
		}
	}
	if len(line) == 0 {
		return m, r.syntaxError("line", errors.New("empty, expected a domain, an operation and a content"))
	}
	r.digest[0] = rtmr.Digest{Alg: r.alg, Sum: r.alg.AppendHash(r.sum[:0], line)}
	r.entry = aaelEntry{line: line, unrecorded: true}
	m = rtmr.Measurement{Index: r.index, Offset: r.in.Offset(), Register: r.reg, Digests: r.digest[:], Entry: &r.entry}
	r.in.Skip(size)
	r.index++
	return m, nil
}

// begin learns the algorithm, and with it the register, from the first line.
func (r *AAELReader) begin(line []byte) error {
	alg, initial, err := parseAAELInit(line)
	if err != nil {
		return err
	}
	r.alg = alg
	if r.reg, _ = rtmr.Index(3).RTMR(); alg != rtmr.SHA384 {
		r.reg, _ = rtmr.PCR(17).Register()
	}
	if !allAre(initial, 0) {
		r.warnings = append(r.warnings, fmt.Sprintf("the log begins where %s is %x: what extended it before is in another log", r.reg, initial))
	}
	return nil
}

// line returns the next line without its end, and its length with it.
func (r *AAELReader) line() (line []byte, size int, err error) {
	for n := 256; ; n = min(2*n, maxAAELLine) {
		b, err := r.in.Peek(n)
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			return b[:i], i + 1, nil
		}
		switch {
		case err == io.ErrUnexpectedEOF:
			r.warnings = append(r.warnings, fmt.Sprintf("line %d has no end and may be cut short", r.index+1))
			return b, len(b), nil
		case err != nil:
			return nil, 0, err
		case n == maxAAELLine:
			return nil, 0, r.syntaxError("line", fmt.Errorf("longer than %d bytes", maxAAELLine))
		}
	}
}

// parseAAELInit parses "INIT alg/hex".
func parseAAELInit(line []byte) (alg rtmr.Alg, initial []byte, err error) {
	rest, ok := strings.CutPrefix(string(line[:min(len(line), 256)]), aaelInit)
	name, value, slash := strings.Cut(rest, "/")
	if !ok || !slash {
		return 0, nil, errors.New(`expected "INIT algorithm/value"`)
	}
	switch name {
	case "sha256":
		alg = rtmr.SHA256
	case "sha384":
		alg = rtmr.SHA384
	case "sha512":
		alg = rtmr.SHA512
	default:
		return 0, nil, fmt.Errorf("algorithm %q, expected sha256, sha384 or sha512", name)
	}
	if initial, err = hex.DecodeString(value); err != nil || len(initial) != alg.Size() {
		return 0, nil, fmt.Errorf("value %q, expected %d hexadecimal digits", value, 2*alg.Size())
	}
	return alg, initial, nil
}

func (r *AAELReader) syntaxError(field string, err error) error {
	return &SyntaxError{Offset: r.in.Offset(), Entry: r.index, Field: field, Err: err}
}

// AAELType is the Type of the entries of the agent's text log.
const AAELType = "AAEL"

// AAELLine returns the entry of one line of the agent's text log, given without
// its end, for a log that holds a digest beside it, as a conversion does.
func AAELLine(line []byte) rtmr.Entry { return &aaelEntry{line: line} }

// aaelEntry is one line of the agent's text log.
type aaelEntry struct {
	line       []byte
	unrecorded bool // the digest was made from the line
}

func (e *aaelEntry) Type() string   { return AAELType }
func (e *aaelEntry) Data() []byte   { return e.line }
func (e *aaelEntry) Detail() string { return rtmr.Escape(cut(string(e.line), maxDetail)) }

func (e *aaelEntry) Verify(d rtmr.Digest) (rtmr.Check, []byte) {
	if e.unrecorded || !d.Alg.Available() {
		return rtmr.CannotCheck, nil
	}
	return mustBe(d, e.line)
}
