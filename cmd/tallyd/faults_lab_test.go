//go:build linux

package main_test

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/lab"
	"tallystick/replay"
	"tallystick/rtmr"
)

// What may befall a service, one thing after another in one machine. After each, it
// has lost nothing, and a tally on this machine reconciles its evidence, or says what
// became of it.
func TestLabFaults(t *testing.T) {
	g := boot(t, lab.Machine{Kernel: "7.3", TSM: true, Modules: []string{"tpm_vtpm_proxy"}, Firmware: lab.SeaBIOS, TPM: lab.NoTPM}, "tpm")
	g.Run("mkdir", "-p", "/run/bpf")
	g.Run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/run/bpf")
	tdx, tpm, bpf := g.start(service{device: "tdx"}), g.start(service{device: "tpm"}), g.start(service{device: "bpf"})
	g.measure(5)
	for _, fault := range []struct {
		name string
		test func()
	}{
		{"two at once", func() { second(tdx) }},
		{"EIO", func() { failing(tdx) }},
		{"extended and EIO", func() { failingLate(tdx) }},
		{"full", func() { full(bpf) }},
		{"clock", func() { clock(bpf, tdx) }},
		{"stopped", func() { stopped(bpf) }},
		{"flipped", func() { flippedJournal(bpf) }},
		{"TPM gone", func() { tpmGone(tpm) }},
		{"registers gone", func() { moduleGone(tdx) }},
	} {
		if only := os.Getenv("HELPER_FAULTS"); strings.Contains(","+cmp.Or(only, fault.name)+",", ","+fault.name+",") {
			began := time.Now()
			fault.test()
			t.Logf("%s: %.1f s", fault.name, time.Since(began).Seconds())
		}
	}
	g.Stop()
}

// sound waits until the service has caught up, holds all of it, and has its evidence
// reconciled.
func (s *service) sound() {
	s.t.Helper()
	s.caughtUp()
	s.check()
	nonce, bundle := s.evidence()
	s.tally(0, "reconcile", bundle, append(s.trust(), "--nonce", nonce), "RECONCILED: ")
}

// says waits until the status has an error with the text.
func (s *service) says(text string) {
	s.t.Helper()
	last := ""
	s.until(fmt.Sprintf("%s says %q", s.device, text), func() bool {
		last = s.status().Error
		return strings.Contains(last, text)
	})
	s.t.Logf("%s: %s", s.device, last)
}

// pid is the service's.
func (s *service) pid() string {
	s.t.Helper()
	return strings.TrimSpace(s.Shell("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q -- '^tallyd run .*--state " + s.state + " ' && echo ${p#/proc/}; done; true"))
}

// ticks is how long the service ran on a processor, in 1/100 s.
func (s *service) ticks() int {
	s.t.Helper()
	stat := string(s.Get("/proc/" + s.pid() + "/stat"))
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+2:]) // proc_pid_stat(5): from field 3 on
	user, err1 := strconv.Atoi(fields[14-3])
	system, err2 := strconv.Atoi(fields[15-3])
	if err1 != nil || err2 != nil {
		s.t.Fatal(stat)
	}
	return user + system
}

// idles fails the test if the service takes all of a processor, as one does that tries
// again without a pause. What an emulated one takes is not told more exactly: its time
// goes on while the host lets others run.
func (s *service) idles() {
	s.t.Helper()
	const seconds = 2
	before := s.ticks()
	s.Run("sleep", strconv.Itoa(seconds))
	if used := s.ticks() - before; used > 95*seconds {
		s.t.Errorf("%s: %d ms of a processor in %d s", s.device, 10*used, seconds)
	}
}

// second starts another service over the same journal, which does no harm.
func second(s *service) {
	s.t.Helper()
	for device, want := range map[string]string{s.device: "another helper extends the device", "memory": "another process holds the journal"} {
		r := s.Exec(lab.Command{Args: []string{"tallyd", "run", "--device", device, "--state", s.state}})
		if r.Status == 0 || !strings.Contains(string(r.Stderr), want) {
			s.t.Errorf("%s: status %d, expected another and %q:\n%s", device, r.Status, want, r.Stderr)
		}
	}
	s.measure(2)
	s.sound()
}

// failing has the register refuse extends for a while.
func failing(s *service) {
	s.t.Helper()
	s.Put(lab.TSMParams+"fail_errno", []byte("5"))
	s.Put(lab.TSMParams+"fail", []byte("4")) // RTMR2
	s.measure(3)
	s.says("input/output error")
	if status := s.status(); status.Behind == 0 && status.IMA == s.count() {
		s.t.Errorf("%+v: nothing is behind", status)
	}
	s.idles()
	if r := s.Exec(lab.Command{Args: s.ask("evidence", "--nonce", "01", "-o", "/tmp/evidence")}); r.Status == 0 {
		// What is due comes after the quote, and the helper says why.
		said := s.tally(0, "reconcile", s.Get("/tmp/evidence"), append(s.trust(), "--nonce", "01"), "input/output error")
		s.t.Logf("evidence while an extend is due:\n%s", said)
	} else if !strings.Contains(string(r.Stderr), "input/output error") {
		s.t.Errorf("evidence while an extend is due: %s", r.Stderr)
	}
	s.Put(lab.TSMParams+"fail", []byte("0"))
	s.sound()
}

// failingLate has extends take place that the register says failed.
func failingLate(s *service) {
	s.t.Helper()
	s.Put(lab.TSMParams+"fail_times", []byte("3"))
	s.Put(lab.TSMParams+"fail_late", []byte("1"))
	s.Put(lab.TSMParams+"fail", []byte("4"))
	s.measure(5)
	s.sound()
	s.Put(lab.TSMParams+"fail_late", []byte("0"))
}

// full takes the room from the journal, and from one that is taken up again.
func full(s *service) {
	s.t.Helper()
	fill := "dd if=/dev/zero of=" + s.state + "/filler bs=4k oflag=append conv=notrunc 2>/dev/null; true"
	noRoom := func() {
		s.t.Helper()
		s.until("there is no room", func() bool { // what was reserved is used up first
			s.measure(20)
			return strings.Contains(s.status().Error, "no room")
		})
		s.t.Logf("%s: %d of %d entries: %s", s.device, s.status().IMA, s.count(), s.status().Error)
	}
	s.Shell(fill)
	noRoom()
	s.idles()
	s.kill()
	journal := s.state + "/journal.cel"
	s.Run("cp", journal, "/tmp/journal") // without what the dead one had reserved
	s.Run("rm", journal)
	s.Run("cp", "/tmp/journal", journal)
	s.Shell(fill)
	s.run()
	noRoom()
	s.Put("/tmp/app", []byte("an application"))
	var extend []string
	s.until("an extend is refused for want of room", func() bool { // what is left of a page takes some
		extend = s.ask("extend", "--register", "pcr11", "--type", "test", "--file", "/tmp/app", "--key", rand.Text())
		r := s.Exec(lab.Command{Args: extend})
		return r.Status != 0 && strings.Contains(string(r.Stderr), "no room")
	})
	s.Run("rm", s.state+"/filler")
	s.Run(extend...)
	s.sound()
}

// clock sets the clock ten years ahead and as much back, and has it run fast.
func clock(services ...*service) {
	g := services[0]
	g.t.Helper()
	now := time.Now()
	for _, at := range []time.Time{now.AddDate(10, 0, 0), now.AddDate(-10, 0, 0), now} {
		g.Run("date", "-s", fmt.Sprintf("@%d", at.Unix()))
		g.measure(3)
		for _, s := range services {
			s.caughtUp()
		}
		services[0].idles()
	}
	g.Run("adjtimex", "-t", "11000") // a tenth too fast: the most that adjtimex(2) takes
	g.measure(3)
	for _, s := range services {
		s.sound()
	}
	g.Run("adjtimex", "-t", "10000")
}

// stopped stops the service while the list grows.
func stopped(s *service) {
	s.t.Helper()
	s.process.Signal(syscall.SIGSTOP)
	before := s.count()
	for began := time.Now(); time.Since(began) < stopTime(); {
		s.measure(5)
	}
	s.process.Signal(syscall.SIGCONT)
	s.caughtUp()
	s.t.Logf("%d entries came while it was stopped for %v", s.count()-before, stopTime())
	s.sound()
}

// tpmGone ends the TPM under its driver, and starts it again.
func tpmGone(s *service) {
	s.t.Helper()
	// More than a crash can leave to be extended (recover.go, maxBatch): fewer would be
	// extended anew into registers that are at rest, and reconcile.
	if n := s.count(); n < 600 {
		s.measure(600 - n)
	}
	s.sound()
	s.tpm.Signal(syscall.SIGKILL)
	s.tpm.Wait()
	s.measure(2)
	s.until("it says that the TPM is gone", func() bool { return s.status().Error != "" })
	s.t.Logf("%s", s.status().Error)
	s.idles()
	if r := s.Exec(lab.Command{Args: s.ask("evidence", "--nonce", "01", "-o", "/tmp/evidence")}); r.Status == 0 {
		s.t.Error("evidence without a TPM")
	}
	s.end(syscall.SIGTERM)
	s.machine.startTPM() // whose registers are reset
	s.run()
	s.caughtUp()
	nonce, bundle := s.evidence()
	args := append(s.trust(), "--nonce", nonce)
	// What was measured before the reset is in the journal, and not measured again.
	said := s.tally(1, "reconcile", bundle, args, "DIVERGED: ", "pcr10, ", " had been reset")
	s.t.Logf("%+v\n%s", s.status().Recovery, said)
}

// moduleGone takes the registers away under the service, and brings them back, reset.
func moduleGone(s *service) {
	s.t.Helper()
	s.sound()
	s.Run("rmmod", "labtsm")
	s.measure(2)
	s.until("it says that the registers are gone", func() bool { return s.status().Error != "" })
	s.t.Logf("%s", s.status().Error)
	s.idles()
	if r := s.Exec(lab.Command{Args: s.ask("evidence", "--nonce", "01", "-o", "/tmp/evidence")}); r.Status == 0 {
		s.t.Error("evidence without registers")
	}
	s.Run("insmod", lab.TSMModule) // whose registers are reset
	s.measure(2)
	s.caughtUp()
	s.stop()
	s.run()
	s.caughtUp()
	nonce, bundle := s.evidence()
	s.t.Logf("%+v\n%s", s.status().Recovery, s.tally(1, "reconcile", bundle, append(s.trust(), "--nonce", nonce), "DIVERGED: ", "rtmr2 had been reset"))
}

// flippedJournal alters the journal while no service runs: it is kept aside, and told
// of, and what was extended is not extended again.
func flippedJournal(s *service) {
	s.t.Helper()
	s.kill()
	path := s.state + "/journal.cel"
	content := s.Get(path)
	at, _ := journalDigest(s.t, content)
	content = flipped(content, at)
	s.Put(path, content)
	before := s.count()
	s.run()
	s.measure(3)
	s.caughtUp()
	status := s.status()
	if status.Recovery.Damaged == "" || !bytes.Equal(s.Get(status.Recovery.Damaged), content) {
		s.t.Errorf("recovery %+v: the journal is not kept", status.Recovery)
	}
	if text := s.Run(s.ask("status")...); !strings.Contains(text, "damaged") {
		s.t.Errorf("status tells nothing of it:\n%s", text)
	}
	nonce, bundle := s.evidence()
	b, err := evidence.Read(bundle)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(b.Damaged) != 1 || !bytes.Equal(b.Damaged[0], content) {
		s.t.Errorf("%d damaged journals in the evidence, or another", len(b.Damaged))
	}
	s.t.Logf("%s", s.tally(1, "reconcile", bundle, append(s.trust(), "--nonce", nonce), "DIVERGED: ", "damaged"))
	s.kill()
	s.run() // which has to know what the one before it found
	s.measure(1)
	s.caughtUp()
	if again := s.status(); again.IMA != s.count() {
		s.t.Errorf("%d entries extended, %d in the list, %d before", again.IMA, s.count(), before)
	}
	// The register, without any journal, is what the kernel's list comes to.
	s.held()
}

// held holds the register against the kernel's list alone.
func (s *service) held() {
	s.t.Helper()
	values := s.values()
	folded := foldList(s.t, s.Get(lab.IMAList), rtmr.SHA256)
	if held := values[rtmr.SHA256][rtmr.MustParse("pcr10")]; !bytes.Equal(held, folded) {
		s.t.Errorf("pcr10 is %s, the list comes to %s", held, folded)
	}
}

// stopTime is how long a service is stopped: a minute takes a minute.
func stopTime() time.Duration {
	if d, err := time.ParseDuration(os.Getenv("HELPER_STOP")); err == nil {
		return d
	}
	return 10 * time.Second
}

// foldList returns what the list's entries come to in PCR 10.
func foldList(t *testing.T, list []byte, alg rtmr.Alg) rtmr.Hex {
	t.Helper()
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: []rtmr.Alg{alg}})
	if err != nil {
		t.Fatal(err)
	}
	fold := replay.New(replay.Options{})
	if _, err := fold.Log(r.Measurements()); err != nil {
		t.Fatal(err)
	}
	return fold.Values()[alg][rtmr.MustParse("pcr10")]
}
