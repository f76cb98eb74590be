//go:build linux

package guard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"tallystick/bpf/internal/kernel"
	"tallystick/rtmr"
)

// lsmFeature is what a guard takes that a kernel may have, and not use.
const lsmFeature = "BPF LSM (CONFIG_BPF_LSM, and bpf in lsm= on the kernel's command line; see /sys/kernel/security/lsm)"

// collection is what the guard is made of, for the kernel that runs.
type collection struct {
	*ebpf.CollectionSpec
	usedMaps bool   // the program's maps can be told
	mapElem  uint32 // the BTF ID of the iterator over the elements of maps
}

func loadSpec() (*collection, error) {
	spec, err := loadGuard()
	if err != nil {
		return nil, err
	}
	vmlinux, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, &rtmr.NotSupportedError{Feature: "BTF (CONFIG_DEBUG_INFO_BTF)", Err: err}
	}
	var hook *btf.Func
	for name, p := range spec.Programs {
		if p.Type != ebpf.LSM {
			continue
		}
		err := vmlinux.TypeByName("bpf_lsm_"+p.AttachTo, &hook)
		switch {
		case err == nil:
		case p.AttachTo == "file_ioctl_compat": // from Linux 6.8
			delete(spec.Programs, name)
		default:
			return nil, &rtmr.NotSupportedError{Feature: lsmFeature + " with the hook " + p.AttachTo, Err: err}
		}
	}
	c := &collection{CollectionSpec: spec}
	cast := vmlinux.TypeByName("bpf_rdonly_cast", &hook) == nil
	// Lockdown lets all types of program have it or none; for LSM there is no probe.
	read := !cast && features.HaveProgramHelper(ebpf.Kprobe, asm.FnProbeReadKernel) == nil
	c.usedMaps = cast || read
	if err := errors.Join(spec.Variables["has_cast"].Set(cast), spec.Variables["has_probe_read"].Set(read)); err != nil {
		return nil, err
	}
	if err := vmlinux.TypeByName("bpf_iter_bpf_map_elem", &hook); err == nil {
		id, err := vmlinux.TypeID(hook)
		if err != nil {
			return nil, err
		}
		c.mapElem = uint32(id)
	}
	return c, nil
}

// hookNames returns the names of the programs that have to be attached.
func hookNames() (names []string, err error) {
	spec, err := loadSpec()
	if err != nil {
		return nil, err
	}
	for name, p := range spec.Programs {
		if p.Type == ebpf.LSM {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// load loads the programs over the maps. Only names are loaded, or all.
func (c *collection) load(maps map[string]*ebpf.Map, names ...string) (map[string]*ebpf.Program, error) {
	spec := c.Copy()
	for name := range spec.Programs {
		if len(names) > 0 && !slices.Contains(names, name) {
			delete(spec.Programs, name)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: maps})
	if err != nil {
		return nil, explain(err)
	}
	programs := coll.Programs
	coll.Programs = nil
	coll.Close()
	return programs, nil
}

// attach attaches the LSM programs and pins what holds them into the folder.
func attach(programs map[string]*ebpf.Program, folder string) ([]link.Link, error) {
	var links []link.Link
	for name, p := range programs {
		if p.Type() != ebpf.LSM {
			continue
		}
		l, err := link.AttachLSM(link.LSMOptions{Program: p})
		if err == nil {
			links = append(links, l)
			err = l.Pin(folder + "/" + strings.TrimPrefix(name, "guard_"))
		}
		if err != nil {
			for _, l := range links {
				l.Close()
			}
			return nil, explain(fmt.Errorf("%s: %w", name, err))
		}
	}
	return links, nil
}

// explain turns the error of a bpf(2) call into one of package rtmr's.
func explain(err error) error {
	return kernel.Explain(err,
		kernel.Need{Feature: lsmFeature, Probe: haveBPFLSM},
		kernel.Type("BPF programs of type SYSCALL (Linux 5.14)", ebpf.Syscall))
}

func haveBPFLSM() error {
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err == nil && !slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf") {
		return ebpf.ErrNotSupported
	}
	return nil
}
