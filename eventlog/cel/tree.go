package cel

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"tallystick/rtmr"
)

// A tree is a record on its way into JSON or CBOR. It is made of uint64,
// string, []byte, enum, object and []any.

// object is a JSON object or CBOR map, its members in the order of JSON.
type object []labelled

// labelled is a member, with CEL's name and number for it.
type labelled struct {
	name  string
	key   uint64
	value any
}

// enum is a number with a name: JSON has the name if there is one.
type enum struct {
	name  string
	value uint64
}

// recordTree returns the whole record.
func recordTree(e *Entry, f Format) object {
	index := labelled{"pcr", uint64(e.Index.Kind), uint64(e.Index.Number)}
	switch e.Index.Kind {
	case NVIndex:
		index.name = "nv_index"
	case CCIndex:
		index.name = "ccmr"
	}
	digests := make([]any, 0, len(e.Digests))
	for _, d := range e.Digests {
		digests = append(digests, object{
			{"hashAlg", keyHashAlg, enum{algName(d.Alg), uint64(d.Alg)}},
			{"digest", keyDigest, d.Sum},
		})
	}
	t := e.content.contentType()
	return object{
		{"recnum", keyRecNum, e.RecNum},
		index,
		{"digests", keyDigests, digests},
		{"content_type", keyContentType, enum{t.name(), uint64(t)}},
		{"content", keyContent, e.content.tree(f)},
	}
}

func algName(a rtmr.Alg) string {
	if a.Size() == 0 {
		return ""
	}
	return a.String()
}

// appendJSON appends a tree as JSON without a line end in it.
func appendJSON(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case []byte:
		return append(hex.AppendEncode(append(b, '"'), v), '"'), nil
	case string:
		return appendJSONText(b, v)
	case enum:
		if v.name == "" {
			return strconv.AppendUint(b, v.value, 10), nil
		}
		return appendJSONText(b, v.name)
	case []any:
		b = append(b, '[')
		for i, item := range v {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if b, err = appendJSON(b, item); err != nil {
				return b, err
			}
		}
		return append(b, ']'), nil
	case object:
		return appendJSONObject(b, v)
	}
	return b, fmt.Errorf("a %T in a record", v)
}

func appendJSONObject(b []byte, o object) ([]byte, error) {
	b = append(b, '{')
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSONText(b, m.name); err != nil {
			return b, err
		}
		if b, err = appendJSON(append(b, ':'), m.value); err != nil {
			return b, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return append(b, '}'), nil
}

// appendJSONText refuses what is not UTF-8: encoding/json would replace it.
func appendJSONText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return b, fmt.Errorf("%q is not UTF-8 and cannot be a text", s)
	}
	quoted, err := json.Marshal(s)
	return append(b, quoted...), err
}

// cborEncoding is RFC 8949 §4.2.1's: shortest heads, keys in order.
var cborEncoding = must(cbor.CoreDetEncOptions().EncMode())

// appendCBOR appends a tree as deterministic CBOR.
func appendCBOR(b []byte, v any) ([]byte, error) {
	value, err := cborValue(v)
	if err != nil {
		return b, err
	}
	item, err := cborEncoding.Marshal(value)
	return append(b, item...), err
}

// cborValue turns a tree into what the encoder takes.
func cborValue(v any) (any, error) {
	switch v := v.(type) {
	case []byte:
		return append([]byte{}, v...), nil // a nil slice would be a null
	case string:
		if !utf8.ValidString(v) {
			return nil, fmt.Errorf("%q is not UTF-8 and cannot be a text", v)
		}
	case enum:
		return v.value, nil
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			var err error
			if list[i], err = cborValue(item); err != nil {
				return nil, err
			}
		}
		return list, nil
	case object:
		m := make(map[uint64]any, len(v))
		for _, member := range v {
			value, err := cborValue(member.value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", member.name, err)
			}
			m[member.key] = value
		}
		return m, nil
	}
	return v, nil
}
