//go:build linux

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
	if m.Debian == "" {
		m.Debian = "trixie"
	}
	m.Firmware, m.TPM, m.Append = lab.SeaBIOS, lab.NoTPM, lab.TCB+" systemd.unit=basic.target"
	s := &system{t, m.Start(t)}
	s.up()
	return s
}

// up waits until all that is to start has started, and nothing failed.
func (s *system) up() {
	s.t.Helper()
	s.Exec(lab.Command{Args: []string{"systemctl", "is-system-running", "--wait"}})
	if failed := s.Run("systemctl", "--failed", "--plain", "--no-legend"); failed != "" {
		s.t.Errorf("units that failed:\n%s%s", failed, s.Run("journalctl", "-b", "-p", "warning"))
	}
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
	least := s.caughtUp()
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
			if strings.HasPrefix(entry.Type(), guest.AppType) {
				apps++
			}
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

// caughtUp waits until the service has extended what the list has now, and returns
// how many entries that are.
func (s *system) caughtUp() (entries int) {
	s.t.Helper()
	entries = s.count()
	s.until("it caught up", func() bool {
		var status guest.Status
		if err := json.Unmarshal([]byte(s.Run("tallyd", "status", "--json")), &status); err != nil {
			s.t.Fatal(err)
		}
		return status.IMA >= entries && status.Behind == 0 && status.Error == ""
	})
	return entries
}

// dropIn adds settings to the service, and restarts it.
func (s *system) dropIn(name, settings string) {
	s.t.Helper()
	s.Put("/run/systemd/system/tallyd.service.d/"+name+".conf", []byte("[Service]\n"+settings))
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "restart", "tallyd.service")
}

// noDropIn takes them back.
func (s *system) noDropIn(name string) {
	s.t.Helper()
	s.Run("rm", "/run/systemd/system/tallyd.service.d/"+name+".conf")
	s.Run("systemctl", "daemon-reload")
	s.Run("systemctl", "restart", "tallyd.service")
}

// score returns the last line of what systemd-analyze says of the service's
// exposure, which is to be no more than a tenth of most.
func (s *system) score(most int) {
	s.t.Helper()
	score := strings.TrimSpace(s.Run("systemd-analyze", "security", fmt.Sprintf("--threshold=%d", most), "--no-pager", "tallyd.service"))
	s.t.Log(score[strings.LastIndex(score, "\n")+1:])
}

// measure has the kernel measure a program that it did not know.
func (s *system) measure(name string) {
	s.t.Helper()
	before := s.count()
	s.Shell("printf '#!/bin/sh\n# " + name + "\n' >/root/" + name + "; chmod +x /root/" + name + "; /root/" + name)
	if s.count() == before {
		s.t.Fatal("nothing was measured")
	}
}

// kill9 kills the service, and waits until it is restarted.
func (s *system) kill9() {
	s.t.Helper()
	before := s.property("tallyd.service", "MainPID")
	s.Run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", "tallyd.service")
	s.until("it is restarted", func() bool { return s.running() && s.property("tallyd.service", "MainPID") != before })
}
