//go:build linux

package tap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
)

// Options are how to tap. The zero value is the default.
type Options struct {
	// Poll is how long Wait waits for a source that is not tapped; 1 s if 0.
	Poll time.Duration
	// Recheck is how long it waits for one that is, in case a call was missed
	// (see Status); 1 min if 0.
	Recheck time.Duration

	// Ring is the size in bytes of the kernel's ring buffer, a power of two and
	// no less than a page; 256 KiB if 0. A record takes 176 bytes of it.
	Ring int
	// Buffer is how many records wait for Next; 1024 if 0. Further ones are lost.
	Buffer int

	// IMA is the one method by which IMA is to be tapped, Kprobe, KprobeMulti or
	// Fexit; the first that works if "".
	IMA Method
}

// Tap is an open tap. Its methods may be called from any number of goroutines
// at once.
type Tap struct {
	poll, recheck time.Duration
	sources       [numSources]source
	wake          [numSources]chan struct{}
	woken         [numSources]atomic.Uint64 // how often Wait returned by wake
	dropped       [numSources]atomic.Uint64 // records for which Buffer had no room

	ring     *ebpf.Map
	counters *ebpf.Map
	memory   *ebpf.Memory    // of counters
	reader   *ringbuf.Reader // nil if nothing is tapped
	records  chan Record
	drained  chan struct{} // closed when the ring is not read any more
	readErr  error         // why, before Close; after drained

	mu     sync.Mutex // over Status and Close
	closed chan struct{}
	final  []Status // after Close
}

// Status is how a source is tapped, and what came of it since Open.
type Status struct {
	Source Source
	// Method is how it is tapped; "" if it is not.
	Method Method
	// Err is why it is not tapped, or for IMA by fexit, why not by kprobes. It is
	// rtmr.ErrNotSupported where the kernel lacks something, the source itself
	// or what tapping it takes, and rtmr.ErrDenied where this process may not.
	Err error
	// Poll is the interval at which Wait returns where it is not tapped.
	Poll time.Duration

	// Measured is how many measurements were seen, and Lost for how many of them
	// there is no record, because the ring or the buffer was full.
	Measured, Lost uint64
	// Woken is how often Wait returned because something was measured, and not
	// because an interval ended.
	Woken uint64
	// Missed is how many calls at most the kernel did not run a program for, so
	// that nobody knows whether they measured. They count neither as measured nor
	// as lost. With Fexit they occur where a kernel preempts a task within a program
	// and others measure meanwhile on the same processor; with the others hardly ever.
	Missed uint64
}

// String says it on one line.
func (s Status) String() string {
	if s.Method == "" {
		return fmt.Sprintf("%s: not tapped, polling every %v: %v", s.Source, s.Poll, s.Err)
	}
	text := fmt.Sprintf("%s: tapped by %s, %d measured, %d times woken, %d records lost", s.Source, s.Method, s.Measured, s.Woken, s.Lost)
	if s.Missed > 0 {
		text += fmt.Sprintf(", %d calls missed", s.Missed)
	}
	if s.Err != nil {
		text += fmt.Sprintf(" (%v)", s.Err)
	}
	return text
}

// Open taps what this kernel lets this process tap. It is not an error if that
// is nothing: Status says why.
func Open(opts Options) (*Tap, error) {
	t := &Tap{poll: opts.Poll, recheck: opts.Recheck, closed: make(chan struct{}), drained: make(chan struct{})}
	if t.poll <= 0 {
		t.poll = time.Second
	}
	if t.recheck <= 0 {
		t.recheck = time.Minute
	}
	if opts.Buffer <= 0 {
		opts.Buffer = 1024
	}
	for i := range t.wake {
		t.wake[i] = make(chan struct{}, 1)
	}
	t.records = make(chan Record, opts.Buffer)

	if n := opts.Ring; n != 0 && (n < os.Getpagesize() || n&(n-1) != 0 || n > 1<<30) {
		return nil, fmt.Errorf("open tap: a ring of %d bytes, expected a power of two, %d or more", n, os.Getpagesize())
	}
	if m := opts.IMA; m != "" && m != Kprobe && m != KprobeMulti && m != Fexit {
		return nil, fmt.Errorf("open tap: IMA by %q, expected %s, %s or %s", m, Kprobe, KprobeMulti, Fexit)
	}
	spec, err := loadTap()
	if err != nil {
		return nil, fmt.Errorf("open tap: %w", err)
	}
	if opts.Ring != 0 {
		spec.Maps[tapMapRecords].MaxEntries = uint32(opts.Ring)
	}
	t.open(spec, opts.IMA)
	if t.reader == nil {
		close(t.drained)
	} else {
		go t.read()
	}
	return t, nil
}

// open taps the sources, and leaves no reader where none can be.
func (t *Tap) open(spec *ebpf.CollectionSpec, only Method) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		err = explain(err, "BTF (CONFIG_DEBUG_INFO_BTF)")
	} else {
		err = t.newMaps(spec)
	}
	if err != nil {
		t.sources = [numSources]source{IMA: {err: err}, TSM: {err: err}}
		return
	}
	l := loader{spec, types, map[string]*ebpf.Map{tapMapRecords: t.ring, tapMapCounters: t.counters}}
	t.sources = [numSources]source{IMA: l.ima(only), TSM: l.tsm()}
	if t.sources[IMA].method == "" && t.sources[TSM].method == "" {
		t.reader.Close()
		t.reader = nil
		t.ring.Close()
		t.counters.Close()
	}
}

// newMaps makes what the programs share, and the reader of the ring.
func (t *Tap) newMaps(spec *ebpf.CollectionSpec) (err error) {
	defer func() {
		if err != nil {
			t.ring.Close()
			t.counters.Close()
			err = explain(err, "BPF maps")
		}
	}()
	if t.ring, err = ebpf.NewMap(spec.Maps[tapMapRecords]); err != nil {
		return fmt.Errorf("ring buffer: %w", err)
	}
	if t.counters, err = ebpf.NewMap(spec.Maps[tapMapCounters]); err != nil {
		return fmt.Errorf("counters: %w", err)
	}
	if err = t.counters.Freeze(); err != nil {
		return fmt.Errorf("freeze counters: %w", err)
	}
	if t.memory, err = t.counters.Memory(); err != nil {
		return fmt.Errorf("map counters: %w", err)
	}
	if t.reader, err = ringbuf.NewReader(t.ring); err != nil {
		return fmt.Errorf("ring buffer: %w", err)
	}
	return nil
}

// read takes records out of the ring as they come, until Close.
func (t *Tap) read() {
	defer close(t.drained)
	var raw ringbuf.Record
	var seen [numSources]uint64
	for {
		err := t.reader.ReadInto(&raw)
		var r Record
		if err == nil {
			r, err = decode(raw.RawSample)
		}
		if err != nil {
			if !errors.Is(err, ringbuf.ErrFlushed) { // by Close
				t.readErr = err
			}
			return
		}
		seen[r.Source] = max(seen[r.Source], r.Sequence)
		t.signal(r.Source)
		select {
		case t.records <- r:
		default:
			t.dropped[r.Source].Add(1)
		}
		if raw.Remaining == 0 {
			t.signalLost(&seen)
		}
	}
}

// signal has Wait return for the source.
func (t *Tap) signal(s Source) {
	select {
	case t.wake[s] <- struct{}{}:
	default: // the next call returns at once already
	}
}

// signalLost signals for measurements that have no record: they were counted
// while the ring was full, and the ring is read only afterwards.
func (t *Tap) signalLost(seen *[numSources]uint64) {
	for s := range Source(numSources) {
		if c := t.counts(s); c.Measured > seen[s] {
			seen[s] = c.Measured
			t.signal(s)
		}
	}
}

// counts reads the source's counters, each of which is whole.
func (t *Tap) counts(s Source) (c tapCounts) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&c)), unsafe.Sizeof(c))
	if _, err := t.memory.ReadAt(b, int64(s)*int64(len(b))); err != nil {
		panic(err) // the map is smaller than newMaps made it
	}
	return c
}

// Wait returns nil when the source measured something since Wait last returned
// for it, or since Open; and at an interval, Options.Poll where the source is
// not tapped, Options.Recheck where it is. However much was measured meanwhile,
// it returns once. Of several callers for one source, one is woken.
//
// It returns the context's error, or os.ErrClosed after Close.
func (t *Tap) Wait(ctx context.Context, s Source) error {
	select {
	case <-t.closed:
		return errClosed
	default:
	}
	interval := t.recheck
	if t.sources[s].method == "" || t.readError() != nil {
		interval = t.poll
	}
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-t.wake[s]:
		t.woken[s].Add(1)
		return nil
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.closed:
		return errClosed
	}
}

var errClosed = fmt.Errorf("tap: %w", os.ErrClosed)

// Next returns the next record, and waits for one: for ever, where nothing is
// tapped. It returns the context's error, or os.ErrClosed when the tap is closed
// and all records were had.
func (t *Tap) Next(ctx context.Context) (Record, error) {
	select {
	case r := <-t.records:
		return r, nil
	default:
	}
	select {
	case r := <-t.records:
		return r, nil
	case <-ctx.Done():
		return Record{}, ctx.Err()
	case <-t.closed:
	}
	select {
	case r := <-t.records:
		return r, nil
	default:
		return Record{}, errClosed
	}
}

// Records yields what Next returns, up to its first error, which comes last.
func (t *Tap) Records(ctx context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			r, err := t.Next(ctx)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// Status returns how each source is tapped, IMA first. Counters are those of the
// moment, or of Close.
func (t *Tap) Status() []Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.final != nil {
		return slices.Clone(t.final)
	}
	return t.status()
}

func (t *Tap) status() []Status {
	all := make([]Status, numSources)
	for i := range all {
		s := &t.sources[i]
		all[i] = Status{Source: Source(i), Method: s.method, Err: s.err, Poll: t.poll}
		if s.method == "" {
			continue
		}
		c := t.counts(Source(i))
		recursed, err := s.missed()
		all[i].Measured = c.Measured
		all[i].Woken = t.woken[i].Load()
		all[i].Lost = c.Lost + t.dropped[i].Load()
		all[i].Missed = c.Missed + recursed
		if err := errors.Join(t.readError(), err); err != nil {
			all[i].Err = errors.Join(s.err, err)
		}
	}
	return all
}

// readError returns why the ring is not read any more.
func (t *Tap) readError() error {
	if t.reader == nil {
		return nil
	}
	select {
	case <-t.drained:
		return t.readErr
	default:
		return nil
	}
}

// Close takes the programs out of the kernel. What was measured before can still
// be had by Next.
func (t *Tap) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.final != nil {
		return nil
	}
	var errs []error
	for i := range t.sources {
		errs = append(errs, t.sources[i].detach())
	}
	if t.reader != nil {
		if err := t.reader.Flush(); err != nil {
			errs = append(errs, err, t.reader.Close())
		}
		<-t.drained
	}
	t.final = t.status()
	close(t.closed)
	if t.reader != nil {
		errs = append(errs, t.reader.Close(), t.ring.Close(), t.counters.Close())
	}
	for i := range t.sources {
		errs = append(errs, t.sources[i].close())
	}
	return errors.Join(errs...)
}
