//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"tallystick/guest"
	"tallystick/rtmr"
)

// service is what tallyd run is told.
type service struct {
	device, state, register, boot string
	poll                          time.Duration
	allow                         []uint
}

func runCommand() *cobra.Command {
	var s service
	cmd := &cobra.Command{
		Use:   "run",
		Short: "The service",
		Long: `Run extends the kernel's IMA list, and what applications ask for, into the
device's registers, until it is stopped. Its journal, a canonical event log, is
ahead of the registers at any moment, so that it can be killed at any moment.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.run(cmd.Context()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&s.device, "device", "auto", "tdx, tpm, bpf, or memory, which vouches for nothing; auto takes the first of the others that is there")
	flags.StringVar(&s.state, "state", "/run/tallystick", "folder of the journal and the socket")
	flags.StringVar(&s.register, "register", "", "register for IMA's entries, in place of their own or, in a TD, of RTMR2")
	flags.StringVar(&s.boot, "boot-log", "auto", "extend the firmware's log too: yes, no, or auto, into registers that no firmware extends")
	flags.DurationVar(&s.poll, "poll", time.Second, "how often to look where nothing wakes the service")
	flags.UintSliceVar(&s.allow, "allow-uid", nil, "users that may ask over the socket, beside root")
	return cmd
}

func (s *service) run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	chosen, err := guest.Choose(s.device)
	if err != nil {
		return err
	}
	defer chosen.Close()
	for _, why := range chosen.Why {
		log.Info("device", "choice", why)
	}
	cfg := guest.Config{Device: chosen.Device, Journal: filepath.Join(s.state, "journal.cel"), Wake: guest.Poll(s.poll), Log: log}
	if s.register != "" {
		if cfg.Register, err = rtmr.ParseRegister(s.register); err != nil {
			return fmt.Errorf("--register: %w", err)
		}
	}
	if cfg.Boot, err = s.bootLog(ctx, chosen.Device, log); err != nil {
		return err
	}
	if err := watch(&cfg); err != nil {
		return err
	}
	helper, err := guest.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer helper.Close()
	listener, err := listen(filepath.Join(s.state, filepath.Base(socket)))
	if err != nil {
		return err
	}
	return serve(ctx, helper, listener, s.allow, log)
}

// bootLog holds the firmware's log against the registers, and returns it if it is to
// be extended.
func (s *service) bootLog(ctx context.Context, device rtmr.Device, log *slog.Logger) (*guest.BootLog, error) {
	kind := device.Describe().Kind
	extend := kind == "bpf" || kind == "memory"
	switch s.boot {
	case "auto":
	case "yes":
		extend = true
	case "no":
		extend = false
	default:
		return nil, fmt.Errorf("--boot-log %q, expected yes, no or auto", s.boot)
	}
	boot, err := guest.FindBootLog("/")
	if err != nil || boot == nil {
		log.Info("boot log", "found", false)
		return nil, err
	}
	if extend {
		log.Info("boot log", "path", boot.Path, "extended", true)
		return boot, nil
	}
	live, err := device.Read(ctx)
	if err != nil {
		return nil, err
	}
	check := boot.Check(live)
	level := slog.LevelInfo
	if check.Problem != nil || len(check.Differ) > 0 {
		level = slog.LevelWarn
	}
	log.Log(ctx, level, "boot log", "path", boot.Path, "events", check.Events, "match", check.Match, "differ", check.Differ, "problem", check.Problem)
	return nil, nil
}

// serve runs the helper and its server until the context ends, or one of them fails.
func serve(ctx context.Context, helper *guest.Helper, listener net.Listener, allow []uint, log *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := &guest.Server{Helper: helper, Log: log}
	for _, uid := range allow {
		server.Allow = append(server.Allow, uint32(uid))
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		stop(server.Serve(ctx, listener))
	}()
	daemon.SdNotify(false, daemon.SdNotifyReady)
	err := helper.Run(ctx)
	daemon.SdNotify(false, daemon.SdNotifyStopping)
	stop(err)
	<-served
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return nil // it was told to stop
	}
	return context.Cause(ctx)
}
