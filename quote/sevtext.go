package quote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sevNames are the fields of a launch measurement in QEMU's and in libvirt's
// spelling: of the answers to query-sev-launch-measure and query-sev, and of what
// virsh domlaunchsecinfo prints.
var sevNames = map[string]string{
	"data": "measurement", "api-major": "API major version", "api-minor": "API minor version", "build-id": "build", "policy": "policy",
	"sev-measurement": "measurement", "sev-api-major": "API major version", "sev-api-minor": "API minor version", "sev-build-id": "build", "sev-policy": "policy",
}

// isSEVText tells what QEMU or libvirt print of a launch measurement: by libvirt's
// name, or by a field of QEMU's that decodes to as many bytes as it has.
func isSEVText(data []byte) bool {
	if _, err := parseSEVText(data); err != nil {
		name := bytes.Index(data, []byte("sev-measurement"))
		return name >= 0 && utf8.Valid(data)
	}
	return true
}

// parseSEVText reads one or more JSON objects, a monitor's answers with "return"
// around them or not, or the lines of virsh domlaunchsecinfo. The error names the
// field, and of JSON the offset.
func parseSEVText(data []byte) (*SEVMeasurement, error) {
	f := sevFields{}
	read := f.lines
	if isJSONObject(data) {
		read = f.json
	}
	if err := read(data); err != nil {
		return nil, err
	}
	return f.measurement()
}

// sevFields are a text's fields by sevNames' values.
type sevFields map[string]string

func (f sevFields) add(name, value string) error {
	field, ok := sevNames[name]
	if !ok {
		return nil
	}
	if old, again := f[field]; again && old != value {
		return fmt.Errorf("%s: %s, and it was %s before", name, quoted(value), quoted(old))
	}
	f[field] = value
	return nil
}

// json reads member by member, because encoding/json's maps silently keep the last of
// two equal keys.
func (f sevFields) json(data []byte) error { return f.objects(data, true) }

// objects reads JSON objects, one behind the other, and of an answer what it returns.
func (f sevFields) objects(data []byte, answers bool) error {
	p := valuesJSON{dec: json.NewDecoder(bytes.NewReader(data))}
	for p.dec.More() {
		err := p.object("an object", func(name string) error {
			var raw json.RawMessage
			if err := p.dec.Decode(&raw); err != nil {
				return jsonError(err)
			}
			if name == "return" && answers && isJSONObject(raw) {
				return f.objects(raw, false)
			}
			value := string(raw)
			if s := jsonString(raw); s != "" {
				value = s
			}
			return f.add(name, value)
		})
		if err != nil {
			return fmt.Errorf("offset %d: %w", p.dec.InputOffset(), err)
		}
	}
	if _, end := p.dec.Token(); end != io.EOF {
		return fmt.Errorf("offset %d: neither an object nor the end", p.dec.InputOffset())
	}
	return nil
}

func (f sevFields) lines(data []byte) error {
	if !bytes.Contains(data, []byte("sev-measurement")) {
		return errNoSEV
	}
	for line := range bytes.Lines(data) {
		name, value, ok := strings.Cut(string(line), ":")
		if ok && strings.HasPrefix(strings.TrimSpace(name), "sev-") {
			if err := f.add(strings.TrimSpace(name), strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f sevFields) measurement() (*SEVMeasurement, error) {
	text, ok := f["measurement"]
	if !ok {
		return nil, errNoSEV
	}
	blob, err := decodeBase64(text)
	if err != nil || len(blob) != sevSize {
		return nil, fmt.Errorf("the measurement: %s, expected %d bytes in base64", quoted(text), sevSize)
	}
	m := &SEVMeasurement{Measure: blob[:sevMeasureSize], MNonce: blob[sevMeasureSize:]}
	major, err1 := f.number("API major version", 8)
	minor, err2 := f.number("API minor version", 8)
	build, err3 := f.number("build", 8)
	policy, err4 := f.number("policy", 32)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return nil, err
		}
	}
	if major != nil && minor != nil {
		m.SEVAPI = &SEVAPI{uint8(*major), uint8(*minor)}
	}
	if build != nil {
		m.SEVBuild = new(uint8)
		*m.SEVBuild = uint8(*build)
	}
	if policy != nil {
		m.SEVPolicy = new(uint32)
		*m.SEVPolicy = uint32(*policy)
	}
	return m, nil
}

// number returns a field of so many bits, nil where there is none.
func (f sevFields) number(field string, bits int) (*uint64, error) {
	text, ok := f[field]
	if !ok {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 0, bits)
	if err != nil {
		return nil, fmt.Errorf("the %s: %s, expected a number of %d bits", field, quoted(text), bits)
	}
	return &n, nil
}
