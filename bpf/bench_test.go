//go:build linux

package bpf

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// BenchmarkKernel is one bank's extend inside the kernel, by the kernel's clock;
// neither the system call nor the map is in it.
func BenchmarkKernel(b *testing.B) {
	var objs shabenchObjects
	if err := loadShabenchObjects(&objs, nil); err != nil {
		b.Skip("no BPF:", err)
	}
	defer objs.Close()
	for name, prog := range map[string]*ebpf.Program{"sha1": objs.BenchSha1, "sha256": objs.BenchSha256, "sha384": objs.BenchSha384} {
		b.Run(name, func(b *testing.B) {
			var ns, count uint64
			for b.Loop() {
				arg := shabenchBench{Count: 1000}
				if _, err := prog.Run(&ebpf.RunOptions{Context: &arg, ContextOut: &arg}); err != nil {
					b.Fatal(err)
				}
				ns += arg.Ns
				count += arg.Count
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(ns)/float64(count), "ns/extend")
		})
	}
}

// BenchmarkGo is what BenchmarkKernel does, by the standard library.
func BenchmarkGo(b *testing.B) {
	b.Run("sha1", func(b *testing.B) {
		var m [40]byte
		for b.Loop() {
			h := sha1.Sum(m[:])
			copy(m[:], h[:])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/extend")
	})
	b.Run("sha256", func(b *testing.B) {
		var m [64]byte
		for b.Loop() {
			h := sha256.Sum256(m[:])
			copy(m[:], h[:])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/extend")
	})
	b.Run("sha384", func(b *testing.B) {
		var m [96]byte
		for b.Loop() {
			h := sha512.Sum384(m[:])
			copy(m[:], h[:])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/extend")
	})
}

// BenchmarkExtend is an extend of one register in all banks, as a caller has it:
// alone, and in a batch of 1,000.
func BenchmarkExtend(b *testing.B) {
	r := openBench(b)
	reg := rtmr.MustParse("pcr10")
	var digests []rtmr.Digest
	for _, a := range Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: make([]byte, a.Size())})
	}
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			if err := r.Extend(b.Context(), reg, digests); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/extend")
	})
	b.Run("batch", func(b *testing.B) {
		batch := make([]Entry, 1000)
		for i := range batch {
			batch[i] = Entry{reg, digests}
		}
		for b.Loop() {
			if _, err := r.ExtendBatch(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batch)), "ns/extend")
	})
	b.Run("nothing", func(b *testing.B) { // the system call and its wrapping alone
		for b.Loop() {
			arg := registersCall{}
			if _, err := r.extend.Run(&ebpf.RunOptions{Context: &arg, ContextOut: &arg}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/call")
	})
}

// BenchmarkRead is a consistent copy of all registers.
func BenchmarkRead(b *testing.B) {
	r := openBench(b)
	for b.Loop() {
		if _, err := r.Snapshot(); err != nil {
			b.Fatal(err)
		}
	}
}

func openBench(b *testing.B) *Registers {
	dir := b.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		b.Skip("no BPF: cannot mount a BPF file system:", err)
	}
	b.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	r, err := Open(Options{Path: filepath.Join(dir, "tallystick")})
	if errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, rtmr.ErrDenied) {
		b.Skip("no BPF:", err)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return r
}
