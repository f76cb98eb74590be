package ima

import (
	"encoding/binary"

	"tallystick/rtmr"
)

// NewViolation is NewEntry for a violation: its template hash is zeros,
// whatever its data.
func NewViolation(template string, data []byte, order binary.ByteOrder) *Entry {
	e := NewEntry(template, data, order)
	e.recorded = rtmr.Digest{Alg: rtmr.SHA1, Sum: make([]byte, rtmr.SHA1.Size())}
	return e
}
