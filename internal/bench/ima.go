package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"

	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/replay"
	"tallystick/rtmr"
)

// chain holds the replay of a list against the floor under every replay: the
// hashes of the chain, which are made one after another.
func (b *bench) chain() (section, error) {
	s := section{title: "IMA list, beside the floor"}
	path, err := b.writeList("list-sha256", rtmr.SHA256, b.list)
	if err != nil {
		return s, err
	}
	value, err := foldList(path, rtmr.SHA256, b.list)
	if err != nil {
		return s, err
	}
	contenders := []contender{
		{"floor", func() error { return bareChain(b.list) }},
		{"`ima.Reader` and `replay.Fold`, from a file", func() error { _, err := foldList(path, rtmr.SHA256, b.list); return err }},
		{"`tally replay --bank sha256 FILE`", func() error { return b.replay("sha256", path, nil, value) }},
		{"`tally replay --bank sha256 -`, from a pipe", func() error {
			return fromFile(path, func(r io.Reader) error { return b.replay("sha256", "-", r, value) })
		}},
	}
	times, err := race(b.rounds, contenders)
	if err != nil {
		return s, err
	}
	s.text = fmt.Sprintf(`
A SHA-256 list of %d entries. Each entry's template hash is recomputed from its
template data and compared with the recorded one, and the recorded one is folded
into PCR 10. The result is the time as a multiple of the floor: as many bare
`+"`sha256.Sum256`"+` over 64 bytes, each over the one before, on one core. To verify
the entries takes as many hashes again, so 2.0 is what one core would need if
reading and parsing cost nothing. Who fills the pipe works on the same cores.`, b.list)
	for i, c := range contenders[1:3] {
		s.rows = append(s.rows, atMost(c.name, ratio(times[i+1], times[0]), 2.0))
	}
	s.rows = append(s.rows, shown(contenders[3].name, ratio(times[3], times[0])))
	return s, nil
}

// bareChain makes n chained SHA-256 hashes over value ‖ digest.
func bareChain(n int) error {
	var block [2 * sha256.Size]byte
	for range n {
		*(*[sha256.Size]byte)(block[:]) = sha256.Sum256(block[:])
	}
	return nil
}

// writeList writes a list of the generator's to a file.
func (b *bench) writeList(name string, alg rtmr.Alg, entries int) (path string, err error) {
	return b.file(name, func(f *os.File) error {
		return imagen.Write(f, ima.Layout{Alg: alg, Order: binary.LittleEndian}, entries)
	})
}

// foldList folds a list in one bank by the packages, and returns PCR 10.
func foldList(path string, alg rtmr.Alg, entries int) (value rtmr.Hex, err error) {
	err = fromFile(path, func(file io.Reader) error {
		r, err := ima.NewReader(file, ima.Options{Banks: []rtmr.Alg{alg}})
		if err != nil {
			return err
		}
		f := replay.New(replay.Options{Banks: []rtmr.Alg{alg}})
		if _, err := f.Log(r.Measurements()); err != nil {
			return err
		}
		if n := f.Checks().Verified; n != entries {
			return fmt.Errorf("%d of %d entries are verified", n, entries)
		}
		value = f.Registers()[0].Value
		return nil
	})
	return value, err
}

func fromFile(path string, read func(io.Reader) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return read(struct{ io.Reader }{f}) // as a stream: exec makes a pipe of it
}

// replay runs the built command, which must come to a value.
func (b *bench) replay(banks, path string, stdin io.Reader, value rtmr.Hex) error {
	cmd := exec.Command(b.tally, "replay", "--bank", banks, path)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	if !bytes.Contains(out, []byte(value.String())) {
		return fmt.Errorf("expected %s in %s", value, out)
	}
	return nil
}
