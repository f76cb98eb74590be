//go:build linux

package packaging_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tallystick/lab"
)

// The package in a Debian guest, in one boot: it is installed and started, woken by
// what the kernel measures and by nothing else, restarted, asked for evidence, and
// removed. What takes longer is in guest_test.go.
func TestService(t *testing.T) {
	t.Parallel()
	s := start(t, lab.Machine{Kernel: "7.3", TSM: true, Files: map[string][]byte{"/root/a.deb": read(t, build(t, "..", "1.0"))}})
	s.Run("dpkg", "-i", "/root/a.deb")
	if !s.running() {
		t.Fatalf("installed, and not running:\n%s", s.log())
	}
	for _, want := range []string{`source=ima method="kprobe multi"`, `source=tsm method="raw tracepoint"`} {
		if log := s.log(); !strings.Contains(log, want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
	s.check()
	s.score(30)
	s.woken()

	s.kill9()
	s.check()

	const nonce = "00112233445566778899aabbccddeeff"
	s.Run("tallyd", "evidence", "--nonce", nonce, "-o", "/run/evidence")
	for given, want := range map[string]string{nonce: "RECONCILED: ", "01" + nonce[2:]: "UNTRUSTED: "} {
		r := s.Exec(lab.Command{Args: []string{"tally", "reconcile", "--insecure-skip-signature", "--nonce", given, "/run/evidence"}})
		if !strings.HasPrefix(string(r.Stdout), want) {
			t.Errorf("evidence for the nonce %s, and %s: %s%s", nonce, given, r.Stdout, r.Stderr)
		}
	}

	s.Run("dpkg", "-P", "tallystick")
	if left := s.Shell("ls /usr/lib/systemd/system/tallyd* /run/tallystick/tallyd.sock 2>/dev/null; true"); left != "" || s.running() {
		t.Errorf("removed, and still there:\n%s", left)
	}
	s.Stop()
}

// woken has the tap alone wake the service, without a watchdog and with a day between
// polls, for each of some measurements.
func (s *system) woken() {
	s.t.Helper()
	s.dropIn("tap", "WatchdogSec=0\nEnvironment=\"TALLYD_OPTIONS=--guard no --poll 24h\"\n")
	for i := range 6 {
		s.measure(fmt.Sprintf("wake%d", i))
		began := time.Now()
		s.caughtUp()
		if took := time.Since(began); took > 10*time.Second { // rechecked each minute
			s.t.Errorf("it took %v until the service had extended a measurement", took)
		}
	}
	s.noDropIn("tap")
}
