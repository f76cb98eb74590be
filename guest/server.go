//go:build linux

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/rtmr"
)

// Server answers requests over a local socket, as HTTP:
//
//	GET  /v1/status     a Status
//	GET  /v1/values     the registers' values, as tally's --values takes them
//	POST /v1/extend     an ExtendRequest; an ExtendAnswer
//	POST /v1/evidence   an EvidenceRequest; a bundle (docs/evidence.md)
//	GET  /metrics       for Prometheus
//
// Who may ask is who may connect to the socket: the kernel tells each peer's user
// (SO_PEERCRED), and only root's and the server's own requests are answered, beside
// those of Allow.
type Server struct {
	Helper *Helper
	Allow  []uint32 // users, beside root and the server's own
	Log    *slog.Logger
}

// ExtendRequest asks for an extend by an application's measurement.
type ExtendRequest struct {
	Register rtmr.Register `json:"register"`
	Type     string        `json:"type"`
	App      App           `json:"measurement"`
}

// ExtendAnswer is the answer to an ExtendRequest.
type ExtendAnswer struct {
	Extended bool `json:"extended"` // false: the key's measurement had been before
}

// maxRequest bounds a request's body, in bytes.
const maxRequest = 64 << 10

// The connection's peer, in a request's context.
type peerKey struct{}

// Serve answers until the context ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/values", s.values)
	mux.HandleFunc("POST /v1/extend", s.extend)
	mux.HandleFunc("POST /v1/evidence", s.evidence)
	mux.HandleFunc("GET /metrics", s.metrics)
	server := &http.Server{
		Handler:           s.allowed(http.MaxBytesHandler(mux, maxRequest)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peerOf(c))
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	stopped := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		server.Shutdown(ctx)
	})
	defer stopped()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// peerOf returns who is at the other end, or an error.
func peerOf(c net.Conn) any {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a connection of type %T", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, credErr); err != nil {
		return err
	}
	return cred
}

// allowed answers those who may ask.
func (s *Server) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, ok := r.Context().Value(peerKey{}).(*unix.Ucred)
		if !ok {
			refuse(w, http.StatusForbidden, fmt.Errorf("the peer is not known: %v", r.Context().Value(peerKey{})))
			return
		}
		if uid := cred.Uid; uid != 0 && uid != uint32(os.Geteuid()) && !slices.Contains(s.Allow, uid) {
			s.Log.Warn("refused", "uid", uid, "pid", cred.Pid, "path", r.URL.Path)
			refuse(w, http.StatusForbidden, fmt.Errorf("user %d may not ask", uid))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) { answer(w, s.Helper.Status()) }

func (s *Server) values(w http.ResponseWriter, r *http.Request) {
	values, err := s.Helper.Values(r.Context())
	if err != nil {
		refuse(w, http.StatusInternalServerError, err)
		return
	}
	answer(w, values)
}

func (s *Server) extend(w http.ResponseWriter, r *http.Request) {
	var request ExtendRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	now, err := s.Helper.Extend(r.Context(), request.Register, request.Type, &request.App)
	switch {
	case errors.Is(err, ErrKeyUsed):
		refuse(w, http.StatusConflict, err)
	case errors.Is(err, ErrJournalFull) || errors.Is(err, rtmr.ErrBusy):
		refuse(w, http.StatusServiceUnavailable, err)
	case errors.Is(err, rtmr.ErrNotSupported) || errors.Is(err, rtmr.ErrNotWritable) || errors.Is(err, errRequest):
		refuse(w, http.StatusBadRequest, err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		answer(w, ExtendAnswer{now})
	}
}

// EvidenceRequest asks for evidence for a nonce, of 1 to 64 bytes.
type EvidenceRequest struct {
	Nonce rtmr.Hex `json:"nonce"`
}

func (s *Server) evidence(w http.ResponseWriter, r *http.Request) {
	var request EvidenceRequest
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	b, err := s.Helper.Evidence(r.Context(), request.Nonce)
	var data []byte
	if err == nil {
		data, err = b.Marshal()
	}
	switch {
	case errors.Is(err, errRequest) || errors.Is(err, rtmr.ErrNotSupported):
		refuse(w, http.StatusBadRequest, err)
	case errors.Is(err, rtmr.ErrBusy):
		refuse(w, http.StatusServiceUnavailable, err)
	case err != nil:
		refuse(w, http.StatusInternalServerError, err)
	default:
		w.Header().Set("Content-Type", "application/cbor")
		w.Write(data)
	}
}

// metrics writes the text format of Prometheus.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	status := s.Helper.Status()
	failing := 0
	if status.Error != "" {
		failing = 1
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, m := range []struct {
		name, help, kind string
		value            any
	}{
		{"tallystick_ima_entries_total", "Entries of the kernel's IMA list that were extended since boot.", "counter", status.IMA},
		{"tallystick_journal_bytes", "Size of the journal.", "gauge", status.Journal},
		{"tallystick_behind", "Measurements in the journal and not in the registers.", "gauge", status.Behind},
		{"tallystick_failing", "1 if the last try to extend failed.", "gauge", failing},
	} {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %v\n", m.name, m.help, m.name, m.kind, m.name, m.value)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

// Refusal is the body of every answer that is not 200.
type Refusal struct {
	Error string `json:"error"`
}

func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(Refusal{err.Error()})
}
