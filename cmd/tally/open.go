package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/ima"
	"tallystick/rtmr"
)

// log is an opened measurement log of any format.
type log struct {
	path   string
	format string
	source interface {
		Measurements() iter.Seq2[rtmr.Measurement, error]
		Warnings() []string
	}
	io.Closer
}

// formats are the names that --format takes.
var formats = []string{"tcg12", "tcg2", "ccel", "ima", "ima-ascii", "cel-tlv", "cel-json", "cel-cbor", "systemd", "dstack"}

// inputFlags tell what the logs do not.
type inputFlags struct {
	format, byteOrder, profile string
	banks                      []string
}

func (f *inputFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.format, "format", "", "the logs' format, overriding recognition by content: "+strings.Join(formats, ", "))
	flags.StringVar(&f.byteOrder, "byte-order", "", "an IMA list's byte order, little or big, overriding what its content shows")
	flags.StringVar(&f.profile, "profile", "", "how the kernel deviates: padded-sha1, padded-sha1:BANK, violation-zero, rtmr-column")
	flags.StringSliceVar(&f.banks, "bank", nil, "the banks to fold (sha1, sha256, sha384, ..); by default those of the logs, and for an IMA list sha1, sha256 and sha384")
}

func (f *inputFlags) algs() (algs []rtmr.Alg, err error) {
	for _, b := range f.banks {
		a, err := rtmr.ParseAlg(b)
		if err != nil {
			return nil, fmt.Errorf("--bank: %w", err)
		}
		algs = append(algs, a)
	}
	return algs, nil
}

func (f *inputFlags) imaOptions() (o ima.Options, err error) {
	switch f.byteOrder {
	case "":
	case "little":
		o.Order = binary.LittleEndian
	case "big":
		o.Order = binary.BigEndian
	default:
		return o, fmt.Errorf("--byte-order %q, expected little or big", f.byteOrder)
	}
	if f.profile != "" {
		if o.Profile, err = ima.ParseProfile(f.profile); err != nil {
			return o, fmt.Errorf("--profile: %w", err)
		}
	}
	o.Banks, err = f.algs()
	if len(o.Banks) == 0 {
		o.Banks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
	}
	return o, err
}

// open opens a log and recognises its format; "-" is standard input.
func (f *inputFlags) open(path string) (*log, error) {
	if path == "-" {
		return f.read("standard input", io.NopCloser(os.Stdin))
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return f.read(path, file)
}

func (f *inputFlags) read(path string, src io.ReadCloser) (*log, error) {
	opts, err := f.imaOptions()
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(src, eventlog.DetectSize)
	prefix, err := in.Peek(eventlog.DetectSize)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	err = nil // a log shorter than what Detect can use is none the worse
	l := &log{path: path, format: f.format, Closer: src}
	if l.format == "" {
		if l.format = detect(prefix); l.format == "" {
			return nil, fmt.Errorf("%s: %w", path, unrecognised(prefix))
		}
	}
	switch l.format {
	case "ima":
		l.source, err = ima.NewReader(in, opts)
	case "ima-ascii":
		l.source, err = ima.NewASCIIReader(in, opts)
	case "dstack":
		l.source = eventlog.NewDstackReader(in)
	case "cel-tlv", "cel-json", "cel-cbor", "systemd":
		l.source = cel.NewReader(in, celFormats[l.format])
	case "tcg12", "tcg2", "ccel":
		l.source, err = eventlog.NewReader(in, eventlog.Options{Format: binaryFormats[l.format]})
	default:
		return nil, fmt.Errorf("--format %q, expected one of %s", l.format, strings.Join(formats, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

var binaryFormats = map[string]eventlog.Format{"tcg12": eventlog.TCG12, "tcg2": eventlog.TCG2, "ccel": eventlog.CCEL}

var celFormats = map[string]cel.Format{"cel-tlv": cel.TLV, "cel-json": cel.JSON, "cel-cbor": cel.CBOR, "systemd": cel.Systemd}

// detect returns the format's name, or "". A TCG log tells itself by its
// header; an IMA list is tried before headerless TCG records, which ask less.
func detect(prefix []byte) string {
	if _, ok := ima.DetectASCII(prefix); ok {
		return "ima-ascii"
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

func unrecognised(prefix []byte) error {
	if len(prefix) == 0 {
		return fmt.Errorf("the file is empty; --format says what an empty log would have been")
	}
	return fmt.Errorf("offset 0: format not recognised (it begins %.16x), expected one of %s", prefix, strings.Join(formats, ", "))
}
