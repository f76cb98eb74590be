package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tallystick/replay"
)

// replayReport is what replay --json prints (DESIGN.md, the JSON contract).
type replayReport struct {
	Logs      []logReport      `json:"logs"`
	Registers []replay.Value   `json:"registers"`
	Findings  []replay.Finding `json:"findings,omitempty"`
	Error     string           `json:"error,omitempty"`
}

type logReport struct {
	Path     string   `json:"path"`
	Format   string   `json:"format"`
	Events   int      `json:"events"`
	Warnings []string `json:"warnings"`
}

func newReplay() *cobra.Command {
	var in inputFlags
	var asJSON bool
	var into string
	cmd := &cobra.Command{
		Use:   "replay LOG...",
		Short: "Fold logs, in order of layers, into register values",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := replay.Options{IntoRTMR: into == "rtmr"}
			if into != "" && into != "rtmr" {
				return fmt.Errorf("--into %q, expected rtmr", into)
			}
			var err error
			if opts.Banks, err = in.algs(); err != nil {
				return err
			}
			fold := replay.New(opts)
			report, err := foldLogs(fold, &in, args)
			print := printReplay
			if asJSON {
				print = printReplayJSON
			}
			if perr := print(cmd.OutOrStdout(), report); perr != nil {
				return perr
			}
			if err == nil && len(report.Findings) > 0 {
				return errContradiction
			}
			return err
		},
	}
	in.register(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&into, "into", "", "rtmr: fold PCR-indexed logs into RTMRs by the UEFI rule")
	return cmd
}

// foldLogs folds the logs up to the first fault, and reports what it has.
func foldLogs(fold *replay.Fold, in *inputFlags, paths []string) (*replayReport, error) {
	report := &replayReport{Logs: []logReport{}}
	err := func() error {
		for _, path := range paths {
			l, err := in.open(path)
			if err != nil {
				return err
			}
			n, err := fold.Log(l.source.Measurements())
			l.Close()
			report.Logs = append(report.Logs, logReport{l.path, l.format, n, append([]string{}, l.source.Warnings()...)})
			if err != nil {
				return fmt.Errorf("%s: %w", l.path, err)
			}
		}
		return nil
	}()
	if n := len(report.Logs); n > 0 {
		report.Logs[n-1].Warnings = append(report.Logs[n-1].Warnings, fold.Warnings()...)
	}
	report.Registers, report.Findings = fold.Registers(), fold.Findings()
	if err != nil {
		report.Error = err.Error()
	}
	return report, err
}

func printReplayJSON(w io.Writer, report *replayReport) error {
	return json.NewEncoder(w).Encode(report)
}

func printReplay(w io.Writer, report *replayReport) error {
	for _, l := range report.Logs {
		fmt.Fprintf(w, "%s: %s, %d events\n", l.Path, l.Format, l.Events)
		for _, text := range l.Warnings {
			fmt.Fprintf(w, "  warning: %s\n", text)
		}
	}
	for _, v := range report.Registers {
		fmt.Fprintf(w, "%-6s %-8s %s  %d events\n", v.Register, v.Alg, v.Value, v.Events)
	}
	printFindings(w, report.Findings)
	return nil
}

func printFindings(w io.Writer, findings []replay.Finding) {
	for _, f := range findings {
		said := "the data do not hash to the recorded digest"
		if f.Kind == "boot_aggregate" {
			said = "not the hash over the boot log's PCR 0-9 or 0-7"
		}
		fmt.Fprintf(w, "entry %d, offset %d, %s %s %s: %s\n  recorded %s:%s\n  computed %s:%s\n",
			f.Entry, f.Offset, f.Register, f.Type, f.Detail, said, f.Alg, f.Recorded, f.Alg, f.Computed)
	}
}
