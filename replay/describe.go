package replay

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// The kinds of what is not proven, beside FaultUnloggedEntry.
const (
	FaultOneBank   FaultKind = "one-bank"   // another bank of the register does fold to its value
	FaultOtherBoot FaultKind = "other-boot" // other registers do fold to theirs
	FaultLogBehind FaultKind = "log-behind" // an earlier quote has all of the log
)

// describe tells an edit of a tape, fault by fault.
func (s *search) describe(t *tape, e *edit) (all []Edit) {
	for k := range e.faults {
		f, sp := &e.faults[k], &e.splices[k]
		x := Edit{Kind: f.kind, Log: -1, Entry: -1, First: f.at, Last: f.at}
		x.First, x.Last = t.alike(e, k)
		if st := f.blamed(t, x.First); st != nil {
			x.Log, x.Entry, x.Offset, x.Type, x.Detail = st.Log, st.Entry, st.Offset, st.Type, st.Detail
			if f.kind == FaultMissing && st.Violation {
				x.Kind = FaultViolationMissing
			}
		}
		x.Text = s.clause(t, f, sp, &x)
		all = append(all, x)
	}
	return all
}

// blamed returns the entry that a fault is of; nil for one of none, or of a log.
func (f *fault) blamed(t *tape, first int) *Step {
	switch f.kind {
	case FaultMissing, FaultRepeated:
		return t.steps[first]
	case FaultSwapped, FaultSwappedApart, FaultMoved, FaultAltered, FaultReplaced, FaultBootAggregate, FaultKexec:
		return t.steps[f.at]
	case FaultBlockMissing, FaultHeadMissing, FaultPaddedSHA1, FaultViolations, FaultComputed:
		return t.steps[f.at]
	case FaultUnloggedEntry:
		return f.with.of.steps[f.with.step]
	}
	return nil
}

// alike returns the positions at which the k-th fault would make the same of
// the log: where an entry stands between its likes, nothing tells which it is.
func (t *tape) alike(e *edit, k int) (first, last int) {
	f, sp := &e.faults[k], &e.splices[k]
	lo, hi := 0, len(t.steps) // between the other faults
	if k > 0 {
		lo = e.splices[k-1].to
	}
	if k+1 < len(e.splices) {
		hi = e.splices[k+1].from
	}
	first, last = f.at, f.at
	switch f.kind {
	case FaultMissing, FaultRepeated:
		for first > lo && t.same(first-1, f.at) {
			first--
		}
		for last+1 < hi && t.same(last+1, f.at) {
			last++
		}
	case FaultUnloggedZeros, FaultUnloggedSeparator, FaultUnloggedEntry:
		for first > lo && t.extends(first-1, &sp.put[0]) {
			first--
		}
		for last < hi && t.extends(last, &sp.put[0]) {
			last++
		}
	case FaultSwapped, FaultBlockMissing, FaultHeadMissing:
		last = f.at + f.n - 1
	case FaultMoved, FaultSwappedApart:
		first, last = sp.from, sp.to-1
	}
	return first, last
}

// same reports whether two steps extend the same in every bank.
func (t *tape) same(i, j int) bool {
	return !slices.ContainsFunc(t.banks, func(s *strip) bool { return !s.same(i, j) })
}

// extends reports whether step i extends the item's digest, in every bank in
// which that is known.
func (t *tape) extends(i int, it *item) bool {
	var buf [rtmr.MaxDigestSize]byte
	return !slices.ContainsFunc(t.banks, func(s *strip) bool {
		d := it.digests(t, s.alg, &buf)
		return d != nil && !bytes.Equal(d, s.in(i))
	})
}

// clause tells one fault in words.
func (s *search) clause(t *tape, f *fault, sp *splice, x *Edit) string {
	name := func(i int) string { return s.entryName(t, t.steps[i]) }
	switch f.kind {
	case FaultMissing:
		return s.oneOf(t, x) + " is in the log and was not extended"
	case FaultRepeated:
		return s.oneOf(t, x) + " was extended twice"
	case FaultSwapped:
		return fmt.Sprintf("%s was extended after %s, its successor in the log", name(f.at), name(f.at+1))
	case FaultSwappedApart:
		return fmt.Sprintf("%s and %s were extended in each other's place", name(f.at), name(f.at+f.n))
	case FaultMoved:
		if f.n < 0 {
			return fmt.Sprintf("%s was extended %s earlier than logged, before %s", name(f.at), counted(-f.n, "entry", "entries"), name(f.at+f.n))
		}
		return fmt.Sprintf("%s was extended %s later than logged, after %s", name(f.at), counted(f.n, "entry", "entries"), name(f.at+f.n))
	case FaultAltered:
		return fmt.Sprintf("%s was extended as %s", name(f.at), f.with.form)
	case FaultReplaced:
		return fmt.Sprintf("in place of %s, %s was extended", name(f.at), s.candidateName(&f.with))
	case FaultBlockMissing:
		return fmt.Sprintf("%s in a row, %s to %s, are in the log and were not extended", counted(f.n, "entry", "entries"), name(f.at), name(f.at+f.n-1))
	case FaultHeadMissing:
		return fmt.Sprintf("the register begins with %s: the %s before it were not extended", name(f.n), counted(f.n, "entry", "entries"))
	case FaultUnloggedZeros, FaultUnloggedSeparator:
		return fmt.Sprintf("%s that no log has was extended %s", f.with.form, s.placeName(t, x))
	case FaultUnloggedEntry:
		return fmt.Sprintf("%s was extended %s and is not in the log", s.candidateName(&f.with), s.placeName(t, x))
	}
	return s.wholeClause(t, f)
}

// wholeClause tells a fault of a whole log.
func (s *search) wholeClause(t *tape, f *fault) string {
	ofLog := ""
	if len(t.sections()) > 1 && f.log >= 0 {
		ofLog = " of " + s.logName(f.log)
	}
	switch f.kind {
	case FaultPaddedSHA1:
		return fmt.Sprintf("%s%s extended SHA-1 padded with zeros in the other banks", counted(f.n, "entry", "entries"), ofLog)
	case FaultViolations:
		return fmt.Sprintf("%s%s extended %s", counted(f.n, "violation", "violations"), ofLog, f.with.form)
	case FaultComputed:
		return fmt.Sprintf("%s%s extended what their data hash to, and not the digests in the log", counted(f.n, "entry", "entries"), ofLog)
	case FaultStartupLocality:
		return fmt.Sprintf("the register began at 00..%02x, for a start at locality %d, which the log does not say", f.n, f.n)
	case FaultBootAggregate:
		if f.n == 2 {
			return s.entryName(t, t.steps[f.at]) + ", a boot_aggregate, was extended twice"
		}
		return s.entryName(t, t.steps[f.at]) + ", a boot_aggregate, was not extended"
	case FaultKexec:
		return fmt.Sprintf("the register begins with %s, a boot_aggregate: the %s before it are another kernel's", s.entryName(t, t.steps[f.at]), counted(f.n, "entry", "entries"))
	case FaultLogMissing, FaultLogRepeated:
		which := s.logName(f.log)
		if f.log < 0 {
			which = "all logs"
		}
		if f.kind == FaultLogMissing {
			return fmt.Sprintf("none of the %s of %s was extended", counted(f.n, "entry", "entries"), which)
		}
		return fmt.Sprintf("the %s of %s were extended twice, one time after the other", counted(f.n, "entry", "entries"), which)
	case FaultLogOrder:
		return "the logs were extended in another order than given"
	case FaultRegisterColumn:
		which := "the log's"
		if f.log >= 0 {
			which = s.logName(f.log) + "'s"
		}
		return fmt.Sprintf("%s entries of %s were extended into this register", which, f.reg)
	case FaultEarlierList:
		return fmt.Sprintf("the log began before: a candidate log (%s) was extended first", counted(f.n, "entry", "entries"))
	case FaultLaterList:
		return fmt.Sprintf("the log is behind its quote: a candidate log (%s) was extended after it", counted(f.n, "entry", "entries"))
	case FaultOtherLog:
		return "a candidate log was extended in place of this one"
	}
	return string(f.kind)
}

// String tells what a form extends, for a sentence.
func (f form) String() string {
	return [...]string{
		"logged", "SHA-1 padded with zeros", "what its data hash to, and not as logged",
		"a digest of zeros", "a digest of 0xFF throughout", "twenty bytes of 0xFF, padded with zeros",
		"a separator of 00000000", "a separator of FFFFFFFF", "a separator of an error, 00000001",
	}[f]
}

// entryName tells an entry so that it can be found.
func (s *search) entryName(t *tape, st *Step) string {
	if st == nil {
		return "an extend that no log has"
	}
	name := fmt.Sprintf("entry %d", st.Entry)
	if len(t.sections()) > 1 {
		name += " of " + s.logName(st.Log)
	}
	return name + entryDetail(st)
}

// maxDetail is how much of an entry's detail a sentence can hold.
const maxDetail = 160

func entryDetail(st *Step) string {
	detail := st.Detail
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + " .."
	}
	if about := strings.TrimSpace(st.Type + " " + detail); about != "" {
		return " (" + about + ")"
	}
	return ""
}

func (s *search) logName(log int) string {
	if log >= 0 && log < len(s.opts.LogNames) {
		return rtmr.Escape(s.opts.LogNames[log])
	}
	return fmt.Sprintf("log %d", log)
}

// oneOf names the blamed entry, or says that any of several may be it.
func (s *search) oneOf(t *tape, x *Edit) string {
	if x.First == x.Last {
		return s.entryName(t, t.steps[x.First])
	}
	return fmt.Sprintf("one of %s that are alike, from %s on,", counted(x.Last-x.First+1, "entry", "entries"), s.entryName(t, t.steps[x.First]))
}

// placeName tells where something was extended that is not in the log.
func (s *search) placeName(t *tape, x *Edit) string {
	if n := len(t.steps); x.Last == n {
		return "after the last entry"
	}
	return "before " + s.entryName(t, t.steps[x.Last])
}

func (s *search) candidateName(it *item) string {
	if st := it.of.steps[it.step]; st != nil {
		return fmt.Sprintf("a candidate log's entry %d%s", st.Entry, entryDetail(st))
	}
	b := it.of.banks[0]
	return fmt.Sprintf("the candidate %s", rtmr.Digest{Alg: b.alg, Sum: b.in(it.step)})
}

// conclude fills in what an explanation says of its edits as a whole.
func (s *search) conclude(x *Explanation, g *goal) {
	first := &x.Edits[0]
	x.Kind, x.Log, x.Entry, x.Offset = first.Kind, first.Log, first.Entry, first.Offset
	x.Type, x.Detail, x.First, x.Last = first.Type, first.Detail, first.First, first.Last
	var clauses []string
	for _, e := range x.Edits {
		clauses = append(clauses, e.Text)
	}
	x.Text = strings.Join(clauses, "; and ")
	if !x.Proven {
		return
	}
	what := "value"
	if g.digest != nil {
		what = "digest"
	}
	x.Text += fmt.Sprintf(": so the log folds to the quoted %s in %s, in %s", what, bankNames(x.Banks), counted(x.Matched, "extend", "extends"))
	if x.Ahead > 0 {
		x.Text += fmt.Sprintf(", and %s of it came after the quote", counted(x.Ahead, "entry", "entries"))
	}
	if len(x.Against) > 0 {
		x.Text += fmt.Sprintf("; it does not explain %s", bankNames(x.Against))
	}
	if g.passed > 0 {
		x.Text += fmt.Sprintf("; it does not pass %s, which may be of another boot", counted(g.passed, "earlier quote", "earlier quotes"))
	}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
