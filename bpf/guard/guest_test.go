//go:build linux

package guard_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tallystick/bpf/guard"
)

const (
	path    = "/sys/fs/bpf/tallystick"
	reports = "/sys/kernel/config/tsm/report"
)

// guest is what happens in one boot of a machine: a guard is armed once.
func guest(t *testing.T) {
	if os.Getenv(inGuest) == "no-lsm" {
		t.Run("unsupported", testUnsupported)
		return
	}
	// As systemd has it, and as an umount in another namespace reaches this one.
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	device := makeDevice(t)

	if !t.Run("before", func(t *testing.T) { testBefore(t, device) }) {
		return
	}
	h := startHelper(t, "helper", nil)
	h.do("open", path, os.Getenv(inGuest))
	x := &target{path: path, mount: "/sys/fs/bpf", above: "/sys", helper: h.cmd.Process.Pid}
	x.held = hold(t, x)
	stale := openStale(t, device)
	h.do("arm")
	h.do("extend")
	status(t, h, false)
	t.Run("armed", func(t *testing.T) { testArmed(t, h, x) })
	t.Run("namespaces", func(t *testing.T) { testNamespaces(t, h) })
	t.Run("links", func(t *testing.T) { testLinks(t) })
	t.Run("admission", func(t *testing.T) { testAdmission(t, h) })
	t.Run("rest", testRest)

	closed := h.do("seal").Closed
	if want := stale.entries(); !slices.Equal(closed, want) {
		t.Errorf("sealing removed the entries %q, want %q", closed, want)
	}
	status(t, h, true)
	t.Run("sealed", func(t *testing.T) { testSealed(t, h, device, stale) })
	t.Run("rest_sealed", testRest)

	t.Run("restarted", func(t *testing.T) {
		before := h.do("extend").Extends
		h.kill()
		again := startHelper(t, "helper", nil)
		again.do("open", path)
		again.do("arm")
		status(t, again, true)
		if n := again.do("extend").Extends; n != before+1 {
			t.Errorf("%d extends, want %d", n, before+1)
		}
		x.helper = again.cmd.Process.Pid
		denied(t, again, func() {
			for _, a := range attacks {
				if a.what == guard.Umount || a.what == guard.OpenMap && !a.reads {
					if err := a.try(x); !errors.Is(err, unix.EPERM) {
						t.Errorf("%s: %v, want EPERM", a.name, err)
					}
				}
			}
		}, guard.OpenMap, guard.Umount, guard.Umount)
		testHelperReports(t, again, device)
	})
}

// testUnsupported shows that a guard whose programs are not asked is no guard.
func testUnsupported(t *testing.T) {
	h := startHelper(t, "helper", nil)
	h.do("open", path)
	if a := h.try("arm"); a.Kind != "not supported" || !strings.Contains(a.Err, "bpf in lsm=") {
		t.Errorf("to arm without BPF LSM: %+v", a)
	}
	if _, err := os.Stat(filepath.Join(path, "guard")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a guard that is none left its pins: %v", err)
	}
	h.do("extend")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hold(t *testing.T, x *target) *ebpf.Map {
	t.Helper()
	m, err := ebpf.LoadPinnedMap(x.pin("state"), &ebpf.LoadPinOptions{ReadOnly: true})
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// cannotTell is whether this kernel does not tell a program's maps.
func cannotTell(t *testing.T) bool {
	lockdown, err := os.ReadFile("/sys/kernel/security/lockdown")
	must(t, err)
	vmlinux, err := btf.LoadKernelSpec()
	must(t, err)
	var f *btf.Func
	return strings.Contains(string(lockdown), "[confidentiality]") && vmlinux.TypeByName("bpf_rdonly_cast", &f) != nil
}

// status checks what the guard says of itself.
func status(t *testing.T, h *helper, sealed bool) {
	t.Helper()
	s := h.do("status").Status
	if s.Sealed != sealed || len(s.Hooks) < 12 || len(s.Missing) != 0 || s.Restart != "" || s.Lost != 0 || s.Programs == cannotTell(t) {
		t.Errorf("status %+v", s)
	}
}

// testBefore shows that each attack works while there is no guard.
func testBefore(t *testing.T, device string) {
	x := &target{path: "/run/before/bpf/tallystick", mount: "/run/before/bpf", above: "/run/before"}
	mount := func() {
		must(t, os.MkdirAll(x.above, 0o755))
		must(t, unix.Mount("tmpfs", x.above, "tmpfs", 0, ""))
		must(t, os.Mkdir(x.mount, 0o755))
		must(t, unix.Mount("bpf", x.mount, "bpf", 0, "mode=0700"))
	}
	mount()
	h := startHelper(t, "helper", nil)
	h.do("open", x.path)
	x.helper = h.cmd.Process.Pid
	x.held = hold(t, x)
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			if err := a.try(x); err != nil {
				t.Error(err)
			}
			if a.name == "umount_above" {
				if _, err := os.Stat(x.mount); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("what was mounted below is still there: %v", err)
				}
				mount()
			}
		})
	}
	t.Run("read_child", func(t *testing.T) {
		if err := readChild(t, h); err != nil {
			t.Error(err)
		}
	})
	onDisk := startHelper(t, "on-disk", nil)
	onDisk.do("open", "/sys/fs/bpf/on-disk")
	if a := onDisk.try("arm"); a.Kind != "not in memory" {
		t.Errorf("to arm from a disk: %+v", a)
	}
	must(t, os.RemoveAll("/sys/fs/bpf/on-disk"))
	for _, s := range sealedAttacks(t, device) {
		t.Run(s.name, func(t *testing.T) {
			if err := s.try(); errors.Is(err, unix.EPERM) {
				t.Error(err)
			}
		})
	}
}

// denied checks that each of what was denied meanwhile was logged.
func denied(t *testing.T, h *helper, f func(), want ...guard.What) {
	t.Helper()
	h.do("denials")
	f()
	var got []guard.What
	for _, d := range h.do("denials").Denials {
		got = append(got, d.What)
		if d.PID != os.Getpid() || d.UID != 0 || d.Comm == "" || d.Time <= 0 {
			t.Errorf("denial %+v, want it to name process %d", d, os.Getpid())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged were %v, want %v", got, want)
	}
}

// testArmed shows that each attack is denied, and logged.
func testArmed(t *testing.T, h *helper, x *target) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			if a.what == guard.UseMap && cannotTell(t) {
				if err := a.try(x); err != nil {
					t.Errorf("%v; Status and docs/threat-model.md say that this works", err)
				}
				return
			}
			if a.reads && os.Getenv(inGuest) == "public" {
				if err := a.try(x); err != nil {
					t.Errorf("public registers: %v", err)
				}
				return
			}
			denied(t, h, func() {
				if err := a.try(x); !errors.Is(err, unix.EPERM) {
					t.Errorf("%v, want EPERM", err)
				}
			}, a.what)
		})
	}
	t.Run("unlink_guard", func(t *testing.T) {
		denied(t, h, func() {
			if err := os.Remove(filepath.Join(path, "guard", "bpf_map")); !errors.Is(err, unix.EPERM) {
				t.Errorf("%v, want EPERM", err)
			}
		}, guard.Unpin)
	})
	t.Run("read_child", func(t *testing.T) {
		denied(t, h, func() {
			if err := readChild(t, h); !errors.Is(err, unix.EPERM) {
				t.Errorf("%v, want EPERM", err)
			}
		}, guard.Trace)
	})
	t.Run("umount_lazily", func(t *testing.T) {
		denied(t, h, func() {
			if err := unix.Unmount(x.mount, unix.MNT_DETACH); !errors.Is(err, unix.EPERM) {
				t.Errorf("%v, want EPERM", err)
			}
		}, guard.Umount)
	})
	h.do("extend")
}

// testNamespaces shows that an umount reaches no further than it may.
func testNamespaces(t *testing.T, h *helper) {
	elsewhere := func(propagation uintptr) (err error) {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and let the thread end
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				done <- err
				return
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
				done <- err
				return
			}
			done <- unix.Unmount("/sys", unix.MNT_DETACH)
		}()
		return <-done
	}
	denied(t, h, func() {
		if err := elsewhere(unix.MS_SHARED); !errors.Is(err, unix.EPERM) {
			t.Errorf("an umount that reaches the first namespace: %v, want EPERM", err)
		}
	}, guard.Umount)
	if err := elsewhere(unix.MS_PRIVATE); err != nil {
		t.Errorf("an umount that does not: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

// testLinks shows that root may open the guard's links, and cannot detach them.
func testLinks(t *testing.T) {
	it := new(link.Iterator)
	defer it.Close()
	n := 0
	for it.Next() {
		info, err := it.Link.Info()
		must(t, err)
		if info.Type != link.TracingType {
			continue
		}
		n++
		if err := it.Link.Detach(); err == nil {
			t.Errorf("link %d is detached", info.ID)
		}
		p, err := newProgram(&ebpf.ProgramSpec{
			Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open", License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
		})
		must(t, err)
		defer p.Close()
		if err := it.Link.Update(p); err == nil {
			t.Errorf("link %d has another program", info.ID)
		}
	}
	must(t, it.Err())
	if n < 12 {
		t.Errorf("%d links, want those of the guard", n)
	}
}

// testAdmission shows who is not admitted, and why.
func testAdmission(t *testing.T, h *helper) {
	executes := func(want ...guard.Unfit) {
		t.Helper()
		var got []guard.Unfit
		for _, d := range h.do("denials").Denials {
			if d.What == guard.Execute {
				got = append(got, guard.Unfit(d.Object))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("executions %v, want %v", got, want)
		}
	}
	h.do("denials")

	onDisk := startHelper(t, "on-disk", nil)
	if a := onDisk.try("open", path); a.Kind != "EPERM" {
		t.Errorf("the helper's program on a disk: %+v", a)
	}
	onDisk.do("open", "/sys/fs/bpf/mine")
	if a := onDisk.try("arm"); a.Kind != "not admitted" {
		t.Errorf("a second guard, by another process: %+v", a)
	}
	executes()

	// The same program, where it was not the kernel alone that ran it.
	seccomp := startHelper(t, "seccomp", nil)
	if a := seccomp.try("open", path); a.Kind != "EPERM" {
		t.Errorf("the helper's program under seccomp: %+v", a)
	}
	executes(guard.Seccomp)

	other := startHelper(t, "on-disk", func(c *exec.Cmd) { c.Path = changed(t) })
	if a := other.try("open", path); a.Kind != "EPERM" {
		t.Errorf("another program of the same size: %+v", a)
	}
	executes(guard.OtherHash)

	executeTraced(t)
	executes(guard.Traced)

	// Another file system in the pins' place does not hide the guard.
	hidden := startHelper(t, "helper", func(c *exec.Cmd) {
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	})
	hidden.do("fake-mount", "/sys/fs/bpf")
	hidden.do("open", path)
	if a := hidden.try("arm"); a.Kind != "other registers" {
		t.Errorf("false registers: %+v", a)
	}

	second := startHelper(t, "helper", nil)
	second.do("open", path)
	second.do("arm")
	second.kill()
	if n := h.do("status").Status.Admitted; n != 2 {
		t.Errorf("%d executions admitted, want 2", n)
	}
}

// inMemory returns the path of a copy of this program in memory, after change.
func inMemory(t *testing.T, change func([]byte)) string {
	program, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	change(program)
	dir, err := os.MkdirTemp("/run", "program-")
	must(t, err)
	name := filepath.Join(dir, "helper")
	must(t, os.WriteFile(name, program, 0o755))
	return name
}

func changed(t *testing.T) string {
	return inMemory(t, func(p []byte) {
		at := bytes.Index(p, []byte("what is %q?"))
		if at < 0 {
			t.Fatal("the program has not its own text")
		}
		p[at]++
	})
}

// executeTraced executes this program, in memory, under a debugger.
func executeTraced(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(inMemory(t, func([]byte) {}))
	cmd.Env = append(os.Environ(), role+"=wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	must(t, cmd.Start())
	cmd.Process.Kill()
	cmd.Wait()
}

// testRest shows that the rest of the system works.
func testRest(t *testing.T) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(t, err)
	defer m.Close()
	for _, dir := range []string{"/sys/fs/bpf", path} {
		folder := filepath.Join(dir, "rest")
		must(t, os.Mkdir(folder, 0o700))
		must(t, m.Pin(filepath.Join(folder, "a")))
		must(t, os.Rename(filepath.Join(folder, "a"), filepath.Join(folder, "b")))
		p, err := ebpf.LoadPinnedMap(filepath.Join(folder, "b"), nil)
		must(t, err)
		must(t, p.Put(uint32(0), uint32(1)))
		p.Close()
		must(t, os.Remove(filepath.Join(folder, "b")))
		must(t, os.Remove(folder))
	}
	for _, spec := range []*ebpf.ProgramSpec{
		{Type: ebpf.SocketFilter},
		{Type: ebpf.TracePoint},
		{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map"},
		{Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open"},
	} {
		spec.License = "GPL"
		spec.Instructions = asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Imm(asm.R0, 0), asm.Return(),
		}
		p, err := newProgram(spec)
		if err != nil {
			t.Errorf("%s: %v", spec.Type, err)
			continue
		}
		p.Close()
	}
	wait := startHelper(t, "wait", nil)
	if err := ptrace(wait.cmd.Process.Pid); err != nil {
		t.Errorf("ptrace: %v", err)
	}
	must(t, os.MkdirAll("/run/rest", 0o755))
	must(t, unix.Mount("tmpfs", "/run/rest", "tmpfs", 0, ""))
	must(t, unix.Mount("bpf", "/run/rest", "bpf", 0, ""))
	must(t, unix.Unmount("/run/rest", 0))
	must(t, unix.Unmount("/run/rest", unix.MNT_DETACH))
	if _, err := os.Stat("/sys/kernel/config"); err == nil {
		if _, err := os.ReadDir("/sys/kernel/config"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat("/sys/kernel/config/netconsole"); err == nil {
		must(t, os.Mkdir("/sys/kernel/config/netconsole/rest", 0o755))
		if _, err := os.ReadFile("/sys/kernel/config/netconsole/rest/enabled"); err != nil {
			t.Error(err)
		}
		must(t, os.Remove("/sys/kernel/config/netconsole/rest"))
	}
	if err := ioctlFile("/dev/cpu_dma_latency", 0); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("another ioctl of a misc device: %v, want ENOTTY", err)
	}
}

// makeDevice returns the report device, and makes one where there is none: a
// misc device that has its name, and knows nothing of reports.
func makeDevice(t *testing.T) string {
	for _, name := range []string{"/dev/tdx_guest", "/dev/sev-guest"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	var st unix.Stat_t
	must(t, unix.Stat("/dev/cpu_dma_latency", &st))
	must(t, unix.Mknod("/dev/tdx_guest", unix.S_IFCHR|0o600, int(st.Rdev)))
	return "/dev/tdx_guest"
}

// stale is what an attacker has open since before the seal.
type stale struct {
	device  *os.File
	inblob  *os.File // nil where no provider has any
	outblob *os.File
}

func openStale(t *testing.T, device string) *stale {
	s := &stale{}
	var err error
	s.device, err = os.Open(device)
	must(t, err)
	if !haveProvider(t) {
		return s
	}
	dir := filepath.Join(reports, "stale")
	must(t, os.Mkdir(dir, 0o755))
	s.inblob, err = os.OpenFile(filepath.Join(dir, "inblob"), os.O_WRONLY, 0)
	must(t, err)
	s.outblob, err = os.Open(filepath.Join(dir, "outblob"))
	must(t, err)
	return s
}

func (s *stale) entries() []string {
	if s.inblob == nil {
		return nil
	}
	return []string{"stale"}
}

// haveProvider tells whether configfs-tsm gives reports here.
func haveProvider(t *testing.T) bool {
	err := os.Mkdir(filepath.Join(reports, "probe"), 0o755)
	if err == nil {
		must(t, os.Remove(filepath.Join(reports, "probe")))
	}
	return err == nil
}

type sealedAttack struct {
	name string
	what guard.What
	try  func() error
}

// sealedAttacks are attacks on the report interfaces.
func sealedAttacks(t *testing.T, device string) []sealedAttack {
	command := uint(tdxReport0)
	if strings.HasSuffix(device, "sev-guest") {
		command = 0xc0205300 // SNP_GET_REPORT
	}
	list := []sealedAttack{
		{"open_device", guard.OpenDevice, func() error {
			f, err := os.Open(device)
			return closing(f, err)
		}},
		{"mknod_ioctl", guard.Ioctl, func() error {
			other := otherDevice(t)
			name := filepath.Join(t.TempDir(), "device")
			if err := unix.Mknod(name, unix.S_IFCHR|0o600, other); err != nil {
				return err
			}
			return ioctlFile(name, command)
		}},
		{"fmod_ret", guard.Alter, func() error {
			return closing(newProgram(&ebpf.ProgramSpec{
				Type: ebpf.Tracing, AttachType: ebpf.AttachModifyReturn, AttachTo: "security_file_open", License: "GPL",
				Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
			}))
		}},
	}
	if canWriteRegs(t) {
		list = append(list, sealedAttack{"write_user_registers", guard.Alter, func() error {
			return closing(newProgram(&ebpf.ProgramSpec{
				Type: ebpf.Kprobe, License: "GPL",
				Instructions: asm.Instructions{
					asm.Mov.Imm(asm.R0, 0),
					asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord), // struct pt_regs
					asm.Return(),
				},
			}))
		}})
	}
	if _, err := os.Stat(reports); err == nil {
		list = append(list, sealedAttack{"new_report", guard.NewReport, func() error {
			name := filepath.Join(reports, "attack")
			if err := os.Mkdir(name, 0o755); err != nil {
				return err
			}
			return os.Remove(name)
		}})
	}
	return list
}

// canWriteRegs tells whether a program on a uprobe may write a process's
// registers (Linux 6.18).
func canWriteRegs(t *testing.T) bool {
	vmlinux, err := btf.LoadKernelSpec()
	must(t, err)
	var aux *btf.Struct
	must(t, vmlinux.TypeByName("bpf_prog_aux", &aux))
	return slices.ContainsFunc(aux.Members, func(m btf.Member) bool { return m.Name == "kprobe_write_ctx" })
}

// otherDevice is a misc device's number, whatever that device is.
func otherDevice(t *testing.T) int {
	var st unix.Stat_t
	must(t, unix.Stat("/dev/cpu_dma_latency", &st))
	return int(st.Rdev)
}

func testSealed(t *testing.T, h *helper, device string, s *stale) {
	for _, a := range sealedAttacks(t, device) {
		t.Run(a.name, func(t *testing.T) {
			denied(t, h, func() {
				if err := a.try(); !errors.Is(err, unix.EPERM) {
					t.Errorf("%v, want EPERM", err)
				}
			}, a.what)
		})
	}
	t.Run("open_descriptor", func(t *testing.T) {
		denied(t, h, func() {
			if err := ioctl(s.device, tdxReport0); !errors.Is(err, unix.EPERM) {
				t.Errorf("%v, want EPERM", err)
			}
		}, guard.Ioctl)
	})
	t.Run("ioctl_32_bit", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "device")
		must(t, unix.Mknod(name, unix.S_IFCHR|0o600, otherDevice(t)))
		cmd := exec.Command(program32Path)
		cmd.Env = append(os.Environ(), role+"=ioctl", deviceName+"="+name)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != int(unix.EPERM) {
			t.Errorf("a 32-bit program's ioctl: error %d, want EPERM\n%s", got, out)
		}
		if d := h.do("denials").Denials; len(d) != 1 || d[0].What != guard.Ioctl {
			t.Errorf("logged was %v", d)
		}
	})
	if s.inblob != nil {
		t.Run("open_report", func(t *testing.T) { testStaleReport(t, h, s) })
	}
	t.Run("child", func(t *testing.T) {
		a := h.try("child", device)
		if !strings.Contains(a.Err, "Operation not permitted") {
			t.Errorf("a program that the helper runs: %+v", a)
		}
		if d := h.do("denials").Denials; len(d) != 1 || d[0].What != guard.OpenDevice || d[0].Comm != "cat" {
			t.Errorf("logged was %v", d)
		}
	})
	testHelperReports(t, h, device)
}

// testStaleReport shows that descriptors from before the seal give no report,
// and that the helper's own entries are its alone.
func testStaleReport(t *testing.T, h *helper, s *stale) {
	if _, err := s.inblob.Write(bytes.Repeat([]byte{0x66}, 64)); err == nil {
		s.inblob.Close() // it is then that configfs takes it
	}
	if out, err := io.ReadAll(s.outblob); err == nil || len(out) > 0 {
		t.Errorf("a report of %d bytes, error %v", len(out), err)
	}
	h.do("mkdir", reports+"/mine")
	h.do("report", reports+"/mine")
	mnt := t.TempDir()
	must(t, unix.Mount("configfs", mnt, "configfs", 0, ""))
	defer unix.Unmount(mnt, 0)
	denied(t, h, func() {
		for _, name := range []string{reports + "/mine/outblob", mnt + "/tsm/report/mine/inblob"} {
			if f, err := os.OpenFile(name, os.O_RDWR, 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: %v, want EPERM", name, err)
				f.Close()
			}
		}
		if err := unix.Rmdir(reports + "/mine"); !errors.Is(err, unix.EPERM) {
			t.Errorf("%v, want EPERM", err)
		}
	}, guard.OpenReport, guard.OpenReport, guard.RemoveReport)
	if _, err := os.ReadDir(reports); err != nil {
		t.Error(err)
	}
}

// testHelperReports shows that the helper has what others are denied.
func testHelperReports(t *testing.T, h *helper, device string) {
	if a := h.try("ioctl", device); a.Kind == "EPERM" {
		t.Errorf("the helper's ioctl: %+v", a)
	}
	if _, err := os.Stat(reports + "/mine"); err == nil {
		h.do("report", reports+"/mine")
	}
}
