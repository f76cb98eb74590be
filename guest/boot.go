//go:build linux

package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"tallystick/eventlog"
	"tallystick/replay"
	"tallystick/rtmr"
)

// bootLogs are where the kernel has the firmware's logs: a TD's CC log (ACPI table
// CCEL, drivers/acpi/sysfs.c) and a TPM's.
var bootLogs = []string{
	"sys/firmware/acpi/tables/data/CCEL",
	"sys/kernel/security/tpm0/binary_bios_measurements",
}

// BootLog is the firmware's log of this boot.
type BootLog struct {
	Path string
	Data []byte
}

// FindBootLog reads the firmware's log, a CC log before a TPM's; it is nil where
// there is none. The root is "/", or a test's.
func FindBootLog(root string) (*BootLog, error) {
	for _, name := range bootLogs {
		path := filepath.Join(root, name)
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("boot log: %w", err)
		}
		return &BootLog{path, data}, nil
	}
	return nil, nil
}

// BootCheck is what came of holding a boot log against the registers that the
// firmware extended.
type BootCheck struct {
	Events  int             // in the log
	Match   []rtmr.Selected // registers that the log folds to
	Differ  []rtmr.Selected // and that it does not
	Problem error           // why the log could not be read to its end
}

// Check folds the log beside registers' values. Registers that were extended after
// the firmware was done differ too: only the log and the value are compared.
func (b *BootLog) Check(live rtmr.Values) (c BootCheck) {
	fold := replay.New(replay.Options{})
	c.Events, c.Problem = b.fold(fold)
	for _, v := range fold.Registers() {
		value, ok := live[v.Alg][v.Register]
		s := rtmr.Selected{Alg: v.Alg, Register: v.Register}
		switch {
		case !ok:
		case bytes.Equal(value, v.Value):
			c.Match = append(c.Match, s)
		default:
			c.Differ = append(c.Differ, s)
		}
	}
	return c
}

func (b *BootLog) fold(fold *replay.Fold) (events int, err error) {
	r, err := eventlog.NewReader(bytes.NewReader(b.Data), eventlog.Options{})
	if err != nil {
		return 0, err
	}
	return fold.Log(r.Measurements())
}

// Mirror returns the log's measurements for registers that no firmware extended, so
// that these come to what a TPM's would have: for each bank the log's digest, and
// for a bank that the log lacks the hash of the event's data, if its other digests
// are that of its data, or else the hash of its last digest.
//
// A StartupLocality event is left out: it says that a TPM's PCR 0 began elsewhere,
// and these do not.
func (b *BootLog) Mirror(d rtmr.Description) (batch []rtmr.Measurement, err error) {
	r, err := eventlog.NewReader(bytes.NewReader(b.Data), eventlog.Options{})
	if err != nil {
		return nil, err
	}
	for m, err := range r.Measurements() {
		if err != nil {
			return batch, err
		}
		info, ok := d.Register(m.Register)
		if m.NoAction || !ok || !info.Writable || len(m.Digests) == 0 {
			continue
		}
		event := *m.Entry.(*eventlog.Event)
		event.EventData = bytes.Clone(event.EventData)
		batch = append(batch, rtmr.Measurement{Register: m.Register, Digests: digestsFor(info.Banks, &m), Entry: &event})
	}
	return batch, nil
}

// digestsFor returns a digest for each bank.
func digestsFor(banks []rtmr.Alg, m *rtmr.Measurement) (digests []rtmr.Digest) {
	for _, a := range banks {
		i := slices.IndexFunc(m.Digests, func(d rtmr.Digest) bool { return d.Alg == a })
		if i >= 0 {
			digests = append(digests, rtmr.Digest{Alg: a, Sum: bytes.Clone(m.Digests[i].Sum)})
			continue
		}
		last := m.Digests[len(m.Digests)-1]
		made := rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, last.Sum)}
		if c, _ := m.Entry.Verify(last); c == rtmr.Verified {
			if c, computed := m.Entry.Verify(rtmr.Digest{Alg: a, Sum: made.Sum}); c == rtmr.Contradicts {
				made.Sum = computed
			}
		}
		digests = append(digests, made)
	}
	return digests
}
