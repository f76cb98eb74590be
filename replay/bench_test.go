package replay_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"testing"

	"tallystick/eventlog"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/replay"
	"tallystick/rtmr"
)

// BenchmarkChain is the floor under every replay of a SHA-256 bank: one hash
// over value ‖ digest, 64 bytes, an entry.
func BenchmarkChain(b *testing.B) {
	var buf [64]byte
	for b.Loop() {
		*(*[32]byte)(buf[:]) = sha256.Sum256(buf[:])
	}
}

// BenchmarkTCG reads and folds a boot log of 51 events in three banks, without
// and with the check of event data.
func BenchmarkTCG(b *testing.B) {
	log, err := os.ReadFile("../fixtures/shim-grub-sb-6.12/boot.bin")
	if err != nil {
		b.Fatal(err)
	}
	for name, skip := range map[string]bool{"fold": true, "fold-and-check": false} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(log)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := eventlog.NewReader(bytes.NewReader(log), eventlog.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := replay.New(replay.Options{SkipVerify: skip}).Log(r.Measurements()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIMA reads, verifies and folds a list of 100,000 entries; an entry's
// time is ns/entry.
func BenchmarkIMA(b *testing.B) {
	const entries = 100_000
	for _, alg := range []rtmr.Alg{rtmr.SHA256, rtmr.SHA1} {
		var list bytes.Buffer
		if err := imagen.Write(&list, ima.Layout{Alg: alg, Order: binary.LittleEndian}, entries); err != nil {
			b.Fatal(err)
		}
		b.Run(alg.String()+"-list", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := ima.NewReader(bytes.NewReader(list.Bytes()), ima.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
				if err != nil {
					b.Fatal(err)
				}
				f := replay.New(replay.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
				if n, err := f.Log(r.Measurements()); n != entries || err != nil || len(f.Findings()) > 0 {
					b.Fatal(n, err, f.Findings())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
		})
	}
}
