package ima

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"tallystick/rtmr"
)

// head is the part of an ASCII entry that all templates have.
type head struct {
	pcr      uint32
	alg      rtmr.Alg // by the hash's length
	hash     []byte
	template string
	fields   []byte // the rest of the line

	hashAt, fieldsAt int
}

var algByHexSize = map[int]rtmr.Alg{40: rtmr.SHA1, 64: rtmr.SHA256, 96: rtmr.SHA384, 128: rtmr.SHA512}

// parseHead parses PCR, template hash and template name at a line's beginning.
func parseHead(line []byte) (h head, fault *asciiFault) {
	rest := bytes.TrimLeft(line, " ") // "%2d" pads the PCR
	pcr, rest, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.ParseUint(string(pcr[:min(len(pcr), 3)]), 10, 8)
	if err != nil || n > MaxColumn || len(pcr) > 2 {
		return h, &asciiFault{0, "PCR index", fmt.Errorf("%s, expected 0 to 63", quoted(pcr))}
	}
	h.pcr = uint32(n)
	h.hashAt = len(line) - len(rest)
	digits, rest, _ := bytes.Cut(rest, []byte(" "))
	alg, ok := algByHexSize[len(digits)]
	hash, err := hex.DecodeString(string(digits[:min(len(digits), 128)]))
	if !ok || err != nil {
		return h, &asciiFault{h.hashAt, "template hash", fmt.Errorf("%s, expected 40, 64, 96 or 128 hexadecimal digits", quoted(digits))}
	}
	h.alg, h.hash = alg, hash
	templateAt := len(line) - len(rest)
	template, fields, _ := bytes.Cut(rest, []byte(" "))
	if len(template) == 0 || len(template) > maxName || notInName(template) >= 0 {
		return h, &asciiFault{templateAt, "template name", fmt.Errorf("%s, expected a template's name", quoted(template))}
	}
	h.template, h.fields, h.fieldsAt = string(template), fields, len(line)-len(fields)
	return h, nil
}

// quoted is the beginning of a field that is not what it should be.
func quoted(b []byte) string {
	const most = 40
	if len(b) > most {
		return `"` + rtmr.Escape(string(b[:most])) + `.."`
	}
	return `"` + rtmr.Escape(string(b)) + `"`
}

// asciiFields rebuilds template data from the text of an entry's fields, as
// ima_show_template_data_ascii wrote it (ima_template_lib.c). The data of a
// known template have one form; of another, there is more than one guess.
func asciiFields(template string, text []byte, order binary.AppendByteOrder) (guesses [][]byte, fault *asciiFault) {
	if template == templateIMA {
		return asciiIMA(text)
	}
	ids := templateFields(template)
	if ids == nil {
		return guessFields(text, order), nil
	}
	var data []byte
	at := 0
	for i, part := range splitFields(text, ids) {
		field, err := encodeField(ids[i], part, order)
		if err != nil {
			return nil, &asciiFault{at, "field " + ids[i], err}
		}
		data = append(order.AppendUint32(data, uint32(len(field))), field...)
		at += len(part) + 1
	}
	return [][]byte{data}, nil
}

// asciiIMA rebuilds the data of the template "ima": digest ‖ name.
func asciiIMA(text []byte) ([][]byte, *asciiFault) {
	digits, name, _ := bytes.Cut(text, []byte(" "))
	digest, err := hex.DecodeString(string(digits))
	if err != nil || (len(digest) != rtmr.SHA1.Size() && len(digest) != md5Size) {
		return nil, &asciiFault{0, "field d", fmt.Errorf("%s, expected 40 or 32 hexadecimal digits", quoted(digits))}
	}
	if len(name) > imaNameSize {
		return nil, &asciiFault{len(digits) + 1, "field n", fmt.Errorf("%d bytes, expected at most %d", len(name), imaNameSize)}
	}
	return [][]byte{append(digest, name...)}, nil
}

// splitFields splits the text at its spaces into as many parts as there are
// fields. Only a name can have a space in it, and that of a kernel that does not
// write "_" for it, so a text with more parts gives them to the name. One with
// fewer has lost the spaces at its end: its last fields are empty.
func splitFields(text []byte, ids []string) [][]byte {
	parts := bytes.Split(text, []byte(" "))
	for len(parts) < len(ids) {
		parts = append(parts, nil)
	}
	name := slices.IndexFunc(ids, func(id string) bool { return id == "n" || id == "n-ng" })
	extra := len(parts) - len(ids)
	if extra == 0 || name < 0 {
		return parts[:len(ids)]
	}
	joined := bytes.Join(parts[name:name+extra+1], []byte(" "))
	return slices.Concat(parts[:name], [][]byte{joined}, parts[name+extra+1:])
}

// encodeField returns a field's data, without its length, from its text. An
// empty text is an empty field, but for a name, which keeps its NUL.
func encodeField(id string, text []byte, order binary.AppendByteOrder) ([]byte, error) {
	switch id {
	case "n", "n-ng":
		return append(slices.Clone(text), 0), nil
	}
	if len(text) == 0 {
		return nil, nil
	}
	switch id {
	case "d-ng", "d-ngv2", "d-modsig":
		return encodeDigest(text)
	case "xattrnames", "dep", "cg-path", "cgn":
		return append(slices.Clone(text), 0), nil
	case "iuid", "igid":
		n, err := strconv.ParseUint(string(text), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s, expected a number of 32 bits", quoted(text))
		}
		return order.AppendUint32(nil, uint32(n)), nil
	case "imode":
		n, err := strconv.ParseUint(string(text), 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s, expected a number of 16 bits", quoted(text))
		}
		return order.AppendUint16(nil, uint16(n)), nil
	}
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s, expected hexadecimal digits", quoted(text))
	}
	return b, nil
}

// encodeDigest makes "sha256:" NUL digest of "sha256:<hex>". A digest without
// an algorithm is bare.
func encodeDigest(text []byte) ([]byte, error) {
	at := bytes.LastIndexByte(text, ':') + 1
	digest, err := hex.DecodeString(string(text[at:]))
	if err != nil {
		return nil, fmt.Errorf("%s, expected ALGORITHM:<hexadecimal digits>", quoted(text))
	}
	if at == 0 {
		return digest, nil
	}
	return slices.Concat(text[:at], []byte{0}, digest), nil
}

// guessFields rebuilds the data of a template that is not known: a part that
// looks like a digest is one, and any other is a text; or a text that is
// hexadecimal is the bytes, as signatures and buffers are.
func guessFields(text []byte, order binary.AppendByteOrder) [][]byte {
	var texts, binaries []byte
	for part := range bytes.SplitSeq(text, []byte(" ")) {
		asText := append(slices.Clone(part), 0)
		asBytes := asText
		if digest, err := encodeDigest(part); err == nil {
			asBytes = digest
			if bytes.IndexByte(part, ':') >= 0 {
				asText = digest
			}
		}
		texts = append(order.AppendUint32(texts, uint32(len(asText))), asText...)
		binaries = append(order.AppendUint32(binaries, uint32(len(asBytes))), asBytes...)
	}
	return [][]byte{texts, binaries}
}
