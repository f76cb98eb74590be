//go:build linux

package guest_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/eventlog/cel"
	"tallystick/guest"
	"tallystick/rtmr"
)

// system is a root folder with a system's files.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// note is an ELF note of this machine's.
func note(name string, kind uint32, data string) string {
	pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
	b := binary.NativeEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.NativeEndian.AppendUint32(b, uint32(len(data)))
	b = binary.NativeEndian.AppendUint32(b, kind)
	return string(b) + pad(name) + pad(data)
}

// bootParams is an x86 kernel's, of an initrd's size.
func bootParams(size uint64) string {
	b := make([]byte, 4096)
	binary.LittleEndian.PutUint32(b[0x21C:], uint32(size))
	binary.LittleEndian.PutUint32(b[0xC4:], uint32(size>>32))
	return string(b)
}

const x86CPU = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags\t\t: fpu vme hypervisor\n\n" +
	"processor\t: 1\nvendor_id\t: Another\n"

func ownEvents(t *testing.T, root string) map[string]guest.OwnEvent {
	t.Helper()
	events := make(map[string]guest.OwnEvent)
	for _, e := range must(guest.OwnEvents(root))(t) {
		events[e.Type] = e
	}
	return events
}

// What is measured, of systems of several kinds.
func TestOwnEvents(t *testing.T) {
	content := strings.Repeat("initrd", 1000)
	sum256, sum384 := sha256.Sum256([]byte(content)), sha512.Sum384([]byte(content))
	const notKept = `"note":"the kernel has not kept the content, of which nothing is measured (retain_initrd)"}`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  map[string]string // by type
	}{
		{"x86", map[string]string{
			"proc/sys/kernel/osrelease": "6.12.1\n", "proc/version": "Linux version 6.12.1 (builder)\n", "proc/cmdline": "root=/dev/vda quiet \xff\n",
			"sys/kernel/notes":            note("Linux", 0x100, "x") + note("GNU\x00", 3, "\x01\x02\x03\x04\x05"),
			"sys/kernel/boot_params/data": bootParams(5<<32 + 7), "proc/cpuinfo": x86CPU,
			"sys/class/dmi/id/sys_vendor": "QEMU\n", "sys/class/dmi/id/product_serial": "secret\n", "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
		}, map[string]string{
			"own:kernel":  `{"release":"6.12.1","version":"Linux version 6.12.1 (builder)","build_id":"0102030405"}`,
			"own:cmdline": "root=/dev/vda quiet \xff\n",
			"own:initrd":  `{"from":"/sys/kernel/boot_params/data","size":21474836487,` + notKept,
			"own:machine": `{"/proc/cpuinfo: flag hypervisor":"set","/proc/cpuinfo: model":"17","/proc/cpuinfo: model name":"AMD EPYC","/proc/cpuinfo: vendor_id":"AuthenticAMD",` +
				`"/sys/class/dmi/id/sys_vendor":"QEMU","/sys/kernel/security/lockdown":"none [integrity] confidentiality"}`,
		}},
		{"the initrd was kept", map[string]string{"sys/firmware/initrd": content, "sys/kernel/boot_params/data": bootParams(1)}, map[string]string{
			"own:initrd": `{"from":"/sys/firmware/initrd","size":6000,"digests":{"sha256":"` + hex.EncodeToString(sum256[:]) + `","sha384":"` + hex.EncodeToString(sum384[:]) + `"}}`,
		}},
		{"there was no initrd", map[string]string{"sys/kernel/boot_params/data": bootParams(0)}, map[string]string{
			"own:initrd": `{"from":"/sys/kernel/boot_params/data","size":0}`,
		}},
		{"device tree", map[string]string{
			"proc/device-tree/chosen/linux,initrd-start": "\x00\x00\x00\x00\x48\x00\x00\x00", "proc/device-tree/chosen/linux,initrd-end": "\x48\x00\x10\x00",
			"sys/firmware/fdt": "a tree", "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n",
		}, map[string]string{
			"own:initrd":  `{"from":"/proc/device-tree/chosen/linux,initrd-end","size":4096,` + notKept,
			"own:machine": `{"/proc/cpuinfo: CPU implementer":"0x41","/proc/cpuinfo: CPU part":"0xd0c","/sys/firmware/fdt":"sha384:` + sha384Of("a tree") + `"}`,
		}},
		{"s390", map[string]string{"sys/firmware/uv/prot_virt_guest": "1\n", "sys/firmware/ipl/secure": "1\n", "sys/firmware/ipl/loadparm": "        \n"}, map[string]string{
			"own:machine": `{"/sys/firmware/ipl/loadparm":"        ","/sys/firmware/ipl/secure":"1","/sys/firmware/uv/prot_virt_guest":"1"}`,
		}},
		{"nothing", nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			events := ownEvents(t, system(t, c.files))
			for kind, want := range c.want {
				if got := string(events[kind].Data); got != want {
					t.Errorf("%s\n got %q\nwant %q", kind, got, want)
				}
			}
			if len(events) != len(c.want) {
				t.Errorf("%d events, want %d", len(events), len(c.want))
			}
		})
	}
}

func sha384Of(s string) string {
	sum := sha512.Sum384([]byte(s))
	return hex.EncodeToString(sum[:])
}

// This machine's own: what there is, is what the kernel says.
func TestOwnEventsHere(t *testing.T) {
	events := ownEvents(t, "/")
	var kernel struct{ Release string }
	if err := json.Unmarshal(events["own:kernel"].Data, &kernel); err != nil || kernel.Release+"\n" != string(must(os.ReadFile("/proc/sys/kernel/osrelease"))(t)) {
		t.Errorf("%v: %s", err, events["own:kernel"].Data)
	}
	if got, want := events["own:cmdline"].Data, must(os.ReadFile("/proc/cmdline"))(t); !bytes.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Every register that own events go to is one that a TD has and may extend.
func TestOwnEventsInTD(t *testing.T) {
	root := system(t, map[string]string{"proc/sys/kernel/osrelease": "1", "proc/cmdline": "c", "sys/firmware/initrd": "i", "proc/cpuinfo": x86CPU})
	d := td()
	cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir(), Own: must(guest.OwnEvents(root))(t)}
	run(t, cfg, func(*guest.Helper) bool { return true }).Close()
	want := make([]byte, 48)
	end := guest.OwnEvent{Data: []byte(`["own:kernel","own:cmdline","own:initrd","own:machine"]`)}
	for _, e := range append(slices.Clone(cfg.Own), end) {
		sum := sha512.Sum384(e.Data)
		next := sha512.Sum384(append(want, sum[:]...))
		want = next[:]
	}
	if got := must(d.Read(ctx))(t)[rtmr.SHA384][rtmr2]; len(cfg.Own) != 4 || !bytes.Equal(got, want) {
		t.Errorf("rtmr2 is %s after %d events, want %x", got, len(cfg.Own), want)
	}
}

// Own events are extended once in a boot, and as they were first: over restarts, by a
// helper that would measure more or finds other values, and where helpers die at any
// of them.
func TestOwnOnce(t *testing.T) {
	first := []guest.OwnEvent{{Type: "own:a", PCR: 9, Data: []byte("a")}, {Type: "own:b", PCR: 11, Data: []byte("b")}, {Type: "own:c", PCR: 11, Data: []byte("c")}}
	newer := append([]guest.OwnEvent{{Type: "own:z", PCR: 11, Data: []byte("z")}, {Type: "own:a", PCR: 9, Data: []byte("another")}}, first[1:]...)
	died := errors.New("died")
	for dies := range 7 { // before and after each extend, and not
		d := &device{Memory: pcrs(banks...)}
		extends := 0
		d.before = func() error {
			if extends == dies/2 && dies%2 == 0 {
				panic(died)
			}
			return nil
		}
		d.after = func() error {
			if extends++; extends == (dies+1)/2 && dies%2 == 1 {
				panic(died)
			}
			return nil
		}
		cfg := guest.Config{Device: d, Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir(), Own: first}
		start := func() {
			defer func() {
				if r := recover(); r != nil && r != died {
					panic(r)
				}
			}()
			h, err := guest.New(ctx, cfg)
			if err != nil {
				t.Fatal(err)
			}
			h.Close()
		}
		start()
		d.before, d.after = nil, nil
		start()
		cfg.Own = newer
		start()
		if texts := check(t, d, cfg.Journal); !slices.Equal(texts, []string{"a", "b", "c", `["own:a","own:b","own:c"]`}) {
			t.Errorf("died at %d: %q", dies, texts)
		}
	}
}

// The journal's entries of own events show what was measured, and prove their digests.
func TestOwnShown(t *testing.T) {
	cfg := guest.Config{Device: pcrs(banks...), Journal: filepath.Join(t.TempDir(), "journal.cel"), IMADir: t.TempDir(),
		Own: []guest.OwnEvent{{Type: "own:cmdline", PCR: 12, Data: []byte("root=/dev/vda\n")}}}
	must(guest.New(ctx, cfg))(t).Close()
	shown := 0
	for m, err := range cel.NewReader(bytes.NewReader(must(os.ReadFile(cfg.Journal))(t)), cel.TLV).Measurements() {
		if err != nil {
			t.Fatal(err)
		}
		if m.NoAction {
			continue
		}
		if shown++; m.Entry.Type() == "own:end" {
			continue
		}
		if m.Register.String() != "pcr12" || m.Entry.Type() != "own:cmdline" || m.Entry.Detail() != `root=/dev/vda\n` {
			t.Errorf("%s %s %s", m.Register, m.Entry.Type(), m.Entry.Detail())
		}
		for _, d := range m.Digests {
			if c, _ := m.Entry.Verify(d); c != rtmr.Verified {
				t.Errorf("%s: %s", d, c)
			}
			d.Sum = bytes.Clone(d.Sum)
			d.Sum[0] ^= 1
			if c, _ := m.Entry.Verify(d); c != rtmr.Contradicts {
				t.Errorf("another digest: %s", c)
			}
		}
	}
	if shown != 2 {
		t.Errorf("%d entries", shown)
	}
}

// FuzzOwnEvents: notes and processors of any content are parsed, and stop nobody.
func FuzzOwnEvents(f *testing.F) {
	f.Add([]byte(note("GNU\x00", 3, "id")), []byte(x86CPU))
	f.Add([]byte(note("GNU\x00", 1, "id") + note("GNU\x00", 3, "id"))[:30], []byte(":\n"))
	f.Fuzz(func(t *testing.T, notes, cpu []byte) {
		if id := guest.BuildID(notes); len(id) > 0 && !bytes.Contains(notes, id) {
			t.Errorf("%x", id)
		}
		for word, value := range guest.CPU(cpu) {
			if value != "set" && !bytes.Contains(cpu, []byte(value)) {
				t.Errorf("%s: %q", word, value)
			}
		}
	})
}
