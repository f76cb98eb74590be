//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/rtmr"
)

// logged is what a server logs.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// provingServer is a helper that makes evidence, behind a socket.
func provingServer(t *testing.T, s *guest.Server, d *device, p *prover, entries int) (client *http.Client, log *logged) {
	t.Helper()
	log = new(logged)
	s.Helper, s.Log = proving(t, d, p, entries), slog.New(slog.NewTextHandler(log, nil))
	return serve(t, s, filepath.Join(t.TempDir(), "socket")), log
}

const aNonce = `{"nonce":"00ff"}`

// Status and metrics are answered while a quote is made, or a device does not come back.
func TestStatusWaitsForNobody(t *testing.T) {
	d, p := newDevice(), new(prover)
	client, _ := provingServer(t, new(guest.Server), d, p, 3)
	client.Timeout = 10 * time.Second
	working, release := make(chan struct{}), make(chan struct{})
	asked := make(chan int, 1)
	block := func() { working <- struct{}{}; <-release }
	check := func(what, path, body string) {
		go func() {
			code, _ := ask(t, &http.Client{Transport: client.Transport}, "POST", path, body)
			asked <- code
		}()
		<-working
		for _, path := range []string{"/v1/status", "/metrics"} {
			if code, answer := ask(t, client, "GET", path, ""); code != 200 {
				t.Errorf("%s while %s: %d %s", path, what, code, answer)
			}
		}
		release <- struct{}{}
		if code := <-asked; code != 200 {
			t.Errorf("%s: %d", what, code)
		}
	}
	p.quoting = block
	check("a quote is made", "/v1/evidence", aNonce)
	d.before = func() error { block(); return nil }
	check("an extend takes its time", "/v1/extend", request(t, "pcr11", "image", "x", ""))
}

// request is an ExtendRequest.
func request(t *testing.T, register, kind, name, key string) string {
	t.Helper()
	app, err := guest.Measure(name, key, strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"register":%q,"type":%q,"measurement":{"key":%q,"name":%q,"size":7,"digests":{"sha256":"%s"}}}`,
		register, kind, key, name, app.Digests[rtmr.SHA256])
}

// Requests come at a rate, and a number of them at once; one too many is told when to
// come again, and nothing was done for it.
func TestLimits(t *testing.T) {
	d, p := newDevice(), new(prover)
	s := &guest.Server{EvidenceRate: .01} // the eleventh waits for 100 s
	client, _ := provingServer(t, s, d, p, 3)
	for i := range 11 {
		r, err := client.Post("http://tallyd/v1/evidence", "application/json", strings.NewReader(aNonce))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if i < 10 {
			if b, err := evidence.Read(body); r.StatusCode != 200 || err != nil || r.ContentLength != int64(len(body)) {
				t.Fatalf("request %d: %s, %d bytes, %+v, %v", i, r.Status, r.ContentLength, b, err)
			}
			continue
		}
		wait, _ := strconv.Atoi(r.Header.Get("Retry-After"))
		if r.StatusCode != 429 || wait < 90 || wait > 100 || !bytes.Contains(body, []byte("too many requests: more than 0.01 a second")) {
			t.Errorf("request %d: %s, Retry-After %d, %s", i, r.Status, wait, body)
		}
	}
	if p.quotes != 10 {
		t.Errorf("%d quotes", p.quotes)
	}

	const asked = 40
	release, codes := make(chan struct{}), make(chan int, asked)
	d.before = func() error { <-release; return nil }
	for i := range asked {
		go func() {
			code, _ := ask(t, client, "POST", "/v1/extend", request(t, "pcr11", "image", strconv.Itoa(i), ""))
			codes <- code
		}()
	}
	for range asked - 32 {
		if code := <-codes; code != 429 {
			t.Errorf("%d, expected 429", code)
		}
	}
	if code, _ := ask(t, client, "GET", "/v1/status", ""); code != 200 {
		t.Errorf("status beside 32 that wait: %d", code)
	}
	close(release)
	for range 32 {
		if code := <-codes; code != 200 {
			t.Errorf("%d, expected 200", code)
		}
	}
	if n := s.Helper.Status().Journal.Applications; n != 32 {
		t.Errorf("%d measurements", n)
	}
}

// What is journaled and not extended yet is no failure, which would be asked for again.
func TestJournaledIsNoFailure(t *testing.T) {
	d := newDevice()
	client, _ := provingServer(t, new(guest.Server), d, new(prover), 3)
	broken := true
	d.before = func() error {
		if broken {
			return errors.New("no answer")
		}
		return nil
	}
	code, answer := ask(t, client, "POST", "/v1/extend", request(t, "pcr11", "image", "x", ""))
	if code != 202 || !strings.Contains(answer, `{"extended":false,"journaled":true,"error":"no answer"}`) {
		t.Errorf("%d %s", code, answer)
	}
}

// A client that sends a request slowly is cut off, and holds up nobody.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h, err := guest.New(ctx, guest.Config{Device: newDevice(), Journal: filepath.Join(dir, "journal.cel"), IMADir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	socket := filepath.Join(dir, "socket")
	client := serve(t, &guest.Server{Helper: h, Log: slog.New(slog.DiscardHandler)}, socket)
	var slow []net.Conn
	for range 60 {
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "POST /v1/extend HTTP/1.1\r\nHost: tallyd\r\n"); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, c)
	}
	if code, answer := ask(t, client, "GET", "/v1/status", ""); code != 200 {
		t.Errorf("%d %s", code, answer)
	}
	for _, c := range slow {
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal("it was not cut off in 20 s")
		}
	}
}

// Evidence that cannot be read to its end is cut, so that nobody takes a part for it.
func TestEvidenceCutShort(t *testing.T) {
	d, p := newDevice(), new(prover)
	s := new(guest.Server)
	client, log := provingServer(t, s, d, p, 50_000)
	r, err := client.Post("http://tallyd/v1/evidence", "application/json", strings.NewReader(aNonce))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	// More than sockets buffer is not written yet.
	if err := os.Truncate(s.Helper.Status().Journal.Path, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, r.Body); !errors.Is(err, io.ErrUnexpectedEOF) || n >= r.ContentLength {
		t.Errorf("%d of %d bytes, %v", n, r.ContentLength, err)
	}
	if text := log.String(); !strings.Contains(text, "evidence was cut short") {
		t.Errorf("log: %q", text)
	}
}

// Other users are told that they may not ask. However many connections they make,
// they hold up nobody else, and do not fill the log.
func TestStrangers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("no user namespace: another user's connections take root")
	}
	d, p := newDevice(), new(prover)
	s := new(guest.Server)
	log := new(logged)
	s.Helper, s.Log = proving(t, d, p, 3), slog.New(slog.NewTextHandler(log, nil))
	socket := fmt.Sprintf("@tallystick-%d", os.Getpid()) // in no folder, which nobody might enter
	client := serve(t, s, socket)
	nobody := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dialAs(65534, socket) }, DisableKeepAlives: true,
	}}
	for range 100 {
		if code, answer := ask(t, nobody, "GET", "/v1/status", ""); code != 403 || !strings.Contains(answer, "user 65534 may not ask (tallyd run --allow-uid") {
			t.Fatalf("%d %s", code, answer)
		}
	}
	if n := strings.Count(log.String(), "refused"); n < 1 || n > 10 {
		t.Errorf("%d lines in the log", n)
	}
	open, turned := 0, 0
	for range 100 {
		c, err := dialAs(65534, socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		} else {
			turned++
		}
	}
	if open > 8 {
		t.Errorf("%d connections stay open, %d were closed", open, turned)
	}
	if code, _ := ask(t, client, "GET", "/v1/status", ""); code != 200 {
		t.Errorf("root: %d", code)
	}
	allowed := serve(t, &guest.Server{Helper: s.Helper, AllowUID: []uint32{65534}, Log: s.Log}, socket+"-allowed")
	allowed.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		return dialAs(65534, socket+"-allowed")
	}
	if code, _ := ask(t, allowed, "GET", "/v1/status", ""); code != 200 {
		t.Errorf("a user that is allowed: %d", code)
	}
}

// dialAs connects to a socket as another user, by which the kernel calls the peer.
func dialAs(uid int, socket string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its user
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			err = e
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		f := os.NewFile(uintptr(fd), socket)
		defer f.Close()
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			return
		}
		c, err = net.FileConn(f)
	}()
	<-done
	return c, err
}
