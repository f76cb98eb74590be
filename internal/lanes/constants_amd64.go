package lanes

import (
	"math/big"
	"math/bits"
	"sync"
)

// The constants of SHA-1, FIPS 180-4 §4.2.1 and §5.3.1.
var (
	k1       = [4]uint32{0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6}
	initial1 = [5]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}
)

// The constants of SHA-2, which are computed as they are defined: K from the
// cube roots of the first primes (FIPS 180-4 §4.2.2 and §4.2.3), the initial
// values from the square roots, SHA-256's of the first eight, SHA-384's of the
// next eight (§5.3.3 and §5.3.4).
var (
	k256       [64]uint32
	k512       [80]uint64
	initial256 [8]uint32
	initial384 [8]uint64
	padding256 [64]uint32 // K and the words of the block that pads 64 bytes
)

var setConstants = sync.OnceFunc(func() {
	for i, p := range primes(len(k512)) {
		k512[i] = rootFraction(p, 3)
		if i < len(k256) {
			k256[i] = uint32(k512[i] >> 32)
		}
		switch {
		case i < 8:
			initial256[i] = uint32(rootFraction(p, 2) >> 32)
		case i < 16:
			initial384[i-8] = rootFraction(p, 2)
		}
	}
	w := &padding256
	w[0], w[15] = 1<<31, 64*8
	for i := 16; i < len(w); i++ {
		s0 := bits.RotateLeft32(w[i-15], -7) ^ bits.RotateLeft32(w[i-15], -18) ^ w[i-15]>>3
		s1 := bits.RotateLeft32(w[i-2], -17) ^ bits.RotateLeft32(w[i-2], -19) ^ w[i-2]>>10
		w[i] = w[i-16] + s0 + w[i-7] + s1
	}
	for i := range w {
		w[i] += k256[i]
	}
})

func primes(n int) (all []int64) {
	for p := int64(2); len(all) < n; p++ {
		if big.NewInt(p).ProbablyPrime(0) { // certain below 2⁶⁴
			all = append(all, p)
		}
	}
	return all
}

// rootFraction returns the first 64 bits of the fraction of p's n-th root.
func rootFraction(p int64, n uint) uint64 {
	scaled := new(big.Int).Lsh(big.NewInt(p), 64*n)
	root, exponent := new(big.Int), big.NewInt(int64(n))
	for bit := 64 + 8; bit >= 0; bit-- {
		root.SetBit(root, bit, 1)
		if new(big.Int).Exp(root, exponent, nil).Cmp(scaled) > 0 {
			root.SetBit(root, bit, 0)
		}
	}
	return new(big.Int).And(root, new(big.Int).SetUint64(1<<64-1)).Uint64()
}
