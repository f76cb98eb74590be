//go:build linux

package guard

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"tallystick/bpf/internal/kernel"
)

// layoutVersion is the version of what guard.h defines.
const layoutVersion = 1

// Guard is a kernel's guard, as an admitted process has it. Its methods may be
// called from any number of goroutines at once, but for Close.
type Guard struct {
	state   *ebpf.Map
	denials *ebpf.Map
	seal    *ebpf.Program
	closers []io.Closer
}

// Close lets go of the guard, which goes on.
func (g *Guard) Close() error {
	errs := []error{g.seal.Close(), g.denials.Close(), g.state.Close()}
	for _, c := range g.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Status is what a guard does.
type Status struct {
	Sealed bool

	// Hooks are the LSM programs that are attached, by name. Missing are those
	// that should be and are not; file_ioctl_compat counts where the kernel
	// has it (Linux 6.8).
	Hooks, Missing []string

	// Programs tells that no program is loaded that refers to the registers,
	// even by a descriptor that is older than the guard. Linux 6.1 under
	// lockdown=confidentiality cannot tell.
	Programs bool

	// Restart is empty if a process that executes the same program is admitted,
	// as far as is known before one does; else it says why not.
	Restart string

	Admitted uint64          // executions that were
	Denied   map[What]uint64 // how often
	Lost     uint64          // denials that Denials will not have
}

// Status returns what the guard does.
func (g *Guard) Status() (*Status, error) {
	state, err := readState(g.state)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	s := &Status{
		Sealed:   state.Sealed != 0,
		Programs: state.UsedMaps != 0,
		Admitted: state.Admitted,
		Denied:   make(map[What]uint64),
		Lost:     state.Lost,
	}
	if state.Size == 0 {
		s.Restart = "the helper's program has an interpreter, which would choose what else it loads: build it statically"
	} else if !haveIMA() {
		s.Restart = "the kernel makes no hashes of programs (CONFIG_IMA)"
	} else if underSeccomp() {
		s.Restart = "this process is under seccomp, and so will be the next (SystemCallFilter= of a service, and what implies it)"
	}
	for w, n := range state.Counts {
		if n > 0 {
			s.Denied[What(w)] = n
		}
	}
	if s.Hooks, err = attached(g.state); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	want, err := hookNames()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	for _, name := range want {
		if !slices.Contains(s.Hooks, name) {
			s.Missing = append(s.Missing, name)
		}
	}
	return s, nil
}

// attached returns the names of the attached programs that use the guard's state.
func attached(state *ebpf.Map) ([]string, error) {
	id, err := mapID(state)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	it := new(link.Iterator)
	defer it.Close()
	for it.Next() {
		info, err := it.Link.Info()
		if err != nil {
			return nil, kernel.Explain(err)
		}
		if info.Type != link.TracingType {
			continue
		}
		p, err := openProgram(info.Program)
		if err != nil {
			return nil, err
		}
		if p != nil && slices.Contains(p.maps, id) {
			names[p.name] = true
		}
	}
	if err := it.Err(); err != nil {
		return nil, kernel.Explain(err)
	}
	return slices.Sorted(maps.Keys(names)), nil
}

func readState(m *ebpf.Map) (state guardGuard, err error) {
	err = m.Lookup(uint32(0), &state)
	return state, kernel.Explain(err)
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, kernel.Explain(err)
	}
	id, _ := info.ID()
	return id, nil
}
