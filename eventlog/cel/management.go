package cel

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"tallystick/rtmr"
)

// management is the content of CEL's own events.
type management struct {
	events []managementEvent
	single bool // in JSON and CBOR one object, not a list of one
}

// managementEvent has major ‖ minor in value for a cel_version, and nothing for
// a firmware_end.
type managementEvent struct {
	kind  uint64
	value uint64
}

const (
	celVersion   = 1
	firmwareEnd  = 2
	celTimestamp = 80
	stateTrans   = 81

	keyManagementType = 0
	keyManagementData = 1
	keyMajor          = 0
	keyMinor          = 1
)

var (
	managementNames = names{celVersion: "cel_version", firmwareEnd: "firmware_end", celTimestamp: "cel_timestamp", stateTrans: "state_trans"}
	stateTransNames = names{0: "suspend", 1: "hibernate", 2: "kexec"}
)

// names are an enumeration's values that have names in JSON.
type names map[uint64]string

func (ns names) parse(n node, field string) (uint64, error) {
	if !n.isText() {
		return atMost(n, field, math.MaxUint32)
	}
	s, err := nameOf(n)
	if err != nil {
		return 0, within(field, err)
	}
	for v, name := range ns {
		if strings.EqualFold(s, name) {
			return v, nil
		}
	}
	return 0, &fault{n.at(), field, fmt.Errorf("unknown name %q", s)}
}

func (ns names) String(v uint64) string {
	if s, ok := ns[v]; ok {
		return s
	}
	return strconv.FormatUint(v, 10)
}

func parseManagement(n node) (content, error) {
	if t, ok := n.(tlvNode); ok {
		return parseManagementTLV(t)
	}
	nodes := []node{n}
	if n.isList() {
		var err error
		if nodes, err = n.list(); err != nil {
			return nil, within("content", err)
		}
	}
	c := management{single: !n.isList()}
	for _, n := range nodes {
		t, err := member(n, keyManagementType, "type")
		if err != nil {
			return nil, err
		}
		kind, err := managementNames.parse(t, "type")
		if err != nil {
			return nil, err
		}
		data, err := n.member("data", keyManagementData)
		if err != nil {
			return nil, err
		}
		event, err := parseManagementEvent(kind, data, t)
		if err != nil {
			return nil, err
		}
		c.events = append(c.events, event)
	}
	return c, c.check(n)
}

// parseManagementTLV reads the TLVs whose types are management types.
func parseManagementTLV(n tlvNode) (content, error) {
	nodes, err := n.list()
	if err != nil {
		return nil, within("content", err)
	}
	c := management{single: len(nodes) == 1}
	for _, t := range nodes {
		event, err := parseManagementEvent(uint64(t.(tlvNode).typ), t, t)
		if err != nil {
			return nil, err
		}
		c.events = append(c.events, event)
	}
	return c, c.check(n)
}

func (c management) check(n node) error {
	if len(c.events) == 0 {
		return &fault{n.at(), "content", fmt.Errorf("no management event, expected one or more")}
	}
	return nil
}

func parseManagementEvent(kind uint64, data, at node) (e managementEvent, err error) {
	e.kind = kind
	if kind == firmwareEnd {
		return e, nil
	}
	if data == nil {
		return e, &fault{at.at(), "data", fmt.Errorf("missing, expected that of a %s", managementNames.String(kind))}
	}
	switch kind {
	case celVersion:
		var major, minor uint64
		if major, err = number(data, "major", keyMajor, math.MaxUint16); err == nil {
			minor, err = number(data, "minor", keyMinor, math.MaxUint16)
		}
		e.value = major<<16 | minor
	case celTimestamp:
		e.value, err = atMost(data, "cel_timestamp", math.MaxUint64)
	case stateTrans:
		e.value, err = stateTransNames.parse(data, "state_trans")
	default:
		err = &fault{at.at(), "type", fmt.Errorf("unknown management type %d", kind)}
	}
	return e, err
}

func (c management) contentType() ContentType { return ContentManagement }
func (c management) data() []byte             { return c.appendTLV(nil)[tlvHeader:] }
func (c management) subject() string          { return c.typeName() }

// verify knows no rule for the measured ones: no implementation was found
// that shows whether the digest is of the TLV or of its value.
func (c management) verify(d rtmr.Digest) (rtmr.Check, []byte) {
	tlv := c.appendTLV(nil)
	return verifyAny(d, tlv, tlv[tlvHeader:])
}

// unmeasured is true for versions and ends of firmware.
func (c management) unmeasured() bool {
	for _, e := range c.events {
		if e.kind != celVersion && e.kind != firmwareEnd {
			return false
		}
	}
	return true
}

func (c management) typeName() string {
	var s []string
	for _, e := range c.events {
		s = append(s, managementNames.String(e.kind))
	}
	return strings.Join(s, "+")
}

func (c management) detail() string {
	var s []string
	for _, e := range c.events {
		switch e.kind {
		case celVersion:
			s = append(s, fmt.Sprintf("version %d.%d", e.value>>16, e.value&0xFFFF))
		case celTimestamp:
			s = append(s, fmt.Sprintf("timestamp %d", e.value))
		case stateTrans:
			s = append(s, stateTransNames.String(e.value))
		default:
			s = append(s, "end of firmware")
		}
	}
	return strings.Join(s, ", ")
}

func (c management) appendTLV(b []byte) []byte {
	return appendNested(b, byte(ContentManagement), func(b []byte) []byte {
		for _, e := range c.events {
			b = e.appendTLV(b)
		}
		return b
	})
}

func (e managementEvent) appendTLV(b []byte) []byte {
	switch e.kind {
	case celVersion:
		return appendNested(b, celVersion, func(b []byte) []byte {
			b = appendNumber(b, keyMajor, e.value>>16, 2)
			return appendNumber(b, keyMinor, e.value&0xFFFF, 2)
		})
	case celTimestamp:
		return appendNumber(b, celTimestamp, e.value, 8)
	case stateTrans:
		return appendNumber(b, stateTrans, e.value, 4)
	}
	return appendTLV(b, firmwareEnd, nil)
}

func (c management) tree(Format) any {
	list := make([]any, 0, len(c.events))
	for _, e := range c.events {
		list = append(list, e.tree())
	}
	if c.single {
		return list[0]
	}
	return list
}

func (e managementEvent) tree() any {
	o := object{{"type", keyManagementType, enum{managementNames[e.kind], e.kind}}}
	switch e.kind {
	case celVersion:
		o = append(o, labelled{"data", keyManagementData, object{
			{"major", keyMajor, e.value >> 16},
			{"minor", keyMinor, e.value & 0xFFFF},
		}})
	case celTimestamp:
		o = append(o, labelled{"data", keyManagementData, e.value})
	case stateTrans:
		o = append(o, labelled{"data", keyManagementData, enum{stateTransNames[e.value], e.value}})
	}
	return o
}
