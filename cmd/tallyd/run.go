//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"tallystick/bpf"
	"tallystick/bpf/tap"
	"tallystick/guest"
	"tallystick/rtmr"
)

// runtimeFolder is where all helpers of a system have their locks, whatever their state's
// folder is, and by default that as well.
const runtimeFolder = "/run/tallystick"

// service is what tallyd run is told.
type service struct {
	device, state, register, boot string
	root, pins                    string
	guard                         string
	seal                          bool
	poll                          time.Duration
	allow, cids                   []uint
	vsock                         uint32
	evidenceRate, extendRate      float64
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
	flags.StringVar(&s.state, "state", runtimeFolder, "folder of the journal and the socket")
	flags.StringVar(&s.register, "register", "", "register for IMA's entries, in place of their own or, in a TD, of RTMR2")
	flags.StringVar(&s.boot, "boot-log", "auto", "extend the firmware's log too: yes, no, or auto, into registers that no firmware extends. Where there is none: measure kernel, command line, initrd and machine, unless no")
	flags.StringVar(&s.guard, "guard", "no", "keep root from registers in the kernel: yes, no, or auto, where the kernel can. Until the next boot it admits this very program alone, and not under seccomp: no upgraded one")
	flags.BoolVar(&s.seal, "seal", false, "with the guard: give the hardware's reports to nobody else, until the next boot")
	flags.StringVar(&s.root, "root", "/", "folder below which the kernel's lists and the firmware's log are, such as another machine's; the evidence says so")
	flags.StringVar(&s.pins, "pins", bpf.DefaultPath, "folder, of a BPF file system, of registers in the kernel")
	flags.DurationVar(&s.poll, "poll", time.Second, "how often to look where nothing wakes the service")
	flags.UintSliceVar(&s.allow, "allow-uid", nil, "users that may ask over the socket, beside root")
	flags.Uint32Var(&s.vsock, "vsock", 0, "port on which to give evidence, and nothing else, over vsock")
	flags.UintSliceVar(&s.cids, "allow-cid", nil, "CIDs of machines that may ask over vsock (default 2, the host)")
	flags.Float64Var(&s.evidenceRate, "evidence-rate", guest.DefaultEvidenceRate, "pieces of evidence a second; 10 may be asked for at once")
	flags.Float64Var(&s.extendRate, "extend-rate", guest.DefaultExtendRate, "applications' extends a second; 1000 may be asked for at once")
	return cmd
}

// check reports flags that cannot be.
func (s *service) check() error {
	for name, rate := range map[string]float64{"evidence-rate": s.evidenceRate, "extend-rate": s.extendRate} {
		if !(rate > 0) || math.IsInf(rate, 0) {
			return fmt.Errorf("--%s %v, expected more than 0 a second", name, rate)
		}
	}
	for name, ids := range map[string][]uint{"allow-uid": s.allow, "allow-cid": s.cids} {
		for _, id := range ids {
			if id > math.MaxUint32 {
				return fmt.Errorf("--%s %d, expected 32 bits", name, id)
			}
		}
	}
	if s.poll <= 0 {
		return fmt.Errorf("--poll %v, expected more than 0", s.poll)
	}
	return nil
}

func (s *service) run(ctx context.Context) error {
	if err := s.check(); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := s.enterMemory(log); err != nil {
		return err
	}
	tapped, err := tap.Open(tap.Options{Poll: s.poll}) // before anything is read
	if err != nil {
		return err
	}
	defer tapped.Close()
	chosen, err := guest.Choose(s.device, guest.DeviceOptions{Pins: s.pins})
	if err != nil {
		return err
	}
	defer chosen.Close()
	for _, why := range chosen.Why {
		log.Info("device", "choice", why)
	}
	cfg := guest.Config{Device: chosen.Device, Journal: filepath.Join(s.state, "journal.cel"), IMADir: filepath.Join(s.root, guest.IMADir), Root: s.root, Log: log}
	cfg.Wake, cfg.Tapped = waker{tapped}, sayTap(tapped, log)
	if chosen.Device.Describe().Kind != "memory" { // which is each process's own
		cfg.Locks = runtimeFolder
	}
	if s.root != "/" {
		cfg.Facts = append(cfg.Facts, [2]string{"root", "logs are read below " + s.root})
		cfg.Wake = guest.Poll(s.poll) // the tap is this kernel's, and those lists are not
	}
	if s.register != "" {
		if cfg.Register, err = rtmr.ParseRegister(s.register); err != nil {
			return fmt.Errorf("--register: %w", err)
		}
	}
	if err := s.bootLog(ctx, &cfg); err != nil {
		return err
	}
	if err := watch(&cfg); err != nil {
		return err
	}
	if cfg.Prover, err = guest.NewProver(ctx, chosen.Device); err != nil {
		return err
	}
	cfg.Facts = append(cfg.Facts, facts(tapped)...)
	if err := s.folder(); err != nil { // where the guard's program is kept, too
		return err
	}
	guarded, err := s.arm(ctx, chosen.Device, log)
	if err != nil {
		return err
	}
	cfg.Facts = append(cfg.Facts, [2]string{"guard", guarded.String()})
	cfg.About.Chosen, cfg.About.Guard = chosen.Why, guarded.status
	cfg.About.Tap = func() []guest.TapStatus { return tapStatus(tapped) }
	helper, err := guest.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer helper.Close()
	listeners, err := s.sockets()
	if err != nil {
		return err
	}
	go attribute(ctx, tapped, helper, log)
	return s.serve(ctx, helper, listeners, log)
}

// waker wakes the helper when IMA measured something.
type waker struct{ *tap.Tap }

func (w waker) Wait(ctx context.Context) error { return w.Tap.Wait(ctx, tap.IMA) }

// sayTap says what is tapped, and returns whether extends by others are.
func sayTap(t *tap.Tap, log *slog.Logger) (others bool) {
	for _, s := range t.Status() {
		if s.Method == "" {
			log.Info("tap", "source", s.Source, "polled every", s.Poll, "reason", s.Err)
			continue
		}
		if s.Err != nil { // by the second best
			log.Info("tap", "source", s.Source, "method", s.Method, "reason", s.Err)
		} else {
			log.Info("tap", "source", s.Source, "method", s.Method)
		}
		others = others || s.Source == tap.TSM
	}
	return others
}

// attribute tells the helper of extends by other processes.
func attribute(ctx context.Context, t *tap.Tap, helper *guest.Helper, log *slog.Logger) {
	for {
		r, err := t.Next(ctx)
		if err != nil {
			return
		}
		if r.Source != tap.TSM || r.PID == os.Getpid() || r.Register.IsZero() {
			continue
		}
		log.Warn("another process extended a register", "record", r)
		err = helper.Saw(ctx, guest.Other{Register: r.Register, Digest: r.Digest, PID: r.PID, PPID: r.PPID,
			Comm: r.Comm, CgroupID: r.CgroupID, BootTime: r.Time})
		if err != nil && ctx.Err() == nil {
			log.Error("cannot hold the register against the journal", "register", r.Register, "error", err)
		}
	}
}

// folder makes the folder of the journal and the socket, if it is not there: who may
// ask has to be able to enter it, whatever the umask.
func (s *service) folder() error {
	if _, err := os.Stat(s.state); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.MkdirAll(s.state, 0o755), os.Chmod(s.state, 0o755))
}

func ids(given []uint) (ids []uint32) {
	for _, id := range given {
		ids = append(ids, uint32(id))
	}
	return ids
}

// tapStatus is the tap's for Status.
func tapStatus(t *tap.Tap) (all []guest.TapStatus) {
	for _, s := range t.Status() {
		g := guest.TapStatus{Source: s.Source.String(), Method: string(s.Method), Measured: s.Measured, Lost: s.Lost, Missed: s.Missed}
		if s.Method == "" {
			g.Poll = s.Poll.Seconds()
		}
		if s.Err != nil {
			g.Reason = s.Err.Error()
		}
		all = append(all, g)
	}
	return all
}

// facts are what the evidence says of the helper beside its registers.
func facts(t *tap.Tap) (facts [][2]string) {
	for _, s := range t.Status() {
		how := string(s.Method)
		if s.Method == "" {
			how = fmt.Sprintf("polled every %v: %v", s.Poll, s.Err)
		}
		facts = append(facts, [2]string{"tap " + s.Source.String(), how})
	}
	return facts
}

// bootLog finds the firmware's log, and says whether it is to be extended; if it was
// by the firmware, it holds it against the registers.
func (s *service) bootLog(ctx context.Context, cfg *guest.Config) (err error) {
	kind := cfg.Device.Describe().Kind
	cfg.Mirror = kind == "bpf" || kind == "memory"
	switch s.boot {
	case "auto":
	case "yes":
		cfg.Mirror = true
	case "no":
		cfg.Mirror = false
	default:
		return fmt.Errorf("--boot-log %q, expected yes, no or auto", s.boot)
	}
	if cfg.FirmwareLog, err = guest.FindBootLog(s.root); err != nil {
		// Told, and no reason not to measure what comes.
		cfg.Log.Warn("boot log", "error", err)
		cfg.About.BootLog = &guest.BootLogStatus{Problem: err.Error()}
		cfg.Facts = append(cfg.Facts, [2]string{"boot log", "cannot be read: " + err.Error()})
		return nil
	}
	if cfg.FirmwareLog == nil {
		cfg.Log.Info("boot log", "found", false)
		if s.boot != "no" {
			cfg.Own, err = guest.OwnEvents(s.root)
		}
		return err
	}
	path := cfg.FirmwareLog.Path
	about := &guest.BootLogStatus{Path: path, Extended: cfg.Mirror}
	cfg.About.BootLog = about
	if cfg.Mirror {
		about.Events = cfg.FirmwareLog.Check(nil).Events
		cfg.Log.Info("boot log", "path", path, "extended", true)
		return nil
	}
	live, err := cfg.Device.Read(ctx)
	if err != nil {
		return err
	}
	check := cfg.FirmwareLog.Check(live)
	about.Events, about.Match, about.Differ = check.Events, names(check.Match), names(check.Differ)
	if check.Problem != nil {
		about.Problem = check.Problem.Error()
	}
	level := slog.LevelInfo
	if check.Problem != nil || len(check.Differ) > 0 {
		level = slog.LevelWarn
	}
	cfg.Log.Log(ctx, level, "boot log", "path", path, "events", check.Events, "match", check.Match, "differ", check.Differ, "problem", check.Problem)
	cfg.Facts = append(cfg.Facts, [2]string{"boot log", fmt.Sprintf("%d events; match %v; differ %v; problem %v", check.Events, check.Match, check.Differ, check.Problem)})
	return nil
}

// names are registers' with their banks, such as "sha384 rtmr0".
func names(selected []rtmr.Selected) (names []string) {
	for _, s := range selected {
		names = append(names, s.Alg.String()+" "+s.Register.String())
	}
	return names
}

// serve runs the helper and its server until the context ends, or one of them fails.
func (s *service) serve(ctx context.Context, helper *guest.Helper, listeners []net.Listener, log *slog.Logger) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := &guest.Server{Helper: helper, Log: log, AllowUID: ids(s.allow), AllowCID: ids(s.cids), EvidenceRate: s.evidenceRate, ExtendRate: s.extendRate}
	for _, l := range listeners {
		log.Info("answers", "network", l.Addr().Network(), "address", l.Addr())
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		stop(server.Serve(ctx, listeners...))
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
