package ima

import (
	"bytes"
	"fmt"

	"tallystick/rtmr"
)

// AppendRecord appends an entry's record to a binary list of this layout, byte
// for byte as the kernel shows it (security/integrity/ima/ima_fs.c,
// ima_measurements_show). pcr is the list's PCR column, 0 to 23.
//
// The template hash is the recorded one where the entry has one in the
// layout's algorithm, so that a record that was read is written back as it
// was, true or forged. Otherwise it is made from the template data, or is
// zeros for a violation: so a SHA-1 list is written as the kernel's SHA-256
// list of the same boot.
//
// It refuses, and returns dst as it was, what a Reader of this layout would
// not read back: an entry's own byte order must be the layout's.
func (l Layout) AppendRecord(dst []byte, pcr rtmr.PCR, e *Entry) ([]byte, error) {
	if e.opaque {
		return dst, fmt.Errorf("template %q: the entry has the text of its fields, not its template data", e.template)
	}
	b := orderOf(l.Order).appendUint32(dst, uint32(pcr))
	b, err := l.appendTemplateHash(b, e)
	if err != nil {
		return dst, err
	}
	b = orderOf(l.Order).appendUint32(b, uint32(len(e.template)))
	b = append(b, e.template...)
	if e.template == templateIMA {
		d := e.imaDigestSize()
		b = append(b, e.data[:d]...)
		b = l.AppendField(b, e.data[d:])
	} else {
		b = l.AppendField(b, e.data)
	}
	if err := l.readsBack(b[len(dst):], e); err != nil {
		return dst, err
	}
	return b, nil
}

// AppendField appends one field of template data: u32 length, then the bytes.
func (l Layout) AppendField(dst, field []byte) []byte {
	return append(orderOf(l.Order).appendUint32(dst, uint32(len(field))), field...)
}

func (l Layout) appendTemplateHash(dst []byte, e *Entry) ([]byte, error) {
	switch {
	case e.recorded.Alg == l.Alg && len(e.recorded.Sum) == l.Alg.Size():
		return append(dst, e.recorded.Sum...), nil
	case e.Violation():
		return append(dst, make([]byte, l.Alg.Size())...), nil
	case !l.Alg.Available():
		return dst, fmt.Errorf("%s template hashes cannot be computed", l.Alg)
	}
	return append(dst, e.hash(l.Alg)...), nil
}

// readsBack reports an error unless the record parses as the entry, in a list
// that goes on behind it: a forged record of the template "ima" may look as if
// it reached further.
func (l Layout) readsBack(record []byte, e *Entry) error {
	list := record
	if e.template == templateIMA {
		list = append(bytes.Clone(record), make([]byte, imaNameSize)...)
	}
	var back Entry
	n, fault := l.internal().parse(list, &back)
	if fault != nil {
		return fmt.Errorf("template %q: %s: %w", e.template, fault.field, fault.err())
	}
	if back.pcr > maxPCR {
		return fmt.Errorf("PCR index %d, expected 0 to %d", back.pcr, maxPCR)
	}
	if n != len(record) || back.template != e.template || back.md5 != e.md5 || !bytes.Equal(back.data, e.data) {
		return fmt.Errorf("template %q: the record would not read back as the same entry", e.template)
	}
	if e.template != templateIMA && len(e.data) > 0 && e.order != orderOf(l.Order) {
		return fmt.Errorf("template %q: the lengths in the template data are %s, the list's are %s", e.template, e.Order(), l.Order)
	}
	return nil
}
