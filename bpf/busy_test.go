//go:build linux

package bpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"

	"tallystick/rtmr"
)

// Another extender stopped within a change, as after a fault in the kernel: it
// is told in finite time, and nothing is extended.
func TestExtendBusy(t *testing.T) {
	spec, err := loadRegisters()
	if err != nil {
		t.Fatal(err)
	}
	state := resetState()
	state.Sequence = 1
	spec.Maps["registers"].Contents = []ebpf.MapKV{{Key: uint32(0), Value: &state}}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Skip("no BPF:", err)
	}
	defer coll.Close()
	r := &Registers{state: coll.Maps["registers"], extend: coll.Programs["extend"]}

	entry := Entry{Register: rtmr.MustParse("pcr10")}
	for _, a := range Banks {
		entry.Digests = append(entry.Digests, rtmr.Digest{Alg: a, Sum: make([]byte, a.Size())})
	}
	if err := r.Extend(entry.Register, entry.Digests); !errors.Is(err, ErrBusy) {
		t.Errorf("%v, want ErrBusy", err)
	}
	if n, err := r.ExtendBatch([]Entry{entry, entry}); n != 0 || !errors.Is(err, ErrBusy) {
		t.Errorf("batch: %d, %v, want ErrBusy", n, err)
	}
	var after registersState
	if err := r.state.Lookup(uint32(0), &after); err != nil || after != state {
		t.Errorf("%v, or the registers were changed", err)
	}
}
