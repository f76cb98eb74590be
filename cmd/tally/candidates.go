package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"

	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// addCandidates reads what a log may lack: digests as text, or another log.
func (c *investigation) addCandidates(opts *replay.SearchOptions, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if detect(data[:min(len(data), 4096)]) == "" {
		digests, err := parseDigests(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		opts.Candidates = append(opts.Candidates, digests...)
		return nil
	}
	other := replay.NewReconciler(c.quoted(), c.opts, true)
	if _, err := foldLog(other.Fold, c.in, logFile{path: path, data: data}, &ima.Signs{Kernel: c.in.kernel}, nil); err != nil {
		return err
	}
	opts.CandidateTrails = append(opts.CandidateTrails, other.Trails()...)
	return nil
}

// parseDigests reads digests in hexadecimal, one a line, with "sha256:" before
// or not: the length tells the bank then. Empty lines and those that begin with
// # are skipped, and so is what stands behind white space, as sha256sum prints.
func parseDigests(data []byte) (digests []rtmr.Digest, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		d, err := parseDigest(fields[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		digests = append(digests, d)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(digests) == 0 {
		return nil, fmt.Errorf("no digest, expected one a line in hexadecimal, or a log")
	}
	return digests, nil
}

func parseDigest(s string) (d rtmr.Digest, err error) {
	name, text, named := strings.Cut(s, ":")
	if !named {
		text = s
	}
	if d.Sum, err = hex.DecodeString(text); err != nil {
		return d, fmt.Errorf("%q is no digest in hexadecimal, and the file no log", rtmr.Escape(s[:min(len(s), 80)]))
	}
	if named {
		if d.Alg, err = rtmr.ParseAlg(name); err != nil {
			return d, err
		}
	} else if i := slices.IndexFunc([]rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}, func(a rtmr.Alg) bool { return a.Size() == len(d.Sum) }); i >= 0 {
		d.Alg = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}[i]
	}
	if d.Alg.Size() != len(d.Sum) || len(d.Sum) == 0 {
		return d, fmt.Errorf("a digest of %d bytes, expected 20, 32, 48 or 64, or that of the bank it names", len(d.Sum))
	}
	return d, nil
}
