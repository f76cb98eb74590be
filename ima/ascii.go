package ima

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"tallystick/rtmr"
)

const (
	// maxLine bounds a line: an entry's template data in hexadecimal.
	maxLine = 2*maxData + maxName
	// maxJoin bounds how many bytes behind a line the rest of its entry's name
	// is looked for: PATH_MAX.
	maxJoin = 4096
	// maxJoined and maxTried bound the work of joining lines, which a list of
	// forged entries would cause with each of them: line ends in a name, and
	// bytes rebuilt and hashed beside a few times the entry's own.
	maxJoined = 64
	maxTried  = 256 << 10
)

// asciiLimits is what an ASCII list cannot tell, whatever it says.
const asciiLimits = "an ASCII list: names stand in it unescaped, and one with a line end can pass for an entry where no template hash settles it; the binary list is the authority"

// ASCIIReader reads an ASCII measurement list
// (security/integrity/ima/ima_fs.c, ima_ascii_measurements_show): a line an
// entry, of the PCR in two columns, the template hash in hexadecimal, the
// template's name and its fields, with a space between.
//
// The template data are rebuilt from the fields. The template hash proves or
// contradicts them, and the other banks are recomputed from them. What ASCII
// loses is dealt with so:
//
//   - Line ends may have become \r\n on the list's way here. A name may end in
//     \r too: they are taken for line ends where a template hash says so.
//   - A line end in a name splits an entry. Lines are joined again where only
//     the joined text has the recorded template hash.
//   - A violation has no hash that could prove its name: lines behind it that
//     cannot begin an entry are taken for the rest of its name.
//   - The fields of an unknown template are guessed. Where no guess has the
//     recorded hash the entry is Opaque, and has no digest but the recorded.
type ASCIIReader struct {
	opts   Options
	in     *bufio.Reader
	layout Layout
	proven bool // a template hash has proved the byte order
	crlf   bool // line ends are \r\n
	banks  []rtmr.Alg

	lines  []line // read ahead, in order
	offset int64  // of the next line to read
	ended  error  // io.EOF, or what stopped the reading

	index    int
	digests  []rtmr.Digest
	seen     aggregates
	joined   []int
	opaque   int
	warnings []string
}

// line is one line of the list, without its end.
type line struct {
	text   []byte
	offset int64
	whole  bool // a line end stands behind it
}

// DetectASCII recognises an ASCII list by its first line, and tells its
// template hashes' algorithm by their length.
func DetectASCII(prefix []byte) (rtmr.Alg, bool) {
	first, _, _ := bytes.Cut(prefix, []byte("\n"))
	h, fault := parseHead(first)
	return h.alg, fault == nil
}

// NewASCIIReader begins to read an ASCII list. The options are those of a
// binary one; the byte order is that of the lengths within the template data,
// which the list does not show and its first template hash tells.
func NewASCIIReader(src io.Reader, opts Options) (*ASCIIReader, error) {
	r := &ASCIIReader{opts: opts, in: bufio.NewReaderSize(src, DetectSize)}
	r.layout = Layout{Alg: opts.Alg, Order: opts.Order}
	if r.proven = opts.Order != nil; !r.proven {
		r.layout.Order = binary.LittleEndian
	}
	if first := r.peek(0); first != nil && opts.Alg == 0 {
		h, fault := parseHead(first.text)
		if fault != nil {
			return nil, r.syntaxError(first, fault)
		}
		r.layout.Alg = h.alg
	} else if first == nil && r.ended != io.EOF {
		return nil, r.ended
	} else if opts.Alg == 0 {
		r.layout.Alg = rtmr.SHA1
	}
	if r.crlf = r.hasCRLF(); r.crlf {
		for i := range r.lines {
			r.lines[i].text = withoutCR(r.lines[i].text)
		}
	}
	var err error
	r.banks, err = deliveredBanks(r.layout.Alg, opts.Banks)
	return r, err
}

// hasCRLF reports whether a template hash among the first lines proves its
// entry without the \r that all lines up to there end in.
func (r *ASCIIReader) hasCRLF() bool {
	for i, size := 0, 0; size <= maxTried && r.peek(i) != nil; i++ {
		text := withoutCR(r.lines[i].text)
		if size += len(text); len(text) == len(r.lines[i].text) {
			return false
		}
		if h, fault := parseHead(text); fault == nil {
			e := Entry{template: h.template, recorded: rtmr.Digest{Alg: r.layout.Alg, Sum: h.hash}}
			if proven, _ := r.rebuild(&e, h, 1); proven {
				return true
			}
		}
	}
	return false
}

func withoutCR(text []byte) []byte { return bytes.TrimSuffix(text, []byte("\r")) }

// Layout returns the list's layout. Its Order is a guess until an entry's
// template hash has proved it.
func (r *ASCIIReader) Layout() Layout { return r.layout }

// Warnings returns what ASCII cannot tell, and what was odd about the list.
// They are complete when Measurements has ended.
func (r *ASCIIReader) Warnings() []string { return r.warnings }

// Measurements yields the list's entries in order, each valid until the next
// step. On malformed input it yields what came before, then a *SyntaxError,
// and ends. It can be called once.
func (r *ASCIIReader) Measurements() iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		rtmr.UntilEOF(r.next)(yield)
		r.warnings = r.summary()
	}
}

func (r *ASCIIReader) summary() []string {
	out := []string{asciiLimits}
	if r.crlf {
		out = append(out, "the list's line ends are CRLF and were read as the kernel's LF: it was converted on its way here")
	}
	if n := len(r.joined); n > 0 {
		out = append(out, fmt.Sprintf("entry %d%s a line end in a name: the lines were joined", r.joined[0], othersHave(n-1)))
	}
	if r.opaque > 0 {
		out = append(out, fmt.Sprintf("%d entries are of a template whose fields are not known: their template hashes cannot be checked, nor other banks recomputed", r.opaque))
	}
	return append(out, r.seen.warnings()...)
}

func othersHave(n int) string {
	if n == 0 {
		return " has"
	}
	return " and " + strconv.Itoa(n) + " more have"
}

func (r *ASCIIReader) next() (m rtmr.Measurement, err error) {
	first, err := r.firstLine()
	if err != nil {
		return m, err
	}
	h, fault := parseHead(first.text)
	if fault == nil && len(h.hash) != r.layout.Alg.Size() {
		fault = &asciiFault{h.hashAt, "template hash", fmt.Errorf("%d hexadecimal digits, expected %d", 2*len(h.hash), 2*r.layout.Alg.Size())}
	}
	if fault != nil {
		return m, r.syntaxError(first, fault)
	}
	reg, err := r.opts.Profile.register(h.pcr)
	if err != nil {
		return m, r.syntaxError(first, &asciiFault{0, "PCR index", err})
	}
	e, n, fault := r.entry(h)
	if fault != nil {
		return m, r.syntaxError(first, fault)
	}
	m = rtmr.Measurement{Index: r.index, Offset: first.offset, Register: reg, NoAction: reg.IsZero(), Digests: r.extended(e), Entry: e}
	r.lines = r.lines[n:]
	r.seen.see(r.index, e)
	r.index++
	return m, nil
}

// firstLine returns the next entry's first line, and io.EOF if nothing but
// blank lines is left.
func (r *ASCIIReader) firstLine() (*line, error) {
	var blank *line
	first := r.peek(0)
	for ; first != nil && len(bytes.TrimSpace(first.text)) == 0; first = r.peek(0) {
		if blank == nil {
			blank = &line{offset: first.offset}
		}
		r.lines = r.lines[1:]
	}
	if first == nil {
		return nil, r.ended
	}
	if blank != nil {
		return nil, r.syntaxError(blank, &asciiFault{0, "entry", fmt.Errorf("a blank line, expected PCR, template hash, template and fields")})
	}
	return first, nil
}

// entry makes the entry that begins in the first line, and says of how many
// lines it is.
func (r *ASCIIReader) entry(h head) (*Entry, int, *asciiFault) {
	e := &Entry{template: h.template, recorded: rtmr.Digest{Alg: r.layout.Alg, Sum: h.hash}}
	proven, fault := r.rebuild(e, h, 1)
	provable := !e.Violation() && r.layout.Alg.Available()
	first := r.lines[0]
	n, size := 1, len(first.text)
	most := maxTried + 8*size // bytes that are rebuilt, over all attempts
	for behind, tried := 0, 0; provable && !proven && behind <= maxJoin && tried <= most && n <= maxJoined && r.peek(n) != nil; {
		behind += len(r.lines[n].text) + 1
		n++
		tried += size + behind
		proven, fault = r.rebuild(e, h, n)
	}
	if !proven {
		n = r.withStrayLines()
		_, fault = r.rebuild(e, h, n)
		if provable && !first.whole && n == 1 {
			fault = &asciiFault{len(first.text), "entry", fmt.Errorf("the list ends within it: %w", io.ErrUnexpectedEOF)}
		}
	}
	if fault != nil {
		return nil, 0, fault
	}
	if n > 1 {
		r.joined = append(r.joined, r.index)
	}
	if e.opaque {
		r.opaque++
	}
	return e, n, nil
}

// withStrayLines returns how many lines the first entry has if the lines
// behind it that cannot begin another belong to it. Blank lines belong to it
// only where other stray lines follow.
func (r *ASCIIReader) withStrayLines() int {
	n := 1
	for i, behind := 1, 0; behind <= maxJoin && r.peek(i) != nil; i++ {
		behind += len(r.lines[i].text) + 1
		if _, fault := parseHead(r.lines[i].text); fault == nil {
			break
		}
		if len(bytes.TrimSpace(r.lines[i].text)) > 0 {
			n = i + 1
		}
	}
	return n
}

// rebuild makes e's template data of the fields in its first n lines, and
// reports whether the recorded template hash proves them.
func (r *ASCIIReader) rebuild(e *Entry, h head, n int) (proven bool, fault *asciiFault) {
	text := h.fields
	if n > 1 {
		text = slices.Clone(text)
		for _, l := range r.lines[1:n] {
			text = append(append(text, '\n'), l.text...)
		}
	}
	orders := []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian}
	if r.proven {
		orders = []binary.AppendByteOrder{r.layout.Order.(binary.AppendByteOrder)}
	}
	var kept bool
	for _, order := range orders {
		guesses, err := asciiFields(h.template, text, order)
		if err != nil {
			return false, &asciiFault{h.fieldsAt + err.at, err.field, err.err}
		}
		for _, data := range guesses {
			guess := e.rebuilt(data, order.(binary.ByteOrder))
			guess.md5 = h.template == templateIMA && bytes.IndexByte(text, ' ') == 2*md5Size
			guess.scan()
			if guess.proven() {
				*e = guess
				r.layout.Order, r.proven = e.Order(), true
				return true, nil
			} else if !kept {
				*e, kept = guess, true
			}
		}
	}
	if templateFields(h.template) == nil {
		e.data, e.opaque = text, true
	}
	return false, nil
}

// rebuilt returns a copy of e with other template data.
func (e *Entry) rebuilt(data []byte, order binary.ByteOrder) Entry {
	return Entry{template: e.template, recorded: e.recorded, data: data, order: orderOf(order)}
}

// proven reports whether the recorded template hash is that of the data.
func (e *Entry) proven() bool {
	return e.recorded.Alg.Available() && bytes.Equal(e.hash(e.recorded.Alg), e.recorded.Sum)
}

// extended returns what was extended for an entry, in each bank where that is
// known.
func (r *ASCIIReader) extended(e *Entry) []rtmr.Digest {
	r.digests = r.digests[:0]
	for _, a := range r.banks {
		if sum := r.opts.Profile.extended(nil, e, a); sum != nil {
			r.digests = append(r.digests, rtmr.Digest{Alg: a, Sum: sum})
		}
	}
	return r.digests
}

// peek returns the i-th of the lines that are not yet delivered, or nil where
// the list has ended.
func (r *ASCIIReader) peek(i int) *line {
	for i >= len(r.lines) && r.ended == nil {
		r.readLine()
	}
	if i >= len(r.lines) {
		return nil
	}
	return &r.lines[i]
}

func (r *ASCIIReader) readLine() {
	l := line{offset: r.offset}
	for !l.whole && r.ended == nil {
		part, err := r.in.ReadSlice('\n')
		l.text = append(l.text, part...)
		l.whole = err == nil
		if err != nil && err != bufio.ErrBufferFull {
			r.ended = err
		} else if len(l.text) > maxLine {
			r.ended = &SyntaxError{Offset: l.offset, Entry: r.index + len(r.lines), Field: "line",
				Err: fmt.Errorf("more than %d bytes", maxLine)}
			return
		}
	}
	r.offset += int64(len(l.text))
	if l.whole {
		l.text = l.text[:len(l.text)-1]
	}
	if r.crlf {
		l.text = withoutCR(l.text)
	}
	if l.whole || len(l.text) > 0 {
		r.lines = append(r.lines, l)
	}
}

// asciiFault is a malformed field of an entry, at a distance from the
// beginning of its first line.
type asciiFault struct {
	at    int
	field string
	err   error
}

func (r *ASCIIReader) syntaxError(l *line, f *asciiFault) error {
	return &SyntaxError{Offset: l.offset + int64(f.at), Entry: r.index, Field: f.field, Err: f.err}
}
