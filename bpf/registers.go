//go:build linux

package bpf

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Registers are a kernel's registers, an rtmr.Device. Its methods may be called
// from any number of goroutines and processes at once, but for Close.
type Registers struct {
	state       *ebpf.Map     // opened for reading
	extend      *ebpf.Program // nil if opened to read
	description rtmr.Description
	folder      string // where they are pinned
}

// Describe is rtmr.Device's.
func (r *Registers) Describe() rtmr.Description { return r.description }

// Pinned returns the folder of the registers' pins and the IDs of the maps that
// are pinned there, for a guard.
func (r *Registers) Pinned() (folder string, maps []ebpf.MapID, err error) {
	layout, err := loadMap(filepath.Join(r.folder, pinLayout))
	if err != nil {
		return "", nil, err
	}
	defer layout.Close()
	for _, m := range []*ebpf.Map{r.state, layout} {
		info, err := m.Info()
		if err != nil {
			return "", nil, explain(err)
		}
		id, _ := info.ID()
		maps = append(maps, id)
	}
	return r.folder, maps, nil
}

// Close lets go of the registers, which stay as they are.
func (r *Registers) Close() error {
	if r.extend == nil {
		return r.state.Close()
	}
	return errors.Join(r.extend.Close(), r.state.Close())
}

// Entry is one extend: a register, and one digest for each of the Banks.
type Entry struct {
	Register rtmr.Register
	Digests  []rtmr.Digest
}

// maxBatch is how many entries one call into the kernel extends. A call cannot
// be interrupted, so this bounds how long a signal waits: some milliseconds.
const maxBatch = 1024

// busyFor is how long the registers may be changing before it is an ErrBusy. A
// change is some dozen stores; what may take time is another process that the
// scheduler takes off its CPU between them.
const busyFor = time.Second

// Extend is rtmr.Device's: it extends one register, pcr0 to pcr23, by one digest
// for each of the Banks. An error means that it was not extended.
func (r *Registers) Extend(ctx context.Context, reg rtmr.Register, digests []rtmr.Digest) error {
	_, err := r.ExtendBatch(ctx, []Entry{{reg, digests}})
	return err
}

// ExtendBatch extends registers by the entries, in order, and returns how many
// it did; all, where the error is nil. It looks at all of them first:
// where one is malformed, nothing is extended. Others may extend in between, and
// read the registers after each entry.
func (r *Registers) ExtendBatch(ctx context.Context, batch []Entry) (n int, err error) {
	entries := make([]registersEntry, len(batch))
	for i, e := range batch {
		if err := r.description.CheckExtend(e.Register, e.Digests); err != nil {
			if len(batch) > 1 {
				err = fmt.Errorf("entry %d: %w", i, err)
			}
			return 0, fmt.Errorf("extend: %w", err)
		}
		entries[i] = entry(e.Register, e.Digests)
	}
	return r.run(ctx, entries)
}

// run calls the program until all entries are extended.
func (r *Registers) run(ctx context.Context, entries []registersEntry) (n int, err error) {
	started := time.Now()
	for n < len(entries) {
		if err := ctx.Err(); err != nil {
			return n, fmt.Errorf("extend: %w", err)
		}
		done, err := r.call(entries[n:min(len(entries), n+maxBatch)])
		n += done
		if err == unix.EAGAIN && done == 0 && time.Since(started) > busyFor {
			err = rtmr.ErrBusy
		}
		if err == unix.EAGAIN {
			time.Sleep(10 * time.Microsecond)
			continue
		}
		if err != nil {
			return n, fmt.Errorf("extend: %w", err)
		}
		started = time.Now()
	}
	return n, nil
}

// call runs the program once and returns how many entries it extended, also
// where it returns an error.
func (r *Registers) call(entries []registersEntry) (done int, err error) {
	var pinner runtime.Pinner
	pinner.Pin(&entries[0])
	defer pinner.Unpin()

	call := registersCall{
		Entries: uint64(uintptr(unsafe.Pointer(&entries[0]))),
		Count:   uint32(len(entries)),
	}
	ret, err := r.extend.Run(&ebpf.RunOptions{Context: &call, ContextOut: &call})
	if err != nil {
		return 0, explain(err)
	}
	if ret != 0 {
		err = unix.Errno(-int32(ret))
	}
	return int(call.Done), err
}
