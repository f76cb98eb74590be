package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"tallystick/fixtures"
	"tallystick/replay"
	"tallystick/rtmr"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Replay a real machine's logs beside the PCRs its TPM held, then a forged copy",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return demo(cmd.OutOrStdout()) },
	}
}

func demo(w io.Writer) error {
	var files [3][]byte
	for i, name := range []string{"boot.bin", "ima.bin", "values.json"} {
		b, err := fixtures.Demo.ReadFile(fixtures.DemoDir + "/" + name)
		if err != nil {
			return err
		}
		files[i] = b
	}
	boot, list := files[0], files[1]
	var held rtmr.Values
	if err := json.Unmarshal(files[2], &held); err != nil {
		return err
	}
	fmt.Fprintf(w, "A machine that booted through Secure Boot, shim and GRUB into Linux with IMA\n(fixtures/%s). Its boot log and its IMA list, folded:\n\n", fixtures.DemoDir)
	if err := demoFold(w, boot, list, held); err != nil {
		return err
	}
	forged := bytes.Replace(list, []byte("/usr/bin/"), []byte("/usr/bim/"), 1)
	fmt.Fprint(w, "\nThe same with one byte of a file name in the IMA list flipped:\n\n")
	return demoFold(w, boot, forged, held)
}

// demoFold folds both logs in the SHA-256 bank and sets each register beside
// what the TPM held.
func demoFold(w io.Writer, boot, list []byte, held rtmr.Values) error {
	in := inputFlags{banks: []string{"sha256"}}
	fold := replay.New(replay.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
	for _, b := range [][]byte{boot, list} {
		l, err := in.read("demo", io.NopCloser(bytes.NewReader(b)))
		if err != nil {
			return err
		}
		if _, err := fold.Log(l.source.Measurements()); err != nil {
			return err
		}
	}
	for _, v := range fold.Registers() {
		said := "equals the TPM's"
		if want := held[v.Alg][v.Register]; !slices.Equal(want, v.Value) {
			said = "DIFFERS: the TPM held " + want.String()
		}
		fmt.Fprintf(w, "%-6s %s  %3d events  %s\n", v.Register, v.Value, v.Events, said)
	}
	printFindings(w, fold.Findings())
	return nil
}
