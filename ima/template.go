package ima

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// fieldsOf are the field identifiers of the templates with a name
// (security/integrity/ima/ima_template.c, builtin_templates), and of the
// out-of-tree container templates.
var fieldsOf = map[string][]string{
	"ima":         {"d", "n"},
	"ima-ng":      {"d-ng", "n-ng"},
	"ima-ngv2":    {"d-ngv2", "n-ng"},
	"ima-sig":     {"d-ng", "n-ng", "sig"},
	"ima-sigv2":   {"d-ngv2", "n-ng", "sig"},
	"ima-buf":     {"d-ng", "n-ng", "buf"},
	"ima-modsig":  {"d-ng", "n-ng", "sig", "d-modsig", "modsig"},
	"evm-sig":     {"d-ng", "n-ng", "evmsig", "xattrnames", "xattrlengths", "xattrvalues", "iuid", "igid", "imode"},
	"ima-cgpath":  {"dep", "cg-path", "d-ng", "n-ng"},
	"ima-dep-cgn": {"dep", "cgn", "d-ng", "n-ng"},
}

// templateFields returns a template's field identifiers, or nil for an
// out-of-tree one that is not known: its fields are then just parts.
func templateFields(name string) []string {
	if f, ok := fieldsOf[name]; ok {
		return f
	}
	for _, id := range strings.Split(name, "|") {
		if !knownFields[id] {
			return nil
		}
	}
	return strings.Split(name, "|")
}

var knownFields = map[string]bool{
	"d": true, "n": true, "d-ng": true, "d-ngv2": true, "n-ng": true, "sig": true, "buf": true,
	"d-modsig": true, "modsig": true, "evmsig": true, "xattrnames": true, "xattrlengths": true,
	"xattrvalues": true, "iuid": true, "igid": true, "imode": true,
}

// field is one field of an entry: its identifier, or "" where the template
// does not tell, and its bytes without the length.
type field struct {
	id   string
	data []byte
}

// cutField cuts one field off template data; ok is false if its length says
// more than there is.
func cutField(data []byte, order byteOrder) (field, rest []byte, ok bool) {
	if len(data) < 4 {
		return nil, nil, false
	}
	end := 4 + uint64(order.uint32(data))
	if end > uint64(len(data)) {
		return nil, nil, false
	}
	return data[4:end], data[end:], true
}

// fields splits the template data; nil if the lengths do not consume it.
func (e *Entry) fields() []field {
	if e.opaque {
		return nil
	}
	ids := templateFields(e.template)
	if e.template == templateIMA {
		d := e.imaDigestSize()
		return []field{{"d", e.data[:d]}, {"n", e.data[d:]}}
	}
	var out []field
	for data := e.data; len(data) > 0; {
		b, rest, ok := cutField(data, e.order)
		if !ok {
			return nil
		}
		out, data = append(out, field{"", b}), rest
	}
	if len(ids) == len(out) {
		for i := range out {
			out[i].id = ids[i]
		}
	}
	return out
}

// render writes a field as the ASCII list would, but with names escaped.
func (f field) render(order byteOrder) string {
	switch f.id {
	case "n", "n-ng":
		return text(bytes.TrimRight(f.data, "\x00"))
	case "d":
		return digestText(f.data)
	case "d-ng", "d-ngv2", "d-modsig":
		return renderDigest(f.data)
	case "iuid", "igid":
		if len(f.data) == 4 {
			return fmt.Sprintf("%s=%d", f.id, order.uint32(f.data))
		}
	case "imode":
		if len(f.data) == 2 {
			return fmt.Sprintf("%s=%o", f.id, order.uint16(f.data))
		}
	case "":
		if s, ok := bytes.CutSuffix(f.data, []byte{0}); ok && !bytes.ContainsRune(s, 0) {
			return text(s)
		}
		if i := bytes.Index(f.data, []byte(":\x00")); i > 0 {
			return renderDigest(f.data)
		}
	}
	if len(f.data) == 0 {
		return ""
	}
	return f.id + "[" + preview(f.data) + "]"
}

// text escapes a text, of a long one the beginning.
func text(b []byte) string {
	if len(b) > maxShown {
		return rtmr.Escape(string(b[:maxShown])) + ".."
	}
	return rtmr.Escape(string(b))
}

// renderDigest turns "sha256:\x00<32 bytes>" into "sha256:<hex>".
func renderDigest(b []byte) string {
	prefix, sum, ok := bytes.Cut(b, []byte{0})
	if !ok {
		return digestText(b)
	}
	return text(prefix) + digestText(sum)
}

// digestText is a digest in hexadecimal, or the beginning of what is none.
func digestText(b []byte) string {
	if len(b) > rtmr.MaxDigestSize {
		return preview(b)
	}
	return hex.EncodeToString(b)
}

// preview is the beginning of a long field and its size.
func preview(b []byte) string {
	const most = 32
	if len(b) <= most {
		return hex.EncodeToString(b)
	}
	return fmt.Sprintf("%x.. %d bytes", b[:most], len(b))
}
