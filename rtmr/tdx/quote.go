//go:build linux

package tdx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"

	"tallystick/rtmr"
)

// provider is what the driver calls itself in configfs.
const provider = "tdx_guest\n"

// Quote returns a quote of the registers as they are, with the caller's 64 bytes
// as REPORTDATA. It is of the format that the host's quoting service makes, as a
// rule Intel's version 4 or 5. Each request has its own folder in configfs, and a
// quote that was made of what somebody else wrote there is not returned.
//
// A quote takes seconds. A request that another one holds up, or that the host
// does not answer in the kernel's 30 seconds, is made again until
// Options.Patience ends; then the error is rtmr.ErrBusy. When the context ends, Quote
// returns at once; the folder is removed when the kernel has ended the request,
// if the process lives so long.
//
// Requires Linux 6.7, else the error is rtmr.ErrNotSupported.
func (d *Device) Quote(ctx context.Context, reportData [64]byte) (quote []byte, err error) {
	err = d.whileBusy(ctx, func() (err error) {
		quote, err = request(ctx, reportData)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	return quote, nil
}

// request makes a request and does not wait for it when the context has ended.
// It then still removes its folder.
func request(ctx context.Context, reportData [64]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		quote []byte
		err   error
	}
	done := make(chan result, 1)
	go func() {
		quote, err := getQuote(reportData)
		done <- result{quote, err}
	}()
	select {
	case r := <-done:
		return r.quote, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func getQuote(reportData [64]byte) ([]byte, error) {
	linux, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, typed(err, featureQuotes)
	}
	c := &client{Client: linux}
	response, err := report.Get(c, &report.Request{InBlob: reportData[:]})
	if c.err != nil {
		err = c.err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: somebody removed the request: %w", rtmr.ErrBusy, err)
	case err != nil:
		return nil, typed(err, featureQuotes)
	}
	if response.Provider != provider {
		return nil, &rtmr.NotSupportedError{Feature: featureQuotes, Err: fmt.Errorf("the provider is %q", response.Provider)}
	}
	if len(response.OutBlob) == 0 {
		// The driver does not look at the service's status
		// (drivers/virt/coco/tdx-guest/tdx-guest.c, tdx_report_new_locked).
		return nil, fmt.Errorf("%w: a quote of 0 bytes: the host's quoting service failed", rtmr.ErrShort)
	}
	// A folder that was removed and made anew has a generation that looks right.
	if l, err := quoteLayout(response.OutBlob); err == nil && !bytes.Equal(response.OutBlob[l.reportData:][:64], reportData[:]) {
		return nil, fmt.Errorf("%w: somebody else wrote to the request", rtmr.ErrBusy)
	}
	return response.OutBlob, nil
}

// client keeps the first error, of which package report keeps the text alone.
type client struct {
	configfsi.Client
	err error
}

func (c *client) keep(err error) error {
	if c.err == nil {
		c.err = err
	}
	return err
}

func (c *client) MkdirTemp(dir, pattern string) (string, error) {
	name, err := c.Client.MkdirTemp(dir, pattern)
	return name, c.keep(err)
}

func (c *client) ReadFile(name string) ([]byte, error) {
	content, err := c.Client.ReadFile(name)
	return content, c.keep(err)
}

func (c *client) WriteFile(name string, content []byte) error {
	return c.keep(c.Client.WriteFile(name, content))
}

func (c *client) RemoveAll(path string) error { return c.keep(c.Client.RemoveAll(path)) }
