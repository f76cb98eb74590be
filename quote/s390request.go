package quote

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

const (
	s390RequestHead   = 0xE0 // up to the key slots
	s390SlotSize      = 80
	s390TagSize       = 16 // of AES-256-GCM
	s390KeySize       = 32 // of AES-256
	s390NonceSize     = 16
	s390MACSize       = 64   // HMAC-SHA512's measurement, and its key
	s390HMACSHA512    = 1    // the one measurement algorithm
	s390CoordSize     = 80   // of a P-521 coordinate: 14 zeros and 66 bytes
	s390FlagNonce     = 1    // the bits of PAF, counted from the highest, as IBM counts them
	s390FlagImageKey  = 2    // the host key by which the image was unpacked
	s390FlagHostKey   = 3    // the host key by which the request was opened
	s390FlagSecrets   = 4    // the state of the guest's secret store
	s390FlagFirmware  = 5    // the state of the firmware
	s390FlagBackup    = 62   // a temporary backup host key may be used
	s390FlagGlobalKey = 63   // a key that is of no one host may be used
	s390HeaderPage    = 4096 // an image's header begins on a page
)

// S390Request is an attestation request control block (ARCB) as its bytes say: what
// its owner encrypts for the machines whose guests are to answer. Nothing in it has
// been checked. The slices point into the data that was parsed.
//
// Integers are big-endian: 8 zeros, be32 version 0x0100, be32 size of all, 12 bytes
// IV, 11 reserved, u8 number of key slots (NKS), 4 reserved, be32 size of the
// encrypted area (SEA), be64 flags (PAF), be32 measurement algorithm (MAI), 4
// reserved, the customer's public key, the slots, the encrypted area (the measurement
// key of 64 bytes, and a nonce of 16 if PAF says so), and a tag of 16 bytes: AES-256-GCM
// by the request protection key (ARPK), over all before it (s390-tools,
// pvattest/src/arcb.c).
type S390Request struct {
	Version     uint32   // 0x0100
	Flags       uint64   // PAF, bit 0 the highest
	Algorithm   uint32   // MAI; 1: HMAC-SHA512
	CustomerKey rtmr.Hex // 160 bytes: a point on P-521, x and y in 80 bytes each
	Slots       []S390Slot

	iv, authenticated, sealed []byte
}

// S390Slot has the request protection key for one host: encrypted by the customer's
// private key and the host's public key, or the host's private and the customer's
// public one.
type S390Slot struct {
	HostKeyHash rtmr.Hex // PHKH, 32 bytes: SHA-256 of the host's public key, x and y in 80 bytes each
	Wrapped     []byte   // the key, 32 bytes, and a tag of 16
}

// isS390Request tells a request by what its layout fixes: its magic is zeros.
func isS390Request(data []byte) bool {
	return len(data) >= s390RequestHead && allZero(data[:8]) &&
		binary.BigEndian.Uint32(data[8:]) == s390Version1 && uint64(binary.BigEndian.Uint32(data[12:])) == uint64(len(data))
}

// ParseS390Request reads a request. The error names the offset and the field, and
// wraps ErrUnsupported where the version, or the algorithm, is not read here.
func ParseS390Request(data []byte) (*S390Request, error) {
	f := bigEndian(data)
	if magic := f.bytes("magic", 8); !allZero(magic) {
		f.fail(0, "magic", "%x, expected zeros", magic)
	}
	r := &S390Request{Version: f.u32("version")}
	if f.err == nil && r.Version != s390Version1 {
		return nil, fmt.Errorf("%w: offset 8: version %#x, expected %#x", ErrUnsupported, r.Version, s390Version1)
	}
	if size := f.u32("size"); f.err == nil && uint64(size) != uint64(len(data)) {
		f.fail(12, "size", "%d, and there are %d bytes", size, len(data))
	}
	r.iv = f.bytes("IV", 12)
	f.bytes("reserved", 11)
	slots := f.u8("NKS")
	f.bytes("reserved", 4)
	encrypted := f.u32("SEA")
	r.Flags = f.u64("PAF")
	r.Algorithm = f.u32("MAI")
	f.bytes("reserved", 4)
	r.CustomerKey = f.bytes("customer public key", 2*s390CoordSize)
	for i := range int(slots) {
		slot := S390Slot{HostKeyHash: f.bytes(fmt.Sprintf("PHKH of key slot %d", i), 32)}
		slot.Wrapped = f.bytes(fmt.Sprintf("key slot %d", i), s390KeySize+s390TagSize)
		if f.err != nil {
			return nil, f.err
		}
		r.Slots = append(r.Slots, slot)
	}
	r.authenticated = data[:f.off:f.off]
	r.sealed = f.bytes("the encrypted area", int64(encrypted)+s390TagSize)
	if err := f.end("the request's tag"); err != nil {
		return nil, err
	}
	if err := r.check(encrypted); err != nil {
		return nil, err
	}
	return r, nil
}

// check holds the sizes against the flags.
func (r *S390Request) check(encrypted uint32) error {
	want := uint32(s390MACSize)
	if r.has(s390FlagNonce) {
		want += s390NonceSize
	}
	switch {
	case r.Algorithm != s390HMACSHA512:
		return fmt.Errorf("%w: offset 56: MAI: measurement algorithm %d, expected %d (HMAC-SHA512)", ErrUnsupported, r.Algorithm, s390HMACSHA512)
	case len(r.Slots) == 0:
		return errors.New("offset 39: NKS: no key slot, expected one at least")
	case encrypted != want:
		return fmt.Errorf("offset 44: SEA: %d bytes, expected %d of a request with PAF %#016x", encrypted, want, r.Flags)
	}
	return nil
}

// has reports whether a flag is set, by its bit as IBM counts: 0 is the highest.
func (r *S390Request) has(bit int) bool { return msb0(r.Flags, bit) }

func msb0(flags uint64, bit int) bool { return flags>>(63-bit)&1 == 1 }

// s390Secrets is what a request has for the Ultravisor and its owner alone.
type s390Secrets struct {
	key, nonce []byte // 64 bytes, and 16 or none
}

// open decrypts and authenticates the request, by its protection key of 32 bytes.
func (r *S390Request) open(protectionKey []byte) (*s390Secrets, error) {
	plain, err := openGCM(protectionKey, r.iv, r.sealed, r.authenticated)
	if err != nil {
		return nil, errors.New("the ARCB does not open with the request protection key: it is another request's, or was altered")
	}
	return &s390Secrets{plain[:s390MACSize], plain[s390MACSize:]}, nil
}

// protectionKey takes the protection key out of the slot for a host, by the
// customer's private key.
func (r *S390Request) protectionKey(owner *ecdh.PrivateKey, hosts []s390HostKey) ([]byte, error) {
	if got := s390Coordinates(owner.PublicKey()); !bytes.Equal(got, r.CustomerKey) {
		return nil, fmt.Errorf("the owner's key begins %x, and the ARCB's customer public key %x", got[14:30], []byte(r.CustomerKey[14:30]))
	}
	for _, host := range hosts {
		i := r.slotOf(host.hash)
		if i < 0 {
			continue
		}
		shared, err := owner.ECDH(host.key)
		if err != nil {
			return nil, fmt.Errorf("host key %s: %s", host.hash, rtmr.Escape(err.Error()))
		}
		// ANSI X9.63's derivation of one block of SHA-256 (libpv/crypto.c).
		wrapping := sha256.Sum256(append(shared, 0, 0, 0, 1))
		key, err := openGCM(wrapping[:], make([]byte, 12), r.Slots[i].Wrapped, nil)
		if err != nil {
			return nil, fmt.Errorf("key slot %d does not open with the owner's key and the host key %s: it was altered", i, host.hash)
		}
		return key, nil
	}
	return nil, errors.New("no key slot of the ARCB is for a given host key document, by which the owner's key could open it")
}

// slotOf returns the index of the slot for a host key, or -1.
func (r *S390Request) slotOf(hash []byte) int {
	return slices.IndexFunc(r.Slots, func(s S390Slot) bool { return bytes.Equal(s.HostKeyHash, hash) })
}

func openGCM(key, iv, sealed, authenticated []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return gcm.Open(nil, iv, sealed, authenticated)
}

// s390Coordinates writes a public key on P-521 as the Ultravisor takes it: x and y,
// in 80 bytes each.
func s390Coordinates(key *ecdh.PublicKey) []byte {
	point := key.Bytes()[1:] // without the byte that says uncompressed
	out := make([]byte, 2*s390CoordSize)
	half := len(point) / 2
	copy(out[s390CoordSize-half:], point[:half])
	copy(out[2*s390CoordSize-half:], point[half:])
	return out
}
