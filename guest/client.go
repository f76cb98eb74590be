//go:build linux

package guest

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/mdlayher/vsock"
)

// answerTime is how long the service may take until it begins to answer. Where it is
// not running, systemd's socket takes requests all the same, and they wait for it.
const answerTime = time.Minute

// Client returns a client of the Server at a socket. The host in its requests'
// addresses is not looked at.
func Client(socket string) *http.Client {
	return clientOver(func(ctx context.Context) (net.Conn, error) { return (&net.Dialer{}).DialContext(ctx, "unix", socket) })
}

// VsockClient returns a client of the Server in a machine, which over vsock gives
// evidence alone.
func VsockClient(cid, port uint32) *http.Client {
	return clientOver(func(context.Context) (net.Conn, error) { return vsock.Dial(cid, port, nil) })
}

func clientOver(dial func(context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		ResponseHeaderTimeout: answerTime,
	}}
}
