package ima

import (
	"bytes"
	"encoding/binary"
	"strings"

	"tallystick/rtmr"
)

const (
	templateIMA = "ima"
	// imaNameSize is the size to which the template "ima" pads a name before
	// hashing: IMA_EVENT_NAME_LEN_MAX + 1 (security/integrity/ima/ima.h).
	imaNameSize = 256
	md5Size     = 16
)

// Entry is one entry of a measurement list. It implements rtmr.Entry.
type Entry struct {
	template string
	data     []byte
	order    byteOrder
	md5      bool // the template "ima" with a 16-byte digest
	opaque   bool
	named    bool   // a field begins with boot_aggregate
	pcr      uint32 // the list's PCR column

	recorded rtmr.Digest   // the list's own template hash
	computed []rtmr.Digest // what the template data hash to
}

// NewEntry makes an entry of a template's name and its template data (the
// "{u32 len, data}*" blob; for the template "ima" digest ‖ name), such as CEL's
// ima_template content carries. order is that of the lengths in the blob.
func NewEntry(template string, data []byte, order binary.ByteOrder) *Entry {
	e := &Entry{template: template, data: data, order: orderOf(order)}
	e.scan()
	return e
}

// ProveMD5 takes the data of the template "ima" for an MD5 digest and a name
// (ima_hash=md5), if d is their hash so and not with a SHA-1 digest. Nothing
// else in the data tells.
func (e *Entry) ProveMD5(d rtmr.Digest) {
	if e.template != templateIMA || e.md5 || len(e.data) < md5Size {
		return
	}
	if c, _ := e.Verify(d); c != rtmr.Contradicts {
		return
	}
	md5 := *e
	md5.md5 = true
	md5.scan()
	if c, _ := md5.Verify(d); c == rtmr.Verified {
		*e = md5
	}
}

// Template returns the template's name as the list has it: "ima-ng", or a
// format string such as "d-ng|n-ng|sig" for a custom one.
func (e *Entry) Template() string { return e.template }

// Type returns the template's name, escaped: CEL's content may give any.
func (e *Entry) Type() string { return rtmr.Escape(e.template) }

// Data returns the template data: what the template hash is a hash of.
func (e *Entry) Data() []byte { return e.data }

// Order returns the byte order of the lengths in the template data.
func (e *Entry) Order() binary.ByteOrder { return e.order.standard() }

// Recorded returns the template hash that the list gives; its Sum is nil for
// an entry that did not come from a list.
func (e *Entry) Recorded() rtmr.Digest { return e.recorded }

// Violation reports whether the entry is a violation: the list has zeros for
// its template hash, and the register was extended with 0xFF
// (ima_api.c, ima_add_violation).
func (e *Entry) Violation() bool { return len(e.recorded.Sum) > 0 && allZero(e.recorded.Sum) }

// Opaque reports whether Data is not the template data but the text of an
// ASCII list's fields, from which they could not be rebuilt.
func (e *Entry) Opaque() bool { return e.opaque }

// Name returns the entry's file name or event name, "" if it has none.
func (e *Entry) Name() string {
	for _, f := range e.fields() {
		if f.id == "n" || f.id == "n-ng" {
			return string(bytes.TrimRight(f.data, "\x00"))
		}
	}
	return ""
}

// Subject names what the entry is about, for setting entries of two lists side
// by side: the file or event name. It is not escaped, and untrusted.
func (e *Entry) Subject() string { return e.Name() }

// BootAggregate returns the digest over the boot registers that the kernel
// puts into its first entry; ok is false for every other entry. Linux after
// 6.12 may call it boot_aggregate_late.
func (e *Entry) BootAggregate() (d rtmr.Digest, ok bool) {
	if !e.named {
		return d, false
	}
	if n := e.Name(); n != "boot_aggregate" && n != "boot_aggregate_late" {
		return d, false
	}
	for _, f := range e.fields() {
		switch f.id {
		case "d":
			return rtmr.Digest{Alg: rtmr.SHA1, Sum: f.data}, len(f.data) == rtmr.SHA1.Size()
		case "d-ng", "d-ngv2":
			return parseDigest(f.data)
		}
	}
	return d, false
}

// parseDigest parses a d-ng or d-ngv2 field: "sha256:" NUL digest, in the
// latter with "ima:" or "verity:" before it.
func parseDigest(field []byte) (d rtmr.Digest, ok bool) {
	prefix, sum, _ := bytes.Cut(field, []byte{0})
	name := strings.TrimSuffix(string(prefix), ":")
	alg, err := rtmr.ParseAlg(name[strings.LastIndexByte(name, ':')+1:])
	return rtmr.Digest{Alg: alg, Sum: sum}, err == nil && len(sum) == alg.Size()
}

// scan reports whether the fields' lengths consume the data exactly, and notes
// whether a field may be the name of a boot_aggregate, so that all other
// entries are told apart without a closer look.
func (e *Entry) scan() (whole bool) {
	if e.template == templateIMA {
		e.named = isBootAggregate(e.data[e.imaDigestSize():])
		return true
	}
	for data := e.data; len(data) > 0; {
		field, rest, ok := cutField(data, e.order)
		if !ok {
			return false
		}
		e.named = e.named || isBootAggregate(field)
		data = rest
	}
	return true
}

func isBootAggregate(name []byte) bool {
	const prefix = "boot_aggregate"
	return len(name) >= len(prefix) && string(name[:len(prefix)]) == prefix
}

// maxShown bounds how many bytes of a field are rendered: PATH_MAX. Nothing
// that a kernel calls a name is longer.
const maxShown = 4096

// Detail renders the entry's fields on one line, long ones in part.
func (e *Entry) Detail() string {
	fields := e.fields()
	if e.opaque {
		return rtmr.Escape(string(e.data[:min(len(e.data), maxShown)]))
	}
	if fields == nil && len(e.data) > 0 {
		return "[" + preview(e.data) + "]"
	}
	var parts []string
	shown := 0
	for _, f := range fields {
		if shown > maxShown {
			parts = append(parts, "..")
			break
		}
		if s := f.render(e.order); s != "" {
			parts = append(parts, s)
			shown += len(s)
		}
	}
	if e.Violation() {
		parts = append(parts, "(violation)")
	}
	return strings.Join(parts, " ")
}

// Verify tells whether d is the template hash of the entry's data. A
// violation's hash is zeros in the list and 0xFF in the register, whatever
// its data, so it cannot be checked.
func (e *Entry) Verify(d rtmr.Digest) (rtmr.Check, []byte) {
	if e.opaque || e.Violation() || isViolation(d.Sum) || !d.Alg.Available() {
		return rtmr.CannotCheck, nil
	}
	if d.Alg == e.recorded.Alg {
		d.Sum = e.recorded.Sum
	}
	want := e.hash(d.Alg)
	if bytes.Equal(want, d.Sum) || isPadded(d.Sum, e.hash(rtmr.SHA1)) {
		return rtmr.Verified, nil
	}
	return rtmr.Contradicts, want
}

// TemplateHash returns the template hash in an algorithm that is Available:
// the recorded one if the entry comes from a list in that algorithm, else the
// hash of the template data, and nil if they are not known (Opaque).
func (e *Entry) TemplateHash(a rtmr.Alg) []byte {
	switch {
	case a == e.recorded.Alg:
		return e.recorded.Sum
	case e.opaque:
		return nil
	}
	return e.hash(a)
}

// hash returns the template hash in an algorithm, kept or made now.
func (e *Entry) hash(a rtmr.Alg) []byte {
	for _, d := range e.computed {
		if d.Alg == a {
			return d.Sum
		}
	}
	var buf [20 + imaNameSize]byte
	return a.AppendHash(nil, e.hashed(&buf))
}

// hashed returns the bytes that the template hash is over: the data, but for
// the template "ima" a copy in buf, with the name padded with zeros to 256
// bytes (ima_crypto.c, ima_calc_field_array_hash_tfm). A longer name, which no
// kernel lists, is hashed whole, so that no part of it goes unproven.
func (e *Entry) hashed(buf *[20 + imaNameSize]byte) []byte {
	d := e.imaDigestSize()
	if e.template != templateIMA || len(e.data) > d+imaNameSize {
		return e.data
	}
	padded := buf[:d+imaNameSize]
	clear(padded[copy(padded, e.data):])
	return padded
}

func (e *Entry) imaDigestSize() int {
	if e.md5 {
		return md5Size
	}
	return min(20, len(e.data))
}

// isPadded reports whether sum is a SHA-1 digest with zeros behind it.
func isPadded(sum, sha1 []byte) bool {
	return len(sum) > len(sha1) && bytes.HasPrefix(sum, sha1) && allZero(sum[len(sha1):])
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// isViolation reports whether sum is what a violation extends or is listed
// with: zeros, 0xFF, or 20 × 0xFF padded with zeros (Profile).
func isViolation(sum []byte) bool {
	n := min(len(sum), rtmr.SHA1.Size())
	return allZero(sum) || allFF(sum) || allFF(sum[:n]) && allZero(sum[n:])
}

func allFF(b []byte) bool {
	for _, c := range b {
		if c != 0xFF {
			return false
		}
	}
	return len(b) > 0
}
