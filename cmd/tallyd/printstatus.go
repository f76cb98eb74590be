//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"tallystick/guest"
	"tallystick/rtmr"
)

// printStatus prints a Status, a line for each thing that there is.
func printStatus(w io.Writer, s *guest.Status) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-10s%s\n", name, rtmr.Escape(fmt.Sprintf(format, args...)))
	}
	line("helper", "%s, since %s", s.Helper, s.Started.Format(time.DateTime))
	line("device", "%s: %s", s.Device.Kind, s.Device.Name)
	for _, why := range s.Chosen {
		line("", "%s", why)
	}
	if s.KernelExtends {
		line("ima", "the kernel extends its own list")
	} else {
		line("ima", "%d entries since boot%s", s.IMA, sayLag(s.Lag))
	}
	line("extended", "%d measurements by applications, %d by others; %d times others extended what nobody knows",
		s.Journal.Applications, s.Journal.Others, s.Journal.Unexplained)
	line("journal", "%s: %d bytes, %d records%s", s.Journal.Path, s.Journal.Bytes, s.Journal.Records, sayRoom(s))
	printRecovery(line, &s.Recovery)
	printBootLog(line, s.BootLog)
	for _, t := range s.Tap {
		line("tap", "%s", sayTapped(&t))
	}
	printGuard(line, s.Guard)
	printEvidence(line, &s.Evidence)
	if s.Error != "" {
		line("failing", "%s", s.Error)
	}
	if e := s.LastError; e != nil && s.Error == "" {
		line("failed", "last at %s: %s", e.Time.Format(time.DateTime), e.Text)
	}
}

func sayLag(l *guest.Lag) string {
	switch {
	case l == nil:
		return ""
	case l.Entries == 0:
		return ", not behind"
	}
	return fmt.Sprintf(", %d behind for %.1f s", l.Entries, l.Seconds)
}

func sayRoom(s *guest.Status) (text string) {
	if s.Journal.Room >= 0 {
		text = fmt.Sprintf(", %d bytes free", s.Journal.Room)
	}
	if s.Behind > 0 {
		text += fmt.Sprintf("; %d measurements are not yet extended", s.Behind)
	}
	return text
}

func printRecovery(line func(name, format string, args ...any), r *guest.Recovery) {
	if r.Records > 0 {
		line("taken up", "%d records, %d of them extended only then, %d torn bytes", r.Records, r.Behind, r.Torn)
	}
	if r.Damaged != "" {
		line("damaged", "a journal, kept as %s: %s", r.Damaged, r.Reason)
	}
	if r.Foreign != "" {
		line("others", "extended %s while no helper ran", r.Foreign)
	}
}

func printBootLog(line func(name, format string, args ...any), b *guest.BootLogStatus) {
	if b == nil {
		line("boot log", "none")
		return
	}
	if b.Extended {
		line("boot log", "%s: %d events, extended", b.Path, b.Events)
		return
	}
	line("boot log", "%s: %d events, folds to %d registers and not to %d", b.Path, b.Events, len(b.Match), len(b.Differ))
	if len(b.Differ) > 0 {
		line("", "not to %s", strings.Join(b.Differ, ", "))
	}
	if b.Problem != "" {
		line("", "%s", b.Problem)
	}
}

func sayTapped(t *guest.TapStatus) string {
	if t.Method == "" {
		return fmt.Sprintf("%s: polled every %g s: %s", t.Source, t.Poll, t.Reason)
	}
	text := fmt.Sprintf("%s: by %s, %d measured, %d records lost, %d calls missed", t.Source, t.Method, t.Measured, t.Lost, t.Missed)
	if t.Reason != "" {
		text += ": " + t.Reason
	}
	return text
}

func printGuard(line func(name, format string, args ...any), g *guest.GuardStatus) {
	if g == nil {
		return
	}
	text := g.State
	if g.Reason != "" {
		text += ": " + g.Reason
	}
	denied := uint64(0)
	for _, n := range g.Denied {
		denied += n
	}
	if g.State != "off" {
		text += fmt.Sprintf(", %d denials", denied)
	}
	line("guard", "%s", text)
	for _, what := range slices.Sorted(maps.Keys(g.Denied)) {
		line("", "%d of %s", g.Denied[what], what)
	}
	if len(g.Missing) > 0 {
		line("", "without %s", strings.Join(g.Missing, ", "))
	}
	if g.Restart != "" {
		line("", "a restarted helper will not be admitted: %s", g.Restart)
	}
}

func printEvidence(line func(name, format string, args ...any), e *guest.EvidenceStatus) {
	text := fmt.Sprintf("%d made, %d failed", e.Made, e.Failed)
	if e.Last != nil {
		text += fmt.Sprintf("; the last quote at %s took %.1f ms, and extends waited %.1f ms more", e.Last.Format(time.DateTime), e.QuoteSeconds*1e3, e.HeldSeconds*1e3)
	}
	line("evidence", "%s", text)
	if e.Error != nil {
		line("", "failed at %s: %s", e.Error.Time.Format(time.DateTime), e.Error.Text)
	}
}
