package quote

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tallystick/evidence"
)

// ErrUnsupported is wrapped by the error of Open where the bytes are no
// evidence that is read here, or of a version that is not; its text says what
// was seen.
var ErrUnsupported = errors.New("unsupported quote")

// format is one kind of file that Open recognises.
type format struct {
	name   string // for people
	detect func(data []byte) bool
	open   func(data []byte, opts *Options) (*Quote, error)
}

// formats are tried in order: those that tell themselves by a magic first.
var formats = []format{
	{"an evidence bundle", evidence.Is, openBundle},
	{"TD quote", isDCAPQuote, openTDX},
	{"TDREPORT", isTDReport, openTDReport},
	{"TD quote as hexadecimal or base64 text", isTDXText, openTDXText},
	{"TD quote with its logs in JSON", isTDXBundle, openTDXBundle},
	{"TPMS_ATTEST or TPM2B_ATTEST", isTPMAttest, openTPMAttest},
	{"go-attestation's JSON", isGoAttestation, openGoAttestation},
	{"go-tpm-tools' attestation", isGoTPMTools, openGoTPMTools},
	{"an Azure HCL report", isHCL, openHCL},
	{"an SEV-SNP attestation report", isSNP, openSNP},
	{"SEV-SNP report as hexadecimal or base64 text", isSNPText, openSNPText},
	{"an SEV attestation report", isSEVReportForm, openSEVReport},
	{"an SEV launch measurement, as QEMU or libvirt print it", isSEVText, openSEV},
	{"a Secure Execution exchange file", isS390Exchange, openS390Exchange},
	{"a Secure Execution request (ARCB), with its response in --s390-measurement and --s390-cuid", isS390Request, openS390Parts},
	{"register values (JSON, or as tpm2_pcrread and sysfs print them)", isValues, openValues},
}

// formatsFor are the formats that are tried: with a TIK first the one that has
// nothing to be told by, but that a TIK was given.
func formatsFor(opts *Options) []format {
	if len(opts.TIK) == 0 {
		return formats
	}
	return slices.Insert(slices.Clone(formats), 0, format{"an SEV launch measurement (48 bytes, or these in base64)", isSEV, openSEV})
}

// Open recognises a quote by its content and checks what vouches for it. The
// error, which names the byte offset and the field, means that nothing could be
// read; what failed a check is told by the quote's Links.
func Open(data []byte, opts Options) (*Quote, error) {
	names := []string{}
	for _, f := range formatsFor(&opts) {
		if !f.detect(data) {
			names = append(names, f.name)
			continue
		}
		q, err := f.open(data, &opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		q.acceptsSelfAsserted = opts.AcceptSelfAsserted
		if opts.SkipSignature {
			q.skip()
		}
		return q, nil
	}
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: the file is empty", ErrUnsupported)
	}
	return nil, fmt.Errorf("%w: %d bytes that begin %.16x, expected one of: %s", ErrUnsupported, len(data), data, strings.Join(names, ", "))
}
