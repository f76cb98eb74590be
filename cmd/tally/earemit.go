package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/pflag"
	"github.com/veraison/ear"

	"tallystick/quote"
	"tallystick/rtmr"
)

// emitFlags are for the verdict as a signed attestation result.
type emitFlags struct{ file, keyFile string }

func (f *emitFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "emit-ear", "", "write the verdict, whatever it is, as an attestation result (EAR, a JWT) with one submodule a layer; it takes --sign-key")
	flags.StringVar(&f.keyFile, "sign-key", "", "the private key that signs what --emit-ear writes (PEM, or a private JWK)")
}

// emitter writes a verdict as an attestation result.
type emitter struct {
	file  string
	key   *quote.SigningKey
	nonce string // as eat_nonce has it
}

// The sizes of a nonce that an EAR can echo (RFC 9711 §4.1).
const minEATNonce, maxEATNonce = 8, 64

// emitter reads the key, before any evidence: nothing is appraised for nothing. It is
// nil if no result is asked for.
func (f *emitFlags) emitter(nonce string) (*emitter, error) {
	switch {
	case f.file == "" && f.keyFile == "":
		return nil, nil
	case f.file == "":
		return nil, errors.New("--sign-key was given, and no --emit-ear that it could sign")
	case f.keyFile == "":
		return nil, errors.New("--emit-ear takes --sign-key: nobody could tell who says it")
	case f.file == "-":
		return nil, errors.New("--emit-ear -, expected a file: standard output is the verdict's")
	}
	data, err := readEvidence(f.keyFile)
	if err != nil {
		return nil, err
	}
	key, err := quote.ParseSigningKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.keyFile, err)
	}
	e := &emitter{file: f.file, key: key}
	if nonce != "" {
		raw, err := hex.DecodeString(nonce)
		if err == nil && (len(raw) < minEATNonce || len(raw) > maxEATNonce) {
			return nil, fmt.Errorf("--nonce has %d bytes, and an attestation result's eat_nonce takes %d to %d", len(raw), minEATNonce, maxEATNonce)
		}
		e.nonce = base64.RawURLEncoding.EncodeToString(raw) // who reads the evidence refuses what is no hexadecimal
	}
	return e, nil
}

// emit writes the verdict. Where an input error left none, it writes nothing.
func (e *emitter) emit(c *investigation, r *verdictReport) error {
	if e == nil || r.Verdict == "" {
		return nil
	}
	claims, err := e.claims(c, r)
	if err != nil {
		return fmt.Errorf("--emit-ear: %w", err)
	}
	token, err := e.key.Sign(claims)
	if err != nil {
		return fmt.Errorf("--emit-ear: %w", err)
	}
	return replaceFile(e.file, append(token, '\n'))
}

// The claims of tally's own in what it emits: a private use of EAR's extension points,
// in a namespace that no one else writes to. The first is read back by --ear.
const (
	evidenceClaim  = "ear.tallystick.evidence"
	appraisalClaim = "ear.tallystick.appraisal"
)

// appraisalPolicy names the rules by which affirming is said: that the logs explain the
// registers, and somebody vouches for these (docs/ear.md).
const appraisalPolicy = "policy://tallystick/reconcile/1"

func (e *emitter) claims(c *investigation, r *verdictReport) ([]byte, error) {
	layers := r.appraise()
	result := &ear.AttestationResult{
		Profile:    pointer(ear.EatProfile),
		IssuedAt:   pointer(time.Now().Unix()),
		VerifierID: &ear.VerifierIdentity{Developer: pointer("tallystick"), Build: pointer(buildName())},
		Submods:    map[string]*ear.Appraisal{},
	}
	if e.nonce != "" {
		result.Nonce = &e.nonce
	}
	policy := appraisalPolicy
	if c.own.strict {
		policy += "?strict"
	}
	overall := ear.TrustTierAffirming
	for name, a := range layers {
		overall = worseTier(overall, a.status)
		result.Submods[name] = &ear.Appraisal{Status: &a.status, TrustVector: &a.claims, AppraisalPolicyID: &policy}
	}
	if _, err := result.MarshalJSON(); err != nil { // validates it
		return nil, err
	}
	all := result.AsMap()
	submods, ok := all["submods"].(map[string]any)
	if !ok {
		return nil, errors.New("the library's result has no map of submodules")
	}
	for name, a := range layers {
		submod, ok := submods[name].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("the library's result has no submodule %s", name)
		}
		submod[appraisalClaim] = a
		submod["ear.trustworthiness-vector"] = made(a.claims)
		if l, _ := c.quote.Link(quote.Nonce); name == "hardware" && e.nonce != "" && l.Status == quote.Verified {
			submod["eat_nonce"] = e.nonce // the evidence's own (draft-ietf-rats-ear §4)
		}
	}
	all["ear.status"] = overall
	all[evidenceClaim] = c.evidenceClaim(r)
	return json.Marshal(all)
}

// made are the claims of a vector that were made: 0 is as if there were none (AR4SI §3.1).
func made(vector ear.TrustVector) map[string]ear.TrustClaim {
	all := vector.AsMap()
	maps.DeleteFunc(all, func(_ string, claim ear.TrustClaim) bool { return claim == ear.NoClaim })
	return all
}

func pointer[T any](v T) *T { return &v }

// buildName is this program's version, and the revision that it was built of if that is
// known.
func buildName() string {
	name := "tally"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return name
	}
	name += " " + cmp.Or(info.Main.Version, "(devel)")
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			name += " " + s.Value
		}
	}
	return name
}

// earEvidence is what a result is of: the registers, and what they were held against.
type earEvidence struct {
	Version   int          `json:"version"`
	Verdict   string       `json:"verdict"`
	Text      string       `json:"text"`
	At        string       `json:"at,omitempty"` // --at: when certificates had to be valid, if not at iat
	Quote     *earQuote    `json:"quote"`
	Registers rtmr.Values  `json:"registers,omitempty"`
	Logs      []earLog     `json:"logs"`
	Expected  *rtmr.Values `json:"expected,omitempty"`
}

type earQuote struct {
	Kind   quote.Kind              `json:"kind"`
	SHA256 string                  `json:"sha256,omitempty"` // of its file
	Links  map[string]quote.Status `json:"links"`
	Inside *earQuote               `json:"inside,omitempty"`
}

type earLog struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Layer  string `json:"layer"`
	Events int    `json:"events"`
	SHA256 string `json:"sha256,omitempty"`
}

// evidenceClaim says what the verdict is of. Of evidence that is not trusted it has no
// registers: nothing that it says counts.
func (c *investigation) evidenceClaim(r *verdictReport) *earEvidence {
	out := &earEvidence{Version: 1, Verdict: r.Verdict, Text: r.Sentence, At: c.own.at, Quote: c.earQuote(), Logs: []earLog{}}
	if len(r.expected) > 0 {
		out.Expected = &r.expected
	}
	if r.Verdict != untrusted {
		out.Registers = rtmr.Values{}
		for _, o := range r.Registers {
			if o.Quoted != nil {
				out.Registers.Set(o.Alg, o.Register, o.Quoted)
			}
		}
	}
	for i, l := range r.Logs {
		one := earLog{Name: filepath.Base(l.Path), Format: l.Format, Layer: layerOf(l.Format), Events: l.Events, SHA256: l.sha256}
		if held := i - len(c.logs); held >= 0 && held < len(c.checks) { // against the journal, and not folded
			sum := sha256.Sum256(c.checks[held].data)
			one.SHA256 = hex.EncodeToString(sum[:])
		}
		out.Logs = append(out.Logs, one)
	}
	return out
}

// earQuote is the evidence, with the digests of its files: the quote's, and that of another
// verifier's result beside it.
func (c *investigation) earQuote() *earQuote {
	out := earQuoteOf(c.quote)
	for i, at := 0, out; at != nil && i < len(c.own.opened); at = at.Inside {
		if i == 0 || at.Kind == quote.EAR {
			at.SHA256 = hex.EncodeToString(c.own.opened[i][:])
			i++
		}
	}
	return out
}

func earQuoteOf(q *quote.Quote) *earQuote {
	out := &earQuote{Kind: q.Kind, Links: map[string]quote.Status{}}
	for _, l := range q.Links {
		if old, again := out.Links[l.Name]; !again || old == quote.Verified { // of those of one name, one that is not verified
			out.Links[l.Name] = l.Status
		}
	}
	if q.Inside != nil {
		out.Inside = earQuoteOf(q.Inside)
	}
	return out
}

// digester hashes all that is read of a log, and what is left behind its end.
type digester struct {
	io.ReadCloser
	hash hash.Hash
}

func newDigester(src io.ReadCloser) *digester { return &digester{src, sha256.New()} }

func (d *digester) Read(b []byte) (int, error) {
	n, err := d.ReadCloser.Read(b)
	d.hash.Write(b[:n])
	return n, err
}

// sum reads the rest, and returns the SHA-256 of all; "" if nothing was hashed.
func (d *digester) sum() (string, error) {
	if d == nil {
		return "", nil
	}
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{d}); err != nil {
		return "", err
	}
	return hex.EncodeToString(d.hash.Sum(nil)), nil
}

// replaceFile writes a file so that whoever opens its name finds the old content or all
// of the new.
func replaceFile(path string, data []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
