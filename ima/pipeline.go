package ima

import (
	"io"
	"runtime"

	"tallystick/rtmr"
)

// pipeline reads and hashes a list ahead of its delivery: one goroutine cuts
// the source into batches, others hash them, and the caller's takes them in
// order. Folding is a chain that one core must compute alone, so it is the
// caller's that has to be kept busy: when it would wait, it hashes as well.
type pipeline struct {
	layout layout
	hashes []rtmr.Alg
	free   chan *batch // to be filled
	jobs   chan *batch // to be hashed
	order  chan *batch // to be delivered
	stop   chan struct{}
}

func (r *Reader) startPipeline() *pipeline {
	workers := min(max(1, runtime.GOMAXPROCS(0)-1), 4)
	batches := 2*workers + 6
	p := &pipeline{
		layout: r.layout,
		hashes: r.hashes,
		free:   make(chan *batch, batches),
		jobs:   make(chan *batch, batches),
		order:  make(chan *batch, batches),
		stop:   make(chan struct{}),
	}
	for range batches - 1 { // and r.first
		p.free <- newBatch()
	}
	for range workers {
		go func() {
			for b := range p.jobs {
				p.do(b)
			}
		}()
	}
	go p.frame(r.first, r.src)
	return p
}

// frame cuts the source into batches of whole records, in order.
func (p *pipeline) frame(b *batch, src io.Reader) {
	defer close(p.jobs)
	defer close(p.order)
	for {
		more := b.cut(p.layout)
		p.jobs <- b
		p.order <- b
		if !more {
			return
		}
		select {
		case next := <-p.free:
			next.start(b)
			next.read(src)
			b = next
		case <-p.stop:
			return
		}
	}
}

func (p *pipeline) do(b *batch) {
	b.hash(p.layout, p.hashes)
	b.done <- struct{}{}
}

// await returns when b is hashed. Until then it hashes what is ready for it,
// b itself or a batch behind it.
func (p *pipeline) await(b *batch) {
	for jobs := p.jobs; ; {
		select {
		case <-b.done:
			return
		default:
		}
		select {
		case <-b.done:
			return
		case next, ok := <-jobs:
			if ok {
				p.do(next)
			} else {
				jobs = nil
			}
		}
	}
}
