package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"tallystick/rtmr"
)

func newShow() *cobra.Command {
	in := inputFlags{prints: true, asListed: true}
	var asJSON, long bool
	cmd := &cobra.Command{
		Use:   "show LOG",
		Short: "Print a log's events, one a line",
		Long: `Show prints a log's events, one a line: index, register, type, the beginning of
the digest in the last bank (or that of --bank; an IMA list has one), and the data
in readable form.
An event that its own data contradict is marked. Of an evidence bundle the parts
are listed, and what its sender says of it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in.format == "" && isBundle(args[0]) {
				return showBundle(cmd.OutOrStdout(), args[0], asJSON)
			}
			l, err := in.openAlone(args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			print := printEventJSON
			if !asJSON {
				banks, _ := in.algs()
				print = (&eventPrinter{banks, long}).print
			}
			return show(cmd.OutOrStdout(), cmd.ErrOrStderr(), l, print)
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON Lines")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "print the whole digest")
	return cmd
}

// show prints every event up to the end or the first fault.
func show(w, warnings io.Writer, l *log, print func(io.Writer, *rtmr.Measurement) error) error {
	out := bufio.NewWriter(w)
	err := func() error {
		for m, err := range l.Measurements() {
			if err != nil {
				return l.fault(err)
			}
			if err := print(out, &m); err != nil {
				return err
			}
		}
		return nil
	}()
	err = errors.Join(err, out.Flush())
	warn(warnings, l)
	return err
}

// warn prints a log's warnings, which are complete when it has been read.
func warn(w io.Writer, l *log) {
	for _, text := range l.Warnings() {
		fmt.Fprintf(w, "tally: %s: %s\n", l.path, text)
	}
}

// eventPrinter prints events for people.
type eventPrinter struct {
	banks []rtmr.Alg // the digest shown is in the first of them that the event has
	long  bool
}

func (p *eventPrinter) print(w io.Writer, m *rtmr.Measurement) error {
	mark := ""
	if check(m) == rtmr.Contradicts {
		mark = contradicts + " " // before the detail, which may say anything
	}
	_, err := fmt.Fprintf(w, "%5d %-6s %-34s %-12s %s%s\n", m.Index, shownRegister(m), m.Entry.Type(), p.digest(m), mark, m.Entry.Detail())
	return err
}

func shownRegister(m *rtmr.Measurement) string {
	if m.NoAction {
		return "-"
	}
	return m.Register.String()
}

func (p *eventPrinter) digest(m *rtmr.Measurement) string {
	if m.NoAction || len(m.Digests) == 0 {
		return "-"
	}
	shown := m.Digests[len(m.Digests)-1]
	for _, alg := range slices.Backward(p.banks) {
		if i := slices.IndexFunc(m.Digests, func(d rtmr.Digest) bool { return d.Alg == alg }); i >= 0 {
			shown = m.Digests[i]
		}
	}
	const short = 12
	digits := rtmr.Hex(shown.Sum).String()
	if !p.long && len(digits) > short {
		digits = digits[:short]
	}
	return digits
}

// check tells whether the data explain the digests: Contradicts if they
// contradict one of them.
func check(m *rtmr.Measurement) (c rtmr.Check) {
	if m.NoAction {
		return rtmr.CannotCheck
	}
	for _, d := range m.Digests {
		one, _ := m.Entry.Verify(d)
		c = max(c, one)
	}
	return c
}

// shownEvent is one line of show --json.
type shownEvent struct {
	Index    int                   `json:"index"`
	Offset   int64                 `json:"offset"`
	Register string                `json:"register,omitempty"` // absent where nothing was extended
	Type     string                `json:"type"`
	Digests  map[rtmr.Alg]rtmr.Hex `json:"digests"`
	Detail   string                `json:"detail"`
	Data     rtmr.Hex              `json:"data"`
	Check    rtmr.Check            `json:"check"`
}

func printEventJSON(w io.Writer, m *rtmr.Measurement) error {
	e := shownEvent{Index: m.Index, Offset: m.Offset, Type: m.Entry.Type(), Detail: m.Entry.Detail(),
		Data: m.Entry.Data(), Digests: map[rtmr.Alg]rtmr.Hex{}, Check: check(m)}
	if !m.NoAction {
		e.Register = m.Register.String()
	}
	for _, d := range m.Digests {
		e.Digests[d.Alg] = d.Sum
	}
	return json.NewEncoder(w).Encode(e)
}
