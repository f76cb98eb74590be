// Command tally recomputes register values from measurement logs, holds them
// against hardware quotes, and says where they part, all offline.
//
// Exit status: 0 done or reconciled; 1 not reconciled, or replay found a log that
// contradicts itself or another, or diff two logs that differ; 2 input or usage.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// errContradiction is an answer, not a fault: it was reported already.
var errContradiction = errors.New("a log contradicts itself")

// collectAt is by how many percent the heap grows until it is collected, unless
// GOGC says it. A replay keeps little and is over soon.
const collectAt = 400

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	err := newRoot().Execute()
	switch {
	case err == nil:
	case errors.Is(err, errContradiction), errors.Is(err, errDiffer), errors.Is(err, errNotReconciled):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "tally:", printable(err.Error()))
		os.Exit(2)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "tally",
		Short:         "Hold boot and IMA measurement logs against hardware quotes, and say where they part",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newShow(), newReplay(), newReconcile(), newExplain(), newUnpack(), newConvert(), newDiff(), newDemo(), newMan(), newMeasure())
	return root
}

// newMan returns the command that writes the manual pages, for packagers.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages, tally.1 and one a command, into a folder",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // no dates: builds are reproducible
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(root, &doc.GenManHeader{Title: "TALLY", Section: "1", Source: "Tallystick"}, args[0])
		},
	}
}
