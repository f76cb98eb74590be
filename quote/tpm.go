package quote

import (
	"fmt"

	"tallystick/rtmr"
)

// openTPMAttest opens a TPMS_ATTEST or TPM2B_ATTEST, whose signature and key
// are in opts: files as tpm2_quote writes them.
func openTPMAttest(data []byte, opts *Options) (*Quote, error) {
	if a := softAttest(data); a != nil {
		return openSoft(a, opts)
	}
	if len(opts.HCL) > 0 {
		return openAzure(data, opts)
	}
	if len(opts.SVSMManifest) > 0 {
		return openSVSM(data, opts)
	}
	if err := opts.only("a TPM's quote without --hcl", "signature", "key", "ek-cert", "ek-roots", "activation"); err != nil {
		return nil, err
	}
	key, err := givenKey(opts)
	if err != nil {
		return nil, err
	}
	return openTPM(data, opts.Signature, key, keyChain(key, byCaller, opts), opts)
}

// givenKey returns the attestation key that the caller gave, nil if none.
func givenKey(opts *Options) (*tpmKey, error) {
	if len(opts.Key) == 0 {
		return nil, nil
	}
	key, err := parseTPMKey(opts.Key)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	return key, nil
}

// openTPM reads a TPMS_ATTEST or TPM2B_ATTEST and verifies it with a key, which
// parseTPMKey or keyOf made. The caller has judged the key: chain is the link
// that says why it is believed. A signature of no bytes, or a nil key, makes the
// link Signature Missing.
func openTPM(attest, signature []byte, key *tpmKey, chain Link, opts *Options) (*Quote, error) {
	a, err := parseTPMAttest(attest)
	if err != nil {
		return nil, fmt.Errorf("TPMS_ATTEST: %w", err)
	}
	var sig *tpmSignature
	if len(signature) > 0 {
		if sig, err = parseTPMSignature(signature); err != nil {
			return nil, err
		}
	}
	q := &Quote{
		Kind:  TPM,
		Links: []Link{signatureLink(a, sig, key), chain, a.nonce(opts.Nonce)},
		Facts: a.facts(),
	}
	if err := q.soften(a, key); err != nil {
		return nil, fmt.Errorf("TPMS_ATTEST: %w", err)
	}
	hash := schemeHash(a, sig, key)
	if len(a.pcrDigest) != hash.Size() {
		q.Warnings = append(q.Warnings, fmt.Sprintf("pcrDigest has %d bytes, and the scheme's hash %s gives %d", len(a.pcrDigest), hash, hash.Size()))
	}
	if hash == rtmr.SHA1 && sig != nil {
		q.Warnings = append(q.Warnings, "the signature's hash is sha1, for which collisions are known")
	}
	q.Composites = []rtmr.Composite{{Selection: a.selection, Digest: rtmr.Digest{Alg: hash, Sum: a.pcrDigest}}}
	if len(a.selection) == 0 {
		q.Warnings = append(q.Warnings, "the quote selects no register")
	}
	if key != nil {
		q.Facts = append(q.Facts, key.facts()...)
		q.Warnings = append(q.Warnings, key.warnings()...)
	}
	return q, nil
}
