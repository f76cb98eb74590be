package ima

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
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
	layout   Layout
	banks    []rtmr.Alg // what is delivered, the list's own first
	hashes   []rtmr.Alg // what is computed for each entry
	first    *batch     // the bytes that were looked at
	warnings []string
}

const batchSize = DetectSize

// NewReader begins to read a list and finds its layout.
func NewReader(src io.Reader, opts Options) (*Reader, error) {
	r := &Reader{src: src, opts: opts, first: &batch{buf: make([]byte, batchSize)}}
	n, err := io.ReadFull(src, r.first.buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	r.first.len, r.first.last = n, err != nil
	if err := r.findLayout(r.first.buf[:n]); err != nil {
		return nil, err
	}
	if r.banks, err = deliveredBanks(r.layout.Alg, opts.Banks); err != nil {
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
	r.layout = l
	return nil
}

// diagnose says what is wrong with the first record of a list that has no
// layout, as the usual layout sees it.
func (r *Reader) diagnose(prefix []byte) error {
	var e Entry
	l := layouts[0]
	rec, _, st := l.parse(prefix, &e)
	if st == bad {
		return rec.syntaxError(0, 0)
	}
	return &SyntaxError{Field: "list", Err: errors.New("not an IMA measurement list: no layout fits its first records")}
}

func (rec *record) syntaxError(offset int64, index int) error {
	return &SyntaxError{Offset: offset + int64(rec.at), Entry: index, Field: rec.field, Err: rec.err()}
}

func (rec *record) err() error { return fmt.Errorf("%d, expected %s", rec.got, rec.want) }

// Layout returns the list's layout.
func (r *Reader) Layout() Layout { return r.layout }

// Warnings returns what was odd about the list but did not stop its reading.
// They are complete when Measurements has ended.
func (r *Reader) Warnings() []string { return r.warnings }

// batch is a run of whole records, hashed together.
type batch struct {
	buf     []byte
	len     int   // bytes read into buf
	offset  int64 // of buf[0] in the list
	index   int   // of the first entry
	last    bool  // the source has ended
	used    int   // bytes of whole records
	entries []Entry
	pcrs    []uint32
	at      []int
	digests []rtmr.Digest // banks, then hashes, for each entry
	sums    []byte
	err     error // what stopped the list behind this batch's entries
	done    chan struct{}
}

// Measurements yields the list's entries in order, each valid until the next
// step. On malformed input it yields what came before, then a *SyntaxError,
// and ends. It can be called once.
func (r *Reader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		workers := max(1, min(runtime.GOMAXPROCS(0), 4))
		stop := make(chan struct{})
		defer close(stop)
		free := make(chan *batch, workers+3) // room for r.first too
		for range workers + 2 {
			free <- &batch{buf: make([]byte, batchSize)}
		}
		jobs := make(chan *batch, cap(free)+1)
		order := make(chan *batch, cap(free)+1)
		for range workers {
			go func() {
				for b := range jobs {
					r.hash(b)
					close(b.done)
				}
			}()
		}
		go r.frame(free, jobs, order, stop)
		seen := aggregates{}
		for b := range order {
			<-b.done
			if !r.deliver(b, &seen, yield) {
				return
			}
			if b.err != nil {
				yield(rtmr.Measurement{}, b.err)
				return
			}
			free <- b
		}
		r.warnings = append(r.warnings, seen.warnings()...)
	}
}

// frame cuts the source into batches of whole records, in order.
func (r *Reader) frame(free, jobs, order chan *batch, stop chan struct{}) {
	defer close(jobs)
	defer close(order)
	for b := r.first; ; {
		more := r.cut(b)
		b.done = make(chan struct{})
		jobs <- b
		order <- b
		if !more {
			return
		}
		rest := b.buf[b.used:b.len] // b is only read from until it is freed
		var next *batch
		select {
		case next = <-free:
		case <-stop:
			return
		}
		next.start(b, rest)
		next.read(r.src)
		b = next
	}
}

// start makes b the batch behind prev, with prev's unfinished record in it.
func (b *batch) start(prev *batch, rest []byte) {
	b.offset = prev.offset + int64(prev.used)
	b.index = prev.index + len(prev.entries)
	b.last, b.err = prev.last, nil
	if len(rest) > len(b.buf) {
		b.buf = make([]byte, len(rest))
	}
	b.len = copy(b.buf, rest)
}

// read fills the buffer; where an unfinished record already does, it grows to
// twice of what has arrived.
func (b *batch) read(src io.Reader) {
	if b.last {
		return
	}
	if b.len == len(b.buf) {
		b.buf = append(b.buf, make([]byte, len(b.buf))...)
	}
	n, err := io.ReadFull(src, b.buf[b.len:])
	b.len += n
	if err != nil {
		b.last = true
		if err != io.EOF && err != io.ErrUnexpectedEOF {
			b.err = err
		}
	}
}

// cut parses the batch's records; more says that the list goes on behind it.
func (r *Reader) cut(b *batch) (more bool) {
	b.entries, b.pcrs, b.at, b.used = b.entries[:0], b.pcrs[:0], b.at[:0], 0
	template := ""
	for b.used < b.len {
		e := Entry{template: template}
		rec, n, st := r.layout.parse(b.buf[b.used:b.len], &e)
		if st == bad {
			b.err = rec.syntaxError(b.offset+int64(b.used), b.index+len(b.entries))
			return false
		}
		if st == short {
			break
		}
		template = e.template
		b.entries, b.pcrs, b.at = append(b.entries, e), append(b.pcrs, rec.pcr), append(b.at, b.used)
		b.used += n
	}
	if b.last && b.used < b.len && b.err == nil {
		b.err = &SyntaxError{Offset: b.offset + int64(b.used), Entry: b.index + len(b.entries), Field: "record",
			Err: fmt.Errorf("the list ends %d bytes into it: %w", b.len-b.used, io.ErrUnexpectedEOF)}
	}
	return !b.last && b.err == nil
}

// hash computes what each entry of the batch hashes to and extends.
func (r *Reader) hash(b *batch) {
	b.digests, b.sums = b.digests[:0], b.sums[:0]
	size := 0
	for _, a := range r.hashes {
		size += a.Size()
	}
	for _, a := range r.banks {
		size += a.Size()
	}
	b.sums = slices.Grow(b.sums, size*len(b.entries))
	b.digests = slices.Grow(b.digests, (len(r.hashes)+len(r.banks))*len(b.entries))
	for i := range b.entries {
		e := &b.entries[i]
		start := len(b.digests)
		for _, a := range r.hashes {
			at := len(b.sums)
			b.sums = e.appendHash(b.sums, a)
			b.digests = append(b.digests, rtmr.Digest{Alg: a, Sum: b.sums[at:]})
		}
		e.computed = b.digests[start:len(b.digests):len(b.digests)]
		for _, a := range r.banks {
			b.digests = append(b.digests, r.extended(b, e, a))
		}
	}
}

// extended returns what the kernel extended for an entry into a bank: the
// recorded hash in the list's own bank, the recomputed one in the others.
func (r *Reader) extended(b *batch, e *Entry, a rtmr.Alg) rtmr.Digest {
	padded := r.opts.Profile.padded(a)
	violation := e.Violation()
	if !violation && !padded {
		if a == r.layout.Alg {
			return e.recorded
		}
		return rtmr.Digest{Alg: a, Sum: e.hash(a)}
	}
	at := len(b.sums)
	b.sums = b.sums[:at+a.Size()]
	sum := b.sums[at:]
	if violation {
		r.opts.Profile.fillViolation(sum)
	} else {
		clear(sum)
		if r.layout.Alg == rtmr.SHA1 {
			copy(sum, e.recorded.Sum)
		} else {
			copy(sum, e.hash(rtmr.SHA1))
		}
	}
	return rtmr.Digest{Alg: a, Sum: sum}
}

// deliver yields a batch's entries; false if the caller has had enough.
func (r *Reader) deliver(b *batch, seen *aggregates, yield func(rtmr.Measurement, error) bool) bool {
	per := len(r.hashes) + len(r.banks)
	for i := range b.entries {
		e := &b.entries[i]
		m := rtmr.Measurement{
			Index:   b.index + i,
			Offset:  b.offset + int64(b.at[i]),
			Digests: b.digests[i*per+len(r.hashes) : (i+1)*per],
			Entry:   e,
		}
		var err error
		if m.Register, err = r.opts.Profile.register(b.pcrs[i]); err != nil {
			yield(rtmr.Measurement{}, &SyntaxError{Offset: m.Offset, Entry: m.Index, Field: "PCR index", Err: err})
			return false
		}
		seen.see(m.Index, e)
		if !yield(m, nil) {
			return false
		}
	}
	return true
}

// aggregates counts boot_aggregate entries: one, at the head, is the rule.
type aggregates struct {
	entries, at0 int
	again        []int
}

func (a *aggregates) see(i int, e *Entry) {
	a.entries++
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
	return out
}
