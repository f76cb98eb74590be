//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"tallystick/bpf"
	"tallystick/bpf/guard"
	"tallystick/guest"
	"tallystick/rtmr"
)

// enterMemory executes this program again from memory, if a guard may have to know
// it; or the version that armed the guard, where one runs that does not admit this one.
func (s *service) enterMemory(log *slog.Logger) error {
	switch s.guard {
	case "yes", "no", "auto":
	default:
		return fmt.Errorf("--guard %q, expected yes, no or auto", s.guard)
	}
	if s.seal && s.guard == "no" {
		return errors.New("--seal takes the guard, which --guard no leaves out")
	}
	if s.guard == "no" || s.device != "auto" && s.device != "bpf" {
		return nil
	}
	err := guard.Exec()
	if err != nil && s.guard == "auto" && !s.seal {
		return nil // arm says that there is no guard, and why
	}
	if err != nil {
		return err
	}
	err = guard.Admitted()
	if !errors.Is(err, guard.ErrNotAdmitted) {
		return nil // arm says what else is in the way, if there is to be a guard
	}
	log.Warn("the guard does not admit this program: executing the one that armed it; this one will run after the next boot", "kept", s.kept(), "reason", err)
	return fmt.Errorf("%w; %w: nothing is extended until that is there again, or until the next boot", err, guard.ExecKept(s.kept()))
}

// kept is where the program that armed the guard is kept.
func (s *service) kept() string { return filepath.Join(s.state, "guarded") }

// guarding is what became of the guard.
type guarding struct {
	guard *guard.Guard // nil if it is off
	why   string       // it is
}

// String says it for the evidence.
func (g *guarding) String() string {
	s := g.status()
	if s.State == "off" {
		return strings.TrimSuffix("off: "+s.Reason, ": ")
	}
	how := fmt.Sprintf("armed; sealed %t; missing hooks %v", s.State == "sealed", s.Missing)
	if s.Restart != "" {
		how += "; a restarted helper is not admitted: " + s.Restart
	}
	return how
}

// status is the guard's for Status.
func (g *guarding) status() *guest.GuardStatus {
	if g.guard == nil {
		return &guest.GuardStatus{State: "off", Reason: g.why}
	}
	now, err := g.guard.Status()
	if err != nil {
		return &guest.GuardStatus{State: "armed", Reason: err.Error()}
	}
	s := &guest.GuardStatus{State: "armed", Hooks: now.Hooks, Missing: now.Missing, Restart: now.Restart, Denied: make(map[string]uint64), Lost: now.Lost}
	if now.Sealed {
		s.State = "sealed"
	}
	for what, n := range now.Denied {
		s.Denied[what.String()] = n
	}
	return s
}

// arm guards registers in the kernel. Where the kernel cannot, that is an error only if
// a guard was asked for.
func (s *service) arm(ctx context.Context, device rtmr.Device, log *slog.Logger) (*guarding, error) {
	registers, ok := device.(*bpf.Registers)
	if !ok || s.guard == "no" {
		if s.seal {
			return nil, fmt.Errorf("--seal: no guard for the device %s", device.Describe().Kind)
		}
		if s.guard == "yes" {
			why := "no guard for the device " + device.Describe().Kind
			log.Warn("no guard", "reason", why)
			return &guarding{why: why}, nil
		}
		return &guarding{}, nil
	}
	g, err := guard.Arm(registers)
	if s.guard == "auto" && !s.seal && (errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, guard.ErrNotInMemory)) {
		log.Warn("no guard: root can rewrite the registers", "reason", err)
		return &guarding{why: err.Error()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if err := guard.Keep(s.kept()); err != nil {
		log.Warn("an upgraded program will have none to hand over to, and not be admitted", "error", err)
	}
	go logDenials(ctx, g, log)
	if s.seal {
		closed, err := g.Seal()
		if err != nil {
			return nil, fmt.Errorf("seal: %w", err)
		}
		log.Info("sealed: nobody else gets the hardware's reports", "closed", closed)
	}
	status, err := g.Status()
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if status.Restart != "" {
		log.Warn("a restarted helper will not be admitted", "reason", status.Restart)
	}
	guarded := &guarding{guard: g}
	log.Info("guard", "hooks", strings.Join(status.Hooks, " "), "status", guarded)
	return guarded, nil
}

// logDenials tells of what others were denied.
func logDenials(ctx context.Context, g *guard.Guard, log *slog.Logger) {
	for d, err := range g.Denials(ctx) {
		if err != nil {
			log.Error("cannot read what the guard denied", "error", err)
			return
		}
		log.Warn("denied", "attempt", d)
	}
}
