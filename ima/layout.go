package ima

import (
	"bytes"
	"encoding/binary"

	"tallystick/rtmr"
)

const (
	maxName = 4096     // a template's name; custom formats reach some 100 bytes
	maxData = 16 << 20 // an entry's template data; signatures and buffers reach some 100 KB
	maxPCR  = rtmr.NumPCRs - 1
	// MaxColumn is the largest PCR that a policy's rule may name (ima_policy.c,
	// INVALID_PCR). Above maxPCR no TPM has one, and the kernel extends nothing.
	MaxColumn = 63
)

// Layout is what a list does not say of itself and its content shows: the
// template hashes' algorithm and the byte order.
type Layout struct {
	Alg   rtmr.Alg
	Order binary.ByteOrder
}

// DetectSize is how many bytes from a list's beginning Detect can make use of.
const DetectSize = 64 << 10

// layout is a Layout as the parser wants it.
type layout struct {
	alg   rtmr.Alg
	order byteOrder
}

// entry is what all entries of a list have in common.
func (l layout) entry() Entry {
	return Entry{order: l.order, recorded: rtmr.Digest{Alg: l.alg}}
}

func (l Layout) internal() layout { return layout{l.Alg, orderOf(l.Order)} }

var layouts = []layout{
	{rtmr.SHA1, littleEndian}, {rtmr.SHA256, littleEndian},
	{rtmr.SHA384, littleEndian}, {rtmr.SHA512, littleEndian},
	{rtmr.SHA1, bigEndian}, {rtmr.SHA256, bigEndian},
	{rtmr.SHA384, bigEndian}, {rtmr.SHA512, bigEndian},
}

// Detect recognises a binary list by its first records: the layout under
// which most of the first eight are well-formed, where a template hash that
// the data prove counts for more than form alone.
func Detect(prefix []byte) (Layout, bool) {
	var best Layout
	score := 0
	for _, l := range layouts {
		if s := l.score(prefix); s > score {
			best, score = Layout{l.alg, l.order.standard()}, s
		}
	}
	return best, score > 0
}

// proven is the score of one record whose template hash its data prove.
const proven = 5

// score counts the well-formed records among the first eight. One that is not
// makes it 0, unless a hash before it proves the layout: then the list is
// faulty there, and what came before is still to be read.
func (l layout) score(prefix []byte) int {
	total := 0
	for range 8 {
		var e Entry
		n, fault := l.parse(prefix, &e)
		if n == 0 {
			if fault == nil && (total > 0 || len(prefix) >= DetectSize) && e.template != "" {
				total++
			} else if total == 0 || (fault != nil && total < proven) {
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

// fault says why no record can begin with some bytes: the field at fault, its
// distance from the record's beginning, its value and what was expected.
type fault struct {
	at    int
	field string
	got   uint64
	want  string
}

// parse reads the record at the beginning of b into e and returns its length,
// or 0 for one that goes on behind b. A template that e has already is not
// checked again; e.data must be empty, and its capacity is used where template
// data do not stand in b as they are; the other fields must be zero.
func (l layout) parse(b []byte, e *Entry) (n int, f *fault) {
	d := l.alg.Size()
	nameAt := 4 + d + 4
	if len(b) < nameAt {
		return 0, nil
	}
	e.pcr = l.order.uint32(b)
	if e.pcr > MaxColumn {
		return 0, &fault{0, "PCR index", uint64(e.pcr), "0 to 63"}
	}
	nameLen := l.order.uint32(b[nameAt-4:])
	if nameLen == 0 || nameLen > maxName {
		return 0, &fault{nameAt - 4, "template name length", uint64(nameLen), "1 to 4096"}
	}
	dataAt := nameAt + int(nameLen)
	if name := b[nameAt:min(dataAt, len(b))]; string(name) != e.template {
		if i := notInName(name); i >= 0 {
			return 0, &fault{nameAt + i, "template name", uint64(name[i]), "a printable character"}
		}
		e.template = string(name)
	}
	if len(b) < dataAt+4 {
		return 0, nil
	}
	e.recorded = rtmr.Digest{Alg: l.alg, Sum: b[4 : 4+d : 4+d]}
	e.order = l.order
	if e.template == templateIMA {
		return l.parseIMA(b, dataAt, e)
	}
	size := l.order.uint32(b[dataAt:])
	if size > maxData {
		return 0, &fault{dataAt, "template data length", uint64(size), "at most 16777216"}
	}
	end := dataAt + 4 + int(size)
	if len(b) < end {
		return 0, nil
	}
	e.data = b[dataAt+4 : end : end]
	if !e.scan() {
		return 0, &fault{dataAt + 4, "template data", uint64(size), "fields whose lengths consume it exactly"}
	}
	return end, nil
}

// parseIMA parses the template "ima": digest[20], u32 length, name, and puts
// digest ‖ name behind e.data. With ima_hash=md5 the digest has 16 bytes: if
// the template hash proves it, or if what stands behind 20 bytes can be no
// length. As long as either could still be, the record goes on, for it must
// not depend on where the buffer ends.
func (l layout) parseIMA(b []byte, at int, e *Entry) (n int, f *fault) {
	end, fits := l.imaEnd(b, at, 20)
	end16, fits16 := l.imaEnd(b, at, md5Size)
	if !fits && !fits16 {
		return 0, &fault{at + 20, "event name length", uint64(l.order.uint32(b[at+20:])), "at most 256"}
	}
	if end > 0 {
		e.setIMA(b[at:end], 20)
		if !fits16 {
			return end, nil
		}
		if c, _ := e.Verify(e.recorded); c != rtmr.Contradicts {
			return end, nil
		}
	}
	if end16 > 0 {
		md5 := *e
		md5.setIMA(b[at:end16], md5Size)
		if c, _ := md5.Verify(e.recorded); !fits || c == rtmr.Verified {
			*e = md5
			return end16, nil
		}
	}
	if fits && end == 0 || fits16 && end16 == 0 {
		return 0, nil
	}
	return end, nil
}

// imaEnd returns where the event data end whose digest has d bytes, or 0 if
// that is behind b; fits is false if the length there can be none.
func (l layout) imaEnd(b []byte, at, d int) (end int, fits bool) {
	if len(b) < at+d+4 {
		return 0, true
	}
	n := l.order.uint32(b[at+d:])
	if n > imaNameSize {
		return 0, false
	}
	if end = at + d + 4 + int(n); len(b) < end {
		return 0, true
	}
	return end, true
}

// setIMA makes digest ‖ name of the event data, whose digest has d bytes, in
// the room behind e.data.
func (e *Entry) setIMA(eventData []byte, d int) {
	e.data = append(append(e.data[len(e.data):], eventData[:d]...), eventData[d+4:]...)
	e.md5 = d == md5Size
	e.scan()
}
