package main

import (
	"bytes"
	"fmt"
	"slices"

	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/rtmr"
)

// The kinds of finding that a journal's bases give.
const (
	foreignExtend = "foreign"        // others extended the register, and no log says what
	beforeJournal = "before-journal" // the register moved before the journal began
)

// basis is a value that a journal says a register had, folded on by what the
// journal has after that.
type basis struct {
	entry  int // of the base in the journal
	reason string
	reset  bool // the value was the register's at a reset
	value  []byte
	events int // that were folded
}

// findBases says of the registers that part how far the journal explains them from
// a value that it gives itself. If the rest of the journal folds from there to the
// quoted value, then the register had that value: another that does cannot be
// found. It is no excuse, for what the register had been extended with until then
// is not known.
func (c *investigation) findBases(report *verdictReport) error {
	parts := func(r registerReport) bool { return r.Finding != nil && r.Quoted != nil }
	if !slices.ContainsFunc(report.Registers, parts) {
		return nil
	}
	for i, file := range c.logs {
		if file.path == "-" || report.Logs[i].Format != "cel-tlv" {
			continue
		}
		bases, malformed, err := c.basesOf(file)
		if err != nil {
			return err
		}
		report.Logs[i].Warnings = append(report.Logs[i].Warnings, malformed...)
		for j := range report.Registers {
			r := &report.Registers[j]
			b := bases[rtmr.Selected{Alg: r.Alg, Register: r.Register}]
			if parts(*r) && b != nil && bytes.Equal(b.value, r.Quoted) {
				r.Finding = b.finding(i, report.Logs[i].Path)
			}
		}
	}
	return nil
}

// basesOf reads a journal for its last base of every register, and says which it
// had to leave out.
func (c *investigation) basesOf(file logFile) (bases map[rtmr.Selected]*basis, malformed []string, err error) {
	l, err := c.in.openFile(file, ima.Signs{})
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	bases = map[rtmr.Selected]*basis{}
	history := map[rtmr.Register][][]rtmr.Digest{}
	for m, err := range l.Measurements() {
		if err != nil {
			return nil, nil, l.fault(err)
		}
		if m.NoAction {
			if err := addBases(bases, &m, history); err != nil && len(malformed) < maxMalformed {
				malformed = append(malformed, fmt.Sprintf("entry %d: %s", m.Index, err))
			}
			continue
		}
		history[m.Register] = append(history[m.Register], cloneDigests(m.Digests))
		for _, d := range m.Digests {
			if b := bases[rtmr.Selected{Alg: d.Alg, Register: m.Register}]; b != nil {
				b.extend(d)
			}
		}
	}
	return bases, malformed, nil
}

// maxMalformed bounds what is said of bases that cannot be read.
const maxMalformed = 16

func addBases(bases map[rtmr.Selected]*basis, m *rtmr.Measurement, history map[rtmr.Register][][]rtmr.Digest) error {
	base, ok, err := evidence.ParseBase(m.Entry.Data())
	if !ok || err != nil {
		return err
	}
	for alg, bank := range base.Registers {
		for register, value := range bank {
			if !alg.Available() {
				continue
			}
			b := &basis{entry: m.Index, reason: base.Reason, reset: isReset(register, alg, value), value: slices.Clone(value)}
			before := history[register]
			for _, digests := range before[len(before)-min(max(base.Behind[register], 0), len(before)):] {
				for _, d := range digests {
					if d.Alg == alg {
						b.extend(d)
					}
				}
			}
			bases[rtmr.Selected{Alg: alg, Register: register}] = b
		}
	}
	return nil
}

// isReset reports whether a register holds what it does after a reset.
func isReset(r rtmr.Register, alg rtmr.Alg, value []byte) bool {
	return alg.Available() && bytes.Equal(value, r.ResetValue(alg))
}

func cloneDigests(digests []rtmr.Digest) (out []rtmr.Digest) {
	for _, d := range digests {
		out = append(out, rtmr.Digest{Alg: d.Alg, Sum: slices.Clone(d.Sum)})
	}
	return out
}

func (b *basis) extend(d rtmr.Digest) {
	d.Alg.Extend(b.value, d.Sum)
	b.events++
}

// finding says what it is that the base leads to the quoted value.
func (b *basis) finding(log int, path string) *findingReport {
	f := &findingReport{Kind: beforeJournal, Log: &log, Entry: &b.entry, Proven: b.events > 0}
	when := "when it began"
	what := "what was extended before that is in no log that was given, or in another one"
	if b.reason != evidence.AtStart {
		f.Kind = foreignExtend
		when = fmt.Sprintf("at its entry %d, when others had extended it", b.entry)
		what = "what they extended is in no log"
	}
	if b.reset && b.reason == evidence.Foreign {
		when = fmt.Sprintf("at its entry %d, when it had been reset", b.entry)
		what = "nothing that was extended before is in it any more"
	}
	if b.events == 0 {
		f.Text = fmt.Sprintf("%s says that the register had the quoted value %s: %s", path, when, what)
	} else {
		f.Text = fmt.Sprintf("from the value that, as %s says, the register had %s, it folds on to the quoted value by %s: %s", path, when, events(b.events), what)
	}
	return f
}

// isBasis reports whether a finding is what a journal's base leads to, which a
// search does not improve on without a proof.
func (f *findingReport) isBasis() bool { return f.Kind == foreignExtend || f.Kind == beforeJournal }
