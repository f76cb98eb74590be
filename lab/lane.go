//go:build linux

package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"tallystick/lab/setup"
)

// lane is this process's leave to run guests. go test runs packages beside each
// other, and more emulated machines than there are cores would only run into
// their time limits: so there are as many lanes as pairs of cores, and a process
// holds one while it has guests.
var lane struct {
	sync.Mutex
	file   *os.File
	guests int
}

func takeLane(t T) error {
	dir, err := setup.Dir()
	if err != nil {
		return err
	}
	lane.Lock()
	defer lane.Unlock()
	for lane.file == nil {
		for i := range max(1, runtime.NumCPU()/2) {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("lane-%d", i)), os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return err
			}
			if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
				lane.file = f
				break
			}
			f.Close()
		}
		if lane.file == nil {
			select {
			case <-t.Context().Done():
				return t.Context().Err()
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	lane.guests++
	t.Cleanup(func() {
		lane.Lock()
		defer lane.Unlock()
		if lane.guests--; lane.guests == 0 {
			lane.file.Close()
			lane.file = nil
		}
	})
	return nil
}
