package main

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/ima"
	"tallystick/rtmr"
)

// inputFlags tell what the logs do not.
type inputFlags struct {
	format, byteOrder, templateHash, profile, kernel string
	banks                                            []string
	realm                                            bool
	statedKernel                                     string // the kernel's release, as a bundle says; a log may know better

	digests  bool // logs are hashed as they are read
	prints   bool // the command prints as it reads
	asListed bool // an IMA list is wanted in its own bank alone if no other is asked for
}

// register defines the flags of a command that folds banks of its own choice.
func (f *inputFlags) register(cmd *cobra.Command) {
	f.registerReading(cmd)
	cmd.Flags().StringSliceVar(&f.banks, "bank", nil, "the banks to fold (sha1, sha256, sha384, ..); by default those of the logs, and for an IMA list those of the boot log before it, else sha1, sha256 and sha384")
	complete(cmd, "bank", "sha1", "sha256", "sha384", "sha512")
}

// registerReading defines the flags that say how logs are read.
func (f *inputFlags) registerReading(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "the logs' format, overriding recognition by content: "+strings.Join(formats, ", "))
	flags.StringVar(&f.byteOrder, "byte-order", "", "an IMA list's byte order, little or big, overriding what its content shows")
	flags.StringVar(&f.templateHash, "template-hash", "", "the algorithm of an IMA list's template hashes, overriding what its content shows")
	flags.StringVar(&f.profile, "profile", "", "how the kernel deviates, overriding what the logs show: mainline, padded-sha1, padded-sha1:BANK, violation-zero, rtmr-column")
	flags.StringVar(&f.kernel, "kernel", "", "the kernel's release as uname -r prints it, which tells how it deviates")
	flags.BoolVar(&f.realm, "realm", false, "a canonical event log's CC-MR indices are an Arm CCA realm's, whatever its digests show")
	for flag, words := range map[string][]string{
		"format": formats, "byte-order": {"little", "big"},
		"profile": {"mainline", "padded-sha1", "padded-sha1:sha384", "violation-zero", "rtmr-column"},
	} {
		complete(cmd, flag, words...)
	}
}

// complete tells the shell what a flag takes.
func complete(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is not there: a slip in the source
	}
}

// check reports the first flag that is no good, before any log is opened.
func (f *inputFlags) check() error {
	if f.format != "" && !slices.Contains(formats, f.format) {
		return fmt.Errorf("--format %q, expected one of %s", f.format, strings.Join(formats, ", "))
	}
	if f.kernel != "" && !ima.IsRelease(f.kernel) {
		return fmt.Errorf("--kernel %q, expected a release as uname -r prints it, such as 6.1.0-50-amd64", f.kernel)
	}
	_, err := f.imaOptions(ima.Signs{})
	return err
}

func (f *inputFlags) algs() (algs []rtmr.Alg, err error) {
	for _, b := range f.banks {
		a, err := rtmr.ParseAlg(b)
		if err != nil {
			return nil, fmt.Errorf("--bank: %w", err)
		}
		algs = append(algs, a)
	}
	return algs, nil
}

func (f *inputFlags) imaOptions(signs ima.Signs) (o ima.Options, err error) {
	switch f.byteOrder {
	case "":
	case "little":
		o.Order = binary.LittleEndian
	case "big":
		o.Order = binary.BigEndian
	default:
		return o, fmt.Errorf("--byte-order %q, expected little or big", f.byteOrder)
	}
	if f.templateHash != "" {
		if o.Alg, err = rtmr.ParseAlg(f.templateHash); err != nil {
			return o, fmt.Errorf("--template-hash: %w", err)
		}
	}
	if f.profile != "" {
		if o.Profile, err = ima.ParseProfile(f.profile); err != nil {
			return o, fmt.Errorf("--profile: %w", err)
		}
	}
	o.Banks, err = f.algs()
	if len(f.banks) == 0 && !f.asListed {
		o.Banks = slices.DeleteFunc(slices.Clone(signs.Banks), func(a rtmr.Alg) bool { return !a.Available() })
		if len(o.Banks) == 0 {
			o.Banks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}
		}
	}
	return o, err
}
