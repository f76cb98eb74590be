//go:build linux

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// A kernel that loads the program has what the program needs: no probe blames a
// feature that is there.
func TestNeeds(t *testing.T) {
	spec, err := loadRegisters()
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	coll.Close()
	for _, n := range needs {
		if err := n.Probe(); err != nil {
			t.Errorf("%s: %v", n.Feature, err)
		}
	}
}
