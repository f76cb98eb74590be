//go:build linux

package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"tallystick/guest"
	"tallystick/rtmr"
)

// service is a helper on a device in memory, behind its socket.
func service(t *testing.T) (d *rtmr.Memory, journal string, client *http.Client) {
	t.Helper()
	d = rtmr.NewMemory([]rtmr.Alg{rtmr.SHA384}, rtmr.MRTD, rtmr.MustParse("rtmr3"))
	dir := t.TempDir()
	journal = filepath.Join(dir, "journal.cel")
	h, err := guest.New(ctx, guest.Config{Device: d, Journal: journal, IMADir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return d, journal, serve(t, &guest.Server{Helper: h, Log: slog.New(slog.DiscardHandler)}, filepath.Join(dir, "socket"))
}

// serve has a server answer at a socket.
func serve(t *testing.T, s *guest.Server, socket string) *http.Client {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != context.Canceled {
			t.Error(err)
		}
	})
	return guest.Client(socket)
}

// ask returns the answer's status and body.
func ask(t *testing.T, client *http.Client, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, "http://tallyd"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Do(request)
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

func TestServer(t *testing.T) {
	d, journal, client := service(t)
	app, err := guest.Measure("image", "key", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	request := func(register, kind string, app *guest.App) string {
		text, err := json.Marshal(map[string]any{"register": register, "type": kind, "measurement": app})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	other, err := guest.Measure("another", "key", strings.NewReader("content"))
	if err != nil {
		t.Fatal(err)
	}
	good := request("rtmr3", "container", app)
	for _, c := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"an extend", "POST", "/v1/extend", good, 200, `{"extended":true}`},
		{"the same again", "POST", "/v1/extend", good, 200, `{"extended":false}`},
		{"its key for another", "POST", "/v1/extend", request("rtmr3", "container", other), 409, "was used for another measurement"},
		{"a register that is not there", "POST", "/v1/extend", request("pcr10", "container", app), 400, "pcr10: not supported: the device has rtmr3"},
		{"a register that cannot be extended", "POST", "/v1/extend", request("mrtd", "container", &guest.App{Size: 1, Digests: app.Digests}), 400, "not writable"},
		{"no such register", "POST", "/v1/extend", request("rtmr9", "container", app), 400, `unknown register \"rtmr9\"`},
		{"no digest", "POST", "/v1/extend", request("rtmr3", "container", &guest.App{}), 400, "0 digests"},
		{"no type", "POST", "/v1/extend", request("rtmr3", "", app), 400, `type \"\"`},
		{"an unknown member", "POST", "/v1/extend", `{"registre":"rtmr3"}`, 400, "registre"},
		{"a body without end", "POST", "/v1/extend", `{"type":"` + strings.Repeat("x", 1<<20), 413, "a request of more than 65536 bytes"},
		{"more behind it", "POST", "/v1/extend", good + good, 400, "more behind the request"},
		{"garbage behind it", "POST", "/v1/extend", good + "x", 400, "invalid character"},
		{"spaces behind it", "POST", "/v1/extend", good + " \n", 200, `{"extended":false}`},
		{"a body that is too large behind it", "POST", "/v1/extend", good + strings.Repeat(" ", 1<<20), 413, "a request of more than 65536 bytes"},
		{"evidence that is none's", "POST", "/v1/evidence", `{"nonce":"00ff"}`, 400, "makes no evidence"},
		{"evidence without a nonce", "POST", "/v1/evidence", `{}`, 400, "a nonce of 0 bytes"},
		{"evidence for zeros", "POST", "/v1/evidence", `{"nonce":"0000"}`, 400, "a nonce of zeros"},
		{"evidence for no hexadecimal", "POST", "/v1/evidence", `{"nonce":"xyz"}`, 400, ""},
		{"evidence with an unknown member", "POST", "/v1/evidence", `{"nonce":"00ff","key":1}`, 400, `unknown field \"key\"`},
		{"nothing", "POST", "/v1/extend", "", 400, "EOF"},
		{"no JSON", "POST", "/v1/extend", "x", 400, "invalid character"},
		{"another method", "GET", "/v1/extend", "", 405, ""},
		{"another path", "GET", "/v2/extend", "", 404, ""},
		{"the status", "GET", "/v1/status", "", 200, `"journal":`},
		{"metrics", "GET", "/metrics", "", 200, "\ntallystick_behind_measurements 0\n"},
	} {
		code, answer := ask(t, client, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(answer, c.want) {
			t.Errorf("%s: %d %s, want %d and %q", c.name, code, answer, c.code, c.want)
		}
	}
	if texts := check(t, d, journal); len(texts) != 1 {
		t.Errorf("journaled: %q", texts)
	}
	values := must(d.Read(ctx))(t)
	if value := values[rtmr.SHA384][rtmr.MustParse("rtmr3")]; bytes.Count(value, []byte{0}) == len(value) {
		t.Error("nothing was extended")
	}
}
