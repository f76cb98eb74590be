//go:build linux

package tap

import (
	"strings"
	"testing"
	"unicode"
	"unsafe"
)

// Whatever is in a record, it is decoded or an error, and printed on one line.
func FuzzDecode(f *testing.F) {
	var ring tapRecord
	bytes := func() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&ring)), unsafe.Sizeof(ring)) }
	f.Add(bytes())
	f.Add(bytes()[:len(bytes())-1])
	ring = tapRecord{Sequence: 1, Pid: 2, AlgId: 0xb, Pcr: 10}
	copy(ring.Comm[:], "sixteen bytes\x1b\n\xff")
	f.Add(bytes())
	ring = tapRecord{Sequence: 1, Source: uint8(TSM), HashAlgo: 5, DigestSize: 48}
	copy(ring.Name[:], "rtmr2")
	f.Add(bytes())
	ring.Source = 2
	f.Add(bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := decode(raw)
		if (err == nil) != (len(raw) == len(bytes()) && raw[unsafe.Offsetof(ring.Source)] < numSources) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		if strings.ContainsFunc(r.String(), func(c rune) bool { return !unicode.IsPrint(c) }) {
			t.Errorf("%q", r)
		}
		if r.Digest.Sum != nil && (len(r.Digest.Sum) != r.Digest.Alg.Size() || r.Violation) {
			t.Errorf("%v: %v", r, r.Digest)
		}
		if !r.Register.IsZero() && r.Register.String() != r.Name {
			t.Errorf("%v: %s", r, r.Register)
		}
	})
}
