package cel

import (
	"errors"
	"fmt"
	"strings"
)

// ContentType says what a record's content is; types from 11 up are their
// vendors'.
type ContentType uint64

// The content types that have a meaning here. All others are carried along.
const (
	ContentManagement    ContentType = 4
	ContentPCClient      ContentType = 5
	ContentIMATemplate   ContentType = 7
	ContentIMATLV        ContentType = 8
	ContentSystemd       ContentType = 9
	ContentSystemdLibcel ContentType = 11 // libcel's, with systemd's annotations
	ContentCOS           ContentType = 80 // Google's Container-Optimized OS
	ContentTallystick    ContentType = 84
)

var contentNames = map[ContentType]string{
	ContentManagement:  "cel",
	ContentPCClient:    "pcclient_std",
	ContentIMATemplate: "ima_template",
	ContentIMATLV:      "ima_tlv",
	ContentSystemd:     "systemd",
	ContentTallystick:  "tallystick",
}

// String returns the type's name in JSON, or "content-80" for one without.
func (t ContentType) String() string {
	if s := t.name(); s != "" {
		return s
	}
	return fmt.Sprintf("content-%d", uint64(t))
}

// name returns the type's name in JSON, or "". libcel has systemd's name for
// its own number.
func (t ContentType) name() string {
	if t == ContentSystemdLibcel {
		t = ContentSystemd
	}
	return contentNames[t]
}

func parseContentType(s string) (ContentType, bool) {
	for t, name := range contentNames {
		if strings.EqualFold(name, s) {
			return t, true
		}
	}
	return 0, false
}

// parseContent reads the content n, of whose record everything else is in e.
func parseContent(t ContentType, n node, e *Entry) (content, error) {
	switch t {
	case ContentManagement:
		return parseManagement(n)
	case ContentPCClient:
		return parsePCClient(n, e)
	case ContentIMATemplate:
		return parseIMATemplate(n, e)
	case ContentIMATLV:
		b, err := n.bytes()
		return imaTLV(b), err
	case ContentSystemd, ContentSystemdLibcel:
		return parseSystemd(t, n)
	case ContentTallystick:
		return parseForeign(n)
	}
	if t <= 3 || isIndexType(uint64(t)) {
		return nil, &fault{n.at(), "content_type", fmt.Errorf("%d, expected 4 or more", uint64(t))}
	}
	if b, err := n.bytes(); err == nil {
		return vendor{t, b}, nil
	}
	return foreign{t.String(), n.encoded()}, nil
}

// member returns a member of n that has to be there, by the first of its names.
func member(n node, key uint64, names ...string) (node, error) {
	for _, name := range names {
		if m, err := n.member(name, key); m != nil || err != nil {
			return m, err
		}
	}
	return nil, &fault{n.at(), names[0], errors.New("missing")}
}

// number reads a member that has to be there, a number of at most max.
func number(n node, name string, key, max uint64) (uint64, error) {
	m, err := member(n, key, name)
	if err != nil {
		return 0, err
	}
	return atMost(m, name, max)
}

func atMost(n node, name string, max uint64) (uint64, error) {
	v, err := n.number()
	if err != nil {
		return 0, within(name, err)
	}
	if v > max {
		return 0, &fault{n.at(), name, fmt.Errorf("%d, expected at most %d", v, max)}
	}
	return v, nil
}

// memberBytes reads a member that has to be there, a byte string.
func memberBytes(n node, key uint64, names ...string) ([]byte, error) {
	m, err := member(n, key, names...)
	if err != nil {
		return nil, err
	}
	b, err := m.bytes()
	return b, within(names[0], err)
}

// nameOf reads a text that stands for a number. Names are short; an error that
// quotes one is too.
func nameOf(n node) (string, error) {
	const longest = 64
	s, err := n.text()
	if err == nil && len(s) > longest {
		return "", unexpected(n, "a name of %d bytes, expected at most %d", len(s), longest)
	}
	return s, err
}

// memberText reads a member that has to be there, a text.
func memberText(n node, key uint64, name string) (string, error) {
	m, err := member(n, key, name)
	if err != nil {
		return "", err
	}
	s, err := m.text()
	return s, within(name, err)
}
