package launch_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"tallystick/eventlog"
	"tallystick/internal/tdvftest"
	"tallystick/quote/launch"
	"tallystick/rtmr"
)

func measure(t *testing.T, td launch.TDX) *launch.TDXMeasurement {
	t.Helper()
	m, err := td.Measure()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// value is a register's value, or "" where it is not predicted.
func value(m *launch.TDXMeasurement, register string) string {
	return m.Values[rtmr.SHA384][rtmr.MustParse(register)].String()
}

func initrd(t *testing.T, data []byte) *launch.Initrd {
	t.Helper()
	i, err := launch.ReadInitrd(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// digest is that of an event.
func digest(t *testing.T, m *launch.TDXMeasurement, name string) string {
	t.Helper()
	i := slices.IndexFunc(m.Events, func(e launch.TDXEvent) bool { return e.Name == name })
	if i < 0 {
		t.Fatalf("no event %q", name)
	}
	return m.Events[i].Digest.String()
}

func fromHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRealTDHOB: the list of memory is the one that real hosts made, by the digests
// in their TDs' logs. The sizes were searched for by another program.
func TestRealTDHOB(t *testing.T) {
	for _, c := range []struct {
		name  string
		image tdvftest.Image
		td    launch.TDX
		want  string
	}{
		// corpus tdx-live: a TD of 2 GiB.
		{"QEMU, 2 GiB", tdvftest.EDK2(), launch.TDX{Memory: 2 << 30}, "0e35f1b315ba6c912cf791e5c79dd9d3a2b8704516aa27d4e5aa78fb09ede04aef2bbd02ac7a8734c48562b9c26ba35d"},
		// corpus tdx-dstack: 64 GiB, split at 2 GiB.
		{"QEMU, 64 GiB", tdvftest.EDK2of2022(), launch.TDX{Memory: 64 << 30, Host: launch.TDXQEMU9}, "8ae1e425351df7992c444586eff99d35af3b779aa2b0e981cb4b73bc5b279f2ade19b6a62a203fc3c3bbdaae80af596d"},
		// corpus tdx-ccel-ima, of 2023.
		{"QEMU of 2023, 2 GiB", tdvftest.EDK2of2022(), launch.TDX{Memory: 2 << 30, Host: launch.TDXQEMU8}, "0b8772e5b0b41b83e6044a68397e02f49fb47066b4fbe4917ea2c45c64f323fdacbb37948f821ebaf8bc9c938ba8a749"},
		// go-eventlog's cos-113-intel-tdx.bin: a c3-standard-4.
		{"Google's, 16 GiB", tdvftest.Small(), launch.TDX{Memory: 16 << 30, Host: launch.TDXGCE, EarlyAccept: true}, "458994daa60deac8dea19dba79748f6ff93fd0aebb8e3e0be5a65eb12309d342c3ce31cc67af7bbd22af1a44e7d9fe21"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.td.Firmware = parse(t, c.image)
			if got := digest(t, measure(t, c.td), "TD_HOB"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestRealRTMR0: RTMR0 of two TDs, which quotes stand for whose signature chains to
// Intel (corpus tdx-live and tdx-dstack), follows from the image's variables and
// memory, the machine's memory, and the digests of the host's ACPI tables.
func TestRealRTMR0(t *testing.T) {
	for _, c := range []struct {
		name  string
		image tdvftest.Image
		td    launch.TDX
		acpi  [3]string // from the log
		want  string    // in the quote
	}{
		{"tdx-live", tdvftest.EDK2(), launch.TDX{Memory: 2 << 30}, [3]string{
			"210233f7b271f3f5abdacc6f048999fe670cc53c99afca2968c981c83b08fe08c32e9f065652ebea343eb98d6e0b4d32",
			"50848b7cce687ec58722dccf6e88c5c4e2728341df43b04bea0add9ec2a55a327350853414ba0811dc760350529f7d00",
			"c7e4949bafcabfe5fd2c8e7fbefe2c92ec80423ce80dda47334de58d38b007e823881729f1f29ad04c281976b4fc78ab",
		}, "5aca07b1e885e17d1aeaf9d94edb2674767a61547cf8a49f26b73b4a43baeb04d147ba1953310852bbdcb13f0cfcac17"},
		{"tdx-dstack", tdvftest.EDK2of2022(), launch.TDX{Memory: 64 << 30}, [3]string{
			"2065dd48d647e4377db277ba203526901a17845e93e0df4c2dfc3ce136e0910324ead1e1c86b8d90c2acdf9c85ffac53",
			"772b0169c66b52e4453fff9e3c6257635ea950ebcc8edd7ef2e2f8241cf6a155f39df01a7c7a194b6bc0abe5de11861d",
			"abfb2256644b5786eefdcb92303d2008c36cb9500d98997e215ef5080745d4bf2e5b3629090918e193e7f05b173d48c5",
		}, "2e3843265f8ecdd4e2282694747f6f2f111605c33f2a8882f5734ee6f3a6ce63d8f34aeef06093dcda76fa5f9d33d8d6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.td.Firmware, c.td.Kernel, c.td.CommandLine = parse(t, c.image), tdvftest.Kernel(), "quiet"
			for i, s := range c.acpi {
				c.td.Log.ACPI[i] = fromHex(t, s)
			}
			m := measure(t, c.td)
			if got := value(m, "rtmr0"); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, e := range m.Events {
				if want := strings.HasPrefix(e.Name, "etc/"); e.FromLog != want {
					t.Errorf("%s is from the log: %v", e.Name, e.FromLog)
				}
			}
		})
	}
}

// TestRealLog: ReadHostShare takes from a real log what RTMR0 needs, and no more.
func TestRealLog(t *testing.T) {
	share := hostShare(t, "tdx-live/tdx_ccel_live.bin")
	td := launch.TDX{Firmware: parse(t, tdvftest.EDK2()), Kernel: tdvftest.Kernel(), CommandLine: "quiet", Log: share}
	const want = "5aca07b1e885e17d1aeaf9d94edb2674767a61547cf8a49f26b73b4a43baeb04d147ba1953310852bbdcb13f0cfcac17"
	if got := value(measure(t, td), "rtmr0"); got != want {
		t.Errorf("memory by the log: %s, want %s", got, want)
	}
	td.Memory = 2 << 30
	m := measure(t, td)
	if got := value(m, "rtmr0"); got != want {
		t.Errorf("memory known: %s, want %s", got, want)
	}
	if m.Events[0].FromLog || m.Events[0].Other != nil {
		t.Errorf("the memory is known, and the log's is the same: %+v", m.Events[0])
	}
	td.Memory = 4 << 30
	m = measure(t, td)
	if value(m, "rtmr0") == want || !bytes.Equal(m.Events[0].Other, share.TDHOB) {
		t.Errorf("the log has another memory: %+v", m.Events[0])
	}
}

func hostShare(t *testing.T, file string) launch.HostShare {
	t.Helper()
	data, err := os.ReadFile("../../../shared/corpus/" + file)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("../shared/corpus is not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := eventlog.NewReader(bytes.NewReader(data), eventlog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	share, err := launch.ReadHostShare(r.Measurements())
	if err != nil {
		t.Fatal(err)
	}
	return share
}

// TestDirectBoot: RTMR1 and RTMR2 of the test's kernel are those of dstack-mr, which
// knows the hosts that write to the kernel's header. As to the kernel as it is, its
// digest is osslsigncode's, folded by hand.
func TestDirectBoot(t *testing.T) {
	td := launch.TDX{Firmware: parse(t, tdvftest.EDK2()), Kernel: tdvftest.Kernel(), Initrd: initrd(t, make([]byte, 12345)), CommandLine: "console=ttyS0 ro"}
	const rtmr2 = "3d8dd7da159c3d69307a295b05c38e1abfeecf44012c47bcc0adb52de0c4dfbf8459a0652cbf7dba0740325aaa257e52"
	for _, c := range []struct {
		host   launch.TDXHost
		memory uint64
		rtmr1  string
	}{
		{launch.TDXQEMU8, 1 << 30, "6162a2569644b3da859ddb5002359bf1d4d0f2622505481b9f2bf092a64e0c32a1ea8666f754ae588ab580315ce71b44"},
		{launch.TDXQEMU8, 2 << 30, "7d46b222285713785f2260092ebe2b8fa1895ba98b4c3e7f5708b85420ca0c627b3b64051d450586f904388d493b8c4b"},
		{launch.TDXQEMU9, 2815 << 20, "b8274d167e1fdfe14e0c5f8ad74dc4ea1c59c48762705c2238e4ddd6cd2263878236e2232db21cef1b8d9158cacef3f1"},
		{launch.TDXQEMU9, 4 << 30, "7d46b222285713785f2260092ebe2b8fa1895ba98b4c3e7f5708b85420ca0c627b3b64051d450586f904388d493b8c4b"},
	} {
		td.Host, td.Memory = c.host, c.memory
		m := measure(t, td)
		if got := value(m, "rtmr1"); got != c.rtmr1 {
			t.Errorf("%s, %d MiB: rtmr1 %s, want %s", c.host, c.memory>>20, got, c.rtmr1)
		}
		if got := value(m, "rtmr2"); got != rtmr2 {
			t.Errorf("%s: rtmr2 %s, want %s", c.host, got, rtmr2)
		}
	}
	// QEMU 10.1 has both, and it is the firmware that chooses.
	td.Host, td.Memory = launch.TDXQEMU101, 4<<30
	if got, want := value(measure(t, td), "rtmr1"), "7d46b222285713785f2260092ebe2b8fa1895ba98b4c3e7f5708b85420ca0c627b3b64051d450586f904388d493b8c4b"; got != want {
		t.Errorf("QEMU 10.1: rtmr1 %s, want %s", got, want)
	}
	td.EDK2 = 202505
	if got := digest(t, measure(t, td), "kernel"); got != stubDigest {
		t.Errorf("QEMU 10.1 and edk2 202505: kernel %s, want %s", got, stubDigest)
	}
	td.Host, td.Memory, td.EDK2 = launch.TDXQEMU, 0, 0
	m := measure(t, td)
	if got := digest(t, m, "kernel"); got != stubDigest {
		t.Errorf("kernel as it is: %s, want %s", got, stubDigest)
	}
	fold := make([]byte, 48)
	for _, s := range []string{
		stubDigest, // and then the digests in every log of the corpus
		"77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71",
		"394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
		"214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0",
		"0a2e01c85deae718a530ad8c6d20a84009babe6c8989269e950d8cf440c6e997695e64d455c4174a652cd080f6230b74",
	} {
		rtmr.SHA384.Extend(fold, fromHex(t, s))
	}
	if got := value(m, "rtmr1"); got != hex.EncodeToString(fold) {
		t.Errorf("kernel as it is: rtmr1 %s, want %x", got, fold)
	}
}

// TestRealDirectBoot: the kernel's digest after QEMU 7.2 wrote to its header, the
// command line's and the variables' are what firmware and kernel measured in a
// machine of the lab (fixtures/four-banks-6.12; its initrd was built anew from the
// sources of its commit, and has 2674760 bytes).
func TestRealDirectBoot(t *testing.T) {
	td := launch.TDX{Firmware: parse(t, tdvftest.EDK2of2022()), Host: launch.TDXQEMU8, EDK2: 202211, SecureBoot: launch.SecureBootOff,
		Memory: 1 << 30, Kernel: tdvftest.Kernel(), Initrd: initrd(t, make([]byte, 2674760)), CommandLine: "console=ttyS0 panic=-1"}
	m := measure(t, td)
	if got, want := digest(t, m, "command line"), logged(t, "four-banks-6.12", "EV_EVENT_TAG")[0]; got != want {
		t.Errorf("command line: %s, want %s", got, want)
	}
	for i, want := range logged(t, "four-banks-6.12", "EV_EFI_VARIABLE_DRIVER_CONFIG") {
		name := []string{"SecureBoot", "PK", "KEK", "db", "dbx"}[i]
		if got := digest(t, m, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for i, want := range logged(t, "four-banks-6.12", "EV_EFI_VARIABLE_BOOT") {
		name := []string{"BootOrder", "Boot0000"}[i]
		if got := digest(t, m, name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for _, path := range debianFiles(t, debianKernel) {
		kernel, sum := readDebian(t, path)
		if sum != measuredFiles[2] {
			t.Logf("%s: another kernel than the one that was measured", path)
			continue
		}
		td.Kernel = kernel
		want := logged(t, "four-banks-6.12", "EV_EFI_BOOT_SERVICES_APPLICATION")[0]
		if got := digest(t, measure(t, td), "kernel"); got != want {
			t.Errorf("kernel: %s, want %s", got, want)
		}
		t.Logf("%s compared", path)
	}
}

// TestRealSecureBoot: the variables of an image with keys in it are measured as
// firmware did with just those variables, where they are on this machine
// (fixtures/shim-grub-sb-6.12; OVMF_VARS_4M.ms.fd of ovmf 2022.11-6+deb12u2).
func TestRealSecureBoot(t *testing.T) {
	for _, path := range debianFiles(t, "usr/share/OVMF/OVMF_VARS_4M.ms.fd") {
		v := tdvftest.EDK2()
		var sum string
		if v.Volume, sum = readDebian(t, path); sum != "e6044c5d1fd81998a5967d907ec425e48da534832c7d9b0b4c7a702b62019c50" {
			t.Logf("%s: other variables than those that were measured", path)
			continue
		}
		m := measure(t, launch.TDX{Firmware: parse(t, v), Kernel: tdvftest.Kernel(), CommandLine: "quiet", Memory: 2 << 30})
		for i, want := range logged(t, "shim-grub-sb-6.12", "EV_EFI_VARIABLE_DRIVER_CONFIG") {
			name := []string{"SecureBoot", "PK", "KEK", "db", "dbx"}[i]
			if got := digest(t, m, name); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		if got := why(m, "rtmr0"); !strings.Contains(got, "with Secure Boot") {
			t.Errorf("rtmr0 is not predicted: %q", got)
		}
		t.Logf("%s compared", path)
	}
}

// why says why a register is not predicted.
func why(m *launch.TDXMeasurement, register string) string {
	for _, n := range m.NotPredicted {
		if n.Register.String() == register {
			return n.Why
		}
	}
	return ""
}

// whole is a TD of which all is known.
func whole(t *testing.T) launch.TDX {
	return launch.TDX{
		Firmware: parse(t, tdvftest.EDK2()), Memory: 2 << 30, Kernel: tdvftest.Kernel(), Initrd: initrd(t, []byte("initrd")), CommandLine: "quiet",
		ACPI: [3][]byte{[]byte("loader"), []byte("rsdp"), []byte("tables")},
	}
}

// TestTDXCovers: each part moves its registers, and no other.
func TestTDXCovers(t *testing.T) {
	was := measure(t, whole(t))
	for _, c := range []struct {
		name   string
		change func(*launch.TDX)
		moved  []string
	}{
		{"code", func(td *launch.TDX) { td.Firmware.Image[tdvftest.CFV4M+5] ^= 1 }, []string{"mrtd"}},
		{"variables' volume", func(td *launch.TDX) { td.Firmware.Image[tdvftest.CFV4M-1] ^= 1 }, []string{"rtmr0"}},
		{"memory", func(td *launch.TDX) { td.Memory += 1 << 20 }, []string{"rtmr0"}},
		{"ACPI loader", func(td *launch.TDX) { td.ACPI[0] = []byte("other") }, []string{"rtmr0"}},
		{"ACPI RSDP", func(td *launch.TDX) { td.ACPI[1] = []byte("other") }, []string{"rtmr0"}},
		{"ACPI tables", func(td *launch.TDX) { td.ACPI[2] = []byte("other") }, []string{"rtmr0"}},
		{"SecureBoot", func(td *launch.TDX) { td.SecureBoot = launch.SecureBootOff }, []string{"rtmr0"}},
		{"kernel", func(td *launch.TDX) { td.Kernel[0x1800] ^= 1 }, []string{"rtmr1"}},
		{"initrd", func(td *launch.TDX) { td.Initrd = initrd(t, []byte("initrD")) }, []string{"rtmr2"}},
		{"no initrd", func(td *launch.TDX) { td.Initrd = nil }, []string{"rtmr2"}},
		{"command line", func(td *launch.TDX) { td.CommandLine = "quiet debug" }, []string{"rtmr2"}},
		{"QEMU 9", func(td *launch.TDX) { td.Host = launch.TDXQEMU9 }, []string{"rtmr1"}},
		{"QEMU 8", func(td *launch.TDX) { td.Host = launch.TDXQEMU8 }, []string{"mrtd", "rtmr1"}},
		{"the boot variables", func(td *launch.TDX) { td.EDK2 = 202211 }, []string{"rtmr0", "rtmr1"}},
		{"the second separator", func(td *launch.TDX) { td.EDK2 = 202405 }, []string{"rtmr0", "rtmr1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			td := whole(t)
			c.change(&td)
			m := measure(t, td)
			for _, register := range []string{"mrtd", "rtmr0", "rtmr1", "rtmr2"} {
				got, want := value(m, register), value(was, register)
				if want == "" || got == "" {
					t.Fatalf("%s is not predicted: %s", register, why(m, register))
				}
				if moved := slices.Contains(c.moved, register); (got != want) != moved {
					t.Errorf("%s: moved is %v, want %v", register, got != want, moved)
				}
			}
		})
	}
}

// TestHeader: what QEMU 9 writes to a kernel's header follows from the command line
// and the initrd too, as far as it looks at them.
func TestHeader(t *testing.T) {
	td := whole(t)
	td.Host = launch.TDXQEMU9
	was := digest(t, measure(t, td), "kernel")
	for commandLine, moves := range map[string]bool{"quiet debug": false, "vga=normal": true, "vga=ask": true, "vga=ext": true, "x vga=0x317 y": true, "vga=791": true} {
		td.CommandLine = commandLine
		if got := digest(t, measure(t, td), "kernel"); (got != was) != moves {
			t.Errorf("%q: moved is %v, want %v", commandLine, got != was, moves)
		}
	}
	td.CommandLine = "vga=large"
	if _, err := td.Measure(); err == nil || !strings.Contains(err.Error(), "vga= in the command line") {
		t.Errorf("vga=large: %v", err)
	}
	td.CommandLine, td.Initrd = "quiet", initrd(t, make([]byte, 4097))
	if digest(t, measure(t, td), "kernel") == was {
		t.Error("a longer initrd leaves the kernel as it is")
	}
}

// TestNotPredicted: what is not known leaves a register out, and says so.
func TestNotPredicted(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*launch.TDX)
		register string
		want     string
	}{
		{"a disk", func(td *launch.TDX) { td.Kernel, td.Initrd, td.CommandLine = nil, nil, "" }, "rtmr1", "boots from a disk"},
		{"a disk that is known", func(td *launch.TDX) { *td = fromDisk(t) }, "rtmr2", "by a loader, which measures what it does"},
		{"a disk, and old firmware", func(td *launch.TDX) { *td = fromDisk(t); td.EDK2 = 202211 }, "rtmr1", "before edk2 202302 measures the boot variables"},
		{"no memory", func(td *launch.TDX) { td.Memory = 0 }, "rtmr0", "TD_HOB is not known: the machine's memory"},
		{"no memory, and QEMU writes the initrd's place", func(td *launch.TDX) { td.Memory, td.Host = 0, launch.TDXQEMU8 }, "rtmr1", "kernel is not known: QEMU writes the initrd's place"},
		{"no tables", func(td *launch.TDX) { td.ACPI[1] = nil }, "rtmr0", "etc/acpi/rsdp is not known"},
		{"two CFV", func(td *launch.TDX) { td.Firmware.Sections[0].Type = launch.TDVFCFV }, "rtmr0", "CFV is not known: the image has 2 CFV sections"},
		{"no variable store", func(td *launch.TDX) { td.Firmware.Image[0x48] ^= 1 }, "rtmr0", "SecureBoot and its keys is not known: the image's CFV: no variable store: offset 0x48"},
		{"later firmware", func(td *launch.TDX) { td.EDK2 = 202505 }, "rtmr0", "edk2 202505 and later measures"},
		{"Secure Boot", func(td *launch.TDX) { td.SecureBoot = launch.SecureBootOn }, "rtmr0", "with Secure Boot"},
		{"no command line", func(td *launch.TDX) { td.Initrd, td.CommandLine = nil, "" }, "rtmr2", "command line is not known"},
		{"all sections without memory", func(td *launch.TDX) {
			td.Kernel, td.Initrd, td.CommandLine, td.Memory, td.Host = nil, nil, "", 0, launch.TDXGCEAll
		}, "mrtd", "the memory's size is needed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			td := whole(t)
			c.change(&td)
			m := measure(t, td)
			if got := value(m, c.register); got != "" {
				t.Errorf("%s is predicted: %s", c.register, got)
			}
			if got := why(m, c.register); !strings.Contains(got, c.want) {
				t.Errorf("%s is not predicted: %q, want %q", c.register, got, c.want)
			}
		})
	}
}

func putU32(b []byte, n int) {
	for i := range 4 {
		b[i] = byte(n >> (8 * i))
	}
}

// fromDisk is a TD that boots from a disk of the lab's.
func fromDisk(t *testing.T) launch.TDX {
	return launch.TDX{Firmware: parse(t, tdvftest.EDK2()), Host: launch.TDXGCE, Disk: diskOf(t, "uki-7.3", 512), Loaded: [][]byte{tdvftest.Kernel(), unified(tdvftest.Kernel())}}
}

// TestDisk: RTMR1 of a TD that boots from a disk is folded from the digests of the
// table, which a fixture's log has, and of the images.
func TestDisk(t *testing.T) {
	td := fromDisk(t)
	m := measure(t, td)
	fold := make([]byte, 48)
	for _, s := range []string{
		"77a0dab2312b4e1e57a84d865a21e5b2ee8d677a21012ada819d0a98988078d3d740f6346bfe0abaa938ca20439a8d71",
		"394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0",
		logged(t, "uki-7.3", "EV_EFI_GPT_EVENT")[0],
		stubDigest,
		authenticode(t, unified(tdvftest.Kernel())),
		stubDigest, // of the kernel inside
		"214b0bef1379756011344877743fdc2a5382bac6e70362d624ccf3f654407c1b4badf7d8f9295dd3dabdef65b27677e0",
		"0a2e01c85deae718a530ad8c6d20a84009babe6c8989269e950d8cf440c6e997695e64d455c4174a652cd080f6230b74",
	} {
		rtmr.SHA384.Extend(fold, fromHex(t, s))
	}
	if got := value(m, "rtmr1"); got != hex.EncodeToString(fold) {
		t.Errorf("got  %s\nwant %x", got, fold)
	}
	for name, change := range map[string]func(){
		"other images":      func() { td.Loaded = td.Loaded[:1] },
		"in another order":  func() { td.Loaded[0], td.Loaded[1] = td.Loaded[1], td.Loaded[0] },
		"another separator": func() { td.EDK2 = 202405 },
		"another disk":      func() { td.Disk = diskOf(t, "uki-ovmf2025-7.3", 512) },
	} {
		td = fromDisk(t)
		change()
		if got := value(measure(t, td), "rtmr1"); got == hex.EncodeToString(fold) || got == "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestNoTD: what no host launches is an error.
func TestNoTD(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*launch.TDX)
		want   string
	}{
		{"host", func(td *launch.TDX) { td.Host = "xen" }, `host "xen", expected one of`},
		{"Google's with a kernel", func(td *launch.TDX) { td.Host = launch.TDXGCE }, "gce boots from disks alone"},
		{"an initrd alone", func(td *launch.TDX) { td.Kernel = nil }, "no kernel that QEMU would hand over with it"},
		{"a disk and a kernel", func(td *launch.TDX) { td.Disk, td.Loaded = []byte{1}, [][]byte{tdvftest.Kernel()} }, "a TD boots the one or the other"},
		{"a disk alone", func(td *launch.TDX) { *td = fromDisk(t); td.Loaded = nil }, "both are measured"},
		{"a loader alone", func(td *launch.TDX) { *td = fromDisk(t); td.Disk = nil }, "both are measured"},
		{"a disk without a table", func(td *launch.TDX) { *td = fromDisk(t); td.Disk[512] = 0 }, "disk: no GPT"},
		{"a loader that is none", func(td *launch.TDX) { *td = fromDisk(t); td.Loaded[1] = []byte("GRUB") }, "loaded image 2: offset 0: no PE image"},
		{"a zero byte", func(td *launch.TDX) { td.CommandLine = "quiet\x00" }, "the command line has a zero byte"},
		{"no PE", func(td *launch.TDX) { td.Kernel = []byte("kernel") }, "kernel: offset 0: no PE image"},
		{"too little memory", func(td *launch.TDX) { td.Memory = 8 << 20 }, "is not in the machine's low 0x800000 bytes"},
		{"an odd machine of Google's", func(td *launch.TDX) {
			td.Host, td.Kernel, td.Initrd, td.CommandLine, td.Memory = launch.TDXGCE, nil, nil, "", 17<<30
		}, "expected 16, 32, 88, 176, 352 or 704 GiB"},
		{"a section that QEMU refuses", func(td *launch.TDX) { td.Firmware.Sections[5].Type = launch.TDVFPermMem }, "section 5 (PermMem): qemu launches no image that has one"},
		{"no TD_HOB", func(td *launch.TDX) { td.Firmware.Sections[4].Type = launch.TDVFTempMem }, "the image has no TD_HOB section"},
		{"an initrd too large", func(td *launch.TDX) {
			td.Host, td.Memory, td.Initrd = launch.TDXQEMU9, 16<<20, initrd(t, make([]byte, 16<<20))
		}, "the initrd has 16777216 bytes, and QEMU puts it below 0xfd7fff"},
		{"an old kernel", func(td *launch.TDX) { td.Host = launch.TDXQEMU9; td.Kernel[0x207] = 1 }, "boot protocol 1.15"},
		{"a kernel cut off", func(td *launch.TDX) { td.Host = launch.TDXQEMU9; td.Kernel[0x1f1] = 0x40 }, "setup_sects 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			td := whole(t)
			c.change(&td)
			_, err := td.Measure()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err == nil {
				return
			}
			var part *launch.PartError
			if before, _, named := strings.Cut(err.Error(), ": "); errors.As(err, &part) != named || part != nil && part.Part != before {
				t.Errorf("the part is %v, want %q", part, before)
			}
		})
	}
}

// TestReadInitrd: an empty initrd is none, and an error of the reader is passed on.
func TestReadInitrd(t *testing.T) {
	if _, err := launch.ReadInitrd(bytes.NewReader(nil)); err == nil || err.Error() != "the initrd is empty" {
		t.Errorf("empty: %v", err)
	}
	broken := errors.New("broken")
	if _, err := launch.ReadInitrd(io.MultiReader(strings.NewReader("x"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
	}
}

// FuzzKernel: a kernel of any form is measured, or the error says what is wrong.
func FuzzKernel(f *testing.F) {
	f.Add(tdvftest.Kernel(), "quiet vga=791", uint32(100))
	f.Add(unified(tdvftest.Kernel()), "", uint32(0))
	v := tdvftest.Image{Size: 0x8000, Volume: tdvftest.Pristine(tdvftest.CFV2M)[:0x4000], Sections: tdvftest.Small().Sections}
	v.Sections = slices.Clone(v.Sections)
	v.Sections[0].DataOffset, v.Sections[0].RawDataSize, v.Sections[0].MemoryDataSize = 0x7000, 0x1000, 0x1000
	v.Sections[1].RawDataSize, v.Sections[1].MemoryDataSize = 0x4000, 0x4000
	putU32(v.Volume[72+16:], 0x3000)
	firmware, err := launch.ParseTDVF(v.Bytes())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kernel []byte, commandLine string, size uint32) {
		for _, host := range []launch.TDXHost{launch.TDXQEMU, launch.TDXQEMU8} {
			td := launch.TDX{Firmware: firmware, Host: host, Kernel: kernel, CommandLine: commandLine, Memory: 1 << 30}
			if size > 0 {
				td.Initrd = &launch.Initrd{Size: int64(size), Digest: make([]byte, 48)}
			}
			if m, err := td.Measure(); err == nil && value(m, "mrtd") == "" {
				t.Errorf("%s: no MRTD", host)
			}
		}
	})
}
