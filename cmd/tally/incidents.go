package main

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/rtmr"
)

// incidents are what a journal itself says went otherwise than it should: extends by
// others than the helper, measurements that may be missing, registers whose history
// it does not know. Nothing contradicts the quote by them.
type incidents struct {
	Counts map[string]int `json:"counts"` // by kind
	First  []incident     `json:"first"`  // maxIncidents of them

	bundled bool // it is a bundle's journal
}

type incident struct {
	Entry    int           `json:"entry"` // index in the log
	Kind     string        `json:"kind"`  // other, unbound, base, gap, left-out, or a note's own
	Register rtmr.Register `json:"register,omitzero"`
	Text     string        `json:"text"`
}

const (
	maxIncidents    = 16
	maxIncidentText = 300 // bytes
)

// watch passes a canonical event log on and notes its incidents.
func (in *incidents) watch(entries iter.Seq2[rtmr.Measurement, error]) iter.Seq2[rtmr.Measurement, error] {
	return func(yield func(rtmr.Measurement, error) bool) {
		for m, err := range entries {
			if err == nil {
				in.take(&m)
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

func (in *incidents) take(m *rtmr.Measurement) {
	e, ok := m.Entry.(*cel.Entry)
	if !ok {
		return
	}
	if e.ContentType() == cel.ContentTallystick {
		in.takeOwn(m, e)
	}
	if !m.NoAction {
		return
	}
	if b, ok, err := evidence.ParseBase(e.Data()); ok && err == nil && b.Reason == evidence.Foreign {
		in.add(m, "base", movedText(&b)+unknownText(&b))
	}
	if n, ok, err := evidence.ParseNote(e.Data()); ok && err == nil && !n.Routine() {
		in.add(m, n.Kind, string(n.About))
	}
}

// takeOwn takes an entry of this project's content. In a bundle's journal each says what
// was measured in data that its digest is of, unless others extended it.
func (in *incidents) takeOwn(m *rtmr.Measurement, e *cel.Entry) {
	switch e.Type() {
	case evidence.OtherType:
		in.add(m, "other", "another process than the helper extended it: "+string(e.Data()))
	case evidence.GapType, evidence.LeftOutType:
		in.add(m, strings.TrimPrefix(e.Type(), "own:"), string(e.Data()))
	default:
		if in.bundled && !slices.ContainsFunc(m.Digests, func(d rtmr.Digest) bool { check, _ := e.Verify(d); return check != rtmr.CannotCheck }) {
			in.add(m, "unbound", e.Type()+": nothing ties these words to the digest: "+string(e.Data()))
		}
	}
}

// movedText says which registers others extended, or had reset.
func movedText(b *evidence.Base) string {
	var moved, reset []string
	for _, r := range b.Names() {
		at := true
		for alg, values := range b.Registers {
			if value, ok := values[r]; ok && !isReset(r, alg, value) {
				at = false
			}
		}
		if at {
			reset = append(reset, r.String())
		} else {
			moved = append(moved, r.String())
		}
	}
	var texts []string
	if len(moved) > 0 {
		texts = append(texts, "others extended "+strings.Join(moved, ", ")+", and by what is not known")
	}
	if len(reset) > 0 {
		texts = append(texts, strings.Join(reset, ", ")+" had been reset")
	}
	return strings.Join(texts, "; ")
}

func unknownText(b *evidence.Base) (text string) {
	for _, register := range slices.SortedFunc(maps.Keys(b.Unknown), rtmr.Register.Compare) {
		text += fmt.Sprintf("; of the last %d in %s it is not known whether they were extended", b.Unknown[register], register)
	}
	return text
}

func (in *incidents) add(m *rtmr.Measurement, kind, text string) {
	if in.Counts == nil {
		in.Counts = make(map[string]int)
	}
	kind = printable(kind)
	in.Counts[kind]++
	if len(in.First) < maxIncidents {
		if len(text) > maxIncidentText {
			text = text[:maxIncidentText] + " .."
		}
		in.First = append(in.First, incident{m.Index, kind, m.Register, printable(text)})
	}
}

// total is how many there are.
func (in *incidents) total() (n int) {
	if in == nil {
		return 0
	}
	for _, k := range in.Counts {
		n += k
	}
	return n
}

// sentence says how many of each kind a log tells of.
func (in *incidents) sentence(path string) string {
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(in.Counts)) {
		n := in.Counts[kind]
		switch kind {
		case "other":
			kinds = append(kinds, count(n, "extend", "extends")+" by other processes than the helper")
		case "base":
			kinds = append(kinds, count(n, "time", "times")+" that others extended what is in no log, or that registers were reset")
		case "unbound":
			kinds = append(kinds, count(n, "entry", "entries")+" whose words nothing ties to the digest")
		default:
			kinds = append(kinds, fmt.Sprintf("%d x %s", n, kind))
		}
	}
	return fmt.Sprintf("%s itself tells of %s", path, strings.Join(kinds, ", "))
}

func (in *incidents) print(w io.Writer) {
	if in == nil {
		return
	}
	for _, i := range in.First {
		where := i.Kind
		if !i.Register.IsZero() {
			where += ", " + i.Register.String()
		}
		fmt.Fprintf(w, "    %s entry %d (%s): %s\n", caution("it says:"), i.Entry, where, i.Text)
	}
	if more := in.total() - len(in.First); more > 0 {
		fmt.Fprintf(w, "    %s %d more of the kind\n", caution("it says:"), more)
	}
}
