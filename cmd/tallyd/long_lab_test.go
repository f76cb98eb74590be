//go:build linux && long

package main_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"tallystick/lab"
)

// A list of 110,000 entries: how long the service takes to catch up with it beside
// what its kernel takes to give it, and how much memory; and how long a service takes
// to be ready with a list of one entry. It takes 15 minutes, and is run by
//
//	go test -tags long -timeout 60m -run TestLabLong -v ./cmd/tallyd
func TestLabLong(t *testing.T) {
	const entries = 110_000
	g := &machine{t: t}
	g.Guest = lab.Machine{Kernel: "6.12", Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Memory: 2048,
		Files: map[string][]byte{"/lab/bin/tallyd": lab.Build(t, "./cmd/tallyd")}}.Start(t)
	t.Logf("%s, %d entries before a policy is loaded", g.Release(), g.count())
	for i := range 3 {
		t.Logf("a service is ready %d0 ms after its start", g.ready(i))
	}
	// One file alone: to read a journal that is being written would be measured each time.
	g.Shell("touch /tmp/f; chown 1 /tmp/f; echo 'measure func=FILE_CHECK mask=MAY_READ fowner=1' > " + lab.IMADir + "policy")
	for g.count() < entries {
		g.Shell("i=0; while [ $i -lt 5000 ]; do echo $i $$ > /tmp/f; read x < /tmp/f; i=$((i+1)); done")
	}
	size := len(g.Get(lab.IMAList))
	for i := range 2 {
		began := g.now()
		g.Shell("dd if=" + lab.IMAList + " of=/dev/null bs=4k 2>/dev/null")
		kernel := g.now() - began
		began = g.now()
		s := g.start(long(i))
		s.within(15*time.Minute, "it caught up", func() bool {
			g.Run("sleep", "1") // rather than take the processor from it
			return s.status().IMA >= entries
		})
		service := g.now() - began
		hwm := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(string(g.Get("/proc/" + s.pid() + "/status")))
		t.Logf("%d entries, %d bytes: the kernel gives them, 4 KiB at a time, in %d0 ms, the service extended them in %d0 ms, VmHWM %s kB",
			g.count(), size, kernel, service, hwm[1])
		s.check()
		s.Run(s.ask("evidence", "--nonce", "01", "-o", "/tmp/evidence")...)
		hwm = regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(string(g.Get("/proc/" + s.pid() + "/status")))
		t.Logf("after evidence VmHWM %s kB", hwm[1])
		s.stop()
	}
	g.Stop()
}

// long is a service with registers of its own.
func long(i int) service {
	return service{device: "bpf", state: fmt.Sprintf("/run/long%d", i), flags: []string{"--pins", fmt.Sprintf("/sys/fs/bpf/long%d", i)}}
}

// now is the guest's time since it started, in 1/100 s.
func (g *machine) now() int {
	g.t.Helper()
	up, err := strconv.ParseFloat(strings.Fields(string(g.Get("/proc/uptime")))[0], 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return int(up * 100)
}

// ready is how long a service takes from its start until it listens, in 1/100 s.
func (g *machine) ready(i int) int {
	g.t.Helper()
	s := long(i)
	s.state += "-empty"
	out := g.Shell(fmt.Sprintf(`read began x < /proc/uptime
tallyd run --device bpf --pins /sys/fs/bpf/empty%d --state %s & pid=$!
while [ ! -S %s/tallyd.sock ]; do usleep 5000; done
read ended x < /proc/uptime
kill $pid; wait $pid 2>/dev/null
echo $began $ended`, i, s.state, s.state))
	var began, ended float64
	if _, err := fmt.Sscan(out, &began, &ended); err != nil {
		g.t.Fatal(out, err)
	}
	return int((ended-began)*100 + .5)
}
