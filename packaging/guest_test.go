//go:build linux && packages

// These tests boot Debian guests that run systemd and take a quarter of an hour:
// make deb-test.
package packaging_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/ima"
	"tallystick/lab"
)

// system is a Debian guest with systemd, in which the package is, or comes to be.
type system struct {
	t *testing.T
	*lab.Guest
}

// start boots the machine, and waits until all that is to start has started.
func start(t *testing.T, m lab.Machine) *system {
	t.Helper()
	m.Debian, m.Firmware, m.TPM, m.Append = "trixie", lab.SeaBIOS, lab.NoTPM, lab.TCB+" systemd.unit=basic.target"
	s := &system{t, m.Start(t)}
	s.Exec(lab.Command{Args: []string{"systemctl", "is-system-running", "--wait"}})
	if failed := s.Run("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		t.Errorf("units that failed:\n%s%s", failed, s.Run("journalctl", "-b", "-p", "warning"))
	}
	return s
}

func (s *system) log() string { return s.Run("journalctl", "-b", "-o", "cat", "-u", "tallyd.service") }

// property returns a property of a unit.
func (s *system) property(unit, name string) string {
	s.t.Helper()
	return strings.TrimSpace(s.Run("systemctl", "show", "--value", "-p", name, unit))
}

// until waits for a condition.
func (s *system) until(what string, true func() bool) {
	s.t.Helper()
	for began := time.Now(); !true(); time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 2*time.Minute {
			s.t.Fatalf("%s: not in two minutes\n%s", what, s.log())
		}
	}
}

func (s *system) running() bool { return s.property("tallyd.service", "ActiveState") == "active" }

// count is how many entries the kernel's list has.
func (s *system) count() int {
	s.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(string(s.Get(lab.IMADir + "runtime_measurements_count"))))
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// check waits until the service has extended what the list has now, holds its
// journal against the registers with the package's own tally, and sees that it has
// the list's entries, each once and in the list's order. It returns the journal's
// applications' entries.
func (s *system) check() (apps int) {
	s.t.Helper()
	s.Run("tally", "--help") // which the kernel measures, the first time
	least := s.count()
	s.until("it caught up", func() bool {
		var status guest.Status
		if err := json.Unmarshal([]byte(s.Run("tallyd", "status", "--json")), &status); err != nil {
			s.t.Fatal(err)
		}
		return status.IMA >= least && status.Behind == 0 && status.Error == ""
	})
	journal := s.Get("/run/tallystick/journal.cel")
	s.Put("/run/values.json", []byte(s.Run("tallyd", "values")))
	r := s.Exec(lab.Command{Args: []string{"tally", "reconcile", "--insecure-skip-signature", "--values", "/run/values.json", "/run/tallystick/journal.cel"}})
	if r.Status != 0 {
		s.t.Errorf("the journal does not fold to the registers: exit status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	var journaled, listed []string
	for m, err := range cel.NewReader(bytes.NewReader(journal), cel.TLV).Measurements() {
		if err != nil {
			s.t.Fatal(err)
		}
		switch entry := m.Entry.(*cel.Entry); entry.ContentType() {
		case cel.ContentIMATemplate:
			journaled = append(journaled, name(entry.Inner().(*ima.Entry)))
		case cel.ContentTallystick:
			apps++
		}
	}
	list, err := ima.NewReader(bytes.NewReader(s.Get(lab.IMAList)), ima.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	for m, err := range list.Measurements() {
		if err != nil {
			s.t.Fatal(err)
		}
		listed = append(listed, name(m.Entry.(*ima.Entry)))
	}
	if n := len(journaled); n < least || n > len(listed) || !slices.Equal(journaled, listed[:n]) {
		s.t.Errorf("the journal has %d IMA entries, and not the first of the list's %d, of which there were %d", n, len(listed), least)
	}
	s.t.Logf("%s: %d IMA entries, %d of applications", s.Release(), len(journaled), apps)
	return apps
}

// name tells an entry from all others.
func name(e *ima.Entry) string { return e.Template() + fmt.Sprintf("%x", e.Data()) }

// load has the kernel measure new programs, and applications extend a register,
// until it is stopped.
func (s *system) load(register string) (stop func() (apps int)) {
	s.Put("/root/load", []byte(`#!/bin/sh
i=0
while [ ! -e /run/stop ]; do
	i=$((i + 1))
	printf '#!/bin/sh\n# %s\n' $i >/root/p$i; chmod +x /root/p$i; /root/p$i
	tallyd extend --register `+register+` --type load --key key-$i --file /root/p$i || exit 1
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
	score := strings.TrimSpace(s.Run("systemd-analyze", "security", "--threshold=30", "--no-pager", "tallyd.service")) // 3.0
	t.Log(score[strings.LastIndex(score, "\n")+1:])
	s.watchdog()

	stop := s.load("rtmr3")
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

// watchdog has systemd restart a service that gives no sign of life.
func (s *system) watchdog() {
	s.t.Helper()
	const dropIn = "/run/systemd/system/tallyd.service.d/test.conf"
	s.Put(dropIn, []byte("[Service]\nWatchdogSec=5\n"))
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "restart", "tallyd.service")
	time.Sleep(10 * time.Second) // twice the limit
	if n := s.property("tallyd.service", "NRestarts"); n != "0" || !s.running() {
		s.t.Errorf("restarted %s times with nothing wrong\n%s", n, s.log())
	}
	s.Run("systemctl", "kill", "--kill-whom=main", "-s", "STOP", "tallyd.service")
	s.until("the watchdog restarted it", func() bool { return s.property("tallyd.service", "NRestarts") == "1" && s.running() })
	s.Run("rm", dropIn)
	s.Run("systemctl", "daemon-reload")
	s.check()
}

// The service runs in the initramfs, and in the root after it, with one journal.
func TestInitramfs(t *testing.T) {
	deb := read(t, build(t, "..", "1.0"))
	for _, c := range []struct{ name, make, first string }{
		{"initramfs-tools", "mkinitramfs -o /initrd $release", "cat /run/tallystick/initramfs.log"},
		{"dracut", "dracut --no-hostonly --kver $release --drivers 'virtio_blk virtio_pci ext4' --omit 'crypt dm lvm mdraid multipath nvdimm plymouth' /initrd", "journalctl -b -o cat -u tallyd.service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, lab.Machine{
				Kernel:    "6.12",
				Files:     map[string][]byte{"/root/a.deb": deb},
				Provision: "dpkg -i /root/a.deb; release=$(ls /usr/lib/modules); " + c.make,
				Initrd:    "/initrd",
			})
			if first, _, _ := strings.Cut(s.Shell(c.first), "journal taken up"); !strings.Contains(first, "registers in the kernel") {
				t.Errorf("it did not run in the initramfs:\n%s", first)
			}
			if log := s.log(); !strings.Contains(log, "journal taken up") || strings.Contains(log, "Failed") {
				t.Errorf("the service did not take up the initramfs' journal:\n%s", log)
			}
			if n := s.property("tallyd.service", "NRestarts"); n != "0" {
				t.Errorf("the service was restarted %s times:\n%s", n, s.log())
			}
			at := func(unit string) int {
				n, _ := strconv.Atoi(s.property(unit, "ActiveEnterTimestampMonotonic"))
				return n
			}
			if service, sysinit := at("tallyd.service"), at("sysinit.target"); service == 0 || service >= sysinit {
				t.Errorf("the service was ready at %d, sysinit.target at %d us", service, sysinit)
			}
			s.check()
			s.Stop()
		})
	}
}
