//go:build !linux

package main

import "os"

func peakMB(*os.ProcessState) (mb int64, ok bool) { return 0, false }
