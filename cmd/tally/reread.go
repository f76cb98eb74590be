package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"

	"tallystick/ima"
	"tallystick/rtmr"
)

// rereadable is a log that is read twice. What is no file, as standard input
// and pipes are not, is copied into a temporary one.
type rereadable struct {
	in     *inputFlags
	path   string
	name   string   // as it is shown
	copy   *os.File // nil for a file
	remove bool     // the copy, when it is closed

	opened   *log // for the first reading
	format   string
	warnings []string // after it
}

func newRereadable(in *inputFlags, path string) (*rereadable, error) {
	r := &rereadable{in: in, path: path, name: printable(path)}
	err := r.spool()
	if err == nil {
		r.opened, err = r.open()
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	r.format = r.opened.format
	return r, nil
}

// spool copies what cannot be read twice.
func (r *rereadable) spool() error {
	pipe := os.Stdin
	if r.path == "-" {
		r.name = "standard input"
	} else {
		info, err := os.Stat(r.path)
		if err != nil || info.Mode().IsRegular() {
			return err
		}
		if info.IsDir() {
			return fmt.Errorf("%s: a directory, expected a log", r.path)
		}
		if pipe, err = os.Open(r.path); err != nil {
			return err
		}
	}
	defer pipe.Close()
	tmp, err := os.CreateTemp("", "tally-diff-*")
	if err != nil {
		return err
	}
	r.copy, r.remove = tmp, os.Remove(tmp.Name()) != nil // not everywhere can an open file be removed
	if _, err := io.Copy(tmp, withProgress(pipe, r.name, false)); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// open begins a reading. Readings of a copy have each their own place in it,
// for a reader that was left early may still be reading ahead.
func (r *rereadable) open() (*log, error) {
	signs := ima.Signs{Kernel: r.in.kernel}
	if r.copy == nil {
		return r.in.open(r.path, signs)
	}
	return r.in.read(r.name, io.NopCloser(io.NewSectionReader(r.copy, 0, math.MaxInt64)), signs)
}

// source reads the log from its beginning.
func (r *rereadable) source() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		l := r.opened
		first := l != nil
		r.opened = nil
		if !first {
			var err error
			if l, err = r.open(); err != nil {
				yield(rtmr.Measurement{}, err)
				return
			}
		}
		defer l.Close()
		l.Measurements()(yield)
		if first {
			r.warnings = append([]string{}, l.Warnings()...)
		}
	}
}

// Close closes what is open, and removes the copy.
func (r *rereadable) Close() (err error) {
	if r.opened != nil {
		err = r.opened.Close()
	}
	if r.copy != nil {
		err = errors.Join(err, r.copy.Close())
	}
	if r.remove {
		err = errors.Join(err, os.Remove(r.copy.Name()))
	}
	return err
}
