package quote

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"tallystick/rtmr"
)

// ParseValues reads register values that come without a quote. It recognises
// them by their content:
//
//   - JSON, bank by bank: {"sha256":{"pcr0":"hex"}}. PCRs may be bare indices
//     ("0"), but not some of them.
//   - what tpm2_pcrread prints (tpm2-tools 4 and 5, and tpm2_pcrlist before
//     them): a line "sha256:" a bank, a line "0 : 0xHEX" a PCR.
//   - what grep, head or tail print of the kernel's files pcr-sha256/0 and so
//     on, where each value follows its path (Linux 5.12,
//     drivers/char/tpm/tpm-sysfs.c).
//   - the kernel's file pcrs of a TPM 1.2: "PCR-00: AA BB ..", SHA-1.
//
// A bank without registers is left out. It is an error if a value has not its
// bank's size, or a register comes twice; the error names the line, or for JSON
// the offset in bytes, and the register.
func ParseValues(data []byte) (rtmr.Values, error) {
	v := valuesReader{}
	read := v.text
	if isJSONObject(data) {
		read = v.json
	}
	if err := read(data); err != nil {
		return nil, err
	}
	if len(v) == 0 {
		return nil, errors.New("no register values")
	}
	return rtmr.Values(v), nil
}

// isValues tells register values from other JSON and text: by a bank's name in
// the one, and by its first line in the other.
func isValues(data []byte) bool {
	if isJSONObject(data) {
		var banks map[string]json.RawMessage
		if json.Unmarshal(data, &banks) != nil {
			return false
		}
		for name := range banks {
			if _, err := rtmr.ParseAlg(name); err == nil {
				return true
			}
		}
		return false
	}
	first, _, _ := bytes.Cut(bytes.TrimLeft(data, " \t\r\n"), []byte("\n"))
	line := strings.TrimSpace(string(first[:min(len(first), maxValueLine)]))
	if m := bankLine.FindStringSubmatch(line); m != nil {
		_, err := rtmr.ParseAlg(m[1])
		return err == nil
	}
	return pathLine.MatchString(line) || sysfsLine.MatchString(line) || pcrsLine.MatchString(line)
}

func isJSONObject(data []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}

func openValues(data []byte, opts *Options) (*Quote, error) {
	values, err := ParseValues(data)
	if err != nil {
		return nil, err
	}
	return valuesAlone(values, opts)
}

func valuesAlone(values rtmr.Values, opts *Options) (*Quote, error) {
	if err := opts.only("a list of values without a quote"); err != nil {
		return nil, err
	}
	q := &Quote{Kind: Values, Values: values}
	q.Links = []Link{{Signature, Missing, "register values alone: nobody vouches for them"}}
	if len(opts.Nonce) > 0 {
		q.Links = append(q.Links, Link{Nonce, Missing, "register values alone hold no nonce: nothing says when they were read"})
	}
	return q, nil
}

// valuesReader collects values and refuses those that cannot be.
type valuesReader rtmr.Values

// add takes a register's value in hexadecimal, with or without 0x.
func (v valuesReader) add(alg rtmr.Alg, r rtmr.Register, text string) error {
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "0x"), "0X")
	value, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("%s %s: %s is not hexadecimal", alg, r, quoted(text))
	}
	size := alg.Size()
	if size != 0 && len(value) != size {
		return fmt.Errorf("%s %s has %d bytes, expected %d", alg, r, len(value), size)
	}
	if len(value) == 0 || len(value) > rtmr.MaxDigestSize {
		return fmt.Errorf("%s %s has %d bytes, expected 1 to %d", alg, r, len(value), rtmr.MaxDigestSize)
	}
	if _, again := v[alg][r]; again {
		return fmt.Errorf("%s %s comes twice", alg, r)
	}
	if v[alg] == nil {
		v[alg] = map[rtmr.Register]rtmr.Hex{}
	}
	v[alg][r] = value
	return nil
}

// quoted renders text of the input in an error, and not all of it.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		return `"` + rtmr.Escape(s[:most]) + `.."`
	}
	return `"` + rtmr.Escape(s) + `"`
}

// json reads token by token, because encoding/json's maps silently keep the
// last of two equal keys.
func (v valuesReader) json(data []byte) error {
	p := valuesJSON{valuesReader: v, dec: json.NewDecoder(bytes.NewReader(data)), banks: map[rtmr.Alg]bool{}}
	err := p.object("an object of banks", p.bank)
	if err == nil {
		if _, end := p.dec.Token(); end != io.EOF {
			err = errors.New("more follows the object of banks")
		}
	}
	if err != nil {
		return fmt.Errorf("offset %d: %w", p.dec.InputOffset(), err)
	}
	return nil
}

type valuesJSON struct {
	valuesReader
	dec          *json.Decoder
	banks        map[rtmr.Alg]bool
	name, number string // the first register that was named so
}

// object reads an object whose every value is read by member.
func (p *valuesJSON) object(expected string, member func(key string) error) error {
	if tok, err := p.dec.Token(); err != nil {
		return endsEarly(err)
	} else if tok != json.Delim('{') {
		return fmt.Errorf("%v, expected %s", tokenText(tok), expected)
	}
	for p.dec.More() {
		key, err := p.dec.Token()
		if err != nil {
			return endsEarly(err)
		}
		if err := member(key.(string)); err != nil { // a key is always a string
			return err
		}
	}
	_, err := p.dec.Token()
	return endsEarly(err)
}

func (p *valuesJSON) bank(name string) error {
	alg, err := rtmr.ParseAlg(name)
	if err != nil {
		return fmt.Errorf("bank %s: expected a hash algorithm, such as sha256", quoted(name))
	}
	if p.banks[alg] {
		return fmt.Errorf("bank %s comes twice", alg)
	}
	p.banks[alg] = true
	return p.object(fmt.Sprintf("an object of %s registers", alg), func(name string) error {
		r, err := p.register(name)
		if err != nil {
			return fmt.Errorf("%s: %w", alg, err)
		}
		tok, err := p.dec.Token()
		if err != nil {
			return endsEarly(err)
		}
		text, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%s %s: %v, expected a string of hexadecimal digits", alg, r, tokenText(tok))
		}
		return p.add(alg, r, text)
	})
}

// register reads a register's name or a PCR's bare index. The two do not mix:
// {"0":..,"pcr1":..} is two tools' output pasted together.
func (p *valuesJSON) register(name string) (r rtmr.Register, err error) {
	if r, err = pcr(name); err == nil {
		p.number = name
	} else if r, err = rtmr.ParseRegister(name); err == nil {
		p.name = name
	} else {
		return r, fmt.Errorf("unknown register %s, expected pcr0..pcr23 or 0..23, rtmr0..rtmr3, rem0..rem3, mrtd, rim or launch", quoted(name))
	}
	if p.name != "" && p.number != "" {
		return r, fmt.Errorf(`registers are called both "%s" and "%s", expected one way`, p.number, p.name)
	}
	return r, nil
}

// pcr reads a PCR's index as digits.
func pcr(digits string) (rtmr.Register, error) {
	n, err := strconv.ParseUint(digits, 10, 32)
	r, ok := rtmr.PCR(n).Register()
	if err != nil || !ok {
		return rtmr.Register{}, fmt.Errorf("%s is no PCR, expected 0 to %d", quoted(digits), rtmr.NumPCRs-1)
	}
	return r, nil
}

func endsEarly(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the JSON ends early")
	}
	return err
}

func tokenText(tok json.Token) string {
	switch tok := tok.(type) {
	case string:
		return quoted(tok)
	case nil:
		return "null"
	}
	return fmt.Sprint(tok)
}

// The lines of the text forms. Indentation and trailing blanks are cut first.
var (
	bankLine  = regexp.MustCompile(`^([[:alnum:]_-]+) ?:$`)                          // "sha256:"; tpm2_pcrlist wrote "sha256 :"
	valueLine = regexp.MustCompile(`^([0-9]+) *: *(\S*)$`)                           // "0 : 0xHEX", "10: 0xHEX"
	sysfsLine = regexp.MustCompile(`(?:^|/)pcr-([[:alnum:]_]+)/([0-9]+):\s*(\S*)$`)  // grep: "/sys/../pcr-sha256/0:HEX"
	pathLine  = regexp.MustCompile(`^==> (?:.*/)?pcr-([[:alnum:]_]+)/([0-9]+) <==$`) // head and tail, before the value
	pcrsLine  = regexp.MustCompile(`^PCR-([0-9]+): *([[:xdigit:] ]*)$`)              // "PCR-00: AA BB"
)

// maxValueLine is longer than any line of values: a path, and a SHA-512 digest.
const maxValueLine = 8192

const expectedLine = "expected a bank (sha256:), a PCR (0 : 0xHEX), a path with its value (pcr-sha256/0:HEX), or PCR-00: AA BB"

func (v valuesReader) text(data []byte) error {
	p := valuesText{valuesReader: v}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if err := p.line(strings.TrimSpace(string(line))); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if p.file != (rtmr.Selected{}) {
		return fmt.Errorf("line %d: the value of %s %s is missing", n, p.file.Alg, p.file.Register)
	}
	return nil
}

type valuesText struct {
	valuesReader
	bank rtmr.Alg      // of the last bank's line, 0 before it
	file rtmr.Selected // whose value the next line holds: its path was read
}

func (p *valuesText) line(line string) (err error) {
	if line == "" {
		return nil
	}
	if s := p.file; s != (rtmr.Selected{}) {
		p.file = rtmr.Selected{}
		return p.add(s.Alg, s.Register, line)
	}
	if m := bankLine.FindStringSubmatch(line); m != nil {
		p.bank, err = rtmr.ParseAlg(m[1])
		return err
	}
	if m := valueLine.FindStringSubmatch(line); m != nil {
		if p.bank == 0 {
			return fmt.Errorf("PCR %s comes before any bank, expected a line that names one, such as sha256: first", m[1])
		}
		return p.pcr(p.bank, m[1], m[2])
	}
	if m := sysfsLine.FindStringSubmatch(line); m != nil {
		alg, err := rtmr.ParseAlg(m[1])
		if err != nil {
			return err
		}
		return p.pcr(alg, m[2], m[3])
	}
	if m := pathLine.FindStringSubmatch(line); m != nil {
		if p.file.Alg, err = rtmr.ParseAlg(m[1]); err != nil {
			return err
		}
		p.file.Register, err = pcr(m[2])
		return err
	}
	if m := pcrsLine.FindStringSubmatch(line); m != nil {
		return p.pcr(rtmr.SHA1, m[1], strings.ReplaceAll(m[2], " ", "")) // a TPM 1.2 has no other bank
	}
	return fmt.Errorf("%s, %s", quoted(line), expectedLine)
}

func (p *valuesText) pcr(alg rtmr.Alg, index, text string) error {
	r, err := pcr(index)
	if err != nil {
		return fmt.Errorf("%s: %w", alg, err)
	}
	return p.add(alg, r, text)
}
