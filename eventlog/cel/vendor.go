package cel

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"tallystick/eventlog"
	"tallystick/rtmr"
)

// vendor is content of a type that CEL leaves to vendors, as the bytes of its
// TLV's value. Google's, and go-eventlog's in general, is one nested TLV, and
// the digest is of the whole content TLV (go-eventlog cel, go-tpm-tools cel).
type vendor struct {
	kind  ContentType
	value []byte
}

// cosNames are the nested types of COS content (go-tpm-tools cel/cos_tlv.go).
var cosNames = [...]string{
	"image-ref", "image-digest", "restart-policy", "image-id", "arg", "env-var", "override-arg", "override-env",
	"launch-separator", "memory-monitor", "gpu-cc-mode", "gpu-device-attestation-binding",
}

// cos splits COS content into its type's name and its text.
func (c vendor) cos() (name string, text []byte, ok bool) {
	t, text, rest, ok := cutTLV(c.value)
	if !ok || len(rest) != 0 || c.kind != ContentCOS {
		return "", nil, false
	}
	if int(t) < len(cosNames) {
		return cosNames[t], text, true
	}
	return strconv.Itoa(int(t)), text, true
}

func (c vendor) contentType() ContentType { return c.kind }
func (c vendor) data() []byte             { return c.value }
func (c vendor) unmeasured() bool         { return false }
func (c vendor) tree(Format) any          { return c.value }

func (c vendor) typeName() string {
	if name, _, ok := c.cos(); ok {
		return "cos:" + name
	}
	return c.kind.String()
}

func (c vendor) detail() string {
	if _, text, ok := c.cos(); ok {
		return rtmr.Escape(string(text))
	}
	return shortHex(c.value)
}

// subject is the type, and of an environment variable or an argument the part
// before "=".
func (c vendor) subject() string {
	_, text, _ := c.cos()
	name, _, ok := bytes.Cut(text, []byte{'='})
	if !ok {
		return c.typeName()
	}
	return c.typeName() + " " + string(name)
}

func (c vendor) verify(d rtmr.Digest) (rtmr.Check, []byte) {
	if c.kind > maxTLVType {
		return rtmr.CannotCheck, nil
	}
	if _, _, ok := c.cos(); ok {
		return compare(d, c.appendTLV(nil))
	}
	return verifyAny(d, c.appendTLV(nil))
}

func (c vendor) appendTLV(b []byte) []byte { return appendTLV(b, byte(c.kind), c.value) }

// foreign is an entry of another log that no content of CEL's fits: its type's
// name and its data, for display. It claims nothing of the digest, unless it
// is a line of the attestation agent's text log.
type foreign struct {
	name  string
	value []byte
}

const (
	keyForeignType = 0
	keyForeignData = 1
)

func parseForeign(n node) (content, error) {
	name, err := memberText(n, keyForeignType, "type")
	if err != nil {
		return nil, err
	}
	data, err := memberBytes(n, keyForeignData, "data")
	return foreign{name, data}, err
}

func (c foreign) contentType() ContentType { return ContentTallystick }
func (c foreign) typeName() string         { return rtmr.Escape(c.name) }
func (c foreign) subject() string          { return c.name }
func (c foreign) data() []byte             { return c.value }
func (c foreign) unmeasured() bool         { return false }

func (c foreign) detail() string {
	if c.name == eventlog.AAELType {
		return eventlog.AAELLine(c.value).Detail()
	}
	if c.application() {
		return rtmr.Escape(string(c.value))
	}
	return shortHex(c.value)
}

// application reports whether this is an application's measurement through the guest
// helper, or one of the helper's own, whose digest is of its data (package guest, App
// and OwnEvent).
func (c foreign) application() bool {
	return strings.HasPrefix(c.name, "app:") || strings.HasPrefix(c.name, "own:")
}

func (c foreign) verify(d rtmr.Digest) (rtmr.Check, []byte) {
	if c.name == eventlog.AAELType {
		return eventlog.AAELLine(c.value).Verify(d)
	}
	if c.application() {
		return compare(d, c.value)
	}
	return rtmr.CannotCheck, nil
}

func (c foreign) appendTLV(b []byte) []byte {
	return appendNested(b, byte(ContentTallystick), func(b []byte) []byte {
		b = appendTLV(b, keyForeignType, []byte(c.name))
		return appendTLV(b, keyForeignData, c.value)
	})
}

func (c foreign) tree(Format) any {
	return object{
		{"type", keyForeignType, c.name},
		{"data", keyForeignData, c.value},
	}
}

// shortHex renders the beginning of opaque bytes and how many there are.
func shortHex(b []byte) string {
	const shown = 32
	if len(b) <= shown {
		return hex.EncodeToString(b)
	}
	return fmt.Sprintf("%x.. (%d bytes)", b[:shown], len(b))
}
