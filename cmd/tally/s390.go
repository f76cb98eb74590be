package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/pflag"

	"tallystick/quote"
	"tallystick/rtmr"
)

// s390Flags name what a Secure Execution guest's response is held against.
type s390Flags struct {
	header, key, ownerKey, hkd, roots       string
	measurement, additional, userData, cuid string
}

func (f *s390Flags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.header, "s390-header", "", "the Secure Execution header of the image that the guest should run, alone or in the image: its PLD is the launch measurement that is expected")
	flags.StringVar(&f.key, "s390-key", "", "the protection key of a Secure Execution attestation request, as pvattest create --arpk writes it; or its measurement key, of 64 bytes")
	flags.StringVar(&f.ownerKey, "s390-owner-key", "", "in place of --s390-key, the owner's private key that the request was made with (P-521, PEM or DER); takes --s390-hkd")
	flags.StringVar(&f.hkd, "s390-hkd", "", "host key documents of the machines that the request is for (PEM, or one in DER)")
	flags.StringVar(&f.roots, "s390-roots", "", "what host key documents lead to: a root, IBM's host key signing key, what is between, and revocation lists (PEM)")
	flags.StringVar(&f.measurement, "s390-measurement", "", "a Secure Execution guest's measurement, if it came in a file of its own, with --quote naming the ARCB or the request's exchange file")
	flags.StringVar(&f.additional, "s390-additional", "", "the additional data beside such a measurement")
	flags.StringVar(&f.userData, "s390-user-data", "", "the user data beside such a measurement")
	flags.StringVar(&f.cuid, "s390-cuid", "", "the configuration unique id beside such a measurement (16 bytes)")
}

func (f *s390Flags) files() []string {
	return []string{f.header, f.key, f.ownerKey, f.hkd, f.roots, f.measurement, f.additional, f.userData, f.cuid}
}

// read fills the options from the files.
func (f *s390Flags) read(o *quote.S390Options) error {
	for i, into := range []*[]byte{&o.Header, &o.Key, &o.OwnerKey, &o.HostKeys, &o.Roots, &o.Measurement, &o.Additional, &o.UserData, &o.CUID} {
		path := f.files()[i]
		if path == "" {
			continue
		}
		data, err := readEvidence(path)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return fmt.Errorf("%s: the file is empty", path)
		}
		*into = data
	}
	return nil
}

// expectHeader makes the header's PLD what the launch measurement has to be: who
// gives a header says what the guest should run.
func expectHeader(values rtmr.Values, header []byte) error {
	if len(header) == 0 {
		return nil
	}
	h, err := quote.ParseS390Header(header)
	if err != nil {
		return fmt.Errorf("--s390-header: %w", err)
	}
	if other := values[rtmr.SHA512][rtmr.Launch]; other != nil && !bytes.Equal(other, h.PLD) {
		return fmt.Errorf("--s390-header has the PLD %s, and --expect says sha512:launch is %s", h.PLD, other)
	}
	values.Set(rtmr.SHA512, rtmr.Launch, h.PLD)
	return nil
}
