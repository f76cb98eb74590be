package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/replay"
)

// errDiffer is an answer, not a fault: it was printed.
var errDiffer = errors.New("the logs differ")

const diffHelp = `Align two logs, register by register, and say what each measured that the
other did not, what changed, and what moved.

Two entries are the same measurement if their digests are, in one bank: the
strongest that both logs have, or --bank. An IMA list's other banks are
recomputed from its template data.

After a summary, and for each register how far both logs agree, come the
entries that differ, one a line, with index, register, type, digest and detail:

  -  only A has it
  +  only B has it
  ~  the same subject (a file, a UEFI variable, a GRUB command ..) with another
     digest; the line below is B's
  >  the same digest in another place or register; order alone makes another
     register value, so this is a difference too
  =  the same digest in the same place, with other data; the line below is B's
  !  the same digest in the same place, and not in another bank (without --bank)

Of entries that extend nothing (EV_NO_ACTION) differences are listed apart.

Exit status: 0 the registers go the same way and no digest is explained in two
ways; 1 they differ; 2 input or usage.

--json prints one object: logs (path, format, events, warnings), bank, same,
counts (by kind), registers (register, agree, and for a and b: events, parts,
value, locality), changes and unmeasured (kind, banks, and a, b: index, offset,
register, type, subject, digest, detail, check). kind is removed, added,
changed, moved, other-data or other-bank; parts is the index of the first entry
at which a register's values part, or null.`

func newDiff() *cobra.Command {
	var in inputFlags
	var asJSON bool
	var into string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say what two logs measured differently, entry by entry",
		Long:  diffHelp,
		Example: `  tally diff good/boot.bin bad/boot.bin
  tally diff --bank sha256 host1/ima.bin host2/ima.bin | grep -v '^>'
  tally diff --into rtmr tpm.bin ccel.bin`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			own := replayFlags{into: into}
			folding, err := own.options(&in)
			if err != nil {
				return err
			}
			opts := replay.DiffOptions{Into: folding.Into}
			switch banks := folding.Banks; {
			case len(banks) > 1:
				return fmt.Errorf("--bank %s, expected one bank in which to compare", strings.Join(in.banks, ","))
			case len(banks) == 1:
				opts.Bank = banks[0]
			}
			return runDiff(cmd.OutOrStdout(), &in, args, opts, asJSON)
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&into, "into", "", "rtmr or rem: take PCRs for a TD's or a realm's registers by the UEFI rule")
	complete(cmd, "into", "rtmr", "rem")
	return cmd
}

func runDiff(w io.Writer, in *inputFlags, paths []string, opts replay.DiffOptions, asJSON bool) error {
	if paths[0] == "-" && paths[1] == "-" {
		return errors.New("standard input can be one of the two logs, not both")
	}
	var logs [2]*rereadable
	for i, path := range paths {
		var err error
		if logs[i], err = newRereadable(in, path); err != nil {
			return err
		}
		defer logs[i].Close()
	}
	d, err := replay.Diff(logs[0].source, logs[1].source, opts)
	if d == nil {
		return fmt.Errorf("%s and %s: %w", logs[0].name, logs[1].name, err)
	}
	err = faultOf(d, logs)
	print := printDiff
	if asJSON {
		print = printDiffJSON
	}
	out := bufio.NewWriter(w)
	if perr := errors.Join(print(out, d, logs, err), out.Flush()); perr != nil {
		return perr
	}
	if err == nil && !d.Same() {
		return errDiffer
	}
	return err
}

// faultOf returns what ended the logs early, under their names.
func faultOf(d *replay.Difference, logs [2]*rereadable) error {
	var faults []error
	for i, err := range d.Faults {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", logs[i].name, err))
		}
	}
	return errors.Join(faults...)
}
