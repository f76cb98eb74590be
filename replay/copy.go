package replay

import (
	"bytes"
	"fmt"
	"iter"
	"slices"

	"tallystick/rtmr"
)

// Copy is what came of holding a log, whose entries another log has copies of,
// against that one.
type Copy struct {
	Entries int // of the log that the other has, in the same order
	Ahead   int // of the log, behind the last one that the other has
	// Parts is the first entry at which the two part; nil if none is. It has no
	// index of a log: it is an entry of the log, or InOther.
	Parts   *Finding
	InOther bool
	// Into has for each register of the log's that of the copies.
	Into map[rtmr.Register]rtmr.Register
}

// CompareCopy holds a log against another one that was extended in its place and
// has a copy of each of its entries: the same type and data, in the same order,
// with the same digests in the banks that both have. Entries that extend nothing
// are left out of account. A register may be another in the other log, as a PCR's
// events go into a TD's RTMR, but always the same one.
//
// Of the other log those entries count that of selects. Some of them may follow
// that the log has not, if more is set: then the other log is of more than this one.
func CompareCopy(log, other iter.Seq2[rtmr.Measurement, error], of func(rtmr.Entry) bool, more bool) (c Copy, err error) {
	next, stop := iter.Pull2(selected(other, of))
	defer stop()
	c.Into = make(map[rtmr.Register]rtmr.Register)
	for m, err := range log {
		if err != nil {
			return c, err
		}
		if m.NoAction || m.Register.IsZero() {
			continue
		}
		if c.Ahead > 0 {
			c.Ahead++
			continue
		}
		o, err, ok := next()
		if err != nil {
			return c, err
		}
		if !ok {
			c.Ahead++
			continue
		}
		if text, a, b := parting(&m, &o, c.Into); text != "" {
			c.Parts = copyFinding(&m, text, a, b)
			return c, nil
		}
		c.Entries++
	}
	if more || c.Ahead > 0 {
		return c, nil
	}
	o, err, ok := next()
	if err != nil || !ok {
		return c, err
	}
	c.InOther = true
	c.Parts = copyFinding(&o, "the log that it would be a copy of ends before it", rtmr.Digest{}, rtmr.Digest{})
	return c, nil
}

// selected are a log's entries that extend a register, and that of selects.
func selected(log iter.Seq2[rtmr.Measurement, error], of func(rtmr.Entry) bool) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for m, err := range log {
			if err == nil && (m.NoAction || m.Register.IsZero() || !of(m.Entry)) {
				continue
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// parting says how an entry parts from its copy, "" if it does not, and the digests
// by which it does. Into learns in which register those of a register go.
func parting(m, o *rtmr.Measurement, into map[rtmr.Register]rtmr.Register) (text string, a, b rtmr.Digest) {
	if m.Entry.Type() != o.Entry.Type() || !bytes.Equal(m.Entry.Data(), o.Entry.Data()) {
		return fmt.Sprintf("entry %d has other data in its place: %s %s", o.Index, o.Entry.Type(), shortened(o.Entry.Detail())), a, b
	}
	if reg, known := into[m.Register]; known && reg != o.Register {
		return fmt.Sprintf("its copy, entry %d, is in %s, and those of %s before it are in %s", o.Index, o.Register, m.Register, reg), a, b
	}
	into[m.Register] = o.Register
	for _, d := range m.Digests {
		i := slices.IndexFunc(o.Digests, func(e rtmr.Digest) bool { return e.Alg == d.Alg })
		if i >= 0 && !bytes.Equal(d.Sum, o.Digests[i].Sum) {
			return fmt.Sprintf("its copy, entry %d, has another digest in %s", o.Index, d.Alg), d, o.Digests[i]
		}
	}
	return "", a, b
}

func copyFinding(m *rtmr.Measurement, text string, recorded, copied rtmr.Digest) *Finding {
	return &Finding{
		Kind: "copy", Entry: m.Index, Offset: m.Offset, Register: m.Register, Alg: recorded.Alg,
		Type: shortened(m.Entry.Type()), Detail: shortened(m.Entry.Detail()),
		Recorded: slices.Clone(recorded.Sum), Computed: slices.Clone(copied.Sum), Text: text,
	}
}
