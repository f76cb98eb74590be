//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"tallystick/ima"
	"tallystick/rtmr"
)

// kernelExtends reports whether the kernel itself extends IMA's entries into the
// device: it does where it found a TPM when IMA began, and says so by a boot_aggregate
// that is not zero (security/integrity/ima/ima_init.c). Of a TPM that came later it
// never takes notice.
func kernelExtends(device rtmr.Device, dir string) (bool, error) {
	if device.Describe().Kind != "tpm" {
		return false, nil
	}
	list := OpenList(dir, nil, nil)
	defer list.Close()
	batch, err := list.Next(1)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	aggregate, ok := batch[0].Entry.(*ima.Entry).BootAggregate()
	return ok && len(bytes.Trim(aggregate.Sum, "\x00")) > 0, nil
}

// listed returns the first n entries of the kernel's list, as its bytes; all of it
// where the kernel extends it itself.
func (h *Helper) listed(n int) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(h.cfg.IMADir, "binary_runtime_measurements"))
	if errors.Is(err, fs.ErrNotExist) && n == 0 {
		return nil, nil
	}
	if err != nil || h.kernelExtends || len(data) == 0 {
		return data, err
	}
	r, err := ima.NewReader(bytes.NewReader(data), ima.Options{})
	if err != nil {
		return nil, err
	}
	entries := 0
	for m, err := range r.Measurements() {
		if entries == n {
			return data[:m.Offset], nil
		}
		if err != nil {
			return nil, err
		}
		entries++
	}
	if entries < n {
		return nil, fmt.Errorf("it has %d entries, and %d were read of it: it was trimmed", entries, n)
	}
	return data, nil
}
