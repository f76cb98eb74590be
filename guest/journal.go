//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tallystick/eventlog/cel"
	"tallystick/guest/internal/fault"
	"tallystick/rtmr"
)

// Journal is the log of what this helper extends: a canonical event log in TLV,
// which only grows. The journal leads the registers: a measurement is in it, whole,
// before its extend begins.
//
// A journal comes to its path with its first record in it, and so none is ever empty.
// What is read of it later is read by the descriptor: at the path may be another file.
type Journal struct {
	path     string
	file     *os.File
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
	// ErrJournalBroken says that nothing can be appended any more, until the journal
	// is opened again.
	ErrJournalBroken = errors.New("the journal cannot be written to any more")
)

// RecordError says that one measurement cannot be journaled, whatever the journal's
// state. None of its batch was.
type RecordError struct {
	Index int // in the batch
	Err   error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("measurement %d cannot be journaled: %v", e.Index, e.Err)
}
func (e *RecordError) Unwrap() error { return e.Err }

// reserve is how much room is asked for at a time.
const reserve = 256 << 10

// lockFolder makes a folder if there is none and keeps other helpers from it until the
// file that it returns is closed. The lock is the folder's own (flock(2)), for nobody
// renames that while a journal is put aside or removed; systemd-tmpfiles leaves a
// folder alone that is locked so.
func lockFolder(path string) (*os.File, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, err
	}
	for {
		folder, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == unix.EWOULDBLOCK {
			err = ErrJournalHeld
		} else if err == nil {
			var same bool
			if same, err = isAt(folder, path); same {
				return folder, nil
			}
		}
		folder.Close()
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// isAt reports whether a path leads to the open file.
func isAt(file *os.File, path string) (bool, error) {
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, there), err
}

// openJournal opens the journal and calls each for every record in it, whose memory is
// valid until each returns.
//
// A record at the end that is a part of one is what a process that died while it
// appended left: its extend had not begun. torn is its bytes, which are left there
// until cut. Anything else that is no record is a *rtmr.SyntaxError, and the journal
// is left as it is.
func openJournal(path string, each func(rtmr.Measurement) error) (j *Journal, torn []byte, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	j = &Journal{path: path, file: file}
	info, err := file.Stat()
	if err == nil {
		torn, err = j.read(info.Size(), each)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	j.reserved = j.size
	return j, torn, nil
}

// newJournal begins a journal that is to come to the path, and is not there before it
// is installed.
func newJournal(path string, first rtmr.Measurement) (*Journal, error) {
	file, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, err
	}
	j := &Journal{path: path, file: file}
	j.w = cel.NewWriter(&j.batch, cel.TLV)
	if err := j.Append([]rtmr.Measurement{first}); err != nil {
		file.Close()
		return nil, err
	}
	return j, nil
}

// install has the journal come to its path. One that is there gets the name aside, if
// that is not "", before.
func (j *Journal) install(aside string) error {
	fault.Point("install.before")
	defer fault.Point("install.after")
	if aside != "" {
		fault.Point("aside.before")
		if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Link(j.path, aside); err != nil {
			return err
		}
		fault.Point("aside.linked")
	}
	return os.Rename(j.path+".new", j.path)
}

// read takes up to size bytes for the journal's: it calls each for the records, has
// the writer go on behind them, and returns the part of one at the end.
func (j *Journal) read(size int64, each func(rtmr.Measurement) error) (torn []byte, err error) {
	j.w, j.counts = cel.NewWriter(&j.batch, cel.TLV), Counts{}
	for m, err := range cel.NewReader(io.NewSectionReader(j.file, 0, size), cel.TLV).Measurements() {
		var syntax *rtmr.SyntaxError
		if errors.As(err, &syntax) && errors.Is(err, io.ErrUnexpectedEOF) {
			j.size = syntax.Offset // of the record
			torn = make([]byte, size-j.size)
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
	j.size = size
	return nil, nil
}

// cut takes away what is behind the last whole record.
func (j *Journal) cut() error {
	fault.Point("cut.before")
	defer fault.Point("cut.after")
	j.reserved = j.size
	return j.file.Truncate(j.size)
}

// Append appends measurements, all or none. Where a write fails it is tried once more,
// behind the last record that is whole; then nothing can be appended any more, which
// is ErrJournalBroken.
func (j *Journal) Append(batch []rtmr.Measurement) error {
	if j.err != nil {
		return j.err
	}
	err := j.append(batch)
	if err == nil || errors.Is(err, ErrJournalFull) || errors.As(err, new(*RecordError)) {
		return err
	}
	if again := j.append(batch); again != nil {
		j.err = fmt.Errorf("%w: %w", ErrJournalBroken, again)
		return j.err
	}
	return nil
}

// append is Append, once.
func (j *Journal) append(batch []rtmr.Measurement) error {
	need := int64(0)
	for _, m := range batch {
		need += recordBound(m)
	}
	if err := j.reserve(need); err != nil {
		return err
	}
	err := j.write(batch)
	if err == nil {
		return nil
	}
	undo := j.cut()
	if undo == nil {
		_, undo = j.read(j.size, func(rtmr.Measurement) error { return nil })
	}
	if undo != nil {
		j.err = fmt.Errorf("%w: %w; and %w", ErrJournalBroken, err, undo)
		return j.err
	}
	return err
}

// write encodes and writes the batch. After an error the file's end and the writer's
// record numbers are not known.
func (j *Journal) write(batch []rtmr.Measurement) error {
	j.batch.Reset()
	for i, m := range batch {
		if err := j.w.Write(m); err != nil {
			return &RecordError{i, err}
		}
	}
	fault.Point("append.before")
	fault.Torn("append.torn", j.file, j.batch.Bytes(), j.size)
	n, err := j.file.WriteAt(j.batch.Bytes(), j.size)
	fault.Point("append.after")
	if err != nil {
		return full(fmt.Errorf("%d of %d bytes written: %w", n, j.batch.Len(), err))
	}
	j.size += int64(n)
	for _, m := range batch {
		j.counts.add(m)
	}
	return nil
}

// full makes an error that is for want of room one that says so.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrJournalFull, err)
	}
	return err
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
// not fail for want of it half way. tmpfs does (mm/shmem.c, shmem_fallocate); where
// none does (fallocate(2): EOPNOTSUPP), the write tells.
func (j *Journal) reserve(n int64) error {
	if j.size+n <= j.reserved {
		return nil
	}
	want := max(n, reserve)
	fault.Point("reserve.before")
	defer fault.Point("reserve.after")
	err := j.fallocate(want)
	if err == unix.ENOSPC && want > n {
		want = n
		err = j.fallocate(want)
	}
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return full(fmt.Errorf("reserve %d bytes: %w", n, err))
	}
	j.reserved = j.size + want
	return nil
}

func (j *Journal) fallocate(n int64) error {
	for {
		if err := unix.Fallocate(int(j.file.Fd()), unix.FALLOC_FL_KEEP_SIZE, j.size, n); err != unix.EINTR {
			return err
		}
	}
}

// Size returns how many bytes of records there are. Whoever reads as many of the
// file has whole records, whatever is appended meanwhile.
func (j *Journal) Size() int64 { return j.size }

// ReadFirst returns the first n bytes, whatever is at the journal's path by now.
func (j *Journal) ReadFirst(n int64) *io.SectionReader { return io.NewSectionReader(j.file, 0, n) }

// Close lets go of the journal, which stays.
func (j *Journal) Close() error { return j.file.Close() }

// asideFor returns a name for a journal that is put aside: of one that is damaged each
// has its own, and of others the last is kept.
func asideFor(path, why string) (string, error) {
	if why != asideDamaged {
		return path + "." + why, nil
	}
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.%s-%d", path, why, i)
		info, err := os.Lstat(aside)
		if errors.Is(err, fs.ErrNotExist) {
			return aside, nil
		}
		if err != nil {
			return "", err
		}
		// Whoever gave it this name died before the new journal came to the path.
		if there, err := os.Lstat(path); err == nil && os.SameFile(info, there) {
			return aside, nil
		}
	}
}

// Why journals are put aside, as their names say it.
const (
	asideDamaged     = "damaged"
	asideOtherBoot   = "other-boot"
	asideOtherDevice = "other-device"
)

// readAside calls each for the records of a journal that was put aside, up to where it
// cannot be believed.
func readAside(path string, each func(rtmr.Measurement) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for m, err := range cel.NewReader(file, cel.TLV).Measurements() {
		if err != nil || each(m) != nil {
			return nil
		}
	}
	return nil
}

// inFolder is the path of a file beside the journal, of which a record has the name.
func inFolder(journal, name string) string {
	return filepath.Join(filepath.Dir(journal), filepath.Base(name))
}
