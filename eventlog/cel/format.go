package cel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"tallystick/rtmr"
)

// Format is an encoding of the canonical event log.
type Format uint8

// The encodings. JSONLines is for writing: what it writes is read as JSON.
const (
	TLV Format = iota + 1
	JSON
	CBOR
	Systemd // JSON-SEQ as systemd writes it
	JSONLines
)

// String returns "cel-tlv", "cel-json", "cel-cbor", "systemd" or "jsonl".
func (f Format) String() string {
	switch f {
	case TLV:
		return "cel-tlv"
	case JSON:
		return "cel-json"
	case CBOR:
		return "cel-cbor"
	case Systemd:
		return "systemd"
	case JSONLines:
		return "jsonl"
	}
	return "unknown"
}

// DetectSize is how many bytes from a log's beginning Detect can make use of.
const DetectSize = 64 << 10

// Detect recognises a log by its first bytes, up to DetectSize of them. It
// looks for a whole record header and claims no TCG log, IMA list or dstack
// log, nor an empty one.
func Detect(prefix []byte) (Format, bool) {
	switch {
	case looksLikeTLV(prefix):
		return TLV, true
	case looksLikeCBOR(prefix):
		return CBOR, true
	case looksLikeJSON(prefix):
		if prefix[0] == recordSeparator {
			return Systemd, true
		}
		return JSON, true
	}
	return 0, false
}

// looksLikeTLV asks for recnum, index and digests in order, with digests of
// the right sizes as far as the prefix goes. A TCG 1.2 record of PCR 0 begins
// as a TLV of type 0 does, and fails at the next field.
func looksLikeTLV(b []byte) bool {
	for _, isField := range []func(byte) bool{
		func(t byte) bool { return t == tlvRecNum },
		func(t byte) bool { return isIndexType(uint64(t)) },
	} {
		if len(b) < tlvHeader || !isField(b[0]) {
			return false
		}
		n := binary.BigEndian.Uint32(b[1:])
		if n == 0 || n > 8 || len(b) < tlvHeader+int(n) {
			return false
		}
		b = b[tlvHeader+n:]
	}
	if len(b) < tlvHeader || b[0] != tlvDigests {
		return false
	}
	n := binary.BigEndian.Uint32(b[1:])
	b = b[tlvHeader:]
	return n <= MaxRecordSize && plausibleDigests(b[:min(int(n), len(b))], int(n) <= len(b))
}

func plausibleDigests(b []byte, whole bool) bool {
	for len(b) >= tlvHeader {
		n := binary.BigEndian.Uint32(b[1:])
		if size := rtmr.Alg(b[0]).Size(); size != 0 && n != uint32(size) {
			return false
		}
		if n > uint32(len(b)-tlvHeader) {
			return !whole
		}
		b = b[tlvHeader+n:]
	}
	return len(b) == 0 || !whole
}

// looksLikeCBOR asks for a map, first of an array or alone, that begins with a
// recnum and an index or the digests: the order of deterministic encoding.
func looksLikeCBOR(b []byte) bool {
	if h, ok := parseCBORHead(b); ok && h.major == cborArray {
		b = b[h.size:]
	}
	h, ok := parseCBORHead(b)
	if !ok || h.major != cborMap || (!h.indefinite && (h.n < 4 || h.n > maxMembers)) {
		return false
	}
	b = b[h.size:]
	for _, isKey := range []func(uint64) bool{
		func(k uint64) bool { return k == keyRecNum },
		func(k uint64) bool { return k == keyDigests || isIndexType(k) },
	} {
		key, ok := parseCBORHead(b)
		if !ok || key.major != cborUint || !isKey(key.n) {
			return false
		}
		b = b[key.size:]
		value, ok := parseCBORHead(b)
		if !ok || (value.major != cborUint && value.major != cborArray) {
			return false
		}
		b = b[value.size:]
	}
	return true
}

// looksLikeJSON asks for an object, first of an array or alone, that has a
// content_type or digests beside an index. The prefix may cut it short.
func looksLikeJSON(b []byte) bool {
	const space = " \t\r\n\x1e"
	b = bytes.TrimLeft(bytes.TrimPrefix(b, byteOrderMark), space)
	if len(b) > 0 && b[0] == '[' {
		b = bytes.TrimLeft(b[1:], space)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false
	}
	var index, measured bool
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			break
		}
		switch key {
		case "pcr", "nv_index", "ccmr", "rtmr":
			index = true
		case "content_type", "digests":
			measured = true
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			break
		}
	}
	return index && measured
}
