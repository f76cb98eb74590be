//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tallystick/eventlog/cel"
	"tallystick/rtmr"
)

// Journal is the log of what this helper extends: a canonical event log in TLV,
// which only grows. The journal leads the registers: a measurement is in it, whole,
// before its extend begins.
//
// One process at a time holds it, by flock(2) of a file beside it, which stays where
// it is when the journal is put aside.
type Journal struct {
	file     *os.File
	lock     *os.File // nil for who locked it otherwise
	w        *cel.Writer
	batch    bytes.Buffer // what w has encoded and is not in the file
	size     int64        // of the records in the file
	reserved int64        // up to where the file system has promised room
	err      error        // why nothing can be appended any more
	counts   Counts
}

var (
	// ErrJournalHeld says that another process holds the journal.
	ErrJournalHeld = errors.New("another process holds the journal")
	// ErrJournalFull says that there is no room in the journal's file system.
	// Nothing was appended; trying again when there is room is safe.
	ErrJournalFull = errors.New("no room for the journal")
)

// reserve is how much room is asked for at a time.
const reserve = 256 << 10

// OpenJournal opens the journal, or makes an empty one, and calls each for every
// record in it, whose memory is valid until each returns.
//
// A record at the end that is a part of one is what a process that died while it
// appended left: its extend had not begun. torn is its bytes, which are left there
// until cut.
// Anything else that is no record is a *rtmr.SyntaxError, and the journal is left
// as it is.
func OpenJournal(path string, each func(rtmr.Measurement) error) (j *Journal, torn []byte, err error) {
	lock, err := lockJournal(path)
	if err != nil {
		return nil, nil, err
	}
	if j, torn, err = openJournal(path, each); err != nil {
		lock.Close()
		return nil, nil, err
	}
	j.lock = lock
	return j, torn, nil
}

// openJournal is OpenJournal for who has locked it.
func openJournal(path string, each func(rtmr.Measurement) error) (j *Journal, torn []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, nil, err
	}
	j = &Journal{file: file}
	j.w = cel.NewWriter(&j.batch, cel.TLV)
	if torn, err = j.read(each); err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("journal %s: %w", path, err)
	}
	j.reserved = j.size
	return j, torn, nil
}

// lockJournal keeps others from a journal until the file that it returns is closed.
func lockJournal(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	switch err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
	case nil:
		return file, nil
	case unix.EWOULDBLOCK:
		err = ErrJournalHeld
	default:
		err = fmt.Errorf("lock: %w", err)
	}
	file.Close()
	return nil, fmt.Errorf("journal %s: %w", path, err)
}

// read calls each for the records, and returns the part of one at the end.
func (j *Journal) read(each func(rtmr.Measurement) error) (torn []byte, err error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	for m, err := range cel.NewReader(io.NewSectionReader(j.file, 0, info.Size()), cel.TLV).Measurements() {
		var syntax *rtmr.SyntaxError
		if errors.As(err, &syntax) && errors.Is(err, io.ErrUnexpectedEOF) {
			j.size = syntax.Offset // of the record
			torn = make([]byte, info.Size()-j.size)
			_, err := j.file.ReadAt(torn, j.size)
			return torn, err
		}
		if err != nil {
			return nil, err
		}
		j.w.Continue(m.Entry.(*cel.Entry))
		j.counts.add(m)
		if err := each(m); err != nil {
			return nil, err
		}
	}
	j.size = info.Size()
	return nil, nil
}

// cut takes away what is behind the last whole record.
func (j *Journal) cut() error { return j.file.Truncate(j.size) }

// Append appends measurements, all or none. After an error that is not
// ErrJournalFull nothing can be appended any more: what is in the file is not
// known.
func (j *Journal) Append(batch []rtmr.Measurement) error {
	if j.err != nil {
		return j.err
	}
	need := int64(0)
	for _, m := range batch {
		need += recordBound(m)
	}
	if err := j.reserve(need); err != nil {
		return fmt.Errorf("journal %s: %w", j.file.Name(), err)
	}
	j.batch.Reset()
	for _, m := range batch {
		if err := j.w.Write(m); err != nil {
			j.err = fmt.Errorf("journal %s: %w", j.file.Name(), err)
			return j.err
		}
	}
	n, err := j.file.WriteAt(j.batch.Bytes(), j.size)
	if err != nil {
		j.err = fmt.Errorf("journal: %d of %d bytes written: %w", n, j.batch.Len(), errors.Join(err, j.file.Truncate(j.size)))
		return j.err
	}
	j.size += int64(n)
	for _, m := range batch {
		j.counts.add(m)
	}
	return nil
}

// recordBound is more than the measurement's record can take: its data, a TLV
// for each digest and for each of the record's fields, and a template's name.
func recordBound(m rtmr.Measurement) int64 {
	n := int64(512)
	for _, d := range m.Digests {
		n += int64(len(d.Sum)) + 16
	}
	if m.Entry != nil {
		n += int64(len(m.Entry.Data()) + len(m.Entry.Type()))
	}
	return n
}

// reserve has the file system promise room for n bytes more, so that a write can
// not fail for want of it half way. tmpfs does (mm/shmem.c, shmem_fallocate).
func (j *Journal) reserve(n int64) error {
	if j.size+n <= j.reserved {
		return nil
	}
	want := max(n, reserve)
	err := unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, want)
	if err == unix.ENOSPC && want > n {
		want = n
		err = unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, want)
	}
	switch err {
	case nil:
		j.reserved = j.size + want
		return nil
	case unix.ENOSPC, unix.EDQUOT:
		return fmt.Errorf("%w: %d bytes: %w", ErrJournalFull, n, err)
	}
	return fmt.Errorf("reserve %d bytes: %w", n, err)
}

// Size returns how many bytes of records there are. Whoever reads as many of the
// file has whole records, whatever is appended meanwhile.
func (j *Journal) Size() int64 { return j.size }

// ReadFirst returns the first n bytes, by the descriptor: what is at the path by now may
// be another file.
func (j *Journal) ReadFirst(n int64) *io.SectionReader { return io.NewSectionReader(j.file, 0, n) }

// Close lets go of the journal, which stays.
func (j *Journal) Close() error {
	err := j.file.Close()
	if j.lock != nil {
		err = errors.Join(err, j.lock.Close())
	}
	return err
}
