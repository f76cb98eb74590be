package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"tallystick/fixtures"
	"tallystick/ima"
	"tallystick/replay"
	"tallystick/rtmr"
)

func newDemo() *cobra.Command {
	var tallyd string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A real machine's logs, replayed, extended by tallyd, reconciled and forged",
		Long: `Demo folds the logs of a real machine beside the PCRs that its TPM held, and a
forged copy of them. Then, where tallyd is, it runs that on the same logs, with
registers in this kernel that are the demo's alone or, where these take more rights
than it has, in memory; kills it; takes evidence; reconciles that; and
forges it. All of it is in a temporary folder, and gone at the end.

Exit status: 0 if everything came out as it says.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			capture, err := openCapture()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if err := capture.demoOffline(out); err != nil {
				return err
			}
			path, err := findTallyd(tallyd)
			if err != nil {
				return err
			}
			return capture.demoGuest(cmd.Context(), out, path)
		},
	}
	cmd.Flags().StringVar(&tallyd, "tallyd", "", "tallyd's path; by default beside this program, or in PATH")
	return cmd
}

// findTallyd returns the path of tallyd; "" if there is none and none was named.
func findTallyd(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "tallyd")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	found, err := exec.LookPath("tallyd")
	if err != nil {
		return "", nil
	}
	return filepath.Abs(found)
}

// capture is the machine that the demo is about: its logs, and what its TPM held.
type capture struct {
	boot, list []byte
	held       rtmr.Values
}

func openCapture() (*capture, error) {
	var files [3][]byte
	for i, name := range []string{"boot.bin", "ima.bin", "values.json"} {
		b, err := fixtures.Demo.ReadFile(fixtures.DemoDir + "/" + name)
		if err != nil {
			return nil, err
		}
		files[i] = b
	}
	c := &capture{boot: files[0], list: files[1]}
	return c, json.Unmarshal(files[2], &c.held)
}

// errDemo begins what the demo says when something did not come out as it says.
var errDemo = errors.New("not as it should be")

// demoOffline folds the logs, and a forged copy of them.
func (c *capture) demoOffline(w io.Writer) error {
	fmt.Fprintf(w, "A machine that booted through Secure Boot, shim and GRUB into Linux with IMA\n(fixtures/%s). Its boot log and its IMA list, folded:\n\n", fixtures.DemoDir)
	differ, err := c.fold(w, c.list, true)
	if err != nil {
		return err
	}
	if len(differ) > 0 {
		return fmt.Errorf("%w: the true logs do not fold to the TPM's values: %v", errDemo, differ)
	}
	forged := bytes.Replace(c.list, []byte("/bin/busybox"), []byte("/bim/busybox"), 1)
	fmt.Fprint(w, "\nThe same with one byte of a file name in the IMA list flipped; of the registers,\nthose that differ:\n\n")
	if differ, err = c.fold(w, forged, false); err != nil {
		return err
	}
	if pcr10 := rtmr.MustParse("pcr10"); !slices.Equal(differ, []rtmr.Register{pcr10}) {
		return fmt.Errorf("%w: the forged list makes %v differ, expected %s alone", errDemo, differ, pcr10)
	}
	return nil
}

// fold folds both logs in the SHA-256 bank and sets each register beside what the
// TPM held, all of them or those that differ, which it returns.
func (c *capture) fold(w io.Writer, list []byte, all bool) (differ []rtmr.Register, err error) {
	in := inputFlags{banks: []string{"sha256"}}
	fold := replay.New(replay.Options{Banks: []rtmr.Alg{rtmr.SHA256}})
	report := &replayReport{}
	for _, b := range []struct {
		name string
		data []byte
	}{{"boot.bin", c.boot}, {"ima.bin", list}} {
		l, err := in.read(b.name, io.NopCloser(bytes.NewReader(b.data)), ima.Signs{})
		if err != nil {
			return nil, err
		}
		if _, err := fold.Log(l.Measurements()); err != nil {
			return nil, l.fault(err)
		}
		report.Logs = append(report.Logs, logReport{Path: b.name})
	}
	for _, v := range fold.Registers() {
		same := slices.Equal(c.held[rtmr.SHA256][v.Register], v.Value)
		if !same {
			differ = append(differ, v.Register)
		}
		if all || !same {
			c.beside(w, v.Register, v.Value, fmt.Sprintf("  %10s", events(v.Events)))
		}
	}
	report.Findings = fold.Findings()
	printFindings(w, report)
	return differ, nil
}

// beside prints a register's value in the SHA-256 bank, and whether it is the TPM's.
func (c *capture) beside(w io.Writer, r rtmr.Register, value rtmr.Hex, more string) {
	said := good("equals the TPM's")
	if want := c.held[rtmr.SHA256][r]; !slices.Equal(want, value) {
		said = bad("DIFFERS: the TPM held " + want.String())
	}
	fmt.Fprintf(w, "%-6s %s%s  %s\n", r, value, more, said)
}
