package launch_test

import (
	"strings"
	"testing"

	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
)

// part is a section of a unified kernel image.
type part struct{ name, content string }

// labsParts are those of the lab's machines (fixtures/uki-7.3), but for kernel,
// initrd and the stub's .sbat.
func labsParts(kernel []byte) []part {
	return []part{
		{".sbat", "sbat,1\n"},
		{".sdmagic", "#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####"},
		{".osrel", "ID=lab\nVERSION_ID=1\n"},
		{".cmdline", "console=ttyS0 panic=-1"},
		{".uname", "7.3.4+deb13-cloud-amd64"},
		{".initrd", "an initrd of 27 bytes or so"},
		{".linux", string(kernel)},
	}
}

// unified adds sections to the test's image, which is no Linux kernel any more.
func unified(kernel []byte) []byte { return unifiedOf(labsParts(kernel)) }

func unifiedOf(parts []part) []byte {
	b := tdvftest.Kernel()
	clear(b[0x1f1:0x270])
	for i, p := range parts {
		header := b[0x40+24+0xa0+80+40*i:]
		clear(header[:40])
		copy(header[:8], p.name)
		size := (len(p.content) + 511) &^ 511
		putU32(header[8:], len(p.content))
		putU32(header[16:], size)
		putU32(header[20:], len(b))
		b = append(append(b, p.content...), make([]byte, size-len(p.content))...)
	}
	b[0x46] = byte(2 + len(parts))
	return b
}

// TestUnified: what the stub measures, and the kernel after it, is what they
// measured in a machine of the lab's, for the parts that are the same. The initrd's
// digest is another program's, which gives the lab's own of its initrd.
func TestUnified(t *testing.T) {
	image := unified(tdvftest.Kernel())
	m := measure(t, launch.TDX{Firmware: parse(t, tdvftest.EDK2()), Kernel: image, Host: launch.TDXQEMU9})
	if got := digest(t, m, "kernel in .linux"); got != stubDigest {
		t.Errorf("inside: %s, want %s", got, stubDigest)
	}
	if got, want := digest(t, m, "kernel"), authenticode(t, image); got != want {
		t.Errorf("the image: %s, want %s", got, want)
	}
	names := []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}
	for i, want := range logged(t, "uki-7.3", "EV_IPL") {
		name := names[i/2]
		if i%2 == 0 {
			name = "name of " + name
		}
		own := i%2 == 1 && (name == ".linux" || name == ".initrd" || name == ".sbat")
		if got := digest(t, m, name); (got == want) == own {
			t.Errorf("%s: %s, the lab's is %s", name, got, want)
		}
	}
	if got, want := digest(t, m, "command line"), logged(t, "uki-7.3", "EV_EVENT_TAG")[0]; got != want {
		t.Errorf("command line: %s, want %s", got, want)
	}
	if got, want := digest(t, m, "initrd"), "0e6ac0401141bcb05b568f15b4cd62ad96382daf188d2dcb058f6c9665ca74f3c091b8f5eade02a336a4650ff4e619a9"; got != want {
		t.Errorf("initrd: %s, want %s", got, want)
	}
	if value(m, "rtmr1") == "" || value(m, "rtmr2") == "" {
		t.Errorf("rtmr1 %q, rtmr2 %q: %v", value(m, "rtmr1"), value(m, "rtmr2"), m.NotPredicted)
	}
	td := fromDisk(t)
	td.Loaded = [][]byte{image}
	if got := value(measure(t, td), "rtmr2"); got != value(m, "rtmr2") {
		t.Errorf("from a disk: rtmr2 %q, want %s", got, value(m, "rtmr2"))
	}
}

// TestUnifiedCovers: every part moves RTMR2, and those that are not measured do not.
func TestUnifiedCovers(t *testing.T) {
	rtmr2 := func(parts []part) string {
		return value(measure(t, launch.TDX{Firmware: parse(t, tdvftest.Small()), Kernel: unifiedOf(parts)}), "rtmr2")
	}
	was := rtmr2(labsParts(tdvftest.Kernel()))
	for i, p := range labsParts(tdvftest.Kernel()) {
		parts := labsParts(tdvftest.Kernel())
		content := []byte(p.content)
		content[len(content)-1] ^= 1
		parts[i].content = string(content)
		if got := rtmr2(parts); (got != was) != (p.name != ".sdmagic") || got == "" {
			t.Errorf("%s: %q, was %s", p.name, got, was)
		}
	}
}

// TestUnifiedNotKnown: of a stub whose rules are not built in, RTMR2 is left out.
func TestUnifiedNotKnown(t *testing.T) {
	set := func(name, content string) func([]part) []part {
		return func(parts []part) []part {
			for i := range parts {
				if parts[i].name == name {
					parts[i].content = content
				}
			}
			return parts
		}
	}
	rename := func(from, to string) func([]part) []part {
		return func(parts []part) []part {
			for i := range parts {
				if parts[i].name == from {
					parts[i].name = to
				}
			}
			return parts
		}
	}
	for _, c := range []struct {
		name   string
		change func([]part) []part
		want   string
	}{
		{"another stub", set(".sdmagic", "#### LoaderInfo: systemd-stub 256.7 ####"), "the stub is not systemd's of release 257"},
		{"a much later stub", set(".sdmagic", "#### LoaderInfo: systemd-stub 2570 ####"), "the stub is not systemd's of release 257"},
		{"no magic", rename(".sdmagic", ".magic"), "the stub is not systemd's of release 257"},
		{"a signature of PCRs", rename(".uname", ".pcrsig"), "the image has a section .pcrsig"},
		{"microcode", rename(".uname", ".ucode"), "the image has a section .ucode"},
		{"two of one", rename(".uname", ".osrel"), "the image has two sections .osrel"},
		{"no os-release", rename(".osrel", ".xyz"), "the image has no section .osrel"},
		{"no initrd", rename(".initrd", ".xyz"), "the image has no section .initrd"},
		{"no command line", rename(".cmdline", ".xyz"), "the image has no section .cmdline"},
		{"a newline", set(".cmdline", "quiet\n"), "the image's command line is empty, ends with a space, or is not all printable"},
		{"a trailing space", set(".cmdline", "quiet "), "ends with a space"},
		{"an empty one", set(".cmdline", ""), "the image's command line is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := measure(t, launch.TDX{Firmware: parse(t, tdvftest.Small()), Kernel: unifiedOf(c.change(labsParts(tdvftest.Kernel())))})
			if value(m, "rtmr1") == "" || value(m, "rtmr2") != "" || !strings.Contains(why(m, "rtmr2"), c.want) {
				t.Errorf("rtmr1 %q, rtmr2 %q, for %q, want %q", value(m, "rtmr1"), value(m, "rtmr2"), why(m, "rtmr2"), c.want)
			}
		})
	}
	m := measure(t, launch.TDX{Firmware: parse(t, tdvftest.Small()), Kernel: unified(tdvftest.Kernel()), CommandLine: "quiet"})
	if !strings.Contains(why(m, "rtmr2"), "QEMU hands over an initrd or a command line") {
		t.Errorf("a command line of QEMU's: %q", why(m, "rtmr2"))
	}
	broken := tdvftest.Kernel()
	broken[0] = 0
	if _, err := (launch.TDX{Firmware: parse(t, tdvftest.Small()), Kernel: unified(broken)}).Measure(); err == nil || !strings.Contains(err.Error(), "kernel: section .linux at offset 0x3c10: offset 0: no PE image") {
		t.Errorf("nothing inside: %v", err)
	}
}
