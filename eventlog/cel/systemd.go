package cel

import (
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"

	"tallystick/rtmr"
)

// systemd is what systemd's user space measured. In its own log and in libcel's
// content type it has annotations, none of which is measured; the standard
// content is the string alone.
type systemd struct {
	kind      ContentType // ContentSystemd, or ContentSystemdLibcel if it is to be written as such
	str       *string     // systemd leaves it out where it has nothing to say
	eventType string      // "" for none
	bootID    string      // 32 hexadecimal digits as systemd writes it
	timestamp *uint64     // microseconds of CLOCK_BOOTTIME
	nvName    string      // the name of an NV index used as a PCR
}

// systemdEvents are the event types by the numbers of systemd's enumeration,
// Tpm2UserspaceEventType (src/shared/tpm2-util.h), which libcel uses for the
// first four (include/cel_types.h).
var systemdEvents = names{
	0: "phase", 1: "filesystem", 2: "volume-key", 3: "machine-id",
	4: "product-id", 5: "keyslot", 6: "nvpcr-init", 7: "nvpcr-separator", 8: "dm-verity",
	9: "imds-userdata", 10: "os-separator",
}

const (
	keySystemdType      = 0
	keySystemdTimestamp = 1
	keySystemdBootID    = 2
	keySystemdString    = 3
	bootIDSize          = 16
)

func parseSystemd(t ContentType, n node) (content, error) {
	_, isJSON := n.(*jsonNode)
	if !isJSON && t == ContentSystemd || isJSON && !n.isObject() {
		b, err := n.bytes()
		s := string(b)
		return systemd{kind: ContentSystemd, str: &s}, within("content", err)
	}
	c := systemd{kind: t}
	for _, parse := range []func(node) error{c.parseString, c.parseType, c.parseBootID, c.parseTimestamp, c.parseNVName} {
		if err := parse(n); err != nil {
			return nil, err
		}
	}
	if !c.libcel() {
		if !isJSON {
			return nil, &fault{n.at(), "content", errors.New("expected an event type, a timestamp, a boot ID of 16 bytes and a string")}
		}
		c.kind = ContentSystemd
	}
	return c, nil
}

func (c *systemd) parseString(n node) error {
	m, err := n.member("string", keySystemdString)
	if m == nil || err != nil {
		return err
	}
	s, err := m.text()
	c.str = &s
	return within("string", err)
}

func (c *systemd) parseType(n node) error {
	m, err := n.member("eventType", keySystemdType)
	if m == nil && err == nil {
		m, err = n.member("event_type", noKey) // libcel reads the one and writes the other
	}
	if m == nil || err != nil {
		return err
	}
	if m.isText() { // a later systemd may have more of them
		c.eventType, err = m.text()
		return within("eventType", err)
	}
	v, err := atMost(m, "eventType", math.MaxUint8)
	c.eventType = systemdEvents.String(v)
	return err
}

func (c *systemd) parseBootID(n node) error {
	m, err := n.member("bootId", keySystemdBootID)
	if m == nil || err != nil {
		return err
	}
	if m.isText() {
		c.bootID, err = m.text()
		return within("bootId", err)
	}
	b, err := m.bytes()
	c.bootID = hex.EncodeToString(b)
	return within("bootId", err)
}

func (c *systemd) parseTimestamp(n node) error {
	m, err := n.member("timestamp", keySystemdTimestamp)
	if m == nil || err != nil {
		return err
	}
	v, err := m.number()
	c.timestamp = &v
	return within("timestamp", err)
}

func (c *systemd) parseNVName(n node) error {
	m, err := n.member("nvIndexName", noKey)
	if m == nil || err != nil {
		return err
	}
	c.nvName, err = m.text()
	return within("nvIndexName", err)
}

// libcel reports whether libcel's content type can hold this: all four of its
// members and nothing else.
func (c systemd) libcel() bool {
	id, err := hex.DecodeString(c.bootID)
	_, known := c.typeNumber()
	return known && err == nil && len(id) == bootIDSize && c.str != nil && c.timestamp != nil && c.nvName == ""
}

// typeNumber returns the event type as libcel has it, a u8. A type that came
// as a number without a name is written in decimal digits.
func (c systemd) typeNumber() (n uint64, ok bool) {
	for n, name := range systemdEvents {
		if name == c.eventType {
			return n, true
		}
	}
	n, err := strconv.ParseUint(c.eventType, 10, 8)
	return n, err == nil && strconv.FormatUint(n, 10) == c.eventType
}

// hashesString reports whether the event type is known to be measured by its
// string. A volume key and a credential are by an HMAC under that secret.
func (c systemd) hashesString() bool {
	for _, name := range systemdEvents {
		if name == c.eventType {
			return name != "volume-key"
		}
	}
	return false
}

func (c systemd) contentType() ContentType { return c.kind }
func (c systemd) unmeasured() bool         { return false }

func (c systemd) typeName() string {
	if c.eventType == "" {
		return "systemd"
	}
	return "systemd:" + rtmr.Escape(c.eventType)
}

func (c systemd) data() []byte {
	if c.str == nil {
		return nil
	}
	return []byte(*c.str)
}

func (c systemd) detail() string {
	s := rtmr.Escape(string(c.data()))
	if c.nvName != "" {
		s = "(" + rtmr.Escape(c.nvName) + ") " + s
	}
	return s
}

// subject is the part of the string that stays when what is measured changes:
// "file-system:/var" of "file-system:/var:ext4:..", "cryptsetup:root", and a
// "machine-id" without its value. A ":" in a path or name is escaped
// (src/pcrextend, src/cryptsetup).
func (c systemd) subject() string {
	parts := strings.SplitN(string(c.data()), ":", 3)
	if len(parts) == 2 {
		return parts[0]
	}
	return strings.Join(parts[:min(len(parts), 2)], ":")
}

// verify holds the string against the digest. systemd measures the string
// itself, but logs it C-escaped, and cut with "..." after 1024 bytes
// (src/pcrextend/pcrextend.c).
func (c systemd) verify(d rtmr.Digest) (rtmr.Check, []byte) {
	const cut = 1024
	if c.str == nil {
		return rtmr.CannotCheck, nil
	}
	if c, _ := compare(d, []byte(*c.str)); c == rtmr.Verified {
		return c, nil
	}
	plain, ok := unescapeC(*c.str)
	if !ok {
		return rtmr.CannotCheck, nil
	}
	check, computed := compare(d, plain)
	whole := len(*c.str) < cut || !strings.HasSuffix(*c.str, "...")
	if check == rtmr.Contradicts && !(whole && c.hashesString()) {
		return rtmr.CannotCheck, nil
	}
	return check, computed
}

// unescapeC undoes systemd's cescape: octal for what is not printable ASCII,
// letters for the usual control characters. ok is false if s is no such text.
func unescapeC(s string) (plain []byte, ok bool) {
	const letters, meant = `abfnrtv\"'`, "\a\b\f\n\r\t\v\\\"'"
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			plain = append(plain, s[i])
			continue
		}
		rest := s[i+1:]
		if len(rest) == 0 {
			return nil, false
		}
		if k := strings.IndexByte(letters, rest[0]); k >= 0 {
			plain = append(plain, meant[k])
			i++
			continue
		}
		if len(rest) < 3 || rest[0] > '3' || strings.Trim(rest[:3], "01234567") != "" {
			return nil, false
		}
		plain = append(plain, (rest[0]-'0')<<6|(rest[1]-'0')<<3|(rest[2]-'0'))
		i += 3
	}
	return plain, true
}

func (c systemd) appendTLV(b []byte) []byte {
	if c.kind != ContentSystemdLibcel {
		return appendTLV(b, byte(ContentSystemd), c.data())
	}
	typ, _ := c.typeNumber()
	return appendNested(b, byte(ContentSystemdLibcel), func(b []byte) []byte {
		b = appendNumber(b, keySystemdType, typ, 1)
		b = appendNumber(b, keySystemdTimestamp, *c.timestamp, 8)
		b = appendTLV(b, keySystemdBootID, c.bootIDBytes())
		return appendTLV(b, keySystemdString, c.data())
	})
}

func (c systemd) bootIDBytes() []byte {
	id, _ := hex.DecodeString(c.bootID)
	return id
}

func (c systemd) tree(f Format) any {
	switch {
	case f == CBOR && c.kind == ContentSystemdLibcel:
		typ, _ := c.typeNumber()
		return object{
			{"eventType", keySystemdType, typ},
			{"timestamp", keySystemdTimestamp, *c.timestamp},
			{"bootId", keySystemdBootID, c.bootIDBytes()},
			{"string", keySystemdString, *c.str},
		}
	case f == CBOR || c.plain():
		return c.data()
	}
	o := object{}
	if c.nvName != "" {
		o = append(o, labelled{name: "nvIndexName", value: c.nvName})
	}
	if c.str != nil {
		o = append(o, labelled{name: "string", value: *c.str})
	}
	if c.bootID != "" {
		o = append(o, labelled{name: "bootId", value: c.bootID})
	}
	if c.timestamp != nil {
		o = append(o, labelled{name: "timestamp", value: *c.timestamp})
	}
	if c.eventType != "" {
		o = append(o, labelled{name: "eventType", value: c.eventType})
	}
	return o
}

// plain reports whether there is nothing but the string.
func (c systemd) plain() bool {
	return c.str != nil && c.nvName == "" && c.bootID == "" && c.timestamp == nil && c.eventType == ""
}
