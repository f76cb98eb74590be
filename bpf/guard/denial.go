//go:build linux

package guard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// What is something that was tried.
type What uint32

// What others than the helper are denied, and what Object tells of it. Unpin,
// Umount and Trace are denied to the helper too.
const (
	OpenMap      What = iota + 1 // a descriptor of a guarded map; its ID
	UseMap                       // a descriptor of a program that refers to one; the map's ID
	Iterate                      // a program that is given the elements of any map, to change them
	Alter                        // sealed: a program that alters what system calls return; its type
	Unpin                        // to remove, rename or replace a pin, or a folder above; its inode
	Umount                       // to unmount the BPF file system
	Trace                        // to get at a helper's memory or descriptors; its process ID
	OpenDevice                   // sealed: a report device; its minor number
	Ioctl                        // sealed: a report of such a device; the command
	OpenReport                   // sealed: a file of configfs-tsm
	NewReport                    // sealed: to make an entry of configfs-tsm
	RemoveReport                 // sealed: to remove one
	Execute                      // not denied, but not admitted either; an Unfit
)

var whats = [...]string{
	OpenMap: "open-map", UseMap: "use-map", Iterate: "iterate", Alter: "alter", Unpin: "unpin",
	Umount: "umount", Trace: "trace", OpenDevice: "open-device", Ioctl: "ioctl", OpenReport: "open-report",
	NewReport: "new-report", RemoveReport: "remove-report", Execute: "execute",
}

func (w What) String() string { return name(whats[:], int(w)) }

// Unfit is why an execution of the helper's program was not admitted.
type Unfit uint32

// Why it was not.
const (
	Traced    Unfit = iota + 1 // or it shares its root and working directory
	Seccomp                    // a filter may answer in the kernel's place
	NoHash                     // IMA gave none, or one that is not SHA-256, -384 or -512
	OtherHash                  // it is another program
	NoMemory
)

var unfits = [...]string{
	Traced: "traced", Seccomp: "seccomp", NoHash: "no-hash", OtherHash: "other-hash", NoMemory: "no-memory",
}

func (u Unfit) String() string { return name(unfits[:], int(u)) }

func name(names []string, i int) string {
	if i < len(names) && names[i] != "" {
		return names[i]
	}
	return fmt.Sprintf("%d", i)
}

// Denial is something that the guard denied.
type Denial struct {
	Time   time.Duration // of CLOCK_BOOTTIME
	What   What
	PID    int // of the process, in the initial namespace
	UID    int
	Comm   string // of the thread; whatever it calls itself
	Object uint32 // see What
}

func (d Denial) String() string {
	return fmt.Sprintf("%s by process %d (%q, user %d), object %d", d.What, d.PID, d.Comm, d.UID, d.Object)
}

// Denials yields what was denied since it was last called, by whatever process,
// and then as it happens, until the context is done; what was denied by then is
// yielded before it returns. The kernel keeps some 2,700;
// more than that are lost, and counted by Status. One caller at a time.
func (g *Guard) Denials(ctx context.Context) iter.Seq2[Denial, error] {
	return func(yield func(Denial, error) bool) {
		r, err := ringbuf.NewReader(g.denials)
		if err != nil {
			yield(Denial{}, fmt.Errorf("guard: denials: %w", err))
			return
		}
		defer r.Close()
		defer context.AfterFunc(ctx, func() { r.Flush() })()
		var rec ringbuf.Record
		for {
			err := r.ReadInto(&rec)
			if errors.Is(err, ringbuf.ErrFlushed) {
				return
			}
			var d guardDenial
			if err == nil {
				err = binary.Read(bytes.NewReader(rec.RawSample), binary.NativeEndian, &d)
			}
			if err != nil {
				yield(Denial{}, fmt.Errorf("guard: denials: %w", err))
				return
			}
			if !yield(denial(&d), nil) {
				return
			}
		}
	}
}

func denial(d *guardDenial) Denial {
	comm := make([]byte, len(d.Comm))
	for i, c := range d.Comm {
		comm[i] = byte(c)
	}
	return Denial{
		Time:   time.Duration(d.Time),
		What:   What(d.What),
		PID:    int(d.Pid),
		UID:    int(d.Uid),
		Comm:   unix.ByteSliceToString(comm),
		Object: d.Object,
	}
}
