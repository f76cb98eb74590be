package cel

import (
	"errors"
	"fmt"
	"math"
)

// Limits on what one record may hold. Real records have some KB, at most five
// digests and six members.
const (
	// MaxRecordSize bounds one record in any encoding, in bytes.
	MaxRecordSize = 16 << 20

	maxDigests = 16
	maxMembers = 64
	maxList    = 64
)

// node is one value of an encoded record. CEL's CDDL gives every member both a
// name and a number; JSON finds it by the one and CBOR and TLV by the other,
// so that one parser reads a content in all three. Errors are *fault.
type node interface {
	// at is the value's offset in the log.
	at() int64
	// member returns an object's member, or nil if it has none such.
	member(name string, key uint64) (node, error)
	// isText reports whether a value that may be a name or a number is a name.
	isText() bool
	// isList and isObject report what kind of value stands where there is a
	// choice. TLV has none, and a TLV can be taken for an object.
	isList() bool
	isObject() bool
	number() (uint64, error)
	text() (string, error)
	bytes() ([]byte, error)
	list() ([]node, error)
	// encoded is the value as the log has it.
	encoded() []byte
}

// noKey is the number of members that have only a name.
const noKey = math.MaxUint64

// fault is a malformed field of a record; the Reader makes a SyntaxError of it.
type fault struct {
	off   int64
	field string
	err   error
}

func (f *fault) Error() string { return f.field + ": " + f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

// within names the field in which a node's method found a fault.
func within(field string, err error) error {
	var f *fault
	if errors.As(err, &f) && f.field == "" {
		return &fault{f.off, field, f.err}
	}
	return err
}

func unexpected(n node, format string, args ...any) *fault {
	return &fault{n.at(), "", fmt.Errorf(format, args...)}
}
