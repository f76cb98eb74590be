//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// asks runs a command against a service that answers as the handler does.
func asks(t *testing.T, answer http.HandlerFunc, args ...string) (stdout string, err error) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: answer}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetArgs(append(args, "--socket", socket))
	err = cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func file(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A measurement that is journaled and extended later has an exit status of its own.
func TestExtendLater(t *testing.T) {
	_, err := asks(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"extended":false,"journaled":true,"error":"input/output error"}`)
	}, "extend", "--register", "pcr12", "--type", "image", "--file", file(t))
	if !errors.Is(err, errLater) || !strings.HasSuffix(err.Error(), "do not ask again: input/output error") {
		t.Errorf("%v", err)
	}
}

// A request that was taken and not answered may have been carried out; one that nobody
// took, or that was refused, was not.
func TestExtendUnknown(t *testing.T) {
	path := file(t)
	extend := []string{"extend", "--register", "pcr12", "--type", "image", "--file", path}
	for name, c := range map[string]struct {
		answer  http.HandlerFunc
		unknown bool
	}{
		"cut off":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		"answer cut": {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"extended":`) }, true},
		"undecided": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, `{"error":"gone","undecided":true}`)
		}, true},
		"refused": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, `{"error":"gone"}`)
		}, false},
		"wrong answer": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(404) }, false},
	} {
		_, err := asks(t, c.answer, extend...)
		if err == nil || errors.Is(err, errUnknown) != c.unknown {
			t.Errorf("%s: %v", name, err)
		}
	}
	cmd := command()
	cmd.SetArgs(append(extend, "--socket", filepath.Join(t.TempDir(), "none")))
	if err := cmd.ExecuteContext(t.Context()); err == nil || errors.Is(err, errUnknown) {
		t.Errorf("nobody listens: %v", err)
	}
}

// The evidence, which has the kernel's list, is its owner's to show.
func TestEvidenceMode(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	out := filepath.Join(t.TempDir(), "evidence.cmw")
	if _, err := asks(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "evidence") }, "evidence", "--nonce", "cafe", "-o", out); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// A request that was one too many is sent again; any other refusal is told, and what it
// says is no terminal's to obey.
func TestAskedAgain(t *testing.T) {
	n := 0
	_, err := asks(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		io.WriteString(w, `{"extended":true}`)
	}, "extend", "--register", "pcr12", "--type", "image", "--file", file(t))
	if err != nil || n != 2 {
		t.Errorf("asked %d times, %v", n, err)
	}
	n = 0
	_, err = asks(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"error":"no room \u001b[31m"}`)
	}, "extend", "--register", "pcr12", "--type", "image", "--file", file(t))
	if err == nil || err.Error() != `no room \x1b[31m` || n != 1 {
		t.Errorf("asked %d times, %v", n, err)
	}
}

// A bundle that did not come whole leaves no file, and what was there stays.
func TestEvidenceWhole(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"short": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "a part")
		},
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Write(make([]byte, 50000))
			panic(http.ErrAbortHandler)
		},
		"of no length": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "a part")
			w.(http.Flusher).Flush()
			io.WriteString(w, "another")
		},
		"empty":    func(w http.ResponseWriter, r *http.Request) {},
		"too long": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "9000000000") },
	} {
		dir := t.TempDir()
		out := filepath.Join(dir, "evidence.cmw")
		if err := os.WriteFile(out, []byte("older"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := asks(t, answer, "evidence", "--nonce", "cafe", "-o", out); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%s: %v", name, err)
		}
		content, err := os.ReadFile(out)
		if err != nil || string(content) != "older" {
			t.Errorf("%s: the file is %q, %v", name, content, err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%s: %v, %v", name, files, err)
		}
	}
}
