package cel_test

import (
	"bytes"
	"testing"

	"tallystick/eventlog/cel"
)

// BenchmarkRead reads 1,000 pcclient_std records of two banks.
func BenchmarkRead(b *testing.B) {
	for f, record := range map[cel.Format][]byte{
		cel.TLV: separatorTLV(), cel.JSON: []byte(separatorJSON), cel.CBOR: separatorCBOR(),
	} {
		log := bytes.Repeat(record, 1000)
		b.Run(f.String(), func(b *testing.B) {
			b.SetBytes(int64(len(log)))
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range cel.NewReader(bytes.NewReader(log), f).Measurements() {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
