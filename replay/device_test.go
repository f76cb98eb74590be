package replay_test

import (
	"context"
	"sync"
	"testing"

	"tallystick/replay"
	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
)

// device has a Fold behind the interface of hardware's registers: what the engine
// folds a log to is what a register comes to. Memory refuses what is to be refused.
type device struct {
	*rtmr.Memory
	mu   sync.Mutex
	fold *replay.Fold
}

func (d *device) Read(ctx context.Context, registers ...rtmr.Register) (rtmr.Values, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	values, err := d.Memory.Read(ctx, registers...)
	folded := d.fold.Values()
	for a, bank := range values {
		for r := range bank {
			bank[r] = r.ResetValue(a)
			if value, ok := folded[a][r]; ok {
				bank[r] = value
			}
		}
	}
	return values, err
}

func (d *device) Extend(ctx context.Context, r rtmr.Register, digests []rtmr.Digest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.Memory.Extend(ctx, r, digests)
	if err == nil {
		d.fold.Add(&rtmr.Measurement{Register: r, Digests: digests})
	}
	return err
}

func TestFoldIsADevice(t *testing.T) {
	var pcrs []rtmr.Register
	for _, name := range []string{"pcr0", "pcr8", "pcr10", "pcr23"} {
		pcrs = append(pcrs, rtmr.MustParse(name))
	}
	rtmrs := []rtmr.Register{rtmr.MRTD, rtmr.MustParse("rtmr0"), rtmr.MustParse("rtmr2"), rtmr.MustParse("rtmr3")}
	for name, memory := range map[string]*rtmr.Memory{
		"tpm": rtmr.NewMemory([]rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}, pcrs...),
		"tdx": rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmrs...),
	} {
		t.Run(name, func(t *testing.T) {
			devicetest.Run(t, &device{Memory: memory, fold: replay.New(replay.Options{})})
		})
	}
}
