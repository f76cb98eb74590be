package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os/exec"

	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/rtmr"
)

// memory folds a list of more than 1 GB from a pipe and tells the command's
// peak resident memory.
func (b *bench) memory() (section, error) {
	const bound = 64 // MB
	s := section{title: "Memory for 1 GB of an IMA list from a pipe"}
	list, w := io.Pipe()
	counted := &counter{w: w}
	go func() {
		w.CloseWithError(imagen.Write(counted, ima.Layout{Alg: rtmr.SHA256, Order: binary.LittleEndian}, b.pipeList))
	}()
	cmd := exec.Command(b.tally, "replay", "-")
	cmd.Stdin = list
	out, err := cmd.Output()
	if err != nil {
		return s, err
	}
	if want := fmt.Sprintf("%d events", b.pipeList); !bytes.Contains(out, []byte(want)) {
		return s, fmt.Errorf("expected %s in %s", want, out)
	}
	s.text = fmt.Sprintf("`tally replay -` on a list of %d entries, %.2f GB, in the banks SHA-1, SHA-256 and\nSHA-384. The result is the process's peak resident memory as its parent is told\n(`wait4`, `ru_maxrss`).", b.pipeList, float64(counted.n)/1e9)
	mb, ok := peakMB(cmd.ProcessState)
	if !ok {
		s.skipped = append(s.skipped, "this system does not tell a process's peak memory in a way known here")
		return s, nil
	}
	s.rows = []row{{"peak resident memory", fmt.Sprintf("%d MB", mb), fmt.Sprintf("at most %d MB", bound), mb <= bound}}
	return s, nil
}

// counter counts what goes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
