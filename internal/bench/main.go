// Command bench measures the project side by side with its floors and its
// peers, in one run and on the same files, and writes what it found as
// Markdown. It wants a machine with nothing else to do.
//
//	go run ./internal/bench -o docs/benchmarks.md
//
// Only ratios are written: times are of one machine, ratios travel further.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

func main() {
	out := flag.String("o", "", "the Markdown file to write; standard output without it")
	rounds := flag.Int("rounds", 15, "how often each contender runs")
	flag.Parse()
	if err := run(*out, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out string, rounds int) error {
	dir, err := os.MkdirTemp("", "tally-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, rounds: rounds, list: 1_000_000, peerList: 100_000, pipeList: 8_000_000, faultList: 10_000, repeats: 400}
	sections, err := b.all()
	if err != nil {
		return err
	}
	text := report(sections, rounds)
	if out == "" {
		_, err = os.Stdout.Write(text)
		return err
	}
	return os.WriteFile(out, text, 0o644)
}

// bench is what all measures share.
type bench struct {
	dir    string // for files of this run
	tally  string // the built command
	rounds int

	list, peerList, pipeList, faultList int // entries in the lists
	repeats                             int // of a boot log's replay, a few microseconds long
}

// all takes all measures.
func (b *bench) all() (sections []section, err error) {
	b.tally = filepath.Join(b.dir, "tally")
	if runtime.GOOS == "windows" {
		b.tally += ".exe"
	}
	build := exec.Command("go", "build", "-o", b.tally, "tallystick/cmd/tally")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("go build tallystick/cmd/tally: %w", err)
	}
	for _, measure := range []func() (section, error){b.chain, b.evmctl, b.tcg, b.explain, b.registers, b.memory} {
		s, err := measure()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.title, err)
		}
		for _, skipped := range s.skipped {
			fmt.Fprintf(os.Stderr, "bench: skipped: %s\n", skipped)
		}
		sections = append(sections, s)
	}
	return sections, nil
}

// file makes a file in the run's folder.
func (b *bench) file(name string, write func(*os.File) error) (path string, err error) {
	path = filepath.Join(b.dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := write(f); err != nil {
		f.Close()
		return "", err
	}
	return path, f.Close()
}
