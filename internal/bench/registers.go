package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// registers takes the benchmarks of package bpf, one run of each in a round: the
// kernel's extend beside Go's hashes.
func (b *bench) registers() (section, error) {
	s := section{title: "Registers in the kernel", text: `
The benchmarks of package bpf: an extend of one bank inside the kernel, by the
kernel's own clock (the hash alone: 40, 64 and 96 bytes), over the same by Go's
standard library, which uses the processor's SHA instructions where it has some.
Then an extend of all three banks as a caller has it, with the system call,
alone and as one of a batch of 1,000, and a call that extends nothing: as
multiples of Go's three hashes together.`}
	if runtime.GOOS != "linux" {
		s.skipped = append(s.skipped, "BPF, which takes Linux")
		return s, nil
	}
	program := filepath.Join(b.dir, "bpf.test")
	if out, err := exec.Command("go", "test", "-c", "-o", program, "tallystick/bpf").CombinedOutput(); err != nil {
		return s, fmt.Errorf("go test -c tallystick/bpf: %w\n%s", err, out)
	}
	var rounds []map[string]float64
	for range b.rounds {
		out, err := exec.Command(program, "-test.run", "^$", "-test.bench", ".", "-test.benchtime", "20ms").CombinedOutput()
		if err != nil {
			return s, fmt.Errorf("bpf.test: %w\n%s", err, out)
		}
		round, err := nanoseconds(out)
		if err != nil {
			return s, err
		}
		if len(round) < 9 { // the benchmarks that need BPF were skipped
			s.skipped = append(s.skipped, "the registers, for BPF is not there or not permitted")
			return s, nil
		}
		rounds = append(rounds, round)
	}
	s.rows = []row{atMost("SHA-384, in the kernel", over(rounds, "Kernel/sha384", "Go/sha384"), 2.5)}
	for _, c := range []struct{ name, of string }{{"SHA-256, in the kernel", "sha256"}, {"SHA-1, in the kernel", "sha1"}} {
		s.rows = append(s.rows, shown(c.name, over(rounds, "Kernel/"+c.of, "Go/"+c.of)))
	}
	for _, c := range []struct{ name, of string }{
		{"an extend of all banks, system call included", "Extend/one"},
		{"the same in a batch of 1,000", "Extend/batch"},
		{"a call that extends nothing", "Extend/nothing"},
		{"a consistent copy of all registers", "Read"},
	} {
		s.rows = append(s.rows, shown(c.name, over(rounds, c.of, "Go/sha1", "Go/sha256", "Go/sha384")))
	}
	return s, nil
}

// nanoseconds returns each benchmark's time by its name.
func nanoseconds(out []byte) (map[string]float64, error) {
	times := make(map[string]float64)
	r := benchfmt.NewReader(bytes.NewReader(out), "bpf.test")
	for r.Scan() {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		base, parts := result.Name.Parts()
		name := string(base)
		for _, p := range parts {
			if p[0] == '/' { // and not the number of processors, "-2"
				name += string(p)
			}
		}
		for _, v := range result.Values {
			// An operation is a batch where the benchmark tells the time of an extend.
			if unit := cmp.Or(v.OrigUnit, v.Unit); strings.HasPrefix(unit, "ns/") && (unit != "ns/op" || len(result.Values) == 1) {
				times[name] = v.Value
			}
		}
	}
	return times, r.Err()
}

// over is the ratio of one benchmark to the sum of others, over the rounds.
func over(rounds []map[string]float64, of string, by ...string) spread {
	ratios := make([]float64, len(rounds))
	for i, times := range rounds {
		sum := 0.0
		for _, name := range by {
			sum += times[name]
		}
		ratios[i] = times[of] / sum
	}
	slices.Sort(ratios)
	n := len(ratios)
	return spread{ratios[n/2], ratios[n/4], ratios[n-1-n/4]}
}
