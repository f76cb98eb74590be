//go:build linux

package lab

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// console keeps what a guest writes to its serial port, with the time since the
// machine was started.
type console struct {
	start time.Time

	mu    sync.Mutex
	text  []byte
	lines []string
	more  chan struct{} // closed when there is more
}

func newConsole() *console {
	return &console{start: time.Now(), more: make(chan struct{})}
}

// Write takes what QEMU gives.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, b...)
	for {
		line, rest, ok := strings.Cut(string(c.text), "\n")
		if !ok {
			break
		}
		c.text = []byte(rest)
		c.lines = append(c.lines, fmt.Sprintf("%7.2f %s", time.Since(c.start).Seconds(), strings.TrimRight(line, "\r")))
	}
	close(c.more)
	c.more = make(chan struct{})
	return len(b), nil
}

// all returns the lines, the unfinished one included, and a channel that is
// closed when there are more.
func (c *console) all() ([]string, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines[:len(c.lines):len(c.lines)]
	if len(c.text) > 0 {
		lines = append(lines, string(c.text))
	}
	return lines, c.more
}

// wait returns the first line that matches, of those that are there and those
// that come.
func (c *console) wait(ctx context.Context, re *regexp.Regexp, ended <-chan struct{}) (string, error) {
	for seen := 0; ; {
		lines, more := c.all()
		for _, line := range lines[seen:] {
			if re.MatchString(line) {
				return line, nil
			}
		}
		seen = max(0, len(lines)-1) // the last may go on
		select {
		case <-more:
		case <-ended:
			return "", fmt.Errorf("the guest ended, and no line of its console matched %q", re)
		case <-ctx.Done():
			return "", fmt.Errorf("no line of the console matched %q: %w", re, ctx.Err())
		}
	}
}

// has reports whether a line has the text in it.
func (c *console) has(text string) bool {
	lines, _ := c.all()
	return slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, text) })
}
