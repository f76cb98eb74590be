package quote

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"tallystick/rtmr"
)

// maxClaimDepth is deeper than any attestation result nests its claims.
const maxClaimDepth = 32

// parseClaims reads one JSON object. A member that comes twice is an error: which
// of the two counts would be each reader's own choice, and a verifier's and its
// relying party's may differ (RFC 7519 §4, RFC 8725 §2.4). Numbers stay as they are
// written. The error names the offset in bytes, and the member.
func parseClaims(data []byte) (map[string]any, error) {
	p := claimParser{json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	v, err := p.value("", 0)
	object, isObject := v.(map[string]any)
	switch {
	case err != nil:
	case !isObject:
		err = errors.New("expected a JSON object")
	default:
		if _, end := p.dec.Token(); end != io.EOF {
			err = errors.New("more follows the JSON object")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("offset %d: %w", p.dec.InputOffset(), err)
	}
	return object, nil
}

type claimParser struct{ dec *json.Decoder }

func (p claimParser) value(path string, depth int) (any, error) {
	tok, err := p.dec.Token()
	if err != nil {
		return nil, claimSyntax(err)
	}
	delim, nested := tok.(json.Delim)
	switch {
	case !nested:
		return tok, nil
	case depth >= maxClaimDepth:
		return nil, fmt.Errorf("%s: nested more than %d deep", quoted(path), maxClaimDepth)
	case delim == '{':
		return p.object(path, depth)
	}
	return p.array(path, depth)
}

func (p claimParser) object(path string, depth int) (any, error) {
	members := map[string]any{}
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return nil, claimSyntax(err)
		}
		name := key.(string) // a key is always a string
		if _, again := members[name]; again {
			return nil, fmt.Errorf("%s comes twice", quoted(joinClaim(path, name)))
		}
		if members[name], err = p.value(joinClaim(path, name), depth+1); err != nil {
			return nil, err
		}
	}
	_, err := p.dec.Token()
	return members, claimSyntax(err)
}

func (p claimParser) array(path string, depth int) (any, error) {
	list := []any{}
	for p.dec.More() {
		v, err := p.value(path, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := p.dec.Token()
	return list, claimSyntax(err)
}

// claimSyntax makes an error of encoding/json's fit for a terminal: it has text of
// the input.
func claimSyntax(err error) error {
	if err = endsEarly(err); err == nil {
		return nil
	}
	return errors.New(rtmr.Escape(err.Error()))
}

func joinClaim(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// claims are the members of one object of a result. The first that is asked for
// and is not of its type is kept in err, which all objects of a result share; null
// is as good as absent.
type claims struct {
	path    string
	members map[string]any
	err     *error
}

func newClaims(members map[string]any) claims { return claims{members: members, err: new(error)} }

// at is a member's full name, as errors and facts have it.
func (c claims) at(name string) string { return joinClaim(c.path, name) }

func (c claims) fail(name, format string, args ...any) {
	if *c.err == nil {
		*c.err = fmt.Errorf("%s: %s", rtmr.Escape(c.at(name)), fmt.Sprintf(format, args...))
	}
}

func (c claims) has(name string) bool { return c.members[name] != nil }

// names are the members' names, sorted.
func (c claims) names() []string { return slices.Sorted(maps.Keys(c.members)) }

// object returns a member; it has no members itself where it is absent.
func (c claims) object(name string) claims {
	v, ok := c.members[name].(map[string]any)
	if !ok && c.has(name) {
		c.fail(name, "%s, expected an object", claimKind(c.members[name]))
	}
	return claims{c.at(name), v, c.err}
}

func (c claims) text(name string) (s string, ok bool) {
	s, ok = c.members[name].(string)
	if !ok && c.has(name) {
		c.fail(name, "%s, expected a string", claimKind(c.members[name]))
	}
	return s, ok
}

// hex returns the bytes of a string of hexadecimal digits.
func (c claims) hex(name string) (b []byte, ok bool) {
	s, ok := c.text(name)
	if !ok {
		return nil, false
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		c.fail(name, "%s, expected hexadecimal", quoted(s))
		return nil, false
	}
	return b, true
}

// base64 returns the bytes of a string in either of base64's alphabets.
func (c claims) base64(name string) (b []byte, ok bool) {
	s, ok := c.text(name)
	if !ok {
		return nil, false
	}
	b, err := decodeBase64(s)
	if err != nil {
		c.fail(name, "%s, expected base64", quoted(s))
		return nil, false
	}
	return b, true
}

// texts returns the strings of a list, or the one string that stands in its place.
func (c claims) texts(name string) (out []string) {
	list, ok := c.members[name].([]any)
	if !ok {
		if s, ok := c.text(name); ok {
			return []string{s}
		}
		return nil
	}
	for _, v := range list {
		s, ok := v.(string)
		if !ok {
			c.fail(name, "a list with %s, expected strings", claimKind(v))
			return nil
		}
		out = append(out, s)
	}
	return out
}

// flag returns a truth value, in any of the spellings in which verifiers write one.
func (c claims) flag(name string) (set, ok bool) {
	switch v := c.members[name].(type) {
	case nil:
		return false, false
	case bool:
		return v, true
	case json.Number:
		if v == "0" || v == "1" {
			return v == "1", true
		}
	case string:
		if low := strings.ToLower(v); low == "true" || low == "false" || v == "0" || v == "1" {
			return low == "true" || v == "1", true
		}
	}
	c.fail(name, "%s, expected true or false", claimKind(c.members[name]))
	return false, false
}

// number returns an integer. EAT forbids other numbers for times (RFC 9711 §4.3.1),
// and nothing that is read here has one.
func (c claims) number(name string) (n int64, ok bool) {
	v, isNumber := c.members[name].(json.Number)
	if isNumber {
		n, err := v.Int64()
		if err == nil {
			return n, true
		}
	}
	if c.has(name) {
		c.fail(name, "%s, expected an integer", claimKind(c.members[name]))
	}
	return 0, false
}

// lastTime is the last second that a time may name: the end of the year 9999.
const lastTime = 253402300799

// time returns a NumericDate (RFC 7519 §2).
func (c claims) time(name string) (t time.Time, ok bool) {
	n, ok := c.number(name)
	if ok && (n < 0 || n > lastTime) {
		c.fail(name, "%d, expected seconds since 1970, %d at most", n, lastTime)
		return t, false
	}
	return time.Unix(n, 0).UTC(), ok
}

func claimKind(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return quoted(v)
	case json.Number:
		return quoted(v.String())
	}
	return fmt.Sprint(v)
}

// maxFactText bounds a claim that is shown: longer ones are evidence, keys and
// held data.
const maxFactText = 256

// facts are all claims that are one value or a list of such, by their full names.
func (c claims) facts() (out []Fact) {
	for _, name := range c.names() {
		switch v := c.members[name].(type) {
		case map[string]any:
			out = append(out, claims{c.at(name), v, c.err}.facts()...)
		case []any:
			var words []string
			for _, e := range v {
				if s, ok := scalarText(e); ok {
					words = append(words, s)
				}
			}
			if len(words) == len(v) && len(words) > 0 {
				out = c.fact(out, name, strings.Join(words, ", "))
			}
		default:
			if s, ok := scalarText(v); ok {
				out = c.fact(out, name, s)
			}
		}
	}
	return out
}

func (c claims) fact(facts []Fact, name, text string) []Fact {
	if len(text) > maxFactText {
		return facts
	}
	return append(facts, Fact{rtmr.Escape(c.at(name)), rtmr.Escape(text)})
}

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return fmt.Sprint(v), true
	}
	return "", false
}
