package rtmr

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Alg is a hash algorithm by its TPM_ALG_ID (TCG Algorithm Registry).
// Any 16-bit value is a valid Alg: a log may carry digests in algorithms that
// nobody here can compute, and they are carried along.
type Alg uint16

// The algorithms with a name. All but SM3 can be computed.
const (
	SHA1    Alg = 0x0004
	SHA256  Alg = 0x000B
	SHA384  Alg = 0x000C
	SHA512  Alg = 0x000D
	SM3     Alg = 0x0012
	SHA3256 Alg = 0x0027
	SHA3384 Alg = 0x0028
	SHA3512 Alg = 0x0029
)

// MaxDigestSize is the size in bytes of the largest digest of a named algorithm.
const MaxDigestSize = sha512.Size

var algs = []struct {
	alg  Alg
	name string
	size int
}{
	{SHA1, "sha1", sha1.Size},
	{SHA256, "sha256", sha256.Size},
	{SHA384, "sha384", sha512.Size384},
	{SHA512, "sha512", sha512.Size},
	{SM3, "sm3_256", 32},
	{SHA3256, "sha3_256", 32},
	{SHA3384, "sha3_384", 48},
	{SHA3512, "sha3_512", 64},
}

// Size returns the digest's size in bytes, or 0 for an algorithm without a name.
func (a Alg) Size() int {
	switch a {
	case SHA1:
		return sha1.Size
	case SHA256, SM3, SHA3256:
		return sha256.Size
	case SHA384, SHA3384:
		return sha512.Size384
	case SHA512, SHA3512:
		return sha512.Size
	}
	return 0
}

// Available reports whether digests in this algorithm can be computed here.
func (a Alg) Available() bool { return a.Size() != 0 && a != SM3 }

// String returns the name as the kernel's and tpm2-tools' command lines spell
// it ("sha256"), or "alg_0x0014" for an algorithm without one.
func (a Alg) String() string {
	for _, k := range algs {
		if k.alg == a {
			return k.name
		}
	}
	return fmt.Sprintf("alg_0x%04x", uint16(a))
}

var dashes = strings.NewReplacer("-", "", "_", "")

// ParseAlg reads a name as String writes it. Dashes, underscores and case do
// not matter: "SHA-256" is sha256, "sm3-256" is sm3_256.
func ParseAlg(s string) (Alg, error) {
	canon := func(s string) string { return dashes.Replace(strings.ToLower(s)) }
	for _, k := range algs {
		if canon(k.name) == canon(s) {
			return k.alg, nil
		}
	}
	if canon(s) == "sm3" {
		return SM3, nil
	}
	if hex, ok := strings.CutPrefix(strings.ToLower(s), "alg_0x"); ok {
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil {
			return Alg(n), nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %q, expected one of sha1, sha256, sha384, sha512, sm3_256, sha3_256, sha3_384, sha3_512", s)
}

// MarshalText and UnmarshalText make an Alg a JSON object key: {"sha256": ..}.
func (a Alg) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (a *Alg) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAlg(string(text))
	return err
}

// New returns a hash.Hash of the algorithm. One that is kept and reset makes a
// million short hashes faster than AppendHash does. It panics if the algorithm
// is not Available.
func (a Alg) New() hash.Hash {
	switch a {
	case SHA1:
		return sha1.New()
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	case SHA3256:
		return sha3.New256()
	case SHA3384:
		return sha3.New384()
	case SHA3512:
		return sha3.New512()
	}
	panic("rtmr: " + a.String() + " cannot be computed")
}

// AppendHash appends H(data) to dst. It does not allocate when dst has room.
// It panics if the algorithm is not Available.
func (a Alg) AppendHash(dst, data []byte) []byte {
	switch a {
	case SHA1:
		h := sha1.Sum(data)
		return append(dst, h[:]...)
	case SHA256:
		h := sha256.Sum256(data)
		return append(dst, h[:]...)
	case SHA384:
		h := sha512.Sum384(data)
		return append(dst, h[:]...)
	case SHA512:
		h := sha512.Sum512(data)
		return append(dst, h[:]...)
	case SHA3256:
		h := sha3.Sum256(data)
		return append(dst, h[:]...)
	case SHA3384:
		h := sha3.Sum384(data)
		return append(dst, h[:]...)
	case SHA3512:
		h := sha3.Sum512(data)
		return append(dst, h[:]...)
	}
	panic("rtmr: " + a.String() + " cannot be computed")
}

// Extend folds a digest into a register's value, in place:
//
//	value = H(value ‖ digest)
//
// which is TPM2_PCR_Extend, TDG.MR.RTMR.EXTEND and RSI_MEASUREMENT_EXTEND alike. The value has the algorithm's size; the digest
// usually has too, and is at most MaxDigestSize bytes. It does not allocate,
// and panics if the algorithm is not Available.
func (a Alg) Extend(value, digest []byte) {
	var buf [2 * MaxDigestSize]byte
	n := copy(buf[:MaxDigestSize], value)
	n += copy(buf[n:], digest)
	switch a {
	case SHA256:
		h := sha256.Sum256(buf[:n])
		copy(value, h[:])
	case SHA1:
		h := sha1.Sum(buf[:n])
		copy(value, h[:])
	case SHA384:
		h := sha512.Sum384(buf[:n])
		copy(value, h[:])
	case SHA512:
		h := sha512.Sum512(buf[:n])
		copy(value, h[:])
	default:
		a.AppendHash(value[:0], buf[:n])
	}
}

// Digest is one digest and the algorithm that made it. Sum has Alg.Size()
// bytes where the algorithm has a name, and as many as the log says otherwise.
type Digest struct {
	Alg Alg
	Sum []byte
}

// String returns "sha256:0123..".
func (d Digest) String() string { return fmt.Sprintf("%s:%x", d.Alg, d.Sum) }

// Equal reports whether both have the same algorithm and bytes.
func (d Digest) Equal(e Digest) bool { return d.Alg == e.Alg && bytes.Equal(d.Sum, e.Sum) }
