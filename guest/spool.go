//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

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
	_, err := s.file.WriteAt(records, s.size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrJournalFull, err)
	}
	if err == nil {
		s.size += int64(len(records))
	}
	return err
}

// first returns the copy's first n bytes, by the descriptor: the path may be another
// file's by now.
func (s *spool) first(n int64) *io.SectionReader { return io.NewSectionReader(s.file, 0, n) }

// follower follows the kernel's list and keeps the copy of it.
type follower struct {
	mu    sync.Mutex
	list  *List
	spool *spool
	whole bool  // the copy has all that was delivered
	known Trail // what was delivered before,
	again Trail // and of it what the copy lacks
}

// follow goes on behind entries that were delivered before; or, where nobody else
// remembers them, behind all that the copy has.
func follow(cfg *Config, banks []rtmr.Alg, delivered Trail, all bool) (*follower, error) {
	s, err := openSpool(filepath.Dir(cfg.Journal))
	if err != nil {
		return nil, err
	}
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
	f := &follower{list: OpenList(cfg.IMADir, banks, copied), spool: s, whole: true}
	if !all {
		f.known, f.again = delivered, delivered[len(copied):]
	}
	if err == nil {
		f.list.place, err = s.place()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// next returns the next entries, at most n, of which the copy has the records, and
// how long the copy is with them.
func (f *follower) next(n int) (batch []rtmr.Measurement, size int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		trail, at := f.list.trail, f.list.place
		batch, err = f.list.Next(n)
		if len(f.again) > 0 && !f.copies(batch, err) {
			f.again, f.whole = nil, false
			f.list.Close()
			f.list = OpenList(f.list.dir, f.list.banks, f.known)
			continue
		}
		if len(batch) > 0 && f.whole {
			if full := f.spool.append(f.list.Raw()); full != nil {
				f.list.Close() // to have them again
				f.list.trail, f.list.place = trail, at
				return nil, f.spool.size, errors.Join(err, full)
			}
		}
		if done := min(len(f.again), len(batch)); done > 0 {
			f.again, batch = f.again[done:], batch[done:]
			if len(batch) == 0 && err == nil {
				continue
			}
		}
		if len(f.again) == 0 {
			f.known = nil
		}
		return batch, f.spool.size, err
	}
}

// copies reports whether what was read are the entries that the copy lacks. If not,
// they were trimmed, and the copy will not be had.
func (f *follower) copies(batch []rtmr.Measurement, err error) bool {
	if errors.As(err, new(*Gap)) {
		return false
	}
	for i, key := range TrailOf(batch) {
		if i < len(f.again) && key != f.again[i] {
			return false
		}
	}
	return true
}

func (f *follower) close() error { return errors.Join(f.list.Close(), f.spool.file.Close()) }

// errNotWhole says that the copy has not all that was followed.
var errNotWhole = errors.New("the copy of it was lost, and since then the list was trimmed")

// first returns the copy's first n bytes.
func (f *follower) first(n int64) (*io.SectionReader, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.whole || len(f.again) > 0 {
		return nil, errNotWhole
	}
	return f.spool.first(n), nil
}
