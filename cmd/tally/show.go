package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tallystick/rtmr"
)

func newShow() *cobra.Command {
	var in inputFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show LOG",
		Short: "Print a log's events, one a line",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := in.open(args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			return show(cmd.OutOrStdout(), cmd.ErrOrStderr(), l, asJSON)
		},
	}
	in.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON Lines")
	return cmd
}

// show prints every event up to the end or the first fault.
func show(w, warnings io.Writer, l *log, asJSON bool) error {
	out := bufio.NewWriter(w)
	for m, err := range l.source.Measurements() {
		if err != nil {
			out.Flush()
			return fmt.Errorf("%s: %w", l.path, err)
		}
		if asJSON {
			err = json.NewEncoder(out).Encode(newShownEvent(&m))
		} else {
			_, err = fmt.Fprintf(out, "%5d %-6s %-34s %-12.12s %s\n", m.Index, shownRegister(&m), m.Entry.Type(), shownDigest(&m), m.Entry.Detail())
		}
		if err != nil {
			return err
		}
	}
	for _, text := range l.source.Warnings() {
		fmt.Fprintf(warnings, "tally: %s: %s\n", l.path, text)
	}
	return out.Flush()
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

func newShownEvent(m *rtmr.Measurement) shownEvent {
	e := shownEvent{Index: m.Index, Offset: m.Offset, Type: m.Entry.Type(), Detail: m.Entry.Detail(),
		Data: m.Entry.Data(), Digests: map[rtmr.Alg]rtmr.Hex{}}
	if !m.NoAction {
		e.Register = m.Register.String()
	}
	for _, d := range m.Digests {
		e.Digests[d.Alg] = d.Sum
		if c, _ := m.Entry.Verify(d); c > e.Check && !m.NoAction {
			e.Check = c
		}
	}
	return e
}
