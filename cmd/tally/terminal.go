package main

import (
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/fatih/color"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"tallystick/rtmr"
)

// Colours, which the library leaves out where standard output is no terminal
// or NO_COLOR is set.
var (
	good    = color.New(color.FgGreen).SprintFunc()
	bad     = color.New(color.FgRed, color.Bold).SprintFunc()
	caution = color.New(color.FgYellow).SprintFunc()
)

// printable escapes what a file's name may hold and a terminal obey. What was
// escaped before stays as it is.
func printable(s string) string { return strings.ReplaceAll(rtmr.Escape(s), `\\`, `\`) }

// contradicts marks an entry in a list of them.
var contradicts = bad("[its data contradict the digest]")

// progressFrom is the size in bytes from which a log is long work.
const progressFrom = 16 << 20

// withProgress shows a bar on standard error while a long log is read, if that
// is a terminal. Of a pipe the size is not known, so it counts bytes. Where a
// command prints lines on a terminal as it reads, those are progress enough.
func withProgress(file *os.File, name string, prints bool) io.ReadCloser {
	if !term.IsTerminal(int(os.Stderr.Fd())) || prints && term.IsTerminal(int(os.Stdout.Fd())) {
		return file
	}
	size := int64(-1)
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		if size = info.Size(); size < progressFrom {
			return file
		}
	}
	bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(printable(name)),
		progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return &barred{progressbar.NewReader(file, bar), bar}
}

// barred is a file whose bar goes when it is closed.
type barred struct {
	progressbar.Reader
	bar *progressbar.ProgressBar
}

func (b *barred) Close() error {
	b.bar.Finish()
	return b.Reader.Close()
}

// searchProgress shows how far a search is, on standard error if that is a
// terminal; nil if not. It goes when the search is done.
func searchProgress() (tell func(done, total uint64), end func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return nil, func() {}
	}
	bar := progressbar.NewOptions64(1, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("searching, hashes"),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	return func(done, total uint64) {
		bar.ChangeMax64(int64(min(total, math.MaxInt64)))
		bar.Set64(int64(min(done, total, math.MaxInt64)))
	}, func() { bar.Finish() }
}
