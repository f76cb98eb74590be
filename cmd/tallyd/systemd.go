//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"tallystick/guest"
)

// listen returns the socket that systemd gave, or else makes it anew: one of a
// process that died is in the way.
func listen(path string) (net.Listener, error) {
	given, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("systemd's socket: %w", err)
	}
	if len(given) > 0 {
		if len(given) > 1 || given[0] == nil {
			return nil, fmt.Errorf("systemd gave %d sockets, expected one that listens", len(given))
		}
		return given[0], nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil { // who may ask, the server decides
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// watch has systemd's watchdog see that the helper goes on. It does nothing where
// there is none.
func watch(cfg *guest.Config) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return err
	}
	var last time.Time
	cfg.Alive = func() {
		if now := time.Now(); now.Sub(last) > limit/8 {
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			last = now
		}
	}
	cfg.Wake = atLeast{cfg.Wake, limit / 4}
	return nil
}

// atLeast is a Waker that wakes after a time if nothing else does.
type atLeast struct {
	guest.Waker
	every time.Duration
}

func (w atLeast) Wait(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, w.every)
	defer cancel()
	if err := w.Waker.Wait(limited); ctx.Err() != nil || limited.Err() == nil {
		return err
	}
	return nil
}
