package main

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/quote"
	"tallystick/replay"
	"tallystick/rtmr"
)

// verdictReport is what reconcile --json and explain --json print (DESIGN.md,
// the JSON contract).
type verdictReport struct {
	Verdict   string           `json:"verdict"` // "" where an input error left none
	Sentence  string           `json:"text"`
	Quote     *quoteReport     `json:"quote"`
	Logs      []logReport      `json:"logs"`
	Registers []registerReport `json:"registers"`

	Uncovered  []uncovered `json:"uncovered,omitempty"`  // for the quote omits the register
	Undigested []uncovered `json:"undigested,omitempty"` // for they have no digest in a quoted bank

	Findings []replay.Finding `json:"findings,omitempty"`
	Search   *searchReport    `json:"search,omitempty"`
	Error    string           `json:"error,omitempty"`

	layers   []layerReport
	bundle   bool        // quote and logs came in one file
	expected rtmr.Values // by the caller
}

// The verdicts.
const (
	reconciled = "reconciled"
	diverged   = "diverged"
	untrusted  = "untrusted"
)

// quoteReport is the evidence, and the word for each link that vouches for it.
type quoteReport struct {
	Kind       quote.Kind   `json:"kind"`
	Version    int          `json:"version,omitempty"`
	Signature  string       `json:"signature,omitempty"`
	Chain      string       `json:"chain,omitempty"`
	Collateral string       `json:"collateral,omitempty"`
	Nonce      string       `json:"nonce,omitempty"`
	Binding    string       `json:"binding,omitempty"`
	Policy     string       `json:"policy,omitempty"`
	Required   string       `json:"required,omitempty"` // the worst of them
	Links      []linkReport `json:"links"`
	Facts      []quote.Fact `json:"facts"`
	Inside     *quoteReport `json:"inside,omitempty"`
	Warnings   []string     `json:"warnings,omitempty"`
}

type linkReport struct {
	Name   string       `json:"name"`
	Status quote.Status `json:"status"`
	Text   string       `json:"text"`
}

type registerReport struct {
	replay.Outcome
	Finding *findingReport `json:"finding,omitempty"`
}

// findingReport is why a register parts from its quote, as far as is known.
type findingReport struct {
	Kind   string `json:"kind"`
	Log    *int   `json:"log,omitempty"`   // the blamed entry's; an index in "logs"
	Entry  *int   `json:"entry,omitempty"` // its index in that log
	Proven bool   `json:"proven"`
	Text   string `json:"text"`

	searched bool // it is one of the search's, which is printed by itself
}

// uncovered are a log's events in a register that the quote says nothing of.
type uncovered struct {
	Log      int           `json:"log"`
	Register rtmr.Register `json:"register"`
	Events   int           `json:"events"`
}

// layerReport is what the quote vouches for of one log.
type layerReport struct {
	log             int
	layer           string          // firmware, kernel or application
	events, vouched int             // that extend a register
	quoted          int             // of the events, those of quoted registers
	registers       []rtmr.Register // those quoted
	part            bool            // of a list that was read in parts (--overlap)
	copy            *copyReport
}

func (l *layerReport) names() (names []string) {
	for _, r := range l.registers {
		names = append(names, r.String())
	}
	return names
}

// layerOf names who wrote a log of that format.
func layerOf(format string) string {
	switch format {
	case "tcg12", "tcg2", "ccel":
		return "firmware"
	case "ima", "ima-ascii":
		return "kernel"
	}
	return "application"
}

// judge makes the report, and the verdict over all its parts: it is never
// better than the weakest.
func (c *investigation) judge(folded *replayReport) *verdictReport {
	r := &verdictReport{
		Quote: reportQuote(c.quote), Logs: folded.Logs, Registers: []registerReport{},
		Findings: folded.Findings, Error: folded.Error, expected: c.opts.Expect, bundle: c.quote.Bundle != nil && len(c.checks)+len(c.logs) > 0,
	}
	for _, o := range c.rec.Outcomes() {
		r.Registers = append(r.Registers, registerReport{Outcome: o, Finding: findingOf(o)})
	}
	r.cover(c.rec.Coverage(), c.own.overlaps)
	if r.Error == "" {
		r.decide(c.quote.Trusted(), c.own.strict)
	}
	return r
}

func findingOf(o replay.Outcome) *findingReport {
	if o.Status != replay.Mismatch && o.Status != replay.Unlogged {
		return nil
	}
	return &findingReport{Kind: string(o.Status), Proven: true, Text: o.Text}
}

// cover notes what of each log the quote vouches for.
func (r *verdictReport) cover(coverage []replay.Coverage, parts bool) {
	for i, l := range r.Logs {
		r.layers = append(r.layers, layerReport{log: i, layer: layerOf(l.Format), part: parts && isIMA(l.Format), copy: l.Copy})
	}
	for _, c := range coverage {
		if c.Log >= len(r.layers) {
			continue // a log that could not be opened has no events
		}
		l := &r.layers[c.Log]
		l.events += c.Events
		l.vouched += c.Vouched
		if c.Quoted {
			l.quoted += c.Events
			l.registers = append(l.registers, c.Register)
		} else {
			r.Uncovered = append(r.Uncovered, uncovered{c.Log, c.Register, c.Events})
		}
		if c.Undigested > 0 {
			r.Undigested = append(r.Undigested, uncovered{c.Log, c.Register, c.Undigested})
		}
	}
}

// decide gives the verdict, and says why in a sentence.
func (r *verdictReport) decide(trusted, strict bool) {
	failed := r.failures(strict)
	switch {
	case !trusted:
		r.Verdict = untrusted
		r.Sentence = "the quote itself is not to be trusted (" + r.Quote.weakest() + "), so nothing that it says counts"
		if len(failed) > 0 {
			r.Sentence += "; beside that, " + strings.Join(failed, "; ")
		}
	case len(failed) > 0:
		r.Verdict = diverged
		r.Sentence = strings.Join(failed, "; ")
	default:
		r.Verdict = reconciled
		r.Sentence = r.success()
	}
	if r.Quote.named(quote.SelfAsserted) != "" {
		r.Sentence += "; self-asserted: no hardware vouches for this quote, so anybody can have made it"
	}
}

// failures lists what keeps the evidence from being reconciled.
func (r *verdictReport) failures(strict bool) (out []string) {
	if names := r.named(replay.Mismatch); names != "" {
		out = append(out, "the logs do not fold to what is quoted of "+names)
	}
	out = append(out, r.unexpected()...)
	if names := r.named(replay.Unlogged); names != "" {
		out = append(out, "no log explains how "+names+" moved")
	}
	if names := r.named(replay.LogAhead); strict && names != "" {
		out = append(out, "a log ran on after the quote in "+names+", which --strict forbids")
	}
	if n := r.contradictions(); n > 0 {
		out = append(out, count(n, "entry contradicts its", "entries contradict their")+" own data or the boot log")
	}
	out = append(out, r.copyFailures(strict)...)
	for _, l := range r.layers {
		switch path := r.Logs[l.log].Path; {
		case l.events > 0 && l.quoted == 0:
			out = append(out, fmt.Sprintf("the quote carries no register that %s extends, so nothing vouches for it", path))
		case l.quoted > 0 && r.Quote.ofTPM() && !slices.ContainsFunc(l.registers, lasts):
			out = append(out, fmt.Sprintf("nothing vouches for %s: anybody may reset %s of a TPM, and extend it anew", path, strings.Join(l.names(), ", ")))
		}
	}
	for _, u := range r.Undigested {
		out = append(out, fmt.Sprintf("nothing vouches for %s of %s in %s, without a digest in a quoted bank", count(u.Events, "event", "events"), r.Logs[u.Log].Path, u.Register))
	}
	for _, l := range r.Logs {
		if strict && l.Incidents != nil {
			out = append(out, l.Incidents.sentence(l.Path)+", which --strict forbids")
		}
	}
	if names := r.omitted(); strict && len(out) == 0 && names != "" {
		out = append(out, "the quote omits "+names+", which --strict forbids")
	}
	if len(out) == 0 {
		out = r.unsaid()
	}
	return out
}

// lasts reports whether a TPM's register keeps what was extended: any program may reset
// PCR 16 and 23, at locality 0 (TCG PC Client Platform TPM Profile, PCR attributes).
func lasts(r rtmr.Register) bool { return r != debugPCR && r != applicationPCR }

var debugPCR, applicationPCR = rtmr.MustParse("pcr16"), rtmr.MustParse("pcr23")

// ofTPM reports whether the quoted registers are a TPM's.
func (q *quoteReport) ofTPM() bool {
	return q.Kind == quote.TPM || q.Kind == quote.Azure || q.Kind == quote.SVSM || q.Kind == quote.EAR
}

// contradictions counts the entries that their own data or the boot log contradict.
func (r *verdictReport) contradictions() (n int) {
	for _, f := range r.Findings {
		if f.Kind != "copy" {
			n++
		}
	}
	return n
}

// copyFailures lists how logs part from the one that has copies of their entries.
func (r *verdictReport) copyFailures(strict bool) (out []string) {
	for _, l := range r.layers {
		switch c, path := l.copy, r.Logs[l.log].Path; {
		case c == nil:
		case c.Parts:
			out = append(out, fmt.Sprintf("%s and its copy in %s part", path, c.Of))
		case c.Entries == 0 && c.Ahead > 0:
			out = append(out, fmt.Sprintf("nothing vouches for %s: %s has none of its entries", path, c.Of))
		case c.Ahead > 0 && strict:
			out = append(out, fmt.Sprintf("%s ran on after %s, which --strict forbids", path, c.Of))
		}
	}
	return out
}

// unsaid lists what would pass only for want of anything to hold it against.
func (r *verdictReport) unsaid() (out []string) {
	for _, l := range r.layers {
		if l.quoted > 0 && l.vouched == 0 && !l.part {
			out = append(out, fmt.Sprintf("nothing vouches for %s: all its events would have come after the quote", r.Logs[l.log].Path))
		}
	}
	switch {
	case !slices.ContainsFunc(r.Registers, func(o registerReport) bool { return o.Status != replay.Static }):
		out = append(out, "the quote carries no run-time register, so no log can be held against it")
	case !slices.ContainsFunc(r.Registers, func(o registerReport) bool { return o.Status == replay.Match || o.Status == replay.LogAhead }):
		out = append(out, "every quoted register is at rest, which says nothing of what was measured")
	}
	return out
}

// success is the sentence of evidence that is reconciled, with what it leaves open.
func (r *verdictReport) success() string {
	s := r.accounted()
	for _, l := range r.layers {
		if late := l.quoted - l.vouched; late > 0 {
			s += fmt.Sprintf("; %s of %s came after the quote, which does not vouch for them", count(late, "event", "events"), r.Logs[l.log].Path)
		}
		if l.copy != nil {
			s += l.copy.moved(r.Logs[l.log].Path)
		}
		if l.copy != nil && l.copy.Ahead > 0 {
			s += fmt.Sprintf("; %s has no copy of %s at the end of %s, so nothing vouches for that part", l.copy.Of, count(l.copy.Ahead, "event", "events"), r.Logs[l.log].Path)
		}
	}
	if !slices.ContainsFunc(r.Registers, func(o registerReport) bool { return o.Alg != rtmr.SHA1 }) {
		s += "; only the bank sha1 is quoted, in which collisions can be made"
	}
	if names := r.omitted(); names != "" {
		s += "; the quote omits " + names + ", so nothing vouches for what was logged there"
	}
	if r.bundle && !slices.ContainsFunc(r.layers, func(l layerReport) bool { return l.layer == "kernel" }) {
		s += "; no list of the kernel's came with it"
	}
	for _, l := range r.Logs {
		if l.Incidents != nil {
			s += "; " + l.Incidents.sentence(l.Path)
		}
	}
	if names := r.Quote.named(quote.Skipped); names != "" {
		s += "; skipped (--insecure-skip-signature): " + names + ", so anybody can have made this quote"
	}
	if names := r.Quote.named(quote.Warned); names != "" {
		s += "; accepted with warnings (--ear-accept-warning): " + names
	}
	if names := r.Quote.named(quote.NotChecked); names != "" {
		s += "; not checked: " + names
	}
	if names := r.named(replay.Static); names != "" {
		s += "; held against nothing: " + names
	}
	return s
}

// accounted says what the logs explain, and what is as it was expected.
func (r *verdictReport) accounted() string {
	logged := 0
	var expected []string
	for _, o := range r.Registers {
		if o.Events > 0 && (o.Status == replay.Match || o.Status == replay.LogAhead) {
			logged++
		}
		if name := o.Register.String(); o.Expected != nil && !slices.Contains(expected, name) {
			expected = append(expected, name)
		}
	}
	s := fmt.Sprintf("the logs explain all %d quoted values that moved", logged)
	if logged == 1 {
		s = "the logs explain the one quoted value that moved"
	}
	names := strings.Join(expected, ", ")
	switch {
	case names == "":
		return s
	case logged == 0:
		return "as expected: " + names
	}
	return s + "; as expected: " + names
}

// named lists the registers of a status, each once, with the banks if not all
// of its banks have it; and without launch measurements that are not the expected ones.
func (r *verdictReport) named(status replay.Status) string {
	var names []string
	for _, o := range r.Registers {
		if o.Status != status || o.Register.Static() && status == replay.Mismatch {
			continue
		}
		name := o.Register.String()
		for _, p := range r.Registers {
			if p.Register == o.Register && p.Status != status {
				name = o.Alg.String() + ":" + o.Register.String()
			}
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// omitted lists the registers that logs extend and the quote does not carry.
func (r *verdictReport) omitted() string {
	var names []string
	for _, u := range r.Uncovered {
		if name := u.Register.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func reportQuote(q *quote.Quote) *quoteReport {
	r := &quoteReport{Kind: q.Kind, Version: q.Version, Facts: q.Facts, Warnings: q.Warnings, Links: []linkReport{}}
	if r.Facts == nil {
		r.Facts = []quote.Fact{}
	}
	for _, l := range q.Links {
		r.Links = append(r.Links, linkReport{l.Name, l.Status, l.Text})
		word := string(l.Status)
		switch l.Name {
		case quote.Signature:
			r.Signature = word
		case quote.Chain:
			r.Chain = word
		case quote.Collateral:
			r.Collateral = word
		case quote.Binding:
			r.Binding = word
		case quote.Policy:
			r.Policy = word
		case quote.Required:
			if r.Required == "" || r.Required == string(quote.Verified) {
				r.Required = word
			}
		case quote.Nonce:
			r.Nonce = nonceWord(l.Status)
		}
	}
	if q.Inside != nil {
		r.Inside = reportQuote(q.Inside)
	}
	return r
}

// nonceWord is the JSON contract's word for how a nonce compared.
func nonceWord(s quote.Status) string {
	switch s {
	case quote.Verified:
		return "match"
	case quote.Failed:
		return "mismatch"
	}
	return string(s)
}

// weakest names the first link that fails, the evidence's own or that of the
// report that goes with it, and else one that is self-asserted.
func (q *quoteReport) weakest() string {
	for _, l := range q.Links {
		if l.Status == quote.Failed || l.Status == quote.Missing {
			return l.Name + ": " + l.Text
		}
	}
	if q.Inside != nil {
		if inside := q.Inside.weakest(); inside != "" {
			return "the " + string(q.Inside.Kind) + " report " + q.where() + " it: " + inside
		}
	}
	for _, l := range q.Links {
		if l.Status == quote.SelfAsserted || l.Status == quote.Warned {
			return l.Name + ": " + l.Text
		}
	}
	return ""
}

// where says where the hardware's report is that goes with the evidence.
func (q *quoteReport) where() string {
	if q.Kind == quote.SoftTPM || q.Kind == quote.SVSM || q.Inside.Kind == quote.EAR {
		return "beside"
	}
	return "inside"
}

// named lists the links of a status, in the evidence and the report inside it.
func (q *quoteReport) named(status quote.Status) string {
	var names []string
	for r := q; r != nil; r = r.Inside {
		for _, l := range r.Links {
			if l.Status == status && !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
		}
	}
	return strings.Join(names, ", ")
}
