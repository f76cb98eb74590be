package attester_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"tallystick/bpf/attester"
	"tallystick/rtmr"
)

// To lock memory is to change the process for good, so it is done in children.
func TestMain(m *testing.M) {
	if child, ok := children[os.Getenv("ATTESTER_CHILD")]; ok {
		if err := child(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var children = map[string]func() error{"locked": locked, "denied": denied, "unlocked": unlocked, "namespaced": namespaced}

func TestProcess(t *testing.T) {
	for _, name := range []string{"locked", "denied", "unlocked"} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), "ATTESTER_CHILD="+name)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// In a user namespace root has CAP_IPC_LOCK, and the kernel does not count it.
func TestUserNamespace(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "ATTESTER_CHILD=namespaced")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EINVAL) {
		t.Skip("no user namespace:", err)
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// mayLock is what New should find: an unlimited RLIMIT_MEMLOCK, or CAP_IPC_LOCK
// in the first user namespace.
func mayLock() bool {
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	caps, _ := strconv.ParseUint(field("/proc/self/status", "CapEff:"), 16, 64)
	first := strings.Join(strings.Fields(field("/proc/self/uid_map", "")), " ") == "0 0 4294967295"
	return limit.Cur == unix.RLIM_INFINITY || first && caps>>unix.CAP_IPC_LOCK&1 == 1
}

// namespaced: the capability is there, and of no use.
func namespaced() error {
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}); err != nil {
		return err
	}
	if caps, err := strconv.ParseUint(field("/proc/self/status", "CapEff:"), 16, 64); err != nil || caps>>unix.CAP_IPC_LOCK&1 == 0 {
		return fmt.Errorf("capabilities %x, %v", caps, err)
	}
	if mayLock() {
		return errors.New("this is the first user namespace")
	}
	if _, err := attester.New(attester.Options{}); !errors.Is(err, rtmr.ErrDenied) {
		return fmt.Errorf("New: %v", err)
	}
	return untouched()
}

func field(path, name string) string {
	data, _ := os.ReadFile(path)
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// locked: after New, every writable mapping of the process is locked, also one
// that is made later; no core is dumped of it, and it can still grow, and quote.
func locked() error {
	may := mayLock()
	a, err := attester.New(attester.Options{})
	if !may {
		if !errors.Is(err, rtmr.ErrDenied) {
			return fmt.Errorf("without permission: %v", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	heap := make([]byte, 192<<20) // more than one of the arenas that Go asks the kernel for
	for i := 0; i < len(heap); i += os.Getpagesize() {
		heap[i] = 1
	}
	if err := unlockedMapping(); err != nil {
		return err
	}
	runtime.KeepAlive(heap)
	heap = nil
	runtime.GC() // gives memory back, which madvise(2) refuses where it is locked
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
		return fmt.Errorf("dumpable is %d, %v", dumpable, err)
	}
	_, err = a.Quote(values(), all(rtmr.SHA256), nil)
	return err
}

// unlockedMapping returns an error that names a private writable mapping which
// smaps does not call locked ("lo", Documentation/filesystems/proc.rst). One that
// the kernel may drop ("dp", as the C library's and Go's for getrandom is) is
// never swapped.
func unlockedMapping() error {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return err
	}
	defer f.Close()
	mapping, seen := "", 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) > 1 && len(words[1]) == 4 && strings.Contains(words[0], "-") {
			mapping = lines.Text()
		}
		if words[0] != "VmFlags:" || !strings.Contains(mapping, " rw-p ") {
			continue
		}
		seen++
		if flags := words[1:]; !slices.Contains(flags, "lo") && !slices.Contains(flags, "dp") {
			return fmt.Errorf("not locked: %s: %s", mapping, lines.Text())
		}
	}
	if seen == 0 {
		return errors.New("no writable mapping in /proc/self/smaps")
	}
	return nil
}

// denied: with a limit and without the capability the error says what it takes,
// and the process is as it was.
func denied() error {
	runtime.LockOSThread() // capabilities are a thread's
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return err
	}
	caps[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return err
	}
	for _, limit := range []uint64{64 << 10, 0} {
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
		_, err := attester.New(attester.Options{})
		if !errors.Is(err, rtmr.ErrDenied) || !strings.Contains(err.Error(), "CAP_IPC_LOCK") || !strings.Contains(err.Error(), "LimitMEMLOCK=infinity") {
			return fmt.Errorf("with a limit of %d: %v", limit, err)
		}
	}
	return untouched()
}

func unlocked() error {
	if _, err := attester.New(attester.Options{InsecureUnlocked: true}); err != nil {
		return err
	}
	return untouched()
}

func untouched() error {
	if locked := field("/proc/self/status", "VmLck:"); locked != "0 kB" {
		return fmt.Errorf("%s are locked", locked)
	}
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 1 {
		return fmt.Errorf("dumpable is %d, %v", dumpable, err)
	}
	return nil
}
