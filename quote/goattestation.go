package quote

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"tallystick/rtmr"
)

// goAttestation is what go-attestation's users write as JSON: its
// attest.PlatformParameters, or the dump of its attest-tool, of which the
// module's own test data are. encoding/json tells no case apart, and so does
// not this.
type goAttestation struct {
	// attest.PlatformParameters; TPMVersion in those of its older versions.
	TPMVersion int
	Public     []byte
	Quotes     []goQuote
	PCRs       []goPCR
	EventLog   []byte

	// internal.Dump of attest-tool.
	Static struct{ TPMVersion int }
	AK     struct{ Public []byte }
	Quote  *goQuote
	Log    struct {
		PCRs []goPCR
		Raw  []byte
	}
}

type goQuote struct {
	Quote     []byte
	Signature []byte
}

type goPCR struct {
	Index     int
	Digest    []byte
	DigestAlg crypto.Hash
}

// isGoAttestation tells either form by the keys that it has.
func isGoAttestation(data []byte) bool {
	var keys struct {
		Public json.RawMessage
		Quotes json.RawMessage
		AK     json.RawMessage
		Quote  json.RawMessage
		Log    json.RawMessage
	}
	if len(data) == 0 || json.Unmarshal(data, &keys) != nil {
		return false
	}
	first := func(raw json.RawMessage) byte {
		if len(raw) == 0 {
			return 0
		}
		return raw[0]
	}
	parameters := first(keys.Public) == '"' && first(keys.Quotes) == '['
	dump := first(keys.AK) == '{' && first(keys.Quote) == '{' && first(keys.Log) == '{'
	return parameters || dump
}

func openGoAttestation(data []byte, opts *Options) (*Quote, error) {
	b, err := parseGoAttestation(data)
	if err != nil {
		return nil, err
	}
	if err := opts.only("go-attestation's JSON", "key", "ek-cert", "ek-roots", "activation"); err != nil {
		return nil, err
	}
	return b.open(opts)
}

func parseGoAttestation(data []byte) (*tpmBundle, error) {
	var j goAttestation
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, jsonError(err)
	}
	if version := max(j.TPMVersion, j.Static.TPMVersion); version == 1 {
		return nil, fmt.Errorf("%w: TPMVersion 1 is a TPM 1.2's, expected 2", ErrUnsupported)
	}
	public, pcrs, log := j.Public, j.PCRs, j.EventLog
	if j.Quote != nil {
		public, pcrs, log = j.AK.Public, j.Log.PCRs, j.Log.Raw
		j.Quotes = append(j.Quotes, *j.Quote)
	}
	b := &tpmBundle{}
	var err error
	if len(public) > 0 {
		if b.key, err = parseTPMKey(public); err != nil {
			return nil, fmt.Errorf("the field Public: %w", err)
		}
	}
	for _, q := range j.Quotes {
		b.quotes = append(b.quotes, bundledQuote{q.Quote, q.Signature})
	}
	if b.values, err = goPCRValues(pcrs); err != nil {
		return nil, err
	}
	if len(log) > 0 {
		b.logs = []Log{{Name: "event log", Data: log}}
	}
	return b, nil
}

// goPCRValues places the values by their DigestAlg, which is Go's crypto.Hash.
func goPCRValues(pcrs []goPCR) (rtmr.Values, error) {
	values := rtmr.Values{}
	for i, pcr := range pcrs {
		if pcr.Index < 0 || pcr.Index >= rtmr.NumPCRs {
			return nil, fmt.Errorf("PCRs[%d].Index: %d, expected 0 to %d", i, pcr.Index, rtmr.NumPCRs-1)
		}
		register, _ := rtmr.PCR(pcr.Index).Register()
		alg, ok := bankOf(pcr.DigestAlg)
		if !ok {
			return nil, fmt.Errorf("PCRs[%d].DigestAlg: %d, expected 3 (sha1), 5 (sha256), 6 (sha384) or 7 (sha512)", i, uint(pcr.DigestAlg))
		}
		if err := mergeValues(values, rtmr.Values{alg: {register: pcr.Digest}}); err != nil {
			return nil, fmt.Errorf("PCRs[%d]: %w", i, err)
		}
	}
	return values, nil
}

func bankOf(h crypto.Hash) (rtmr.Alg, bool) {
	for alg, hash := range cryptoHash {
		if hash == h {
			return alg, true
		}
	}
	return 0, false
}

// jsonError tells where JSON is wrong, in one line.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	var corrupt base64.CorruptInputError
	switch {
	case err == nil:
		return nil
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return errors.New("the JSON ends early")
	case errors.As(err, &syntax):
		return fmt.Errorf("offset %d: %s", syntax.Offset, rtmr.Escape(err.Error()))
	case errors.As(err, &typ):
		return fmt.Errorf("offset %d: %s: a JSON %s, expected %s", typ.Offset, rtmr.Escape(typ.Field), rtmr.Escape(typ.Value), typ.Type)
	case errors.As(err, &corrupt):
		return fmt.Errorf("a field's base64: %w", corrupt)
	}
	return errors.New(rtmr.Escape(err.Error()))
}
