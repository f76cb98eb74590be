//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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

// listed returns the first n entries of the kernel's list, to be read, and how many
// bytes they are; all of it where the kernel extends it itself.
func (h *Helper) listed(n int) (io.ReadCloser, int64, error) {
	file, err := os.Open(filepath.Join(h.cfg.IMADir, "binary_runtime_measurements"))
	if errors.Is(err, fs.ErrNotExist) && n == 0 {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	size, err := sizeOf(file, n, h.kernelExtends)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil || size == 0 {
		file.Close()
		return nil, 0, err
	}
	return file, size, nil
}

// sizeOf returns the size of a list's first n entries, or of all.
func sizeOf(list io.Reader, n int, all bool) (int64, error) {
	counted := &counter{r: list}
	r, err := ima.NewReader(counted, ima.Options{})
	if err != nil || n == 0 && !all {
		return 0, err
	}
	entries := 0
	for m, err := range r.Measurements() {
		if entries == n && !all {
			return m.Offset, nil
		}
		if err != nil {
			return 0, err
		}
		entries++
	}
	if entries < n {
		return 0, fmt.Errorf("it has %d entries, and %d were read of it: it was trimmed", entries, n)
	}
	return counted.n, nil
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
