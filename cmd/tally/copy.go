package main

import (
	"fmt"
	"maps"
	"slices"

	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

// copyReport is what came of holding a log that nobody extended as it stands against
// the journal, which has copies of its entries.
type copyReport struct {
	Of      string `json:"of"`      // the log with the copies
	Entries int    `json:"entries"` // that have one
	Ahead   int    `json:"ahead"`   // that came later
	Parts   bool   `json:"parts"`   // a finding says where
	Moved   []move `json:"moved,omitempty"`
}

// move is a register of a log's whose copies are in one that no rule gives.
type move struct {
	From rtmr.Register `json:"from"`
	Into rtmr.Register `json:"into"`
}

// movesOf returns those of a copy's registers that are neither the log's own nor, by
// the UEFI rule (rtmr.PCR.CC), a TD's or a realm's in its place.
func movesOf(into map[rtmr.Register]rtmr.Register) (moves []move) {
	for _, from := range slices.SortedFunc(maps.Keys(into), rtmr.Register.Compare) {
		to := into[from]
		byRule, _ := rtmr.PCR(from.Index()).CC()
		if from.Kind() != rtmr.KindPCR {
			byRule = from
		}
		if to != from && to != byRule && to != byRule.Realm() {
			moves = append(moves, move{from, to})
		}
	}
	return moves
}

// holdCopies holds the logs that are to be checked against the journal, and adds
// what came of it to the report. Each is held against its own data too.
func (c *investigation) holdCopies(report *replayReport) error {
	journal := slices.IndexFunc(c.logs, func(l logFile) bool { return l.path == evidence.ItemJournal })
	for _, file := range c.checks {
		l, findings, err := c.holdCopy(file, journal, len(report.Logs))
		if l != nil {
			report.Logs = append(report.Logs, *l)
		}
		report.Findings = append(report.Findings, findings...)
		if err != nil {
			report.Error = err.Error()
			return err
		}
	}
	return nil
}

func (c *investigation) holdCopy(file logFile, journal, index int) (report *logReport, findings []replay.Finding, err error) {
	in := *c.in
	in.format = ""
	in.profile = "mainline" // the helper extends what a kernel that had all its hashes would
	signs := ima.Signs{}
	fold := replay.New(replay.Options{})
	report, err = foldLog(fold, &in, file, &signs, nil)
	if err != nil {
		return report, nil, err
	}
	findings = fold.Findings()
	for i := range findings {
		findings[i].Log = index
	}
	log, err := in.openFile(file, signs)
	if err != nil {
		return report, findings, err
	}
	defer log.Close()
	other, err := in.openFile(c.logs[journal], signs)
	if err != nil {
		return report, findings, err
	}
	defer other.Close()
	of, more := copiesOf(file.path)
	held, err := replay.CompareCopy(log.Measurements(), other.Measurements(), of, more)
	if err != nil {
		return report, findings, log.fault(err)
	}
	report.Copy = &copyReport{c.logs[journal].path, held.Entries, held.Ahead, held.Parts != nil, movesOf(held.Into)}
	if f := held.Parts; f != nil {
		f.Log = index
		if held.InOther {
			f.Log = journal
		}
		findings = append(findings, *f)
	}
	return report, findings, nil
}

// copiesOf says which of the journal's entries are copies of a log's: the IMA
// entries; or the TCG events, of which an application's may follow the firmware's.
func copiesOf(item string) (of func(rtmr.Entry) bool, more bool) {
	if item == evidence.ItemIMAList {
		return isCopy[*ima.Entry], false
	}
	return isCopy[*eventlog.Event], true
}

func isCopy[T rtmr.Entry](e rtmr.Entry) bool {
	record, ok := e.(*cel.Entry)
	if !ok {
		return false
	}
	_, ok = record.Inner().(T)
	return ok
}

// sentence says how a log stands to the one that has its copies.
func (c *copyReport) sentence() string {
	switch {
	case c.Parts:
		return bad(fmt.Sprintf("it parts from its copy in %s, after %s", c.Of, events(c.Entries)))
	case c.Ahead > 0:
		return fmt.Sprintf("%s has %s of it, in the same order, and not the %d after them", c.Of, events(c.Entries), c.Ahead)
	}
	return fmt.Sprintf("%s, which was extended in its place, has the same %s in the same order", c.Of, events(c.Entries))
}

// moved says which registers' entries are where no rule puts them.
func (c *copyReport) moved(path string) (text string) {
	for _, m := range c.Moved {
		text += fmt.Sprintf("; the entries that %s has for %s are in %s, where no rule puts them, so %s itself is not looked at", path, m.From, m.Into, m.From)
	}
	return text
}
