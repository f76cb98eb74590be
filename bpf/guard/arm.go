//go:build linux

package guard

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"tallystick/bpf"
	"tallystick/bpf/internal/kernel"
	"tallystick/rtmr"
)

// folderName is the folder of the guard's pins, beside the registers' folder.
const folderName = "guard"

// Arm guards the registers, and admits this process and later ones that execute
// the same program; or it finds that they are guarded and that this process was
// admitted. The guard outlives the process. What others could do before it was
// armed, they may have done: it belongs early in the boot.
//
// A guard is found by the kernel's list of programs, not by its pins, so that no
// other file system in their place hides it. Where several are that name, it is
// the eldest.
//
// Arm returns ErrNotInMemory, ErrNotAdmitted, an *OtherRegistersError, an
// *rtmr.NotSupportedError where the kernel lacks something, and rtmr.ErrDenied
// where the process may not use bpf(2).
func Arm(regs *bpf.Registers) (*Guard, error) {
	g, err := arm(regs)
	if err != nil {
		return nil, fmt.Errorf("arm guard: %w", err)
	}
	return g, nil
}

func arm(regs *bpf.Registers) (*Guard, error) {
	spec, err := loadSpec()
	if err != nil {
		return nil, err
	}
	folder, ids, err := regs.Pinned()
	if err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Dir(folder))
	if err != nil {
		return nil, err
	}
	defer unlock()
	found, err := find()
	if err != nil {
		return nil, err
	}
	pins := filepath.Join(filepath.Dir(folder), folderName)
	if found != nil {
		g, err := spec.adopt(found, folder, ids)
		if g != nil || err != nil {
			return g, err
		}
	}
	// None, or one whose armer died before it was armed: nothing was denied yet.
	if err := os.RemoveAll(pins); err != nil {
		return nil, err
	}
	g, err := spec.start(pins, folder, ids)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(pins))
	}
	return g, nil
}

func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// program is one that the kernel has.
type program struct {
	name   string
	maps   []ebpf.MapID
	loaded time.Duration
}

// openProgram returns what the kernel tells of an LSM program of the guard's
// name, nil of others, and ErrNotAdmitted of what may not be opened.
func openProgram(id ebpf.ProgramID) (*program, error) {
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) { // it went away meanwhile
		return nil, nil
	}
	if errors.Is(err, unix.EPERM) && capable() {
		return nil, fmt.Errorf("program %d: %w: %w", id, ErrNotAdmitted, err)
	}
	if err != nil {
		return nil, kernel.Explain(err)
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return nil, kernel.Explain(err)
	}
	if info.Type != ebpf.LSM || len(info.Name) < 6 || info.Name[:6] != "guard_" {
		return nil, nil
	}
	maps, _ := info.MapIDs()
	loaded, _ := info.LoadTime()
	return &program{info.Name, maps, loaded}, nil
}

// capable tells that the process may open programs by their IDs, but for a guard.
func capable() bool {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}

// find returns the eldest program that has the name of the guard's first hook,
// or nil.
func find() (eldest *program, err error) {
	for id := ebpf.ProgramID(0); ; {
		id, err = ebpf.ProgramGetNextID(id)
		if errors.Is(err, fs.ErrNotExist) {
			return eldest, nil
		}
		if err != nil {
			return nil, kernel.Explain(err)
		}
		p, err := openProgram(id)
		if err != nil {
			return nil, err
		}
		if p != nil && p.name == "guard_bpf_map" && (eldest == nil || p.loaded < eldest.loaded) {
			eldest = p
		}
	}
}

// adopt returns the guard of the program, or nil if it was never armed.
func (c *collection) adopt(p *program, folder string, ids []ebpf.MapID) (_ *Guard, err error) {
	maps := make(map[string]*ebpf.Map)
	defer func() {
		for _, m := range maps {
			m.Close()
		}
	}()
	for _, id := range p.maps {
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, unix.EPERM) && capable() {
			return nil, fmt.Errorf("map %d: %w: %w", id, ErrNotAdmitted, err)
		}
		if err != nil {
			return nil, kernel.Explain(err)
		}
		info, err := m.Info()
		if err != nil || c.Maps[info.Name] == nil || info.Name[0] == '.' || maps[info.Name] != nil {
			m.Close()
			if err != nil {
				return nil, kernel.Explain(err)
			}
			continue
		}
		maps[info.Name] = m
	}
	for name, spec := range c.Maps {
		if m := maps[name]; name[0] != '.' && (m == nil || m.Type() != spec.Type || m.ValueSize() != spec.ValueSize) {
			return nil, fmt.Errorf("the guard that runs was made by another release: its map %q is another, or missing; boot to change it", name)
		}
	}
	state, err := readState(maps["state"])
	if err != nil {
		return nil, err
	}
	if state.Version != layoutVersion {
		return nil, fmt.Errorf("the guard that runs has layout version %d, expected %d; boot to change it", state.Version, layoutVersion)
	}
	if state.Armed == 0 {
		return nil, nil
	}
	for i, id := range ids {
		if state.Maps[i] != uint32(id) {
			return nil, &OtherRegistersError{folder}
		}
	}
	return c.open(maps)
}

// open loads what an armed guard is talked to by, and takes the maps.
func (c *collection) open(maps map[string]*ebpf.Map) (*Guard, error) {
	programs, err := c.load(maps, guardProgGuardSeal)
	if err != nil {
		return nil, err
	}
	g := &Guard{state: maps["state"], denials: maps["denials"], seal: programs[guardProgGuardSeal]}
	delete(maps, "state")
	delete(maps, "denials")
	return g, nil
}

// start makes a guard with its pins in the folder, and arms it.
func (c *collection) start(pins, folder string, ids []ebpf.MapID) (_ *Guard, err error) {
	if err := os.Mkdir(pins, 0o700); err != nil {
		return nil, err
	}
	maps := make(map[string]*ebpf.Map)
	var links []link.Link
	defer func() {
		for _, m := range maps {
			m.Close()
		}
		if err != nil {
			for _, l := range links {
				l.Close()
			}
		}
	}()
	for name, spec := range c.Maps {
		if name[0] == '.' { // .rodata
			continue
		}
		if maps[name], err = ebpf.NewMap(spec); err != nil {
			delete(maps, name)
			return nil, explain(fmt.Errorf("map %s: %w", name, err))
		}
	}
	state, err := c.newState(pins, folder, ids, maps)
	if err != nil {
		return nil, err
	}
	if err := freeze(maps, state); err != nil {
		return nil, err
	}
	programs, err := c.load(maps)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, p := range programs {
			p.Close()
		}
	}()
	if links, err = attach(programs, pins); err != nil {
		return nil, err
	}
	if err := fire(maps["state"]); err != nil {
		return nil, err
	}
	g, err := c.open(maps)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		g.closers = append(g.closers, io.Closer(l))
	}
	return g, nil
}

// fire arms the guard, by opening the map once more.
func fire(state *ebpf.Map) error {
	id, err := mapID(state)
	if err != nil {
		return err
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return kernel.Explain(err)
	}
	defer m.Close()
	s, err := readState(m)
	if err != nil {
		return err
	}
	if s.Armed == 0 {
		if traced() {
			return errors.New("this process is being traced, and so not fit to arm a guard")
		}
		return &rtmr.NotSupportedError{Feature: lsmFeature, Err: errors.New("its programs were attached and did not run; or this process is not in the initial PID namespace")}
	}
	return nil
}

func (c *collection) newState(pins, folder string, ids []ebpf.MapID, maps map[string]*ebpf.Map) (*guardGuard, error) {
	s := &guardGuard{Version: layoutVersion, Armer: uint32(os.Getpid()), MapElem: c.mapElem}
	if c.usedMaps {
		s.UsedMaps = 1
	}
	s.Registers = uint32(len(ids))
	for _, name := range []string{"state", "marks", "denials"} {
		id, err := mapID(maps[name])
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	for i, id := range ids {
		s.Maps[i] = uint32(id)
	}
	for i := len(ids); i < len(s.Maps); i++ {
		s.Maps[i] = math.MaxUint32 // no map's ID
	}
	public, err := isPublic(folder)
	if err != nil {
		return nil, err
	}
	if public {
		s.Public = 1
	}
	if err := s.putProgram(); err != nil {
		return nil, err
	}
	return s, s.putPlace([]string{folder, pins})
}

// isPublic tells that all users may open what is pinned in the folder.
func isPublic(folder string) (bool, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return false, err
		}
		if info.Mode().Perm()&0o004 == 0 {
			return false, nil
		}
	}
	return true, nil
}

// freeze fills in the state, and leaves it and the marks to the programs.
func freeze(maps map[string]*ebpf.Map, state *guardGuard) error {
	if err := maps["state"].Put(uint32(0), state); err != nil {
		return explain(err)
	}
	for _, name := range []string{"state", "marks"} {
		if err := maps[name].Freeze(); err != nil {
			return explain(fmt.Errorf("freeze %s: %w", name, err))
		}
	}
	got, err := readState(maps["state"])
	if err != nil {
		return err
	}
	if got != *state {
		return errors.New("a new guard was changed before it was frozen")
	}
	return nil
}
