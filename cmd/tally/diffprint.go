package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"tallystick/replay"
	"tallystick/rtmr"
)

// diffReport is what diff --json prints; diffHelp says what is in it.
type diffReport struct {
	Logs       []comparedLog               `json:"logs"`
	Bank       rtmr.Alg                    `json:"bank,omitzero"` // none where neither log measures anything
	Same       bool                        `json:"same"`
	Counts     map[string]int              `json:"counts"`
	Registers  []replay.RegisterDifference `json:"registers"`
	Changes    []replay.Change             `json:"changes"`
	Unmeasured []replay.Change             `json:"unmeasured"`
	Error      string                      `json:"error,omitempty"`
}

type comparedLog struct {
	Path     string   `json:"path"`
	Format   string   `json:"format"`
	Events   int      `json:"events"`
	Warnings []string `json:"warnings"`
}

func printDiffJSON(w io.Writer, d *replay.Difference, logs [2]*rereadable, fault error) error {
	report := diffReport{
		Bank: d.Bank, Same: d.Same(), Counts: map[string]int{},
		Registers:  append([]replay.RegisterDifference{}, d.Registers...),
		Changes:    append([]replay.Change{}, d.Changes...),
		Unmeasured: append([]replay.Change{}, d.Unmeasured...),
	}
	for i, l := range logs {
		report.Logs = append(report.Logs, comparedLog{l.name, l.format, d.Events[i], l.warnings})
	}
	for _, c := range d.Changes {
		report.Counts[c.Kind.String()]++
	}
	if fault != nil {
		report.Error = fault.Error()
	}
	return json.NewEncoder(w).Encode(report)
}

func printDiff(w io.Writer, d *replay.Difference, logs [2]*rereadable, fault error) error {
	fmt.Fprintln(w, diffSummary(d, fault))
	for i, mark := range []string{"---", "+++"} {
		fmt.Fprintf(w, "%s %s: %s, %d entries\n", mark, logs[i].name, logs[i].format, d.Events[i])
		for _, text := range logs[i].warnings {
			fmt.Fprintf(w, "  %s %s\n", caution("warning:"), text)
		}
	}
	changes := d.Changes
	for _, r := range d.Registers {
		n := slices.IndexFunc(changes, func(c replay.Change) bool { return c.Register() != r.Register })
		if n < 0 {
			n = len(changes)
		}
		if n > 0 || r.Parts() {
			printRegister(w, &r)
		}
		printChanges(w, changes[:n])
		changes = changes[n:]
	}
	if len(d.Unmeasured) > 0 {
		fmt.Fprintln(w, "@@ entries that extend nothing @@")
	}
	printChanges(w, d.Unmeasured)
	return nil
}

// diffSummary is the answer in one sentence.
func diffSummary(d *replay.Difference, fault error) string {
	total, kinds := countKinds(d.Changes)
	said := fmt.Sprintf("no difference in %s: %d entries", bankOf(d), d.Events[0])
	if !d.Same() {
		said = fmt.Sprintf("%s in %s between %d and %d entries%s", counted(total, "difference"), bankOf(d), d.Events[0], d.Events[1], kinds)
	}
	var parts []string
	for _, r := range d.Registers {
		if r.Parts() {
			parts = append(parts, fmt.Sprintf("%s %s", r.Register, partsAt(r.A.Parts)))
		}
	}
	if len(parts) > 0 {
		said += "; values part: " + strings.Join(parts, ", ")
	}
	return said + diffNotes(d, fault)
}

// countKinds counts the changes that matter.
func countKinds(changes []replay.Change) (total int, kinds string) {
	counts := map[replay.ChangeKind]int{}
	for _, c := range changes {
		if c.Matters() {
			counts[c.Kind]++
			total++
		}
	}
	separator := ": "
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		kinds += fmt.Sprintf("%s%d %s", separator, counts[kind], kind)
		separator = ", "
	}
	return total, kinds
}

// diffNotes says what else there is to know.
func diffNotes(d *replay.Difference, fault error) (notes string) {
	uncovered, beside := 0, false
	for _, c := range d.Changes {
		if !c.Matters() {
			uncovered++
		}
		beside = beside || c.Kind == replay.Moved && isPCR(c.A) != isPCR(c.B)
	}
	if uncovered > 0 {
		notes += fmt.Sprintf("; %s of data that the digest does not cover", counted(uncovered, "difference"))
	}
	if n := len(d.Unmeasured); n > 0 {
		notes += fmt.Sprintf("; %s in what extends nothing", counted(n, "difference"))
	}
	if beside {
		notes += "; PCRs stand beside other registers (--into rtmr takes them for RTMRs)"
	}
	if fault != nil {
		notes += "; as far as the logs could be read"
	}
	return notes
}

func isPCR(l *replay.Logged) bool { return l.Register.Kind() == rtmr.KindPCR }

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func bankOf(d *replay.Difference) string {
	if d.Bank == 0 {
		return "any bank"
	}
	return d.Bank.String()
}

func partsAt(index *int) string {
	if index == nil {
		return "where it ends"
	}
	return fmt.Sprintf("at entry %d", *index)
}

func printRegister(w io.Writer, r *replay.RegisterDifference) {
	fmt.Fprintf(w, "@@ %s: ", r.Register)
	if !r.Parts() {
		fmt.Fprintf(w, "the same values, %d entries @@\n", r.Agree)
		return
	}
	fmt.Fprintf(w, "of %d and %d entries the first %d agree; values part in A %s, in B %s @@\n",
		r.A.Events, r.B.Events, r.Agree, partsAt(r.A.Parts), partsAt(r.B.Parts))
	if r.A.Locality != r.B.Locality {
		fmt.Fprintf(w, "  it starts from locality %d in A and %d in B\n", r.A.Locality, r.B.Locality)
	}
	for i, side := range []*replay.RegisterSide{&r.A, &r.B} {
		if side.Value != nil {
			fmt.Fprintf(w, "  %c folds to %s\n", "AB"[i], side.Value)
		}
	}
}

func printChanges(w io.Writer, changes []replay.Change) {
	for _, c := range changes {
		mark := "-+~>=!"[c.Kind]
		switch c.Kind {
		case replay.Removed:
			printLogged(w, mark, c.A, "")
		case replay.Added:
			printLogged(w, mark, c.B, "")
		case replay.Moved:
			to := fmt.Sprintf("[to entry %d] ", c.B.Index)
			if c.A.Register != c.B.Register {
				to = fmt.Sprintf("[to %s, entry %d] ", c.B.Register, c.B.Index)
			}
			printLogged(w, mark, c.A, to)
		case replay.OtherBank:
			printLogged(w, mark, c.A, fmt.Sprintf("%v differs ", c.Banks))
			printLogged(w, ' ', c.B, "")
		default:
			printLogged(w, mark, c.A, "")
			printLogged(w, ' ', c.B, "")
		}
	}
}

// printLogged prints one entry. What is said of it stands before its detail,
// which is text that whoever wrote the log chose.
func printLogged(w io.Writer, mark byte, l *replay.Logged, said string) {
	if l.Check == rtmr.Contradicts {
		said += contradicts + " "
	}
	digest := "-"
	if l.Digest != nil {
		digest = l.Digest.String()
	}
	fmt.Fprintf(w, "%s %5d %-6s %-34s %-12.12s %s%s\n", colouredMark(mark), l.Index, l.Register, l.Type, digest, said, l.Detail)
}

func colouredMark(mark byte) string {
	switch mark {
	case '-', '!':
		return bad(string(mark))
	case '+':
		return good("+")
	}
	return caution(string(mark))
}
