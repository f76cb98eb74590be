package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/fatih/color"
	"golang.org/x/sys/unix"

	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/ima"
	"tallystick/rtmr"
)

// demoWait bounds each wait of the demo's.
const demoWait = 30 * time.Second

// The session's files, in its folder.
const (
	demoRoot    = "root"  // the capture, as the kernel has it below /
	demoPins    = "pins"  // a BPF file system
	demoState   = "state" // the helper's
	demoSocket  = demoState + "/tallyd.sock"
	demoJournal = demoState + "/journal.cel"
	demoList    = demoRoot + "/sys/kernel/security/ima/binary_runtime_measurements"
	demoBoot    = demoRoot + "/sys/kernel/security/tpm0/binary_bios_measurements"
)

// demoRegister is the application's: the boot used it for nothing.
const demoRegister = "pcr12"

// session runs tallyd and tally as a user would, in a folder of its own.
type session struct {
	*capture
	ctx     context.Context
	out     io.Writer
	dir     string
	path    map[string]string // of the commands
	helper  *exec.Cmd
	log     bytes.Buffer // the helper's; read it once it ended
	ended   chan error   // of the helper
	nonce   string
	entries []int // where the IMA list's entries begin, and its end
	demoDevice
}

// demoDevice is what differs between the devices that the demo can use.
type demoDevice struct {
	name   string
	accept []string // has reconcile go on to the logs, though nobody vouches
	alone  string   // why nobody does
	died   string   // what became of the registers of a helper that died
}

var demoBPF = demoDevice{
	name:   "bpf",
	accept: []string{"--accept-self-asserted"},
	alone: `The quote is signed and has the nonce, and that is all: the key is one that the
helper made itself, so the same could have been made anywhere. In an SEV-SNP guest
the hardware's report over key, nonce and quote is in the bundle, and reconcile
--hardware VCEK verifies it; a TD's quote or a TPM's the hardware signs itself.
What the logs say, as far as the key is taken for the guest's:`,
}

var demoMemory = demoDevice{
	name:   "memory",
	died:   ", which died with it",
	accept: []string{"--insecure-skip-signature"},
	alone: `Registers in a process's memory are quoted by nobody, and so there is neither a
signature nor a nonce. Registers in the kernel (as root) have a quote by a key of
the helper's, and a TD, a TPM or an SEV-SNP report one that the hardware stands for.
What the logs say, as far as the values are taken for the guest's:`,
}

// demoGuest runs the guest's half.
func (c *capture) demoGuest(ctx context.Context, w io.Writer, tallyd string) (err error) {
	if tallyd == "" {
		_, err := fmt.Fprintln(w, "\nThe guest's half, tallyd, is not here (--tallyd PATH), and is left out.")
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// What a thread mounts in a namespace of its own, its children see, and nobody
	// else. The thread is never unlocked: it ends with what it mounted.
	runtime.LockOSThread()
	s, err := c.newSession(ctx, w, tallyd)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, act := range []func() error{s.choose, s.measure, s.killed, s.compare, s.prove, s.flip, s.hide} {
		if err := act(); err != nil {
			return s.failed(err)
		}
	}
	_, err = fmt.Fprintln(w, "\nAll of it came out as it should.")
	return err
}

// failed is the error that ended the session, with what the helper logged.
func (s *session) failed(err error) error {
	if s.ctx.Err() != nil {
		return errors.New("interrupted")
	}
	s.kill()
	fmt.Fprintf(s.out, "\ntallyd's log:\n%s", s.log.String())
	return err
}

// measure has the helper take up the list's first half, and a file of an application's.
func (s *session) measure() error {
	if err := s.run([]string{"tallyd", "status", "--socket", demoSocket}, 0, nil, "ima "); err != nil {
		return err
	}
	s.say("An application has a file of its own measured. The key makes a retry the same\nrequest.")
	if err := s.run(s.extendArgs(), 0, nil); err != nil {
		return err
	}
	s.say("A verifier, elsewhere, sends a nonce now and then, and gets one file:")
	return s.evidence("first.cmw")
}

// evidence takes evidence for a new nonce.
func (s *session) evidence(file string) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	s.nonce = fmt.Sprintf("%x", nonce)
	return s.run([]string{"tallyd", "evidence", "--nonce", s.nonce, "-o", file, "--socket", demoSocket}, 0, nil)
}

func (s *session) extendArgs() []string {
	return []string{"tallyd", "extend", "--register", demoRegister, "--type", "config", "--file", "app.conf", "--key", "start-1", "--socket", demoSocket}
}

// killed has the list grow, kills the helper meanwhile, and starts another.
func (s *session) killed() error {
	s.say("The list grows to its %d entries, and the helper is killed as soon as its journal\ngrows:", len(s.entries)-1)
	if err := s.grow(); err != nil {
		return err
	}
	fmt.Fprintln(s.out, prompt([]string{"kill", "-9", fmt.Sprint(s.helper.Process.Pid)}))
	s.kill()
	if err := s.start(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s &\n", prompt(s.runArgs()))
	var behind int
	err := s.until(func(status demoStatus) bool {
		behind = status.Recovery.Behind
		return status.IMA >= len(s.entries)-1 && status.Error == ""
	})
	if err != nil {
		return err
	}
	if behind > 0 {
		s.say("%d measurements of the journal's were not in the registers%s: they\nare now.", behind, s.died)
	}
	if err := s.run([]string{"tallyd", "status", "--socket", demoSocket}, 0, nil); err != nil {
		return err
	}
	return s.run(s.extendArgs(), 0, nil, "extended before")
}

// grow appends the rest of the list, and returns once the journal grew. The helper may
// be anywhere then.
func (s *session) grow() error {
	before, err := os.Stat(s.file(demoJournal))
	if err != nil {
		return err
	}
	list, err := os.OpenFile(s.file(demoList), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = list.Write(s.list[s.entries[s.half()]:])
	if err := errors.Join(err, list.Close()); err != nil {
		return err
	}
	for deadline := time.Now().Add(demoWait); time.Now().Before(deadline) && s.ctx.Err() == nil; {
		if now, err := os.Stat(s.file(demoJournal)); err != nil || now.Size() > before.Size() {
			return err
		}
	}
	return fmt.Errorf("%w: the journal does not grow", errDemo)
}

// compare sets the registers beside those of the capture's TPM, in all banks.
func (s *session) compare() error {
	s.say("Had an entry been lost, or extended twice, its register would not hold what the\nmachine's TPM held (here in SHA-256; all banks are compared):")
	args := []string{"tallyd", "values", "--socket", demoSocket}
	fmt.Fprintln(s.out, prompt(args))
	out, err := s.command(s.ctx, args).Output()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	var values rtmr.Values
	if err := json.Unmarshal(out, &values); err != nil {
		return err
	}
	for i := range rtmr.NumPCRs {
		r, _ := rtmr.PCR(i).Register()
		if r.String() == demoRegister {
			continue
		}
		if value := values[rtmr.SHA256][r]; !bytes.Equal(value, r.ResetValue(rtmr.SHA256)) {
			s.beside(s.out, r, value, "")
		}
		for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384} {
			if got, want := values[alg][r], s.held[alg][r]; !bytes.Equal(got, want) {
				return fmt.Errorf("%w: %s %s is %s, and the TPM's was %s", errDemo, alg, r, got, want)
			}
		}
	}
	return nil
}

// Lines of a verdict that are shown.
var (
	demoVerdict  = regexp.MustCompile(`^(RECONCILED|DIVERGED|UNTRUSTED)|^    (signature|chain|nonce|binding) `)
	demoLayers   = regexp.MustCompile(`^(RECONCILED|DIVERGED|UNTRUSTED)|^  (application|firmware|kernel) +(cel|boot|ima)|^  pcr(10|12) +sha256 `)
	demoFindings = regexp.MustCompile(`^(RECONCILED|DIVERGED|UNTRUSTED)|^  \S.*: entry \d|^  (not )?proven: |^  pcr10 +sha256 |^  tally explain`)
)

// prove takes evidence and reconciles it.
func (s *session) prove() error {
	s.say("The verifier sends another nonce, and holds the logs against the quote:")
	if err := s.evidence("evidence.cmw"); err != nil {
		return err
	}
	if err := s.run([]string{"tally", "reconcile", "--nonce", s.nonce, "evidence.cmw"}, 1, demoVerdict, "UNTRUSTED: "); err != nil {
		return err
	}
	s.say("%s", s.alone)
	return s.run(s.verify("reconcile", "evidence.cmw"), 0, demoLayers, "RECONCILED: ")
}

// verify is a command that takes a bundle for the guest's.
func (s *session) verify(command, bundle string, more ...string) []string {
	args := append([]string{"tally", command}, s.accept...)
	if s.name == demoBPF.name {
		args = append(args, "--nonce", s.nonce)
	}
	return append(append(args, more...), bundle)
}

// forge writes an edited copy of the evidence.
func (s *session) forge(name string, edit func(*evidence.Bundle) error) error {
	data, err := os.ReadFile(s.file("evidence.cmw"))
	if err != nil {
		return err
	}
	b, err := evidence.Read(data)
	if err != nil {
		return err
	}
	if err := edit(b); err != nil {
		return err
	}
	if data, err = b.Marshal(); err != nil {
		return err
	}
	return os.WriteFile(s.file(name), data, 0o644)
}

// flip flips one byte of the journal.
func (s *session) flip() error {
	s.say("One byte of the bundle is altered: in its journal, /bin/busybox is /bim/busybox.")
	err := s.forge("altered.cmw", func(b *evidence.Bundle) error {
		at := bytes.Index(b.Journal, []byte("/bin/busybox"))
		if at < 0 {
			return fmt.Errorf("%w: no /bin/busybox in the journal", errDemo)
		}
		b.Journal[at+3] = 'm'
		return nil
	})
	if err != nil {
		return err
	}
	return s.run(s.verify("reconcile", "altered.cmw"), 1, demoFindings, "DIVERGED: ", "/bim/busybox: the data do not hash to the recorded digest")
}

// hide takes an entry out of journal and list, as who is root would who hides what
// was run, and has it found.
func (s *session) hide() error {
	const name = "/opt/crowd/170" // of the list's first half
	s.say("Root would hide that %s was run: its entry is taken out of the IMA list\nand of the journal, whose records are numbered anew. Both logs are well-formed.", name)
	err := s.forge("hidden.cmw", func(b *evidence.Bundle) (err error) {
		if b.Journal, err = withoutRecord(b.Journal, name); err != nil {
			return err
		}
		b.IMAList, err = s.withoutEntry(b.IMAList, name)
		return err
	})
	if err != nil {
		return err
	}
	if err := s.run(s.verify("reconcile", "hidden.cmw"), 1, demoFindings, "DIVERGED: "); err != nil {
		return err
	}
	s.say("A hash tells that something is missing, and not what. What may be missing, explain\ntries, such as what an older list has, or digests of what is installed:")
	if err := s.run([]string{"tally", "unpack", "first.cmw", "first"}, 0, nil); err != nil {
		return err
	}
	return s.run(s.verify("explain", "hidden.cmw", "--candidates", "first/ima-list.bin"), 1, demoFindings, "DIVERGED: ", "  proven: ", name)
}

// withoutRecord returns a journal without the record of a file's name.
func withoutRecord(journal []byte, name string) ([]byte, error) {
	var out bytes.Buffer
	w := cel.NewWriter(&out, cel.TLV)
	dropped := 0
	for m, err := range cel.NewReader(bytes.NewReader(journal), cel.TLV).Measurements() {
		if err != nil {
			return nil, err
		}
		if m.Entry.(*cel.Entry).Subject() == name {
			dropped++
			continue
		}
		if err := w.Write(m); err != nil {
			return nil, err
		}
	}
	if dropped != 1 {
		return nil, fmt.Errorf("%w: %d records of %s in the journal", errDemo, dropped, name)
	}
	return out.Bytes(), w.Close()
}

// withoutEntry returns the IMA list without the entry of a file's name.
func (s *session) withoutEntry(list []byte, name string) ([]byte, error) {
	for i, from := range s.entries[:len(s.entries)-1] {
		if to := s.entries[i+1]; bytes.Contains(list[from:to], append([]byte(name), 0)) {
			return slices.Concat(list[:from], list[to:]), nil
		}
	}
	return nil, fmt.Errorf("%w: no entry of %s in the list", errDemo, name)
}

// newSession lays out the capture's first half.
func (c *capture) newSession(ctx context.Context, w io.Writer, tallyd string) (s *session, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s = &session{capture: c, ctx: ctx, out: w, path: map[string]string{"tally": self, "tallyd": tallyd}}
	if s.entries, err = listOffsets(c.list); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "tally-demo-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for name, data := range map[string][]byte{
		demoBoot: c.boot, demoList: c.list[:s.entries[len(s.entries)/2]],
		"app.conf": []byte("what the application is told to do\n"),
	} {
		if err := os.MkdirAll(filepath.Dir(s.file(name)), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(s.file(name), data, 0o644); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// listOffsets returns where a list's entries begin, and its length.
func listOffsets(list []byte) (offsets []int, err error) {
	r, err := ima.NewReader(bytes.NewReader(list), ima.Options{})
	if err != nil {
		return nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return nil, err
		}
		offsets = append(offsets, int(m.Offset))
	}
	return append(offsets, len(list)), nil
}

// choose takes registers in the kernel, at pins that only this demo's processes see;
// or memory, where the kernel refuses.
func (s *session) choose() error {
	refused := s.mountPins()
	if refused == nil {
		s.demoDevice = demoBPF
		refused = s.start()
	}
	if refused == nil {
		s.say("The guest's half: tallyd, with registers in this kernel, at pins that nobody else\nsees. It reads the same machine's logs, of which the list has %d entries so far.", s.half())
		return s.started()
	}
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	s.demoDevice = demoMemory
	s.say("The guest's half: tallyd, with registers in its memory, for this kernel refuses it others\n(%v). It reads the same machine's\nlogs, of which the list has %d entries so far.", refused, s.half())
	if err := s.start(); err != nil {
		return err
	}
	return s.started()
}

func (s *session) half() int { return len(s.entries) / 2 }

// mountPins mounts a BPF file system in a mount namespace of this thread's.
func (s *session) mountPins() error {
	if err := os.Mkdir(s.file(demoPins), 0o700); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace: %w", err)
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// Hardware is asked for no report: it would stand for a machine that this is not.
	if err := unix.Mount("none", "/sys/kernel/config/tsm", "tmpfs", unix.MS_RDONLY, ""); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hide the hardware's reports: %w", err)
	}
	if err := unix.Mount("tally-demo", s.file(demoPins), "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	return nil
}

// runArgs is the helper's command line.
func (s *session) runArgs() []string {
	args := []string{"tallyd", "run", "--device", s.name}
	if s.name == demoBPF.name {
		args = append(args, "--pins", demoPins)
	}
	return append(args, "--root", demoRoot, "--state", demoState, "--poll", "10ms")
}

// start starts the helper and waits until it answers. The error is the last line of
// its log, if it ended.
func (s *session) start() error {
	s.log.Reset()
	s.helper = s.command(context.WithoutCancel(s.ctx), s.runArgs())
	s.helper.Stderr = &s.log
	if err := s.helper.Start(); err != nil {
		return err
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.helper, s.ended)
	err := s.until(func(demoStatus) bool { return true })
	if err != nil {
		s.kill()
	}
	return err
}

// started shows how the helper was started, once it has caught up with the list.
func (s *session) started() error {
	fmt.Fprintf(s.out, "%s &\n", prompt(s.runArgs()))
	return s.until(func(status demoStatus) bool { return status.IMA == s.half() })
}

// demoStatus is of tallyd status --json what the demo looks at.
type demoStatus struct {
	IMA      int `json:"ima"`
	Recovery struct {
		Behind int
	} `json:"recovery"`
	Error string `json:"error"`
}

// until waits until the helper's status is as wanted.
func (s *session) until(wanted func(demoStatus) bool) error {
	ctx, cancel := context.WithTimeout(s.ctx, demoWait)
	defer cancel()
	var status demoStatus
	for {
		out, err := s.command(ctx, []string{"tallyd", "status", "--json", "--socket", demoSocket}).Output()
		if err == nil {
			status = demoStatus{}
			if err := json.Unmarshal(out, &status); err != nil {
				return fmt.Errorf("tallyd status: %w", err)
			}
			if wanted(status) {
				return nil
			}
		}
		select {
		case err := <-s.ended:
			s.ended <- err // for kill
			lines := strings.Split(strings.TrimSpace(s.log.String()), "\n")
			return fmt.Errorf("tallyd run ended (%v): %s", err, lines[len(lines)-1])
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%w: tallyd is not where it should be after %v, but at entry %d (%s)", errors.Join(s.ctx.Err(), errDemo), demoWait, status.IMA, status.Error)
		}
	}
}

// kill ends the helper by SIGKILL and waits for its end.
func (s *session) kill() {
	if s.helper == nil || s.helper.Process == nil {
		return
	}
	s.helper.Process.Kill()
	<-s.ended
	s.helper = nil
}

// close leaves nothing behind.
func (s *session) close() error {
	s.kill()
	if err := unix.Unmount(s.file(demoPins), 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("unmount: %w", err)
	}
	return os.RemoveAll(s.dir)
}

func (s *session) file(name string) string { return filepath.Join(s.dir, name) }

// command is one of the two programs, in the session's folder. It dies with this
// process.
func (s *session) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.path[args[0]], args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// say prints a paragraph.
func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n"+format+"\n\n", args...)
}

// prompt is a command as a user types it.
func prompt(args []string) string {
	return color.New(color.Bold).Sprint("$ " + strings.Join(args, " "))
}

// run runs a command and prints it, and of its output the lines that show matches:
// all if it is nil. The exit status has to be the given one, and the output has to
// hold each of the texts.
func (s *session) run(args []string, status int, show *regexp.Regexp, texts ...string) error {
	fmt.Fprintln(s.out, prompt(args))
	cmd := s.command(s.ctx, args)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		return err
	}
	skipped := false
	for line := range strings.Lines(string(out)) {
		if show != nil && !show.MatchString(line) {
			if !skipped {
				fmt.Fprintln(s.out, "  ..")
			}
			skipped = true
			continue
		}
		skipped = false
		fmt.Fprint(s.out, line)
	}
	if got := cmd.ProcessState.ExitCode(); got != status {
		return fmt.Errorf("%w: %s: exit status %d, expected %d", errDemo, strings.Join(args, " "), got, status)
	}
	for _, text := range texts {
		if !bytes.Contains(out, []byte(text)) {
			fmt.Fprintf(s.out, "\nAll of it:\n%s", out)
			return fmt.Errorf("%w: %s does not say %q", errDemo, strings.Join(args, " "), text)
		}
	}
	return nil
}
