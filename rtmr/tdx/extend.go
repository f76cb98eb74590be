//go:build linux

package tdx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Extend is rtmr.Device's. It takes one digest, in SHA-384, and writes it to the
// register's file at once.
//
// When the kernel reports an error, the register is read back, from a TDREPORT, or
// from a quote where the process may not have one, which can take Options.Patience.
//   - If it is what it was, it was not extended, and the error says why.
//   - If it is what the extend makes of it, it was extended, and Extend returns nil.
//     That another process extended the same digest in place of this write, since
//     the register was read (its file: since the kernel read it), looks the same.
//   - Otherwise others extended it meanwhile, or it cannot be read back: the error is
//     rtmr.ErrUnknown, unless it is one that the kernel gives before an extend.
func (d *Device) Extend(ctx context.Context, register rtmr.Register, digests []rtmr.Digest) error {
	if err := d.description.CheckExtend(register, digests); err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	d.extending.Lock()
	defer d.extending.Unlock()
	err := d.whileBusy(ctx, func() error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return d.extend(ctx, register, digests[0].Sum)
	})
	if err != nil {
		return fmt.Errorf("extend %s: %w", register, err)
	}
	return nil
}

func (d *Device) extend(ctx context.Context, r rtmr.Register, digest []byte) error {
	f, err := os.OpenFile(d.file(r), os.O_WRONLY, 0)
	if err != nil {
		return typed(err, featureRegisters)
	}
	defer f.Close()
	// A register that cannot be read can be extended all the same.
	before, _ := d.Read(ctx, r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		// os.File would write the rest of a short write.
		n, err := unix.Pwrite(int(f.Fd()), digest, 0)
		switch {
		case err == unix.EINTR:
			// tsm-mr.c and tdx-guest.c give it where they wait for their locks,
			// before the TDX module is called.
			continue
		case err == nil && n == len(digest):
			return nil
		case err == nil:
			err = fmt.Errorf("%w: the kernel took %d bytes of %d", rtmr.ErrShort, n, len(digest))
		}
		// What has begun is not abandoned.
		return d.settle(context.WithoutCancel(ctx), r, before[rtmr.SHA384][r], digest, fmt.Errorf("write %s: %w", d.file(r), err))
	}
}

// settle finds out what became of a write that failed. Every value of a register
// is a hash over the one before it, so it never comes back to an old one.
func (d *Device) settle(ctx context.Context, r rtmr.Register, before, digest []byte, cause error) error {
	after, err := d.readBack(ctx, r)
	if err == nil && before == nil {
		err = errors.New("what it was could not be read")
	}
	if err == nil {
		extended := bytes.Clone(before)
		rtmr.SHA384.Extend(extended, digest)
		switch {
		case bytes.Equal(after, extended):
			return nil
		case bytes.Equal(after, before):
			return typed(cause, featureRegisters)
		}
		err = fmt.Errorf("it is %x now and was %x", after, before)
	}
	if refused(cause) {
		return typed(cause, featureRegisters)
	}
	// %v: it may be that the reading was refused, or busy, and not the extend.
	return fmt.Errorf("%w: %w; %v", rtmr.ErrUnknown, cause, err)
}

// refused reports whether an error means that the register was not touched,
// whatever it is now.
func refused(err error) bool {
	return slices.ContainsFunc([]error{
		unix.ENODEV, // the device is gone (fs/kernfs/file.c)
		unix.EINVAL, // not a register's size (drivers/virt/coco/guest/tsm-mr.c)
		unix.ENXIO,  // TDX_OPERAND_INVALID (arch/x86/coco/tdx/tdx.c)
		unix.EBUSY,  // TDX_OPERAND_BUSY
	}, func(e error) bool { return errors.Is(err, e) })
}

// readBack reads a register from the TDX module. The register's file does not
// show an extend whose write failed: tsm-mr.c refreshes its cache after those
// that succeeded.
func (d *Device) readBack(ctx context.Context, r rtmr.Register) ([]byte, error) {
	report, err := d.Report(ctx, [64]byte{})
	if err == nil {
		return tdReport.value(report, r), nil
	}
	quote, quoteErr := d.Quote(ctx, [64]byte{})
	if quoteErr != nil {
		return nil, fmt.Errorf("%w; %w", err, quoteErr)
	}
	l, quoteErr := quoteLayout(quote)
	if quoteErr != nil {
		return nil, fmt.Errorf("%w; %w", err, quoteErr)
	}
	return l.value(quote, r), nil
}
