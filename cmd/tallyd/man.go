//go:build linux && man

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// The command man is in no tallyd that runs, since what writes manual pages is
// much code.
func init() {
	packagers = append(packagers, &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages, tallyd.1 and one a command, into a folder",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // no dates: builds are reproducible
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(root, &doc.GenManHeader{Title: "TALLYD", Section: "1", Source: "Tallystick"}, args[0])
		},
	})
}
