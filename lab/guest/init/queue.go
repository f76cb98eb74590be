//go:build linux

package main

import (
	"io"
	"sync"
)

// queue is a pipe without a bound: its writer, who reads frames for every
// request, is never held up by one whose reader is slow. A Read returns what one
// Write wrote.
type queue struct {
	mu     sync.Mutex
	some   *sync.Cond
	chunks [][]byte
	ended  bool // by the writer
	gone   bool // nobody reads
}

func newQueue() *queue {
	q := &queue{}
	q.some = sync.NewCond(&q.mu)
	return q
}

func (q *queue) Write(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.gone && len(b) > 0 {
		q.chunks = append(q.chunks, b)
		q.some.Signal()
	}
	return len(b), nil
}

// Close ends the queue: what was written is still read.
func (q *queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.some.Signal()
	return nil
}

// abandon ends the queue and drops what was written.
func (q *queue) abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone, q.ended, q.chunks = true, true, nil
	q.some.Signal()
}

func (q *queue) Read(b []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 {
		if q.ended {
			return 0, io.EOF
		}
		q.some.Wait()
	}
	n := copy(b, q.chunks[0])
	if q.chunks[0] = q.chunks[0][n:]; len(q.chunks[0]) == 0 {
		q.chunks = q.chunks[1:]
	}
	return n, nil
}
