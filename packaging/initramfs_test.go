//go:build linux

package packaging_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The initramfs' script ends tallyd, and nothing else, and goes on if it cannot: here
// a first process of a PID namespace, whom no process inside kills.
func TestInitramfsStop(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("no lab: namespaces: not root")
	}
	for _, c := range []struct{ name, script, want string }{
		{"another's", "sleep 60 & pid=$!; stop; kill -0 $pid && echo alive", "alive"},
		{"ends", "/run/tallyd -c 'trap exit TERM; >/run/ready; while sleep 0.1; do :; done' & pid=$!; ready; stop; wait $pid; echo $?", "0"},
		{"killed", "/run/tallyd -c 'trap : TERM; >/run/ready; while sleep 0.1; do :; done' & pid=$!; ready; stop; wait $pid; echo $?", "137"},
		{"cannot", "pid=1; stop", "tallyd does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first := `mount -t tmpfs none /run && mkdir /run/tallystick && cp /bin/sh /run/tallyd && cp initramfs-tools/stop /run/stop && exec /run/tallyd -c "$1"`
			script := `ready() { until [ -e /run/ready ]; do sleep 0.1; done; }` + "\n" + `stop() { echo $pid >/run/tallystick/initramfs.pid; /bin/sh /run/stop; }` + "\n" + c.script
			cmd := exec.Command("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "/bin/sh", "-ec", first, "sh", script)
			began := time.Now()
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), c.want) {
				t.Errorf("%v, %q, want %q", err, out, c.want)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %v", took)
			}
		})
	}
}
