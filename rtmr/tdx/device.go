//go:build linux

package tdx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tallystick/rtmr"
)

// Where the driver has its things.
const (
	DefaultDir  = "/sys/devices/virtual/misc/tdx_guest/measurements"
	DefaultNode = "/dev/tdx_guest"
)

// Options say where the registers are. The zero value is where the driver
// has them.
type Options struct {
	Dir  string // of the registers' files; DefaultDir if empty
	Node string // the driver's device, which gives TDREPORTs; DefaultNode if empty

	// Patience is how long a device that others keep busy is tried again; two
	// minutes if 0. The kernel itself waits 30 seconds for a quote.
	Patience time.Duration
}

// Device is the registers of this TD.
type Device struct {
	opts        Options
	description rtmr.Description

	// extending is held from before the register is read to after it is read
	// back, so that this process does not come in its own way.
	extending sync.Mutex
}

// Open finds the registers and reads them once. The error is an
// *rtmr.NotSupportedError on a machine that is no TD, before Linux 6.16, or
// without the module tdx_guest, and rtmr.ErrDenied where the process may not read.
//
// Registers are the files rtmrN:sha384 and mrtd:sha384; others are ignored.
func Open(opts Options) (*Device, error) {
	opts.Dir = cmp.Or(opts.Dir, DefaultDir)
	opts.Node = cmp.Or(opts.Node, DefaultNode)
	opts.Patience = cmp.Or(opts.Patience, 2*time.Minute)
	d := &Device{opts: opts, description: rtmr.Description{Kind: "tdx", Name: "TDX registers in " + opts.Dir}}
	files, err := os.ReadDir(opts.Dir)
	if err != nil {
		return nil, typed(err, featureRegisters)
	}
	for _, file := range files {
		r, ok := register(file.Name())
		if !ok {
			continue
		}
		stat, err := file.Info()
		if err != nil {
			return nil, typed(err, featureRegisters)
		}
		writable := stat.Mode()&0o200 != 0 && !r.Static()
		d.description.Registers = append(d.description.Registers, rtmr.RegisterInfo{Register: r, Banks: []rtmr.Alg{rtmr.SHA384}, Writable: writable})
	}
	if !slices.ContainsFunc(d.description.Registers, func(i rtmr.RegisterInfo) bool { return i.Writable }) {
		return nil, &rtmr.NotSupportedError{Feature: featureRegisters, Err: fmt.Errorf("%s has no file rtmrN:sha384 that can be written", opts.Dir)}
	}
	slices.SortFunc(d.description.Registers, func(a, b rtmr.RegisterInfo) int { return a.Register.Compare(b.Register) })
	if _, err := d.Read(context.Background()); err != nil {
		return nil, err
	}
	return d, nil
}

// register reads the name of a register's file, NAME:HASH
// (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest).
func register(file string) (r rtmr.Register, ok bool) {
	name, hash, _ := strings.Cut(file, ":")
	r, err := rtmr.ParseRegister(name)
	return r, err == nil && hash == rtmr.SHA384.String() && (r.Kind() == rtmr.KindRTMR || r == rtmr.MRTD)
}

func (d *Device) file(r rtmr.Register) string {
	return filepath.Join(d.opts.Dir, r.String()+":"+rtmr.SHA384.String())
}

// Describe is rtmr.Device's.
func (d *Device) Describe() rtmr.Description { return d.description }

// Read is rtmr.Device's. The values are a TDREPORT's: what the TDX module holds,
// at one moment. A process that may not open the driver's device gets those of
// the files, one after the other, which the kernel caches: an extend that did
// not go through the files is seen there when one does, or somebody asks for a
// report or a quote (drivers/virt/coco/guest/tsm-mr.c).
func (d *Device) Read(ctx context.Context, registers ...rtmr.Register) (rtmr.Values, error) {
	infos, err := d.description.Select(registers)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	read := d.readFile
	report, err := d.Report(ctx, [64]byte{})
	switch {
	case err == nil:
		read = func(r rtmr.Register) ([]byte, error) { return tdReport.value(report, r), nil }
	case !errors.Is(err, rtmr.ErrNotSupported) && !errors.Is(err, rtmr.ErrDenied):
		return nil, err
	}
	values := make(rtmr.Values)
	for _, info := range infos {
		value, err := read(info.Register)
		if err != nil {
			return nil, err
		}
		values.Set(rtmr.SHA384, info.Register, value)
	}
	return values, nil
}

// readFile reads a register's file, which the kernel gives whole in one read(2).
func (d *Device) readFile(r rtmr.Register) ([]byte, error) {
	value, err := os.ReadFile(d.file(r))
	if err != nil {
		return nil, typed(err, featureRegisters)
	}
	if n, size := len(value), rtmr.SHA384.Size(); n < size {
		return nil, fmt.Errorf("%s: %w: %d bytes, expected %d", d.file(r), rtmr.ErrShort, n, size)
	} else if n > size {
		return nil, fmt.Errorf("%s: %d bytes, expected %d", d.file(r), n, size)
	}
	return value, nil
}
