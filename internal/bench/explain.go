package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"tallystick/ima"
	"tallystick/rtmr"
)

// explain takes the time in which the built command finds one fault in a list,
// by where it stands: the search begins at the list's end, so a fault near its
// beginning costs the whole of it.
func (b *bench) explain() (section, error) {
	s := section{title: "Explain"}
	path, err := b.writeList("list-explain", rtmr.SHA256, b.faultList)
	if err != nil {
		return s, err
	}
	digests, sha1s, err := extends(path)
	if err != nil {
		return s, err
	}
	s.text = fmt.Sprintf(`
One fault between a SHA-256 list of %d entries and PCR 10's value, found by
`+"`tally explain`"+` on all cores, near the list's end, in its middle and at its
beginning. The result is the whole command's time, the median of %d; and that of
the hashes it made, over as many bare `+"`sha256.Sum256`"+` of 64 bytes on one core in
the same run.`, b.faultList, min(b.rounds, 5))
	n := len(digests)
	for _, fault := range []struct {
		name  string
		bound float64 // seconds
		at    []int
		edit  func(d [][]byte, i int) [][]byte
	}{
		{"an entry was not extended", 30, []int{n - n/100, n / 2, n / 100}, func(d [][]byte, i int) [][]byte { return slices.Delete(d, i, i+1) }},
		{"an entry was extended twice", 30, []int{n - n/100, n / 2, n / 100}, func(d [][]byte, i int) [][]byte { return slices.Insert(d, i, d[i]) }},
		{"two neighbours were swapped", 1, []int{n - n/100, n / 2, n / 100}, func(d [][]byte, i int) [][]byte { d[i], d[i+1] = d[i+1], d[i]; return d }},
		{"SHA-1 was padded into the bank", 1, []int{0}, func([][]byte, int) [][]byte { return sha1s }},
	} {
		for _, at := range fault.at {
			name := fault.name
			if len(fault.at) > 1 {
				name += fmt.Sprintf(", entry %d", at)
			}
			r, err := b.explainOne(path, fault.edit(slices.Clone(digests), at))
			if err != nil {
				return s, fmt.Errorf("%s: %w", name, err)
			}
			s.rows = append(s.rows, row{name, fmt.Sprintf("%.2f s; %.2f", r.seconds, r.ofBare),
				fmt.Sprintf("at most %.0f s", fault.bound), r.seconds <= fault.bound})
		}
	}
	return s, nil
}

// extends returns what a list extends in SHA-256, and what a kernel that pads
// SHA-1 would.
func extends(path string) (digests, padded [][]byte, err error) {
	err = fromFile(path, func(file io.Reader) error {
		r, err := ima.NewReader(file, ima.Options{Banks: []rtmr.Alg{rtmr.SHA1, rtmr.SHA256}})
		if err != nil {
			return err
		}
		for m, err := range r.Measurements() {
			if err != nil {
				return err
			}
			for _, d := range m.Digests {
				if d.Alg == rtmr.SHA256 {
					digests = append(digests, slices.Clone(d.Sum))
				} else {
					padded = append(padded, append(slices.Clone(d.Sum), make([]byte, sha256.Size-len(d.Sum))...))
				}
			}
		}
		return nil
	})
	return digests, padded, err
}

type explained struct {
	seconds float64 // of the whole command
	ofBare  float64 // a fold's time, over a bare hash's
}

// explainOne has the command explain how PCR 10 came to hold the digests.
func (b *bench) explainOne(list string, digests [][]byte) (e explained, err error) {
	var value [sha256.Size]byte
	for _, d := range digests {
		value = sha256.Sum256(append(value[:], d...))
	}
	values, err := b.file("explain.json", func(f *os.File) error {
		return json.NewEncoder(f).Encode(rtmr.Values{rtmr.SHA256: {rtmr.MustParse("pcr10"): value[:]}})
	})
	if err != nil {
		return e, err
	}
	var seconds, ofBare []float64
	for range min(b.rounds, 5) {
		began := time.Now()
		out, err := exec.Command(b.tally, "explain", "--json", "--insecure-skip-signature", "--values", values, list).Output()
		took := time.Since(began).Seconds()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			return e, fmt.Errorf("expected exit status 1: %w", err)
		}
		var report struct {
			Search struct {
				Found   []struct{ Proven bool }
				Folds   int
				Seconds float64
			}
		}
		if err := json.Unmarshal(out, &report); err != nil {
			return e, err
		}
		if len(report.Search.Found) == 0 || !report.Search.Found[0].Proven {
			return e, fmt.Errorf("nothing was proven: %s", out)
		}
		seconds = append(seconds, took)
		ofBare = append(ofBare, report.Search.Seconds/float64(report.Search.Folds)/bareHash())
	}
	return explained{median(seconds), median(ofBare)}, nil
}

// bareHash is the time of a bare hash in a chain of them, in seconds.
func bareHash() float64 {
	const n = 200_000
	began := time.Now()
	if err := bareChain(n); err != nil {
		return 0
	}
	return time.Since(began).Seconds() / n
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
