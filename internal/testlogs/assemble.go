package testlogs

import (
	"crypto"
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"slices"
)

// Algorithm identifiers of the TCG registry.
const (
	SHA1   = 0x0004
	SHA256 = 0x000B
	SHA384 = 0x000C
	SHA512 = 0x000D
	SM3    = 0x0012
)

var hashes = map[uint16]crypto.Hash{SHA1: crypto.SHA1, SHA256: crypto.SHA256, SHA384: crypto.SHA384, SHA512: crypto.SHA512}

// Event types of TCG PFP 1.05 §10.4.1 that the assembled logs use.
const (
	NoAction     = 0x00000003
	Separator    = 0x00000004
	EventTag     = 0x00000006
	SCRTMVersion = 0x00000008
	IPL          = 0x0000000D
	EFIAction    = 0x80000007
	HCRTMEvent   = 0x80000010
)

// Event is one event of a boot log. Digests, where nil, are of Data in the
// log's banks.
type Event struct {
	Index, Type uint32
	Data        []byte
	Digests     []Digest
}

// Digest is an algorithm and a digest of any length.
type Digest struct {
	Alg uint16
	Sum []byte
}

// Hash returns h's digest of the data.
func Hash(h crypto.Hash, data []byte) []byte {
	w := h.New()
	w.Write(data)
	return w.Sum(nil)
}

// Fold returns H(..H(H(start ‖ d0) ‖ d1)..).
func Fold(h crypto.Hash, start []byte, digests ...[]byte) []byte {
	value := start
	for _, d := range digests {
		value = Hash(h, slices.Concat(value, d))
	}
	return value
}

// Zeros returns a register's usual beginning.
func Zeros(h crypto.Hash) []byte { return make([]byte, h.Size()) }

var le = binary.LittleEndian

// TCG12 assembles a log of SHA-1 records (TCG_PCR_EVENT).
func TCG12(events ...Event) (b []byte) {
	for _, e := range events {
		sum := Hash(crypto.SHA1, e.Data)
		if e.Digests != nil {
			sum = e.Digests[0].Sum
		}
		b = append(appendU32(b, e.Index, e.Type), sum...)
		b = append(appendU32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

// TCG2 assembles a crypto-agile log with its Spec ID event.
func TCG2(algs []uint16, events ...Event) []byte {
	return append(SpecID(algs, 0), Records(algs, events...)...)
}

// Records assembles crypto-agile records (TCG_PCR_EVENT2) without a header.
func Records(algs []uint16, events ...Event) (b []byte) {
	for _, e := range events {
		if e.Digests == nil {
			for _, a := range algs {
				e.Digests = append(e.Digests, Digest{a, Hash(hashes[a], e.Data)})
			}
		}
		b = appendU32(b, e.Index, e.Type, uint32(len(e.Digests)))
		for _, d := range e.Digests {
			b = append(le.AppendUint16(b, d.Alg), d.Sum...)
		}
		b = append(appendU32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

// SpecID assembles the header record: TCG_EfiSpecIDEvent as the data of an
// EV_NO_ACTION record in SHA-1 form, with some bytes of vendor information.
func SpecID(algs []uint16, vendorInfo int) []byte {
	data := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	data = appendU32(data, uint32(len(algs)))
	for _, a := range algs {
		size := 32 // of algorithms that Go has no hash for
		if h, ok := hashes[a]; ok {
			size = h.Size()
		}
		data = le.AppendUint16(le.AppendUint16(data, a), uint16(size))
	}
	data = append(append(data, byte(vendorInfo)), make([]byte, vendorInfo)...)
	return TCG12(Event{0, NoAction, data, []Digest{{SHA1, Zeros(crypto.SHA1)}}})
}

// StartupLocality is the data of the EV_NO_ACTION event of that name.
func StartupLocality(locality byte) []byte {
	return append([]byte("StartupLocality\x00"), locality)
}

func appendU32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = le.AppendUint32(b, v)
	}
	return b
}

// Entry is one entry of an IMA list. Sum, where nil, is the hash of Data in
// the list's algorithm.
type Entry struct {
	PCR      uint32
	Template string
	Data     []byte
	Sum      []byte
}

// IMA assembles a binary list (security/integrity/ima/ima_fs.c,
// ima_measurements_show). For the template "ima" the Data are
// digest ‖ le32(length) ‖ name and have no length before them.
func IMA(order binary.AppendByteOrder, h crypto.Hash, entries ...Entry) (b []byte) {
	for _, e := range entries {
		sum := e.Sum
		if sum == nil {
			sum = e.Hash(h)
		}
		b = append(order.AppendUint32(b, e.PCR), sum...)
		b = order.AppendUint32(b, uint32(len(e.Template)))
		b = append(b, e.Template...)
		if e.Template != "ima" {
			b = order.AppendUint32(b, uint32(len(e.Data)))
		}
		b = append(b, e.Data...)
	}
	return b
}

// Hash returns the entry's template hash: of the data, but for the template
// "ima", which hashes the digest and the name padded to 256 bytes.
func (e Entry) Hash(h crypto.Hash) []byte {
	if e.Template == "ima" {
		padded := make([]byte, 20+256)
		copy(padded, e.Data[:20])
		copy(padded[20:], e.Data[24:])
		return Hash(h, padded)
	}
	return Hash(h, e.Data)
}

// Fields assembles template data: {u32 length, field}*.
func Fields(order binary.AppendByteOrder, fields ...[]byte) (b []byte) {
	for _, f := range fields {
		b = append(order.AppendUint32(b, uint32(len(f))), f...)
	}
	return b
}

// NG assembles the fields d-ng and n-ng of a file with the content given.
func NG(name, content string) [][]byte {
	d := append([]byte("sha256:\x00"), Hash(crypto.SHA256, []byte(content))...)
	return [][]byte{d, []byte(name + "\x00")}
}
