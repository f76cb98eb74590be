package cel

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"

	"tallystick/internal/window"
	"tallystick/rtmr"
)

// Members of a record, by CEL's CDDL.
const (
	keyRecNum      = 0
	keyDigests     = 3
	keyContentType = 9
	keyContent     = 10
	keyHashAlg     = 0
	keyDigest      = 1
)

const (
	initialBuffer = 32 << 10
	maxWarnings   = 16
)

// Reader reads a canonical event log in one pass. Its memory is bounded by the
// size of one record, and by what of it has arrived.
type Reader struct {
	// Realm says that CC-MR indices name an Arm CCA realm's registers and not
	// a TD's. Without it, digests decide: SHA-384 means a TD's, SHA-256 or
	// SHA-512 alone a realm's, and others or none whatever the record before
	// was. Set it before Measurements is called.
	Realm bool

	// Banks are banks that are wanted of IMA entries: the digest of one that a
	// record does not have is recomputed from its template data, as package ima
	// does it (a violation extends 0xFF). Set it before Measurements is called.
	Banks []rtmr.Alg

	src    io.Reader
	format Format
	in     *window.Reader // TLV and CBOR
	json   jsonReader
	cbor   cborReader

	index   int
	offset  int64 // of the record being read
	size    int   // of the record, if it is read from in
	entry   Entry
	digests [maxDigests]rtmr.Digest
	banks   []rtmr.Digest // the digests of Banks beside those of a record

	realm    bool // the last CC record whose digests tell was a realm's
	numbered bool // the record has a recnum
	recnums  recNums
	warnings []string
	omitted  int
}

// NewReader returns a reader of src, which is in the given format.
func NewReader(src io.Reader, f Format) *Reader {
	r := &Reader{src: src, format: f, recnums: newRecNums()}
	if f == TLV || f == CBOR {
		r.in = window.New(src, initialBuffer)
	}
	return r
}

// Format returns the format that the Reader was made for.
func (r *Reader) Format() Format { return r.format }

// Warnings returns what was odd about the log but did not stop its reading.
// They are complete when Measurements has ended.
func (r *Reader) Warnings() []string {
	if r.omitted > 0 {
		return append(r.warnings[:len(r.warnings):len(r.warnings)], fmt.Sprintf("and %d more", r.omitted))
	}
	return r.warnings
}

func (r *Reader) warn(format string, args ...any) {
	if len(r.warnings) == maxWarnings {
		r.omitted++
		return
	}
	r.warnings = append(r.warnings, fmt.Sprintf("entry %d: ", r.index)+fmt.Sprintf(format, args...))
}

// Measurements yields the log's records in order, each valid until the next
// step; their Entry is an *Entry. On malformed input it yields what came
// before, then a *rtmr.SyntaxError, and ends; an error of the source it yields
// as it is. It can be called once.
func (r *Reader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return rtmr.UntilEOF(r.next)
}

func (r *Reader) next() (rtmr.Measurement, error) {
	if r.in != nil {
		r.in.Skip(r.size)
		r.offset, r.size = r.in.Offset(), 0
	}
	r.entry, r.numbered = Entry{Digests: r.digests[:0]}, false
	if err := r.read(); err != nil {
		var f *fault
		if errors.As(err, &f) {
			err = &rtmr.SyntaxError{Offset: f.off, Entry: r.index, Field: f.field, Err: f.err}
		}
		return rtmr.Measurement{}, err
	}
	m := r.entry.Measurement()
	m.Index, m.Offset = r.index, r.offset
	if c, ok := r.entry.content.(imaTemplate); ok && len(r.Banks) > 0 {
		r.banks = c.appendBanks(append(r.banks[:0], m.Digests...), r.Banks)
		m.Digests = r.banks
	}
	r.index++
	return m, nil
}

func (r *Reader) read() error {
	switch r.format {
	case TLV:
		return r.readTLV()
	case CBOR:
		return r.readCBOR()
	case JSON, JSONLines, Systemd:
		return r.readJSON()
	}
	return fmt.Errorf("unknown format %d of a canonical event log", r.format)
}

// readRecord reads a record in JSON or CBOR.
func (r *Reader) readRecord(n node) error {
	if err := r.readIndex(n); err != nil {
		return err
	}
	recnum, err := n.member("recnum", keyRecNum)
	if err != nil {
		return within("record", err)
	}
	if recnum != nil {
		if err := r.setRecNum(recnum); err != nil {
			return err
		}
	}
	if err := r.readDigests(n); err != nil {
		return err
	}
	return r.readContent(n)
}

// readContent reads the content type, a number or a name, and the content.
func (r *Reader) readContent(n node) error {
	t, err := member(n, keyContentType, "content_type")
	if err != nil {
		return err
	}
	c, err := member(n, keyContent, "content")
	if err != nil {
		return err
	}
	if !t.isText() {
		v, err := atMost(t, "content_type", math.MaxUint64)
		if err != nil {
			return err
		}
		return r.setContent(ContentType(v), c)
	}
	name, err := nameOf(t)
	if err != nil {
		return within("content_type", err)
	}
	if kind, ok := parseContentType(name); ok {
		return r.setContent(kind, c)
	}
	r.entry.content = foreign{name, c.encoded()}
	return r.finish()
}

// indexLabels are the members that can be a record's index. An RTMR's index,
// which systemd writes, is 0-based and becomes the CC-MR index.
var indexLabels = []struct {
	name  string
	key   uint64
	kind  IndexKind
	above uint32
}{
	{"pcr", uint64(PCRIndex), PCRIndex, 0},
	{"nv_index", uint64(NVIndex), NVIndex, 0},
	{"ccmr", uint64(CCIndex), CCIndex, 0},
	{"rtmr", noKey, CCIndex, 1},
}

func (r *Reader) readIndex(n node) error {
	found := false
	for _, l := range indexLabels {
		m, err := n.member(l.name, l.key)
		if err != nil {
			return within("record", err)
		}
		if m == nil {
			continue
		}
		if found {
			return &fault{m.at(), l.name, fmt.Errorf("a second index beside %s, expected one", r.entry.Index)}
		}
		found = true
		if err := r.setIndex(l.kind, m, math.MaxUint32-uint64(l.above), l.above); err != nil {
			return err
		}
	}
	if !found {
		return &fault{n.at(), "index", errors.New("missing, expected one of pcr, nv_index, ccmr")}
	}
	return nil
}

func (r *Reader) setIndex(kind IndexKind, n node, max uint64, above uint32) error {
	v, err := atMost(n, "index", max)
	r.entry.Index = Index{kind, uint32(v) + above}
	return err
}

func (r *Reader) readDigests(n node) error {
	m, err := n.member("digests", keyDigests)
	if m == nil || err != nil {
		return err
	}
	list, err := m.list()
	if err != nil {
		return within("digests", err)
	}
	for _, d := range list {
		a, err := member(d, keyHashAlg, "hashAlg")
		if err != nil {
			return within("digests", err)
		}
		alg, err := parseAlg(a)
		if err != nil {
			return within("hashAlg", err)
		}
		sum, err := memberBytes(d, keyDigest, "digest")
		if err != nil {
			return err
		}
		if err := r.addDigest(alg, sum, d.at()); err != nil {
			return err
		}
	}
	return nil
}

// parseAlg reads a TPM_ALG_ID, or a name with or without the TPM's prefix.
func parseAlg(n node) (rtmr.Alg, error) {
	if !n.isText() {
		v, err := atMost(n, "hashAlg", math.MaxUint16)
		return rtmr.Alg(v), err
	}
	s, err := nameOf(n)
	if err != nil {
		return 0, err
	}
	name := strings.ToLower(s)
	for _, prefix := range []string{"tpm2_alg_", "tpm_alg_"} {
		name = strings.TrimPrefix(name, prefix)
	}
	alg, err := rtmr.ParseAlg(name)
	if err != nil {
		return 0, unexpected(n, "%w", err)
	}
	return alg, nil
}

func (r *Reader) addDigest(alg rtmr.Alg, sum []byte, off int64) error {
	d, err := checkDigest(r.entry.Digests, rtmr.Digest{Alg: alg, Sum: sum})
	if err != nil {
		return &fault{off, "digests", err}
	}
	r.entry.Digests = append(r.entry.Digests, d)
	return nil
}

// checkDigest tells whether d may stand beside others in one record.
func checkDigest(others []rtmr.Digest, d rtmr.Digest) (rtmr.Digest, error) {
	if size := d.Alg.Size(); size != 0 && len(d.Sum) != size {
		return d, fmt.Errorf("%s has %d bytes, expected %d", d.Alg, len(d.Sum), size)
	}
	if len(d.Sum) == 0 {
		return d, fmt.Errorf("%s has no bytes", d.Alg)
	}
	if len(others) == maxDigests {
		return d, fmt.Errorf("more than %d", maxDigests)
	}
	for _, o := range others {
		if o.Alg == d.Alg {
			return d, fmt.Errorf("%s twice in one record", d.Alg)
		}
	}
	return d, nil
}

func (r *Reader) setContent(t ContentType, n node) error {
	c, err := parseContent(t, n, &r.entry)
	if err != nil {
		return within("content", err)
	}
	r.entry.content = c
	return r.finish()
}

// finish finds the record's register and number when all else is read.
func (r *Reader) finish() error {
	e := &r.entry
	measured := !e.content.unmeasured() && !e.ofNoPCR()
	if realm, known := realmByDigests(e.Digests); known && e.Index.Kind == CCIndex {
		r.realm = realm
	}
	var ok bool
	if e.register, ok = e.Index.register(r.Realm || r.realm); !ok && measured {
		return &fault{r.offset, "index", fmt.Errorf("%s names no register", e.Index)}
	}
	if len(e.Digests) == 0 && measured {
		r.warn("%s has no digests", rtmr.Escape(e.Type()))
	}
	if !r.numbered {
		e.RecNum = r.recnums.next[e.Index]
	} else if !r.recnums.follows(e.Index, e.RecNum) {
		r.warn("recnum %d of %s goes on from neither the record before nor the last of its index", e.RecNum, e.Index)
	}
	r.recnums.saw(e.Index, e.RecNum)
	return nil
}

// realmByDigests tells whose registers take such digests: a TD's SHA-384 and
// no others, a realm's SHA-256 or SHA-512 too. SHA-1, which a Spec ID event
// and most IMA lists have, tells nothing, and SM3 is a CSV guest's, whose
// registers have the names of a TD's.
func realmByDigests(ds []rtmr.Digest) (realm, known bool) {
	for _, d := range ds {
		switch d.Alg {
		case rtmr.SHA384:
			return false, true
		case rtmr.SHA256, rtmr.SHA512:
			realm, known = true, true
		}
	}
	return realm, known
}

func (r *Reader) setRecNum(n node) (err error) {
	r.numbered = true
	r.entry.RecNum, err = n.number()
	return within("recnum", err)
}

// truncated reports a record that the end of the input cuts short.
func (r *Reader) truncated(field string, have []byte, err error) error {
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	return &fault{r.offset, field, fmt.Errorf("the log ends %d bytes into the record: %w", len(have), io.ErrUnexpectedEOF)}
}
