package ima

import "tallystick/rtmr"

// ParseRecord parses the record at the beginning of b, of a list in this layout,
// into e, and returns its length: 0 for one that goes on behind b. It is for who
// follows a list that grows; a Reader is for one that is there.
//
// The entry points into b, but for the template "ima", whose data are made. A
// template's name that e has already is kept, so that entry after entry shares
// one. On malformed bytes the error is a *SyntaxError, with an offset in b.
func (l Layout) ParseRecord(b []byte, e *Entry) (n int, err error) {
	*e = Entry{template: e.template}
	n, fault := l.internal().parse(b, e)
	if fault != nil {
		return 0, fault.syntaxError(0, 0)
	}
	return n, nil
}

// Column is the list's PCR column: a PCR, or with the profile rtmr-column an RTMR's index.
func (e *Entry) Column() uint32 { return e.pcr }

// Register returns the register of the list's PCR column; ok is false above PCR 23,
// where the entry extended nothing.
func (e *Entry) Register() (r rtmr.Register, ok bool) { return rtmr.PCR(e.pcr).Register() }

// AppendExtended appends what a mainline kernel extends a bank with for the entry,
// if it has the bank's hash: the template hash, and 0xFF for a violation.
func (e *Entry) AppendExtended(dst []byte, a rtmr.Alg) []byte {
	if e.Violation() {
		for range a.Size() {
			dst = append(dst, 0xFF)
		}
		return dst
	}
	if a == e.recorded.Alg {
		return append(dst, e.recorded.Sum...)
	}
	var buf [20 + imaNameSize]byte
	return a.AppendHash(dst, e.hashed(&buf))
}
