package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// errNotReconciled is an answer, not a fault: it was reported already.
var errNotReconciled = errors.New("not reconciled")

func newReconcile() *cobra.Command {
	var in inputFlags
	var own evidenceFlags
	var result emitFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reconcile [--quote] QUOTE [LOG...]",
		Short: "Hold logs against a quote, register by register",
		Long: `Reconcile folds logs in order of layers, and holds every register that the quote
carries, in every bank, against what they fold to. It checks who vouches for
the quote (signature, certificates, nonce, bindings), offline, and says each.
Logs that come in the quote's own file are used if no others are given; an evidence
bundle, which has all that is needed, is taken alone.

The verdict is reconciled, diverged, or untrusted: then a check of the quote
itself failed, and nothing that it says counts.

Exit status: 0 reconciled; 1 diverged or untrusted; 2 input or usage.`,
		Example: `  tally reconcile --nonce 00112233 evidence.cmw
  tally reconcile --quote quote.bin --nonce 00112233 ccel.bin ima.bin
  tally reconcile --quote attest.bin --signature sig.bin --key ak.pem --values pcrs.txt boot.bin ima.bin
  tally reconcile --quote quote.msg --signature quote.sig --hcl hcl_report.bin --hardware vcek.pem boot.bin
  tally reconcile --quote soft.attest --signature soft.sig --key soft.pub --report snp.bin --hardware vcek.pem ima.bin
  tally reconcile --quote response.bin --s390-header hdr.bin --s390-key arpk.bin`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkGiven(cmd); err != nil {
				return err
			}
			out, err := result.emitter(own.nonce)
			if err != nil {
				return err
			}
			in.digests = out != nil
			c, err := newInvestigation(&in, &own, args)
			if err != nil {
				return err
			}
			report, err := c.reconcile(false)
			if err == nil {
				err = out.emit(c, report)
			}
			return report.tell(cmd, asJSON, err)
		},
	}
	in.registerReading(cmd)
	own.register(cmd)
	result.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// investigation is evidence and the logs beside it.
type investigation struct {
	in     *inputFlags
	own    *evidenceFlags
	quote  *quote.Quote
	logs   []logFile
	checks []logFile // that are held against the journal
	opts   replay.Options
	rec    *replay.Reconciler
}

func newInvestigation(in *inputFlags, own *evidenceFlags, paths []string) (*investigation, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	paths = own.takeBundle(paths)
	c := &investigation{in: in, own: own}
	var err error
	if err := checkPaths(append(own.files(), paths...), false); err != nil {
		return nil, err
	}
	if err := checkPaths(paths, own.overlaps); err != nil {
		return nil, err
	}
	if c.quote, c.opts.Expect, err = own.open(); err != nil {
		return nil, err
	}
	if err := c.expectMRTD(); err != nil {
		return nil, err
	}
	if own.acceptSelfAsserted && c.quote.Kind != quote.SoftTPM {
		return nil, fmt.Errorf("--accept-self-asserted was given, and the evidence is no software TPM's quote, but %s", c.quote.Kind)
	}
	c.logs = filesOf(paths)
	if len(paths) == 0 {
		c.logs, c.checks = bundledLogs(c.quote)
	}
	in.statedKernel = statedKernel(c.quote)
	return c, nil
}

// quoted returns what the logs are held against: values where there are any, and the
// launch measurements of the report inside.
func (c *investigation) quoted() replay.Quoted { return quotedBy(c.quote) }

func quotedBy(q *quote.Quote) replay.Quoted {
	quoted := replay.Quoted{Values: q.Launch()}
	if len(q.Values) == 0 {
		quoted.Composites = q.Composites
	}
	for alg, bank := range q.Values {
		for register, value := range bank {
			quoted.Values.Set(alg, register, value)
		}
	}
	return quoted
}

// reconcile folds the logs. With trails it keeps what explain needs.
func (c *investigation) reconcile(trails bool) (*verdictReport, error) {
	quoted := c.quoted()
	c.rec = replay.NewReconciler(quoted, c.opts, trails)
	c.in.banks = nil
	for _, b := range quoted.Banks() {
		c.in.banks = append(c.in.banks, b.String())
	}
	if trails && !slices.Contains(c.in.banks, rtmr.SHA1.String()) {
		c.in.banks = append(c.in.banks, rtmr.SHA1.String()) // what a padded bank would have
	}
	folded, err := foldLogs(c.rec.Fold, c.in, c.logs, c.own.overlaps)
	if err == nil {
		err = c.holdCopies(folded)
	}
	report := c.judge(folded)
	if err == nil {
		err = c.findBases(report)
	}
	return report, err
}
