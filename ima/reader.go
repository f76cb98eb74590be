package ima

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"tallystick/rtmr"
)

// SyntaxError says what was malformed in a list, and where.
type SyntaxError = rtmr.SyntaxError

// Options tells a Reader what the list does not.
type Options struct {
	// Banks are the banks whose digests are wanted. The list's own is always
	// delivered, the others are recomputed. SM3 cannot be.
	Banks []rtmr.Alg
	// Order overrides the byte order found from the content.
	Order binary.ByteOrder
	// Alg overrides the algorithm of the list's template hashes.
	Alg     rtmr.Alg
	Profile Profile
}

// Reader reads a binary measurement list in one pass and bounded memory. It
// hashes ahead on other cores while the caller folds.
type Reader struct {
	src      io.Reader
	opts     Options
	layout   layout
	banks    []rtmr.Alg // what is delivered, the list's own first
	hashes   []rtmr.Alg // what is computed for each entry
	first    *batch     // the bytes that were looked at
	warnings []string
}

// NewReader begins to read a list and finds its layout.
func NewReader(src io.Reader, opts Options) (*Reader, error) {
	r := &Reader{src: src, opts: opts, first: newBatch()}
	r.first.buf = make([]byte, batchSize)
	n, err := io.ReadFull(src, r.first.buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	r.first.len, r.first.last = n, err != nil
	if err := r.findLayout(r.first.buf[:n]); err != nil {
		return nil, err
	}
	if r.banks, err = deliveredBanks(r.layout.alg, opts.Banks); err != nil {
		return nil, err
	}
	r.hashes = slices.Clone(r.banks)
	if slices.ContainsFunc(r.banks, opts.Profile.padded) && !slices.Contains(r.hashes, rtmr.SHA1) {
		r.hashes = append(r.hashes, rtmr.SHA1)
	}
	r.hashes = slices.DeleteFunc(r.hashes, func(a rtmr.Alg) bool { return !a.Available() })
	return r, nil
}

// deliveredBanks returns the banks in which entries are delivered: the list's
// own, then the others that are wanted.
func deliveredBanks(own rtmr.Alg, wanted []rtmr.Alg) ([]rtmr.Alg, error) {
	banks := []rtmr.Alg{own}
	for _, a := range wanted {
		if !a.Available() && a != own {
			return nil, fmt.Errorf("%s template hashes cannot be computed", a)
		}
		if !slices.Contains(banks, a) {
			banks = append(banks, a)
		}
	}
	return banks, nil
}

func (r *Reader) findLayout(prefix []byte) error {
	l, ok := Detect(prefix)
	if !ok && len(prefix) > 0 && (r.opts.Order == nil || r.opts.Alg == 0) {
		return r.diagnose(prefix)
	}
	if !ok {
		l = Layout{rtmr.SHA1, binary.LittleEndian}
	}
	if r.opts.Order != nil {
		l.Order = r.opts.Order
	}
	if r.opts.Alg != 0 {
		l.Alg = r.opts.Alg
	}
	r.layout = l.internal()
	return nil
}

// diagnose says what is wrong with the first record of a list that has no
// layout, as the usual layout sees it.
func (r *Reader) diagnose(prefix []byte) error {
	var e Entry
	l := layouts[0]
	if _, fault := l.parse(prefix, &e); fault != nil {
		return fault.syntaxError(0, 0)
	}
	return &SyntaxError{Field: "list", Err: errors.New("not an IMA measurement list: no layout fits its first records")}
}

func (f *fault) syntaxError(offset int64, index int) error {
	return &SyntaxError{Offset: offset + int64(f.at), Entry: index, Field: f.field, Err: f.err()}
}

func (f *fault) err() error { return fmt.Errorf("%d, expected %s", f.got, f.want) }

// Layout returns the list's layout.
func (r *Reader) Layout() Layout { return Layout{r.layout.alg, r.layout.order.standard()} }

// Warnings returns what was odd about the list but did not stop its reading.
// They are complete when Measurements has ended.
func (r *Reader) Warnings() []string { return r.warnings }

// Measurements yields the list's entries in order, each valid until the next
// step. On malformed input it yields what came before, then a *SyntaxError,
// and ends. It can be called once.
func (r *Reader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		p := r.startPipeline()
		defer close(p.stop)
		d := newDelivery(r)
		for b := range p.order {
			p.await(b)
			if !d.deliver(b, yield) {
				return
			}
			if b.err != nil {
				yield(rtmr.Measurement{}, b.err)
				return
			}
			p.free <- b
		}
		r.warnings = append(r.warnings, d.seen.warnings()...)
	}
}

// aggregates counts boot_aggregate entries: one, at the head, is the rule.
type aggregates struct {
	entries, at0 int
	again        []int
	beyond       int // entries of PCRs that no TPM has
}

func (a *aggregates) see(i int, e *Entry) {
	a.entries++
	if e.pcr > maxPCR {
		a.beyond++
	}
	if _, ok := e.BootAggregate(); !ok {
		return
	}
	if i == 0 {
		a.at0++
	} else if len(a.again) < 8 {
		a.again = append(a.again, i)
	}
}

func (a *aggregates) warnings() (out []string) {
	if a.entries > 0 && a.at0 == 0 {
		out = append(out, "the list does not begin with boot_aggregate: it was trimmed, or is a later part of one")
	}
	if len(a.again) > 0 {
		out = append(out, fmt.Sprintf("another boot_aggregate at entry %v: the list was carried over kexec, or two were joined", a.again))
	}
	if a.beyond > 0 {
		out = append(out, fmt.Sprintf("%d entries name a PCR above %d, which no TPM has: the kernel extended nothing for them", a.beyond, maxPCR))
	}
	return out
}
