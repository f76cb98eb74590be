//go:build !linux

package main

import (
	"context"
	"fmt"
	"io"
)

// demoGuest says that there is no guest's half here.
func (c *capture) demoGuest(_ context.Context, w io.Writer, _ string) error {
	_, err := fmt.Fprintln(w, "\nThe guest's half, tallyd, takes Linux, and is left out.")
	return err
}
