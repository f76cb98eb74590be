//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"tallystick/bpf"
	"tallystick/rtmr"
	"tallystick/rtmr/tdx"
	"tallystick/rtmr/tpm"
)

// Chosen is the device that measurements are extended into, and why.
type Chosen struct {
	rtmr.Device
	io.Closer
	Why []string // a line for each kind that was tried
}

// deviceKind is one kind of device, in the order in which they are tried.
type deviceKind struct {
	name string
	open func(DeviceOptions) (rtmr.Device, io.Closer, error)
}

// DeviceOptions are a device's; the zero value is of this system's own.
type DeviceOptions struct {
	Pins string // folder of a BPF file system for the registers in the kernel
}

var deviceKinds = []deviceKind{
	{"tdx", func(DeviceOptions) (rtmr.Device, io.Closer, error) {
		d, err := tdx.Open(tdx.Options{})
		return d, nopCloser{}, err
	}},
	{"tpm", func(DeviceOptions) (rtmr.Device, io.Closer, error) {
		d, err := tpm.Open(tpm.Options{})
		return d, d, err
	}},
	{"bpf", func(o DeviceOptions) (rtmr.Device, io.Closer, error) {
		r, err := bpf.Open(bpf.Options{Path: o.Pins})
		return r, r, err
	}},
}

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

// Choose opens the device of a kind: "tdx", "tpm" or "bpf"; "memory" is one in this
// process, which vouches for nothing; "auto" takes the first of the others that is
// there. One that is there and cannot be used is an error, and no reason to take the
// next: measurements in a weaker device would look as if they were all.
func Choose(kind string, o DeviceOptions) (*Chosen, error) {
	c := &Chosen{}
	if kind == "memory" {
		var registers []rtmr.Register
		for i := range rtmr.NumPCRs {
			r, _ := rtmr.PCR(i).Register()
			registers = append(registers, r)
		}
		return &Chosen{rtmr.NewMemory(bpf.Banks, registers...), nopCloser{}, []string{"memory: as asked for"}}, nil
	}
	var names []string
	for _, k := range deviceKinds {
		names = append(names, k.name)
		if kind != "auto" && kind != k.name {
			continue
		}
		device, closer, err := k.open(o)
		switch {
		case err == nil:
			c.Device, c.Closer = device, closer
			c.Why = append(c.Why, fmt.Sprintf("%s: %s", k.name, device.Describe().Name))
			return c, nil
		case kind == "auto" && errors.Is(err, rtmr.ErrNotSupported):
			c.Why = append(c.Why, fmt.Sprintf("not %s: %v", k.name, err))
		default:
			return nil, fmt.Errorf("device %s: %w", k.name, err)
		}
	}
	if kind != "auto" {
		return nil, fmt.Errorf("device %q, expected auto, %s or memory", kind, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("no device: %s", strings.Join(c.Why, "; "))
}
