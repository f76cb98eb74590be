package quote

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// openTDX opens bytes that isDCAPQuote recognised.
func openTDX(data []byte, opts *Options) (*Quote, error) {
	p, err := ParseTDX(data)
	if err != nil {
		return nil, err
	}
	if err := opts.only("a TD quote", "collateral", "tdx-roots"); err != nil {
		return nil, err
	}
	nonce, err := fieldNonce("REPORTDATA", p.REPORTDATA, opts.Nonce)
	if err != nil {
		return nil, err
	}
	c, err := newTDXChecker(p, data, opts)
	if err != nil {
		return nil, err
	}
	q := &Quote{Kind: TDX, Version: int(p.Version), Values: p.values(), Warnings: append(tdxTrailing(p.Trailing), p.warnings()...), asked: asked{reportData: p.REPORTDATA}}
	q.Facts = append([]Fact{
		{"attestation key type", fmt.Sprintf("%d (ECDSA P-256)", p.AttestationKeyType)},
		{"TEE type", fmt.Sprintf("%#x (TDX)", p.TEEType)},
		{"QE vendor id", p.QEVendorID.String()},
	}, p.facts()...)
	if p.Version == 5 {
		q.Facts = slices.Insert(q.Facts, 0, Fact{"body type", map[uint16]string{bodyTDX10: "2 (TDX 1.0)", bodyTDX15: "3 (TDX 1.5)"}[p.BodyType]})
	}
	signature := c.signature()
	chain := c.chain(signature.Status == Verified)
	collateral, warnings, err := c.collateral(opts.Collateral, chain.Status == Verified)
	if err != nil {
		return nil, err
	}
	q.Links = []Link{signature, chain, collateral, nonce, p.policy()}
	q.Warnings = append(q.Warnings, warnings...)
	return q, nil
}

// isTDXText tells a TD quote or a TDREPORT as people paste it, in hexadecimal or
// base64.
func isTDXText(data []byte) bool {
	b, ok := decodeText(data)
	return ok && (isDCAPQuote(b) || isTDReport(b))
}

func openTDXText(data []byte, opts *Options) (*Quote, error) {
	b, _ := decodeText(data)
	if isTDReport(b) {
		return openTDReport(b, opts)
	}
	return openTDX(b, opts)
}

// decodeText decodes hexadecimal, with 0x before it or not, or base64 in either
// alphabet, padded or not. White space is skipped.
func decodeText(data []byte) (b []byte, ok bool) {
	for _, c := range data {
		if c >= 0x80 || c < ' ' && c != '\n' && c != '\r' && c != '\t' {
			return nil, false
		}
	}
	text := strings.Join(strings.Fields(string(data)), "")
	if text == "" {
		return nil, false
	}
	if b, err := hex.DecodeString(strings.TrimPrefix(text, "0x")); err == nil {
		return b, true
	}
	b, err := decodeBase64(text)
	return b, err == nil
}

func decodeBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}

// tdxBundle is a quote with its logs in one JSON object: the answer to dstack's
// GetQuote ("event_log" is a JSON array in a string, quote and report_data are
// hexadecimal), or Confidential Containers' TDX evidence ("cc_eventlog" and
// quote are base64).
type tdxBundle struct {
	quote      []byte
	reportData []byte
	logs       []Log
}

func isTDXBundle(data []byte) bool {
	b, err := parseTDXBundle(data)
	return err == nil && (isDCAPQuote(b.quote) || isTDReport(b.quote))
}

// parseTDXBundle takes keys as they are spelled, which decoding into a struct
// would not.
func parseTDXBundle(data []byte) (*tdxBundle, error) {
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return nil, fmt.Errorf("no JSON object")
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(data, &keys); err != nil {
		return nil, err
	}
	b := &tdxBundle{}
	var ok bool
	if b.quote, ok = decodeText([]byte(jsonString(keys["quote"]))); !ok {
		return nil, fmt.Errorf("\"quote\" is neither hexadecimal nor base64")
	}
	b.reportData, _ = decodeText([]byte(jsonString(keys["report_data"])))
	if raw, ok := keys["event_log"]; ok {
		log := []byte(raw)
		if s := jsonString(raw); s != "" {
			log = []byte(s)
		}
		b.logs = append(b.logs, Log{Name: "event_log", Data: log})
	}
	if log, err := decodeBase64(jsonString(keys["cc_eventlog"])); err == nil && len(log) > 0 {
		b.logs = append(b.logs, Log{Name: "cc_eventlog", Data: log})
	}
	return b, nil
}

// jsonString is a JSON string's value, or "".
func jsonString(raw json.RawMessage) (s string) {
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

func openTDXBundle(data []byte, opts *Options) (*Quote, error) {
	b, err := parseTDXBundle(data)
	if err != nil {
		return nil, err
	}
	open := openTDX
	if isTDReport(b.quote) {
		open = openTDReport
	}
	q, err := open(b.quote, opts)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	q.Logs = b.logs
	stated := rtmr.Hex(b.reportData).String()
	for _, f := range q.Facts {
		if f.Name == "REPORTDATA" && stated != "" && strings.TrimRight(f.Value, "0") != strings.TrimRight(stated, "0") {
			q.Warnings = append(q.Warnings, fmt.Sprintf("the bundle's report_data is %.128s, the quote's is %s", stated, f.Value))
		}
	}
	return q, nil
}
