package rtmr

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
)

// Memory is a Device in this process's memory: it folds as hardware does, and
// vouches for nothing.
type Memory struct {
	description Description

	mu     sync.Mutex
	values Values
}

// NewMemory returns registers at their reset values, each in every bank. Static
// ones are zeros, and stay so. It panics if a bank's algorithm is not Available.
func NewMemory(banks []Alg, registers ...Register) *Memory {
	m := &Memory{Description{Kind: "memory", Name: "registers in this process's memory"}, sync.Mutex{}, Values{}}
	banks = slices.Sorted(slices.Values(banks))
	for _, a := range banks {
		if !a.Available() {
			panic("rtmr: " + a.String() + " cannot be computed")
		}
		m.values[a] = make(map[Register]Hex)
		for _, r := range registers {
			m.values[a][r] = r.ResetValue(a)
		}
	}
	for _, r := range registers {
		m.description.Registers = append(m.description.Registers, RegisterInfo{r, banks, !r.Static()})
	}
	return m
}

// Describe is Device's.
func (m *Memory) Describe() Description { return m.description }

// Read is Device's, at one moment.
func (m *Memory) Read(ctx context.Context, registers ...Register) (Values, error) {
	infos, err := m.description.Select(registers)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	values := make(Values)
	for _, info := range infos {
		for _, a := range info.Banks {
			values.Set(a, info.Register, bytes.Clone(m.values[a][info.Register]))
		}
	}
	return values, nil
}

// Extend is Device's.
func (m *Memory) Extend(ctx context.Context, register Register, digests []Digest) error {
	err := m.description.CheckExtend(register, digests)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("extend: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range digests {
		d.Alg.Extend(m.values[d.Alg][register], d.Sum)
	}
	return nil
}
