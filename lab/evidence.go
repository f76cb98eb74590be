//go:build linux

package lab

import (
	"encoding/hex"
	"encoding/json"
	"strings"

	"tallystick/lab/internal/evidence"
)

// Evidence is a guest's TPM's quotes, and what belongs to them: the values of
// the quoted PCRs, the attestation keys (RSA and ECC, in TPMT_PUBLIC), and the
// endorsement keys' certificates.
type Evidence = evidence.Evidence

// Quote is one quote of an Evidence: a TPMS_ATTEST and a TPMT_SIGNATURE, of one
// bank or of "all".
type Quote = evidence.Quote

// Quote has the guest's TPM quote the PCRs 0 to 15 of each of the machine's
// banks, and of all of them together, by an RSA and an ECC key.
func (g *Guest) Quote(nonce []byte) *Evidence {
	g.t.Helper()
	out := g.Run("labtpm", "quote", "--nonce", hex.EncodeToString(nonce), "--banks", strings.Join(g.machine.Banks, ","))
	var e Evidence
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		g.t.Fatalf("guest: labtpm: %v", err)
	}
	return &e
}

// Where a guest's kernel has its logs.
const (
	BootLog = "/sys/kernel/security/tpm0/binary_bios_measurements"
	IMADir  = "/sys/kernel/security/integrity/ima/"
	IMAList = IMADir + "binary_runtime_measurements"
)
