//go:build linux

package main_test

import (
	"bytes"
	crand "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/lab"
	"tallystick/replay"
	"tallystick/rtmr"
)

// The service on real kernels, with each device that they can have, side by side:
// it measures what they measure, it is killed at random moments, and this machine
// reconciles its evidence.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		kernel   string
		services []service
	}{
		// Kernels before 6.16 have no registers of a TD in sysfs.
		{"6.1", []service{{device: "tpm"}, {device: "bpf"}}},
		{"6.12", []service{{device: "tpm"}, {device: "bpf", flags: []string{"--guard", "yes", "--seal"}}}},
		{"7.3", []service{{device: "tdx"}, {device: "tpm"}, {device: "bpf"}}},
	} {
		t.Run(c.kernel, func(t *testing.T) {
			m := lab.Machine{Kernel: c.kernel, TSM: c.kernel == "7.3", Modules: []string{"tpm_vtpm_proxy"}, Firmware: lab.SeaBIOS, TPM: lab.NoTPM}
			g := boot(t, m, "tpm")
			if !m.TSM {
				g.hasNoTD()
			}
			var services []*service
			for _, s := range c.services {
				services = append(services, g.start(s))
			}
			g.measure(20)
			for _, s := range services {
				s.caughtUp()
				s.check()
				if s.device == "tdx" {
					s.others()
				}
			}
			for range 3 {
				for _, s := range services {
					g.measure(2)
					time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
					s.kill()
					s.run()
				}
			}
			g.measure(5)
			for _, s := range services {
				s.caughtUp()
				s.check()
				s.reconcile()
				s.tamper()
				if s.device == "tdx" {
					s.reconcileReport()
				}
				s.stop()
			}
			t.Logf("%s: %d programs", g.Release(), g.programs)
			g.Stop()
		})
	}
}

// Registers in the kernel mirror the firmware's log and the kernel's list, and come to
// the values of the TPM that firmware and kernel extended; whose evidence has both logs
// as they are.
func TestLabFirmware(t *testing.T) {
	g := boot(t, lab.Machine{Kernel: "6.12"}, "")
	mirror, own := g.start(service{device: "bpf"}), g.start(service{device: "tpm"})
	g.measure(10)
	mirror.caughtUp()
	mirror.kill()
	own.kill()
	mirror.run()
	own.run()
	g.measure(2)
	mirror.caughtUp()
	mirror.check()
	values := mirror.values()
	for _, bank := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384} {
		for pcr := range 11 {
			reg := rtmr.MustParse(fmt.Sprintf("pcr%d", pcr))
			held := strings.TrimSpace(string(g.Get(fmt.Sprintf("/sys/class/tpm/tpm0/pcr-%s/%d", bank, pcr))))
			if got := values[bank][reg].String(); !strings.EqualFold(got, held) {
				t.Errorf("%s %s is %s, the TPM's %s", bank, reg, got, held)
			}
		}
	}
	for _, s := range []*service{mirror, own} {
		s.reconcile()
		s.tamper()
		s.stop()
	}
	g.Stop()
}

// machine is one in which tallyd runs.
type machine struct {
	*lab.Guest
	t        *testing.T
	programs int          // that were run
	tpm      *lab.Process // that is a late TPM
}

// boot boots a machine with tallyd, of a build tag if need be, in which root's
// programs are measured. A late TPM is one that the kernel's IMA takes no notice of.
func boot(t *testing.T, m lab.Machine, late string, tags ...string) *machine {
	t.Helper()
	m.Append = lab.TCB
	m.Files = map[string][]byte{"/lab/bin/tallyd": lab.Build(t, "./cmd/tallyd", tags...)}
	if late == "tpm" {
		maps.Copy(m.Files, lab.HostProgram(t, "swtpm"))
	}
	g := &machine{Guest: m.Start(t), t: t}
	if late == "tpm" {
		g.startTPM()
	}
	return g
}

// startTPM has the guest have a TPM by the proxy.
func (g *machine) startTPM() {
	g.t.Helper()
	g.Run("mkdir", "-p", "/tmp/tpm")
	g.tpm = g.Spawn(lab.Command{Args: []string{"swtpm", "chardev", "--vtpm-proxy", "--tpm2", "--tpmstate", "dir=/tmp/tpm",
		"--locality", "allow-set-locality", "--flags", "not-need-init"}})
	g.until("a TPM", func() bool { return g.ok("test", "-e", "/dev/tpmrm0") })
}

// ok reports whether a program ends well.
func (g *machine) ok(args ...string) bool { return g.Exec(lab.Command{Args: args}).Status == 0 }

// until waits for a condition, a minute at most.
func (g *machine) until(what string, true func() bool) {
	g.t.Helper()
	g.within(time.Minute, what, true)
}

func (g *machine) within(limit time.Duration, what string, true func() bool) {
	g.t.Helper()
	for began := time.Now(); !true(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > limit {
			g.t.Fatalf("%s: not in %v", what, limit)
		}
	}
}

// measure has the kernel measure n programs that it did not know.
func (g *machine) measure(n int) {
	g.t.Helper()
	g.Shell(fmt.Sprintf("for i in $(seq %d %d); do printf '#!/bin/sh\\n# %%s\\n' $i > /tmp/p$i; chmod +x /tmp/p$i; /tmp/p$i; done", g.programs, g.programs+n-1))
	g.programs += n
}

// count is how many entries the kernel's list has.
func (g *machine) count() int {
	g.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(string(g.Get(lab.IMADir + "runtime_measurements_count"))))
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// hasNoTD says that the kernel lacks the library by which drivers show registers
// (drivers/virt/coco/guest/tsm-mr.c), and holds tallyd to say so.
func (g *machine) hasNoTD() {
	g.t.Helper()
	if g.ok("grep", "-q", "tsm_mr_create_attribute_group", "/proc/kallsyms") {
		g.t.Error("this kernel has TSM_MEASUREMENTS")
	}
	r := g.Exec(lab.Command{Args: []string{"tallyd", "run", "--device", "tdx", "--state", "/run/tdx"}})
	if want := "device tdx: "; r.Status == 0 || !strings.Contains(string(r.Stderr), want) {
		g.t.Errorf("status %d, %s; expected %s", r.Status, r.Stderr, want)
	}
	g.t.Logf("%s without TSM_MEASUREMENTS: %s", g.Release(), r.Stderr)
}

// service is tallyd in a machine.
type service struct {
	*machine
	device  string
	flags   []string
	env     []string
	state   string // its folder
	process *lab.Process
}

// start starts a service and waits until it answers.
func (g *machine) start(s service) *service {
	g.t.Helper()
	s.machine = g
	if s.state == "" {
		s.state = "/run/" + s.device
	}
	s.run()
	return &s
}

func (s *service) run() {
	s.t.Helper()
	s.spawn()
	s.until("it answers", func() bool { return s.ok(s.ask("status")...) })
}

func (s *service) spawn() {
	s.t.Helper()
	s.process = s.Spawn(lab.Command{Args: append([]string{"tallyd", "run", "--device", s.device, "--state", s.state}, s.flags...), Env: s.env})
}

// ask is a command that asks the service.
func (s *service) ask(command string, args ...string) []string {
	return append([]string{"tallyd", command, "--socket", s.state + "/tallyd.sock"}, args...)
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
		s.t.Fatalf("%s: status %d\n%s", s.device, r.Status, r.Stderr)
	}
}

func (s *service) stop() {
	s.t.Helper()
	if r := s.end(syscall.SIGTERM); r.Status != 0 {
		s.t.Errorf("%s: status %d\n%s", s.device, r.Status, r.Stderr)
	}
}

// evidence has the service make evidence for a nonce of this machine's.
func (s *service) evidence() (nonce string, bundle []byte) {
	s.t.Helper()
	random := make([]byte, 16+rand.IntN(guest.MaxNonce-15))
	crand.Read(random)
	nonce = hex.EncodeToString(random)
	s.Run(s.ask("evidence", "--nonce", nonce, "-o", "/tmp/evidence")...)
	return nonce, s.Get("/tmp/evidence")
}

// tally runs a tally that is built anew on a bundle, and fails the test unless its
// exit status and what it says are as expected.
func (s *service) tally(status int, command string, bundle []byte, args []string, want ...string) (said string) {
	s.t.Helper()
	dir := s.t.TempDir()
	tally, file := filepath.Join(dir, "tally"), filepath.Join(dir, "evidence.cbor")
	for path, content := range map[string][]byte{tally: lab.Build(s.t, "./cmd/tally"), file: bundle} {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	if i := slices.Index(args, enrolled); i >= 0 { // the bundle's key, as one that was enrolled before
		parts := filepath.Join(dir, "parts")
		if out, err := exec.Command(tally, "unpack", file, parts).CombinedOutput(); err != nil {
			s.t.Fatalf("tally unpack: %v\n%s", err, out)
		}
		args = slices.Replace(slices.Clone(args), i, i+1, filepath.Join(parts, "tpm-public.bin"))
	}
	out, err := exec.Command(tally, append(append([]string{command}, args...), file)...).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		s.t.Fatal(err)
	}
	said = string(out)
	for _, text := range want {
		if got != status || !strings.Contains(said, text) {
			s.t.Errorf("%s: tally %s %v: status %d, expected %d and %q:\n%s", s.device, command, args, got, status, text, said)
			break
		}
	}
	return said
}

// enrolled stands for the bundle's own key.
const enrolled = "ENROLLED"

// trust is what a verifier of the device's evidence has to be told: no hardware
// stands for these registers, but the TPM's key, which the verifier enrolled.
func (s *service) trust() []string {
	switch s.device {
	case "tdx":
		return []string{"--insecure-skip-signature"}
	case "tpm":
		return []string{"--key", enrolled}
	}
	return []string{"--accept-self-asserted"}
}

// vouched is what the verdict says of who stands for the device's registers.
var vouched = map[string][]string{
	"tdx": {"signature"},
	"tpm": {"signature  verified", "nonce      verified"},
	"bpf": {"self-asserted: no hardware vouches for this quote", "nonce      verified"},
}

// reconcile holds the service's evidence against the nonce that was asked for, and
// another, and has it believed by nobody who was not told whom to trust.
func (s *service) reconcile() {
	s.t.Helper()
	nonce, bundle := s.evidence()
	args := append(s.trust(), "--nonce")
	s.t.Logf("%s", s.tally(0, "reconcile", bundle, append(args, nonce), append(vouched[s.device], "RECONCILED: ")...))
	s.tally(1, "reconcile", bundle, append(args, other(nonce)), "UNTRUSTED: ")
	s.tally(1, "reconcile", bundle, []string{"--nonce", nonce}, "UNTRUSTED: ")
}

// other is a nonce that differs in its first digit.
func other(nonce string) string {
	if nonce[0] == '0' {
		return "1" + nonce[1:]
	}
	return "0" + nonce[1:]
}

// tamper flips a bit of the journal and one of the kernel's list in the evidence:
// explain finds the entry.
func (s *service) tamper() {
	s.t.Helper()
	nonce, bundle := s.evidence()
	b, err := evidence.Read(bundle)
	if err != nil {
		s.t.Fatal(err)
	}
	args := append(s.trust(), "--nonce", nonce)
	with := func(edit func(b *evidence.Bundle)) []byte {
		edited := *b
		edit(&edited)
		data, err := edited.Marshal()
		if err != nil {
			s.t.Fatal(err)
		}
		return data
	}
	if at, entry := journalDigest(s.t, b.Journal); entry >= 0 {
		altered := with(func(b *evidence.Bundle) { b.Journal = flipped(b.Journal, at) })
		s.tally(1, "reconcile", altered, args, "DIVERGED: ")
		s.t.Logf("%s", s.tally(1, "explain", altered, args, fmt.Sprintf("entry %d", entry)))
	}
	at, entry := listDigest(s.t, b.IMAList)
	altered := with(func(b *evidence.Bundle) { b.IMAList = flipped(b.IMAList, at) })
	s.tally(1, "reconcile", altered, args, "DIVERGED: ")
	s.t.Logf("%s", s.tally(1, "explain", altered, args, fmt.Sprintf("entry %d", entry)))
}

func flipped(data []byte, at int64) []byte {
	data = bytes.Clone(data)
	data[at] ^= 1 << rand.IntN(8)
	return data
}

// journalDigest returns where in a journal a digest of an entry of the kernel's list
// is, of its strongest bank, and which entry that is; -1 if there is none.
func journalDigest(t *testing.T, journal []byte) (at int64, entry int) {
	t.Helper()
	var found []rtmr.Measurement
	for m, err := range cel.NewReader(bytes.NewReader(journal), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if m.Entry.(*cel.Entry).ContentType() == cel.ContentIMATemplate {
			last := m.Digests[len(m.Digests)-1]
			at := int64(bytes.Index(journal[m.Offset:], last.Sum))
			found = append(found, rtmr.Measurement{Index: m.Index, Offset: m.Offset + at})
		}
	}
	if len(found) == 0 {
		return 0, -1
	}
	m := found[rand.IntN(len(found))]
	return m.Offset + 7, m.Index
}

// listDigest returns where in a list the digest of a file is, and in which entry.
func listDigest(t *testing.T, list []byte) (at int64, entry int) {
	t.Helper()
	var found []rtmr.Measurement
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		data := m.Entry.Data()
		found = append(found, rtmr.Measurement{Index: m.Index, Offset: m.Offset + int64(bytes.Index(list[m.Offset:], data))})
	}
	m := found[rand.IntN(len(found))]
	return m.Offset + int64(4+len("sha256:\x00")+9), m.Index // d-ng: length, algorithm, digest
}

// reconcileReport has the service answer with a TDREPORT, where the host makes no
// quotes: nobody but its own machine can check that, and the verdict says so.
func (s *service) reconcileReport() {
	s.t.Helper()
	s.Put(lab.TSMParams+"quote_errno", []byte("6")) // ENXIO: no provider
	s.Put(lab.TSMParams+"quote_fail", []byte("1000"))
	nonce, bundle := s.evidence()
	s.Put(lab.TSMParams+"quote_fail", []byte("0"))
	only := "only the machine that made it can check it"
	s.tally(1, "reconcile", bundle, []string{"--nonce", nonce}, "UNTRUSTED: ", only)
	s.tally(0, "reconcile", bundle, append(s.trust(), "--nonce", nonce), "RECONCILED: ", only)
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

// status asks the service how it fares.
func (s *service) status() (status guest.Status) {
	s.t.Helper()
	r := s.Exec(lab.Command{Args: s.ask("status", "--json")})
	if r.Status != 0 {
		s.t.Fatalf("%s: %s\n%s", s.device, r.Stderr, s.end(syscall.SIGQUIT).Stderr)
	}
	if err := json.Unmarshal(r.Stdout, &status); err != nil {
		s.t.Fatal(err)
	}
	return status
}

// values asks the service for the registers.
func (s *service) values() (values rtmr.Values) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.Run(s.ask("values")...)), &values); err != nil {
		s.t.Fatal(err)
	}
	return values
}

func (s *service) caughtUp() {
	s.t.Helper()
	s.until(s.device+" caught up", func() bool {
		status := s.status()
		return status.IMA == s.count() && status.Error == ""
	})
}

// journal reads the journal.
func (s *service) journal(each func(rtmr.Measurement)) {
	s.t.Helper()
	for m, err := range cel.NewReader(bytes.NewReader(s.Get(s.state+"/journal.cel")), cel.TLV).Measurements() {
		if err != nil {
			s.t.Fatal(err)
		}
		each(m)
	}
}

// check holds the journal against the registers, and its IMA entries against the
// kernel's list.
func (s *service) check() {
	s.t.Helper()
	var values rtmr.Values
	var fold *replay.Fold
	entries := 0
	s.until("nothing is measured meanwhile", func() bool {
		before := s.status().Journal
		values, fold, entries = s.values(), replay.New(replay.Options{}), 0
		s.journal(func(m rtmr.Measurement) {
			fold.Add(&m)
			if m.Entry.(*cel.Entry).ContentType() == cel.ContentIMATemplate {
				entries++
			}
		})
		return s.status().Journal == before
	})
	if entries != s.count() {
		s.t.Errorf("%s: %d IMA entries in the journal, %d in the kernel's list", s.device, entries, s.count())
	}
	folded := fold.Registers()
	if len(folded) == 0 {
		s.t.Errorf("%s: nothing was extended", s.device)
	}
	for _, v := range folded {
		if held := values[v.Alg][v.Register]; !bytes.Equal(held, v.Value) {
			s.t.Errorf("%s %s holds %s, the journal folds to %s", v.Alg, v.Register, held, v.Value)
		}
	}
}
