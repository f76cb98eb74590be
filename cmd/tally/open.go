package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/rtmr"
)

// source is what all readers of logs are.
type source interface {
	Measurements() iter.Seq2[rtmr.Measurement, error]
	Warnings() []string
}

// log is an opened measurement log of any format.
type log struct {
	path   string
	format string
	source
	notes []string // of the command's own, on how it reads the log
	whole *digester
	io.Closer
}

// Warnings returns the command's notes on the log, then the reader's.
func (l *log) Warnings() []string {
	return append(append([]string{}, l.notes...), l.source.Warnings()...)
}

// fault names the log in an error.
func (l *log) fault(err error) error { return fmt.Errorf("%s: %w", l.path, err) }

// formats are the names that --format takes.
var formats = []string{"tcg12", "tcg2", "ccel", "ima", "ima-ascii", "cel-tlv", "cel-json", "cel-cbor", "systemd", "aael", "dstack"}

// openAlone opens a log that no other stands before, after a look at the flags.
func (f *inputFlags) openAlone(path string) (*log, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.open(path, ima.Signs{Kernel: f.kernel})
}

// open opens a log and recognises its format; "-" is standard input. What the
// logs before it tell of the kernel is in signs.
func (f *inputFlags) open(path string, signs ima.Signs) (*log, error) {
	if path == "-" {
		return f.read("standard input", withProgress(os.Stdin, "standard input", f.prints), signs)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return f.read(path, withProgress(file, path, f.prints), signs)
}

func (f *inputFlags) read(path string, src io.ReadCloser, signs ima.Signs) (*log, error) {
	var whole *digester
	if f.digests {
		whole = newDigester(src)
		src = whole
	}
	in := bufio.NewReaderSize(src, eventlog.DetectSize)
	prefix, err := in.Peek(eventlog.DetectSize)
	if err != nil && err != io.EOF { // io.EOF: the log is shorter than that
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l := &log{path: printable(path), format: f.format, whole: whole, Closer: src}
	if l.format == "" && evidence.Is(prefix) {
		return nil, l.fault(errBundle)
	}
	if l.format == "" {
		if l.format = detect(prefix); l.format == "" {
			return nil, l.fault(unrecognised(prefix))
		}
	}
	if err := f.choose(l, in, prefix, signs); err != nil {
		return nil, l.fault(err)
	}
	return l, nil
}

var binaryFormats = map[string]eventlog.Format{"tcg12": eventlog.TCG12, "tcg2": eventlog.TCG2, "ccel": eventlog.CCEL}

var celFormats = map[string]cel.Format{"cel-tlv": cel.TLV, "cel-json": cel.JSON, "cel-cbor": cel.CBOR, "systemd": cel.Systemd}

// choose makes the reader of a log whose format is known.
func (f *inputFlags) choose(l *log, in io.Reader, prefix []byte, signs ima.Signs) (err error) {
	switch l.format {
	case "ima", "ima-ascii":
		return f.chooseIMA(l, in, prefix, signs)
	case "aael":
		l.source = eventlog.NewAAELReader(in)
	case "dstack":
		l.source = eventlog.NewDstackReader(in)
	case "cel-tlv", "cel-json", "cel-cbor", "systemd":
		r := cel.NewReader(in, celFormats[l.format])
		r.Realm = f.realm
		if f.profile != "" {
			l.notes = append(l.notes, "--profile does not reach a canonical event log: its digests are as recorded, and other banks are recomputed as mainline extends them")
		}
		r.Banks, err = f.algs()
		l.source = r
	case "tcg12", "tcg2", "ccel":
		l.source, err = eventlog.NewReader(in, eventlog.Options{Format: binaryFormats[l.format]})
	}
	return err
}

// chooseIMA makes the reader of an IMA list, by the profile that was given or
// that the list and the logs before it show.
func (f *inputFlags) chooseIMA(l *log, in io.Reader, prefix []byte, signs ima.Signs) error {
	opts, err := f.imaOptions(signs)
	if err != nil {
		return err
	}
	if f.profile == "" {
		first, err := imaReader(l.format, bytes.NewReader(prefix), opts)
		if err != nil {
			return err
		}
		var reasons []string
		var known bool
		opts.Profile, reasons, known = ima.GuessProfile(first.Measurements(), signs)
		for _, why := range reasons {
			l.notes = append(l.notes, "read with --profile "+why)
		}
		if !known && slices.ContainsFunc(opts.Banks, func(a rtmr.Alg) bool { return a != rtmr.SHA1 }) {
			l.notes = append(l.notes, mainlineAssumed)
		}
	}
	l.source, err = imaReader(l.format, in, opts)
	return err
}

const mainlineAssumed = "nothing tells the kernel's release (--kernel): other banks than sha1 are recomputed as a kernel since 5.8 that had all its hashes extends them"

func imaReader(format string, src io.Reader, opts ima.Options) (source, error) {
	if format == "ima-ascii" {
		return ima.NewASCIIReader(src, opts)
	}
	return ima.NewReader(src, opts)
}

// detect returns the format's name, or "". A TCG log tells itself by its
// header; an IMA list is tried before headerless TCG records, which ask less.
func detect(prefix []byte) string {
	if _, ok := ima.DetectASCII(prefix); ok {
		return "ima-ascii"
	}
	if eventlog.DetectAAEL(prefix) {
		return "aael"
	}
	if eventlog.DetectDstack(prefix) {
		return "dstack"
	}
	format, ok := eventlog.Detect(prefix)
	if _, list := ima.Detect(prefix); list && (!ok || format == eventlog.TCG12) {
		return "ima"
	}
	if ok {
		return format.String()
	}
	if format, ok := cel.Detect(prefix); ok {
		return format.String()
	}
	return ""
}

// noLogs are files that get given for logs and tell what they are by their
// first bytes.
var noLogs = []struct{ magic, what string }{
	{"\x1f\x8b", "compressed by gzip: decompress it first (gzip -dc)"},
	{"\xfd7zXZ\x00", "compressed by xz: decompress it first (xz -dc)"},
	{"\x28\xb5\x2f\xfd", "compressed by zstd: decompress it first (zstd -dc)"},
	{"PK\x03\x04", "a zip archive: unpack it first"},
	{"\xffTCG", "a TPM's signed quote (TPMS_ATTEST), which is evidence and no log"},
	{"\x04\x00\x02\x00\x81\x00\x00\x00", "a TDX quote of version 4, which is evidence and no log"},
	{"\x05\x00\x02\x00\x81\x00\x00\x00", "a TDX quote of version 5, which is evidence and no log"},
}

func unrecognised(prefix []byte) error {
	if len(prefix) == 0 {
		return fmt.Errorf("the file is empty; --format says what an empty log would have been")
	}
	for _, f := range noLogs {
		if bytes.HasPrefix(prefix, []byte(f.magic)) {
			return fmt.Errorf("offset 0: it seems to be %s, expected one of %s", f.what, strings.Join(formats, ", "))
		}
	}
	return fmt.Errorf("offset 0: format not recognised (it begins %.16x), expected one of %s; --format NAME reads it as that and says where it is at fault", prefix, strings.Join(formats, ", "))
}
