//go:build linux

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/lab"
	"tallystick/replay"
	"tallystick/rtmr"
)

// The service on real kernels, with each device: it measures what they measure, it
// is killed at random moments, and its journal folds to the registers.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		name, device string
		lab.Machine
		args []string // of tally reconcile: no hardware stands for these registers
	}{
		{"tdx-7.3", "tdx", lab.Machine{Kernel: "7.3", TSM: true}, []string{"--insecure-skip-signature"}},
		{"bpf-6.1", "bpf", lab.Machine{Kernel: "6.1"}, []string{"--accept-self-asserted"}},
		{"bpf-6.12", "bpf", lab.Machine{Kernel: "6.12"}, []string{"--accept-self-asserted"}},
		{"tpm-7.3", "tpm", lab.Machine{Kernel: "7.3", Modules: []string{"tpm_vtpm_proxy"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.Machine.Firmware, c.Machine.TPM, c.Machine.Append = lab.SeaBIOS, lab.NoTPM, lab.TCB
			c.Machine.Files = map[string][]byte{"/lab/bin/tallyd": lab.Build(t, "./cmd/tallyd")}
			if c.device == "tpm" {
				maps.Copy(c.Machine.Files, lab.HostProgram(t, "swtpm"))
			}
			s := &service{t: t, Guest: c.Machine.Start(t), device: c.device}
			if c.device == "tpm" {
				s.lateTPM()
			}
			s.start()
			s.measure(20)
			s.caughtUp()
			s.check()
			if c.device == "tdx" {
				s.others()
			}
			for range 8 {
				s.measure(5)
				time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
				s.kill()
				s.start()
			}
			s.measure(5)
			s.caughtUp()
			s.check()
			s.reconcile(c.args...)
			s.stop()
			s.Stop()
		})
	}
}

// service is a guest in which tallyd runs.
type service struct {
	t *testing.T
	*lab.Guest
	device  string
	process *lab.Process
	n       int // programs that were run
}

func (s *service) start() {
	s.process = s.Spawn(lab.Command{Args: []string{"tallyd", "run", "--device", s.device}})
	s.until("it answers", func() bool { return s.Exec(lab.Command{Args: []string{"tallyd", "status"}}).Status == 0 })
}

// until waits for a condition.
func (s *service) until(what string, true func() bool) {
	s.t.Helper()
	for began := time.Now(); !true(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			s.t.Fatalf("%s: not in a minute", what)
		}
	}
}

func (s *service) end(sig syscall.Signal) lab.Result {
	s.t.Helper()
	s.process.Signal(sig)
	r, err := s.process.Wait()
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *service) kill() {
	s.t.Helper()
	if r := s.end(syscall.SIGKILL); r.Status != -1 {
		s.t.Fatalf("status %d\n%s", r.Status, r.Stderr)
	}
}

func (s *service) stop() {
	s.t.Helper()
	if r := s.end(syscall.SIGTERM); r.Status != 0 {
		s.t.Errorf("status %d\n%s", r.Status, r.Stderr)
	}
}

// measure has the kernel measure n programs that it did not know.
func (s *service) measure(n int) {
	s.t.Helper()
	s.Shell(fmt.Sprintf("for i in $(seq %d %d); do printf '#!/bin/sh\\n# %%s\\n' $i > /tmp/p$i; chmod +x /tmp/p$i; /tmp/p$i; done", s.n, s.n+n-1))
	s.n += n
}

// reconcile has the service make evidence for a nonce, and a tally on this machine
// reconcile it; and refuse it for another nonce.
func (s *service) reconcile(args ...string) {
	s.t.Helper()
	const nonce = "00112233445566778899aabbccddeeff"
	s.Run("tallyd", "evidence", "--nonce", nonce, "-o", "/tmp/evidence")
	dir := s.t.TempDir()
	tally, bundle := filepath.Join(dir, "tally"), filepath.Join(dir, "evidence.cbor")
	for file, content := range map[string][]byte{tally: lab.Build(s.t, "./cmd/tally"), bundle: s.Get("/tmp/evidence")} {
		if err := os.WriteFile(file, content, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.device == "tpm" { // whose key this verifier believes, as one that it enrolled
		parts := filepath.Join(dir, "parts")
		if out, err := exec.Command(tally, "unpack", bundle, parts).CombinedOutput(); err != nil {
			s.t.Fatalf("tally unpack: %v\n%s", err, out)
		}
		args = []string{"--key", filepath.Join(parts, "tpm-public.bin")}
	}
	out, err := exec.Command(tally, append(append([]string{"reconcile"}, args...), "--nonce", nonce, bundle)...).CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte("RECONCILED: ")) {
		s.t.Errorf("tally reconcile: %v\n%s", err, out)
	}
	var exit *exec.ExitError
	out, err = exec.Command(tally, append(append([]string{"reconcile"}, args...), "--nonce", nonce+"00ff", bundle)...).CombinedOutput()
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || !bytes.HasPrefix(out, []byte("UNTRUSTED: ")) {
		s.t.Errorf("another nonce: %v\n%s", err, out)
	}
}

// lateTPM has the guest have a TPM that its kernel's IMA takes no notice of.
func (s *service) lateTPM() {
	s.Run("mkdir", "/tmp/tpm")
	s.Spawn(lab.Command{Args: []string{"swtpm", "chardev", "--vtpm-proxy", "--tpm2", "--tpmstate", "dir=/tmp/tpm",
		"--locality", "allow-set-locality", "--flags", "not-need-init"}})
	s.until("a TPM", func() bool { return s.Exec(lab.Command{Args: []string{"test", "-e", "/dev/tpmrm0"}}).Status == 0 })
}

// others extends the register past the helper, which the tap tells it of.
func (s *service) others() {
	s.t.Helper()
	for i := range 3 {
		s.Put(lab.TSMDir+"rtmr2:sha384", bytes.Repeat([]byte{byte(i)}, 48))
		s.measure(2)
	}
	s.caughtUp()
	s.check()
	others := 0
	s.journal(func(m rtmr.Measurement) {
		if m.Entry.Type() == guest.OtherType && strings.Contains(string(m.Entry.Data()), `"pid":1,`) {
			others++
		}
	})
	if others != 3 {
		s.t.Errorf("%d extends by others in the journal, want 3", others)
	}
}

// journal reads the journal.
func (s *service) journal(each func(rtmr.Measurement)) {
	s.t.Helper()
	for m, err := range cel.NewReader(bytes.NewReader(s.Get("/run/tallystick/journal.cel")), cel.TLV).Measurements() {
		if err != nil {
			s.t.Fatal(err)
		}
		each(m)
	}
}

func (s *service) caughtUp() {
	s.t.Helper()
	s.until("it caught up", func() bool {
		var status guest.Status
		if err := json.Unmarshal([]byte(s.Run("tallyd", "status", "--json")), &status); err != nil {
			s.t.Fatal(err)
		}
		return status.IMA == s.count() && status.Error == ""
	})
}

// count is how many entries the kernel's list has.
func (s *service) count() int {
	s.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(string(s.Get(lab.IMADir + "runtime_measurements_count"))))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// check holds the journal against the registers, and its IMA entries against the
// kernel's list.
func (s *service) check() {
	s.t.Helper()
	var values rtmr.Values
	if err := json.Unmarshal([]byte(s.Run("tallyd", "values")), &values); err != nil {
		s.t.Fatal(err)
	}
	fold := replay.New(replay.Options{})
	entries := 0
	s.journal(func(m rtmr.Measurement) {
		fold.Add(&m)
		if m.Entry.(*cel.Entry).ContentType() == cel.ContentIMATemplate {
			entries++
		}
	})
	if entries != s.count() {
		s.t.Errorf("%d IMA entries in the journal, %d in the kernel's list", entries, s.count())
	}
	folded := fold.Registers()
	if len(folded) == 0 {
		s.t.Error("nothing was extended")
	}
	for _, v := range folded {
		if held := values[v.Alg][v.Register]; !bytes.Equal(held, v.Value) {
			s.t.Errorf("%s %s holds %s, the journal folds to %s", v.Alg, v.Register, held, v.Value)
		}
	}
	s.t.Logf("%s: %d entries, %d programs", s.Release(), entries, s.n)
}
