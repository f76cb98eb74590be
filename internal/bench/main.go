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
	b := &bench{rounds: rounds}
	var err error
	if b.dir, err = os.MkdirTemp("", "tally-bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.tally = filepath.Join(b.dir, "tally")
	if runtime.GOOS == "windows" {
		b.tally += ".exe"
	}
	build := exec.Command("go", "build", "-o", b.tally, "./cmd/tally")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("go build ./cmd/tally: %w", err)
	}
	var sections []section
	for _, measure := range []func() (section, error){b.chain, b.evmctl, b.tcg, b.pipe} {
		s, err := measure()
		if err != nil {
			return fmt.Errorf("%s: %w", s.title, err)
		}
		for _, skipped := range s.skipped {
			fmt.Fprintf(os.Stderr, "bench: skipped: %s\n", skipped)
		}
		sections = append(sections, s)
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
