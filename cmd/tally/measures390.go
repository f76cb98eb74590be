package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"tallystick/quote"
	"tallystick/rtmr"
)

const measureS390Help = `Recompute the digests of a Secure Execution image, as genprotimg or pvimg of
s390-tools made it, and hold them against its header's: the SHA-512 of the pages of
its components (PLD), of their addresses (ALD), and of the tweaks that they are
encrypted with (TLD). The components are measured as they stand in the image,
encrypted with its own key.

It prints PLD as the launch measurement, in JSON that tally reconcile --expect
takes; there, --s390-header takes the image itself. --parts prints the components.

Exit status: 0 measured, and as its header says; 2 otherwise, or input or usage.`

func newMeasureS390() *cobra.Command {
	var image string
	var out measureOutput
	cmd := &cobra.Command{
		Use:     "s390 --image FILE",
		Short:   "Recompute a Secure Execution image's digests",
		Long:    measureS390Help,
		Example: `  tally measure s390 --image se.img`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkGiven(cmd); err != nil {
				return err
			}
			if image == "" {
				return errors.New("--image is missing: the Secure Execution image")
			}
			data, err := readImage(image)
			if err != nil {
				return err
			}
			i, err := quote.ParseS390Image(data)
			if err == nil {
				err = i.Check()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", image, err)
			}
			return out.printS390(cmd, i)
		},
	}
	cmd.Flags().StringVar(&image, "image", "", "the Secure Execution image")
	out.register(cmd)
	return cmd
}

func (o *measureOutput) printS390(cmd *cobra.Command, i *quote.S390Image) error {
	var rows [][]string
	for n, c := range i.Components {
		rows = append(rows, []string{fmt.Sprintf("component %d", n), fmt.Sprintf("%#x", c.Address), fmt.Sprintf("%#x", c.Size), fmt.Sprintf("%#x", c.Tweak)})
	}
	values := rtmr.Values{rtmr.SHA512: {rtmr.Launch: i.PLD}}
	return o.print(cmd.OutOrStdout(), values, []string{"part", "address", "bytes", "tweak"}, rows,
		"pages  "+fmt.Sprint(i.Pages), "ALD    "+i.ALD.String(), "TLD    "+i.TLD.String(), "tag    "+i.Header.Tag.String())
}
