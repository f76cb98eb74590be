// Command tally recomputes register values from measurement logs, offline.
//
// Exit status: 0 done; 1 a log contradicts itself; 2 input or usage.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// errContradiction is an answer, not a fault: it was reported already.
var errContradiction = errors.New("a log contradicts itself")

func main() {
	err := newRoot().Execute()
	switch {
	case err == nil:
	case errors.Is(err, errContradiction):
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(2)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "tally",
		Short:         "Recompute register values from boot and IMA measurement logs",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newShow(), newReplay(), newConvert(), newDemo())
	return root
}
