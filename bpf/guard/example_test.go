//go:build linux

package guard_test

import (
	"context"
	"log"
	"log/slog"

	"tallystick/bpf"
	"tallystick/bpf/guard"
)

// A helper guards its registers, closes the report interfaces to others, and
// logs what they are denied.
func Example() {
	if err := guard.Exec(); err != nil { // goes on from here the second time
		log.Fatal(err)
	}
	registers, err := bpf.Open(bpf.Options{})
	if err != nil {
		log.Fatal(err)
	}
	g, err := guard.Arm(registers)
	if err != nil {
		log.Fatal(err)
	}
	defer g.Close()
	closed, err := g.Seal()
	if err != nil {
		log.Fatal(err)
	}
	slog.Info("sealed", "closed", closed)
	for d, err := range g.Denials(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		slog.Warn("denied", "what", d.What, "pid", d.PID, "comm", d.Comm, "object", d.Object)
	}
}
