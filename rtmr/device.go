package rtmr

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Device is a set of registers that a running system can extend: a TD's, a
// TPM's, those of package bpf. Its methods may be called from any number of
// goroutines at once.
//
// Package devicetest is what every implementation has to do.
type Device interface {
	// Describe says what registers there are. It does not change while the
	// device is open; nor may the caller change it, which is the device's own.
	Describe() Description

	// Read returns the registers' values now, in every bank of each; without
	// names, of all registers. One that the device does not have is
	// ErrNotSupported. What is read is whole, but only some devices read
	// several registers at one moment: see their own documentation.
	Read(ctx context.Context, registers ...Register) (Values, error)

	// Extend folds one digest into the register in each of its banks. It takes
	// a digest for every bank and none beside them, in any order, so that no
	// bank is left behind.
	//
	// An error means that the register is as it was, unless it is ErrUnknown:
	// then the caller has to learn from the register, or a quote of it, what
	// happened, before it tries again. The context is looked at before the extend
	// begins; one that has begun is not abandoned.
	Extend(ctx context.Context, register Register, digests []Digest) error
}

// Description says what a device is.
type Description struct {
	Kind      string         `json:"kind"` // "tdx", "tpm", "bpf" or "memory"
	Name      string         `json:"name"` // for people, on one line: where it is, who made it
	Registers []RegisterInfo `json:"registers"`
}

// RegisterInfo is one register of a device.
type RegisterInfo struct {
	Register Register `json:"register"`
	Banks    []Alg    `json:"banks"`    // in which it has a value, in rising order of their number
	Writable bool     `json:"writable"` // Extend may be called
}

// What an error of a Device is, for errors.Is.
var (
	// ErrNotSupported says that the device, or the kernel, has no such thing.
	ErrNotSupported = errors.New("not supported")
	// ErrDenied says that it has, but not for this process.
	ErrDenied = errors.New("denied")
	// ErrBusy says that others kept it busy for too long. Trying again is safe.
	ErrBusy = errors.New("busy")
	// ErrShort says that there were fewer bytes than the register has: in a
	// digest, or in what a device gave or took.
	ErrShort = errors.New("short")
	// ErrDigests says that the digests are not one for each of the register's
	// banks, of its size.
	ErrDigests = errors.New("not one digest for each bank")
	// ErrNotWritable says that the register is there and cannot be extended.
	ErrNotWritable = errors.New("register not writable")
	// ErrUnknown says that the register may have been extended, or not.
	ErrUnknown = errors.New("unknown whether extended")
)

// NotSupportedError is an ErrNotSupported that names what is missing.
type NotSupportedError struct {
	Feature string // "BPF programs of type SYSCALL (Linux 5.14)"
	Err     error  // what the kernel said; may be nil
}

func (e *NotSupportedError) Error() string {
	if e.Err == nil {
		return "this system has no " + e.Feature
	}
	return fmt.Sprintf("this system has no %s: %v", e.Feature, e.Err)
}

func (e *NotSupportedError) Unwrap() []error { return []error{ErrNotSupported, e.Err} }

// Register returns what the device says of a register; ok is false if it does
// not have it.
func (d *Description) Register(r Register) (info RegisterInfo, ok bool) {
	i := slices.IndexFunc(d.Registers, func(i RegisterInfo) bool { return i.Register == r })
	if i < 0 {
		return RegisterInfo{}, false
	}
	return d.Registers[i], true
}

// Select returns the named registers, or all where none is named. It is
// ErrNotSupported to name one that the device does not have.
func (d *Description) Select(registers []Register) ([]RegisterInfo, error) {
	if len(registers) == 0 {
		return d.Registers, nil
	}
	infos := make([]RegisterInfo, 0, len(registers))
	for _, r := range registers {
		info, ok := d.Register(r)
		if !ok {
			return nil, fmt.Errorf("%s: %w: %s has no such register", r, ErrNotSupported, d.Name)
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// CheckExtend reports why the device cannot extend the register by the digests:
// ErrNotSupported, ErrNotWritable, ErrShort or ErrDigests.
func (d *Description) CheckExtend(r Register, digests []Digest) error {
	info, ok := d.Register(r)
	if !ok {
		return fmt.Errorf("%s: %w: %s has no such register", r, ErrNotSupported, d.Name)
	}
	if !info.Writable {
		return fmt.Errorf("%s: %w", r, ErrNotWritable)
	}
	for i, digest := range digests {
		if !slices.Contains(info.Banks, digest.Alg) {
			return fmt.Errorf("%s: %w: no bank %s, expected %v", r, ErrDigests, digest.Alg, info.Banks)
		}
		if slices.ContainsFunc(digests[:i], func(e Digest) bool { return e.Alg == digest.Alg }) {
			return fmt.Errorf("%s: %w: two in %s", r, ErrDigests, digest.Alg)
		}
		if n, size := len(digest.Sum), digest.Alg.Size(); n < size {
			return fmt.Errorf("%s: %w: a %s digest of %d bytes, expected %d", r, ErrShort, digest.Alg, n, size)
		} else if n > size {
			return fmt.Errorf("%s: %w: one in %s of %d bytes, expected %d", r, ErrDigests, digest.Alg, n, size)
		}
	}
	for _, a := range info.Banks {
		if !slices.ContainsFunc(digests, func(d Digest) bool { return d.Alg == a }) {
			return fmt.Errorf("%s: %w: none in %s", r, ErrDigests, a)
		}
	}
	return nil
}
