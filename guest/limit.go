//go:build linux

package guest

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// peer is who is at the other end of a connection: a user, by SO_PEERCRED, or over
// vsock a machine.
type peer struct {
	user  *unix.Ucred
	vsock bool
	cid   uint32
	err   error // why it is not known
}

func (p peer) String() string {
	switch {
	case p.vsock:
		return fmt.Sprintf("CID %d", p.cid)
	case p.user != nil:
		return fmt.Sprintf("user %d", p.user.Uid)
	}
	return fmt.Sprintf("unknown: %v", p.err)
}

func peerOf(c net.Conn) (p peer) {
	switch c := c.(type) {
	case *vsock.Conn:
		address, ok := c.RemoteAddr().(*vsock.Addr)
		if !ok {
			return peer{err: fmt.Errorf("an address of type %T", c.RemoteAddr())}
		}
		return peer{vsock: true, cid: address.ContextID}
	case *net.UnixConn:
		raw, err := c.SyscallConn()
		if err != nil {
			return peer{err: err}
		}
		err = errors.Join(raw.Control(func(fd uintptr) {
			p.user, p.err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		}), p.err)
		return peer{user: p.user, err: err}
	}
	return peer{err: fmt.Errorf("a connection of type %T", c)}
}

// How many connections there are at once. Who may not ask has places of their own, in
// which nobody else waits, and is told so; and vsock has, whose other end is another
// machine.
const (
	maxConnections = 64
	maxRemote      = 8
	maxStrangers   = 8
)

// gate is a listener that knows each connection's peer, and closes those for which
// there is no place.
type gate struct {
	net.Listener
	places func(peer) chan struct{}
	turned func() // one was closed
}

type connection struct {
	net.Conn
	peer  peer
	leave func()
}

func (g gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := peerOf(c)
		places := g.places(p)
		select {
		case places <- struct{}{}:
			return &connection{c, p, sync.OnceFunc(func() { <-places })}, nil
		default:
			g.turned()
			c.Close()
		}
	}
}

func (c *connection) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// Bounds of requests. A rate's burst is what may come at once.
const (
	DefaultEvidenceRate = 1   // a second
	evidenceBurst       = 10  //
	DefaultExtendRate   = 200 // a second
	extendBurst         = 1000
	maxEvidence         = 8  // that are made or waited for
	maxExtends          = 32 // the same
)

// bound is what requests of a kind are bounded by.
type bound struct {
	rate *rate.Limiter
	busy chan struct{}
}

func newBound(perSecond float64, burst, atOnce int) *bound {
	return &bound{rate.NewLimiter(rate.Limit(perSecond), burst), make(chan struct{}, atOnce)}
}

// ErrTooMany says that a request was one too many, and nothing was done for it.
var ErrTooMany = errors.New("too many requests")

// limit answers a request that is one too many by 429 and Retry-After.
func (b *bound) limit(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case b.busy <- struct{}{}:
			defer func() { <-b.busy }()
		default:
			refuseFor(w, time.Second, fmt.Errorf("%w: %d are being answered", ErrTooMany, cap(b.busy)))
			return
		}
		turn := b.rate.Reserve()
		if wait := turn.Delay(); wait > 0 {
			turn.Cancel()
			refuseFor(w, wait, fmt.Errorf("%w: more than %v a second", ErrTooMany, b.rate.Limit()))
			return
		}
		next(w, r)
	}
}

func refuseFor(w http.ResponseWriter, wait time.Duration, err error) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	refuse(w, http.StatusTooManyRequests, err)
}

// requests count what was answered, by handler and status.
type requests struct {
	mu     sync.Mutex
	counts map[[2]string]uint64
	turned uint64 // connections
}

func (q *requests) add(handler string, code int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts == nil {
		q.counts = make(map[[2]string]uint64)
	}
	q.counts[[2]string{handler, strconv.Itoa(code)}]++
}

func (q *requests) turnedAway() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.turned++
}

// count counts what a handler answers.
func (q *requests) count(handler string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := &statusWriter{w, http.StatusOK}
		defer func() { q.add(handler, s.code) }()
		next(s, r)
	}
}

// statusWriter remembers an answer's status.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (s *statusWriter) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (e exposition) requests(q *requests) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.counter("tallystick_connections_refused_total", "Connections that were closed because there were too many.", float64(q.turned))
	e.family("tallystick_http_requests_total", "counter", "Requests that were answered, by handler and HTTP status.")
	for _, k := range slices.SortedFunc(maps.Keys(q.counts), func(a, b [2]string) int { return slices.Compare(a[:], b[:]) }) {
		e.sample("tallystick_http_requests_total", float64(q.counts[k]), "handler", k[0], "code", k[1])
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
