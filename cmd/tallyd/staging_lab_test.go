//go:build linux && source

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/guest"
	"tallystick/lab"
)

// A kernel whose list can be trimmed (Linux 7.2, CONFIG_IMA_STAGING), built from
// source: not for each run of the tests, but for go test -tags source.
//
// Two services follow its list: one extends a device of its own, the other has a TPM
// that the kernel extends. The list is trimmed in all ways, while they run and while
// they do not, and both have all of it in their evidence. None of them keeps whoever
// trims it from that.
func TestStaging(t *testing.T) {
	const nonce = "00112233445566778899aabbccddeeff"
	s := &machine{t: t, Guest: lab.Machine{
		Kernel: "7.3-lab", Policy: "dont_measure fsmagic=0x01021994\ndont_measure fsmagic=0x858458f6\nmeasure func=BPRM_CHECK mask=MAY_EXEC\n",
		Files: map[string][]byte{"/lab/bin/tallyd": lab.Build(t, "./cmd/tallyd")},
	}.Start(t)}
	var processes []*lab.Process
	start := func(device string) {
		p := s.Spawn(lab.Command{Args: []string{"tallyd", "run", "--device", device, "--state", "/run/" + device, "--poll", "100ms"}})
		processes = append(processes, p)
		s.until(device+" answers", func() bool {
			return s.Exec(lab.Command{Args: []string{"tallyd", "status", "--socket", "/run/" + device + "/tallyd.sock"}}).Status == 0
		})
	}
	n := 0
	measure := func(programs int) {
		s.Shell(fmt.Sprintf("for i in $(seq %d %d); do printf '#!/bin/sh\\n# %%s\\n' $i > /opt/p$i; chmod +x /opt/p$i; /opt/p$i; done", n, n+programs-1))
		n += programs
	}
	s.Shell("mkdir -p /opt")
	followed := func() int {
		var status guest.Status
		if err := json.Unmarshal([]byte(s.Run("tallyd", "status", "--socket", "/run/memory/tallyd.sock", "--json")), &status); err != nil {
			t.Fatal(err)
		}
		return status.IMA
	}
	base := 0
	all := func() {
		s.until("all is followed", func() bool { return followed() >= base+n })
	}
	write := func(name, what string) {
		s.until("write "+what, func() bool { return s.Write(lab.IMADir+name, []byte(what+"\n")) == nil })
	}
	const list, staged = "binary_runtime_measurements", "binary_runtime_measurements_staged"

	start("memory")
	start("tpm")
	s.until("the first are followed", func() bool { base = followed(); return base > 0 })
	measure(20)
	all()
	write(staged, "A") // while both run, and are idle
	measure(5)
	write(staged, "D")
	measure(5)
	all()
	write(list, "7")
	measure(5)
	all()
	write(staged, "A")
	measure(5)
	for _, p := range processes { // and while they do not
		p.Signal(9)
		p.Wait()
	}
	measure(5)
	start("memory")
	start("tpm")
	measure(5)
	all()
	write(staged, "D")
	measure(5)
	all()

	dir := t.TempDir()
	tally := filepath.Join(dir, "tally")
	if err := os.WriteFile(tally, lab.Build(t, "./cmd/tally"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"memory", "tpm"} {
		s.Run("tallyd", "evidence", "--socket", "/run/"+device+"/tallyd.sock", "--nonce", nonce, "-o", "/run/"+device+".cbor")
		bundle, parts := filepath.Join(dir, device), filepath.Join(dir, device+".d")
		if err := os.WriteFile(bundle, s.Get("/run/"+device+".cbor"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(tally, "unpack", bundle, parts).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		args := []string{"reconcile", "--nonce", nonce, bundle}
		if device == "tpm" {
			args = []string{"reconcile", "--nonce", nonce, "--key", filepath.Join(parts, "tpm-public.bin"), bundle}
		}
		out, err := exec.Command(tally, args...).CombinedOutput()
		t.Logf("%s: %v\n%s", device, err, out)
		if device == "tpm" && (err != nil || !strings.HasPrefix(string(out), "RECONCILED: ")) {
			t.Error("not reconciled")
		}
		out, err = exec.Command(tally, "show", filepath.Join(parts, "cel-journal.bin")).CombinedOutput()
		if err != nil || device == "memory" && strings.Count(string(out), "/opt/p") != n {
			t.Errorf("%v: %d of %d programs in the journal", err, strings.Count(string(out), "/opt/p"), n)
		}
		out, err = exec.Command(tally, "replay", filepath.Join(parts, "ima-list.bin")).CombinedOutput()
		t.Logf("%v\n%s", err, out)
	}
	for _, p := range processes[2:] {
		p.Signal(15)
		if r, err := p.Wait(); err != nil || r.Status != 0 {
			t.Errorf("%v, status %d\n%s", err, r.Status, r.Stderr)
		} else {
			t.Logf("%s", r.Stderr)
		}
	}
	s.Stop()
}
