package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"tallystick/fixtures"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Replay a real machine's logs beside the PCRs its TPM held, then a forged copy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := bufio.NewWriter(cmd.OutOrStdout())
			return errors.Join(demo(out), out.Flush())
		},
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
	forged := bytes.Replace(list, []byte("/bin/busybox"), []byte("/bim/busybox"), 1)
	fmt.Fprint(w, "\nThe same with one byte of a file name in the IMA list flipped:\n\n")
	return demoFold(w, boot, forged, held)
}

// demoFold folds both logs in the SHA-256 bank and sets each register beside
// what the TPM held.
func demoFold(w io.Writer, boot, list []byte, held rtmr.Values) error {
	in := inputFlags{banks: []string{"sha256"}}
	fold := replay.New(replay.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
	report := &replayReport{}
	for _, b := range []struct {
		name string
		data []byte
	}{{"boot.bin", boot}, {"ima.bin", list}} {
		l, err := in.read(b.name, io.NopCloser(bytes.NewReader(b.data)), ima.Signs{})
		if err != nil {
			return err
		}
		if _, err := fold.Log(l.Measurements()); err != nil {
			return l.fault(err)
		}
		report.Logs = append(report.Logs, logReport{Path: b.name})
	}
	for _, v := range fold.Registers() {
		said := good("equals the TPM's")
		if want := held[v.Alg][v.Register]; !slices.Equal(want, v.Value) {
			said = bad("DIFFERS: the TPM held " + want.String())
		}
		fmt.Fprintf(w, "%-6s %s  %10s  %s\n", v.Register, v.Value, events(v.Events), said)
	}
	report.Findings = fold.Findings()
	printFindings(w, report)
	return nil
}
