//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"tallystick/lab/internal/evidence"
	"tallystick/rtmr"
	"tallystick/rtmr/tpm"
)

// keyTypes are the attestation keys, by the names that they have here.
var keyTypes = map[string]tpm.KeyType{"rsa": tpm.RSA, "ecc": tpm.ECC}

// errMoved says that a PCR was extended between two quotes.
var errMoved = errors.New("the PCRs kept moving")

// collect quotes the PCRs. The values are those that all quotes are of: if a PCR
// moves meanwhile, all is done again.
func collect(ctx context.Context, d *tpm.Device, nonce []byte, banks []rtmr.Alg, pcrs []rtmr.Register) (*evidence.Evidence, error) {
	e := &evidence.Evidence{Nonce: nonce, Keys: map[string][]byte{}}
	var keys []*tpm.Key
	for _, name := range keyNames {
		key, err := d.PrimaryKey(ctx, keyTypes[name], tpm.Endorsement)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		defer key.Close()
		e.Keys[name] = key.Public()
		keys = append(keys, key)
	}
	var err error
	if e.EKCerts, err = d.EKCertificates(ctx); err != nil {
		return nil, err
	}
	for range 20 {
		if err := quoteAll(ctx, d, e, keys, banks, pcrs); err != errMoved {
			return e, err
		}
	}
	return nil, errMoved
}

// keyNames are the keyTypes in the order of their quotes.
var keyNames = []string{"rsa", "ecc"}

func quoteAll(ctx context.Context, d *tpm.Device, e *evidence.Evidence, keys []*tpm.Key, banks []rtmr.Alg, pcrs []rtmr.Register) error {
	e.Values, e.Quotes = nil, nil
	for i, key := range keys {
		sets := [][]rtmr.Alg{banks} // all together, and each
		for _, b := range banks {
			sets = append(sets, []rtmr.Alg{b})
		}
		for j, set := range sets {
			q, err := d.Quote(ctx, key, e.Nonce, set, pcrs...)
			if err != nil {
				return err
			}
			if e.Values == nil {
				e.Values = q.Values
			}
			for a, bank := range q.Values {
				for r, value := range bank {
					if !bytes.Equal(value, e.Values[a][r]) {
						return errMoved
					}
				}
			}
			bank := set[0].String()
			if j == 0 {
				bank = "all"
			}
			e.Quotes = append(e.Quotes, evidence.Quote{Key: keyNames[i], Bank: bank, Attest: q.Attest, Signature: q.Signature})
		}
	}
	return nil
}
