// Package readertest checks that a log's reader keeps, on any input, what every
// reader of the project promises. Fuzz targets call it.
package readertest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"tallystick/rtmr"
)

// Log is a log that has been opened.
type Log interface {
	Measurements() iter.Seq2[rtmr.Measurement, error]
	Warnings() []string
}

// Open begins to read a log.
type Open func(src io.Reader) (Log, error)

// Entry is what a measurement says, kept beyond the iteration's step.
type Entry struct {
	Index              int
	Offset             int64
	Register           rtmr.Register
	NoAction           bool
	Locality           uint8
	Digests            string
	Type, Detail, Data string
	Check              string // of each digest
}

func keep(m *rtmr.Measurement) Entry {
	e := Entry{Index: m.Index, Offset: m.Offset, Register: m.Register, NoAction: m.NoAction, Locality: m.Locality,
		Type: m.Entry.Type(), Detail: m.Entry.Detail(), Data: string(m.Entry.Data())}
	for _, d := range m.Digests {
		check, computed := m.Entry.Verify(d)
		e.Digests += d.String() + " "
		e.Check += fmt.Sprintf("%s %x ", check, computed)
	}
	return e
}

// Read reads a log and returns what came before an error.
func Read(open Open, src io.Reader) (entries []Entry, err error) {
	l, err := open(src)
	if err != nil {
		return nil, err
	}
	for m, err := range l.Measurements() {
		if err != nil {
			return entries, err
		}
		entries = append(entries, keep(&m))
	}
	for _, w := range l.Warnings() {
		if err := printable(w, math.MaxInt); err != nil {
			return entries, fmt.Errorf("a warning: %w", err)
		}
	}
	return entries, nil
}

// Check reads the log and returns its entries, having made sure that
//
//   - an error is a *rtmr.SyntaxError that stands behind the last entry and
//     within the log, and its text is one printable line;
//   - indices count from 0, and offsets ascend within the log;
//   - types and details are one printable line, in proportion to the data;
//   - no more data are delivered than the log has, by the factor expansion
//     where they are not the log's own bytes;
//   - memory is allocated in proportion to the log;
//   - reads of one byte at a time give the same.
func Check(t *testing.T, open Open, log []byte, expansion int) []Entry {
	t.Helper()
	entries, err := Read(open, bytes.NewReader(log))
	checkError(t, err, len(entries), len(log))
	checkEntries(t, entries, len(log), expansion)
	checkAllocation(t, open, log)
	for name, src := range map[string]io.Reader{
		"one byte a read":            iotest.OneByteReader(bytes.NewReader(log)),
		"the end with the last data": iotest.DataErrReader(bytes.NewReader(log)),
	} {
		got, gotErr := Read(open, src)
		if !slices.Equal(got, entries) || fmt.Sprint(gotErr) != fmt.Sprint(err) {
			t.Errorf("%s: %d entries and %v, expected %d and %v%s", name, len(got), gotErr, len(entries), err, difference(got, entries))
		}
	}
	return entries
}

// CheckPrefix makes sure that a log which is cut short, or whose source fails
// there, yields a prefix of the entries. open must not find out by content what
// the whole log told it.
func CheckPrefix(t *testing.T, open Open, log []byte, cut int, entries []Entry) {
	t.Helper()
	cut = max(0, min(cut, len(log)))
	broken := errors.New("broken")
	for name, tail := range map[string]io.Reader{
		"cut":           bytes.NewReader(nil),
		"source failed": iotest.ErrReader(broken),
	} {
		got, err := Read(open, io.MultiReader(bytes.NewReader(log[:cut]), tail))
		if len(got) > len(entries) || !slices.Equal(got, entries[:len(got)]) {
			t.Errorf("%s at %d of %d: %d entries, expected a prefix of %d%s", name, cut, len(log), len(got), len(entries), difference(got, entries))
		}
		if name == "cut" {
			checkError(t, err, len(got), cut)
		} else if err != nil && errors.Is(err, broken) == isSyntax(err) {
			t.Errorf("source failed at %d of %d: %v", cut, len(log), err)
		}
	}
}

// difference shows the first entry that is not as expected.
func difference(got, want []Entry) string {
	for i := range got {
		if i >= len(want) {
			return fmt.Sprintf("\n%d is %#v", i, got[i])
		}
		if got[i] != want[i] {
			return fmt.Sprintf("\n%d is %#v\nexpected %#v", i, got[i], want[i])
		}
	}
	return ""
}

func isSyntax(err error) bool {
	var syntax *rtmr.SyntaxError
	return errors.As(err, &syntax)
}

func checkError(t *testing.T, err error, entries, size int) {
	t.Helper()
	if err == nil {
		return
	}
	var syntax *rtmr.SyntaxError
	if !errors.As(err, &syntax) {
		t.Fatalf("no SyntaxError: %v", err)
	}
	if syntax.Entry != entries || syntax.Offset < 0 || syntax.Offset > int64(size) || syntax.Field == "" {
		t.Errorf("after %d entries of a log of %d bytes: %v", entries, size, err)
	}
	const longest = 2 << 10
	if err := printable(err.Error(), longest); err != nil {
		t.Errorf("the error's text: %v", err)
	}
}

func checkEntries(t *testing.T, entries []Entry, size, expansion int) {
	t.Helper()
	total, last := 0, int64(-1)
	for i, e := range entries {
		if e.Index != i || e.Offset <= last || e.Offset >= int64(size) {
			t.Errorf("entry %d of a log of %d bytes has index %d and offset %d, behind %d", i, size, e.Index, e.Offset, last)
		}
		last = e.Offset
		total += len(e.Data)
		CheckLine(t, e.Type, size)
		CheckLine(t, e.Detail, size)
	}
	if total > expansion*size {
		t.Errorf("%d bytes of data from a log of %d", total, size)
	}
}

// CheckLine makes sure that a rendering of some data of that size is one line
// of printable characters and in proportion: an escape of one byte takes four
// ("\x1b"), a name and a number are short.
func CheckLine(t *testing.T, line string, size int) {
	t.Helper()
	const fixed = 1 << 10
	if err := printable(line, fixed+8*size); err != nil {
		t.Errorf("data of %d bytes: %v", size, err)
	}
}

func printable(line string, longest int) error {
	if len(line) > longest {
		return fmt.Errorf("%d bytes, expected at most %d: %.200q", len(line), longest, line)
	}
	if !utf8.ValidString(line) {
		return fmt.Errorf("not UTF-8: %.200q", line)
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return fmt.Errorf("not printable at byte %d: %.200q", i, line)
	}
	return nil
}

// checkAllocation lets a reader have its buffers, and a multiple of the log for
// what it keeps of the entries in them.
func checkAllocation(t *testing.T, open Open, log []byte) {
	t.Helper()
	used := Allocated(func() {
		if l, err := open(bytes.NewReader(log)); err == nil {
			for range l.Measurements() {
			}
		}
	})
	const buffers, factor = 2 << 20, 64
	if limit := uint64(buffers + factor*len(log)); used > limit {
		t.Errorf("%d bytes allocated for a log of %d, expected at most %d", used, len(log), limit)
	}
}

// Allocated returns how many bytes were allocated while f ran, by anyone.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
