//go:build !linux

package attester

import (
	"time"

	"tallystick/rtmr"
)

func lockMemory() error {
	return &rtmr.NotSupportedError{Feature: "memory that stays out of swap and dumps (Linux 4.4)"}
}

var started = time.Now()

// sinceBoot begins with the process, where no boot has registers to quote.
func sinceBoot() (time.Duration, error) { return time.Since(started), nil }
