package lanes

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"

	"tallystick/rtmr"
)

// wide folds with AVX-512: sixteen lanes of SHA-1 or SHA-256, eight of SHA-384.
type wide struct {
	alg     rtmr.Alg
	lanes   int
	word    uint64 // as the hash sees it, big-endian
	words32 [8][16]uint32
	words64 [6][8]uint64
}

//go:noescape
func fold1(state *[5][16]uint32, digests *byte, n int, k *[4]uint32, initial *[5]uint32, word uint32) (hits uint32)

//go:noescape
func fold256(state *[8][16]uint32, digests *byte, n int, k *[64]uint32, initial *[8]uint32, padding *[64]uint32, word uint32) (hits uint32)

//go:noescape
func fold384(state *[6][8]uint64, digests *byte, n int, k *[80]uint64, initial *[8]uint64, word uint64) (hits uint32)

func newWide(alg rtmr.Alg, word uint64) *wide {
	if !cpu.X86.HasAVX512F {
		return nil
	}
	setConstants()
	w := &wide{alg: alg, lanes: 16, word: bits.ReverseBytes64(word)}
	switch alg {
	case rtmr.SHA1, rtmr.SHA256:
	case rtmr.SHA384:
		w.lanes = 8
	default:
		return nil
	}
	return w
}

// fold folds digests into the values, which are as many as there are lanes, or
// fewer.
func (w *wide) fold(values [][rtmr.MaxDigestSize]byte, digests []byte) (hits uint32) {
	size := w.alg.Size()
	n := len(digests) / size
	if n == 0 {
		return 0
	}
	w.load(values)
	d := &digests[0]
	switch w.alg {
	case rtmr.SHA1:
		hits = fold1((*[5][16]uint32)(w.words32[:5]), d, n, &k1, &initial1, uint32(w.word>>32))
	case rtmr.SHA256:
		hits = fold256(&w.words32, d, n, &k256, &initial256, &padding256, uint32(w.word>>32))
	case rtmr.SHA384:
		hits = fold384(&w.words64, d, n, &k512, &initial384, w.word)
	}
	w.store(values)
	return hits & (1<<len(values) - 1)
}

// load puts the values' words side by side; the words are big-endian.
func (w *wide) load(values [][rtmr.MaxDigestSize]byte) {
	for lane := range values {
		v := values[lane][:]
		if w.alg == rtmr.SHA384 {
			for i := range w.words64 {
				w.words64[i][lane] = binary.BigEndian.Uint64(v[8*i:])
			}
			continue
		}
		for i := range w.alg.Size() / 4 {
			w.words32[i][lane] = binary.BigEndian.Uint32(v[4*i:])
		}
	}
}

func (w *wide) store(values [][rtmr.MaxDigestSize]byte) {
	for lane := range values {
		v := values[lane][:]
		if w.alg == rtmr.SHA384 {
			for i := range w.words64 {
				binary.BigEndian.PutUint64(v[8*i:], w.words64[i][lane])
			}
			continue
		}
		for i := range w.alg.Size() / 4 {
			binary.BigEndian.PutUint32(v[4*i:], w.words32[i][lane])
		}
	}
}
