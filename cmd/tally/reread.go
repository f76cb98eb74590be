package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"

	"tallystick/rtmr"
)

// rereadable is a log that can be read twice. Standard input and pipes are
// copied into a temporary file first.
type rereadable struct {
	in       *inputFlags
	name     string // as it is shown
	file     *os.File
	start    int64 // of the log in the file
	spooled  bool  // the file is a copy that is to be removed
	opened   *log
	format   string
	warnings []string
}

func newRereadable(in *inputFlags, path string) (*rereadable, error) {
	r := &rereadable{in: in, name: path, file: os.Stdin}
	if path == "-" {
		r.name = "standard input"
	} else {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		r.file = file
	}
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

// spool makes sure that what is in the file can be read again.
func (r *rereadable) spool() (err error) {
	if r.start, err = r.file.Seek(0, io.SeekCurrent); err == nil {
		return nil
	}
	pipe := r.file
	defer pipe.Close()
	if r.file, err = os.CreateTemp("", "tally-diff-*"); err != nil {
		return err
	}
	r.start = 0
	r.spooled = os.Remove(r.file.Name()) != nil // where an open file cannot be removed
	if _, err := io.Copy(r.file, pipe); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// open begins to read. Each reading has its own place in the file, for a
// reader that was left early may still be reading ahead.
func (r *rereadable) open() (*log, error) {
	return r.in.read(r.name, io.NopCloser(io.NewSectionReader(r.file, r.start, math.MaxInt64-r.start)))
}

// source reads the log from its beginning.
func (r *rereadable) source() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		l := r.opened
		r.opened = nil
		if l == nil {
			var err error
			if l, err = r.open(); err != nil {
				yield(rtmr.Measurement{}, err)
				return
			}
		}
		l.source.Measurements()(yield)
		if r.warnings == nil {
			r.warnings = append([]string{}, l.source.Warnings()...)
		}
	}
}

// Close closes the file, and removes a copy.
func (r *rereadable) Close() error {
	err := r.file.Close()
	if r.spooled {
		err = errors.Join(err, os.Remove(r.file.Name()))
	}
	return err
}
