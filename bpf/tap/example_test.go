//go:build linux

package tap_test

import (
	"context"
	"fmt"
	"log"

	"tallystick/bpf/tap"
)

// Follow IMA's list, and say who measured.
func Example() {
	t, err := tap.Open(tap.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	for _, s := range t.Status() {
		fmt.Println(s)
	}

	ctx := context.Background()
	go func() {
		for r, err := range t.Records(ctx) {
			if err != nil {
				return
			}
			fmt.Println(r)
		}
	}()
	for t.Wait(ctx, tap.IMA) == nil {
		// Read what is new in the list.
	}
}
