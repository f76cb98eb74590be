//go:build linux

package tap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"tallystick/bpf/internal/kernel"
	"tallystick/rtmr"
)

// Method is how a source is tapped.
type Method string

const (
	// Kprobe probes the beginning and the end of a call. It misses none.
	Kprobe Method = "kprobe"
	// KprobeMulti does the same by way of ftrace (Linux 5.18, CONFIG_FPROBE), where
	// no perf event can be had: Debian's kernels take CAP_SYS_ADMIN for one, while
	// the sysctl kernel.perf_event_paranoid is 3.
	KprobeMulti Method = "kprobe multi"
	// Fexit is a trampoline's program, where neither can be had. A kernel that
	// preempts itself misses calls with it, see Status.
	Fexit Method = "fexit"
	// RawTracepoint is how TSM is tapped.
	RawTracepoint Method = "raw tracepoint"
)

// source is a tapped source: its programs and what attaches them.
type source struct {
	method   Method // "" if it is off
	err      error  // why it is off, or not tapped by a better method
	programs []*ebpf.Program
	links    []link.Link
}

// detach leaves the programs, for their statistics.
func (s *source) detach() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	return errors.Join(errs...)
}

func (s *source) close() error {
	errs := []error{s.detach()}
	for _, p := range s.programs {
		errs = append(errs, p.Close())
	}
	s.programs = nil
	return errors.Join(errs...)
}

// missed returns how often the kernel did not run a program because it ran on
// that processor already.
func (s *source) missed() (n uint64, err error) {
	for _, p := range s.programs {
		stats, err := p.Stats()
		if err != nil {
			return 0, err
		}
		n += stats.RecursionMisses
	}
	return n, nil
}

// loader loads programs one by one, for one may load where another does not.
type loader struct {
	spec   *ebpf.CollectionSpec
	kernel *btf.Spec
	maps   map[string]*ebpf.Map
}

// attach adds a program to the source.
func (l *loader) attach(s *source, spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (link.Link, error)) error {
	err := l.tryAttach(s, spec.Copy(), attach)
	if err != nil && confidential() {
		return fmt.Errorf("%w: under lockdown=confidentiality no program reads the kernel's memory: %w", rtmr.ErrDenied, err)
	}
	return err
}

func (l *loader) tryAttach(s *source, spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (link.Link, error)) error {
	for name, m := range l.maps {
		if err := spec.Instructions.AssociateMap(name, m); err != nil && !errors.Is(err, asm.ErrUnreferencedSymbol) {
			return err
		}
	}
	if !hasKallsyms() {
		zeroSymbols(spec.Instructions)
	}
	p, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{KernelTypes: l.kernel})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	s.programs = append(s.programs, p)
	lnk, err := attach(p)
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	s.links = append(s.links, lnk)
	return nil
}

// symbols are the kernel's, of which tap.c takes addresses.
var symbols = []string{"ima_hash_algo_idx", "ima_hash_algo"}

// hasKallsyms reports whether there are addresses to ask for. A service with
// ProcSubset=pid has no such file, one with ProtectKernelTunables=yes may not read it.
func hasKallsyms() bool {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// zeroSymbols has the program find no kernel symbol, which it is written for: they
// are weak. The library would load it so where the file tells zeros, but not where
// it cannot be read (cilium/ebpf 0.22, resolveKsymReferences).
func zeroSymbols(program asm.Instructions) {
	for i, ins := range program {
		if slices.Contains(symbols, ins.Reference()) {
			zero := asm.LoadImm(ins.Dst, 0, asm.DWord)
			if s := ins.Source(); s != nil {
				zero = zero.WithSource(s)
			}
			program[i] = zero
		}
	}
}

// ima taps IMA by the one method, or where none is said by the first that works.
func (l *loader) ima(only Method) (s source) {
	if err := l.hasStruct("ima_template_entry", "IMA (CONFIG_IMA)"); err != nil {
		return source{err: err}
	}
	for _, m := range []struct {
		Method
		tap func(*source) error
	}{{Kprobe, l.kprobes(l.kprobe)}, {KprobeMulti, l.kprobes(l.kprobeMulti)}, {Fexit, l.fexit}} {
		if only != "" && only != m.Method {
			continue
		}
		err := m.tap(&s)
		if err == nil {
			if s.method = m.Method; s.method == KprobeMulti {
				s.err = nil // it is as good
			}
			return s
		}
		s.close()
		if s.err == nil {
			s.err = fmt.Errorf("%s: %w", m.Method, err)
		} else {
			s.err = fmt.Errorf("%w; %s: %w", s.err, m.Method, err)
		}
	}
	return s
}

// kprobeArchs are those whose registers tap.c knows. The lab has a kernel with BTF
// for amd64 alone.
var kprobeArchs = []string{"amd64", "arm64", "s390x"}

// kprobes probes the beginning and the end of the call, each by the given function.
func (l *loader) kprobes(probe func(s *source, name, function string) error) func(*source) error {
	return func(s *source) error {
		if !slices.Contains(kprobeArchs, runtime.GOARCH) {
			return &rtmr.NotSupportedError{Feature: "place known for a function's arguments (" + runtime.GOARCH + ")"}
		}
		pending, err := ebpf.NewMap(l.spec.Maps[tapMapPending])
		if err != nil {
			const feature = "BPF task storage (Linux 5.11)"
			return explain(fmt.Errorf("task storage: %w", err), feature,
				kernel.Need{Feature: feature, Probe: func() error { return features.HaveMapType(ebpf.TaskStorage) }})
		}
		defer pending.Close() // the programs keep it
		l.maps[tapMapPending] = pending
		defer delete(l.maps, tapMapPending)
		// The end first, so that no beginning is left without.
		if err := probe(s, tapProgImaEnd, "integrity_audit_msg"); err != nil {
			return err
		}
		return probe(s, tapProgImaBegin, "ima_add_template_entry")
	}
}

func (l *loader) kprobe(s *source, name, function string) error {
	return probed(function, "kprobes (CONFIG_KPROBE_EVENTS)", l.attach(s, l.spec.Programs[name], func(p *ebpf.Program) (link.Link, error) {
		return link.Kprobe(function, p, nil)
	}))
}

func (l *loader) kprobeMulti(s *source, name, function string) error {
	spec := l.spec.Programs[name].Copy()
	spec.AttachType = ebpf.AttachTraceKprobeMulti
	return probed(function, "kprobes by ftrace (Linux 5.18, CONFIG_FPROBE)", l.attach(s, spec, func(p *ebpf.Program) (link.Link, error) {
		return link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{function}})
	}))
}

// probed explains the error of probing a function.
func probed(function, feature string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &rtmr.NotSupportedError{Feature: "function " + function, Err: err}
	}
	return explain(err, feature, kernel.Type("BPF programs of type KPROBE", ebpf.Kprobe))
}

func (l *loader) fexit(s *source) error {
	err := l.attach(s, l.spec.Programs[tapProgImaFexit], func(p *ebpf.Program) (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: p})
	})
	return explain(err, "BPF trampolines", kernel.Type("BPF programs of type TRACING", ebpf.Tracing))
}

func (l *loader) tsm() (s source) {
	if err := l.hasStruct("tsm_measurement_register", "measurement registers in sysfs (Linux 6.16, CONFIG_TSM_MEASUREMENTS)"); err != nil {
		return source{err: err}
	}
	err := l.attach(&s, l.spec.Programs[tapProgTsmWrite], func(p *ebpf.Program) (link.Link, error) {
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: "tsm_mr_write", Program: p})
	})
	if err != nil {
		s.close()
		s.err = explain(err, "raw tracepoints", kernel.Type("BPF programs of type RAW_TRACEPOINT", ebpf.RawTracepoint))
		return s
	}
	s.method = RawTracepoint
	return s
}

// hasStruct reports that the kernel lacks what has this structure.
func (l *loader) hasStruct(name, feature string) error {
	var s *btf.Struct
	switch err := l.kernel.TypeByName(name, &s); {
	case errors.Is(err, btf.ErrNotFound):
		return &rtmr.NotSupportedError{Feature: feature, Err: err}
	default:
		return err
	}
}

// explain turns the error of loading or attaching into one of package rtmr's;
// feature is what the kernel lacks if that is all that is said.
func explain(err error, feature string, needs ...kernel.Need) error {
	if errors.Is(err, rtmr.ErrDenied) {
		return err
	}
	needs = append(needs,
		kernel.Need{Feature: "BPF ring buffers (Linux 5.8)", Probe: func() error { return features.HaveMapType(ebpf.RingBuf) }},
		kernel.Helper("bpf_ktime_get_boot_ns (Linux 5.8)", ebpf.Kprobe, asm.FnKtimeGetBootNs),
		kernel.Helper("bpf_probe_read_kernel (Linux 5.5, and no lockdown=confidentiality)", ebpf.Kprobe, asm.FnProbeReadKernel))
	err = kernel.Explain(err, needs...)
	if errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, rtmr.ErrNotSupported) {
		return &rtmr.NotSupportedError{Feature: feature, Err: err}
	}
	return err
}

// confidential reports if the kernel says that it is locked down so.
func confidential() bool {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	return err == nil && bytes.Contains(b, []byte("[confidentiality]"))
}
