package main

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"tallystick/quote"
)

// resultFlags are for what another verifier found.
type resultFlags struct {
	ear, earKey      string
	earAcceptWarning bool

	opened [][sha256.Size]byte // digests of the files that were opened: of the quote, then of the result
}

func (f *resultFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.ear, "ear", "", "another verifier's attestation result, whose register values are used, or beside --quote have to be the quote's: an EAR, Intel Trust Authority's or Azure Attestation's token")
	flags.StringVar(&f.earKey, "ear-key", "", "what that verifier signs with, which is trusted as it is: a public key or certificate (PEM or DER), a JWK or a JWK set")
	flags.BoolVar(&f.earAcceptWarning, "ear-accept-warning", false, "let a result pass whose verifier warns, as of a platform that is out of date; the verdict says so")
}

func (f *resultFlags) files() []string { return []string{f.ear, f.earKey} }

// openWithResult opens the evidence: a quote, another verifier's result, or one beside
// the other.
func (f *evidenceFlags) openWithResult(opts quote.Options) (*quote.Quote, error) {
	switch {
	case f.ear == "" && f.earKey != "":
		return nil, errors.New("--ear-key was given, and no --ear that it could have signed")
	case f.ear == "" && f.earAcceptWarning:
		return nil, errors.New("--ear-accept-warning was given, and no --ear")
	case f.ear == "":
		return f.openPlaced(opts)
	}
	if f.quote == "" && f.values == "" {
		return f.openResult(opts, true)
	}
	q, err := f.openPlaced(opts)
	if err != nil {
		return nil, err
	}
	result, err := f.openResult(opts, false)
	if err != nil {
		return nil, err
	}
	if err := q.Beside(result); err != nil {
		return nil, fmt.Errorf("%s: %w", f.ear, err)
	}
	return q, nil
}

// openResult opens the result. Beside a quote, what is given for that is not its own.
func (f *evidenceFlags) openResult(opts quote.Options, alone bool) (*quote.Quote, error) {
	data, err := readEvidence(f.ear)
	if err != nil {
		return nil, err
	}
	if !alone {
		opts = quote.Options{Nonce: opts.Nonce, Time: opts.Time, SkipSignature: opts.SkipSignature}
	}
	opts.EARAcceptWarning = f.earAcceptWarning
	if f.earKey != "" {
		if opts.EARKey, err = readEvidence(f.earKey); err != nil {
			return nil, err
		}
		if len(opts.EARKey) == 0 {
			return nil, fmt.Errorf("%s: the file is empty", f.earKey)
		}
	}
	result, err := quote.OpenEAR(data, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.ear, err)
	}
	f.opened = append(f.opened, sha256.Sum256(data))
	return result, nil
}
