package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"tallystick/quote/launch"
	"tallystick/rtmr"
)

const measureHelp = `Recompute what hardware measures when it launches a guest, from the files that
the guest is launched with. Nothing of the guest is needed, and nothing of the
machine that it ran on.

Prints JSON that --expect and --values take, {"sha384":{"launch":"hex"}}; with
--parts what was measured, in its order, so that one can see which part moved.

Exit status: 0 measured; 2 input or usage.`

func newMeasure() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "measure",
		Short: "Recompute a launch measurement from a guest's firmware, kernel and processors",
		Long:  measureHelp,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newMeasureSNP(),
		newMeasureSEV(),
		newMeasureS390(),
		newMeasureTDX(),
	)
	return cmd
}

// checkGivenBut is checkGiven, for a command with a flag that may be empty.
func checkGivenBut(cmd *cobra.Command, empty string) (err error) {
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if flag.Value.String() == "" && flag.Name != empty && err == nil {
			err = fmt.Errorf("--%s is empty", flag.Name)
		}
	})
	return err
}

// measureOutput prints a measurement: as values, or part by part.
type measureOutput struct{ parts bool }

func (o *measureOutput) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.parts, "parts", false, "print what was measured, in its order, in place of JSON")
}

// print prints the values. The parts are a header and rows that have as many
// columns, and notes come behind them.
func (o *measureOutput) print(w io.Writer, values rtmr.Values, header []string, rows [][]string, notes ...string) error {
	if !o.parts {
		return json.NewEncoder(w).Encode(values)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		fmt.Fprintln(table, strings.Join(row, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, note := range notes {
		if _, err := fmt.Fprintln(w, note); err != nil {
			return err
		}
	}
	return printValues(w, values)
}

// printValues prints a line for each register, as tally replay does.
func printValues(w io.Writer, values rtmr.Values) error {
	for _, alg := range slices.Sorted(maps.Keys(values)) {
		bank := values[alg]
		for _, r := range slices.SortedFunc(maps.Keys(bank), rtmr.Register.Compare) {
			if _, err := fmt.Fprintf(w, "%-6s %-8s %s\n", r, alg, bank[r]); err != nil {
				return err
			}
		}
	}
	return nil
}

// namePart names the file that an error of a measurement is about.
func namePart(err error, paths map[string]string) error {
	if part := (*launch.PartError)(nil); errors.As(err, &part) && paths[part.Part] != "" {
		return fmt.Errorf("%s: %w", paths[part.Part], part.Err)
	}
	return err
}

// maxImage bounds a file that a guest is launched with and that is read whole.
// Firmware has 2 to 16 MiB.
const maxImage = 256 << 20

// readImage reads a firmware image, or another file that is measured whole.
func readImage(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxImage+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxImage:
		return nil, fmt.Errorf("%s: longer than %d bytes, which no firmware is", path, maxImage)
	case len(data) == 0:
		return nil, fmt.Errorf("%s: the file is empty", path)
	}
	return data, nil
}
