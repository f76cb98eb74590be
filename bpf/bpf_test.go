//go:build linux

package bpf_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
)

// TestMain runs a test's child instead, where the environment names one.
func TestMain(m *testing.M) {
	if path := os.Getenv("EXTEND_FOREVER"); path != "" {
		extendForever(path)
	}
	if path := os.Getenv("READ_ONCE"); path != "" {
		readOnce(path)
	}
	os.Exit(m.Run())
}

// bpffs mounts a BPF file system for the test and returns a folder to be made
// in it.
func bpffs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0755"); err != nil {
		t.Skip("no BPF: cannot mount a BPF file system:", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return filepath.Join(dir, "tallystick")
}

func open(t testing.TB, opts bpf.Options) *bpf.Registers {
	t.Helper()
	r, err := bpf.Open(opts)
	if errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, rtmr.ErrDenied) {
		t.Skip("no BPF:", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func read(t testing.TB, r *bpf.Registers) *bpf.Snapshot {
	t.Helper()
	s, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var ctx = context.Background()

func pcr(i int) rtmr.Register { return rtmr.MustParse(fmt.Sprint("pcr", i)) }

// hashes returns the digests of the text, one for each bank.
func hashes(text string) (digests []rtmr.Digest) {
	for _, a := range bpf.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte(text))})
	}
	return digests
}

// resetValues returns all registers as a TPM has them after a reset.
func resetValues() rtmr.Values {
	v := make(rtmr.Values)
	for _, a := range bpf.Banks {
		v[a] = make(map[rtmr.Register]rtmr.Hex)
		for i := range rtmr.NumPCRs {
			v[a][pcr(i)] = make([]byte, a.Size())
			if i >= 17 && i <= 22 {
				v[a][pcr(i)] = bytes.Repeat([]byte{0xFF}, a.Size())
			}
		}
	}
	return v
}

func diff(t *testing.T, got, want rtmr.Values) {
	t.Helper()
	for _, a := range bpf.Banks {
		for i := range rtmr.NumPCRs {
			if !bytes.Equal(got[a][pcr(i)], want[a][pcr(i)]) {
				t.Errorf("%s pcr%d is %s, want %s", a, i, got[a][pcr(i)], want[a][pcr(i)])
			}
		}
	}
}

func TestResetValues(t *testing.T) {
	s := read(t, open(t, bpf.Options{Path: bpffs(t)}))
	diff(t, s.Values(), resetValues())
	if n, last := s.Extends(); n != 0 || last != 0 {
		t.Errorf("%d extends, the last at %v, of new registers", n, last)
	}
}

// Every bank is what the Go standard library's hashes fold to, over 100,000
// random extends in batches of random length.
func TestExtend(t *testing.T) {
	r := open(t, bpf.Options{Path: bpffs(t)})
	want := resetValues()
	random := rand.NewChaCha8([32]byte([]byte("the registers of a software TPM.")))
	pick := rand.New(random)
	perRegister := make([]uint64, rtmr.NumPCRs)

	extends := 100_000
	if testing.Short() {
		extends /= 20
	}
	for n := 0; n < extends; {
		batch := make([]bpf.Entry, min(1+pick.IntN(3000), extends-n))
		for i := range batch {
			index := pick.IntN(rtmr.NumPCRs)
			perRegister[index]++
			batch[i].Register = pcr(index)
			for _, a := range bpf.Banks {
				digest := make([]byte, a.Size())
				random.Read(digest)
				batch[i].Digests = append(batch[i].Digests, rtmr.Digest{Alg: a, Sum: digest})
				value := want[a][pcr(index)]
				copy(value, a.AppendHash(nil, append(bytes.Clone(value), digest...)))
			}
		}
		var err error
		if len(batch) == 1 {
			err = r.Extend(ctx, batch[0].Register, batch[0].Digests)
		} else if done, e := r.ExtendBatch(ctx, batch); done != len(batch) {
			err = errors.Join(e, fmt.Errorf("%d extended, want %d", done, len(batch)))
		}
		if err != nil {
			t.Fatal(err)
		}
		n += len(batch)
		diff(t, read(t, r).Values(), want)
		if t.Failed() {
			t.Fatalf("after %d extends", n)
		}
	}
	s := read(t, r)
	if n, _ := s.Extends(); n != uint64(extends) {
		t.Errorf("%d extends, want %d", n, extends)
	}
	for i, want := range perRegister {
		if got, _ := s.RegisterExtends(pcr(i)); got != want {
			t.Errorf("pcr%d: %d extends, want %d", i, got, want)
		}
	}
}

func TestUpdated(t *testing.T) {
	r := open(t, bpf.Options{Path: bpffs(t)})
	before := boottime(t)
	if err := r.Extend(ctx, pcr(7), hashes("x")); err != nil {
		t.Fatal(err)
	}
	after := boottime(t)
	s := read(t, r)
	_, all := s.Extends()
	_, one := s.RegisterExtends(pcr(7))
	if one != all || one < before || one > after {
		t.Errorf("updated at %v, in pcr7 %v, want one time from %v to %v", all, one, before, after)
	}
	if n, other := s.RegisterExtends(pcr(8)); n != 0 || other != 0 {
		t.Errorf("pcr8: %d extends, the last at %v, want none", n, other)
	}
}

func boottime(t *testing.T) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func TestDevice(t *testing.T) { devicetest.Run(t, open(t, bpf.Options{Path: bpffs(t)})) }

// A batch is looked at as a whole before any of it is extended.
func TestBatchRefused(t *testing.T) {
	r := open(t, bpf.Options{Path: bpffs(t)})
	good := hashes("x")
	for _, e := range []bpf.Entry{{rtmr.MustParse("rtmr2"), good}, {pcr(10), good[:2]}} {
		n, err := r.ExtendBatch(ctx, []bpf.Entry{{pcr(1), good}, e})
		if n != 0 || err == nil || !strings.Contains(err.Error(), "entry 1: ") {
			t.Errorf("%d, %v, want nothing extended, and the entry", n, err)
		}
	}
	if n, err := r.ExtendBatch(ctx, nil); n != 0 || err != nil {
		t.Errorf("empty batch: %d, %v", n, err)
	}
	diff(t, read(t, r).Values(), resetValues())
}

// ladder is what a register comes to if it is always extended by the same
// digests: after n extends, the n-th step. So a value and its counter that were
// read together show whether they belong together, however many extended.
type ladder struct {
	reset rtmr.Register
	steps map[rtmr.Alg][]rtmr.Hex
	mu    sync.Mutex
}

var constant = hashes("always the same")

func newLadder() *ladder { return &ladder{reset: pcr(0), steps: make(map[rtmr.Alg][]rtmr.Hex)} }

func (l *ladder) step(d rtmr.Digest, n uint64) rtmr.Hex {
	l.mu.Lock()
	defer l.mu.Unlock()
	steps := l.steps[d.Alg]
	if steps == nil {
		steps = []rtmr.Hex{make([]byte, d.Alg.Size())}
	}
	for uint64(len(steps)) <= n {
		steps = append(steps, d.Alg.AppendHash(nil, append(bytes.Clone(steps[len(steps)-1]), d.Sum...)))
	}
	l.steps[d.Alg] = steps
	return steps[n]
}

// check reports the first of the registers 0 to 3 that was torn.
func (l *ladder) check(s *bpf.Snapshot) error {
	var sum uint64
	for i := range 4 {
		n, _ := s.RegisterExtends(pcr(i))
		sum += n
		for _, d := range constant {
			if got, want := s.Value(pcr(i), d.Alg), l.step(d, n); !bytes.Equal(got, want) {
				return fmt.Errorf("%s pcr%d is %s, after %d extends it is %s", d.Alg, i, got, n, want)
			}
		}
	}
	if all, _ := s.Extends(); all != sum {
		return fmt.Errorf("%d extends, and %d by register", all, sum)
	}
	return nil
}

func constantBatch(n int) []bpf.Entry {
	batch := make([]bpf.Entry, n)
	for i := range batch {
		batch[i] = bpf.Entry{Register: pcr(i % 4), Digests: constant}
	}
	return batch
}

// childBatch is more than one call into the kernel extends, and a call cannot be
// killed: so a kill can come in the midst of a batch.
const childBatch = 10_000

// extendForever is a child: it says that it is there, and extends in batches.
func extendForever(path string) {
	r, err := bpf.Open(bpf.Options{Path: path})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for batch := constantBatch(childBatch); ; {
		if _, err := r.ExtendBatch(ctx, batch); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// startExtender runs extendForever in a process of its own.
func startExtender(t *testing.T, path string) (kill func()) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "EXTEND_FOREVER="+path)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Process.Kill() })
	line := make([]byte, 100)
	if n, _ := out.Read(line); string(line[:n]) != "ready\n" {
		child.Process.Kill()
		child.Wait()
		t.Fatalf("the child says %q", line[:n])
	}
	return func() {
		child.Process.Kill()
		child.Wait()
		if s := child.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
			t.Errorf("the child was not killed: %v", child.ProcessState)
		}
	}
}

// Extenders in this process and in another change the same registers, readers
// read meanwhile: no extend is lost, and no value is torn.
func TestConcurrent(t *testing.T) {
	path := bpffs(t)
	r := open(t, bpf.Options{Path: path})
	l := newLadder()
	kill := startExtender(t, path)
	var reads, extends atomic.Int64
	began := time.Now()
	going := func() bool { // for two seconds, or until there was enough of each
		enough := reads.Load() >= 5 && extends.Load() >= 1000
		return !t.Failed() && (time.Since(began) < 2*time.Second || !enough && time.Since(began) < time.Minute)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; going(); i++ {
				if err := r.Extend(ctx, pcr(i%4), constant); err != nil {
					t.Error(err)
					return
				}
				extends.Add(1)
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			for ; going(); reads.Add(1) {
				s, err := r.Snapshot()
				if err == nil {
					err = l.check(s)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	kill()
	s := read(t, r)
	if err := l.check(s); err != nil {
		t.Error(err)
	}
	n, _ := s.Extends()
	t.Logf("%d extends, %d by this process; %d reads", n, extends.Load(), reads.Load())
	if extends.Load() < 1000 || reads.Load() < 5 {
		t.Error("too few to show anything")
	}
}

// An extender is killed in the midst of its batches, again and again: what it
// extended is whole, and the next one goes on from there.
func TestKilledExtender(t *testing.T) {
	path := bpffs(t)
	r := open(t, bpf.Options{Path: path})
	l := newLadder()
	var last uint64
	partial := 0
	kills := 20
	if testing.Short() {
		kills = 5
	}
	for i := range kills {
		kill := startExtender(t, path)
		waitForExtends(t, r, last)
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		kill()
		s := read(t, r)
		if err := l.check(s); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		n, _ := s.Extends()
		if n < last {
			t.Fatalf("kill %d: %d extends, before it were %d", i, n, last)
		}
		if (n-last)%childBatch != 0 {
			partial++
		}
		if err := r.Extend(ctx, pcr(3), constant); err != nil {
			t.Fatal(err)
		}
		last = n + 1
	}
	t.Logf("%d extends; %d of %d kills left a part of a batch", last, partial, kills)
	if partial == 0 {
		t.Error("no kill came in the midst of a batch")
	}
}

// waitForExtends waits until there were more than n.
func waitForExtends(t *testing.T, r *bpf.Registers, n uint64) {
	t.Helper()
	for started := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		if now, _ := read(t, r).Extends(); now > n {
			return
		}
		if time.Since(started) > 10*time.Second {
			t.Fatal("the child extends nothing")
		}
	}
}

// readOnce is a child, of another user: it prints what it reads, and what it is
// told if it extends.
func readOnce(path string) {
	r, err := bpf.Open(bpf.Options{Path: path, ReadOnly: true})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := r.Extend(ctx, pcr(0), constant); !errors.Is(err, rtmr.ErrNotWritable) {
		fmt.Println("extend:", err)
		os.Exit(1)
	}
	s, err := r.Snapshot()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(s.Values())
	os.Exit(0)
}

func TestPinsSurviveTheProcess(t *testing.T) {
	path := bpffs(t)
	open(t, bpf.Options{Path: path}).Close()
	startExtender(t, path)()

	s := read(t, open(t, bpf.Options{Path: path}))
	if err := newLadder().check(s); err != nil {
		t.Error(err)
	}
	again := read(t, open(t, bpf.Options{Path: path, ReadOnly: true}))
	diff(t, again.Values(), s.Values())
}

// Who may see the registers: nobody but the owner, or everyone.
func TestPublic(t *testing.T) {
	exe, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []bool{false, true} {
		t.Run(fmt.Sprint(public), func(t *testing.T) {
			path := bpffs(t)
			r := open(t, bpf.Options{Path: path, Public: public})
			if err := r.Extend(ctx, pcr(0), constant); err != nil {
				t.Fatal(err)
			}
			for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
				if dir != "/tmp" {
					os.Chmod(dir, 0o755)
				}
			}
			child := exec.Command(filepath.Join(openDir(t), "bpf.test"))
			if err := os.WriteFile(child.Path, exe, 0o755); err != nil {
				t.Fatal(err)
			}
			child.Env = []string{"READ_ONCE=" + path}
			child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			out, err := child.Output()
			if !public {
				if err == nil || !strings.Contains(string(out), "denied: ") || !strings.Contains(string(out), "permission denied") {
					t.Errorf("another user: %v, %s", err, out)
				}
				return
			}
			var got rtmr.Values
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("another user: %v, %s", err, out)
			}
			diff(t, got, read(t, r).Values())
		})
	}
}

// openDir is a temporary folder that every user can enter.
func openDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "bpf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o755)
	return dir
}

// Root itself writes to the maps in every way that there is.
func TestUserSpaceCannotWrite(t *testing.T) {
	path := bpffs(t)
	r := open(t, bpf.Options{Path: path})
	for _, name := range []string{"state", "layout"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(path, "registers", name), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		byID, err := ebpf.NewMapFromID(id)
		if err != nil {
			t.Fatal(err)
		}
		defer byID.Close()
		value := make([]byte, m.ValueSize())
		for way, err := range map[string]error{
			"by its pin": m.Put(uint32(0), value),
			"by its id":  byID.Put(uint32(0), value),
			"in a batch": batchPut(byID, value),
		} {
			if !errors.Is(err, unix.EPERM) {
				t.Errorf("write to %s %s: %v, want EPERM", name, way, err)
			}
		}
		if _, err := unix.Mmap(m.FD(), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			t.Errorf("%s is mapped for writing", name)
		}
	}
	diff(t, read(t, r).Values(), resetValues())
}

// batchPut is BPF_MAP_UPDATE_BATCH of one value, without the library's checks.
func batchPut(m *ebpf.Map, value []byte) error {
	key := uint32(0)
	attr := struct {
		inBatch, outBatch, keys, values uint64
		count, fd                       uint32
		elemFlags, flags                uint64
	}{
		keys:   uint64(uintptr(unsafe.Pointer(&key))),
		values: uint64(uintptr(unsafe.Pointer(&value[0]))),
		count:  1,
		fd:     uint32(m.FD()),
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_UPDATE_BATCH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&key)
	runtime.KeepAlive(value)
	return errno
}

// pinned makes a folder of pins as Open does, but for what change does to it.
func pinned(t *testing.T, change func(layout, state *ebpf.MapSpec) (freeze bool)) (path string) {
	path = bpffs(t)
	folder := filepath.Join(path, "registers")
	open(t, bpf.Options{Path: path}).Close()
	specs := make(map[string]*ebpf.MapSpec)
	for _, name := range []string{"layout", "state"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(folder, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		value, err := m.LookupBytes(uint32(0))
		if err != nil {
			t.Fatal(err)
		}
		specs[name] = &ebpf.MapSpec{Type: m.Type(), KeySize: 4, ValueSize: m.ValueSize(), MaxEntries: 1,
			Contents: []ebpf.MapKV{{Key: uint32(0), Value: value}}}
		m.Close()
	}
	freeze := change(specs["layout"], specs["state"])
	for name, spec := range specs {
		if err := os.Remove(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMap(spec)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if freeze {
			if err := m.Freeze(); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Pin(filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestLayoutRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(layout, state *ebpf.MapSpec) (freeze bool)
		want   string
	}{
		{"a later version", func(layout, state *ebpf.MapSpec) bool {
			v := bytes.Clone(layout.Contents[0].Value.([]byte))
			for i := range v {
				v[i] <<= 1
			}
			layout.Contents[0].Value = v
			return true
		}, "layout version 2, expected 1"},
		{"a larger state", func(layout, state *ebpf.MapSpec) bool {
			state.ValueSize += 8
			state.Contents = nil
			return true
		}, "state: a map Array with 1 values of 2912 bytes"},
		{"another kind of map", func(layout, state *ebpf.MapSpec) bool {
			state.Type = ebpf.Hash
			return true
		}, "state: a map Hash"},
		{"maps that anyone can write", func(layout, state *ebpf.MapSpec) bool {
			return false
		}, "not frozen"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := pinned(t, c.change)
			before := inodes(t, path)
			for range 2 {
				_, err := bpf.Open(bpf.Options{Path: path})
				if !errors.As(err, new(*bpf.LayoutError)) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want a LayoutError with %q", err, c.want)
				}
			}
			if after := inodes(t, path); after != before {
				t.Errorf("pins were %s, and are %s", before, after)
			}
		})
	}
}

// An extender that stopped within a change, as after a fault in the kernel: no
// reader is given what it left.
func TestReadBusy(t *testing.T) {
	path := pinned(t, func(layout, state *ebpf.MapSpec) bool {
		value := bytes.Clone(state.Contents[0].Value.([]byte))
		value[0], value[7] = 1, 1 // odd in either byte order
		state.Contents[0].Value = value
		return true
	})
	if s, err := open(t, bpf.Options{Path: path, ReadOnly: true}).Snapshot(); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("%v, %v, want ErrBusy", s, err)
	}
}

// Who lacks a capability is denied, and the kernel blamed for nothing.
func TestCapabilities(t *testing.T) {
	path := bpffs(t)
	open(t, bpf.Options{Path: path})
	for name, lacks := range map[string][]int{
		"CAP_PERFMON": {unix.CAP_PERFMON, unix.CAP_SYS_ADMIN},
		"CAP_BPF":     {unix.CAP_BPF, unix.CAP_SYS_ADMIN},
	} {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // which ends with the goroutine: capabilities are a thread's
			err := drop(lacks...)
			if err == nil {
				_, err = bpf.Open(bpf.Options{Path: path})
			}
			done <- err
		}()
		err := <-done
		if !errors.Is(err, rtmr.ErrDenied) || errors.Is(err, rtmr.ErrNotSupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v, want denied", name, err)
		}
	}
}

// drop takes capabilities from the thread.
func drop(capabilities ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	for _, c := range capabilities {
		caps[c/32].Effective &^= 1 << (c % 32)
	}
	return unix.Capset(&header, &caps[0])
}

// inodes tells whether pins are the same ones.
func inodes(t *testing.T, path string) string {
	var b strings.Builder
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, p, info.Sys().(*syscall.Stat_t).Ino)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOpen(t *testing.T) {
	t.Run("nothing there to read", func(t *testing.T) {
		_, err := bpf.Open(bpf.Options{Path: bpffs(t), ReadOnly: true})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v, want not exist", err)
		}
	})
	t.Run("not a BPF file system", func(t *testing.T) {
		_, err := bpf.Open(bpf.Options{Path: filepath.Join(t.TempDir(), "x")})
		if err == nil || !strings.Contains(err.Error(), "in no BPF file system") {
			t.Error(err)
		}
	})
	t.Run("a folder that others can write to", func(t *testing.T) {
		path := bpffs(t)
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o770); err != nil {
			t.Fatal(err)
		}
		_, err := bpf.Open(bpf.Options{Path: path})
		if err == nil || !strings.Contains(err.Error(), "mode 0770") {
			t.Error(err)
		}
	})
	t.Run("no parent", func(t *testing.T) {
		_, err := bpf.Open(bpf.Options{Path: filepath.Join(t.TempDir(), "x/y")})
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "mount -t bpf") {
			t.Error(err)
		}
	})
	t.Run("what a maker that died left", func(t *testing.T) {
		path := bpffs(t)
		open(t, bpf.Options{Path: path}).Close()
		if err := os.Rename(filepath.Join(path, "registers"), filepath.Join(path, "registers-new")); err != nil {
			t.Fatal(err)
		}
		read(t, open(t, bpf.Options{Path: path}))
		if entries, _ := os.ReadDir(path); len(entries) != 1 {
			t.Errorf("%v, want the registers alone", entries)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		path := bpffs(t)
		open(t, bpf.Options{Path: filepath.Join(filepath.Dir(path), "probe")})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				r, err := bpf.Open(bpf.Options{Path: path})
				if err == nil {
					err = errors.Join(r.Extend(ctx, pcr(0), constant), r.Close())
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n, _ := read(t, open(t, bpf.Options{Path: path})).Extends(); n != 8 {
			t.Errorf("%d extends, want 8", n)
		}
	})
	t.Run("modes", func(t *testing.T) {
		path := bpffs(t)
		open(t, bpf.Options{Path: path})
		for _, p := range []string{path, filepath.Join(path, "registers")} {
			if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%v, %v, want 0700", info, err)
			}
		}
	})
}
