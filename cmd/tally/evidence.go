package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tallystick/quote"
	"tallystick/rtmr"
)

// evidenceFlags name the files of a quote, and what it is held against.
type evidenceFlags struct {
	quote, values, nonce            string
	signature, key                  string
	ekCert, ekRoots, activation     string
	hcl, report, hardware           string
	collateral, tdxRoots, snpRoots  string
	mrtd, expect, at                string
	require                         []string
	strict, skipSignature, overlaps bool
	acceptSelfAsserted              bool
	resultFlags
	ccaKey, virtCCARoots string

	s390 s390Flags

	alone bool // the quote was the only argument, and has to be a bundle

	amd amdFlags
}

func (f *evidenceFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.quote, "quote", "", "the quote: TDX, TDREPORT, SEV-SNP, Secure Execution, Arm CCA, virtCCA, TPM, software TPM, Azure HCL report, go-attestation's or go-tpm-tools' bundle, an evidence bundle, recognised by content; - is standard input")
	flags.StringVar(&f.values, "values", "", "register values: those of a TPM's quote, or alone, where there is no quote (JSON, what tpm2_pcrread prints or writes, or the files pcr-sha256/* of sysfs with their paths)")
	flags.StringVar(&f.nonce, "nonce", "", "the nonce that was sent, in hexadecimal")
	flags.StringVar(&f.signature, "signature", "", "a TPM quote's signature (TPMT_SIGNATURE)")
	flags.StringVar(&f.key, "key", "", "the attestation key that signed a TPM quote, which is trusted as it is (PEM, TPM2B_PUBLIC or TPMT_PUBLIC)")
	flags.StringVar(&f.ekCert, "ek-cert", "", "the endorsement key's certificate (PEM or DER)")
	flags.StringVar(&f.ekRoots, "ek-roots", "", "certificates of the TPM's manufacturer (PEM)")
	flags.StringVar(&f.activation, "activation", "", "record of a credential activation, which ties the attestation key to the endorsement key (JSON)")
	flags.StringVar(&f.hcl, "hcl", "", "Azure's HCL report, whose HCLAkPub is the key of the TPM quote")
	flags.StringVar(&f.report, "report", "", "the hardware's report that stands for a software TPM's key and quote: an SEV-SNP report, a TD quote, a TDREPORT, a Secure Execution exchange file or a realm's token; or for --svsm-manifest, an SEV-SNP report")
	flags.StringVar(&f.hardware, "hardware", "", "what vouches for an SEV-SNP report, or the one in an HCL report: a VCEK's or VLEK's certificate, or a table of them, and AMD's revocation lists; for SEV the platform's certificates, as sevctl exports them; for the TDREPORT in an HCL report a TD quote; for a virtCCA token the device's certificate")
	flags.StringVar(&f.collateral, "collateral", "", "folder with Intel's collateral: TCB info, QE identity, revocation lists")
	flags.StringVar(&f.tdxRoots, "tdx-roots", "", "certificates to trust in place of Intel's root (PEM)")
	flags.StringVar(&f.snpRoots, "snp-roots", "", "certificates to trust in place of AMD's: the root, and issuers on the way to it (PEM)")
	flags.StringVar(&f.ccaKey, "cca-key", "", "the CCA platform attestation key (CPAK) that signed an Arm CCA token's platform token, or a set of them, which is trusted as it is (PEM, DER, JSON Web Keys, or trust anchors with instance IDs)")
	flags.StringVar(&f.virtCCARoots, "virtcca-roots", "", "certificates of Huawei's to trust for a virtCCA token: the root, and issuers on the way to it (PEM or DER); the device's certificate is --hardware")
	flags.StringVar(&f.mrtd, "mrtd", "", "the MRTD that is expected, in hexadecimal: no log holds it")
	flags.StringVar(&f.expect, "expect", "", "what registers have to be, launch measurements and others, whatever the logs say: JSON, as tally measure prints it")
	flags.StringArrayVar(&f.require, "require", nil, "what a field of the quote has to be, by the name and in the notation that the report shows: FIELD=VALUE, FIELD>=NUMBER or FIELD<=NUMBER; may be repeated")
	flags.StringVar(&f.at, "at", "", "the time at which certificates and collateral have to be valid (RFC 3339); by default now")
	flags.BoolVar(&f.strict, "strict", false, "fail, too, where a log ran on after the quote, or a register that a log extends is not quoted")
	flags.BoolVar(&f.acceptSelfAsserted, "accept-self-asserted", false, "let a software TPM's quote pass that no hardware's report stands for; the verdict says so")
	flags.BoolVar(&f.skipSignature, "insecure-skip-signature", false, "let a quote pass whose signature or certificates cannot be verified; the verdict says so")
	f.s390.register(flags)
	f.resultFlags.register(flags)
	flags.BoolVar(&f.overlaps, "overlap", false, "IMA lists are parts of one, read one after another: fold once what one has in common with the end of the last")
	f.amd.register(flags)
}

// checkGiven refuses a flag without a value, as a script's empty variable makes
// one: what was to be checked would be left unchecked.
func checkGiven(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if flag.Value.String() == "" && err == nil {
			err = fmt.Errorf("--%s is empty", flag.Name)
		}
	})
	return err
}

// files are all files of the evidence.
func (f *evidenceFlags) files() []string {
	own := []string{f.quote, f.values, f.signature, f.key, f.ekCert, f.ekRoots, f.activation, f.hcl, f.report, f.hardware, f.tdxRoots, f.snpRoots, f.expect, f.ccaKey, f.virtCCARoots}
	return slices.Concat(own, f.s390.files(), f.resultFlags.files(), f.amd.files())
}

// open reads and checks the evidence, and what is expected of it.
func (f *evidenceFlags) open() (*quote.Quote, rtmr.Values, error) {
	if f.quote == "" && f.values == "" && f.ear == "" {
		return nil, nil, errNoQuote
	}
	opts, err := f.options()
	if err != nil {
		return nil, nil, err
	}
	requirements, err := f.requirements()
	if err != nil {
		return nil, nil, err
	}
	if opts.Expect, err = f.expected(); err != nil {
		return nil, nil, err
	}
	if err := expectHeader(opts.Expect, opts.S390.Header); err != nil {
		return nil, nil, err
	}
	q, err := f.openWithResult(opts)
	if err != nil {
		return nil, nil, err
	}
	q.Require(requirements...)
	return q, opts.Expect, nil
}

// openPlaced opens the quote, and places the registers of a TPM's by --values.
func (f *evidenceFlags) openPlaced(opts quote.Options) (*quote.Quote, error) {
	if f.quote == "" {
		return f.openQuote(f.values, opts)
	}
	q, err := f.openQuote(f.quote, opts)
	switch {
	case err != nil:
		return nil, err
	case f.alone && q.Bundle == nil:
		return nil, errNoQuote
	case f.values == "":
		return q, nil
	case q.Bundle != nil && len(q.Bundle.Values) > 0:
		return nil, fmt.Errorf("--values was given, and %s has its own", f.quote)
	}
	if len(q.Composites) == 0 {
		return nil, fmt.Errorf("--values places the registers of a TPM's quote; %s states its own", f.quote)
	}
	data, err := readEvidence(f.values)
	if err != nil {
		return nil, err
	}
	values, err := quote.ParseValues(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.values, err)
	}
	if err := q.Bind(values); err != nil {
		return nil, fmt.Errorf("%s: %w", f.values, err)
	}
	return q, nil
}

// maxEvidence bounds a file that is read whole. The longest is a bundle with logs:
// an IMA list of 110,000 entries has 12 MB, a journal of it in three banks twice that,
// and machines run for months.
const maxEvidence = 256 << 20

func (f *evidenceFlags) openQuote(path string, opts quote.Options) (*quote.Quote, error) {
	data, err := readEvidence(path)
	if err != nil {
		return nil, err
	}
	q, err := quote.Open(data, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.opened = append(f.opened, sha256.Sum256(data))
	return q, nil
}

func readEvidence(path string) ([]byte, error) {
	file := os.Stdin
	if path != "-" {
		var err error
		if file, err = os.Open(path); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	data, err := io.ReadAll(io.LimitReader(file, maxEvidence+1))
	if err == nil && len(data) > maxEvidence {
		err = fmt.Errorf("%s: longer than %d bytes, which no quote is", path, maxEvidence)
	}
	return data, err
}

func (f *evidenceFlags) options() (o quote.Options, err error) {
	if f.nonce != "" {
		if o.Nonce, err = hex.DecodeString(f.nonce); err != nil {
			return o, fmt.Errorf("--nonce %q, expected hexadecimal: %w", f.nonce, err)
		}
		if len(bytes.Trim(o.Nonce, "\x00")) == 0 {
			return o, errors.New("--nonce is zeros, which stand in every quote that nobody asked for")
		}
	}
	if f.at != "" {
		if o.Time, err = time.Parse(time.RFC3339, f.at); err != nil {
			return o, fmt.Errorf("--at %q, expected a time such as 2026-01-31T12:00:00Z", f.at)
		}
	}
	for _, file := range []struct {
		path string
		into *[]byte
	}{
		{f.signature, &o.Signature}, {f.key, &o.Key}, {f.ekCert, &o.EKCert}, {f.ekRoots, &o.EKRoots},
		{f.activation, &o.Activation}, {f.hcl, &o.HCL}, {f.report, &o.Report}, {f.hardware, &o.Hardware},
		{f.tdxRoots, &o.TDXRoots}, {f.snpRoots, &o.SNPRoots},
		{f.amd.svsmManifest, &o.SVSMManifest}, {f.amd.certify, &o.Certify}, {f.amd.certifySignature, &o.CertifySignature}, {f.amd.tik, &o.TIK},
		{f.ccaKey, &o.CCAKey}, {f.virtCCARoots, &o.VirtCCARoots},
	} {
		if file.path == "" {
			continue
		}
		if *file.into, err = readEvidence(file.path); err != nil {
			return o, err
		}
		if len(*file.into) == 0 {
			return o, fmt.Errorf("%s: the file is empty", file.path)
		}
	}
	if f.collateral != "" {
		info, err := os.Stat(f.collateral)
		if err != nil {
			return o, err
		}
		if !info.IsDir() {
			return o, fmt.Errorf("--collateral %s: a file, expected a folder", f.collateral)
		}
		o.Collateral = os.DirFS(f.collateral)
	}
	if err := f.s390.read(&o.S390); err != nil {
		return o, err
	}
	o.SkipSignature, o.AcceptSelfAsserted = f.skipSignature, f.acceptSelfAsserted
	err = f.amd.options(&o)
	return o, err
}
