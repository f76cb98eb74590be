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
// their time limits: so there are as many lanes as cores, and a process holds one
// while it has guests.
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
	if lane.file == nil {
		if lane.file, err = freeLane(t, dir); err != nil {
			return err
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

// freeLane waits for a lane. Who waits holds the queue, so that a process that
// gives its lane back does not take it again before those that waited.
func freeLane(t T, dir string) (*os.File, error) {
	queue, err := os.OpenFile(filepath.Join(dir, "lane-queue"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer queue.Close()
	for {
		if err = syscall.Flock(int(queue.Fd()), syscall.LOCK_EX); err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: flock: %w", queue.Name(), err)
	}
	for {
		for i := range runtime.NumCPU() {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("lane-%d", i)), os.O_CREATE|os.O_RDWR, 0o644)
			if err != nil {
				return nil, err
			}
			if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				return f, nil
			}
			f.Close()
		}
		select {
		case <-t.Context().Done():
			return nil, t.Context().Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
