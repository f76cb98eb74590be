//go:build linux

package bpf

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// loaded are registers that are pinned nowhere, with that sequence.
func loaded(t *testing.T, sequence uint64) (*Registers, registersState) {
	spec, err := loadRegisters()
	if err != nil {
		t.Fatal(err)
	}
	state := resetState()
	state.Sequence = sequence
	spec.Maps["registers"].Contents = []ebpf.MapKV{{Key: uint32(0), Value: &state}}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	t.Cleanup(coll.Close)
	return &Registers{coll.Maps["registers"], coll.Programs["extend"], describe("", true), ""}, state
}

func checkState(t *testing.T, r *Registers, want registersState) {
	t.Helper()
	var after registersState
	if err := r.state.Lookup(uint32(0), &after); err != nil || after != want {
		t.Errorf("%v, or the registers were changed", err)
	}
}

// Another extender stopped within a change, as after a fault in the kernel: it
// is told in finite time, and nothing is extended.
func TestExtendBusy(t *testing.T) {
	r, state := loaded(t, 1)
	entry := Entry{Register: rtmr.MustParse("pcr10")}
	for _, a := range Banks {
		entry.Digests = append(entry.Digests, rtmr.Digest{Alg: a, Sum: make([]byte, a.Size())})
	}
	if err := r.Extend(context.Background(), entry.Register, entry.Digests); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
	if n, err := r.ExtendBatch(context.Background(), []Entry{entry, entry}); n != 0 || !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("batch: %d, %v, want ErrBusy", n, err)
	}
	checkState(t, r, state)
}

// Whoever gets at the program itself can only extend: it checks what it is given.
func TestProgramRefuses(t *testing.T) {
	r, state := loaded(t, 0)
	entry := make([]byte, 104)
	copy(entry, []byte{24, 24, 24, 24}) // no register in either byte order
	for _, c := range []struct {
		name    string
		address uintptr
		count   uint32
		want    unix.Errno
	}{
		{"no such register", uintptr(unsafe.Pointer(&entry[0])), 1, unix.EINVAL},
		{"no such memory", 16, 1, unix.EFAULT},
		{"the kernel's memory", ^uintptr(4095), 1, unix.EFAULT},
		{"too many", uintptr(unsafe.Pointer(&entry[0])), 65537, unix.E2BIG},
		{"a count that overflows", uintptr(unsafe.Pointer(&entry[0])), 1<<32 - 1, unix.E2BIG},
	} {
		call := struct {
			Entries     uint64
			Count, Done uint32
		}{uint64(c.address), c.count, 7}
		ret, err := r.extend.Run(&ebpf.RunOptions{Context: &call, ContextOut: &call})
		if err != nil || -int32(ret) != int32(c.want) || call.Done != 0 {
			t.Errorf("%s: %v, returns %d, %d done; want %d", c.name, err, int32(ret), call.Done, -int32(c.want))
		}
	}
	runtime.KeepAlive(entry)
	checkState(t, r, state)
}
