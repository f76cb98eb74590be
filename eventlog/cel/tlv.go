package cel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"tallystick/rtmr"
)

// CEL-TLV: u8 type, be32 length, value.
const (
	tlvHeader  = 1 + 4
	maxTLVType = math.MaxUint8

	tlvRecNum  = 0
	tlvDigests = 3
)

// cutTLV splits the first TLV off b.
func cutTLV(b []byte) (t byte, value, rest []byte, ok bool) {
	if len(b) < tlvHeader {
		return 0, nil, nil, false
	}
	n := binary.BigEndian.Uint32(b[1:])
	if uint64(n) > uint64(len(b)-tlvHeader) {
		return 0, nil, nil, false
	}
	end := tlvHeader + int(n)
	return b[0], b[tlvHeader:end:end], b[end:], true
}

func appendTLV(b []byte, t byte, value []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, t), uint32(len(value)))
	return append(b, value...)
}

// appendNested appends a TLV whose value is what f appends.
func appendNested(b []byte, t byte, f func([]byte) []byte) []byte {
	start := len(b)
	b = f(append(b, t, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-tlvHeader))
	return b
}

// appendNumber appends a TLV of a big-endian number of size bytes.
func appendNumber(b []byte, t byte, v uint64, size int) []byte {
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], v)
	return appendTLV(b, t, be[8-size:])
}

// tlvNode is a TLV.
type tlvNode struct {
	typ   byte
	value []byte
	off   int64 // of its type byte
}

func (n tlvNode) at() int64              { return n.off }
func (n tlvNode) isText() bool           { return false }
func (n tlvNode) isList() bool           { return false }
func (n tlvNode) isObject() bool         { return true }
func (n tlvNode) text() (string, error)  { return string(n.value), nil }
func (n tlvNode) bytes() ([]byte, error) { return n.value, nil }
func (n tlvNode) encoded() []byte        { return n.value }

func (n tlvNode) number() (v uint64, err error) {
	if len(n.value) == 0 || len(n.value) > 8 {
		return 0, unexpected(n, "a number of %d bytes, expected 1 to 8", len(n.value))
	}
	for _, b := range n.value {
		v = v<<8 | uint64(b)
	}
	return v, nil
}

// list returns the TLVs in the value.
func (n tlvNode) list() (list []node, err error) {
	off := n.off + tlvHeader
	for rest := n.value; len(rest) > 0; {
		t, value, next, ok := cutTLV(rest)
		if !ok {
			return nil, &fault{off, "", fmt.Errorf("the TLV in type %d ends after %d bytes", n.typ, len(rest))}
		}
		if len(list) == maxList {
			return nil, &fault{off, "", fmt.Errorf("more than %d TLVs in type %d", maxList, n.typ)}
		}
		list = append(list, tlvNode{t, value, off})
		off += int64(len(rest) - len(next))
		rest = next
	}
	return list, nil
}

func (n tlvNode) member(name string, key uint64) (found node, err error) {
	off := n.off + tlvHeader
	for rest := n.value; len(rest) > 0; {
		t, value, next, ok := cutTLV(rest)
		if !ok {
			return nil, &fault{off, "", fmt.Errorf("the TLV in type %d ends after %d bytes", n.typ, len(rest))}
		}
		if uint64(t) == key {
			if found != nil {
				return nil, &fault{off, name, errors.New("repeated")}
			}
			found = tlvNode{t, value, off}
		}
		off += int64(len(rest) - len(next))
		rest = next
	}
	return found, nil
}

// readTLV reads one record into r.entry.
func (r *Reader) readTLV() error {
	ends, err := r.tlvExtent()
	if err != nil {
		return err
	}
	b, err := r.in.Peek(ends[3])
	if err != nil {
		return r.truncated("content", b, err)
	}
	r.size = len(b)
	field := func(i int) tlvNode {
		start := 0
		if i > 0 {
			start = ends[i-1]
		}
		return tlvNode{b[start], b[start+tlvHeader : ends[i] : ends[i]], r.offset + int64(start)}
	}
	if err := r.setRecNum(field(0)); err != nil {
		return err
	}
	if err := r.setIndex(IndexKind(b[ends[0]]), field(1), math.MaxUint32, 0); err != nil {
		return err
	}
	digests, err := field(2).list()
	if err != nil {
		return within("digests", err)
	}
	for _, d := range digests {
		d := d.(tlvNode)
		if err := r.addDigest(rtmr.Alg(d.typ), d.value, d.off); err != nil {
			return err
		}
	}
	return r.setContent(ContentType(b[ends[2]]), field(3))
}

// tlvExtent finds where the four fields of a record end, reading no more than
// has arrived: their lengths are an attacker's.
func (r *Reader) tlvExtent() (ends [4]int, err error) {
	fields := [4]struct {
		name     string
		is       func(t byte) bool
		expected string
	}{
		{"recnum", func(t byte) bool { return t == tlvRecNum }, "0"},
		{"index", func(t byte) bool { return isIndexType(uint64(t)) }, "1 (PCR), 2 (NV index) or 108 (CC-MR)"},
		{"digests", func(t byte) bool { return t == tlvDigests }, "3"},
		{"content", func(t byte) bool { return t > tlvDigests && !isIndexType(uint64(t)) }, "that of a content"},
	}
	at := 0
	for i, f := range fields {
		b, err := r.in.Peek(at + tlvHeader)
		if err == io.EOF && at == 0 {
			return ends, io.EOF
		}
		if err != nil {
			return ends, r.truncated(f.name, b, err)
		}
		if t := b[at]; !f.is(t) {
			return ends, &fault{r.offset + int64(at), f.name, fmt.Errorf("TLV type %d, expected %s", t, f.expected)}
		}
		n := binary.BigEndian.Uint32(b[at+1:])
		if uint64(at)+tlvHeader+uint64(n) > MaxRecordSize {
			return ends, &fault{r.offset + int64(at) + 1, f.name, fmt.Errorf("%d bytes, expected a record of at most %d", n, MaxRecordSize)}
		}
		at += tlvHeader + int(n)
		ends[i] = at
	}
	return ends, nil
}
