//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"tallystick/guest/internal/fault"
	"tallystick/ima"
	"tallystick/rtmr"
)

// spoolName is the file of the copy, in the journal's folder.
const spoolName = "ima.list"

// spool is a copy of the kernel's list, byte for byte as it was followed, for the
// evidence. The list itself will not do: it may have been trimmed; and to read n
// entries of it takes the kernel n² steps, as each 4 KiB are found from the head.
//
// The copy leads the journal, and nothing depends on it but the evidence: what is
// lost of it is read from the list again, if it is still there.
type spool struct {
	file *os.File
	size int64 // of the records in it
	// What of it was there at the start: where its last entry is, and whether its
	// first is unlike any other.
	last  int64
	alone bool
}

// openSpool opens the copy in a folder, or begins one.
func openSpool(dir string) (*spool, error) {
	file, err := os.OpenFile(filepath.Join(dir, spoolName), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o640)
	return &spool{file: file}, err
}

// read calls each for the entries of a copy that was there, up to the first that it
// does not want or that is none; what is behind it is cut off.
func (s *spool) read(each func(*ima.Entry) bool) error {
	var c cutter
	c.begin(s.file, 0)
	var e ima.Entry
	for {
		record, err := c.next(&e)
		if err != nil && !errors.As(err, new(*rtmr.SyntaxError)) {
			return err
		}
		if record == nil || !each(&e) {
			return s.file.Truncate(s.size)
		}
		if s.size == 0 {
			s.alone = !e.Violation()
		}
		s.last, s.size = s.size, s.size+int64(len(record))
	}
}

// place is where the last entry stands in a list that is not trimmed.
func (s *spool) place() (p place, err error) {
	if s.size == 0 {
		return p, nil
	}
	p.at, p.alone = s.last, s.alone
	p.head, err = headOf(s.file)
	return p, err
}

// append appends records, all or none: what of them a full file system took is
// written over by the next.
func (s *spool) append(records []byte) error {
	fault.Torn("copy.torn", s.file, records, s.size)
	_, err := s.file.WriteAt(records, s.size)
	fault.Point("copy.after")
	if err == nil {
		s.size += int64(len(records))
	}
	return full(err)
}

// first returns the copy's first n bytes, by the descriptor: the path may be another
// file's by now.
func (s *spool) first(n int64) *io.SectionReader { return io.NewSectionReader(s.file, 0, n) }

// follower follows the kernel's list and keeps the copy of it.
type follower struct {
	mu    sync.Mutex
	list  *List
	spool *spool
	lost  error // why the copy has not all that was delivered; nil while it has

	// What was read for which the copy had no room, and the gap before it.
	waiting []rtmr.Measurement
	before  error
}

// follow goes on behind entries that were delivered before; or, where nobody else
// remembers them, behind all that the copy has.
func follow(ctx context.Context, cfg *Config, banks []rtmr.Alg, delivered Trail, all bool) (f *follower, err error) {
	s, err := openSpool(cfg.folder())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.file.Close()
		}
	}()
	var copied Trail
	err = s.read(func(e *ima.Entry) bool {
		n := len(copied)
		copied.Add(e)
		if all || n < len(delivered) && copied[n] == delivered[n] {
			return true
		}
		copied = copied[:n]
		return false
	})
	if err != nil {
		return nil, err
	}
	f = &follower{list: OpenList(cfg.IMADir, banks, copied), spool: s}
	if f.list.place, err = s.place(); err == nil && !all {
		err = f.restore(ctx, delivered, delivered[len(copied):])
	}
	if err != nil {
		f.list.Close()
		return nil, err
	}
	return f, nil
}

// restore copies the entries that were delivered and that the copy lacks. Where they
// were trimmed, it will never be whole again.
func (f *follower) restore(ctx context.Context, delivered, missing Trail) error {
	for len(missing) > 0 {
		batch, err := nextOf(ctx, f.list, min(maxBatch, len(missing)))
		keys := TrailOf(batch)
		if err != nil && !errors.As(err, new(*Gap)) {
			return err
		}
		if err != nil || len(keys) == 0 || !slices.Equal(keys, missing[:len(keys)]) {
			f.list.Close()
			f.list, f.lost = OpenList(f.list.dir, f.list.banks, delivered), errTrimmed
			return nil
		}
		if err := f.spool.append(f.list.Raw()); err != nil {
			return err
		}
		missing = missing[len(keys):]
	}
	return nil
}

// next returns the next entries, at most n, of which the copy has the records, and
// how long the copy is with them.
func (f *follower) next(n int) (batch []rtmr.Measurement, size int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	batch, err = f.waiting, f.before
	if len(batch) == 0 {
		batch, err = f.list.Next(n)
	}
	if len(batch) > 0 && f.lost == nil {
		switch failed := f.spool.append(f.list.Raw()); {
		case errors.Is(failed, ErrJournalFull):
			// Not to be read again at each try, nor the list kept open till then.
			f.list.Close()
			f.waiting, f.before = batch, err
			return nil, f.spool.size, failed
		case failed != nil: // for good: what is measured goes on without it
			f.lost = fmt.Errorf("the copy of it failed: %w", failed)
		}
	}
	f.waiting, f.before = nil, nil
	return batch, f.spool.size, err
}

func (f *follower) close() error { return errors.Join(f.list.Close(), f.spool.file.Close()) }

var errTrimmed = errors.New("the copy of it was lost, and since then the list was trimmed")

// first returns the copy's first n bytes.
func (f *follower) first(n int64) (*io.SectionReader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost != nil {
		return nil, f.lost
	}
	return f.spool.first(n), nil
}
