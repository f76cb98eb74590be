//go:build linux

package tdx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-configfs-tsm/report"
	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// What a kernel may lack.
const (
	featureRegisters = "run-time registers of TDX (Linux 6.16, module tdx_guest)"
	featureReports   = "TDREPORTs (Linux 6.2, module tdx_guest)"
	featureQuotes    = "TDX quotes through configfs (Linux 6.7, module tdx_guest, configfs mounted)"
)

// typed makes one of rtmr's errors of what the kernel said.
func typed(err error, feature string) error {
	is := func(errnos ...error) bool {
		return slices.ContainsFunc(errnos, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case is(unix.ENOENT, unix.ENOTDIR, unix.ENODEV, unix.ENXIO, unix.ENOTTY):
		return &rtmr.NotSupportedError{Feature: feature, Err: err}
	case is(unix.EACCES, unix.EPERM, unix.EROFS):
		return fmt.Errorf("%w: %w", rtmr.ErrDenied, err)
	case is(unix.EBUSY, unix.ETIMEDOUT), errors.As(err, new(*report.GenerationErr)):
		return fmt.Errorf("%w: %w", rtmr.ErrBusy, err)
	}
	return err
}

// whileBusy calls try until it does not return rtmr.ErrBusy, until the context
// ends, or until the device's patience does. It calls try once at least.
func (d *Device) whileBusy(ctx context.Context, try func() error) error {
	deadline := time.Now().Add(d.opts.Patience)
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := try()
		if !errors.Is(err, rtmr.ErrBusy) || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}
