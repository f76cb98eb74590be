//go:build linux

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/time/rate"

	"tallystick/rtmr"
)

// Server answers requests over local sockets, as HTTP:
//
//	GET  /v1/status     a Status
//	GET  /v1/values     the registers' values, as tally's --values takes them
//	POST /v1/extend     an ExtendRequest; an ExtendAnswer
//	POST /v1/evidence   an EvidenceRequest; a bundle (docs/evidence.md)
//	GET  /metrics       for Prometheus
//
// Over a unix socket, who may ask is who may connect to it: the kernel tells each
// peer's user (SO_PEERCRED), and only root's and the server's own requests are
// answered, beside those of AllowUID.
//
// Over vsock there are no users, only machines. Those of AllowCID, or else the host,
// are given evidence and nothing else: the kernel tells their CID, which on the same
// machine is that machine's own or VMADDR_CID_LOCAL, so that no local process passes
// for the host.
//
// Requests that are too many are answered by 429 and Retry-After, and nothing was
// done for them; vsock's do not count among the others.
type Server struct {
	Helper   *Helper
	AllowUID []uint32 // users, beside root and the server's own
	AllowCID []uint32 // machines that may ask over vsock; the host if nil
	// Requests a second; DefaultEvidenceRate and DefaultExtendRate if 0.
	EvidenceRate, ExtendRate float64
	Log                      *slog.Logger

	requests requests
	refusals rate.Sometimes // which are logged, so that nobody fills the log
}

// ExtendRequest asks for an extend by an application's measurement.
type ExtendRequest struct {
	Register rtmr.Register `json:"register"`
	Type     string        `json:"type"`
	App      App           `json:"measurement"`
}

// ExtendAnswer is the answer to an ExtendRequest.
type ExtendAnswer struct {
	Extended bool `json:"extended"` // false: the key's measurement had been before, or
	// Journaled says that it is in the journal, and extended before anything that comes
	// later: it is not to be asked for again. The answer is 202 then, and Error says why
	// it is not extended yet.
	Journaled bool   `json:"journaled,omitempty"`
	Error     string `json:"error,omitempty"`
}

// maxRequest bounds a request's body, in bytes.
const maxRequest = 64 << 10

// The connection's peer, in a request's context.
type peerKey struct{}

// Serve answers on all of the listeners until the context ends, or one fails. They
// are of unix or vsock sockets. It may be called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	server := s.server(ctx)
	places := s.places()
	s.refusals.First, s.refusals.Interval = 3, time.Minute
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() {
			if err := server.Serve(gate{l, places, s.requests.turnedAway}); !errors.Is(err, http.ErrServerClosed) {
				stop(fmt.Errorf("socket %s: %w", l.Addr(), err))
			}
		})
	}
	<-ctx.Done()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	server.Shutdown(ending)
	server.Close()
	serving.Wait()
	return context.Cause(ctx)
}

func (s *Server) server(ctx context.Context) *http.Server {
	return &http.Server{
		Handler:           s.allowed(http.MaxBytesHandler(s.local(), maxRequest), http.MaxBytesHandler(s.remote(), maxRequest)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		// What was begun is finished when the service stops: Serve waits for it.
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*connection).peer)
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
}

// local answers over unix sockets.
func (s *Server) local() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.requests.count("status", s.status))
	mux.HandleFunc("GET /v1/values", s.requests.count("values", s.values))
	mux.HandleFunc("POST /v1/extend", s.requests.count("extend", newBound(or(s.ExtendRate, DefaultExtendRate), extendBurst, maxExtends).limit(s.extend)))
	mux.HandleFunc("POST /v1/evidence", s.requests.count("evidence", s.evidenceBound().limit(s.evidence)))
	mux.HandleFunc("GET /metrics", s.requests.count("metrics", s.metrics))
	return mux
}

// remote answers over vsock.
func (s *Server) remote() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/evidence", s.requests.count("evidence-vsock", s.evidenceBound().limit(s.evidence)))
	return mux
}

func (s *Server) evidenceBound() *bound {
	return newBound(or(s.EvidenceRate, DefaultEvidenceRate), evidenceBurst, maxEvidence)
}

func or(given, otherwise float64) float64 {
	if given == 0 {
		return otherwise
	}
	return given
}

// places are where connections are, by their peer.
func (s *Server) places() func(peer) chan struct{} {
	local, remote, strangers := make(chan struct{}, maxConnections), make(chan struct{}, maxRemote), make(chan struct{}, maxStrangers)
	return func(p peer) chan struct{} {
		switch {
		case !s.may(p):
			return strangers
		case p.vsock:
			return remote
		}
		return local
	}
}

// may reports whether the peer may ask.
func (s *Server) may(p peer) bool {
	switch {
	case p.err != nil:
		return false
	case p.vsock && s.AllowCID == nil:
		return p.cid == vsock.Host
	case p.vsock:
		return slices.Contains(s.AllowCID, p.cid)
	}
	uid := p.user.Uid
	return uid == 0 || uid == uint32(os.Geteuid()) || slices.Contains(s.AllowUID, uid)
}

// allowed answers those who may ask.
func (s *Server) allowed(local, remote http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.Context().Value(peerKey{}).(peer)
		switch {
		case !s.may(p):
			s.refusals.Do(func() { s.Log.Warn("refused, and others since the last time may have been", "peer", p.String()) })
			s.requests.add("refused", http.StatusForbidden)
			w.Header().Set("Connection", "close") // its place is another's
			refuse(w, http.StatusForbidden, fmt.Errorf("%s may not ask (tallyd run --allow-uid, --allow-cid)", p))
		case p.vsock:
			remote.ServeHTTP(w, r)
		default:
			local.ServeHTTP(w, r)
		}
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, s.Helper.Status())
}

func (s *Server) values(w http.ResponseWriter, r *http.Request) {
	values, err := s.Helper.Values(r.Context())
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, http.StatusOK, values)
}

// read reads a request's body, which is one JSON object. If it is not, it is answered.
func read(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	if err == nil {
		if _, more := decoder.Token(); more == nil {
			err = errors.New("more behind the request, expected one JSON object")
		} else if more != io.EOF {
			err = more
		}
	}
	switch large := (*http.MaxBytesError)(nil); {
	case err == nil:
		return true
	case errors.As(err, &large):
		refuse(w, http.StatusRequestEntityTooLarge, fmt.Errorf("a request of more than %d bytes", large.Limit))
	default:
		refuse(w, http.StatusBadRequest, err)
	}
	return false
}

func (s *Server) extend(w http.ResponseWriter, r *http.Request) {
	var request ExtendRequest
	if !read(w, r, &request) {
		return
	}
	now, err := s.Helper.Extend(r.Context(), request.Register, request.Type, &request.App)
	switch {
	case errors.Is(err, ErrUndecided):
		answer(w, http.StatusInternalServerError, Refusal{Error: err.Error(), Undecided: true})
	case now && err != nil:
		answer(w, http.StatusAccepted, ExtendAnswer{Journaled: true, Error: err.Error()})
	case errors.Is(err, ErrKeyUsed):
		refuse(w, http.StatusConflict, err)
	case errors.Is(err, ErrJournalFull) || errors.Is(err, rtmr.ErrBusy):
		refuse(w, http.StatusServiceUnavailable, err)
	case errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, rtmr.ErrNotWritable) || errors.Is(err, errRequest):
		refuse(w, http.StatusBadRequest, err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, http.StatusOK, ExtendAnswer{Extended: now})
	}
}

// EvidenceRequest asks for evidence for a nonce, of 1 to 64 bytes.
type EvidenceRequest struct {
	Nonce rtmr.Hex `json:"nonce"`
}

// evidenceType is a bundle's media type.
const evidenceType = "application/cmw+cbor"

func (s *Server) evidence(w http.ResponseWriter, r *http.Request) {
	var request EvidenceRequest
	if !read(w, r, &request) {
		return
	}
	e, err := s.Helper.Evidence(r.Context(), request.Nonce)
	switch {
	case errors.Is(err, errRequest) || errors.Is(err, rtmr.ErrNotSupported):
		refuse(w, http.StatusBadRequest, err)
	case errors.Is(err, rtmr.ErrBusy):
		refuse(w, http.StatusServiceUnavailable, err)
	case r.Context().Err() != nil: // nobody waits for it
	case err != nil:
		s.Log.Error("no evidence", "error", err)
		refuse(w, http.StatusInternalServerError, err)
	default:
		defer e.Close()
		s.write(w, e)
	}
}

// write answers with the bundle. Where that fails half way the connection is cut, so
// that nobody takes what was sent for all of it.
func (s *Server) write(w http.ResponseWriter, e *Evidence) {
	w.Header().Set("Content-Type", evidenceType)
	w.Header().Set("Content-Length", strconv.FormatInt(e.Size(), 10))
	if n, err := e.WriteTo(w); err != nil {
		s.Log.Error("evidence was cut short", "written", n, "of", e.Size(), "error", err)
		panic(http.ErrAbortHandler)
	}
}

// metrics writes the text format of Prometheus.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	e := exposition{w}
	e.helper(s.Helper)
	e.requests(&s.requests)
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v)
}

// Refusal is the body of every answer that is neither 200 nor 202.
type Refusal struct {
	Error string `json:"error"`
	// Undecided says that nobody knows whether a measurement was extended (ErrUndecided).
	Undecided bool `json:"undecided,omitempty"`
}

func refuse(w http.ResponseWriter, code int, err error) {
	answer(w, code, Refusal{Error: err.Error()})
}
