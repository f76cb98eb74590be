// Package s390test makes IBM Z Secure Execution attestations for tests: the request,
// as its owner does, and the response, as the Ultravisor does. No response of a real
// machine is published. What is made here was held against s390-tools' own pvattest,
// in both directions, and the tests of package quote say how.
package s390test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"slices"
)

// Bits of a request's flags (PAF).
const (
	Nonce    uint64 = 1 << (63 - 1)
	ImageKey uint64 = 1 << (63 - 2) // 32 bytes of additional data
	HostKey  uint64 = 1 << (63 - 3) // 32
	Secrets  uint64 = 1 << (63 - 4) // 64
	Firmware uint64 = 1 << (63 - 5) // 320
)

// Key makes the same P-521 key of the same label in every run.
func Key(label string) *ecdh.PrivateKey {
	scalar := sha512.Sum512([]byte(label))
	key, err := ecdh.P521().NewPrivateKey(append([]byte{0, 0}, scalar[:]...))
	if err != nil {
		panic(err)
	}
	return key
}

// PEM writes a private key as openssl does.
func PEM(key *ecdh.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Coordinates writes a public key in 160 bytes.
func Coordinates(key *ecdh.PublicKey) []byte {
	pad, point := make([]byte, 14), key.Bytes()
	return slices.Concat(pad, point[1:67], pad, point[67:133])
}

// PHKH is a host key's hash.
func PHKH(key *ecdh.PublicKey) []byte {
	sum := sha256.Sum256(Coordinates(key))
	return sum[:]
}

// Header makes the header of an image for hosts, whose digests are of a label.
func Header(label string, hosts ...*ecdh.PublicKey) []byte {
	digest := func(of string) []byte {
		sum := sha512.Sum512([]byte(label + of))
		return sum[:]
	}
	const encrypted = 128
	b := []byte("IBMSecEx\x00\x00\x01\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(0x1A0+80*len(hosts)+encrypted+16))
	b = append(b, digest("iv")[:12]...)
	b = append(b, 0, 0, 0, 0)
	for _, n := range []uint64{uint64(len(hosts)), encrypted, 0x1234, 0xe0} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	b = slices.Concat(b, Coordinates(Key(label).PublicKey()), digest("pld"), digest("ald"), digest("tld"))
	for _, host := range hosts {
		b = slices.Concat(b, PHKH(host), digest("wrapped")[:48])
	}
	return slices.Concat(b, digest("psw and keys"), digest("more of them"), digest("tag")[:16])
}

// Request is an attestation request, and its owner's secrets.
type Request struct {
	Owner          *ecdh.PrivateKey // the customer's key of the request
	ProtectionKey  []byte           // ARPK, 32 bytes
	MeasurementKey []byte           // 64 bytes
	Nonce          []byte           // 16 bytes, in the request if its flags say so
	IV             []byte           // 12 bytes
	Flags          uint64           // PAF
	Hosts          []*ecdh.PublicKey
}

// NewRequest makes the same request of the same label in every run.
func NewRequest(label string, flags uint64, hosts ...*ecdh.PublicKey) *Request {
	secret := func(of string) []byte {
		sum := sha512.Sum512([]byte(label + of))
		return sum[:]
	}
	return &Request{
		Owner: Key(label + "owner"), ProtectionKey: secret("arpk")[:32], MeasurementKey: secret("measurement key"),
		Nonce: secret("nonce")[:16], IV: secret("iv")[:12], Flags: flags, Hosts: hosts,
	}
}

// ARCB encrypts the request for its hosts.
func (r *Request) ARCB() []byte {
	secret := r.MeasurementKey
	if r.Flags&Nonce != 0 {
		secret = slices.Concat(secret, r.Nonce)
	}
	b := append(make([]byte, 8), 0, 0, 1, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(0xE0+80*len(r.Hosts)+len(secret)+16))
	b = append(append(b, r.IV...), make([]byte, 11)...)
	b = append(b, byte(len(r.Hosts)), 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(secret)))
	b = binary.BigEndian.AppendUint64(b, r.Flags)
	b = append(b, 0, 0, 0, 1, 0, 0, 0, 0)
	b = append(b, Coordinates(r.Owner.PublicKey())...)
	for _, host := range r.Hosts {
		b = append(b, PHKH(host)...)
		b = gcm(exchanged(r.Owner, host)).Seal(b, make([]byte, 12), r.ProtectionKey, nil)
	}
	return gcm(r.ProtectionKey).Seal(b, r.IV, secret, b)
}

// Response is what the Ultravisor answers, and what the guest asked for.
type Response struct {
	Measurement, Additional, UserData, CUID []byte
}

// Answer does the Ultravisor's part: it opens a request by its machine's own key, and
// measures a guest of that header. It panics if the request is not for the machine.
func Answer(host *ecdh.PrivateKey, arcb, header, userData []byte) Response {
	paf := binary.BigEndian.Uint64(arcb[0x30:])
	slots, secretSize := int(arcb[0x27]), int(binary.BigEndian.Uint32(arcb[0x2C:]))
	owner, err := ecdh.P521().NewPublicKey(slices.Concat([]byte{4}, arcb[0x4E:0x90], arcb[0x9E:0xE0]))
	if err != nil {
		panic(err)
	}
	var arpk []byte
	for slot := range slices.Chunk(arcb[0xE0:0xE0+80*slots], 80) {
		if string(slot[:32]) == string(PHKH(host.PublicKey())) {
			arpk = unseal(exchanged(host, owner), make([]byte, 12), slot[32:], nil)
		}
	}
	at := 0xE0 + 80*slots
	secret := unseal(arpk, arcb[0x10:0x1C], arcb[at:at+secretSize+16], arcb[:at])
	r := Response{UserData: userData, CUID: []byte("a guest's own id")}
	image := header[0x1A0 : 0x1A0+32]
	for _, part := range []struct {
		flag  uint64
		value []byte
	}{{ImageKey, image}, {HostKey, PHKH(host.PublicKey())}, {Secrets, slices.Repeat([]byte{0x5e}, 64)}, {Firmware, slices.Repeat([]byte{0xf3}, 320)}} {
		if paf&part.flag != 0 {
			r.Additional = append(r.Additional, part.value...)
		}
	}
	r.Measurement = Measure(secret[:64], header, r.CUID, userData, secret[64:], r.Additional)
	return r
}

// Measure computes a measurement.
func Measure(key, header, cuid, userData, nonce, additional []byte) []byte {
	data := slices.Concat(header[0xE0:0x1A0], header[len(header)-16:], cuid)
	data = binary.BigEndian.AppendUint32(data, uint32(len(userData))<<16)
	data = binary.BigEndian.AppendUint32(data, uint32(len(additional)))
	mac := hmac.New(sha512.New, key)
	mac.Write(slices.Concat(data, userData, nonce, additional))
	return mac.Sum(nil)
}

// Exchange writes a request and its response as pvattest does; of a Response
// without a measurement, the request alone.
func Exchange(arcb []byte, r Response) []byte {
	b := append([]byte("pvattest\x00\x00\x01\x00"), make([]byte, 12)...)
	body, at := []byte{}, uint32(0x40)
	for i, part := range [][]byte{arcb, r.Measurement, r.Additional, r.UserData, r.CUID} {
		size, offset := uint32(len(part)), at
		switch {
		case i == 1 && size == 0:
			size, offset = 64, 0 // to come
		case size == 0:
			offset = 0
		}
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, size), offset)
		body = append(body, part...)
		at += uint32(len(part))
	}
	b = append(b, body...)
	binary.BigEndian.PutUint32(b[12:], uint32(len(b)))
	return b
}

// exchanged is the key that an owner and a host have in common.
func exchanged(mine *ecdh.PrivateKey, theirs *ecdh.PublicKey) []byte {
	secret, err := mine.ECDH(theirs)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(append(secret, 0, 0, 0, 1))
	return sum[:]
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func unseal(key, iv, sealed, aad []byte) []byte {
	plain, err := gcm(key).Open(nil, iv, sealed, aad)
	if err != nil {
		panic(err)
	}
	return plain
}

// ECDSA is a key for certificates.
func ECDSA(key *ecdh.PrivateKey) *ecdsa.PrivateKey {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		panic(err)
	}
	return parsed.(*ecdsa.PrivateKey)
}
