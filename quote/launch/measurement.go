package launch

import (
	"crypto/sha256"

	"tallystick/rtmr"
)

// Measurement is a launch digest, and what it is made of.
type Measurement struct {
	Alg    rtmr.Alg
	Digest rtmr.Hex
	Parts  []Part // in the order in which they were measured
}

// Part is something that was measured in one piece.
type Part struct {
	Name    string   // "firmware", "SNP_SECRETS", "VMSA of vCPU 0"
	Type    PageType // 0 for SEV and SEV-ES, which have no types
	GPA     uint64   // where the guest has it; 0 for SEV's VMSAs
	Size    uint64   // in bytes
	Content rtmr.Hex // SHA-256 of the content; nil where the content is not measured
	Digest  rtmr.Hex // the launch digest after this part
}

// PageSize is the size of a page in bytes. All that SNP measures is whole pages.
const PageSize = 4096

func contentDigest(content []byte) rtmr.Hex {
	sum := sha256.Sum256(content)
	return sum[:]
}
