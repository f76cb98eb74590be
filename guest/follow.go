//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"tallystick/ima"
	"tallystick/rtmr"
)

// IMADir is where the kernel has its measurement lists.
const IMADir = "/sys/kernel/security/ima"

// listFiles are the parts of the list, in order. Linux 7.2 with CONFIG_IMA_STAGING
// has the first: to trim the list, somebody has all of it moved there, reads it, and
// has it deleted (Documentation/security/IMA-export-delete.rst). What is staged does
// not grow.
var listFiles = [...]string{"binary_runtime_measurements_staged", "binary_runtime_measurements"}

// ErrListBusy says that the list is open for writing, which somebody does to trim it
// (security/integrity/ima/ima_fs.c, ima_measure_lock: one writer or many readers).
// Nothing is lost by it: to try again in a while is all there is to do.
var ErrListBusy = errors.New("the IMA list is being trimmed")

// List follows the kernel's IMA list from its first entry on. It keeps one
// descriptor, since each read(2) walks the list from its head to where the last
// one ended (security/integrity/ima/ima_fs.c, ima_measurements_start).
//
// Where the list can be trimmed, whoever has it open keeps it from that: there it is
// closed whenever all of it was read.
type List struct {
	dir   string
	banks []rtmr.Alg

	files  []*os.File // open, of listFiles; the staged part is nil where there is none
	now    int        // which of them is read
	cut    cutter
	place  place
	staged bool // this kernel can trim its list
	skip   int  // entries ahead that were delivered before
	gap    int  // behind so many delivered entries a gap was told of; -1 for none
	trail  Trail
	raw    []byte
}

// place is where the last entry that was delivered stands: in the file that begins
// with head, at an offset. As entries leave a file at its head alone, a file that
// still begins so, and has that entry there, goes on where it was read to.
//
// That holds where the first entry is no other's like: the kernel lists none twice
// (ima_queue.c, ima_lookup_digest_entry), but for violations.
type place struct {
	head  []byte
	alone bool // the first entry is
	at    int64
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
	banks = slices.DeleteFunc(slices.Clone(banks), func(a rtmr.Alg) bool { return !a.Available() })
	return &List{dir: dir, banks: banks, trail: slices.Clone(delivered), gap: -1}
}

// Trail are the entries that were delivered since boot, by 8 bytes of each one's
// hash, which is this process's own: nobody can make an entry that looks like another.
type Trail []uint64

var trailSeed = maphash.MakeSeed()

// Add adds an entry.
func (t *Trail) Add(e *ima.Entry) {
	var h maphash.Hash
	h.SetSeed(trailSeed)
	h.WriteString(e.Template())
	h.WriteByte(0)
	h.Write(e.Data())
	*t = append(*t, h.Sum64())
}

// TrailOf returns the trail of a list's measurements.
func TrailOf(batch []rtmr.Measurement) (t Trail) {
	for _, m := range batch {
		t.Add(m.Entry.(*ima.Entry))
	}
	return t
}

// Next returns the next entries of the list, at most n, in memory of their own; none
// where there are no more for now, or no list. A *Gap comes with the entries after
// it. After ErrListBusy nothing may wake who waits for measurements.
func (l *List) Next(n int) (batch []rtmr.Measurement, err error) {
	var gap *Gap
	for range 3 {
		if l.files == nil {
			err := l.open()
			if errors.Is(err, fs.ErrNotExist) && len(l.trail) == 0 {
				return nil, nil
			}
			if err != nil && !errors.As(err, &gap) {
				return nil, err
			}
		}
		before := len(l.trail)
		batch, err = l.read(n)
		if !l.trimmed() {
			break
		}
		l.Close() // what was read may be of another place in the list
		l.trail = l.trail[:before]
		batch, err = nil, nil
	}
	if len(batch) == 0 && l.staged {
		l.Close()
	}
	if gap != nil {
		err = errors.Join(gap, err)
	}
	return batch, err
}

// Raw returns the records of the entries that Next returned last, as they stand in
// the list.
func (l *List) Raw() []byte { return l.raw }

// open opens the list and finds where in it the trail ends. Both parts are open
// before one of them is read: so nothing moves from one to the other meanwhile.
func (l *List) open() error {
	files := make([]*os.File, len(listFiles))
	for i, name := range listFiles {
		file, err := os.Open(filepath.Join(l.dir, name))
		if errors.Is(err, fs.ErrNotExist) && i < len(listFiles)-1 {
			continue
		}
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("%w: %w", ErrListBusy, err)
		}
		if err != nil {
			closeAll(files)
			return err
		}
		files[i] = file
		l.staged = l.staged || i == 0
	}
	l.files, l.skip = files, 0
	if len(l.trail) == 0 {
		return l.start(0, 0)
	}
	found, err := l.resume()
	if err == nil && !found {
		err = l.search()
	}
	if err != nil && !errors.As(err, new(*Gap)) {
		l.Close()
	}
	return err
}

// start has a file read from an offset on; one that is not there, the next.
func (l *List) start(i int, offset int64) error {
	for l.files[i] == nil {
		i++
	}
	l.now, l.place = i, place{}
	_, err := l.files[i].Seek(offset, io.SeekStart)
	l.cut.begin(l.files[i], offset)
	return err
}

// resume goes on at the place of the last entry that was delivered, if that is still
// there.
func (l *List) resume() (found bool, err error) {
	if !l.place.alone {
		return false, nil
	}
	last := l.place
	for i, file := range l.files {
		if file == nil {
			continue
		}
		if head, err := headOf(file); err != nil || !bytes.HasPrefix(head, last.head) {
			continue
		}
		if err := l.start(i, last.at); err != nil {
			return false, err
		}
		var e ima.Entry
		record, err := l.cut.next(&e)
		if record == nil || err != nil {
			continue // no entry begins there any more
		}
		var key Trail
		key.Add(&e)
		if key[0] == l.trail[len(l.trail)-1] {
			l.place = last
			return true, nil
		}
	}
	return false, nil
}

// search finds the place in a list of which it is not known what it lost.
func (l *List) search() error {
	keys, err := l.keys()
	if err != nil {
		return err
	}
	if err := l.start(0, 0); err != nil {
		return err
	}
	unique := false
	if l.skip, unique = l.trail.overlap(keys); unique || l.gap == len(l.trail) {
		return nil
	}
	l.gap = len(l.trail)
	return &Gap{l.gap}
}

// keys reads the list to its end for now.
func (l *List) keys() (keys Trail, err error) {
	if err := l.start(0, 0); err != nil {
		return nil, err
	}
	var e ima.Entry
	for {
		record, err := l.next(&e)
		if err != nil || record == nil {
			return keys, err
		}
		keys.Add(&e)
	}
}

// overlap returns how many of the keys' first are the trail's last. A list loses
// entries at its head alone, so whatever the trail has after one of the list's
// entries is in the list. Where there is more than one such number (violations of
// one file look alike), it is the largest, and not unique.
func (t Trail) overlap(keys Trail) (n int, unique bool) {
	for k := min(len(t), len(keys)); k > 0; k-- {
		if !slices.Equal(t[len(t)-k:], keys[:k]) {
			continue
		}
		if n > 0 {
			return n, false
		}
		if n = k; n == len(t) { // all that there ever was: it was not trimmed
			break
		}
	}
	return n, n > 0
}

// read reads entries, n at most, beyond those to skip.
func (l *List) read(n int) (batch []rtmr.Measurement, err error) {
	l.raw = l.raw[:0]
	template := ""
	for len(batch) < n {
		e := ima.NewEntry(template, nil, nil)
		record, err := l.next(e)
		if err != nil || record == nil {
			return batch, err
		}
		template = e.Template()
		l.place.at = l.cut.offset - int64(len(record))
		if l.skip > 0 {
			l.skip--
			continue
		}
		l.trail.Add(e)
		l.raw = append(l.raw, record...)
		batch = append(batch, rtmr.Measurement{Register: e.Register(), Digests: digestsOf(e, l.banks), Entry: e})
	}
	return batch, nil
}

// digestsOf returns what the entry extends banks with.
func digestsOf(e *ima.Entry, banks []rtmr.Alg) []rtmr.Digest {
	digests := make([]rtmr.Digest, len(banks))
	sums := make([]byte, 0, len(banks)*rtmr.MaxDigestSize)
	for i, a := range banks {
		begin := len(sums)
		sums = e.AppendExtended(sums, a)
		digests[i] = rtmr.Digest{Alg: a, Sum: sums[begin:len(sums):len(sums)]}
	}
	return digests
}

// next reads the next entry, and returns its record; nil where there is none for now.
func (l *List) next(e *ima.Entry) (record []byte, err error) {
	for {
		if record, err = l.cut.next(e); record != nil || err != nil {
			break
		}
		if l.now == len(l.files)-1 {
			return nil, nil
		}
		if rest := len(l.cut.unread); rest > 0 {
			return nil, fmt.Errorf("%s: it ends %d bytes into an entry", l.files[l.now].Name(), rest)
		}
		if err := l.start(l.now+1, 0); err != nil {
			return nil, err
		}
	}
	if l.place.head == nil && err == nil {
		l.place.head, err = headOf(l.files[l.now])
		l.place.alone = err == nil && l.cut.offset == int64(len(record)) && !e.Violation()
	}
	return record, err
}

// trimmed reports whether the list begins with another entry than what is open did.
// Its length tells nothing, as it grows meanwhile. A kernel lets nobody trim what is
// open; a list that is no kernel's may be another one by now.
func (l *List) trimmed() bool {
	if l.files == nil || l.place.head == nil {
		return false
	}
	file, err := os.Open(l.files[l.now].Name())
	if err != nil {
		return false
	}
	defer file.Close()
	head, err := headOf(file)
	return err == nil && !bytes.HasPrefix(head, l.place.head)
}

// headSize is how much of a list's beginning is compared: some dozen entries.
const headSize = 4 << 10

// headOf returns a file's beginning.
func headOf(file *os.File) ([]byte, error) {
	head := make([]byte, headSize)
	n, err := file.ReadAt(head, 0)
	if err == io.EOF {
		err = nil
	}
	return head[:n], err
}

// Close closes the list. Next opens it anew.
func (l *List) Close() error {
	err := closeAll(l.files)
	l.files = nil
	return err
}

func closeAll(files []*os.File) (err error) {
	for _, f := range files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// cutter cuts records out of what a list's file gives.
type cutter struct {
	file   *os.File
	layout ima.Layout
	known  bool   // the layout is
	unread []byte // read, and not cut yet
	offset int64  // of it
}

const (
	// readSize is how much memory is had at a time, and readMin how much room a
	// read is given: the kernel gives a page or so, whatever that is.
	readSize = 64 << 10
	readMin  = 8 << 10
)

// begin has the cutter go on with a file, whose offset is given.
func (c *cutter) begin(file *os.File, offset int64) {
	c.file, c.unread, c.offset = file, nil, offset
}

// next cuts the next record, nil where there is no whole one for now. Record and
// entry stay valid: their memory is not used again.
func (c *cutter) next(e *ima.Entry) (record []byte, err error) {
	for {
		if !c.known && len(c.unread) > 0 {
			c.layout, c.known = ima.Detect(c.unread)
		}
		if c.known && len(c.unread) > 0 {
			n, err := c.layout.ParseRecord(c.unread, e)
			if syntax := (*rtmr.SyntaxError)(nil); errors.As(err, &syntax) {
				syntax.Offset += c.offset
				return nil, err
			}
			if n > 0 {
				record, c.unread = c.unread[:n:n], c.unread[n:]
				c.offset += int64(n)
				return record, nil
			}
		}
		if more, err := c.fill(); !more {
			return nil, err
		}
	}
}

// fill reads on, behind what is unread.
func (c *cutter) fill() (more bool, err error) {
	if cap(c.unread)-len(c.unread) < readMin {
		room := make([]byte, len(c.unread), max(readSize, 2*len(c.unread)))
		copy(room, c.unread)
		c.unread = room
	}
	n, err := c.file.Read(c.unread[len(c.unread):cap(c.unread)])
	c.unread = c.unread[:len(c.unread)+n]
	if err == io.EOF {
		err = nil
	}
	return n > 0, err
}
