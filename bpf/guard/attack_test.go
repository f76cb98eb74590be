//go:build linux

package guard_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tallystick/bpf/guard"
)

// tdxReport0 is TDX_CMD_GET_REPORT0, _IOWR('T', 1, struct tdx_report_req).
const tdxReport0 = 0xc4405401

// target is what root attacks.
type target struct {
	path   string // the folder of registers/ and guard/
	mount  string // where the BPF file system is mounted
	above  string // a mount above that one
	helper int    // process

	held *ebpf.Map // the registers' map, by a descriptor from before the guard
}

func (x *target) pin(name string) string { return filepath.Join(x.path, "registers", name) }

// attack is something that root tries. It succeeds before there is a guard, and
// is EPERM afterwards, and logged.
type attack struct {
	name  string
	what  guard.What
	try   func(x *target) error
	reads bool // only, which is everybody's right if the registers are public
}

// attacks are tried before there is a guard and after. What destroys comes last.
var attacks = []attack{
	{"open_pin", guard.OpenMap, func(x *target) error {
		return closing(ebpf.LoadPinnedMap(x.pin("state"), &ebpf.LoadPinOptions{ReadOnly: true}))
	}, true},
	{"open_layout", guard.OpenMap, func(x *target) error {
		return closing(ebpf.LoadPinnedMap(x.pin("layout"), &ebpf.LoadPinOptions{ReadOnly: true}))
	}, true},
	{"open_map_by_id", guard.OpenMap, func(x *target) error {
		info, err := x.held.Info()
		if err != nil {
			return err
		}
		id, _ := info.ID()
		return closing(ebpf.NewMapFromID(id))
	}, false},
	{"run_extend_by_id", guard.UseMap, func(x *target) error {
		for id := ebpf.ProgramID(0); ; {
			var err error
			if id, err = ebpf.ProgramGetNextID(id); err != nil {
				return err
			}
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				return err
			}
			found := strings.Contains(p.String(), "(extend)")
			p.Close()
			if found {
				return nil
			}
		}
	}, false},
	// A program may write to a frozen map, whatever descriptor it was loaded with.
	{"write_by_program", guard.UseMap, func(x *target) error {
		return changing(x, func() error {
			p, err := newProgram(&ebpf.ProgramSpec{
				Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "GPL",
				Instructions: append(append(asm.Instructions{
					asm.StoreImm(asm.RFP, -4, 0, asm.Word),
					asm.Mov.Reg(asm.R2, asm.RFP),
					asm.Add.Imm(asm.R2, -4),
					asm.LoadMapPtr(asm.R1, x.held.FD()),
					asm.FnMapLookupElem.Call(),
					asm.JEq.Imm(asm.R0, 0, "out"),
				}, flipRegister...), out...),
			})
			if err != nil {
				return err
			}
			defer p.Close()
			_, err = p.Run(&ebpf.RunOptions{})
			return err
		})
	}, false},
	// An iterator is given a frozen map's values to change, without referring to
	// it (kernel/bpf/map_iter.c).
	{"write_by_iterator", guard.Iterate, func(x *target) error {
		return changing(x, func() error {
			p, err := newProgram(&ebpf.ProgramSpec{
				Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map_elem", License: "GPL",
				Instructions: append(append(asm.Instructions{
					asm.LoadMem(asm.R0, asm.R1, 24, asm.DWord), // struct bpf_iter__bpf_map_elem: meta, map, key, value
					asm.JEq.Imm(asm.R0, 0, "out"),
				}, flipRegister...), out...),
			})
			if err != nil {
				return err
			}
			defer p.Close()
			it, err := link.AttachIter(link.IterOptions{Program: p, Map: x.held})
			if err != nil {
				return err
			}
			defer it.Close()
			r, err := it.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		})
	}, false},
	{"ptrace", guard.Trace, func(x *target) error { return ptrace(x.helper) }, false},
	{"proc_mem", guard.Trace, func(x *target) error {
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", x.helper), os.O_RDWR, 0)
		if err != nil {
			// fs/proc/base.c, mem_open: whatever mm_access said, it is EACCES.
			return eperm(err)
		}
		return f.Close()
	}, false},
	{"process_vm_readv", guard.Trace, func(x *target) error { return readMemory(x.helper) }, false},
	{"pidfd_getfd", guard.Trace, func(x *target) error {
		pidfd, err := unix.PidfdOpen(x.helper, 0)
		if err != nil {
			return err
		}
		defer unix.Close(pidfd)
		fd, err := unix.PidfdGetfd(pidfd, 0, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}, false},
	{"rename_pin", guard.Unpin, func(x *target) error {
		return renaming(x.pin("state"), filepath.Join(x.path, "moved"))
	}, false},
	{"rename_folder", guard.Unpin, func(x *target) error {
		return renaming(filepath.Join(x.path, "registers"), filepath.Join(x.path, "moved"))
	}, false},
	{"rename_parent", guard.Unpin, func(x *target) error { return renaming(x.path, x.path+"-moved") }, false},
	{"replace_pin", guard.Unpin, func(x *target) error {
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		if err != nil {
			return err
		}
		defer m.Close()
		other := filepath.Join(x.mount, "other")
		if err := m.Pin(other); err != nil {
			return err
		}
		defer os.Remove(other)
		return os.Rename(other, x.pin("layout"))
	}, false},
	{"unlink_pin", guard.Unpin, func(x *target) error { return os.Remove(x.pin("state")) }, false},
	{"umount_above", guard.Umount, func(x *target) error { return unix.Unmount(x.above, unix.MNT_DETACH) }, false},
	{"umount", guard.Umount, func(x *target) error { return unix.Unmount(x.mount, 0) }, false},
}

// flipRegister changes the value at R0, of 4,000 bytes or so.
var flipRegister = asm.Instructions{
	asm.LoadMem(asm.R1, asm.R0, 64, asm.DWord),
	asm.Xor.Imm(asm.R1, -1),
	asm.StoreMem(asm.R0, 64, asm.R1, asm.DWord),
}

var out = asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("out"), asm.Return()}

// changing reports whether an attack changed the registers.
func changing(x *target, f func() error) error {
	before, err := x.held.LookupBytes(uint32(0))
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := x.held.LookupBytes(uint32(0))
	if err == nil && string(before) == string(after) {
		return errors.New("the registers are as they were")
	}
	return err
}

// newProgram loads a program, and not a second time to know why it was refused.
func newProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
}

func closing(c io.Closer, err error) error {
	if err == nil {
		c.Close()
	}
	return err
}

// renaming renames, and back.
func renaming(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return os.Rename(to, from)
}

func ptrace(pid int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PtraceSeize(pid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(pid); err != nil {
		return err
	}
	if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
		return err
	}
	return unix.PtraceDetach(pid)
}

func readMemory(pid int) error {
	b := make([]byte, 8)
	local := []unix.Iovec{{Base: &b[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: imageOf(pid), Len: 8}}
	_, err := unix.ProcessVMReadv(pid, local, remote, 0)
	return err
}

// readChild reads the helper's memory by way of a child that shares it, which
// is held up while it executes a program.
func readChild(t *testing.T, h *helper) error {
	fan, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY)
	must(t, err)
	defer unix.Close(fan)
	must(t, unix.FanotifyMark(fan, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, "/bin/busybox"))
	answered := make(chan answer)
	go func() { answered <- h.try("child", "/etc/hosts") }()

	var event [unsafe.Sizeof(unix.FanotifyEventMetadata{})]byte
	_, err = unix.Read(fan, event[:])
	must(t, err)
	meta := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&event[0]))
	defer unix.Close(int(meta.Fd))
	result := readMemory(int(meta.Pid))
	response := unix.FanotifyResponse{Fd: meta.Fd, Response: unix.FAN_ALLOW}
	_, err = unix.Write(fan, unsafe.Slice((*byte)(unsafe.Pointer(&response)), unsafe.Sizeof(response)))
	must(t, err)
	if a := <-answered; a.Err != "" {
		t.Errorf("the helper's child: %s", a.Err)
	}
	return result
}

// imageOf returns where a process has something mapped.
func imageOf(pid int) uintptr {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0
	}
	at, _, _ := strings.Cut(string(maps), "-")
	n, _ := strconv.ParseUint(at, 16, 64)
	return uintptr(n)
}

func eperm(err error) error {
	if errors.Is(err, unix.EACCES) {
		return unix.EPERM
	}
	return err
}

// ioctlFile opens a device and calls it with room for a TDREPORT.
func ioctlFile(name string, cmd uint) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return ioctl(f, cmd)
}

func ioctl(f *os.File, cmd uint) error {
	var req [1088]byte
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(cmd), uintptr(unsafe.Pointer(&req[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
