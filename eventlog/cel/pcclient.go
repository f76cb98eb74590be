package cel

import (
	"fmt"
	"math"
	"strings"

	"tallystick/eventlog"
	"tallystick/rtmr"
)

// pcClient is pcclient_std content: a TCG event.
type pcClient struct{ event *eventlog.Event }

const (
	keyEventType = 0
	keyEventData = 1
)

func parsePCClient(n node, e *Entry) (content, error) {
	t, err := member(n, keyEventType, "event_type")
	if err != nil {
		return nil, err
	}
	typ, err := parseEventType(t)
	if err != nil {
		return nil, within("event_type", err)
	}
	data, err := memberBytes(n, keyEventData, "event_data")
	if err != nil {
		return nil, err
	}
	return newPCClient(e, typ, data), nil
}

func parseEventType(n node) (eventlog.EventType, error) {
	if !n.isText() {
		v, err := atMost(n, "event_type", math.MaxUint32)
		return eventlog.EventType(v), err
	}
	name, err := nameOf(n)
	if err != nil {
		return 0, err
	}
	if strings.EqualFold(name, "ev_efi_platform_firmwate_blob2") { // libcel writes it so (src/cel_strings.c)
		return eventlog.EVEFIPlatformFirmwareBlob2, nil
	}
	for _, s := range []string{name, strings.ToUpper(name)} {
		if t, err := eventlog.ParseEventType(s); err == nil {
			return t, nil
		}
	}
	return 0, unexpected(n, "unknown event type %q", name)
}

func (c pcClient) contentType() ContentType                  { return ContentPCClient }
func (c pcClient) typeName() string                          { return c.event.Type() }
func (c pcClient) detail() string                            { return c.event.Detail() }
func (c pcClient) subject() string                           { return c.event.Subject() }
func (c pcClient) data() []byte                              { return c.event.EventData }
func (c pcClient) unmeasured() bool                          { return c.event.EventType == eventlog.EVNoAction }
func (c pcClient) verify(d rtmr.Digest) (rtmr.Check, []byte) { return c.event.Verify(d) }

func (c pcClient) appendTLV(b []byte) []byte {
	return appendNested(b, byte(ContentPCClient), func(b []byte) []byte {
		b = appendNumber(b, keyEventType, uint64(c.event.EventType), 4)
		return appendTLV(b, keyEventData, c.event.EventData)
	})
}

// tree names the event type only if it is one of the PC Client profile's.
func (c pcClient) tree(Format) any {
	t := c.event.EventType
	name := t.String()
	if !strings.HasPrefix(name, "EV_") || name == fmt.Sprintf("EV_0x%08x", uint32(t)) {
		name = ""
	}
	return object{
		{"event_type", keyEventType, enum{name, uint64(t)}},
		{"event_data", keyEventData, c.event.EventData},
	}
}
