//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"tallystick/ima"
	"tallystick/rtmr"
)

// busyWait is how long to leave a list alone that is being trimmed.
const busyWait = 100 * time.Millisecond

// kernelExtends reports whether the kernel itself extends IMA's entries into the
// device: it does where it found a TPM when IMA began, and says so by a boot_aggregate
// that is not zero (security/integrity/ima/ima_init.c). Of a TPM that came later it
// never takes notice.
//
// Where that entry was trimmed, PCR 10 tells: if it was extended, and not by us, the
// kernel did it.
func kernelExtends(ctx context.Context, cfg *Config, first *ima.Entry, ours Trail) (bool, error) {
	if cfg.Device.Describe().Kind != "tpm" {
		return false, nil
	}
	if aggregate, ok := first.BootAggregate(); ok {
		return len(bytes.Trim(aggregate.Sum, "\x00")) > 0, nil
	}
	pcr10, _ := rtmr.PCR(10).Register()
	live, err := cfg.Device.Read(ctx, pcr10)
	if err != nil || len(ours) > 0 {
		return false, err
	}
	for a, values := range live {
		if !bytes.Equal(values[pcr10], pcr10.ResetValue(a)) {
			return true, nil
		}
	}
	return false, nil
}

// firstEntry returns what the kernel's list begins with now, or nil.
func firstEntry(ctx context.Context, dir string) (*ima.Entry, error) {
	list := OpenList(dir, nil, nil)
	defer list.Close()
	batch, err := nextOf(ctx, list, 1)
	if err != nil || len(batch) == 0 {
		return nil, err
	}
	return batch[0].Entry.(*ima.Entry), nil
}

// nextOf is the list's Next, which waits while the list is being trimmed.
func nextOf(ctx context.Context, list *List, n int) ([]rtmr.Measurement, error) {
	for {
		batch, err := list.Next(n)
		if !errors.Is(err, ErrListBusy) {
			return batch, err
		}
		if err := Poll(busyWait).Wait(ctx); err != nil {
			return nil, err
		}
	}
}

// errNoList says that there is nothing of the kernel's list.
var errNoList = errors.New("the kernel's IMA list has no entries, or is not there")

// listed returns the kernel's list as it was followed, up to a size: how much of it
// is in the journal at a moment is the extender's listedSize. Where the kernel
// extends its list itself, it is all of it that there is now.
func (h *Helper) listed(ctx context.Context, size int64) (*io.SectionReader, error) {
	f := h.following()
	if f == nil {
		return nil, errNoList
	}
	for h.kernelExtends {
		p, err := h.next(f)
		if err == nil {
			err = h.tellGap(&p)
		}
		if errors.Is(err, ErrListBusy) {
			err = Poll(busyWait).Wait(ctx)
		} else if err == nil && p.entries == 0 {
			size = p.size
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return f.first(size)
}
