package main

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"tallystick/quote"
)

// amdFlags are those of an SVSM's vTPM and of an SEV guest's launch measurement.
type amdFlags struct {
	svsmManifest, reportNonce        string
	certify, certifySignature        string
	tik, sevAPI, sevBuild, sevPolicy string
}

func (f *amdFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.svsmManifest, "svsm-manifest", "", "an SVSM's services manifest, or its vTPM's, which has the endorsement key of the TPM quote (configfs' manifestblob); --report is the SEV-SNP report that stands for it")
	flags.StringVar(&f.reportNonce, "report-nonce", "", "the nonce that the SVSM's report was asked for with, in hexadecimal; by default --nonce, and zeros up to 64 bytes")
	flags.StringVar(&f.certify, "certify", "", "what the vTPM's endorsement key certified the attestation key by (TPMS_ATTEST of TPM2_Certify or TPM2_CertifyCreation)")
	flags.StringVar(&f.certifySignature, "certify-signature", "", "the signature of --certify (TPMT_SIGNATURE)")
	flags.StringVar(&f.tik, "tik", "", "the transport integrity key of an SEV guest's launch, 16 bytes, by which the launch measurement is checked; the launch digest is --expect's, {\"sha256\":{\"launch\":\"hex\"}}")
	flags.StringVar(&f.sevAPI, "sev-api", "", "the API version of the firmware that launched an SEV guest, MAJOR.MINOR, where the measurement's file does not state it")
	flags.StringVar(&f.sevBuild, "sev-build", "", "the build of that firmware, where the file does not state it")
	flags.StringVar(&f.sevPolicy, "sev-policy", "", "the SEV guest's policy, 0x and hexadecimal or decimal, where the file does not state it")
}

func (f *amdFlags) files() []string {
	return []string{f.svsmManifest, f.certify, f.certifySignature, f.tik}
}

// options sets all but the files'.
func (f *amdFlags) options(o *quote.Options) (err error) {
	if f.reportNonce != "" {
		if o.ReportNonce, err = hex.DecodeString(f.reportNonce); err != nil {
			return fmt.Errorf("--report-nonce %q, expected hexadecimal: %w", f.reportNonce, err)
		}
	}
	if f.sevAPI != "" {
		major, minor, _ := strings.Cut(f.sevAPI, ".")
		a, err1 := strconv.ParseUint(major, 10, 8)
		b, err2 := strconv.ParseUint(minor, 10, 8)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("--sev-api %q, expected MAJOR.MINOR, such as 1.55", f.sevAPI)
		}
		o.SEVAPI = &quote.SEVAPI{Major: uint8(a), Minor: uint8(b)}
	}
	if f.sevBuild != "" {
		n, err := strconv.ParseUint(f.sevBuild, 10, 8)
		if err != nil {
			return fmt.Errorf("--sev-build %q, expected 0 to 255", f.sevBuild)
		}
		build := uint8(n)
		o.SEVBuild = &build
	}
	if f.sevPolicy != "" {
		n, err := strconv.ParseUint(f.sevPolicy, 0, 32)
		if err != nil {
			return fmt.Errorf("--sev-policy %q, expected a number of 32 bits, such as 0x7", f.sevPolicy)
		}
		policy := uint32(n)
		o.SEVPolicy = &policy
	}
	return nil
}
