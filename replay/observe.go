package replay

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// observations tell, for each register that nothing explains, what is known of
// the fault: nothing of it is proven.
func (s *search) observations() (all []Explanation) {
	var told []*tape
	for _, g := range s.goals {
		if g.solved || g.digest != nil || slices.Contains(told, g.orig) {
			continue
		}
		told = append(told, g.orig)
		all = append(all, s.observe(g)...)
	}
	return append(all, s.observeComposites()...)
}

// observe tells what is known of a register and the banks that have its entries.
func (s *search) observe(g *goal) (all []Explanation) {
	x := Explanation{Register: g.reg, Log: -1, Entry: -1, First: g.floor, Last: len(g.tape.steps)}
	for _, o := range s.goals {
		if o.orig == g.orig && o.digest == nil && !o.solved {
			x.Banks = append(x.Banks, o.alg)
			x.First = max(x.First, o.floor)
		}
	}
	slices.Sort(x.Banks)
	add := func(k FaultKind, text string) {
		x := x
		x.Kind, x.Text = k, text
		all = append(all, x)
	}
	if len(g.edits) > 0 {
		part := x
		part.Edits = g.edits
		s.conclude(&part, g)
		part.Text += ": so the log folds to an earlier quote's value, and what came after that is not explained"
		all = append(all, part)
	}
	explained := slices.ContainsFunc(s.goals, func(o *goal) bool { return o.orig == g.orig && o.solved })
	if good := s.matching[g.reg]; len(good) > 0 || explained {
		add(FaultOneBank, fmt.Sprintf("%s does fold to its value in another bank (%s), so its entries and their order are right; what was extended in %s is not what the log says",
			g.reg, bankNames(s.goodBanks(g)), bankNames(x.Banks)))
		return all
	}
	if x.First == x.Last && x.Last > 0 {
		add(FaultLogBehind, fmt.Sprintf("the log is behind its quote: an earlier quote has all its %s, and what was extended after them is not in it; a later log, as a candidate, would settle it", counted(x.Last, "entry", "entries")))
		return all
	}
	add(FaultUnloggedEntry, s.unloggedText(&x, g))
	if len(g.tape.steps) > 0 && g.floor == 0 && g.tape.beginsAList() {
		add(FaultKexec, "the list begins with its only boot_aggregate: if the machine came here by kexec, the list of the kernel before was extended first, and as a candidate it would settle that")
	}
	if others := s.matchingRegisters(); len(others) > 0 {
		add(FaultOtherBoot, fmt.Sprintf("%s (%s) do fold to their values, so that part of the logs is of the quoted boot or one alike; the rest may be of another",
			counted(len(others), "other register", "other registers"), strings.Join(others, ", ")))
	}
	return all
}

// goodBanks returns the register's banks that fold to their values, as they are
// or as explained.
func (s *search) goodBanks(g *goal) []rtmr.Alg {
	banks := slices.Clone(s.matching[g.reg])
	for _, o := range s.goals {
		if o.orig == g.orig && o.solved {
			banks = append(banks, o.alg)
		}
	}
	slices.Sort(banks)
	return banks
}

func (s *search) unloggedText(x *Explanation, g *goal) string {
	if x.Last == 0 {
		return fmt.Sprintf("%s moved in %s, and no log has an entry of it: the log that was extended, as a candidate, would settle it", g.reg, bankNames(x.Banks))
	}
	where := fmt.Sprintf("anywhere among its %s or behind the last, if it is behind its quote", counted(x.Last, "entry", "entries"))
	if x.First > 0 {
		where = fmt.Sprintf("after the first %d of its %d entries, which an earlier quote has", x.First, x.Last)
	}
	if n := len(g.via) + g.passed; n > 0 {
		where += fmt.Sprintf(", and before %s that the log does not fold to either", counted(n, "earlier quote", "earlier quotes"))
	}
	return fmt.Sprintf("no edit that was tried makes %s fold to the quoted value in %s: an entry may be missing from the log, %s; its digest, or a log that has it, as a candidate would settle it", g.reg, bankNames(x.Banks), where)
}

// beginsAList reports whether the first step is IMA's boot_aggregate, and no
// other is.
func (t *tape) beginsAList() bool {
	for i, st := range t.steps {
		if st == nil || st.Aggregate != (i == 0) {
			return false
		}
	}
	return true
}

// matchingRegisters are those that events extended, and that need no
// explanation in any quoted bank.
func (s *search) matchingRegisters() (names []string) {
	for _, t := range s.tapes {
		bad := slices.ContainsFunc(s.goals, func(g *goal) bool { return g.digest == nil && g.reg == t.reg })
		if name := t.reg.String(); len(t.steps) > 0 && !bad && len(s.matching[t.reg]) > 0 && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// observeComposites tells of the digests that nothing explains, one by one.
func (s *search) observeComposites() (all []Explanation) {
	for of, c := range s.opts.Composites {
		open := slices.ContainsFunc(s.goals, func(g *goal) bool { return g.digest != nil && g.digest.of == of && !g.solved })
		if !open {
			continue
		}
		x := Explanation{Kind: FaultUnloggedEntry, Log: -1, Entry: -1}
		for _, sel := range c.Selection {
			if !slices.Contains(x.Banks, sel.Alg) {
				x.Banks = append(x.Banks, sel.Alg)
			}
		}
		x.Text = fmt.Sprintf("no edit that was tried, of one of the %s under the quote's digest while the others hold what their logs fold to, makes it come out: the registers' values would tell which ones differ",
			counted(len(c.Selection), "register", "registers"))
		all = append(all, x)
	}
	return all
}

// leftOut tells what was not tried of the goals that were not reached.
func (s *search) leftOut() (all []string) {
	for _, t := range s.themes {
		if t.goal.solved || t.tried >= t.units {
			continue
		}
		how := "not tried"
		if t.tried > 0 {
			how = fmt.Sprintf("%.2g %% tried", float64(t.tried)/float64(t.units)*100)
		}
		all = append(all, fmt.Sprintf("%s: %s: %s", t.goal.name, t.name, how))
	}
	return all
}
