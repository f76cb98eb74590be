package ima

import (
	"bytes"
	"encoding/binary"
	"strings"

	"tallystick/rtmr"
)

const (
	maxName = 4096     // a template's name; custom formats reach some 100 bytes
	maxData = 16 << 20 // an entry's template data; signatures and buffers reach some 100 KB
	maxPCR  = rtmr.NumPCRs - 1
)

// Layout is what a list does not say of itself and its content shows: the
// template hashes' algorithm and the byte order.
type Layout struct {
	Alg   rtmr.Alg
	Order binary.ByteOrder
}

// DetectSize is how many bytes from a list's beginning Detect can make use of.
const DetectSize = 64 << 10

var layouts = []Layout{
	{rtmr.SHA1, binary.LittleEndian}, {rtmr.SHA256, binary.LittleEndian},
	{rtmr.SHA384, binary.LittleEndian}, {rtmr.SHA512, binary.LittleEndian},
	{rtmr.SHA1, binary.BigEndian}, {rtmr.SHA256, binary.BigEndian},
	{rtmr.SHA384, binary.BigEndian}, {rtmr.SHA512, binary.BigEndian},
}

// Detect recognises a binary list by its first records: the layout under
// which most of the first eight are well-formed, where a template hash that
// the data prove counts for more than form alone.
func Detect(prefix []byte) (Layout, bool) {
	var best Layout
	score := 0
	for _, l := range layouts {
		if s := l.score(prefix); s > score {
			best, score = l, s
		}
	}
	return best, score > 0
}

// proven is the score of one record whose template hash its data prove.
const proven = 5

// score counts the well-formed records among the first eight. One that is not
// makes it 0, unless a hash before it proves the layout: then the list is
// faulty there, and what came before is still to be read.
func (l Layout) score(prefix []byte) int {
	total := 0
	for range 8 {
		var e Entry
		rec, n, st := l.parse(prefix, &e)
		if st != whole {
			if st == short && (total > 0 || len(prefix) >= DetectSize) && rec.nameOK {
				total++
			} else if total == 0 || (st == bad && total < proven) {
				return 0
			}
			break
		}
		total++
		if c, _ := e.Verify(e.recorded); c == rtmr.Verified {
			total += proven - 1
		}
		if prefix = prefix[n:]; len(prefix) == 0 {
			break
		}
	}
	return total
}

// notInName returns where a byte stands that no template's name has, or -1.
func notInName(name []byte) int {
	return bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}

// status tells how far a record could be parsed.
type status uint8

const (
	whole status = iota
	short        // it goes on behind the buffer
	bad          // no record can begin so
)

// record is a record's outline: what was parsed before it ended or went wrong.
type record struct {
	pcr    uint32
	nameOK bool
	at     int    // of the field at fault, where bad
	field  string // its name
	got    uint64
	want   string
}

// parse reads one record at the beginning of b into e.
func (l Layout) parse(b []byte, e *Entry) (rec record, n int, st status) {
	d := l.Alg.Size()
	nameAt := 4 + d + 4
	if len(b) < nameAt {
		return rec, 0, short
	}
	rec.pcr = l.Order.Uint32(b)
	if rec.pcr > maxPCR {
		rec.at, rec.field, rec.got, rec.want = 0, "PCR index", uint64(rec.pcr), "0 to 23"
		return rec, 0, bad
	}
	nameLen := l.Order.Uint32(b[nameAt-4:])
	if nameLen == 0 || nameLen > maxName {
		rec.at, rec.field, rec.got, rec.want = nameAt-4, "template name length", uint64(nameLen), "1 to 4096"
		return rec, 0, bad
	}
	dataAt := nameAt + int(nameLen)
	name := b[nameAt:min(dataAt, len(b))]
	if i := notInName(name); i >= 0 {
		rec.at, rec.field, rec.got, rec.want = nameAt+i, "template name", uint64(name[i]), "a printable character"
		return rec, 0, bad
	}
	rec.nameOK = true
	if len(b) < dataAt+4 {
		return rec, 0, short
	}
	e.recorded = rtmr.Digest{Alg: l.Alg, Sum: b[4 : 4+d : 4+d]}
	e.order = l.Order
	if e.template != string(name) {
		e.template = strings.Clone(string(name))
	}
	if e.template == templateIMA {
		return l.parseIMA(b, dataAt, rec, e)
	}
	size := l.Order.Uint32(b[dataAt:])
	if size > maxData {
		rec.at, rec.field, rec.got, rec.want = dataAt, "template data length", uint64(size), "at most 16777216"
		return rec, 0, bad
	}
	end := dataAt + 4 + int(size)
	if len(b) < end {
		return rec, 0, short
	}
	e.data = b[dataAt+4 : end : end]
	if !eachField(e.data, l.Order, func(int, []byte) {}) {
		rec.at, rec.field, rec.got, rec.want = dataAt+4, "template data", uint64(size), "fields whose lengths consume it exactly"
		return rec, 0, bad
	}
	return rec, end, whole
}

// parseIMA parses the template "ima": digest[20], u32 length, name. With
// ima_hash=md5 the digest has 16 bytes: if the template hash proves it, or if
// what stands behind 20 bytes can be no length. As long as either could still
// be, the record is short, for it must not depend on where the buffer ends.
func (l Layout) parseIMA(b []byte, at int, rec record, e *Entry) (record, int, status) {
	end, st := l.imaEnd(b, at, 20)
	if st == whole {
		e.setIMA(b[at:end], 20)
		if c, _ := e.Verify(e.recorded); c != rtmr.Contradicts {
			return rec, end, whole
		}
	}
	short16, proven := *e, false
	end16, st16 := l.imaEnd(b, at, 16)
	if st16 == whole {
		short16.setIMA(b[at:end16], 16)
		c, _ := short16.Verify(e.recorded)
		proven = c == rtmr.Verified
	}
	switch {
	case proven, st == bad && st16 == whole:
		*e = short16
		return rec, end16, whole
	case st == short || st16 == short:
		return rec, 0, short
	case st == whole:
		return rec, end, whole
	}
	rec.at, rec.field, rec.want = at+20, "event name length", "at most 256"
	rec.got = uint64(l.Order.Uint32(b[at+20:]))
	return rec, 0, bad
}

// imaEnd returns where the event data end whose digest has d bytes.
func (l Layout) imaEnd(b []byte, at, d int) (end int, st status) {
	if len(b) < at+d+4 {
		return 0, short
	}
	n := l.Order.Uint32(b[at+d:])
	if n > imaNameSize {
		return 0, bad
	}
	end = at + d + 4 + int(n)
	if len(b) < end {
		return 0, short
	}
	return end, whole
}

// setIMA makes digest ‖ name of the event data, whose digest has d bytes.
func (e *Entry) setIMA(eventData []byte, d int) {
	e.data = append(append(make([]byte, 0, len(eventData)-4), eventData[:d]...), eventData[d+4:]...)
	e.md5 = d == 16
}
