//go:build linux

package main_test

import (
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"tallystick/lab"
	"tallystick/rtmr"
)

// On real kernels without a firmware's log, one of which keeps its initrd and one that
// cannot: own events say what the machine was booted with, and are extended once.
func TestLabOwn(t *testing.T) {
	for _, c := range []struct {
		kernel, cmdline string
		kept            bool
	}{{"6.12", "retain_initrd", true}, {"6.1", "retain_initrd", false}} {
		t.Run(c.kernel, func(t *testing.T) {
			g := &machine{t: t, Guest: lab.Machine{Kernel: c.kernel, Firmware: lab.SeaBIOS, TPM: lab.NoTPM, Append: c.cmdline,
				Files: map[string][]byte{"/lab/bin/tallyd": lab.Build(t, "./cmd/tallyd")}}.Start(t)}
			_, initramfs, _ := g.BootFiles()
			s := g.start(service{device: "bpf"})
			s.stop()
			s = g.start(service{device: "bpf"})
			s.check()
			s.stop()
			events := make(map[string]string)
			s.journal(func(m rtmr.Measurement) {
				if kind, own := strings.CutPrefix(m.Entry.Type(), "own:"); own && kind != "gap" {
					if _, twice := events[kind]; twice {
						t.Errorf("%s twice", kind)
					}
					events[kind] = fmt.Sprintf("%s %s", m.Register, m.Entry.Data())
				}
			})
			if want := "pcr12 " + string(s.Get("/proc/cmdline")); events["cmdline"] != want {
				t.Errorf("%q, want %q", events["cmdline"], want)
			}
			if !strings.HasPrefix(events["kernel"], `pcr11 {"release":"`+s.Release()+`",`) || !strings.Contains(events["kernel"], `"build_id":"`) {
				t.Errorf("%s", events["kernel"])
			}
			var initrd struct {
				From    string
				Size    int
				Digests map[string]string
			}
			if err := json.Unmarshal([]byte(strings.TrimPrefix(events["initrd"], "pcr9 ")), &initrd); err != nil {
				t.Fatalf("%v: %s", err, events["initrd"])
			}
			sum := sha512.Sum384(initramfs)
			if kept := initrd.Digests["sha384"] == hex.EncodeToString(sum[:]); initrd.Size != len(initramfs) || kept != c.kept {
				t.Errorf("%s, of an initrd of %d bytes", events["initrd"], len(initramfs))
			}
			if !strings.HasPrefix(events["machine"], "pcr15 {") || !strings.Contains(events["machine"], `"/sys/class/dmi/id/sys_vendor":"QEMU"`) {
				t.Errorf("%s", events["machine"])
			}
			g.Stop()
		})
	}
}
