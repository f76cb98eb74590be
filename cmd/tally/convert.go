package main

import (
	"bufio"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"tallystick/eventlog/cel"
)

// convertFormats are what convert writes; jsonl is CEL-JSON, a record a line.
var convertFormats = map[string]cel.Format{
	"cel-tlv": cel.TLV, "cel-json": cel.JSON, "cel-cbor": cel.CBOR, "jsonl": cel.JSONLines,
}

func newConvert() *cobra.Command {
	in := inputFlags{prints: true}
	var to string
	cmd := &cobra.Command{
		Use:   "convert --to FORMAT LOG",
		Short: "Write a log as a canonical event log, which replays to the same registers",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, ok := convertFormats[to]
			if !ok {
				return fmt.Errorf("--to %q, expected cel-tlv, cel-json, cel-cbor or jsonl", to)
			}
			l, err := in.openAlone(args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			defer warn(cmd.ErrOrStderr(), l)
			return convert(cmd.OutOrStdout(), l, format)
		},
	}
	in.register(cmd)
	cmd.Flags().StringVar(&to, "to", "", "cel-tlv, cel-json, cel-cbor or jsonl")
	complete(cmd, "to", "cel-tlv", "cel-json", "cel-cbor", "jsonl")
	return cmd
}

// convert writes every entry up to the end or the first fault; the output is
// closed properly in both cases.
func convert(w io.Writer, l *log, format cel.Format) (err error) {
	out := bufio.NewWriter(w)
	cw := cel.NewWriter(out, format)
	defer func() {
		if cerr := cw.Close(); err == nil {
			err = cerr
		}
		if ferr := out.Flush(); err == nil {
			err = ferr
		}
	}()
	for m, err := range l.Measurements() {
		if err != nil {
			return l.fault(err)
		}
		if err := cw.Write(m); err != nil {
			return l.fault(err)
		}
	}
	return nil
}
