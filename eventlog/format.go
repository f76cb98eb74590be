package eventlog

import (
	"bytes"
	"encoding/binary"

	"tallystick/rtmr"
)

// Format is one of the binary encodings that Reader reads.
type Format uint8

// The formats. FormatUnknown in Options asks for recognition by content.
const (
	FormatUnknown Format = iota
	TCG12                // TCG_PCR_EVENT records, SHA-1 only
	TCG2                 // crypto-agile TCG_PCR_EVENT2 records
	CCEL                 // crypto-agile CC_EVENT records; the index is a CCMRIndex
)

// String returns "tcg12", "tcg2" or "ccel".
func (f Format) String() string {
	return [...]string{"unknown", "tcg12", "tcg2", "ccel"}[f]
}

// DetectSize is how many bytes from a log's beginning Detect can make use of.
const DetectSize = 64 << 10

// Detect recognises a log by its first bytes, up to DetectSize of them.
//
// A first record EV_NO_ACTION whose data begin with "Spec ID Event03" makes
// the log crypto-agile (TCG PFP 1.06 §10.4.5.1), however the header goes on:
// what is wrong with it is for the Reader to say. Of those, a CC log is one
// with a single bank in which nothing extends index 0, which every TPM log
// does with its S-CRTM version and no guest can do in a TD. The header that
// CoCo's agent makes for itself begins a CC log too. A log without a header
// is tried as crypto-agile records, then as SHA-1 records.
func Detect(prefix []byte) (Format, bool) {
	if bytes.HasPrefix(prefix, []byte(acpiSignature)) && len(prefix) >= acpiTableSize {
		return CCEL, true
	}
	if data, n, ok := peekHeader(prefix); ok {
		spec, err := ParseSpecID(data)
		if err == nil && (spec.unsigned || len(spec.Banks) == 1 && looksLikeCC(prefix[min(n, len(prefix)):], spec)) {
			return CCEL, true
		}
		return TCG2, true
	}
	if plausible(prefix, tcg2Record) {
		if isAgentLog(prefix) {
			return CCEL, true
		}
		return TCG2, true
	}
	if plausible(prefix, tcg12Record) {
		return TCG12, true
	}
	return FormatUnknown, false
}

// peekHeader returns the event data of a first record that is a Spec ID event,
// or the agent's stand-in for one, and the record's length.
func peekHeader(prefix []byte) (data []byte, n int, ok bool) {
	n, at, ok := tcg12Record(prefix)
	if !ok || EventType(binary.LittleEndian.Uint32(prefix[4:])) != EVNoAction {
		return nil, 0, false
	}
	data = prefix[at:min(n, len(prefix))]
	return data, n, bytes.HasPrefix(data, []byte(specIDSignature)) || isAgentHeader(data)
}

// looksLikeHeader reports whether a log begins with an EV_NO_ACTION record in
// the SHA-1 form: a Spec ID event, be it cut short or damaged. Its digest is of
// zeros, where a crypto-agile record would have its digests' count.
func looksLikeHeader(prefix []byte) bool {
	return len(prefix) >= 12 && EventType(binary.LittleEndian.Uint32(prefix[4:])) == EVNoAction &&
		binary.LittleEndian.Uint32(prefix[8:]) == 0
}

// looksLikeCC tells a CC log by the records behind its header, up to padding.
func looksLikeCC(records []byte, spec SpecID) bool {
	seen := false
	for len(records) >= 8 {
		index := binary.LittleEndian.Uint32(records)
		typ := EventType(binary.LittleEndian.Uint32(records[4:]))
		switch {
		case index == endOfLog && typ == EventType(endOfLog):
			return true
		case index == 0 && typ == EVPrebootCert: // td-shim pads with zeros
			return seen
		}
		if typ != EVNoAction {
			if index == 0 || index > rtmr.NumRTMRs {
				return false
			}
			seen = true
		}
		n, _, ok := sizedRecord(records, spec)
		if !ok || n > len(records) {
			break
		}
		records = records[n:]
	}
	return seen
}

// plausible tells whether the prefix begins with one or two records that the
// walker understands, with indices and types of a PC Client log.
func plausible(prefix []byte, walk func([]byte) (n, data int, ok bool)) bool {
	for i := range 2 {
		if len(prefix) < 8 {
			return i > 0 && len(prefix) == 0
		}
		index := binary.LittleEndian.Uint32(prefix)
		typ := EventType(binary.LittleEndian.Uint32(prefix[4:]))
		// EV_PREBOOT_CERT is 0 and long deprecated: zeros are no log.
		if _, known := typeNames[typ]; !known || typ == EVPrebootCert || (index >= rtmr.NumPCRs && typ != EVNoAction) {
			return false
		}
		n, _, ok := walk(prefix)
		if !ok {
			return false
		}
		if n >= len(prefix) { // the first records fill the prefix
			return i > 0 || n < DetectSize
		}
		prefix = prefix[n:]
	}
	return true
}

// tcg12Record returns the length of the TCG_PCR_EVENT record at the beginning
// of b and where its data begin: u32 index, u32 type, 20-byte digest, u32 size.
func tcg12Record(b []byte) (n, data int, ok bool) {
	if len(b) < sha1Header {
		return 0, 0, false
	}
	size := binary.LittleEndian.Uint32(b[sha1Header-4:])
	return sha1Header + int(size), sha1Header, size <= maxEventSize
}

// sha1Header is the length of a TCG_PCR_EVENT without its data.
const sha1Header = 4 + 4 + 20 + 4

// tcg2Record is tcg12Record for a headerless crypto-agile record, whose
// digests must all be of named algorithms.
func tcg2Record(b []byte) (n, data int, ok bool) { return sizedRecord(b, SpecID{}) }

func sizedRecord(b []byte, spec SpecID) (n, data int, ok bool) {
	if len(b) < 12 {
		return 0, 0, false
	}
	count := binary.LittleEndian.Uint32(b[8:])
	if count > maxBanks {
		return 0, 0, false
	}
	at := 12
	for range count {
		if len(b) < at+2 {
			return 0, 0, false
		}
		size := spec.digestSize(rtmr.Alg(binary.LittleEndian.Uint16(b[at:])))
		if size == 0 {
			return 0, 0, false
		}
		at += 2 + size
	}
	if len(b) < at+4 {
		return 0, 0, false
	}
	size := binary.LittleEndian.Uint32(b[at:])
	return at + 4 + int(size), at + 4, size <= maxEventSize && count > 0
}
