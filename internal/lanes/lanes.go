// Package lanes folds the same digests into several values at once.
//
// A search for a fault in a log folds millions of values that differ over the
// same tail of digests. A hash of one value has to wait for the one before it;
// those of different values do not wait for each other, so that a processor
// with wide registers folds eight or sixteen of them side by side: see
// [Group]. [Fold] folds one.
package lanes

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"

	"tallystick/rtmr"
)

// Fold folds digests, alg.Size() bytes each, into a value, in place, and
// reports whether a value on the way began with the word: eight bytes, read as
// little-endian. It does not allocate, and panics if alg is not Available.
func Fold(alg rtmr.Alg, value *[rtmr.MaxDigestSize]byte, digests []byte, word uint64) (hit bool) {
	switch alg {
	case rtmr.SHA1:
		return foldSHA1(value, digests, word)
	case rtmr.SHA256:
		return foldSHA256(value, digests, word)
	case rtmr.SHA384:
		return foldSHA384(value, digests, word)
	}
	for size := alg.Size(); len(digests) > 0; digests = digests[size:] {
		alg.Extend(value[:size], digests[:size])
		hit = hit || binary.LittleEndian.Uint64(value[:]) == word
	}
	return hit
}

func foldSHA1(value *[rtmr.MaxDigestSize]byte, digests []byte, word uint64) (hit bool) {
	var buf [2 * sha1.Size]byte
	copy(buf[:sha1.Size], value[:])
	for len(digests) >= sha1.Size {
		*(*[sha1.Size]byte)(buf[sha1.Size:]) = [sha1.Size]byte(digests)
		*(*[sha1.Size]byte)(buf[:]) = sha1.Sum(buf[:])
		hit = hit || binary.LittleEndian.Uint64(buf[:]) == word
		digests = digests[sha1.Size:]
	}
	copy(value[:], buf[:sha1.Size])
	return hit
}

func foldSHA256(value *[rtmr.MaxDigestSize]byte, digests []byte, word uint64) (hit bool) {
	var buf [2 * sha256.Size]byte
	copy(buf[:sha256.Size], value[:])
	for len(digests) >= sha256.Size {
		*(*[sha256.Size]byte)(buf[sha256.Size:]) = [sha256.Size]byte(digests)
		*(*[sha256.Size]byte)(buf[:]) = sha256.Sum256(buf[:])
		hit = hit || binary.LittleEndian.Uint64(buf[:]) == word
		digests = digests[sha256.Size:]
	}
	copy(value[:], buf[:sha256.Size])
	return hit
}

func foldSHA384(value *[rtmr.MaxDigestSize]byte, digests []byte, word uint64) (hit bool) {
	const size = sha512.Size384
	var buf [2 * size]byte
	copy(buf[:size], value[:])
	for len(digests) >= size {
		*(*[size]byte)(buf[size:]) = [size]byte(digests)
		*(*[size]byte)(buf[:]) = sha512.Sum384(buf[:])
		hit = hit || binary.LittleEndian.Uint64(buf[:]) == word
		digests = digests[size:]
	}
	copy(value[:], buf[:size])
	return hit
}

// Group is a number of values that are folded side by side.
type Group struct {
	alg    rtmr.Alg
	word   uint64
	values []([rtmr.MaxDigestSize]byte)
	wide   *wide // nil where the processor has nothing for it
}

// New returns a group of as many values as can be folded at once, zeros. The
// word is what values are looked for by, as in Fold.
func New(alg rtmr.Alg, word uint64) *Group {
	g := &Group{alg: alg, word: word, wide: newWide(alg, word)}
	n := 8
	if g.wide != nil {
		n = g.wide.lanes
	}
	g.values = make([]([rtmr.MaxDigestSize]byte), n)
	return g
}

// Lanes returns how many values the group holds, at most 16.
func (g *Group) Lanes() int { return len(g.values) }

// Set makes lane i that value.
func (g *Group) Set(i int, value []byte) { copy(g.values[i][:], value) }

// Value returns the value of lane i, valid until the next call.
func (g *Group) Value(i int) []byte { return g.values[i][:g.alg.Size()] }

// Fold folds digests into each of the first n lanes. Bit i of hits says that a
// value of lane i began with the word, or, rarely, looked so: a lane may
// compare four bytes.
func (g *Group) Fold(digests []byte, n int) (hits uint32) {
	if g.wide != nil && n > 2 {
		return g.wide.fold(g.values[:n], digests)
	}
	for i := range n {
		if Fold(g.alg, &g.values[i], digests, g.word) {
			hits |= 1 << i
		}
	}
	return hits
}
