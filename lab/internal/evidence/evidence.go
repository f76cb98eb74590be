// Package evidence is what the guest's tool labtpm tells the host.
package evidence

import "tallystick/rtmr"

// Evidence is a TPM's quotes, and what belongs to them.
type Evidence struct {
	Nonce []byte
	// Values are the quoted PCRs as the TPM gave them; in JSON they are what
	// tally's --values takes.
	Values  rtmr.Values
	Keys    map[string][]byte // attestation keys: "rsa" and "ecc", TPMT_PUBLIC
	EKCerts map[string][]byte // endorsement keys' certificates, DER; "rsa2048", "ecc384", ..
	Quotes  []Quote
}

// Quote is one quote: of one bank, or of "all".
type Quote struct {
	Key, Bank         string
	Attest, Signature []byte // TPMS_ATTEST, TPMT_SIGNATURE
}
