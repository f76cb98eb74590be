package lanes_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"tallystick/internal/lanes"
	"tallystick/rtmr"
)

var algs = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512, rtmr.SHA3256}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestGroup holds every lane, for every number of lanes and folds, against the
// standard library's hash, and looks for a value that one lane passes.
func TestGroup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, alg := range algs {
		size := alg.Size()
		for _, folds := range []int{0, 1, 2, 3, 17} {
			for n := 1; n <= lanes.New(alg, 0).Lanes(); n++ {
				digests := random(r, folds*size)
				values, want := make([][]byte, n), make([][]byte, n)
				word, passes := uint64(0), uint32(0)
				for i := range values {
					values[i] = random(r, size)
					want[i] = slices.Clone(values[i])
					for k := range folds {
						want[i] = alg.AppendHash(nil, slices.Concat(want[i], digests[k*size:][:size]))
						if i == n/2 && k == folds/2 {
							word, passes = binary.LittleEndian.Uint64(want[i]), 1<<i
						}
					}
				}
				g := lanes.New(alg, word)
				for i := range values {
					g.Set(i, values[i])
				}
				if hits := g.Fold(digests, n); hits != passes {
					t.Errorf("%s, %d lanes, %d folds: hits %b, want %b", alg, n, folds, hits, passes)
				}
				for i := range want {
					if !slices.Equal(g.Value(i), want[i]) {
						t.Fatalf("%s, %d folds: lane %d of %d is %x, want %x", alg, folds, i, n, g.Value(i), want[i])
					}
				}
				var one [rtmr.MaxDigestSize]byte
				copy(one[:], values[0])
				lanes.Fold(alg, &one, digests, 0)
				if !slices.Equal(one[:size], want[0]) {
					t.Errorf("%s: Fold is %x, want %x", alg, one[:size], want[0])
				}
			}
		}
	}
}

// BenchmarkFold is one value at a time, BenchmarkGroup as many as there are
// lanes; both per fold of one value.
func BenchmarkFold(b *testing.B) {
	for _, alg := range algs {
		b.Run(alg.String(), func(b *testing.B) {
			var value [rtmr.MaxDigestSize]byte
			digests := make([]byte, 1000*alg.Size())
			for b.Loop() {
				lanes.Fold(alg, &value, digests, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/fold")
		})
	}
}

func BenchmarkGroup(b *testing.B) {
	for _, alg := range algs {
		g := lanes.New(alg, 1)
		b.Run(fmt.Sprintf("%s/lanes=%d", alg, g.Lanes()), func(b *testing.B) {
			digests := make([]byte, 1000*alg.Size())
			for b.Loop() {
				g.Fold(digests, g.Lanes())
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000/float64(g.Lanes()), "ns/fold")
		})
	}
}
