//go:build linux

package guest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"tallystick/ima"
	"tallystick/rtmr"
)

// IMADir is where the kernel has its measurement lists.
const IMADir = "/sys/kernel/security/ima"

// List follows the kernel's IMA list from its first entry on. It keeps one
// descriptor, since each read(2) walks the list from its head to where the last
// one ended (security/integrity/ima/ima_fs.c, ima_measurements_start).
type List struct {
	dir   string
	banks []rtmr.Alg

	file   *os.File
	head   []byte // what the list began with when it was opened
	layout ima.Layout
	known  bool   // the layout is
	unread []byte // read, and not a whole entry yet
	at     int    // entries of the list as it is now, that were read
	skip   int    // entries of them that were delivered before
	trail  Trail
}

// Gap is a place in the list where entries may be missing: it was trimmed, and what
// is in it now does not go on where it was read to.
type Gap struct {
	After int // entries delivered before
}

func (g *Gap) Error() string {
	return fmt.Sprintf("the IMA list was trimmed, and what it has now need not be what came after entry %d", g.After)
}

// OpenList opens the list in a folder as the kernel's. The digests of its entries
// are for the banks. Entries that were delivered before, by another process, are in
// the trail, and are not delivered again.
func OpenList(dir string, banks []rtmr.Alg, delivered Trail) *List {
	return &List{dir: dir, banks: banks, trail: slices.Clone(delivered)}
}

// Trail are the entries that were delivered since boot, by a few bytes of each
// one's hash.
type Trail []uint64

// Add adds an entry.
func (t *Trail) Add(e *ima.Entry) {
	hash := sha256.New()
	hash.Write([]byte(e.Template()))
	hash.Write(e.Data())
	*t = append(*t, binary.BigEndian.Uint64(hash.Sum(nil)))
}

// TrailOf returns the trail of a list's measurements.
func TrailOf(batch []rtmr.Measurement) (t Trail) {
	for _, m := range batch {
		t.Add(m.Entry.(*ima.Entry))
	}
	return t
}

// Next returns the next entries of the list, at most n, in memory of their own; none
// where there are no more for now, or no list. A *Gap comes with the entries after it.
func (l *List) Next(n int) (batch []rtmr.Measurement, err error) {
	var gap *Gap
	for range 3 {
		if l.file == nil {
			err := l.open()
			if errors.Is(err, fs.ErrNotExist) && len(l.trail) == 0 {
				return nil, nil
			}
			if err != nil && !errors.As(err, &gap) {
				return nil, err
			}
		}
		batch, err = l.read(n)
		if !l.trimmed() {
			break
		}
		l.Close() // what was read may be of another place in the list
		batch, err = nil, nil
	}
	l.trail = append(l.trail, TrailOf(batch)...)
	if gap != nil {
		err = errors.Join(gap, err)
	}
	return batch, err
}

// trimmed reports whether the list begins with another entry than when it was
// opened. Its length tells nothing, as it grows meanwhile.
func (l *List) trimmed() bool {
	first, err := l.first()
	if l.head == nil { // it was empty
		l.head = first
	}
	return err == nil && !bytes.Equal(first, l.head)
}

// first returns the beginning of the list.
func (l *List) first() ([]byte, error) {
	file, err := os.Open(l.path())
	if err != nil {
		return nil, err
	}
	defer file.Close()
	head := make([]byte, headSize)
	n, err := io.ReadFull(file, head)
	if n < headSize {
		return nil, err
	}
	return head, nil
}

// headSize is enough of an entry to tell it from another: PCR and template hash,
// and of the template data what is behind the 8 bytes of the lengths.
const headSize = 80

func (l *List) path() string { return filepath.Join(l.dir, "binary_runtime_measurements") }

// open opens the list and finds where in it the trail ends.
func (l *List) open() error {
	file, err := os.Open(l.path())
	if err != nil {
		return err
	}
	if l.head, err = l.first(); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		file.Close()
		return err
	}
	l.file, l.unread, l.at, l.skip = file, nil, 0, 0
	if len(l.trail) == 0 {
		return nil
	}
	if err := l.resume(); err != nil {
		if !errors.As(err, new(*Gap)) {
			l.Close()
		}
		return err
	}
	return nil
}

// resume reads the list up to where the trail ends. A list that was not trimmed
// begins as the trail does; of another, all has to be seen to find the place.
func (l *List) resume() error {
	for at := 0; at < len(l.trail); {
		batch, err := l.read(min(maxBatch, len(l.trail)-at))
		if err != nil {
			return err
		}
		keys := TrailOf(batch)
		if len(keys) == 0 || !slices.Equal(keys, l.trail[at:at+len(keys)]) {
			return l.search()
		}
		at += len(keys)
	}
	return nil
}

// search finds the place in a list that was trimmed.
func (l *List) search() error {
	if err := l.rewind(); err != nil {
		return err
	}
	keys, err := l.keys()
	if err != nil {
		return err
	}
	if err := l.rewind(); err != nil {
		return err
	}
	if l.skip = l.trail.overlap(keys); l.skip == 0 {
		return &Gap{len(l.trail)}
	}
	return nil
}

func (l *List) rewind() error {
	l.unread, l.at, l.skip = nil, 0, 0
	_, err := l.file.Seek(0, io.SeekStart)
	return err
}

// keys reads the list to its end for now.
func (l *List) keys() (keys Trail, err error) {
	for {
		batch, err := l.read(maxBatch)
		if err != nil || len(batch) == 0 {
			return keys, err
		}
		keys = append(keys, TrailOf(batch)...)
	}
}

// overlap returns how many of the keys' first are the trail's last. A list loses
// entries at its head alone, so whatever the trail has after one of the list's
// entries is in the list.
func (t Trail) overlap(keys Trail) int {
	for n := min(len(t), len(keys)); n > 0; n-- {
		if slices.Equal(t[len(t)-n:], keys[:n]) {
			return n
		}
	}
	return 0
}

// readSize is how much is asked for at a time. The kernel gives a page or so.
const readSize = 64 << 10

// read reads entries, n at most, beyond those to skip.
func (l *List) read(n int) (batch []rtmr.Measurement, err error) {
	for {
		got, rest, err := l.parse(n - len(batch))
		batch, l.unread = append(batch, got...), rest
		if err != nil || len(batch) == n {
			return batch, err
		}
		l.unread = slices.Grow(l.unread, readSize)
		k, err := l.file.Read(l.unread[len(l.unread) : len(l.unread)+readSize])
		l.unread = l.unread[:len(l.unread)+k]
		if k == 0 || err == io.EOF {
			return batch, nil
		}
		if err != nil {
			return batch, err
		}
	}
}

// parse returns the whole entries of what is unread, n at most, and the rest.
func (l *List) parse(n int) (batch []rtmr.Measurement, rest []byte, err error) {
	if len(l.unread) == 0 {
		return nil, l.unread, nil
	}
	if !l.known {
		if l.layout, l.known = ima.Detect(l.unread); !l.known {
			return nil, l.unread, nil
		}
	}
	data := bytes.Clone(l.unread) // which the entries keep
	r, err := ima.NewReader(bytes.NewReader(data), ima.Options{Banks: l.banks, Order: l.layout.Order, Alg: l.layout.Alg})
	if err != nil {
		return nil, l.unread, err
	}
	end := int64(len(data))
	for m, err := range r.Measurements() {
		if syntax := (*rtmr.SyntaxError)(nil); errors.As(err, &syntax) && errors.Is(err, io.ErrUnexpectedEOF) {
			end = syntax.Offset
			break
		}
		if err != nil {
			return batch, l.unread, err
		}
		if len(batch) == n {
			end = m.Offset
			break
		}
		l.at++
		if l.at <= l.skip {
			continue
		}
		batch = append(batch, keep(m))
	}
	return batch, l.unread[end:], nil
}

// keep returns the measurement in memory of its own.
func keep(m rtmr.Measurement) rtmr.Measurement {
	entry := m.Entry.(*ima.Entry)
	m.Entry = ima.NewEntry(entry.Template(), bytes.Clone(entry.Data()), entry.Order())
	digests := make([]rtmr.Digest, len(m.Digests))
	for i, d := range m.Digests {
		digests[i] = rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)}
	}
	m.Digests = digests
	return m
}

// Close closes the list. Next opens it anew.
func (l *List) Close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
