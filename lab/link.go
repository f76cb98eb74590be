//go:build linux

package lab

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"tallystick/lab/internal/wire"
)

// link is the host's end of the port.
type link struct {
	conn net.Conn
	hi   chan wire.Header // a guest has started; another one after kexec

	writing sync.Mutex

	mu    sync.Mutex
	last  uint32
	calls map[uint32]*call
	err   error // why nothing is read any more
}

// call is a request that is under way.
type call struct {
	link *link
	id   uint32

	mu     sync.Mutex
	frames []frame       // that have come, without a bound: nobody may be reading yet
	more   chan struct{} // has a token when there are some
}

type frame struct {
	wire.Header
	body []byte
}

// listen makes the socket that QEMU connects the port to, and returns QEMU's
// arguments.
func (g *Guest) listen() (args []string, err error) {
	socket := filepath.Join(g.dir, "port")
	if g.listener, err = net.Listen("unix", socket); err != nil {
		return nil, err
	}
	return portDevice(g.parts.architecture().bus, socket), nil
}

// meet waits until a guest says hello, for the machine's BootTime.
func (g *Guest) meet() error {
	limit := time.NewTimer(g.machine.BootTime)
	defer limit.Stop()
	if g.link == nil {
		accepted := make(chan *link, 1)
		go func() {
			if conn, err := g.listener.Accept(); err == nil {
				accepted <- newLink(conn)
			}
		}()
		select {
		case g.link = <-accepted:
		case <-g.qemu.ended:
			return fmt.Errorf("QEMU: %w", g.qemu.err)
		case <-limit.C:
			return fmt.Errorf("QEMU did not connect in %v", g.machine.BootTime)
		}
	}
	select {
	case g.hello = <-g.link.hi:
		return problems(g.hello)
	case <-g.qemu.ended:
		return errEnded
	case <-g.t.Context().Done():
		return g.t.Context().Err()
	case <-limit.C:
		return fmt.Errorf("the guest did not answer in %v", g.machine.BootTime)
	}
}

func newLink(conn net.Conn) *link {
	l := &link{conn: conn, hi: make(chan wire.Header, 8), calls: map[uint32]*call{}}
	go l.read()
	return l
}

// read hands frames to their calls until the guest ends.
func (l *link) read() {
	for {
		h, body, err := wire.Read(l.conn)
		if err != nil {
			l.fail(fmt.Errorf("%w: %v", errEnded, err))
			return
		}
		if h.Kind == wire.Hello {
			l.failCalls(fmt.Errorf("%w: another kernel has started", errEnded))
			l.hi <- h
			continue
		}
		l.mu.Lock()
		c := l.calls[h.ID]
		if h.Kind == wire.Done {
			delete(l.calls, h.ID)
		}
		l.mu.Unlock()
		if c != nil {
			c.take(frame{h, body})
		}
	}
}

// fail ends every call, and those to come.
func (l *link) fail(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	l.failCalls(err)
}

func (l *link) failCalls(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, c := range l.calls {
		c.take(frame{Header: wire.Header{Kind: wire.Done, Text: err.Error()}})
		delete(l.calls, id)
	}
}

func (l *link) send(h wire.Header, body []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return wire.Write(l.conn, h, body)
}

func (l *link) call(h wire.Header) (*call, error) {
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return nil, l.err
	}
	l.last++
	h.ID = l.last
	c := &call{link: l, id: h.ID, more: make(chan struct{}, 1)}
	l.calls[h.ID] = c
	l.mu.Unlock()
	return c, l.send(h, nil)
}

// input sends all of a request's input.
func (c *call) input(content []byte) error {
	for len(content) > 0 {
		k := min(len(content), wire.Chunk)
		if err := c.link.send(wire.Header{ID: c.id, Kind: wire.Data}, content[:k]); err != nil {
			return err
		}
		content = content[k:]
	}
	return c.link.send(wire.Header{ID: c.id, Kind: wire.End}, nil)
}

func (c *call) take(f frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, f)
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *call) taken() []frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	frames := c.frames
	c.frames = nil
	return frames
}

// wait gives each frame of the answer to take, and returns the last.
func (c *call) wait(ctx context.Context, take func(wire.Header, []byte)) (wire.Header, error) {
	limit := time.NewTimer(callTime)
	defer limit.Stop()
	for {
		select {
		case <-c.more:
			for _, f := range c.taken() {
				if f.Kind == wire.Done {
					return f.Header, answerError(f.Header)
				}
				if take != nil {
					take(f.Header, f.body)
				}
			}
		case <-limit.C:
			return wire.Header{}, fmt.Errorf("no answer in %v", callTime)
		case <-ctx.Done():
			return wire.Header{}, ctx.Err()
		}
	}
}
