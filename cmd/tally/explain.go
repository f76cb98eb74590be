package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// explainFlags bound the search.
type explainFlags struct {
	maxEdits            int
	budget              time.Duration
	candidates, earlier []string
}

func newExplain() *cobra.Command {
	var in inputFlags
	var own evidenceFlags
	var search explainFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain [--quote] QUOTE [LOG...]",
		Short: "Reconcile, then search for the entry that explains a mismatch",
		Long: `Explain reconciles, and where a register parts from its quote it searches the
edits of the log that make it fold to the quoted value: an entry that was not
extended, or twice, or in another order, a padded bank, violations extended as
zeros, another locality, a list that began before a kexec, and more. What it
calls proven was folded to the quoted value in every quoted bank; what cannot
be proven comes with what would settle it.

Exit status: 0 reconciled; 1 diverged or untrusted, explained or not; 2 input or usage.`,
		Example: `  tally explain --nonce 00112233 evidence.cmw
  tally explain --quote quote.bin ccel.bin ima.bin
  tally explain --quote quote.bin --earlier yesterday.bin --candidates other-ima.bin ccel.bin ima.bin`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkGiven(cmd); err != nil {
				return err
			}
			if err := search.check(); err != nil {
				return err
			}
			c, err := newInvestigation(&in, &own, args)
			if err != nil {
				return err
			}
			report, err := c.reconcile(true)
			if err == nil {
				ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
				defer stop()
				err = c.explain(ctx, report, &search)
			}
			return report.tell(cmd, asJSON, err)
		},
	}
	in.registerReading(cmd)
	own.register(cmd)
	flags := cmd.Flags()
	flags.IntVar(&search.maxEdits, "max-edits", 2, "how many faults at once to look for")
	flags.DurationVar(&search.budget, "budget", time.Minute, "how long to search")
	flags.StringArrayVar(&search.candidates, "candidates", nil, "what the log may lack: a list of digests, one a line in hexadecimal, or another log; may be repeated")
	flags.StringArrayVar(&search.earlier, "earlier", nil, "an older quote of the same boot, which bounds the search: QUOTE, and for a TPM's QUOTE,SIGNATURE or QUOTE,SIGNATURE,VALUES; may be repeated, the oldest first")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (f *explainFlags) check() error {
	if f.maxEdits < 1 {
		return fmt.Errorf("--max-edits %d, expected 1 or more", f.maxEdits)
	}
	if f.budget <= 0 {
		return fmt.Errorf("--budget %s, expected a time such as 30s", f.budget)
	}
	return nil
}

// searchReport is what a search for edits found and what it cost.
type searchReport struct {
	Found    []replay.Explanation `json:"found"`
	Tried    uint64               `json:"tried"` // edits
	Folds    uint64               `json:"folds"`
	Seconds  float64              `json:"seconds"`
	NotTried []string             `json:"notTried"` // what the budget left out
}

// explain searches for what explains the registers that part, and puts it into
// the report.
func (c *investigation) explain(ctx context.Context, report *verdictReport, f *explainFlags) error {
	parts := func(r registerReport) bool {
		return (r.Status == replay.Mismatch || r.Status == replay.Unlogged) && !r.Register.Static() // no entry explains those
	}
	if !slices.ContainsFunc(report.Registers, parts) {
		return nil
	}
	opts := replay.SearchOptions{MaxEdits: f.maxEdits, Budget: f.budget}
	for _, l := range report.Logs {
		opts.LogNames = append(opts.LogNames, l.Path)
	}
	var err error
	if opts.Earlier, err = c.earlierValues(f.earlier); err != nil {
		return err
	}
	for _, path := range f.candidates {
		if err := c.addCandidates(&opts, path); err != nil {
			return err
		}
	}
	values := report.placed()
	if len(values) == 0 {
		opts.Composites = c.quoted().Composites
	}
	var end func()
	opts.Progress, end = searchProgress()
	found := replay.Explain(ctx, c.rec.Trails(), values, opts)
	end()
	report.explained(found)
	report.decide(c.quote.Trusted(), c.own.strict)
	return nil
}

// placed returns the quoted values of the registers that logs extend, as far as they
// are known.
func (r *verdictReport) placed() rtmr.Values {
	values := rtmr.Values{}
	for _, o := range r.Registers {
		if o.Quoted != nil && !o.Register.Static() {
			values.Set(o.Alg, o.Register, o.Quoted)
		}
	}
	return values
}

// explained puts the findings of a search to the registers that they are of.
func (r *verdictReport) explained(found replay.SearchResult) {
	r.Search = &searchReport{
		Found: append([]replay.Explanation{}, found.Found...), Tried: found.Tried, Folds: found.Folds,
		Seconds: found.Elapsed.Seconds(), NotTried: append([]string{}, found.NotTried...),
	}
	for _, e := range found.Found {
		if e.Proven {
			r.settle(e)
		}
	}
	for i := range r.Registers {
		o := &r.Registers[i]
		if o.Finding == nil {
			continue
		}
		for _, e := range found.Found { // the proven ones come first
			if e.Register == o.Register && slices.Contains(e.Banks, o.Alg) {
				if e.Proven || !o.Finding.isBasis() {
					o.Finding = findingByExplanation(e)
				}
				break
			}
		}
	}
}

// settle places the registers of a digest that came out by an edit of another
// register's log: they hold what their logs fold to.
func (r *verdictReport) settle(e replay.Explanation) {
	for i := range r.Registers {
		o := &r.Registers[i]
		if o.Quoted != nil || o.Status != replay.Mismatch || !slices.Contains(e.Banks, o.Alg) {
			continue
		}
		if o.Register == e.Register {
			o.Text = "the quote's digest comes out if this register's log is edited, and the others hold what theirs fold to"
			continue
		}
		o.Status, o.Quoted, o.Matched, o.Text, o.Finding = replay.Match, o.Replayed, o.Events, "", nil
		if o.Events == 0 {
			o.Status = replay.Reset
		}
	}
}

func findingByExplanation(e replay.Explanation) *findingReport {
	f := &findingReport{Kind: string(e.Kind), Proven: e.Proven, Text: e.Text, searched: true}
	if e.Log >= 0 && e.Entry >= 0 {
		f.Log, f.Entry = &e.Log, &e.Entry
	}
	return f
}

func (s *searchReport) print(w io.Writer) {
	fmt.Fprintf(w, "\nExplanation (%d edits tried, %d folds, %.1f s)\n", s.Tried, s.Folds, s.Seconds)
	for _, e := range s.Found {
		word := caution("not proven")
		if e.Proven {
			word = good("proven")
		}
		var banks []string
		for _, alg := range e.Banks {
			banks = append(banks, alg.String())
		}
		fmt.Fprintf(w, "  %s: %s %s: %s\n", word, e.Register, strings.Join(banks, ", "), e.Text)
	}
	if len(s.Found) == 0 {
		fmt.Fprintln(w, "  no edit that was tried explains it")
	}
	for _, text := range s.NotTried {
		fmt.Fprintf(w, "  not tried: %s\n", text)
	}
}

// earlierValues reads older quotes of the same boot. One that is not to be
// trusted bounds nothing, and is refused.
func (c *investigation) earlierValues(files []string) (all []rtmr.Values, err error) {
	for _, spec := range files {
		parts := strings.Split(spec, ",")
		if len(parts) > 3 {
			return nil, fmt.Errorf("--earlier %q, expected QUOTE, QUOTE,SIGNATURE or QUOTE,SIGNATURE,VALUES", spec)
		}
		own := *c.own
		if own.amd.svsmManifest != "" && own.amd.reportNonce == "" {
			own.amd.reportNonce = own.nonce // an SVSM's report is of the key, and so of all quotes by it
		}
		own.quote, own.nonce, own.values, own.signature = parts[0], "", "", ""
		own.alone, own.expect, own.require = false, "", nil // of the quote that is explained
		own.resultFlags = resultFlags{}
		if c.quote.Kind == quote.SoftTPM && !isBundle(parts[0]) {
			// It is by the same key. What stands for that, or was accepted in its
			// place, stands for an older quote by it; a report of its own it needs not.
			own.report, own.hardware, own.collateral, own.tdxRoots, own.snpRoots = "", "", "", "", ""
			own.s390 = s390Flags{}
			own.acceptSelfAsserted = c.quote.Trusted()
		}
		if len(parts) > 1 {
			own.signature = parts[1]
		}
		if len(parts) > 2 {
			own.values = parts[2]
		}
		q, _, err := own.open()
		if err != nil {
			return nil, fmt.Errorf("--earlier: %w", err)
		}
		if !q.Trusted() {
			return nil, fmt.Errorf("--earlier %s: not to be trusted (%s), so it bounds nothing", parts[0], reportQuote(q).weakest())
		}
		values, err := c.place(q)
		if err != nil {
			return nil, fmt.Errorf("--earlier %s: %w", parts[0], err)
		}
		all = append(all, values)
	}
	return all, nil
}

// place returns a quote's values, and those of a TPM's quote without values by
// the prefix of the logs that it stands for.
func (c *investigation) place(q *quote.Quote) (rtmr.Values, error) {
	if len(q.Values) > 0 {
		return q.Values, nil
	}
	if slices.ContainsFunc(c.logs, func(l logFile) bool { return l.path == "-" && l.data == nil }) {
		return nil, errors.New("a TPM's quote without values is placed by reading the logs again, which standard input cannot be")
	}
	rec := replay.NewReconciler(quotedBy(q), c.opts, false)
	if _, err := foldLogs(rec.Fold, c.in, c.logs, c.own.overlaps); err != nil {
		return nil, err
	}
	values := rtmr.Values{}
	for _, o := range rec.Outcomes() {
		if o.Quoted != nil && !o.Register.Static() {
			values.Set(o.Alg, o.Register, o.Quoted)
		}
	}
	if len(values) == 0 {
		return nil, errors.New("no prefix of the logs gives the digest that it signs; its values would place it (QUOTE,SIGNATURE,VALUES)")
	}
	return values, nil
}
