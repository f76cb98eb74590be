package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tallystick/ima"
	"tallystick/rtmr"
)

func newShow() *cobra.Command {
	in := inputFlags{prints: true}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show LOG",
		Short: "Print a log's events, one a line",
		Long: `Show prints a log's events, one a line: index, register, type, the beginning of
the digest in the last bank, and the data in readable form. An event that its
own data contradict is marked.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := in.check(); err != nil {
				return err
			}
			l, err := in.open(args[0], ima.Signs{Kernel: in.kernel})
			if err != nil {
				return err
			}
			defer l.Close()
			return show(cmd.OutOrStdout(), cmd.ErrOrStderr(), l, asJSON)
		},
	}
	in.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON Lines")
	return cmd
}

// show prints every event up to the end or the first fault.
func show(w, warnings io.Writer, l *log, asJSON bool) error {
	out := bufio.NewWriter(w)
	print := printEvent
	if asJSON {
		print = printEventJSON
	}
	for m, err := range l.Measurements() {
		if err != nil {
			out.Flush()
			return l.fault(err)
		}
		if err := print(out, &m); err != nil {
			return err
		}
	}
	for _, text := range l.Warnings() {
		fmt.Fprintf(warnings, "tally: %s: %s\n", l.path, text)
	}
	return out.Flush()
}

func printEvent(w io.Writer, m *rtmr.Measurement) error {
	mark := ""
	if check(m) == rtmr.Contradicts {
		mark = bad(" (the data do not hash to the recorded digest)")
	}
	_, err := fmt.Fprintf(w, "%5d %-6s %-34s %-12.12s %s%s\n", m.Index, shownRegister(m), m.Entry.Type(), shownDigest(m), m.Entry.Detail(), mark)
	return err
}

func shownRegister(m *rtmr.Measurement) string {
	if m.NoAction {
		return "-"
	}
	return m.Register.String()
}

func shownDigest(m *rtmr.Measurement) string {
	if m.NoAction || len(m.Digests) == 0 {
		return "-"
	}
	return rtmr.Hex(m.Digests[len(m.Digests)-1].Sum).String()
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
