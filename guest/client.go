//go:build linux

package guest

import (
	"context"
	"net"
	"net/http"
)

// Client returns a client of the Server at a socket. The host in its requests'
// addresses is not looked at.
func Client(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}
