package replay

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"tallystick/rtmr"
)

// Source reads a log from its beginning each time it is called.
type Source func() iter.Seq2[rtmr.Measurement, error]

// DiffOptions chooses how two logs are compared.
type DiffOptions struct {
	// Bank is the bank whose digests are compared; 0 for the strongest in which
	// both logs' first measured entries have a digest that is not padded SHA-1.
	Bank rtmr.Alg
	// Into takes a PCR for the register of the UEFI rule, as Options.Into does,
	// so that a TPM's log can be set beside a TD's. A PCR that has none stays.
	Into rtmr.Kind
}

// Difference is what two logs, A and B, measured differently.
type Difference struct {
	Bank   rtmr.Alg // in which they were compared
	Events [2]int   // how many entries A and B have
	Faults [2]error // what ended each before its end, or nil

	// Registers are those that either log extends, in order.
	Registers []RegisterDifference
	// Changes are the differing entries, by register and in order.
	Changes []Change
	// Unmeasured are those among the entries that extend nothing.
	Unmeasured []Change
}

// RegisterDifference tells how far a register goes the same way in both logs.
type RegisterDifference struct {
	Register rtmr.Register `json:"register"`
	// Agree is how many of the register's entries, from the first one, have
	// the same digests in both logs: so far its values are the same. It is 0
	// where PCR 0 starts from different localities.
	Agree int          `json:"agree"`
	A     RegisterSide `json:"a"`
	B     RegisterSide `json:"b"`
}

// RegisterSide is a register in one of the logs.
type RegisterSide struct {
	Events   int   `json:"events"`
	Locality uint8 `json:"locality,omitempty"` // from which PCR 0 starts
	// Parts is the log's index of the first entry behind the Agree ones, or
	// nil if there is none.
	Parts *int `json:"parts"`
	// Value is what the log folds to; nil without events, for a static
	// register, or in a bank that cannot be computed.
	Value rtmr.Hex `json:"value,omitempty"`
}

// Parts reports whether the register's values differ.
func (r *RegisterDifference) Parts() bool {
	return r.A.Parts != nil || r.B.Parts != nil || r.A.Locality != r.B.Locality
}

// Same reports whether nothing differs that could tell the two apart: every
// register goes the same way, and no digest is explained in two ways.
func (d *Difference) Same() bool {
	return !slices.ContainsFunc(d.Registers, func(r RegisterDifference) bool { return r.Parts() }) &&
		!slices.ContainsFunc(d.Changes, func(c Change) bool { return c.Matters() })
}

// ChangeKind says how an entry differs.
type ChangeKind uint8

// The kinds of change.
const (
	Removed ChangeKind = iota // only A has it
	Added                     // only B has it
	// Changed: the register is the same and so is the subject, with another
	// digest.
	Changed
	// Moved: the digest is in both, in another order or in another register.
	// Order alone makes another value.
	Moved
	// OtherData: the digest is the same in the same place, and one of the logs
	// says that it is of something else.
	OtherData
	// OtherBank: the digest is the same in the same place, and not so in another
	// bank that both logs have: one of them was altered, or extended apart.
	OtherBank
)

// String returns "removed", "added", "changed", "moved", "other-data" or
// "other-bank".
func (k ChangeKind) String() string {
	return [...]string{"removed", "added", "changed", "moved", "other-data", "other-bank"}[k]
}

// MarshalText makes a ChangeKind a JSON string.
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Change is one difference. A is nil for what was added, B for what was removed.
type Change struct {
	Kind ChangeKind `json:"kind"`
	A    *Logged    `json:"a,omitempty"`
	B    *Logged    `json:"b,omitempty"`
	// Banks are those in which the digests of an OtherBank differ.
	Banks []rtmr.Alg `json:"banks,omitempty"`
}

// Register returns the register under which the change is listed: A's, or B's
// for what was added. It is none for an entry that extends nothing.
func (c *Change) Register() rtmr.Register {
	if c.A != nil {
		return c.A.Register
	}
	return c.B.Register
}

// Matters is false for OtherData that no digest covers and that are still of
// the same type and about the same thing, such as the address to which an
// image was loaded.
func (c *Change) Matters() bool {
	return c.Kind != OtherData || c.A.about != c.B.about || c.A.Subject != c.B.Subject || family(c.A.Type) != family(c.B.Type) ||
		c.A.Check == rtmr.Contradicts || c.B.Check == rtmr.Contradicts
}

// Logged is an entry as its log tells it, with texts of at most a few KB. Only
// the digest is measured.
type Logged struct {
	Index    int           `json:"index"`  // in its log, from 0
	Offset   int64         `json:"offset"` // of its first byte
	Register rtmr.Register `json:"register,omitzero"`
	Type     string        `json:"type"`
	Subject  string        `json:"subject,omitempty"` // untrusted, not escaped
	Digest   rtmr.Hex      `json:"digest,omitempty"`  // in the Difference's bank
	Detail   string        `json:"detail"`            // escaped
	Check    rtmr.Check    `json:"check"`             // whether the data explain the digests in all banks compared

	digests []rtmr.Digest // in the comparison's banks, in their order
	silent  bool          // there are no data
	about   uint64        // hash of the whole type and subject
}

// Diff compares two logs, register by register, since each register is a chain
// of its own. Two entries are the same measurement if their digests in one
// bank are; if no bank is asked for, the other banks that both logs have are
// then looked at too.
//
// What the logs yielded before an error is compared; the errors are in the
// Difference's Faults, and joined in Diff's own. Without a bank that both have
// the error is a *NoCommonBankError, and there is no Difference.
//
// It reads each log twice, the second time to render the entries that differ.
// Of an entry it keeps the digest and a few words.
func Diff(a, b Source, opts DiffOptions) (*Difference, error) {
	c := newComparison(opts)
	if err := c.read(a, b); err != nil {
		return nil, err
	}
	d := &Difference{Bank: c.bank}
	for i := range c.sides {
		d.Events[i], d.Faults[i] = c.sides[i].events, c.sides[i].fault
	}
	c.compare(d)
	for i, src := range []Source{a, b} {
		if err := c.describe(src, d.logged(i)); err != nil && d.Faults[i] == nil {
			d.Faults[i] = err
		}
	}
	for i := range d.Changes {
		d.Changes[i].tellBanks()
	}
	d.Changes = slices.DeleteFunc(d.Changes, func(c Change) bool {
		return c.Kind == OtherData && (c.A.silent || c.B.silent)
	})
	return d, errors.Join(d.Faults[:]...)
}

// tellBanks makes OtherBank of what differs in another bank, which the first
// reading cannot tell from other data.
func (c *Change) tellBanks() {
	if c.Kind != OtherData {
		return
	}
	for i, d := range c.A.digests {
		if i < len(c.B.digests) && !d.Equal(c.B.digests[i]) { // B has fewer if it could not be read again
			c.Kind = OtherBank
			c.Banks = append(c.Banks, d.Alg)
		}
	}
}

// logged returns the entries of one log that differ, in the log's order.
func (d *Difference) logged(side int) (out []*Logged) {
	for _, changes := range [][]Change{d.Changes, d.Unmeasured} {
		for _, c := range changes {
			if l := [2]*Logged{c.A, c.B}[side]; l != nil {
				out = append(out, l)
			}
		}
	}
	slices.SortFunc(out, func(x, y *Logged) int { return x.Index - y.Index })
	return out
}

// subjecter is an entry that can name what it is about, such as a file or a
// UEFI variable, so that two entries about one thing are known for a pair.
type subjecter interface {
	Subject() string
}

func subjectOf(e rtmr.Entry) string {
	if s, ok := e.(subjecter); ok {
		return s.Subject()
	}
	return ""
}

// describe fills in what the first reading did not keep.
func (c *comparison) describe(src Source, wanted []*Logged) error {
	if len(wanted) == 0 {
		return nil
	}
	for m, err := range src() {
		if err != nil {
			return err
		}
		w := wanted[0]
		if m.Index != w.Index {
			continue
		}
		d, measured := c.digestOf(&m)
		if measured && extends(&m) && !bytes.Equal(d.Sum, w.Digest) {
			return &rtmr.SyntaxError{Offset: m.Offset, Entry: m.Index, Field: "digests",
				Err: fmt.Errorf("%x, expected %s as before: the log changed while it was read", d.Sum, w.Digest)}
		}
		w.describe(&m, c.digestsOf(&m))
		w.about = c.about(m.Entry)
		if wanted = wanted[1:]; len(wanted) == 0 {
			return nil
		}
	}
	return fmt.Errorf("entry %d is gone: the log changed while it was read", wanted[0].Index)
}

func (l *Logged) describe(m *rtmr.Measurement, digests []rtmr.Digest) {
	l.Offset = m.Offset
	if m.Entry == nil {
		l.silent = true
		return
	}
	l.Type, l.Detail, l.Subject = shortened(m.Entry.Type()), shortened(m.Entry.Detail()), shortened(subjectOf(m.Entry))
	l.silent = len(m.Entry.Data()) == 0
	for _, d := range digests {
		if d.Sum != nil {
			check, _ := m.Entry.Verify(d)
			l.Check = max(l.Check, check) // Contradicts is above Verified
		}
		l.digests = append(l.digests, rtmr.Digest{Alg: d.Alg, Sum: slices.Clone(d.Sum)})
	}
}
