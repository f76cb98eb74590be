package main

import (
	"os"
	"syscall"
)

// peakMB is an ended process's peak resident memory; ru_maxrss is in KB
// (getrusage(2)).
func peakMB(p *os.ProcessState) (mb int64, ok bool) {
	usage, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, false
	}
	return usage.Maxrss >> 10, true
}
