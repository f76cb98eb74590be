package cel

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"tallystick/rtmr"
)

// recordSeparator stands before each record of JSON-SEQ (RFC 7464 §2.2).
const recordSeparator = 0x1E

var byteOrderMark = []byte("\xEF\xBB\xBF")

// jsonSource feeds the decoder. It turns record separators into line ends,
// which may stand between values and not within them, and stops when one
// record has taken more than MaxRecordSize bytes.
type jsonSource struct {
	src   *bufio.Reader
	read  int64
	limit int64
	err   error // of src, io.EOF aside
}

var errRecordSize = fmt.Errorf("more than %d bytes", MaxRecordSize)

func (s *jsonSource) Read(p []byte) (int, error) {
	if s.read >= s.limit {
		return 0, errRecordSize
	}
	n, err := s.src.Read(p[:min(int64(len(p)), s.limit-s.read)])
	s.read += int64(n)
	for i, c := range p[:n] {
		if c == recordSeparator {
			p[i] = '\n'
		}
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// jsonReader reads objects out of an array or a sequence.
type jsonReader struct {
	src   jsonSource
	dec   *json.Decoder
	base  int64 // what came before the decoder's offset 0
	array bool
	raw   json.RawMessage
}

// startJSON skips to the first value and looks whether it is an array.
func (r *Reader) startJSON() error {
	j := &r.json
	j.src.src = bufio.NewReader(r.src)
	if b, _ := j.src.src.Peek(len(byteOrderMark)); bytes.Equal(b, byteOrderMark) {
		j.src.src.Discard(len(b))
		j.base = int64(len(b))
	}
	for {
		c, err := j.src.src.ReadByte()
		if err != nil {
			return err
		}
		switch c {
		case ' ', '\t', '\r', '\n', recordSeparator:
			j.base++
			continue
		case '[', '{':
			j.src.src.UnreadByte()
			j.dec = json.NewDecoder(&j.src)
			j.array = c == '['
		default:
			return &fault{j.base, "log", fmt.Errorf("%q, expected a JSON array or object", c)}
		}
		break
	}
	j.src.limit = MaxRecordSize
	if j.array {
		j.dec.Token()
	}
	return nil
}

// readJSON reads one record into r.entry.
func (r *Reader) readJSON() error {
	j := &r.json
	if j.dec == nil {
		if err := r.startJSON(); err != nil {
			return err
		}
	}
	j.src.limit = j.dec.InputOffset() + MaxRecordSize
	r.offset = j.base + j.dec.InputOffset()
	if j.array && !j.dec.More() {
		return j.endArray()
	}
	if err := j.dec.Decode(&j.raw); err != nil {
		return j.fault(err)
	}
	r.offset = j.base + j.dec.InputOffset() - int64(len(j.raw))
	if !utf8.Valid(j.raw) {
		return &fault{r.offset, "record", errors.New("not UTF-8")}
	}
	return r.readRecord(&jsonNode{raw: j.raw, off: r.offset})
}

// endArray reads the array's end and makes sure that nothing follows it.
func (j *jsonReader) endArray() error {
	if _, err := j.dec.Token(); err != nil {
		return j.fault(err)
	}
	if t, err := j.dec.Token(); err == nil {
		return &fault{j.base + j.dec.InputOffset(), "log", fmt.Errorf("%v after the array's end", t)}
	} else if err != io.EOF {
		return j.fault(err)
	}
	return io.EOF
}

// fault tells why the decoder stopped: the source, the end, or the text.
func (j *jsonReader) fault(err error) error {
	switch {
	case j.src.err != nil:
		return j.src.err
	case err == io.EOF && !j.array:
		return io.EOF
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		err = fmt.Errorf("the log ends within the record or its array: %w", io.ErrUnexpectedEOF)
	}
	return &fault{j.base + j.dec.InputOffset(), "record", err}
}

// jsonNode is a JSON value.
type jsonNode struct {
	raw     []byte // without space around it
	off     int64
	members map[string]*jsonNode
}

func (n *jsonNode) at() int64       { return n.off }
func (n *jsonNode) isText() bool    { return n.raw[0] == '"' }
func (n *jsonNode) isList() bool    { return n.raw[0] == '[' }
func (n *jsonNode) isObject() bool  { return n.raw[0] == '{' }
func (n *jsonNode) encoded() []byte { return n.raw }

func (n *jsonNode) number() (uint64, error) {
	v, err := strconv.ParseUint(string(n.raw[:min(len(n.raw), 24)]), 10, 64)
	if err != nil {
		return 0, unexpected(n, "%s, expected a number of at most 64 bits", n.short())
	}
	return v, nil
}

func (n *jsonNode) text() (s string, err error) {
	if n.isText() && bytes.IndexByte(n.raw, '\\') < 0 {
		return string(n.raw[1 : len(n.raw)-1]), nil
	}
	if !n.isText() || json.Unmarshal(n.raw, &s) != nil {
		return "", unexpected(n, "%s, expected a string", n.short())
	}
	return s, nil
}

func (n *jsonNode) bytes() ([]byte, error) {
	if !n.isText() {
		return nil, unexpected(n, "%s, expected a string of hexadecimal digits", n.short())
	}
	digits := n.raw[1 : len(n.raw)-1]
	b := make([]byte, hex.DecodedLen(len(digits)))
	if _, err := hex.Decode(b, digits); err != nil {
		return nil, unexpected(n, "%s, expected hexadecimal digits: %w", n.short(), err)
	}
	return b, nil
}

// shownBytes is how much of the log's text an error quotes.
const shownBytes = 40

func (n *jsonNode) short() string {
	if len(n.raw) > shownBytes {
		return rtmr.Escape(string(n.raw[:shownBytes])) + ".."
	}
	return rtmr.Escape(string(n.raw))
}

// member returns nil for a null.
func (n *jsonNode) member(name string, _ uint64) (node, error) {
	if n.members == nil {
		if err := n.parseMembers(); err != nil {
			return nil, err
		}
	}
	if m := n.members[name]; m != nil && m.raw[0] != 'n' {
		return m, nil
	}
	return nil, nil
}

// parseMembers splits an object. encoding/json would let the last of two
// members of one name win, and another parser the first.
func (n *jsonNode) parseMembers() error {
	if !n.isObject() {
		return unexpected(n, "%s, expected an object", n.short())
	}
	n.members = make(map[string]*jsonNode)
	for at := n.skip(1); n.raw[at] != '}'; {
		key := n.child(at)
		name, err := key.text()
		if err != nil {
			return err
		}
		value := n.child(n.skip(at + len(key.raw)))
		if n.members[name] != nil {
			return &fault{value.off, rtmr.Escape(name[:min(len(name), shownBytes)]), errors.New("repeated")}
		}
		if len(n.members) == maxMembers {
			return unexpected(n, "an object of more than %d members", maxMembers)
		}
		n.members[name] = value
		at = n.skip(int(value.off-n.off) + len(value.raw))
	}
	return nil
}

func (n *jsonNode) list() (list []node, err error) {
	if !n.isList() {
		return nil, unexpected(n, "%s, expected an array", n.short())
	}
	for at := n.skip(1); n.raw[at] != ']'; {
		if len(list) == maxList {
			return nil, unexpected(n, "an array of more than %d values", maxList)
		}
		value := n.child(at)
		list = append(list, value)
		at = n.skip(at + len(value.raw))
	}
	return list, nil
}

// The decoder has found n to be well-formed: what follows only looks where
// values begin and end.

func (n *jsonNode) child(at int) *jsonNode {
	return &jsonNode{raw: n.value(at), off: n.off + int64(at)}
}

// skip returns where the next token after space, comma and colon begins.
func (n *jsonNode) skip(at int) int {
	for strings.IndexByte(" \t\r\n,:", n.raw[at]) >= 0 {
		at++
	}
	return at
}

// value returns the value that begins there.
func (n *jsonNode) value(at int) []byte {
	depth := 0
	for i := at; i < len(n.raw); i++ {
		switch c := n.raw[i]; {
		case c == '"':
			i = n.endOfString(i)
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		case depth == 0 && i+1 < len(n.raw) && strings.IndexByte(" \t\r\n,]}", n.raw[i+1]) < 0:
			continue // within a number or a literal
		}
		if depth == 0 {
			return n.raw[at : i+1 : i+1]
		}
	}
	return n.raw[at:]
}

// endOfString returns where the string that begins there has its last quote.
func (n *jsonNode) endOfString(at int) int {
	for i := at + 1; i < len(n.raw); i++ {
		switch n.raw[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return len(n.raw) - 1
}
