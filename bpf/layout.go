//go:build linux

package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"tallystick/rtmr"
)

// layoutVersion is the version of what registers.h defines.
const layoutVersion = 1

// Banks are the algorithms in which each register has a value.
var Banks = []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384}

// bank returns where a register or an entry holds its value of that algorithm.
func bank(a rtmr.Alg, sha1, sha256, sha384 []byte) []byte {
	switch a {
	case rtmr.SHA1:
		return sha1
	case rtmr.SHA256:
		return sha256
	case rtmr.SHA384:
		return sha384
	}
	return nil
}

func (r *registersReg) bank(a rtmr.Alg) []byte {
	return bank(a, r.Sha1[:], r.Sha256[:], r.Sha384[:])
}

func (e *registersEntry) bank(a rtmr.Alg) []byte {
	return bank(a, e.Sha1[:], e.Sha256[:], e.Sha384[:])
}

// resetState returns the registers as they are before the first extend.
func resetState() (s registersState) {
	for i := range s.Reg {
		r, _ := rtmr.PCR(i).Register()
		for _, a := range Banks {
			copy(s.Reg[i].bank(a), r.ResetValue(a))
		}
	}
	return s
}

// describe says what registers are pinned in the folder.
func describe(folder string, writable bool) rtmr.Description {
	d := rtmr.Description{Kind: "bpf", Name: "registers in the kernel, " + folder}
	for i := range rtmr.NumPCRs {
		r, _ := rtmr.PCR(i).Register()
		d.Registers = append(d.Registers, rtmr.RegisterInfo{Register: r, Banks: Banks, Writable: writable})
	}
	return d
}

// checkLayout reports how the pinned maps differ from the ones in the spec.
func checkLayout(layout, state *ebpf.Map, spec *ebpf.CollectionSpec) error {
	if err := checkMap(layout, spec.Maps["layout"]); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	var version uint32
	if err := layout.Lookup(uint32(0), &version); err != nil {
		return fmt.Errorf("layout: %w", err)
	}
	if version != layoutVersion {
		return fmt.Errorf("layout version %d, expected %d", version, layoutVersion)
	}
	if err := checkMap(state, spec.Maps["registers"]); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

func checkMap(m *ebpf.Map, spec *ebpf.MapSpec) error {
	if m.Type() != spec.Type || m.KeySize() != spec.KeySize || m.ValueSize() != spec.ValueSize ||
		m.MaxEntries() != spec.MaxEntries || m.Flags() != spec.Flags {
		return fmt.Errorf("a map %s with %d values of %d bytes and flags %#x, expected %s with %d of %d and %#x",
			m.Type(), m.MaxEntries(), m.ValueSize(), m.Flags(), spec.Type, spec.MaxEntries, spec.ValueSize, spec.Flags)
	}
	info, err := m.Info()
	if err != nil {
		return err
	}
	if !info.Frozen() {
		return errors.New("a map that is not frozen: others could have written to it")
	}
	return nil
}

// entry is one extend, of digests that CheckExtend let pass.
func entry(reg rtmr.Register, digests []rtmr.Digest) (e registersEntry) {
	e.Reg = uint32(reg.Index())
	for _, d := range digests {
		copy(e.bank(d.Alg), d.Sum)
	}
	return e
}
