package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// tell prints the report and turns its verdict into the exit status.
func (r *verdictReport) tell(cmd *cobra.Command, asJSON bool, err error) error {
	out := cmd.OutOrStdout()
	if asJSON {
		if perr := json.NewEncoder(out).Encode(r); perr != nil {
			return perr
		}
	} else {
		w := bufio.NewWriter(out)
		r.print(w)
		if perr := w.Flush(); perr != nil {
			return perr
		}
	}
	if err == nil && r.Verdict != reconciled {
		return errNotReconciled
	}
	return err
}

// print writes the report as an auditor would: the verdict, who vouches for
// what, the registers, the findings.
func (r *verdictReport) print(w io.Writer) {
	if r.Verdict == "" {
		fmt.Fprintf(w, "%s: an input could not be read to its end; what follows is of what was read\n", bad("NO VERDICT"))
	} else {
		paint := bad
		if r.Verdict == reconciled {
			paint = good
		}
		fmt.Fprintf(w, "%s: %s.\n", paint(strings.ToUpper(r.Verdict)), r.Sentence)
	}
	fmt.Fprintln(w, "\nWho vouches for what")
	heading := "  hardware    "
	switch r.Quote.Kind {
	case quote.SoftTPM:
		heading = "  kernel      "
	case quote.EAR:
		heading = "  verifier    "
	}
	r.Quote.print(w, heading, "    ")
	for _, l := range r.layers {
		r.printLayer(w, &l)
	}
	r.printRegisters(w)
	r.printFindings(w)
}

func (r *verdictReport) printRegisters(w io.Writer) {
	fmt.Fprintln(w, "\nRegisters")
	var banks []rtmr.Alg // of the registers at rest
	resting := map[rtmr.Alg][]string{}
	for _, o := range r.Registers {
		if o.Status != replay.Reset {
			o.print(w)
			continue
		}
		if resting[o.Alg] == nil {
			banks = append(banks, o.Alg)
		}
		resting[o.Alg] = append(resting[o.Alg], o.Register.String())
	}
	for _, alg := range banks {
		fmt.Fprintf(w, "  at rest %-8s %s\n", alg, strings.Join(resting[alg], ", "))
	}
	for _, u := range r.Uncovered {
		fmt.Fprintf(w, "  %-6s %-8s %s  %s of %s\n", u.Register, "-", caution("not quoted"), events(u.Events), r.Logs[u.Log].Path)
	}
	for _, u := range r.Undigested {
		fmt.Fprintf(w, "  %-6s %-8s %s  %s of %s\n", u.Register, "-", bad("no digest"), events(u.Events), r.Logs[u.Log].Path)
	}
}

// print writes the evidence behind a heading, and what vouches for it, indented.
func (q *quoteReport) print(w io.Writer, heading, indent string) {
	name := string(q.Kind)
	if q.Version != 0 {
		name = fmt.Sprintf("%s, version %d", q.Kind, q.Version)
	}
	fmt.Fprintf(w, "%s%s\n", heading, name)
	for _, l := range q.Links {
		fmt.Fprintf(w, "%s%-10s %s: %s\n", indent, l.Name, paintStatus(l.Status), l.Text)
	}
	for _, line := range factLines(q.Facts) {
		fmt.Fprintf(w, "%s%s\n", indent, line)
	}
	for _, text := range q.Warnings {
		fmt.Fprintf(w, "%s%s %s\n", indent, caution("warning:"), text)
	}
	if q.Inside != nil {
		q.Inside.print(w, indent+q.where()+" it: ", indent+"  ")
	}
}

// factLines writes a fact a line, and the parts of a field, NAME.PART, behind it.
func factLines(facts []quote.Fact) (lines []string) {
	for i := 0; i < len(facts); i++ {
		field := facts[i]
		var parts []string
		for ; i+1 < len(facts); i++ {
			part, ok := strings.CutPrefix(facts[i+1].Name, field.Name+".")
			if !ok {
				break
			}
			parts = append(parts, part+" "+brief(facts[i+1].Value))
		}
		line := field.Name + ": " + brief(field.Value)
		if len(parts) > 0 {
			line += " (." + strings.Join(parts, ", .") + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// brief spares the reader a field of zeros.
func brief(value string) string {
	if n := len(value); n >= 16 && strings.Trim(value, "0") == "" {
		return fmt.Sprintf("%d zero bytes", n/2)
	}
	return value
}

func paintStatus(s quote.Status) string {
	switch s {
	case quote.Verified:
		return good(string(s))
	case quote.Failed, quote.Missing:
		return bad(string(s))
	case quote.SelfAsserted:
		return caution(string(s))
	}
	return caution(strings.ReplaceAll(string(s), "-", " "))
}

func (r *verdictReport) printLayer(w io.Writer, l *layerReport) {
	log := r.Logs[l.log]
	fmt.Fprintf(w, "  %-11s %s (%s, %s): ", l.layer, log.Path, log.Format, events(log.Events))
	switch {
	case l.copy != nil:
		fmt.Fprintln(w, l.copy.sentence())
	case l.events == 0:
		fmt.Fprintln(w, "none extends a register")
	case l.quoted == 0:
		fmt.Fprintln(w, bad("the quote carries none of its registers"))
	default:
		fmt.Fprintf(w, "the quote stands for %d of the %d that extend a register, in %s\n", l.vouched, l.events, strings.Join(l.names(), ", "))
	}
	fmt.Fprintf(w, "    %s\n", checksText(log.Checks))
	log.Incidents.print(w)
	for _, text := range log.Warnings {
		fmt.Fprintf(w, "    %s %s\n", caution("warning:"), text)
	}
}

func (o *registerReport) print(w io.Writer) {
	status := string(o.Status)
	switch o.Status {
	case replay.Match:
		status = good(status)
	case replay.Mismatch, replay.Unlogged:
		status = bad(status)
	default:
		status = caution(status)
	}
	pad := strings.Repeat(" ", max(0, 9-len(o.Status)))
	fmt.Fprintf(w, "  %-6s %-8s %s%s  ", o.Register, o.Alg, status, pad)
	switch {
	case o.Status == replay.Static:
		fmt.Fprintf(w, "%s  measured at launch, in no log (--expect FILE holds it against what is expected)\n", o.Quoted)
	case o.Status == replay.Mismatch:
		fmt.Fprintf(w, "%s\n    quoted   %s\n    replayed %s\n", events(o.Events), orUnknown(o.Quoted.String()), o.Replayed)
	case o.Status == replay.LogAhead:
		fmt.Fprintf(w, "%s  %d of %s; %d came after the quote\n", o.Quoted, o.Matched, events(o.Events), o.Events-o.Matched)
	default:
		fmt.Fprintf(w, "%s  %s\n", o.Quoted, events(o.Events))
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "not told: the quote has one digest over all its registers"
	}
	return s
}

// printFindings writes what is wrong: registers of which the same is wrong on
// one line, then entries.
func (r *verdictReport) printFindings(w io.Writer) {
	var texts []string
	registers := map[string][]string{}
	searchable := false
	for _, o := range r.Registers {
		if o.Finding == nil || o.Finding.searched {
			continue // or below, with the search
		}
		text := o.Finding.Text
		if registers[text] == nil {
			texts = append(texts, text)
		}
		registers[text] = append(registers[text], o.Alg.String()+":"+o.Register.String())
		searchable = searchable || o.Status == replay.Mismatch && !o.Register.Static()
	}
	if len(texts)+len(r.Findings) > 0 {
		fmt.Fprintln(w, "\nFindings")
	}
	for _, text := range texts {
		fmt.Fprintf(w, "  %s: %s\n", strings.Join(registers[text], ", "), text)
	}
	printEach(w, "  ", r.Logs, r.Findings)
	if r.Search != nil {
		r.Search.print(w)
	} else if searchable {
		fmt.Fprintln(w, "  tally explain, with the same arguments, searches for the entry that explains a mismatch.")
	}
}
