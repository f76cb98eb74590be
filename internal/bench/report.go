package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
)

// section is one measure's part of the report.
type section struct {
	title   string
	text    string
	rows    []row
	skipped []string // what could not be measured, and why
}

// row is one result, and the bound that it is held against.
type row struct {
	name   string
	result string
	bound  string
	met    bool
}

// atMost makes the row of a ratio to a floor.
func atMost(name string, r spread, bound float64) row {
	return row{name, fmt.Sprintf("%.2f (%.2f to %.2f)", r.median, r.low, r.high), fmt.Sprintf("at most %.1f", bound), r.median <= bound}
}

// atLeast makes the row of a ratio to a peer.
func atLeast(name string, r spread, bound float64) row {
	return row{name, fmt.Sprintf("%.1f (%.1f to %.1f)", r.median, r.low, r.high), fmt.Sprintf("at least %.0f", bound), r.median >= bound}
}

// shown makes a row that has no bound.
func shown(name string, r spread) row {
	return row{name: name, result: fmt.Sprintf("%.2f (%.2f to %.2f)", r.median, r.low, r.high)}
}

func report(sections []section, rounds int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `# Benchmarks

Written by `+"`make bench`"+`, which is `+"`go run ./internal/bench -o docs/benchmarks.md`"+`. Not edited by hand.

Everything in a table ran in one run, side by side: %d rounds, in each of which
every contender ran once. A ratio is taken within a round. Given are the median
of all rounds and, in brackets, the middle half.

| | |
|---|---|
| Processor | %s, %d cores |
| Go | %s %s/%s |
| go-eventlog | %s |
| evmctl | %s |
`, rounds, processor(), runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH, moduleVersion(goEventlog), evmctlVersion())
	for _, s := range sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.title, strings.TrimSpace(s.text))
		if len(s.rows) > 0 {
			fmt.Fprint(&b, "\n| | result | bound | |\n|---|---|---|---|\n")
		}
		for _, r := range s.rows {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.name, r.result, r.bound, r.verdict())
		}
		for _, skipped := range s.skipped {
			fmt.Fprintf(&b, "\nSkipped: %s.\n", skipped)
		}
	}
	return b.Bytes()
}

func (r *row) verdict() string {
	switch {
	case r.bound == "":
		return ""
	case r.met:
		return "met"
	}
	return "**missed**"
}

// processor is the processor's name where the system tells it.
func processor() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// moduleVersion is the version of a module that this program was built with.
func moduleVersion(path string) string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "unknown"
}

func evmctlVersion() string {
	out, err := exec.Command("evmctl", "--version").Output()
	if err != nil {
		return "not installed"
	}
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "evmctl ")
}
