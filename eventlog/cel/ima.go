package cel

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"tallystick/ima"
	"tallystick/rtmr"
)

// imaTemplate is ima_template content: an entry of an IMA measurement list. No
// member says in which byte order the lengths within the template data are.
type imaTemplate struct{ entry *ima.Entry }

const (
	keyTemplateName = 0
	keyTemplateData = 1
)

func parseIMATemplate(n node, e *Entry) (content, error) {
	name, err := memberText(n, keyTemplateName, "template_name")
	if err != nil {
		return nil, err
	}
	data, err := memberBytes(n, keyTemplateData, "template_data", "template_value") // tpm2-tss's name for it
	if err != nil {
		return nil, err
	}
	entry := ima.NewEntry(name, data, lengthOrder(data))
	for _, d := range e.Digests {
		entry.ProveMD5(d)
	}
	return imaTemplate{entry}, nil
}

// lengthOrder returns the byte order in which the "{u32 len, data}*" blob's
// lengths use it up: little-endian unless only big-endian does.
func lengthOrder(data []byte) binary.ByteOrder {
	if !consumes(data, binary.LittleEndian) && consumes(data, binary.BigEndian) {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func consumes(data []byte, order binary.ByteOrder) bool {
	for len(data) >= 4 {
		n := order.Uint32(data)
		if uint64(n) > uint64(len(data)-4) {
			return false
		}
		data = data[4+n:]
	}
	return len(data) == 0
}

// violation returns what a violation extends into a bank of that digest size,
// if that is what an IMA record's digests are: 0xFF, zeros where the kernel was
// patched for RTMRs, or 20 × 0xFF padded with zeros by a kernel before 5.8. No
// template hash is like that.
func violation(digests []rtmr.Digest) (sum func(size int) []byte, ok bool) {
	if len(digests) == 0 {
		return nil, false
	}
	longest := digests[0].Sum
	for _, d := range digests[1:] {
		if len(d.Sum) > len(longest) {
			longest = d.Sum // a SHA-1 digest has no padding to tell
		}
	}
	filled := len(bytes.TrimRight(longest, "\x00"))
	whole := filled == len(longest)
	if len(longest) == 0 || filled > 0 && !whole && filled != rtmr.SHA1.Size() ||
		len(bytes.Trim(longest[:filled], "\xFF")) > 0 {
		return nil, false
	}
	return func(size int) []byte {
		n := filled
		if whole {
			n = size
		}
		return append(bytes.Repeat([]byte{0xFF}, min(n, size)), make([]byte, size-min(n, size))...)
	}, true
}

// appendBanks appends the digests of banks that a record does not have.
func (c imaTemplate) appendBanks(digests []rtmr.Digest, banks []rtmr.Alg) []rtmr.Digest {
	extended, isViolation := violation(digests)
	for _, a := range banks {
		if !a.Available() || slices.ContainsFunc(digests, func(d rtmr.Digest) bool { return d.Alg == a }) {
			continue
		}
		if isViolation {
			digests = append(digests, rtmr.Digest{Alg: a, Sum: extended(a.Size())})
		} else {
			digests = append(digests, rtmr.Digest{Alg: a, Sum: c.entry.TemplateHash(a)})
		}
	}
	return digests
}

func (c imaTemplate) contentType() ContentType                  { return ContentIMATemplate }
func (c imaTemplate) typeName() string                          { return c.entry.Type() }
func (c imaTemplate) detail() string                            { return c.entry.Detail() }
func (c imaTemplate) subject() string                           { return c.entry.Subject() }
func (c imaTemplate) data() []byte                              { return c.entry.Data() }
func (c imaTemplate) unmeasured() bool                          { return false }
func (c imaTemplate) verify(d rtmr.Digest) (rtmr.Check, []byte) { return c.entry.Verify(d) }

func (c imaTemplate) appendTLV(b []byte) []byte {
	return appendNested(b, byte(ContentIMATemplate), func(b []byte) []byte {
		b = appendTLV(b, keyTemplateName, []byte(c.entry.Template()))
		return appendTLV(b, keyTemplateData, c.entry.Data())
	})
}

func (c imaTemplate) tree(Format) any {
	return object{
		{"template_name", keyTemplateName, c.entry.Template()},
		{"template_data", keyTemplateData, c.entry.Data()},
	}
}

// imaTLV is ima_tlv content, TLVs of a file's properties. Only an
// out-of-tree kernel writes it, and what its digest is a digest of is not
// settled: the TLVs with or without the content's own header.
type imaTLV []byte

var imaTLVNames = [...]string{"path", "datahash", "datasig", "owner", "group", "mode", "timestamp", "label"}

func (c imaTLV) contentType() ContentType  { return ContentIMATLV }
func (c imaTLV) typeName() string          { return ContentIMATLV.String() }
func (c imaTLV) data() []byte              { return c }
func (c imaTLV) unmeasured() bool          { return false }
func (c imaTLV) tree(Format) any           { return []byte(c) }
func (c imaTLV) appendTLV(b []byte) []byte { return appendTLV(b, byte(ContentIMATLV), c) }

// subject is the path, or the type if there is none.
func (c imaTLV) subject() string {
	for rest := []byte(c); len(rest) > 0; {
		t, value, next, ok := cutTLV(rest)
		if !ok {
			break
		}
		if int(t) < len(imaTLVNames) && imaTLVNames[t] == "path" {
			return strings.TrimRight(string(value), "\x00")
		}
		rest = next
	}
	return c.typeName()
}

func (c imaTLV) verify(d rtmr.Digest) (rtmr.Check, []byte) {
	return verifyAny(d, c, c.appendTLV(nil))
}

// detail renders path and label as text and the rest as hexadecimal.
func (c imaTLV) detail() string {
	var fields []string
	for rest := []byte(c); len(rest) > 0; {
		t, value, next, ok := cutTLV(rest)
		if !ok {
			return shortHex(c)
		}
		name, text := strconv.Itoa(int(t)), hex.EncodeToString(value)
		if int(t) < len(imaTLVNames) {
			name = imaTLVNames[t]
		}
		if name == "path" || name == "label" {
			text = rtmr.Escape(strings.TrimRight(string(value), "\x00"))
		}
		fields = append(fields, name+"="+text)
		rest = next
	}
	return strings.Join(fields, " ")
}

// ofNoPCR reports whether it is IMA's entry of a PCR that a policy may name and no TPM
// has: the kernel extended nothing.
func (e *Entry) ofNoPCR() bool {
	_, isIMA := e.Inner().(*ima.Entry)
	return isIMA && e.Index.Kind == PCRIndex && e.Index.Number >= rtmr.NumPCRs && e.Index.Number <= ima.MaxColumn
}
