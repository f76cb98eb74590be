//go:build linux

package tap_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"
	"unsafe"

	"golang.org/x/sys/unix"

	"tallystick/bpf/tap"
	"tallystick/ima"
	"tallystick/lab"
	"tallystick/rtmr"
)

// TestMain is a test's child instead, where the environment names one.
func TestMain(m *testing.M) {
	switch os.Getenv("TAP_CHILD") {
	case "measure":
		child(measure(os.Getenv("TAP_FILES"), os.Getenv("TAP_COMM")))
	case "collect":
		child(collect())
	case "unprivileged":
		child(unprivileged())
	}
	os.Exit(m.Run())
}

// child ends a child, with what it has to say on its standard output.
func child(v any, err error) {
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(v)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a child of the test.
type process struct {
	*exec.Cmd
	stdin  io.Closer // whose end the child waits for
	stdout *json.Decoder
}

func start(t *testing.T, kind string, env []string, attr *syscall.SysProcAttr) *process {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append([]string{"TAP_CHILD=" + kind}, env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &process{cmd, in, json.NewDecoder(out)}
}

// say reads the next value that the child has to say.
func (p *process) say(t *testing.T, v any) {
	t.Helper()
	if err := p.stdout.Decode(v); err != nil {
		t.Fatalf("child: %v", err)
	}
}

// end lets the child go on, and reads what it says at its end.
func (p *process) end(t *testing.T, v any) {
	t.Helper()
	p.stdin.Close()
	p.say(t, v)
	if err := p.Wait(); err != nil {
		t.Fatalf("child: %v", err)
	}
}

// measurer is who measured.
type measurer struct{ PID, TID int }

// measure has IMA measure the files of a folder, one after another, and three
// more: a file that comes again with another inode and is measured once, and two
// violations, of a file that is read and then written and one the other way round.
func measure(dir, comm string) (m measurer, err error) {
	runtime.LockOSThread()
	name, err := unix.ByteSliceFromString(comm)
	if err != nil {
		return m, err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return m, err
	}
	io.Copy(io.Discard, os.Stdin) // until all are there
	files, err := os.ReadDir(dir)
	if err != nil {
		return m, err
	}
	for _, f := range files {
		if _, err := os.ReadFile(filepath.Join(dir, f.Name())); err != nil {
			return m, err
		}
	}
	path := filepath.Join(dir, "again")
	for range 2 {
		if err := os.WriteFile(path, []byte(dir), 0o600); err != nil {
			return m, err
		}
		if _, err := os.ReadFile(path); err != nil {
			return m, err
		}
		if err := os.Remove(path); err != nil {
			return m, err
		}
	}
	for _, flags := range [][2]int{{os.O_RDONLY, os.O_WRONLY}, {os.O_WRONLY, os.O_RDONLY}} {
		path := filepath.Join(dir, fmt.Sprint("violation", flags[0]))
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			return m, err
		}
		first, err := os.OpenFile(path, flags[0], 0)
		if err != nil {
			return m, err
		}
		second, err := os.OpenFile(path, flags[1], 0)
		if err != nil {
			return m, err
		}
		first.Close()
		second.Close()
	}
	return measurer{os.Getpid(), unix.Gettid()}, nil
}

// filesFor makes n files for measure, in a folder that IMA's policy covers.
func filesFor(t *testing.T, n int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/", "tap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for i := range n {
		path := filepath.Join(dir, fmt.Sprintf("file%03d", i))
		if err := os.WriteFile(path, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// measurements is how many entries of the list measure gives rise to, of files.
func measurements(files int) int { return files + 1 + 2 + 1 } // again, violations, the file written and then read

const imaDir = "/sys/kernel/security/integrity/ima/"

// entry is one of the kernel's list: the other half that records are held against.
type entry struct {
	register  rtmr.Register
	digest    string // "" for a violation
	violation bool
	name      string
}

// list reads the kernel's list, in IMA's default hash.
func list(t *testing.T) []entry {
	t.Helper()
	return listIn(t, hashAlg(t))
}

// listIn reads the list of a bank where the kernel has one (Linux 6.12), and
// hashes the template data where not.
func listIn(t *testing.T, alg rtmr.Alg) []entry {
	t.Helper()
	b, err := os.ReadFile(imaDir + "binary_runtime_measurements_" + alg.String())
	opts := ima.Options{Alg: alg}
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(imaDir + "binary_runtime_measurements")
		opts = ima.Options{Banks: []rtmr.Alg{alg}}
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := ima.NewReader(bytes.NewReader(b), opts)
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for m, err := range r.Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		e := m.Entry.(*ima.Entry)
		next := entry{register: m.Register, violation: e.Violation(), name: e.Name()}
		if !next.violation {
			next.digest = rtmr.Digest{Alg: alg, Sum: e.TemplateHash(alg)}.String()
		}
		all = append(all, next)
	}
	return all
}

// hashAlg is IMA's default hash: Debian's, or the command line's.
func hashAlg(t *testing.T) rtmr.Alg {
	t.Helper()
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range strings.Fields(string(cmdline)) {
		if name, ok := strings.CutPrefix(arg, "ima_hash="); ok {
			alg, err := rtmr.ParseAlg(name)
			if err != nil {
				t.Fatal(err)
			}
			return alg
		}
	}
	return rtmr.SHA256
}

func open(t *testing.T, opts tap.Options) *tap.Tap {
	t.Helper()
	p, err := tap.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	for _, s := range p.Status() {
		t.Log(s)
	}
	return p
}

// openSource is open, and skips where the source is not tapped, or IMA would not
// measure the tests' files.
func openSource(t *testing.T, s tap.Source, opts tap.Options) *tap.Tap {
	t.Helper()
	if b, err := os.ReadFile("/proc/cmdline"); s == tap.IMA && (err != nil || !bytes.Contains(b, []byte(lab.TCB))) {
		t.Skip("no tap: this kernel was not started with", lab.TCB)
	}
	p := open(t, opts)
	if st := p.Status()[s]; st.Method == "" {
		t.Skip("no tap:", st.Err)
	}
	return p
}

// methods runs a test with each of IMA's methods.
func methods(t *testing.T, test func(t *testing.T, opts tap.Options)) {
	for _, m := range []tap.Method{tap.Kprobe, tap.KprobeMulti, tap.Fexit} {
		t.Run(string(m), func(t *testing.T) {
			opts := tap.Options{IMA: m, Recheck: time.Hour}
			if strings.HasPrefix(release(t), "6.1.") && m == tap.KprobeMulti { // without CONFIG_FPROBE
				if s := open(t, opts).Status()[tap.IMA]; s.Method != "" || !errors.Is(s.Err, rtmr.ErrNotSupported) {
					t.Errorf("%v, want not supported", s)
				}
				return
			}
			if got := openSource(t, tap.IMA, opts).Status()[tap.IMA]; got.Method != m || got.Err != nil {
				t.Fatalf("IMA is tapped by %q, %v, want %s", got.Method, got.Err, m)
			}
			test(t, opts)
		})
	}
}

func release(t *testing.T) string {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(name.Release[:])
}

// soon is a context for what has to happen: a loaded machine is slow.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// read returns the next n records of the source.
func read(t *testing.T, p *tap.Tap, s tap.Source, n int) (records []tap.Record) {
	t.Helper()
	for r, err := range p.Records(soon(t)) {
		if err != nil {
			t.Fatalf("after %d of %d records: %v; %v", len(records), n, err, p.Status())
		}
		if r.Source == s {
			records = append(records, r)
		}
		if len(records) == n {
			break
		}
	}
	return records
}

// Several processes measure at once: there is one record for each entry that the
// list got, of the process whose file it is, and none for what was there already.
// By fexit some may be missing, and it is known how many at most.
func TestIMA(t *testing.T) {
	methods(t, func(t *testing.T, opts tap.Options) {
		const processes, files = 16, 8
		cgroups := cgroup2(t)
		type job struct {
			*process
			measurer
			dir, comm string
			cgroup    uint64
		}
		var jobs []*job
		for i := range processes {
			j := &job{dir: filesFor(t, files), comm: fmt.Sprintf("x\x1b[1m\n\xff %d", i)}
			fd, id := makeCgroup(t, cgroups, fmt.Sprint("job", i))
			j.cgroup = id
			j.process = start(t, "measure", []string{"TAP_FILES=" + j.dir, "TAP_COMM=" + j.comm},
				&syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd})
			jobs = append(jobs, j)
		}
		before := len(list(t))
		since := boottime(t)
		p := open(t, opts)
		for _, j := range jobs {
			j.stdin.Close()
		}
		for _, j := range jobs {
			j.end(t, &j.measurer)
		}
		entries := list(t)[before:]
		until := boottime(t)
		if len(entries) < processes*measurements(files) {
			t.Fatalf("the list grew by %d, want %d or more", len(entries), processes*measurements(files))
		}
		status := p.Status()[tap.IMA]
		t.Log(status)
		if want := uint64(len(entries)); status.Measured > want || status.Measured+status.Missed < want || status.Lost != 0 ||
			opts.IMA != tap.Fexit && status.Missed != 0 {
			t.Errorf("%v, want %d measured", status, want)
		}
		records := read(t, p, tap.IMA, int(status.Measured))

		violations := make(map[int]int)
		for _, r := range records {
			i := slices.IndexFunc(entries, func(e entry) bool {
				return e.register == r.Register && e.violation == r.Violation && (e.violation || e.digest == r.Digest.String())
			})
			if i < 0 {
				t.Errorf("%v: no such entry in the list", r)
				continue
			}
			e := entries[i]
			entries = slices.Delete(entries, i, i+1)
			if r.Violation && r.Digest.Sum != nil || r.Name != r.Register.String() {
				t.Errorf("%v: a violation with a digest, or %q", r, r.Name)
			}
			if r.Time < since || r.Time > until {
				t.Errorf("%v: not between %v and %v", r, since, until)
			}
			if s := r.String(); strings.ContainsAny(s, "\x1b\n") || !utf8.ValidString(s) {
				t.Errorf("%q is not escaped", s)
			}
			if r.Violation {
				violations[r.PID]++
				continue // the list's order among them is not known
			}
			for _, j := range jobs {
				if !strings.HasPrefix(e.name, j.dir+"/") {
					continue
				}
				if r.PID != j.PID || r.TID != j.TID || r.PPID != os.Getpid() || r.Comm != j.comm || r.CgroupID != j.cgroup {
					t.Errorf("%v: want %+v, parent %d, %q, cgroup %d for %s", r, j.measurer, os.Getpid(), j.comm, j.cgroup, e.name)
				}
			}
		}
		for _, j := range jobs {
			if n := violations[j.PID]; n > 2 || n < 2 && status.Missed == 0 {
				t.Errorf("%d violations by %d, want 2", n, j.PID)
			}
		}
		wantSequences(t, records)
	})
}

// wantSequences checks that sequences go from 1 without a gap, and are in order
// but for neighbours.
func wantSequences(t *testing.T, records []tap.Record) {
	t.Helper()
	sequences := make([]uint64, len(records))
	for i, r := range records {
		sequences[i] = r.Sequence
	}
	slices.Sort(sequences)
	for i, s := range sequences {
		if s != uint64(i+1) {
			t.Fatalf("sequences %v", sequences)
		}
	}
}

// What one process measures is recorded in the list's order.
func TestOrder(t *testing.T) {
	methods(t, func(t *testing.T, opts tap.Options) {
		c := start(t, "measure", []string{"TAP_FILES=" + filesFor(t, 20), "TAP_COMM=order"}, nil)
		before := len(list(t))
		p := open(t, opts)
		var m measurer
		c.end(t, &m)
		entries := list(t)[before:]
		records := read(t, p, tap.IMA, len(entries))
		for i, e := range entries {
			r := records[i]
			if r.Sequence != uint64(i+1) || r.Register != e.register || r.Violation != e.violation ||
				!e.violation && r.Digest.String() != e.digest {
				t.Errorf("record %d is %v, and the entry %+v", i, r, e)
			}
		}
	})
}

// Wait returns when something was measured, once however much it was, and not
// without.
func TestWait(t *testing.T) {
	methods(t, func(t *testing.T, opts tap.Options) {
		c := start(t, "measure", []string{"TAP_FILES=" + filesFor(t, 30), "TAP_COMM=wait"}, nil)
		before := len(list(t))
		p := open(t, opts)
		wantIdle(t, p, before)
		var m measurer
		c.stdin.Close()
		if err := p.Wait(soon(t), tap.IMA); err != nil {
			t.Fatal(err)
		}
		if len(list(t)) == before {
			t.Error("woken before the list has the entry")
		}
		c.end(t, &m)
		read(t, p, tap.IMA, len(list(t))-before)
		if err := p.Wait(soon(t), tap.IMA); err != nil {
			t.Fatal(err)
		}
		wantIdle(t, p, len(list(t)))
		if s := p.Status()[tap.IMA]; s.Woken != 2 {
			t.Errorf("%v, want woken twice", s)
		}
	})
}

// wantIdle checks that Wait does not return while the list does not grow.
func wantIdle(t *testing.T, p *tap.Tap, length int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err := p.Wait(ctx, tap.IMA)
	if now := len(list(t)); now != length {
		t.Fatalf("something else measured %d", now-length)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait returned %v though nothing was measured", err)
	}
}

// collected is what a reader that was stopped had in the end.
type collected struct {
	Digests []string
	Status  []uint64 // measured, lost, missed
}

// collect opens a tap, and tells what is in it when its standard input ends.
func collect() (c collected, err error) {
	var opts tap.Options
	if err := json.Unmarshal([]byte(os.Getenv("TAP_OPTIONS")), &opts); err != nil {
		return c, err
	}
	if options := os.Getenv("TAP_PROC"); options != "" {
		if err := unix.Mount("proc", "/proc", "proc", 0, options); err != nil {
			return c, err
		}
	}
	p, err := tap.Open(opts)
	if err != nil {
		return c, err
	}
	fmt.Println(`"open"`)
	io.Copy(io.Discard, os.Stdin)
	if err := p.Close(); err != nil {
		return c, err
	}
	for r, err := range p.Records(context.Background()) {
		if errors.Is(err, os.ErrClosed) {
			break
		}
		if err != nil {
			return c, err
		}
		if r.Violation {
			c.Digests = append(c.Digests, "")
		} else {
			c.Digests = append(c.Digests, r.Digest.String())
		}
	}
	s := p.Status()[tap.IMA]
	c.Status = []uint64{s.Measured, s.Lost, s.Missed}
	return c, s.Err
}

// A reader that is too slow loses records, in the kernel's ring or in its own
// buffer, and knows how many.
func TestLost(t *testing.T) {
	openSource(t, tap.IMA, tap.Options{})
	for name, c := range map[string]struct {
		opts  tap.Options
		stop  bool
		lose  bool
		reads int // no more than
	}{
		"ring":   {opts: tap.Options{Ring: os.Getpagesize()}, stop: true, lose: true, reads: os.Getpagesize() / 176},
		"buffer": {opts: tap.Options{Buffer: 7}, lose: true, reads: 7},
		"none":   {opts: tap.Options{}, stop: true, reads: 1024},
	} {
		t.Run(name, func(t *testing.T) {
			opts, _ := json.Marshal(c.opts)
			m := start(t, "measure", []string{"TAP_FILES=" + filesFor(t, 100), "TAP_COMM=lost"}, nil)
			reader := start(t, "collect", []string{"TAP_OPTIONS=" + string(opts)}, nil)
			before := len(list(t))
			reader.say(t, new(string))
			if n := len(list(t)); n != before {
				t.Fatalf("opening measured %d", n-before)
			}
			if c.stop {
				reader.Process.Signal(syscall.SIGSTOP)
				var status syscall.WaitStatus
				if _, err := syscall.Wait4(reader.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
					t.Fatal("child does not stop:", err)
				}
			}
			m.end(t, new(measurer))
			grown := len(list(t)) - before
			reader.Process.Signal(syscall.SIGCONT)
			var got collected
			reader.end(t, &got)
			measured, lost := got.Status[0], got.Status[1]
			if measured != uint64(grown) || uint64(len(got.Digests))+lost != measured || got.Status[2] != 0 {
				t.Errorf("%d records, measured, lost and missed %v; the list grew by %d", len(got.Digests), got.Status, grown)
			}
			if c.lose != (lost > 0) || len(got.Digests) > c.reads {
				t.Errorf("%d records and %d lost, want %d records at most, some lost: %v", len(got.Digests), lost, c.reads, c.lose)
			}
		})
	}
}

// Where addresses are not told, the digest is the one in the first bank, which is
// SHA-1 in all of the lab's machines: by the kernel, or in a process whose /proc
// has nothing but processes, as systemd's ProcSubset=pid makes it.
func TestRestricted(t *testing.T) {
	openSource(t, tap.IMA, tap.Options{})
	t.Run("kptr_restrict", func(t *testing.T) {
		const restrict = "/proc/sys/kernel/kptr_restrict"
		old, err := os.ReadFile(restrict)
		if err != nil {
			t.Fatal(err)
		}
		set := func(value []byte) {
			if err := os.WriteFile(restrict, value, 0); err != nil {
				t.Fatal(err)
			}
		}
		set([]byte("2"))
		defer set(old)
		wantFirstBank(t, nil, nil)
	})
	t.Run("subset=pid", func(t *testing.T) {
		wantFirstBank(t, []string{"TAP_PROC=subset=pid"}, &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	})
}

// wantFirstBank checks the digests that such a reader has.
func wantFirstBank(t *testing.T, env []string, attr *syscall.SysProcAttr) {
	t.Helper()
	m := start(t, "measure", []string{"TAP_FILES=" + filesFor(t, 3), "TAP_COMM=restricted"}, nil)
	reader := start(t, "collect", append(env, "TAP_OPTIONS={}"), attr)
	reader.say(t, new(string))
	before := len(listIn(t, rtmr.SHA1))
	m.end(t, new(measurer))
	var want []string
	for _, e := range listIn(t, rtmr.SHA1)[before:] {
		want = append(want, e.digest)
	}
	var got collected
	reader.end(t, &got)
	if !slices.Equal(got.Digests, want) {
		t.Errorf("digests %q, want %q", got.Digests, want)
	}
}

// Who writes to a register is recorded; a write that fails is not.
func TestTSM(t *testing.T) {
	const dir = "/sys/devices/virtual/misc/tdx_guest/measurements/"
	p := openSource(t, tap.TSM, tap.Options{Recheck: time.Hour})
	if s := p.Status()[tap.TSM]; s.Method != tap.RawTracepoint || s.Err != nil {
		t.Fatal(s)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no tap:", err)
	}
	write := func(register int, digest []byte) error {
		f, err := os.OpenFile(fmt.Sprintf("%srtmr%d:sha384", dir, register), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = unix.Write(int(f.Fd()), digest)
		return err
	}
	digest := func(b byte) []byte { return bytes.Repeat([]byte{b, 1}, 24) }
	fail := func(mask string) {
		if err := os.WriteFile("/sys/module/labtsm/parameters/fail", []byte(mask), 0); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fail("8")
	defer fail("0")
	if err := write(3, digest(0)); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	if err := write(2, digest(0)[:47]); !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := write(i, digest(byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Wait(soon(t), tap.TSM); err != nil {
		t.Fatal(err)
	}
	for i, r := range read(t, p, tap.TSM, 3) {
		name := fmt.Sprintf("rtmr%d", i)
		want := rtmr.Digest{Alg: rtmr.SHA384, Sum: digest(byte(i))}
		if r.Name != name || r.Register != rtmr.MustParse(name) || !r.Digest.Equal(want) || r.Sequence != uint64(i+1) ||
			r.PID != os.Getpid() || r.TID != unix.Gettid() || r.PPID != os.Getppid() {
			t.Errorf("%v, want %s %v by %d", r, name, want, os.Getpid())
		}
	}
	if s := p.Status()[tap.TSM]; s.Measured != 3 || s.Lost != 0 || s.Missed != 0 {
		t.Error(s)
	}
	// Of one that is not a TD's, the kernel's name is all there is.
	if err := write(4, digest(4)); err != nil {
		t.Fatal(err)
	}
	if r := read(t, p, tap.TSM, 1)[0]; r.Name != "rtmr4" || !r.Register.IsZero() || !bytes.Equal(r.Digest.Sum, digest(4)) {
		t.Error(r)
	}
}

// Where nothing is tapped, it says why and polls.
func TestPoll(t *testing.T) {
	p := open(t, tap.Options{Poll: 10 * time.Millisecond, Recheck: time.Hour})
	off := 0
	for _, s := range p.Status() {
		if s.Method != "" {
			continue
		}
		off++
		wantOff(t, p, s)
	}
	if off == 2 {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.Next(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Next(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := p.Wait(t.Context(), tap.IMA); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func wantOff(t *testing.T, p *tap.Tap, s tap.Status) {
	t.Helper()
	if !errors.Is(s.Err, rtmr.ErrNotSupported) && !errors.Is(s.Err, rtmr.ErrDenied) {
		t.Errorf("%v: the reason is neither what the kernel lacks nor what is denied", s)
	}
	if !strings.Contains(s.String(), "not tapped, polling every 10ms: ") {
		t.Error(s)
	}
	if err := p.Wait(soon(t), s.Source); err != nil {
		t.Errorf("%v: %v", s, err)
	}
}

// unprivileged tells why nothing is tapped, after it polled.
func unprivileged() (reasons []string, err error) {
	p, err := tap.Open(tap.Options{Poll: 10 * time.Millisecond, Recheck: time.Hour})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	for _, s := range p.Status() {
		if s.Method != "" || !errors.Is(s.Err, rtmr.ErrDenied) {
			return nil, fmt.Errorf("%v, want denied", s)
		}
		if err := p.Wait(context.Background(), s.Source); err != nil {
			return nil, err
		}
		reasons = append(reasons, s.String())
	}
	return reasons, nil
}

func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("no BPF: it is for root to become another user: operation not permitted")
	}
	c := start(t, "unprivileged", nil, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}})
	var reasons []string
	c.end(t, &reasons)
	for _, r := range reasons {
		t.Log(r)
	}
}

// Under lockdown=confidentiality nothing is tapped, and the reason says so.
func TestConfidentiality(t *testing.T) {
	if b, _ := os.ReadFile("/sys/kernel/security/lockdown"); !bytes.Contains(b, []byte("[confidentiality]")) {
		t.Skip("no tap: not under lockdown=confidentiality")
	}
	p := open(t, tap.Options{Poll: 10 * time.Millisecond})
	for _, s := range p.Status() {
		if s.Method != "" || !errors.Is(s.Err, rtmr.ErrDenied) || !strings.Contains(s.Err.Error(), "lockdown=confidentiality") {
			t.Errorf("%v, want denied under lockdown=confidentiality", s)
		}
		wantOff(t, p, s)
	}
}

func TestOptions(t *testing.T) {
	for _, ring := range []int{1, 5000, 3 * 4096, -4096} {
		if p, err := tap.Open(tap.Options{Ring: ring}); err == nil {
			p.Close()
			t.Errorf("a ring of %d bytes is accepted", ring)
		}
	}
	if p, err := tap.Open(tap.Options{IMA: tap.RawTracepoint}); err == nil {
		p.Close()
		t.Error("IMA by a tracepoint is accepted")
	}
}

// cgroup2 mounts the unified hierarchy.
func cgroup2(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("cgroup2", dir, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// makeCgroup makes a group and returns a descriptor of it, and its id: the inode
// number of its folder.
func makeCgroup(t *testing.T, root, name string) (fd int, id uint64) {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		os.Remove(dir)
	})
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return int(f.Fd()), stat.Ino
}

func boottime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
