//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"tallystick/evidence"
	"tallystick/guest"
	"tallystick/lab"
	"tallystick/rtmr"
)

// said is what a process says.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// started is a tallyd with sockets as systemd gives them, the names of which are the
// files'. The program is this one, by whose name it is the command.
func started(t *testing.T, names string, sockets []*os.File, args ...string) *said {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "tallyd")
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s exec %s \"$@\"", len(sockets), names, program)
	out := new(said)
	cmd := exec.Command("sh", append([]string{"-c", script, "sh", "run", "--device", "memory", "--root", dir}, args...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = out, out, sockets
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		<-done
	})
	return out
}

// says waits until a process says something.
func (s *said) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for began := time.Now(); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
			if time.Since(began) > 30*time.Second {
				t.Fatalf("it does not say %q, but\n%s", text, s)
			}
		}
	}
}

func fileOf(t *testing.T, l interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Sockets that systemd gives are taken, any number of them, and what is none that can be
// is named as systemd names it.
func TestSocketsGiven(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) *os.File {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return fileOf(t, l.(*net.UnixListener))
	}
	out := started(t, "tallyd.socket:other", []*os.File{listen("a"), listen("b")}, "--state", filepath.Join(dir, "state"))
	out.says(t, "address="+dir+"/a", "address="+dir+"/b")
	for _, name := range []string{"a", "b"} {
		r, err := guest.Client(filepath.Join(dir, name)).Get("http://tallyd/v1/status")
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode != 200 {
			t.Errorf("%s: %s", name, r.Status)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "tallyd.sock")); err == nil {
		t.Error("a socket of its own beside systemd's")
	}

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	connected := os.NewFile(uintptr(pair[0]), "connected")
	defer connected.Close()
	for want, given := range map[string]*os.File{
		`systemd's descriptor "web": address family 2, expected AF_UNIX or AF_VSOCK`: fileOf(t, tcp.(*net.TCPListener)),
		`systemd's descriptor "web": expected a socket: `:                            file,
		`systemd's descriptor "web": expected a socket that listens`:                 connected,
	} {
		started(t, "tallyd.socket:web", []*os.File{listen(strconv.Itoa(len(want))), given}, "--state", filepath.Join(dir, want[:20])).says(t, want)
	}
}

// Over vsock evidence is given to machines that may ask, and nothing else to anybody.
// It takes the kernel's loopback for vsock, which the test in the lab has.
func TestVsock(t *testing.T) {
	if _, err := os.Stat("/sys/module/vsock_loopback"); err != nil {
		t.Skip("no vsock loopback: CONFIG_VSOCKETS_LOOPBACK")
	}
	post := func(client *http.Client, path, body string) (int, string) {
		r, err := client.Post("http://tallyd"+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		answer, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(answer)
	}

	// By default only the host may ask, and this machine is not its own host.
	dir := t.TempDir()
	started(t, "", nil, "--state", filepath.Join(dir, "state"), "--vsock", "5000").says(t, "network=vsock", "network=unix")
	if code, answer := post(guest.VsockClient(vsock.Local, 5000), "/v1/evidence", `{"nonce":"cafe"}`); code != 403 || !strings.Contains(answer, "CID 1 may not ask") {
		t.Errorf("%d %s", code, answer)
	}

	// A socket of systemd's beside one of its own.
	given := vsockFile(t, 5002)
	state := filepath.Join(dir, "given")
	started(t, "tallyd-vsock.socket", []*os.File{given}, "--state", state, "--vsock", "5002", "--allow-cid", "1,2").says(t, "address=vm(4294967295):5002", "network=unix")
	client := guest.VsockClient(vsock.Local, 5002)
	code, answer := post(client, "/v1/evidence", `{"nonce":"cafe"}`)
	b, err := evidence.Read([]byte(answer))
	if code != 200 || err != nil || !bytes.Equal(b.Statement.Nonce, []byte{0xca, 0xfe}) {
		t.Errorf("%d %v", code, err)
	}
	app, err := guest.Measure("x", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	extend, err := json.Marshal(guest.ExtendRequest{Register: rtmr.MustParse("pcr12"), Type: "image", App: *app})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer := post(client, "/v1/extend", string(extend)); code != 404 {
		t.Errorf("an extend over vsock: %d %s", code, answer)
	}
	for _, path := range []string{"/v1/status", "/v1/values", "/metrics", "/v1/evidence"} {
		r, err := client.Get("http://tallyd" + path)
		if err != nil {
			t.Fatal(err)
		}
		if r.Body.Close(); r.StatusCode < 400 {
			t.Errorf("%s over vsock: %s", path, r.Status)
		}
	}
	socket := filepath.Join(state, "tallyd.sock")
	r, err := guest.Client(socket).Post("http://tallyd/v1/extend", "application/json", bytes.NewReader(extend))
	if err != nil {
		t.Fatal(err)
	}
	if r.Body.Close(); r.StatusCode != 200 {
		t.Errorf("the same over the unix socket: %s", r.Status)
	}

	// The command, as on the host.
	out := filepath.Join(dir, "evidence.cmw")
	at := &asked{vsock: "1:5002"}
	answered, err := at.send(t.Context(), http.MethodPost, "/v1/evidence", guest.EvidenceRequest{Nonce: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer answered.Body.Close()
	if err := store(out, io.Discard, answered); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := evidence.Read(content); err != nil || len(b.Journal) == 0 {
		t.Errorf("%+v, %v", b, err)
	}
}

// vsockFile is a socket that listens on a port, as systemd's.
func vsockFile(t *testing.T, port uint32) *os.File {
	t.Helper()
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "vsock")
	t.Cleanup(func() { f.Close() })
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	return f
}

// The tests of sockets that need a kernel with vsock's loopback, on one that has it.
func TestLabVsock(t *testing.T) {
	g := lab.Machine{
		Kernel: "7.3", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Modules: []string{"vsock_loopback"},
		Files: map[string][]byte{"/tallyd.test": lab.BuildTest(t, "./cmd/tallyd", "7.3")},
	}.Start(t)
	r := g.Exec(lab.Command{Args: []string{"/tallyd.test", "-test.v", "-test.run", "^(TestVsock|TestSocketsGiven)$", "-test.timeout", "5m"}})
	out := string(r.Stdout) + string(r.Stderr)
	t.Logf("%s\n%s", g.Release(), out)
	if r.Status != 0 || !strings.Contains(out, "--- PASS: TestVsock ") || !strings.Contains(out, "--- PASS: TestSocketsGiven ") {
		t.Errorf("status %d", r.Status)
	}
	g.Stop()
}
