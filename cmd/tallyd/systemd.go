//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"tallystick/guest"
)

// sockets returns what to answer on: what systemd gave, and of the unix and vsock
// sockets that are to be those that it did not.
func (s *service) sockets() (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				l.Close()
			}
		}
	}()
	local, remote := false, s.vsock == 0
	for _, file := range activation.Files(true) {
		l, err := given(file)
		if err != nil {
			return listeners, fmt.Errorf("systemd's descriptor %q: %w", file.Name(), err)
		}
		listeners = append(listeners, l)
		switch a := l.Addr().(type) {
		case *net.UnixAddr:
			local = true
		case *vsock.Addr:
			remote = remote || a.Port == s.vsock
		}
	}
	if !local {
		l, err := listen(filepath.Join(s.state, filepath.Base(socket)))
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	if !remote {
		l, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, s.vsock, nil)
		if err != nil {
			return listeners, fmt.Errorf("--vsock %d: %w", s.vsock, err)
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// given returns a socket of systemd's, which need not be one of package net's.
func given(file *os.File) (net.Listener, error) {
	defer file.Close() // the listener has a copy
	domain, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, fmt.Errorf("expected a socket: %w", err)
	}
	listens, err := unix.GetsockoptInt(int(file.Fd()), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens == 0 {
		return nil, errors.Join(errors.New("expected a socket that listens (ListenStream=, Accept=no)"), err)
	}
	switch domain {
	case unix.AF_UNIX:
		return net.FileListener(file)
	case unix.AF_VSOCK:
		return vsock.FileListener(file)
	}
	return nil, fmt.Errorf("address family %d, expected AF_UNIX or AF_VSOCK", domain)
}

// listen makes the socket anew: one of a process that died is in the way.
func listen(path string) (net.Listener, error) {
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
