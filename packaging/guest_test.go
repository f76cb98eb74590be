//go:build linux && packages

// These tests boot Debian guests that run systemd and take half an hour: make deb-test.
package packaging_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallystick/lab"
)

// load has the kernel measure new programs, and applications extend a register,
// until it is stopped. A request that fails is made again, so often as it may be tried.
func (s *system) load(register string, tries int) (stop func() (apps int)) {
	s.Put("/root/load", []byte(`#!/bin/sh
i=0
while [ ! -e /run/stop ]; do
	i=$((i + 1))
	printf '#!/bin/sh\n# %s\n' $i >/root/p$i; chmod +x /root/p$i; /root/p$i
	n=0
	until tallyd extend --register `+register+` --type load --key key-$i --file /root/p$i; do
		n=$((n + 1))
		[ $n -lt `+strconv.Itoa(tries)+` ] || exit 1
		sleep 0.1
	done
	echo $i >/run/extended
done
`))
	p := s.Spawn(lab.Command{Args: []string{"/root/load"}})
	return func() int {
		s.t.Helper()
		s.Put("/run/stop", nil)
		if r, err := p.Wait(); err != nil || r.Status != 0 {
			s.t.Errorf("a request failed meanwhile: %v, exit status %d\n%s%s", err, r.Status, r.Stdout, r.Stderr)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(s.Get("/run/extended"))))
		return n
	}
}

// The package is installed, hardened, kept alive, upgraded under load, removed,
// installed again and purged; each measurement is extended once all the while.
func TestPackageInGuest(t *testing.T) {
	s := start(t, lab.Machine{Kernel: "7.3", TSM: true, Files: map[string][]byte{
		"/root/a.deb": read(t, build(t, "..", "1.0")),
		"/root/b.deb": read(t, build(t, "..", "1.1")),
	}})
	s.Run("dpkg", "-i", "/root/a.deb")
	if !s.running() {
		t.Fatalf("installed, and not running:\n%s", s.log())
	}
	s.check()
	s.score(30)
	s.watchdog()
	s.sleeps()

	stop := s.load("rtmr3", 1)
	s.until("the load runs", func() bool { _, err := s.Read("/run/extended"); return err == nil })
	before := s.property("tallyd.service", "MainPID")
	s.Run("dpkg", "-i", "/root/b.deb")
	if now := s.property("tallyd.service", "MainPID"); now == before || !s.running() {
		t.Errorf("upgraded, and process %s, which was %s, runs", now, before)
	}
	extended := stop()
	if apps := s.check(); apps != extended || extended == 0 {
		t.Errorf("%d applications' entries, %d were extended", apps, extended)
	}

	s.Run("dpkg", "-i", "/root/a.deb") // an older one
	if apps := s.check(); apps != extended {
		t.Errorf("%d applications' entries, %d were extended before the downgrade", apps, extended)
	}
	s.vsock()

	s.Run("dpkg", "-r", "tallystick")
	if left := s.Shell("ls /usr/lib/systemd/system/tallyd* /run/tallystick/tallyd.sock 2>/dev/null; true"); left != "" {
		t.Errorf("removed, and still there:\n%s", left)
	}
	s.Shell("printf '#!/bin/sh\n' >/root/meanwhile; chmod +x /root/meanwhile; /root/meanwhile")
	s.Run("dpkg", "-i", "/root/b.deb")
	if apps := s.check(); apps != extended {
		t.Errorf("%d applications' entries, %d were extended before it was removed", apps, extended)
	}
	s.Run("dpkg", "-P", "tallystick")
	left := s.Shell("find / -xdev -path /root -prune -o -iname '*tally*' -print; ls /etc/default/tallyd 2>/dev/null; true")
	for line := range strings.Lines(left) {
		if !strings.HasPrefix(line, "/var/log/") {
			t.Errorf("purged, and still there: %s", line)
		}
	}
	if _, err := s.Read("/run/tallystick/journal.cel"); err != nil {
		t.Errorf("purged, and the journal is gone, which explains registers that nobody can take back: %v", err)
	}
	s.Stop()
}

// vsock asks the service over the machine's loopback, which is not the host, and so has
// to be allowed.
func (s *system) vsock() {
	s.t.Helper()
	if on := s.Exec(lab.Command{Args: []string{"systemctl", "is-enabled", "tallyd-vsock.socket"}}); string(on.Stdout) != "disabled\n" {
		s.t.Errorf("tallyd-vsock.socket is %s", on.Stdout)
	}
	const nonce = "c0ffee"
	ask := lab.Command{Args: []string{"tallyd", "evidence", "--vsock", "1:10240", "--nonce", nonce, "-o", "/run/evidence"}}
	s.Run("modprobe", "vsock_loopback")
	s.Run("systemctl", "stop", "tallyd.service")
	s.Run("systemctl", "start", "tallyd-vsock.socket", "tallyd.service")
	if r := s.Exec(ask); r.Status == 0 {
		s.t.Error("whoever is no host is answered over vsock")
	}
	s.dropIn("vsock", "Environment=\"TALLYD_OPTIONS=--guard no --allow-cid 1\"\n")
	s.Run(ask.Args...)
	if out := s.Run("tally", "reconcile", "--insecure-skip-signature", "--nonce", nonce, "/run/evidence"); !strings.HasPrefix(out, "RECONCILED: ") {
		s.t.Errorf("evidence over vsock: %s", out)
	}
	s.Run("systemctl", "stop", "tallyd-vsock.socket")
	s.noDropIn("vsock")
	s.check()
}

// sleeps holds the service beside one that may not trace, and so polls.
func (s *system) sleeps() {
	s.t.Helper()
	tapped, ran := s.idle()
	s.dropIn("polls", "CapabilityBoundingSet=~CAP_PERFMON\n")
	polling, polled := s.idle()
	s.noDropIn("polls")
	s.t.Logf("in 30 s without measurements: tapped it slept %d times and ran %v, polling %d times and %v", tapped, ran, polling, polled)
	if polling < 3*tapped {
		s.t.Errorf("it wakes for more than the watchdog: it slept %d times, and polling %d times", tapped, polling)
	}
}

// idle returns how often a thread of the service slept, and how long it ran, in half a
// minute in which nothing was measured.
func (s *system) idle() (switches int, ran time.Duration) {
	s.t.Helper()
	s.Put("/root/idle", []byte(`#!/bin/sh
snap() {
	cat /proc/$pid/task/*/status | awk '/^voluntary_ctxt_switches/ { n += $2 } END { print n }'
	awk '/usage_usec/ { print $2 }' /sys/fs/cgroup/system.slice/tallyd.service/cpu.stat
	cat /sys/kernel/security/ima/runtime_measurements_count
}
pid=$(systemctl show --value -p MainPID tallyd.service)
snap; sleep $1; snap
`))
	s.Run("/root/idle", "0") // after which all of it is measured
	s.caughtUp()
	for {
		var before, after [3]int
		out := s.Run("/root/idle", "30")
		if n, err := fmt.Sscan(out, &before[0], &before[1], &before[2], &after[0], &after[1], &after[2]); err != nil {
			s.t.Fatalf("%d numbers of %q: %v", n, out, err)
		}
		if before[2] == after[2] {
			return after[0] - before[0], time.Duration(after[1]-before[1]) * time.Microsecond
		}
		s.t.Logf("%d measurements meanwhile", after[2]-before[2])
	}
}

// watchdog has systemd restart a service that gives no sign of life.
func (s *system) watchdog() {
	s.t.Helper()
	s.dropIn("watchdog", "WatchdogSec=5\n")
	time.Sleep(10 * time.Second) // twice the limit
	if n := s.property("tallyd.service", "NRestarts"); n != "0" || !s.running() {
		s.t.Errorf("restarted %s times with nothing wrong\n%s", n, s.log())
	}
	s.Run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", "tallyd.service")
	s.until("the watchdog restarted it", func() bool { return s.property("tallyd.service", "NRestarts") == "1" && s.running() })
	s.noDropIn("watchdog")
	s.check()
}

// The service runs in the initramfs, and in the root after it, with one journal; with
// the systemd of Debian 13, and of 12, which does not know all of the unit's settings.
func TestInitramfs(t *testing.T) {
	deb := read(t, build(t, "..", "1.0"))
	tools := [2]string{"mkinitramfs -o /initrd $release", "cat /run/tallystick/initramfs.log"}
	dracut := [2]string{"dracut --no-hostonly --kver $release --drivers 'virtio_blk virtio_pci ext4' --omit 'crypt dm lvm mdraid multipath nvdimm plymouth' /initrd",
		"journalctl -b -o cat -u tallyd.service"}
	for _, c := range []struct {
		name, debian, kernel string
		make                 [2]string // and what prints the log of it there
	}{
		{"initramfs-tools", "trixie", "6.12", tools},
		{"dracut", "trixie", "6.12", dracut},
		{"initramfs-tools-12", "bookworm", "6.1", tools},
		{"dracut-12", "bookworm", "6.1", dracut},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, lab.Machine{
				Debian:    c.debian,
				Kernel:    c.kernel,
				Files:     map[string][]byte{"/root/a.deb": deb},
				Provision: "dpkg -i /root/a.deb; release=$(ls /usr/lib/modules); " + c.make[0],
				Initrd:    "/initrd",
			})
			if first, _, _ := strings.Cut(s.Shell(c.make[1]), "journal taken up"); !strings.Contains(first, "registers in the kernel") {
				t.Errorf("it did not run in the initramfs:\n%s", first)
			}
			if log := s.log(); !strings.Contains(log, "journal taken up") || strings.Contains(log, "Failed") {
				t.Errorf("the service did not take up the initramfs' journal:\n%s", log)
			}
			if n := s.property("tallyd.service", "NRestarts"); n != "0" {
				t.Errorf("the service was restarted %s times:\n%s", n, s.log())
			}
			s.early()
			s.check()
			s.score(30)
			if c.name == "initramfs-tools" {
				s.shutdown()
			}
			s.Stop()
		})
	}
}

// early checks when the service was ready, and how long the boot waited for it.
func (s *system) early() {
	s.t.Helper()
	at := func(unit, state string) time.Duration {
		n, err := strconv.Atoi(s.property(unit, state+"TimestampMonotonic"))
		if err != nil || n == 0 {
			s.t.Fatalf("%s of %s: %d, %v", state, unit, n, err)
		}
		return time.Duration(n) * time.Microsecond
	}
	began, ready, sysinit := at("tallyd.service", "InactiveExit"), at("tallyd.service", "ActiveEnter"), at("sysinit.target", "ActiveEnter")
	if ready >= sysinit {
		s.t.Errorf("the service was ready at %v, sysinit.target at %v", ready, sysinit)
	}
	s.t.Logf("systemd %s: the service was begun at %v, ready after %v, sysinit.target was reached at %v",
		strings.Fields(s.Run("systemctl", "--version"))[1], began, ready-began, sysinit)
	s.t.Log(s.Run("systemd-analyze", "critical-chain", "--no-pager", "sysinit.target"))
	s.t.Log(s.Run("journalctl", "-b", "-o", "short-monotonic", "-u", "tallyd.service"))
	if cycles := s.Shell("journalctl -b | grep -i 'ordering cycle' || true"); cycles != "" {
		s.t.Errorf("units wait for each other:\n%s", cycles)
	}
}

// shutdown has the machine go off, and a unit hold it once the services are stopped.
// What another service measures when it stops is extended before.
func (s *system) shutdown() {
	s.t.Helper()
	s.Put("/root/stop", []byte("#!/bin/sh\n# measured while the machine goes off\ntallyd extend --register pcr23 --type stop --key goes-off --file /root/stop\n"))
	s.Put("/run/systemd/system/app.service", []byte(`[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/root/stop
`))
	s.Put("/run/systemd/system/hold.service", []byte(`[Unit]
DefaultDependencies=no
After=shutdown.target tallyd.service
Before=final.target systemd-poweroff.service
[Service]
Type=oneshot
ExecStart=/bin/sleep infinity
`))
	s.Run("mkdir", "-p", "/run/systemd/system/poweroff.target.wants")
	s.Run("ln", "-s", "../hold.service", "/run/systemd/system/poweroff.target.wants/hold.service")
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "start", "app.service")
	s.Run("systemctl", "poweroff", "--no-block")
	s.until("the machine goes off", func() bool { return s.property("hold.service", "ActiveState") == "activating" })
	if s.running() {
		s.t.Error("the service is not stopped when the machine goes off")
	}
	journal := string(s.Get("/run/tallystick/journal.cel"))
	if !strings.Contains(journal, "/root/stop\x00") || !strings.Contains(journal, `"goes-off"`) {
		s.t.Errorf("what was measured while services stopped is not in the journal:\n%s", s.log())
	}
}

// guardConf is the drop-in that the package has as an example.
const guardConf = "/usr/share/doc/tallystick/examples/guard.conf"

// The service with the guard: restarted and killed, it is admitted, and root is not;
// upgraded, the version that armed the guard goes on until the next boot. Where that
// one is gone it says so, and goes on when it is there again.
func TestGuarded(t *testing.T) {
	s := start(t, lab.Machine{Kernel: "6.12", Files: map[string][]byte{
		"/root/a.deb": read(t, build(t, "..", "1.0")),
		"/root/b.deb": read(t, build(t, "..", "1.1", "GOFLAGS=-tags=another")), // which is in the program
	}})
	s.Run("dpkg", "-i", "/root/a.deb")
	const move = "cd /sys/fs/bpf/tallystick && mv registers elsewhere && mv elsewhere registers"
	s.Shell(move) // as root can, without a guard
	s.Run("install", "-D", "-m", "644", guardConf, "/etc/systemd/system/tallyd.service.d/guard.conf")
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "restart", "tallyd.service")
	if log := s.log(); !s.running() || !strings.Contains(log, "msg=guard") || strings.Contains(log, "not be admitted") {
		t.Fatalf("not guarded:\n%s", log)
	}
	s.score(60)
	s.check()

	for _, attack := range []string{move, "rm -r /sys/fs/bpf/tallystick/guard", "tallyd run --device bpf --state /run/other"} {
		if r := s.Exec(lab.Command{Args: []string{"sh", "-c", attack}}); r.Status == 0 || !strings.Contains(string(r.Stderr), "not permitted") {
			t.Errorf("%s: exit status %d\n%s%s", attack, r.Status, r.Stdout, r.Stderr)
		}
	}
	s.until("the log has what was denied", func() bool {
		log := s.log()
		return strings.Contains(log, "open-map by process") && strings.Contains(log, "unpin by process")
	})
	s.Run("systemctl", "restart", "tallyd.service")
	s.check()
	s.kill9()
	s.check()

	const handed = "executing the one that armed it"
	stop := s.load("pcr23", 600) // one is on its way when the service is killed
	s.until("the load runs", func() bool { _, err := s.Read("/run/extended"); return err == nil })
	s.Run("dpkg", "-i", "/root/b.deb")
	s.kill9()
	extended := stop()
	if apps := s.check(); apps != extended || extended == 0 {
		t.Errorf("%d applications' entries, %d were extended", apps, extended)
	}
	if n := strings.Count(s.log(), handed); n != 2 {
		t.Errorf("handed over %d times, want 2:\n%s", n, s.log())
	}

	s.withoutKept()

	s.Reboot()
	s.up()
	if log := s.log(); !s.running() || !strings.Contains(log, "msg=guard") || strings.Contains(log, handed) {
		t.Errorf("the new version does not run after a boot:\n%s", log)
	}
	s.check()
	s.Stop()
}

// withoutKept takes away the program that armed the guard. The service does not run
// then, and says what to do, neither silently nor each second.
func (s *system) withoutKept() {
	s.t.Helper()
	s.Run("mv", "/run/tallystick/guarded", "/run/armed")
	s.Exec(lab.Command{Args: []string{"systemctl", "restart", "tallyd.service"}})
	const advice = "nothing is extended until that is there again, or until the next boot"
	s.until("it tried three times", func() bool { return strings.Count(s.log(), advice) >= 3 })
	if s.running() {
		s.t.Error("it runs, and is not admitted")
	}
	last := 0.0
	for line := range strings.Lines(s.Shell("journalctl -b -o short-unix -u tallyd.service | grep -F '" + advice + "'")) {
		at, err := strconv.ParseFloat(strings.Fields(line)[0], 64)
		if err != nil {
			s.t.Fatal(err)
		}
		if at-last < 4 { // RestartSec=5, and more each time
			s.t.Errorf("tried again after %.1f s", at-last)
		}
		last = at
	}
	s.measure("meanwhile")
	s.Run("mv", "/run/armed", "/run/tallystick/guarded")
	s.until("it runs", s.running)
	s.check()
}
