//go:build linux

package tdx

import (
	"context"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TDX_CMD_GET_REPORT0 and its argument (include/uapi/linux/tdx-guest.h).
const cmdGetReport0 = 0xC4405401

type reportRequest struct {
	reportData [64]byte
	report     [tdReportSize]byte
}

// Report returns a TDREPORT, 1024 bytes, with the caller's 64 in it. It has the
// registers as they are, and a MAC that this machine alone can check.
//
// Requires Linux 6.2 and a device that the process may open, else the error is
// rtmr.ErrNotSupported or rtmr.ErrDenied.
func (d *Device) Report(ctx context.Context, reportData [64]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("TDREPORT: %w", err)
	}
	f, err := os.Open(d.opts.Node)
	if err != nil {
		return nil, typed(err, featureReports)
	}
	defer f.Close()
	request := reportRequest{reportData: reportData}
	err = d.whileBusy(ctx, func() error {
		errno := unix.EINTR
		for errno == unix.EINTR { // from the wait for the driver's lock
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, f.Fd(), cmdGetReport0, uintptr(unsafe.Pointer(&request)))
		}
		if errno != 0 {
			return typed(fmt.Errorf("%s: TDX_CMD_GET_REPORT0: %w", d.opts.Node, errno), featureReports)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return request.report[:], nil
}
