//go:build linux

// Tallyd is the guest helper: it extends the kernel's and applications'
// measurements into hardware's run-time registers, or into registers in the kernel,
// each exactly once, and keeps the log that goes with them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "tallyd:", err)
		switch {
		case errors.Is(err, errLater):
			os.Exit(3)
		case errors.Is(err, errUnknown):
			os.Exit(4)
		}
		os.Exit(2)
	}
}

// socket is where the service listens.
const socket = "/run/tallystick/tallyd.sock"

// packagers are commands that packaging takes and the service has not: see man.go.
var packagers []*cobra.Command

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "tallyd",
		Short:         "Extend measurements into registers, and keep their log",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), statusCommand(), valuesCommand(), extendCommand(), evidenceCommand())
	root.AddCommand(packagers...)
	return root
}
