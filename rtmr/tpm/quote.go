package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// Quote is registers' values, signed by the TPM.
type Quote struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE
	Key       []byte // TPMT_PUBLIC
	// Values are what was signed: they hash to the digest in Attest.
	Values rtmr.Values
}

// Quote has the TPM sign the registers' values in these banks, in this order, and
// the nonce. Without banks or registers it is all that the TPM has. The nonce is
// at most as long as the TPM's largest digest, and two bytes. It is ErrBusy if
// registers kept moving for two seconds between their reading and the signing.
func (d *Device) Quote(ctx context.Context, k *Key, nonce []byte, banks []rtmr.Alg, registers ...rtmr.Register) (*Quote, error) {
	list, err := d.selectPCRs(banks, registers)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	for started := time.Now(); ; {
		q, err := d.quote(ctx, k, nonce, list)
		if err == nil {
			return q, nil
		}
		if errors.Is(err, errMoved) && ctx.Err() == nil && time.Since(started) < patience {
			continue
		}
		return nil, fmt.Errorf("quote: %w", err)
	}
}

// errMoved says that registers were extended between reading and quote.
var errMoved = fmt.Errorf("%w: registers were extended between their reading and their quote, for %v", rtmr.ErrBusy, patience)

// selectPCRs returns a selection in the order of the banks.
func (d *Device) selectPCRs(banks []rtmr.Alg, registers []rtmr.Register) (list tpm2.TPMLPCRSelection, err error) {
	infos, err := d.description.Select(registers)
	if err != nil {
		return list, err
	}
	all := selection(infos)
	if len(banks) == 0 {
		for _, s := range all {
			if !slices.Contains(banks, s.Alg) {
				banks = append(banks, s.Alg)
			}
		}
		slices.Sort(banks)
	}
	var chosen []rtmr.Selected
	for _, a := range banks {
		for _, info := range infos {
			s := rtmr.Selected{Alg: a, Register: info.Register}
			switch {
			case slices.Contains(all, s):
				chosen = append(chosen, s)
			case len(registers) > 0: // it was named
				return list, fmt.Errorf("%s: %w: the TPM does not keep it", s, rtmr.ErrNotSupported)
			}
		}
	}
	if len(chosen) == 0 {
		return list, fmt.Errorf("%v: %w: no register is kept in any of these banks", banks, rtmr.ErrNotSupported)
	}
	return pcrSelection(chosen), nil
}

// quote reads and quotes once.
func (d *Device) quote(ctx context.Context, k *Key, nonce []byte, list tpm2.TPMLPCRSelection) (*Quote, error) {
	order := selected(list)
	byRegister := slices.Clone(order)
	slices.SortStableFunc(byRegister, func(a, b rtmr.Selected) int { return a.Register.Compare(b.Register) })
	values, err := d.read(ctx, byRegister)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	r, err := tpm2.Quote{SignHandle: k.auth(), QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: list}.Execute(call{ctx, d})
	if err != nil {
		return nil, explain(err)
	}
	attest, err := r.Quoted.Contents()
	if err != nil {
		return nil, fmt.Errorf("TPMS_ATTEST: %w", err)
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return nil, fmt.Errorf("TPMS_ATTEST: %w", err)
	}
	if got := selected(info.PCRSelect); !slices.Equal(got, order) {
		return nil, fmt.Errorf("the TPM quoted %v, expected %v", got, order)
	}
	composite := rtmr.Composite{Selection: order, Digest: rtmr.Digest{Alg: signatureHash(&r.Signature), Sum: info.PCRDigest.Buffer}}
	digest, err := composite.Of(values)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(digest, composite.Digest.Sum) {
		return nil, errMoved
	}
	return &Quote{r.Quoted.Bytes(), tpm2.Marshal(r.Signature), k.Public(), values}, nil
}

// signatureHash returns the hash of the signature's scheme, by which the values
// are hashed too (Part 3, "TPM2_Quote").
func signatureHash(s *tpm2.TPMTSignature) rtmr.Alg {
	switch s.SigAlg {
	case tpm2.TPMAlgRSASSA:
		if rsa, err := s.Signature.RSASSA(); err == nil {
			return rtmr.Alg(rsa.Hash)
		}
	case tpm2.TPMAlgRSAPSS:
		if rsa, err := s.Signature.RSAPSS(); err == nil {
			return rtmr.Alg(rsa.Hash)
		}
	case tpm2.TPMAlgECDSA:
		if ecc, err := s.Signature.ECDSA(); err == nil {
			return rtmr.Alg(ecc.Hash)
		}
	}
	return 0
}
