package rtmr

import (
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Measurement is one entry of a log: a register, the digests that extended it
// in each bank, and the entry that explains them.
//
// Digests and Entry may point into the reader's buffers: they are valid until
// the iteration's next step.
type Measurement struct {
	Index  int   // the entry's place in its log, from 0
	Offset int64 // of the entry's first byte in its log

	Register Register
	Digests  []Digest // what was extended, one a bank, in the log's order

	// NoAction marks an entry that informs and extends nothing (EV_NO_ACTION,
	// TCG PFP 1.06 §10.4.5), whatever Register and Digests say.
	NoAction bool

	// Locality, where not 0, says that PCR 0 began not at zeros but at 00..0L:
	// L is 3 or 4 for a StartupLocality entry and 4 for an H-CRTM event
	// (TCG PFP 1.04 §9.4.5.3, TPM 2.0 Part 1 §34.3).
	Locality uint8

	Entry Entry
}

// UntilEOF yields what next returns, up to io.EOF, which it does not yield, or
// another error, which it does.
func UntilEOF(next func() (Measurement, error)) iter.Seq2[Measurement, error] {
	return func(yield func(Measurement, error) bool) {
		for {
			m, err := next()
			if err == io.EOF {
				return
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Entry is a log's own view of one entry. Its methods do their work when
// called, so that a fold that needs none of it does not pay.
type Entry interface {
	// Type is the entry's type as its format names it: "EV_SEPARATOR", "ima-ng".
	Type() string
	// Detail is a readable rendering of the data on one line, with control
	// characters escaped.
	Detail() string
	// Data is the entry's raw data: event data, template data, CEL content.
	Data() []byte
	// Verify tells whether the entry's own data explain a digest of it. Where
	// the result is Contradicts, computed is the digest that the data give.
	Verify(d Digest) (c Check, computed []byte)
}

// Check is the three-valued result of holding a digest against the data that
// it is said to be of.
type Check uint8

// The results. Only some event types hash data that the log holds.
const (
	CannotCheck Check = iota
	Verified
	Contradicts
)

// String returns "cannot be checked", "verified" or "contradicts".
func (c Check) String() string {
	return [...]string{"cannot be checked", "verified", "contradicts"}[c]
}

// MarshalText makes a Check a JSON string.
func (c Check) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// SyntaxError is malformed input: what was wrong, and where. All that came
// before it has been delivered.
type SyntaxError struct {
	Offset int64  // of the faulty field's first byte in the log
	Entry  int    // the entry's place in the log, from 0
	Field  string // the field, in the words of the format's specification
	Err    error  // what was found, and what was expected
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("entry %d, offset %d: %s: %v", e.Entry, e.Offset, e.Field, e.Err)
}

func (e *SyntaxError) Unwrap() error { return e.Err }

// Escape renders text that an attacker may have chosen on one line: control
// characters, line ends, bytes that are not UTF-8, bidirectional overrides and
// backslashes are written as Go escapes, all else as it is.
func Escape(s string) string {
	clean := true
	for _, r := range s {
		if r < 0x20 || r > 0x7e || r == '\\' {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := fmt.Sprintf("%+q", r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
