package quote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ccaEvidence is a token in JSON, with what came with it: virtCCA's with the
// device's certificate and the logs, as openEuler's Global Trust Authority
// ("vcca_token", base64) and secGear's attestation agent ("evidence", an array of
// bytes) send it, or Arm's as Confidential Containers' agent does ("token", the same).
type ccaEvidence struct {
	token, device []byte
	logs          []Log
}

// octets are bytes in JSON: base64, or an array of numbers.
type octets []byte

func (o *octets) UnmarshalJSON(data []byte) error {
	if data[0] != '[' {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		b, err := decodeBase64(text)
		*o = b
		return err
	}
	var numbers []uint16 // encoding/json takes a []byte for base64 alone
	if err := json.Unmarshal(data, &numbers); err != nil {
		return err
	}
	b := make([]byte, len(numbers))
	for i, n := range numbers {
		if n > 0xFF {
			return fmt.Errorf("item %d is %d, expected a byte", i, n)
		}
		b[i] = byte(n)
	}
	*o = b
	return nil
}

func isCCAEvidence(data []byte) bool {
	e, err := parseCCAEvidence(data)
	return err == nil && isCCA(e.token)
}

func parseCCAEvidence(data []byte) (*ccaEvidence, error) {
	var outer struct {
		Type     string          `json:"attester_type"`
		Evidence json.RawMessage `json:"evidence"`
	}
	text := bytes.TrimSpace(data)
	if !bytes.HasPrefix(text, []byte("{")) {
		return nil, errors.New("no JSON object")
	}
	if err := json.Unmarshal(text, &outer); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(outer.Evidence, []byte("{")) {
		text = outer.Evidence
	}
	var e struct {
		VirtCCA  octets `json:"vcca_token"`
		Token    octets `json:"token"`
		Evidence octets `json:"evidence"`
		Device   octets `json:"dev_cert"`
		Logs     []struct {
			Type string `json:"log_type"`
			Data octets `json:"log_data"`
		} `json:"logs"`
		IMA   octets `json:"ima_log"`
		Event octets `json:"event_log"`
		UEFI  struct {
			Table octets `json:"ccel_table"`
			Data  octets `json:"ccel_data"`
		} `json:"uefi_log"`
	}
	if err := json.Unmarshal(text, &e); err != nil {
		return nil, err
	}
	out := &ccaEvidence{device: e.Device}
	for _, token := range []octets{e.VirtCCA, e.Evidence, e.Token} {
		if out.token == nil {
			out.token = token
		}
	}
	// In order of layers: firmware's, then the kernel's.
	add := func(name string, data []byte) {
		if len(data) > 0 {
			out.logs = append(out.logs, Log{Name: name, Data: data})
		}
	}
	for _, l := range e.Logs {
		if l.Type == "CCEL" {
			add("CCEL", l.Data)
		}
	}
	add("event_log", e.Event)
	add("uefi_log", append(bytes.Clone(e.UEFI.Table), e.UEFI.Data...)) // a log may have the ACPI table before it
	for _, l := range e.Logs {
		if l.Type == "ImaLog" {
			add("ImaLog", l.Data)
		}
	}
	add("ima_log", e.IMA)
	return out, nil
}

// openCCAEvidence opens bytes that isCCAEvidence recognised. The device's
// certificate is what came with the token, if none is given.
func openCCAEvidence(data []byte, opts *Options) (*Quote, error) {
	e, err := parseCCAEvidence(data)
	if err != nil {
		return nil, err
	}
	p, err := ParseCCA(e.token)
	if err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	own := *opts
	if p.VirtCCA && len(own.Hardware) == 0 {
		own.Hardware = e.device
	}
	q, err := openCCA(e.token, &own)
	if err != nil {
		return nil, err
	}
	q.Logs = e.logs
	return q, nil
}
