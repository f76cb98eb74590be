// Package softtpm is what a guest with a software TPM in its kernel and a
// verifier have to agree on, beside TPM 2.0 itself: the marker in its quotes,
// and the hash by which the hardware's report stands for one of them.
// docs/evidence.md is the specification.
package softtpm

import (
	"crypto/sha512"
	"encoding/binary"
)

// Version is the version of the software TPM's quotes and of their binding.
const Version = 1

// FirmwareVersion marks a quote of the software TPM, in TPMS_ATTEST's field of
// that name: "tallyst" in ASCII, then the version in the lowest byte.
const FirmwareVersion uint64 = marker<<8 | Version

const marker = 0x74616c6c797374 // "tallyst"

// MaxNonce is the longest nonce that a quote takes, in bytes: what REPORT_DATA
// has room for, so that no verifier needs two.
const MaxNonce = 64

// context begins what the binding hashes, so that no other hash in REPORT_DATA
// can be one: whoever else asks the hardware for reports chooses other bytes.
const context = "tallystick soft TPM quote\x00\x01"

// Marked reports whether a quote's firmwareVersion is the software TPM's, and
// which version of it. That anybody can write.
func Marked(firmwareVersion uint64) (version int, ok bool) {
	return int(firmwareVersion & 0xff), firmwareVersion>>8 == marker
}

// Binding is what the hardware's report has to hold in REPORT_DATA to stand for
// a quote: the SHA-512 of
//
//	context ‖ be32(len(nonce)) ‖ nonce ‖ be32(len(name)) ‖ name ‖ be32(len(attest)) ‖ attest
//
// The nonce is extraData, without its size; name the attestation key's Name,
// its 16-bit algorithm and the hash of its TPMT_PUBLIC; attest the TPMS_ATTEST
// that is signed.
func Binding(nonce, name, attest []byte) [sha512.Size]byte {
	h := sha512.New()
	h.Write([]byte(context))
	for _, part := range [][]byte{nonce, name, attest} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return [sha512.Size]byte(h.Sum(nil))
}
