//go:build linux

package guest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/eventlog"
	"tallystick/eventlog/cel"
	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/guest/internal/fault"
	"tallystick/ima"
	"tallystick/internal/imagen"
	"tallystick/lab"
	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
	"tallystick/rtmr/tpm"
)

// The environment of TestKilled's child, and of the test in a guest.
const (
	envDevice = "HELPER_DEVICE" // the child's
	envDir    = "HELPER_DIR"    // the child's
	envApps   = "HELPER_APPS"   // the child has applications
	envKills  = "HELPER_KILLS"  // how many, in all
	envKind   = "KILL_DEVICE"   // the test's device; bpf if ""
	envPoints = "KILL_POINTS"   // the fault points, where their source is not
	envModule = "KILL_MODULE"   // labtsm.ko
)

// TestMain runs TestKilled's child where the environment says so.
func TestMain(m *testing.M) {
	if device := os.Getenv(envDevice); device != "" {
		if err := child(device, os.Getenv(envDir)); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// bootFixture is the boot log of the child.
const bootFixture = "sig-6.12/boot.bin"

// openDevice opens a device of this system.
func openDevice(kind, dir string) (rtmr.Device, error) {
	switch kind {
	case "tdx":
		return tdx.Open(tdx.Options{})
	case "tpm":
		node, err := os.ReadFile(filepath.Join(dir, nodeFile))
		if err != nil {
			return nil, err
		}
		return tpm.Open(tpm.Options{Path: string(node)})
	}
	return bpf.Open(bpf.Options{Path: filepath.Join(filepath.Dir(dir), "bpf", filepath.Base(dir))})
}

// appRegister is the register of the child's applications, and imaRegister that of
// the list.
func appRegister(kind string) rtmr.Register {
	if kind == "tdx" {
		return rtmr.MustParse("rtmr3")
	}
	return pcr11
}

func imaRegister(kind string) rtmr.Register {
	if kind == "tdx" {
		return rtmr.MustParse("rtmr2")
	}
	return pcr10
}

// child is a helper that follows a list, mirrors a boot log where no firmware could
// extend it, and has applications that retry.
func child(kind, dir string) error {
	device, err := openDevice(kind, dir)
	if err != nil {
		return err
	}
	if kind != "bpf" || rand.IntN(2) == 0 { // else it takes many extends at a time
		device = uncertain{device}
	}
	cfg := guest.Config{
		Device: device, Journal: filepath.Join(dir, "journal.cel"), IMADir: dir, Wake: guest.Poll(time.Millisecond),
	}
	if log, err := os.ReadFile(filepath.Join(dir, "boot.bin")); err == nil && kind == "bpf" {
		cfg.FirmwareLog, cfg.Mirror = &guest.BootLog{Path: "boot.bin", Data: log}, true
	}
	h, err := guest.New(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	if os.Getenv(envApps) != "" {
		for range 2 {
			go applications(h, appRegister(kind), filepath.Join(dir, "answered"))
		}
	}
	return h.Run(ctx)
}

// applications asks for one measurement after another, each with a key, and begins
// with those that were answered last. Answers are written down, a line each.
func applications(h *guest.Helper, r rtmr.Register, answered string) {
	log, err := os.OpenFile(answered, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		panic(err)
	}
	before, err := io.ReadAll(log)
	if err != nil {
		panic(err)
	}
	for k := max(0, lastAnswered(before)-3); ; k++ {
		name := strconv.Itoa(k)
		app, err := guest.Measure(name, "key "+name, strings.NewReader("content of "+name))
		if err != nil {
			panic(err)
		}
		for {
			if _, err = h.Extend(ctx, r, "test", app); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if _, err := fmt.Fprintln(log, name); err != nil {
			panic(err)
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
	}
}

// lastAnswered is the highest number of the lines; -1 if there is none.
func lastAnswered(lines []byte) int {
	last := -1
	for line := range bytes.Lines(lines) {
		if n, err := strconv.Atoi(strings.TrimSpace(string(line))); err == nil {
			last = max(last, n)
		}
	}
	return last
}

// uncertain is a device that now and then does not tell whether it extended.
type uncertain struct{ rtmr.Device }

func (u uncertain) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	time.Sleep(time.Duration(rand.IntN(100)) * time.Microsecond) // so that timers find it at work
	lost := rand.IntN(30)
	if lost == 0 {
		return rtmr.ErrUnknown
	}
	err := u.Device.Extend(ctx, r, digests)
	if lost == 1 && err == nil {
		return rtmr.ErrUnknown
	}
	return err
}

// kills is how often TestKilled kills its child.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv(envKills)); err == nil {
		return n
	}
	return 120
}

// labKills is how often TestLab has each device's helper killed.
func labKills() int {
	if n, err := strconv.Atoi(os.Getenv(envKills)); err == nil {
		return n
	}
	return 60
}

// points are the names of the fault points, as the source has them.
func points(t *testing.T) (names []string) {
	t.Helper()
	if given := os.Getenv(envPoints); given != "" {
		return strings.Split(given, ",")
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	call := regexp.MustCompile(`fault\.(?:Point|Torn)\("([^"]+)"`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range call.FindAllSubmatch(source, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// program is the child's, with its fault points.
func program(t *testing.T) string {
	t.Helper()
	if fault.Compiled {
		return os.Args[0]
	}
	path := filepath.Join(t.TempDir(), "faults.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "faults", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return path
}

// A helper is killed again and again: at every one of its fault points, at any of
// them, and from outside at any moment. The kernel's list grows meanwhile and is
// trimmed, applications retry what they asked for, and the device does not always
// tell what it did. After each death the registers hold a part of what was to be
// extended, in order, each once, and at the end all of it.
func TestKilled(t *testing.T) {
	const each = 40 // deaths that a journal sees
	kind, dir := cmp.Or(os.Getenv(envKind), "bpf"), t.TempDir()
	k := &killing{kind: kind, program: program(t), hits: make(map[string]int)}
	if kind == "bpf" {
		mountBPF(t, dir)
	}
	for _, name := range points(t) {
		if k.has(name) {
			k.hits[name] = 0
		}
	}
	for left := kills(); left > 0; left -= each {
		folder := filepath.Join(dir, strconv.Itoa(left))
		if err := os.Mkdir(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		k.round(t, folder, min(left, each))
	}
	t.Logf("%d kills, %d of them at fault points: %v", k.deaths, k.atPoints, k.hits)
	for name, n := range k.hits {
		if n == 0 {
			t.Errorf("the point %s was never met", name)
		}
	}
	if k.atPoints == k.deaths {
		t.Error("no kill at a random moment")
	}
}

func mountBPF(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "bpf"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", filepath.Join(dir, "bpf"), "bpf", 0, "mode=0755"); err != nil {
		t.Skip("no BPF: cannot mount a BPF file system:", err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(dir, "bpf"), unix.MNT_DETACH) })
}

// has reports whether a helper of the device can come to the point: others extend a
// TPM as a matter of course, no firmware extends its log into registers in the kernel,
// and these alone take a batch.
func (k *killing) has(point string) bool {
	kind, _, _ := strings.Cut(point, ".")
	switch kind {
	case "base":
		return k.kind != "tpm"
	case "mirror", "batch":
		return k.kind == "bpf"
	}
	return true
}

// fresh returns the device, with its registers reset.
func (k *killing) fresh(t *testing.T, dir string) rtmr.Device {
	t.Helper()
	switch k.kind {
	case "tdx":
		reloadModule(t, os.Getenv(envModule))
	case "tpm":
		k.restartTPM(t, dir)
	}
	device, err := openDevice(k.kind, dir)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	return device
}

// reloadModule takes labtsm away, and its registers with it, and loads it anew.
func reloadModule(t *testing.T, file string) {
	t.Helper()
	err := unix.DeleteModule("labtsm", 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		var f *os.File
		if f, err = os.Open(file); err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
			f.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// nodes are the devices of TPMs.
const nodes = "/dev/tpmrm*"

// restartTPM starts another TPM by the proxy, of which this kernel's IMA takes no
// notice, and writes down its device. The one before it goes when the kernel likes.
func (k *killing) restartTPM(t *testing.T, dir string) {
	t.Helper()
	before, err := filepath.Glob(nodes)
	if err != nil {
		t.Fatal(err)
	}
	end := func() {
		k.tpm.Process.Kill()
		k.tpm.Wait()
	}
	if k.tpm != nil {
		end()
	} else {
		t.Cleanup(end)
	}
	k.tpm = exec.Command("swtpm", "chardev", "--vtpm-proxy", "--tpm2", "--tpmstate", "dir="+dir,
		"--locality", "allow-set-locality", "--flags", "not-need-init")
	if err := k.tpm.Start(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		now, err := filepath.Glob(nodes)
		if err != nil || time.Since(began) > time.Minute {
			t.Fatalf("no new TPM in a minute: %v", err)
		}
		now = slices.DeleteFunc(now, func(node string) bool { return slices.Contains(before, node) })
		if len(now) > 0 {
			if err := os.WriteFile(filepath.Join(dir, nodeFile), []byte(now[0]), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// nodeFile has the TPM's device, in a round's folder.
const nodeFile = "node"

// killing is what all rounds share.
type killing struct {
	kind, program    string
	tpm              *exec.Cmd      // that runs
	hits             map[string]int // by point, how often the child died there
	deaths, atPoints int
	rounds           int
	starting         time.Duration // that the last child took
}

// round is a journal and a list, over which children die.
type round struct {
	*testing.T
	*killing
	device rtmr.Device
	dir    string
	list   *growing
	apps   bool
	// from holds the registers at the round's start, and after what the list's
	// register comes to with so many of the list's entries.
	from  rtmr.Values
	after map[string]int
	least int // entries that were extended for certain
	// history is at what point each child died, or "" for another moment; and what
	// was done to its files before.
	history []string
	// damaged says that a journal was, so that the next one does not have all.
	damaged bool
	gaps    bool // all that was read of the list was trimmed at some time
}

// perKill is how many entries the list grows by for each death, on average.
func (k *killing) perKill() int {
	if k.kind == "bpf" {
		return 30
	}
	return 10
}

// round kills children of one journal n times. Damaged journals have a round of
// their own now and then, without applications: keys in what cannot be read are
// forgotten.
func (k *killing) round(t *testing.T, dir string, n int) {
	t.Helper()
	r := &round{T: t, killing: k, device: k.fresh(t, dir), dir: dir, apps: k.rounds%4 != 1}
	k.rounds++
	r.list = grow(t, dir, 20+k.perKill()*n)
	if err := os.WriteFile(filepath.Join(dir, "boot.bin"), fixture(t, bootFixture), 0o644); err != nil {
		t.Fatal(err)
	}
	r.begin()
	for range n {
		j := r.journal()
		point := r.chosen(j)
		r.prepare(point, j)
		r.kill(point)
		r.check()
	}
	r.finish()
}

// begin notes what the list's register holds, and will.
func (r *round) begin() {
	r.Helper()
	var err error
	if r.from, err = r.device.Read(ctx); err != nil {
		r.Fatal(err)
	}
	reg := imaRegister(r.kind)
	d := r.device.Describe()
	info, _ := d.Register(reg)
	values := clonedValues(r.from)
	r.after = map[string]int{registerText(values, reg): 0}
	for i, digests := range r.list.digests(info.Banks) {
		for _, d := range digests {
			d.Alg.Extend(values[d.Alg][reg], d.Sum)
		}
		r.after[registerText(values, reg)] = i + 1
	}
}

// registerText is a register's value in all banks.
func registerText(values rtmr.Values, reg rtmr.Register) (s string) {
	for _, a := range slices.Sorted(maps.Keys(values)) {
		if v, ok := values[a][reg]; ok {
			s += a.String() + v.String()
		}
	}
	return s
}

// chosen says at what point the next child is to die: at one that none died at yet, if
// the journal leads to such, and else at one, at any, or, if "", at none.
func (r *round) chosen(j journaledRound) string {
	var names, unmet []string
	for name, n := range r.hits {
		if !r.leadsTo(name, j) {
			continue
		}
		names = append(names, name)
		if n == 0 {
			unmet = append(unmet, name)
		}
	}
	if len(unmet) > 0 { // those first that only a young journal comes to
		slices.SortFunc(unmet, func(a, b string) int { return cmp.Compare(youth(a), youth(b)) })
		return unmet[0]
	}
	switch rand.IntN(3) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("1/%d", 1+rand.IntN(300))
	}
	name := names[rand.IntN(len(names))]
	if often := strings.HasPrefix(name, "extend.") || strings.HasPrefix(name, "append."); often {
		return fmt.Sprintf("%s:%d", name, 1+rand.IntN(20))
	}
	return name
}

// youth orders points by how much a journal may have that comes to them.
func youth(point string) int {
	if i := slices.Index([]string{"install.before", "install.after", "mirror.before", "mirror.after", "base.before", "base.after"}, point); i >= 0 {
		return i
	}
	return 6
}

// leadsTo reports whether a child that finds this journal can come to the point, once
// prepare has done its part.
func (r *round) leadsTo(point string, j journaledRound) bool {
	kind, _, _ := strings.Cut(point, ".")
	switch kind {
	case "install":
		return j.records == 0
	case "base":
		return r.apps && j.records > 0
	case "mirror":
		return j.boot == 0
	case "aside", "takeover", "note", "rebuild":
		return !r.apps && r.least > 0
	case "gap":
		return r.apps && j.list > 0
	case "key":
		return r.apps
	}
	return true
}

// prepare trims the list or damages the journal, while no child lives: as the point
// wants it, or as it comes.
func (r *round) prepare(point string, j journaledRound) {
	r.Helper()
	kind, _, _ := strings.Cut(point, ".")
	switch {
	case kind == "base":
		r.foreign()
	case !r.apps && (kind == "rebuild" || r.least > 0 && rand.IntN(10) == 0):
		r.remove()
	case !r.apps && j.list > 0 && (kind == "aside" || kind == "takeover" || kind == "note" || rand.IntN(5) == 0):
		r.damage(j)
	case !r.apps || j.list == 0:
	case kind == "gap" || rand.IntN(5) == 0:
		r.gaps = true
		r.list.trim(j.list) // all that was read: who knows what went with it
	case rand.IntN(5) == 0:
		r.list.trim(j.list - 1)
	}
}

// foreign extends a register past the helper, which extends it nowhere.
func (r *round) foreign() {
	r.Helper()
	reg := map[string]rtmr.Register{"bpf": rtmr.MustParse("pcr12"), "tdx": rtmr.MustParse("rtmr1")}[r.kind]
	d := r.device.Describe()
	info, _ := d.Register(reg)
	var digests []rtmr.Digest
	for _, a := range info.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte("others'"))})
		a.Extend(r.from[a][reg], digests[len(digests)-1].Sum)
	}
	if err := r.device.Extend(ctx, reg, digests); err != nil {
		r.Fatal(err)
	}
	r.history = append(r.history, "foreign")
}

// remove takes the journal away, and leaves the copy of the list.
func (r *round) remove() {
	r.Helper()
	if err := os.Remove(r.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	r.history = append(r.history, "remove")
	r.damaged = true
}

// damage flips a bit in the last entry of the kernel's list in the journal.
func (r *round) damage(j journaledRound) {
	r.Helper()
	f, err := os.OpenFile(r.path(), os.O_RDWR, 0)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	r.history = append(r.history, "damage")
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, j.lastData); err != nil {
		r.Fatal(err)
	}
	b[0] ^= 1 << rand.IntN(8)
	if _, err := f.WriteAt(b, j.lastData); err != nil {
		r.Fatal(err)
	}
	r.damaged = true
}

func (r *round) path() string { return filepath.Join(r.dir, "journal.cel") }

// kill starts a child and waits for its death.
func (r *round) kill(point string) {
	r.Helper()
	hit := filepath.Join(r.dir, "hit")
	os.Remove(hit)
	cmd := exec.Command(r.program)
	cmd.Env = append(os.Environ(), envDevice+"="+r.kind, envDir+"="+r.dir)
	if r.apps {
		cmd.Env = append(cmd.Env, envApps+"=1")
	}
	if point != "" {
		cmd.Env = append(cmd.Env, "TALLYSTICK_FAULT="+point, "TALLYSTICK_FAULT_LOG="+hit)
	}
	rest := r.run(cmd, point != "")
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		r.Fatalf("the child ended by itself: %v: %s", cmd.ProcessState, rest)
	}
	r.deaths++
	name, err := os.ReadFile(hit)
	at := strings.TrimSpace(string(name))
	r.history = append(r.history, at)
	if err == nil {
		r.atPoints++
		r.hits[at]++
	}
}

// run runs a child while the list grows, and kills it: after a moment or, if it is to
// die by itself, when it had time enough.
func (r *round) run(cmd *exec.Cmd, itself bool) (said []byte) {
	r.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	stop := make(chan struct{})
	var growth sync.WaitGroup
	growth.Go(func() { r.list.keepGrowing(stop, r.perKill()) })
	first := make([]byte, 200)
	n := 0
	began := time.Now()
	if rand.IntN(4) > 0 { // else it may be killed while it starts
		if n, _ = out.Read(first); n > 0 {
			r.starting = time.Since(began)
		}
	}
	limit := time.Duration(rand.IntN(60)) * time.Millisecond
	if itself {
		limit += 4*r.starting + 200*time.Millisecond
	}
	timer := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	rest, _ := io.ReadAll(out)
	cmd.Wait()
	timer.Stop()
	close(stop)
	growth.Wait()
	return append(first[:n], rest...)
}

// finish has a child come to the end of the list, and holds everything against what
// the registers have to be.
func (r *round) finish() {
	r.Helper()
	r.list.write(len(r.list.records))
	cmd := exec.Command(r.program)
	cmd.Env = append(os.Environ(), envDevice+"="+r.kind, envDir+"="+r.dir)
	if err := cmd.Start(); err != nil {
		r.Fatal(err)
	}
	for began := time.Now(); r.extended() < len(r.list.records); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			cmd.Process.Kill()
			r.Fatalf("%d of %d entries were extended in a minute", r.extended(), len(r.list.records))
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	r.check()
	if r.damaged {
		return
	}
	e := open(r.T, r.device, r.path()) // which extends what the last one left
	e.Close()
	j := r.journal()
	live, err := r.device.Read(ctx)
	if err != nil {
		r.Fatal(err)
	}
	for a, bank := range j.folded {
		for reg, value := range bank {
			if !bytes.Equal(value, live[a][reg]) {
				r.Errorf("%s %s holds %s, the journal folds to %s", a, reg, live[a][reg], value)
			}
		}
	}
	if copied, err := os.ReadFile(filepath.Join(r.dir, "ima.list")); err != nil || !bytes.Equal(copied, r.list.content) {
		r.Errorf("the copy of the list has %d bytes, and the list had %d: %v", len(copied), len(r.list.content), err)
	}
	if want := bootEvents(r.T); r.kind == "bpf" && j.boot != want {
		r.Errorf("%d events of the boot log in the journal, want %d", j.boot, want)
	}
}

// bootEvents counts what the boot log extends.
func bootEvents(t *testing.T) (n int) {
	t.Helper()
	log, err := eventlog.NewReader(bytes.NewReader(fixture(t, bootFixture)), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for m, err := range log.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if !m.NoAction {
			n++
		}
	}
	return n
}

// extended returns how many of the list's entries were extended: the register holds
// what that many of them come to, with the gaps between them of which the journal
// tells, or it is wrong.
func (r *round) extended() int {
	r.Helper()
	reg := imaRegister(r.kind)
	live, err := r.device.Read(ctx, reg)
	if err != nil {
		r.Fatal(err)
	}
	n, ok := r.after[registerText(live, reg)]
	if !ok && r.gaps && !r.damaged {
		n, ok = r.journal().after[registerText(live, reg)]
	}
	if !ok {
		r.Fatalf("%s is what no number of the list's entries comes to; the last time %d were extended; deaths: %q", reg, r.least, r.history)
	}
	if n < r.least {
		r.Fatalf("%d entries were extended, and before that %d", n, r.least)
	}
	r.least = n
	return n
}

// check holds the registers, right after a death, against the list and the journal.
func (r *round) check() {
	r.Helper()
	n := r.extended()
	if r.damaged {
		return
	}
	j := r.journal()
	if n > j.list || j.list-n > 512 {
		r.Fatalf("%d entries were extended, and %d are in the journal", n, j.list)
	}
	answered, err := os.ReadFile(filepath.Join(r.dir, "answered"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	if last := lastAnswered(answered); last >= j.apps {
		r.Fatalf("application %d was answered, and there are %d in the journal", last, j.apps)
	}
	if j.behind < 0 || j.behind > 512 {
		r.Fatalf("%s is what none of the last 512 of the journal's applications come to", appRegister(r.kind))
	}
}

// journaledRound is what a journal has.
type journaledRound struct {
	records          int
	list, boot, apps int
	behind           int            // applications' measurements after the one up to which the register is; -1 for none
	folded           rtmr.Values    // from what registers held at the round's start
	after            map[string]int // by the list's register, how many of its entries lead to it
	lastData         int64          // where the journal has the last byte of the last entry of the list
}

// journal reads the journal up to where a write was torn. It fails the test unless
// it has the list's first entries in order, and each application once and in order.
func (r *round) journal() (j journaledRound) {
	r.Helper()
	live, err := r.device.Read(ctx, appRegister(r.kind))
	if err != nil {
		r.Fatal(err)
	}
	content, err := os.ReadFile(r.path()) // which leads the registers
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.Fatal(err)
	}
	j.folded, j.behind, j.after = clonedValues(r.from), -1, make(map[string]int)
	if equalIn(appRegister(r.kind), live, j.folded) {
		j.behind = 0
	}
	for m, err := range cel.NewReader(bytes.NewReader(content), cel.TLV).Measurements() {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			r.Fatal(err)
		}
		j.records++
		if m.NoAction {
			continue
		}
		for _, d := range m.Digests {
			d.Alg.Extend(j.folded[d.Alg][m.Register], d.Sum)
		}
		r.take(&j, &m)
		switch m.Register {
		case imaRegister(r.kind):
			j.lastData = bytesEnd(content, m)
			j.after[registerText(j.folded, m.Register)] = j.list
		case appRegister(r.kind):
			if j.behind >= 0 {
				j.behind++
			}
			if equalIn(m.Register, live, j.folded) {
				j.behind = 0
			}
		}
	}
	return j
}

// take counts a measurement of the journal.
func (r *round) take(j *journaledRound, m *rtmr.Measurement) {
	r.Helper()
	switch kind := m.Entry.(*cel.Entry).ContentType(); {
	case kind == cel.ContentIMATemplate:
		if !r.damaged && (j.list >= len(r.list.data) || string(m.Entry.Data()) != r.list.data[j.list]) {
			r.Fatalf("entry %d of the journal is not the list's", j.list)
		}
		j.list++
	case kind == cel.ContentPCClient:
		j.boot++
	case m.Entry.Type() == evidence.GapType && r.gaps:
		for _, d := range m.Digests {
			if check, _ := m.Entry.Verify(d); check != rtmr.Verified {
				r.Fatalf("a gap's digest %s is not its data's", d)
			}
		}
	case m.Register == appRegister(r.kind):
		if want := fmt.Sprintf(`"key":"key %d",`, j.apps); !strings.Contains(string(m.Entry.Data()), want) {
			r.Fatalf("application %d in the journal is %s", j.apps, m.Entry.Data())
		}
		j.apps++
	default:
		r.Fatalf("the journal has %s: %s", m.Entry.Type(), m.Entry.Data())
	}
}

// bytesEnd returns where the record's data end in the journal.
func bytesEnd(content []byte, m rtmr.Measurement) int64 {
	data := m.Entry.Data()
	return m.Offset + int64(bytes.Index(content[m.Offset:], data)+len(data)) - 1
}

func clonedValues(values rtmr.Values) rtmr.Values {
	c := make(rtmr.Values)
	for a, bank := range values {
		for reg, v := range bank {
			c.Set(a, reg, bytes.Clone(v))
		}
	}
	return c
}

func equalIn(reg rtmr.Register, a, b rtmr.Values) bool {
	for alg, bank := range a {
		if v, ok := bank[reg]; ok && !bytes.Equal(v, b[alg][reg]) {
			return false
		}
	}
	return true
}

// growing is the kernel's list, of which the first records can be taken away.
type growing struct {
	mu       sync.Mutex
	t        *testing.T
	path     string
	file     *os.File
	records  [][]byte
	data     []string // the records' template data
	content  []byte   // of a list that has all of them
	from, to int      // the records that are in it now
}

// grow makes an empty list, which is to have n entries.
func grow(t *testing.T, dir string, n int) *growing {
	t.Helper()
	g := &growing{t: t, path: filepath.Join(dir, "binary_runtime_measurements")}
	var content bytes.Buffer
	if err := imagen.Write(&content, ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}, n); err != nil {
		t.Fatal(err)
	}
	g.content = content.Bytes()
	last := int64(0)
	for m := range g.measurements(nil) {
		if m.Offset > 0 {
			g.records = append(g.records, g.content[last:m.Offset])
		}
		last = m.Offset
		g.data = append(g.data, string(m.Entry.Data()))
	}
	g.records = append(g.records, g.content[last:])
	g.rewrite()
	t.Cleanup(func() { g.file.Close() })
	return g
}

// measurements are those of the whole list.
func (g *growing) measurements(banks []rtmr.Alg) func(yield func(rtmr.Measurement) bool) {
	return func(yield func(rtmr.Measurement) bool) {
		list, err := ima.NewReader(bytes.NewReader(g.content), ima.Options{Banks: banks})
		if err != nil {
			g.t.Fatal(err)
		}
		for m, err := range list.Measurements() {
			if err != nil {
				g.t.Fatal(err)
			}
			if !yield(m) {
				return
			}
		}
	}
}

// digests are what each entry extends.
func (g *growing) digests(banks []rtmr.Alg) (all [][]rtmr.Digest) {
	for m := range g.measurements(banks) {
		var digests []rtmr.Digest
		for _, d := range m.Digests {
			if slices.Contains(banks, d.Alg) {
				digests = append(digests, rtmr.Digest{Alg: d.Alg, Sum: bytes.Clone(d.Sum)})
			}
		}
		all = append(all, digests)
	}
	return all
}

// rewrite makes the file anew, as it is to be; one that is open stays what it was.
func (g *growing) rewrite() {
	if g.file != nil {
		g.file.Close()
	}
	var err error
	if g.file, err = os.Create(g.path + ".new"); err == nil {
		if _, err = g.file.Write(bytes.Join(g.records[g.from:g.to], nil)); err == nil {
			err = os.Rename(g.path+".new", g.path)
		}
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// trim takes the first records away.
func (g *growing) trim(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n <= g.from {
		return
	}
	g.from = n
	g.rewrite()
}

// write has the list grow by n entries, if there are as many to come.
func (g *growing) write(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n = min(n, len(g.records)-g.to)
	more := bytes.Join(g.records[g.to:g.to+n], nil)
	half := rand.IntN(len(more) + 1) // a reader may see the part of an entry
	for _, part := range [][]byte{more[:half], more[half:]} {
		if _, err := g.file.Write(part); err != nil {
			g.t.Error(err)
		}
	}
	g.to += n
}

// keepGrowing has the list grow by n entries in small steps, until it is to stop.
func (g *growing) keepGrowing(stop <-chan struct{}, n int) {
	for n > 0 {
		step := 1 + rand.IntN(n)
		g.write(step)
		n -= step
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.IntN(10)) * time.Millisecond):
		}
	}
}

// TestKilled on real kernels, with each device.
func TestLab(t *testing.T) {
	for _, c := range []struct {
		device string
		lab.Machine
	}{
		{"tdx", lab.Machine{Kernel: "7.3", TSM: true}},
		{"tpm", lab.Machine{Kernel: "6.12", Modules: []string{"tpm_vtpm_proxy"}}},
		{"bpf", lab.Machine{Kernel: "6.1"}},
	} {
		t.Run(c.device+"-"+c.Kernel, func(t *testing.T) {
			c.Firmware, c.TPM, c.Disk = lab.SeaBIOS, lab.NoTPM, 512
			c.Files = map[string][]byte{
				"/guest/guest.test":        lab.BuildTest(t, "./guest", c.Kernel, "faults"),
				"/fixtures/" + bootFixture: fixture(t, bootFixture),
			}
			if c.device == "tpm" {
				maps.Copy(c.Files, lab.HostProgram(t, "swtpm"))
			}
			g := c.Machine.Start(t)
			for left := labKills(); left > 0; left -= 100 { // an answer takes five minutes at most
				r := g.Exec(lab.Command{
					Args: []string{"/guest/guest.test", "-test.v", "-test.run", "^TestKilled$"},
					Env: []string{envKind + "=" + c.device, fmt.Sprintf("%s=%d", envKills, min(left, 100)),
						envPoints + "=" + strings.Join(points(t), ","), envModule + "=" + lab.TSMModule, "TMPDIR=/run"},
					Dir: "/guest",
				})
				out := string(r.Stdout) + string(r.Stderr)
				t.Logf("%s\n%s", g.Release(), out)
				if r.Status != 0 || !strings.Contains(out, "--- PASS: TestKilled") {
					t.Errorf("status %d", r.Status)
				}
			}
			g.Stop()
		})
	}
}
