//go:build linux

package main_test

import (
	"bytes"
	"strings"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/lab"
	"tallystick/rtmr"
)

// The machine loses its power between a journal's write and the extend. After it has
// started again its registers are reset: a journal in /run is gone, and one on a disk
// is another boot's. Nothing of it is extended, and everything is measured anew.
func TestLabPowerCut(t *testing.T) {
	g := boot(t, lab.Machine{Kernel: "7.3", TSM: true, Firmware: lab.SeaBIOS, TPM: lab.NoTPM}, "", "faults")
	tdx := service{device: "tdx", state: "/var/tallystick"}
	bpf := g.start(service{device: "bpf"})
	first := g.start(tdx)
	g.measure(5)
	first.caughtUp()
	bpf.caughtUp()
	first.kill()

	cut := tdx
	cut.machine = g
	cut.env = []string{"TALLYSTICK_FAULT=extend.before:3", "TALLYSTICK_FAULT_HOW=stop", "TALLYSTICK_FAULT_LOG=/run/hit"}
	cut.spawn()
	g.until("it is up", func() bool { return g.ok("test", "-S", cut.state+"/tallyd.sock") })
	g.measure(5)
	g.until("it stops before an extend", func() bool { return g.ok("grep", "-q", "extend.before", "/run/hit") })
	journal := g.Get(cut.state + "/journal.cel")
	register := g.Get(lab.TSMDir + "rtmr2:sha384")
	if behind, ok := behindOf(t, journal)[string(register)]; !ok || behind == 0 {
		t.Errorf("the journal leads the register by %d measurements, %t", behind, ok)
	}
	g.Run("sync") // or the disk would have less of the journal, or none
	g.Reset()

	if held := g.Get(lab.TSMDir + "rtmr2:sha384"); len(bytes.Trim(held, "\x00")) > 0 {
		t.Errorf("rtmr2 is %x after the power came back", held)
	}
	if g.ok("test", "-e", bpf.state) || !bytes.Equal(g.Get(cut.state+"/journal.cel"), journal) {
		t.Error("/run is there, or the disk's journal is not")
	}
	for _, s := range []*service{g.start(tdx), g.start(service{device: "bpf"})} {
		g.measure(3)
		s.sound()
		recovery := s.status().Recovery
		t.Logf("%s: %+v", s.device, recovery)
		if told := recovery.Other != "" && recovery.Reason != ""; told != (s.device == "tdx") {
			t.Errorf("%s: %+v, and only the disk had another boot's journal", s.device, recovery)
		}
		s.kill()
		s.run()
		s.sound()
		s.stop()
	}
	aside := strings.Fields(g.Shell("ls " + cut.state + "/journal.cel.*"))
	if len(aside) != 1 || !bytes.Equal(g.Get(aside[0]), journal) {
		t.Errorf("the other boot's journal is not kept: %v", aside)
	}
	g.Stop()
}

// behindOf folds a journal into RTMR2 from its reset value, and returns for the value
// of each prefix how many measurements are behind it.
func behindOf(t *testing.T, journal []byte) map[string]int {
	t.Helper()
	value := make([]byte, rtmr.SHA384.Size())
	values := []string{string(value)}
	for m, err := range cel.NewReader(bytes.NewReader(journal), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Register == rtmr.MustParse("rtmr2") && !m.NoAction {
			rtmr.SHA384.Extend(value, m.Digests[0].Sum)
			values = append(values, string(value))
		}
	}
	behind := make(map[string]int)
	for i, v := range values {
		behind[v] = len(values) - 1 - i
	}
	return behind
}
