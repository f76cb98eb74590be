//go:build linux

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"tallystick/bpf/internal/kernel"
)

// DefaultPath is where the registers are pinned if Options do not say.
const DefaultPath = "/sys/fs/bpf/tallystick"

// Options say where the registers are and who may see them. The zero value is
// the default: everything under DefaultPath, and for its owner only.
type Options struct {
	// Path is a folder in a BPF file system; Open makes it where it is missing.
	Path string

	// Public lets every user read the registers (with ReadOnly, and where
	// the folder's parents let them through). It counts when Open makes them,
	// not when it finds them.
	Public bool

	// ReadOnly finds registers and never makes them; none is writable.
	ReadOnly bool
}

// The pins, in the folder "registers" of Options.Path. They appear all at once,
// by a rename, so that no crash can leave a part of them.
const (
	pinFolder = "registers"
	newFolder = "registers-new" // a BPF file system has no dots in names
	pinLayout = "layout"
	pinState  = "state"
)

// Open returns the registers that are pinned at opts.Path as they are, or makes
// them at their reset values where there are none. What is pinned in another
// layout is a *LayoutError, and stays.
//
// It returns an *rtmr.NotSupportedError where the kernel lacks something,
// rtmr.ErrDenied where the process may not use it, and an error that is
// fs.ErrNotExist where ReadOnly finds nothing.
func Open(opts Options) (*Registers, error) {
	if opts.Path == "" {
		opts.Path = DefaultPath
	}
	r, err := open(opts)
	if errors.As(err, new(*fs.PathError)) && errors.Is(err, fs.ErrPermission) {
		err = kernel.Denied(err)
	}
	if err != nil {
		return nil, fmt.Errorf("open registers: %w", err)
	}
	return r, nil
}

func open(opts Options) (*Registers, error) {
	spec, err := loadRegisters()
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(opts.Path, pinFolder)
	if opts.ReadOnly {
		m, err := pinnedMaps(folder, spec)
		if err != nil {
			return nil, err
		}
		defer m.layout.Close()
		return &Registers{state: m.state, description: describe(folder, false), folder: folder}, nil
	}
	unlock, err := lockFolder(opts)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, err = os.Lstat(folder)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, err
	}
	var m *maps
	if fresh {
		m, err = newMaps(spec)
	} else {
		m, err = pinnedMaps(folder, spec)
	}
	if err != nil {
		return nil, err
	}
	defer m.layout.Close()
	r, err := m.load(spec, folder)
	if err != nil {
		return nil, errors.Join(err, m.state.Close())
	}
	if fresh {
		if err := m.pin(opts); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// lockFolder makes opts.Path and holds its lock, so that one process at a time
// looks for the pins and makes them.
func lockFolder(opts Options) (unlock func(), err error) {
	switch err := os.Mkdir(opts.Path, 0o700); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (is the BPF file system mounted? mount -t bpf bpf /sys/fs/bpf)", err)
	case errors.Is(err, fs.ErrExist):
	case err != nil:
		return nil, err
	case opts.Public:
		if err := os.Chmod(opts.Path, 0o711); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(opts.Path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(checkFolder(f), flock(f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

// checkFolder reports if pins cannot be made there, or others could exchange them.
func checkFolder(f *os.File) error {
	var fs unix.Statfs_t
	var stat unix.Stat_t
	if err := errors.Join(unix.Fstatfs(int(f.Fd()), &fs), unix.Fstat(int(f.Fd()), &stat)); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if uint32(fs.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is in no BPF file system (mount -t bpf bpf /sys/fs/bpf)", f.Name())
	}
	if stat.Uid != uint32(os.Geteuid()) || stat.Mode&0o022 != 0 {
		return fmt.Errorf("%s has owner %d and mode %#o, expected owner %d, and that nobody else can write", f.Name(), stat.Uid, stat.Mode&0o777, os.Geteuid())
	}
	return nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// maps are the registers, and the version of their layout.
type maps struct{ state, layout *ebpf.Map }

func (m *maps) close() { m.state.Close(); m.layout.Close() }

// newMaps makes registers at their reset values, and freezes them.
func newMaps(spec *ebpf.CollectionSpec) (*maps, error) {
	state := resetState()
	spec = spec.Copy()
	spec.Programs = nil
	spec.Maps["registers"].Contents = []ebpf.MapKV{{Key: uint32(0), Value: &state}}
	spec.Maps["layout"].Contents = []ebpf.MapKV{{Key: uint32(0), Value: uint32(layoutVersion)}}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, explain(err)
	}
	m := &maps{coll.DetachMap("registers"), coll.DetachMap("layout")}
	coll.Close()
	if err := m.freeze(state); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// freeze denies all of user space to write to the maps. Until then, root could
// have found them by their numbers.
func (m *maps) freeze(state registersState) error {
	for _, m := range []*ebpf.Map{m.state, m.layout} {
		if err := m.Freeze(); err != nil {
			return explain(fmt.Errorf("freeze %s: %w", m, err))
		}
	}
	var frozen registersState
	if err := m.state.Lookup(uint32(0), &frozen); err != nil {
		return explain(err)
	}
	if frozen != state {
		return errors.New("new registers were changed before they were frozen")
	}
	return nil
}

// load loads the program that extends the maps. One that is pinned beside them
// would have to be believed.
func (m *maps) load(spec *ebpf.CollectionSpec, folder string) (*Registers, error) {
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{"registers": m.state, "layout": m.layout},
	})
	if err != nil {
		return nil, explain(kernel.Load(err))
	}
	defer coll.Close()
	return &Registers{m.state, coll.DetachProgram("extend"), describe(folder, true), folder}, nil
}

// pin makes the pins appear, all at once. The caller holds the folder's lock.
func (m *maps) pin(opts Options) error {
	folder := filepath.Join(opts.Path, newFolder)
	if err := os.RemoveAll(folder); err != nil { // of a process that died here
		return err
	}
	if err := m.pinIn(folder, opts.Public); err != nil {
		return errors.Join(explain(err), os.RemoveAll(folder))
	}
	return os.Rename(folder, filepath.Join(opts.Path, pinFolder))
}

func (m *maps) pinIn(folder string, public bool) error {
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	for name, m := range map[string]*ebpf.Map{pinState: m.state, pinLayout: m.layout} {
		if err := m.Pin(filepath.Join(folder, name)); err != nil {
			return err
		}
		if public {
			if err := os.Chmod(filepath.Join(folder, name), 0o444); err != nil {
				return err
			}
		}
	}
	if public {
		return os.Chmod(folder, 0o711)
	}
	return nil
}

// pinnedMaps opens what is pinned in the folder.
func pinnedMaps(folder string, spec *ebpf.CollectionSpec) (*maps, error) {
	layout, err := loadMap(filepath.Join(folder, pinLayout))
	if err != nil {
		return nil, err
	}
	state, err := loadMap(filepath.Join(folder, pinState))
	if err != nil {
		layout.Close()
		return nil, err
	}
	m := &maps{state, layout}
	if err := checkLayout(layout, state, spec); err != nil {
		m.close()
		return nil, &LayoutError{folder, err}
	}
	return m, nil
}

// loadMap opens a pinned map for reading; a frozen map cannot be opened for more.
func loadMap(path string) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, explain(fmt.Errorf("%s: %w", path, err))
	}
	return m, nil
}
