package cel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
)

// cborDecoding is strict where two readers of one log could differ: no
// repeated keys, no text that is not UTF-8, no tags.
var cborDecoding = must(cbor.DecOptions{
	DupMapKey:       cbor.DupMapKeyEnforcedAPF,
	IndefLength:     cbor.IndefLengthAllowed,
	TagsMd:          cbor.TagsForbidden,
	MaxNestedLevels: 16,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Major types of CBOR (RFC 8949 §3.1).
const (
	cborUint  = 0
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5

	cborBreak = 0xFF
)

// cborHead is the beginning of a CBOR item.
type cborHead struct {
	major      byte
	n          uint64 // the value, or the length
	size       int    // of the head
	indefinite bool
}

func parseCBORHead(b []byte) (h cborHead, ok bool) {
	if len(b) == 0 {
		return h, false
	}
	h.major, h.size = b[0]>>5, 1
	switch info := b[0] & 0x1F; {
	case info < 24:
		h.n = uint64(info)
	case info == 31:
		h.indefinite = true
	case info > 27:
		return h, false
	default:
		h.size += 1 << (info - 24)
		if len(b) < h.size {
			return h, false
		}
		var be [8]byte
		copy(be[8-(h.size-1):], b[1:h.size])
		h.n = binary.BigEndian.Uint64(be[:])
	}
	return h, true
}

// cborReader reads maps out of an array or a sequence (RFC 8742).
type cborReader struct {
	started  bool
	array    bool
	left     uint64 // elements, of a definite array
	infinite bool
	raw      cbor.RawMessage
}

const cborHeadSize = 1 + 8

// startCBOR reads the head of the array, if there is one.
func (r *Reader) startCBOR() error {
	r.cbor.started = true
	b, err := r.in.Peek(cborHeadSize)
	if len(b) == 0 {
		return err
	}
	h, ok := parseCBORHead(b)
	if !ok || (h.major != cborArray && h.major != cborMap) {
		return &fault{0, "log", fmt.Errorf("byte %#02x, expected a CBOR array or map", b[0])}
	}
	if h.major == cborArray {
		r.cbor.array, r.cbor.left, r.cbor.infinite = true, h.n, h.indefinite
		r.in.Skip(h.size)
	}
	return nil
}

// readCBOR reads one record into r.entry.
func (r *Reader) readCBOR() error {
	if !r.cbor.started {
		if err := r.startCBOR(); err != nil {
			return err
		}
		r.offset = r.in.Offset()
	}
	b, err := r.in.Peek(1)
	ended := r.cbor.array && !r.cbor.infinite && r.cbor.left == 0
	switch {
	case err == io.EOF && (ended || !r.cbor.array):
		return io.EOF
	case err != nil:
		return r.truncated("array", b, err)
	case ended:
		return &fault{r.offset, "log", fmt.Errorf("byte %#02x after the array's end", b[0])}
	case r.cbor.infinite && b[0] == cborBreak:
		r.in.Skip(1)
		r.cbor.left, r.cbor.infinite = 0, false
		r.offset = r.in.Offset()
		return r.readCBOR()
	}
	r.cbor.left--
	if err := r.cborItem(); err != nil {
		return err
	}
	return r.readRecord(&cborNode{raw: r.cbor.raw, off: r.offset})
}

// cborItem reads one item into r.cbor.raw, looking at twice as much at a time
// until it is whole.
func (r *Reader) cborItem() error {
	for n := 512; ; n *= 2 {
		b, readErr := r.in.Peek(n)
		rest, err := cborDecoding.UnmarshalFirst(b, &r.cbor.raw)
		switch {
		case err == nil:
			r.size = len(b) - len(rest)
			return nil
		case err != io.ErrUnexpectedEOF && err != io.EOF:
			return &fault{r.offset, "record", err}
		case readErr != nil:
			return r.truncated("record", b, readErr)
		case n >= MaxRecordSize:
			return &fault{r.offset, "record", errRecordSize}
		}
	}
}

// cborNode is a CBOR item. Its offset is that of the record it is in.
type cborNode struct {
	raw     cbor.RawMessage
	off     int64
	members map[uint64]cbor.RawMessage
}

func (n *cborNode) major() byte     { return n.raw[0] >> 5 }
func (n *cborNode) at() int64       { return n.off }
func (n *cborNode) isText() bool    { return n.major() == cborText }
func (n *cborNode) isList() bool    { return n.major() == cborArray }
func (n *cborNode) isObject() bool  { return n.major() == cborMap }
func (n *cborNode) encoded() []byte { return n.raw }

// decode unmarshals an item of the given major type.
func (n *cborNode) decode(major byte, v any, expected string) error {
	if n.major() != major {
		return unexpected(n, "CBOR major type %d, expected %s", n.major(), expected)
	}
	if err := cborDecoding.Unmarshal(n.raw, v); err != nil {
		return unexpected(n, "%w", err)
	}
	return nil
}

func (n *cborNode) number() (v uint64, err error) {
	err = n.decode(cborUint, &v, "0 (unsigned integer)")
	return v, err
}

func (n *cborNode) text() (s string, err error) {
	err = n.decode(cborText, &s, "3 (text string)")
	return s, err
}

func (n *cborNode) bytes() (b []byte, err error) {
	err = n.decode(cborBytes, &b, "2 (byte string)")
	return b, err
}

func (n *cborNode) list() (list []node, err error) {
	var items []cbor.RawMessage
	if err := n.decode(cborArray, &items, "4 (array)"); err != nil {
		return nil, err
	}
	if len(items) > maxList {
		return nil, unexpected(n, "an array of %d values, expected at most %d", len(items), maxList)
	}
	for _, item := range items {
		list = append(list, &cborNode{raw: item, off: n.off})
	}
	return list, nil
}

func (n *cborNode) member(_ string, key uint64) (node, error) {
	if n.members == nil {
		if err := n.decode(cborMap, &n.members, "5 (map)"); err != nil {
			return nil, err
		}
	}
	if len(n.members) > maxMembers {
		return nil, &fault{n.off, "", errors.New("too many members in a map")}
	}
	if raw, ok := n.members[key]; ok && key != noKey {
		return &cborNode{raw: raw, off: n.off}, nil
	}
	return nil, nil
}
