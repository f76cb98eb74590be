//go:build linux

package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// OwnType begins the type of an own event's entry in the journal.
const OwnType = "own:"

// OwnEvent is a measurement of the boot by the helper, where no firmware has left a
// log: docs/own-events.md. Each bank is extended with the hash of Data.
type OwnEvent struct {
	Type string // OwnType and what it is of
	// PCR is one that the UEFI rule has for RTMR2 (rtmr.PCR.CC): a TD's MRTD
	// cannot be extended, and RTMR0 and 1 are the firmware's.
	PCR  rtmr.PCR
	Data []byte
}

// own are the events, each by what it reads below the root.
var own = []struct {
	kind string
	pcr  rtmr.PCR // by systemd-stub's use: 11 the kernel, 12 its command line; by Linux's EFI stub: 9 the initrd
	data func(root) ([]byte, error)
}{
	{"kernel", 11, root.kernel},
	{"cmdline", 12, root.commandLine},
	{"initrd", 9, root.initrd},
	{"machine", 15, root.machine},
}

// OwnEvents makes the events of the system below a root folder, "/" or a test's. What
// is not there is left out; what is there and cannot be read is an error, for
// nobody could tell later which of both it was.
func OwnEvents(folder string) (events []OwnEvent, err error) {
	for _, o := range own {
		data, err := o.data(root(folder))
		if err != nil {
			return nil, fmt.Errorf("own event %s: %w", o.kind, err)
		}
		if data != nil {
			events = append(events, OwnEvent{OwnType + o.kind, o.pcr, data})
		}
	}
	return events, nil
}

// root is the folder below which a system's files are.
type root string

// file reads a file; nil where there is none.
func (r root) file(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(string(r), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && data == nil {
		data = []byte{}
	}
	return data, err
}

// line reads a file of one line, without its end.
func (r root) line(name string) (string, error) {
	data, err := r.file(name)
	return rtmr.Escape(strings.TrimRight(string(data), "\n\x00")), err
}

// kernel is the release, the version and the build ID.
func (r root) kernel() ([]byte, error) {
	var k struct {
		Release string   `json:"release"`
		Version string   `json:"version"`
		BuildID rtmr.Hex `json:"build_id,omitempty"`
	}
	var errs [3]error
	k.Release, errs[0] = r.line("proc/sys/kernel/osrelease")
	k.Version, errs[1] = r.line("proc/version")
	notes, err := r.file("sys/kernel/notes")
	k.BuildID, errs[2] = buildID(notes), err
	if err := errors.Join(errs[:]...); err != nil || k.Release == "" {
		return nil, err
	}
	return json.Marshal(k)
}

// noteBuildID is NT_GNU_BUILD_ID (include/uapi/linux/elf.h).
const noteBuildID = 3

// buildID returns the GNU build ID among ELF notes in this machine's byte order, each
// u32 name size, u32 data size, u32 type, name and data, both padded to 4 bytes (ELF
// gABI, Note Section); nil if there is none.
func buildID(notes []byte) []byte {
	for len(notes) >= 12 {
		name := uint64(binary.NativeEndian.Uint32(notes))
		size := uint64(binary.NativeEndian.Uint32(notes[4:]))
		kind := binary.NativeEndian.Uint32(notes[8:])
		data := 12 + (name+3)&^3
		next := data + (size+3)&^3
		if data+size > uint64(len(notes)) {
			return nil
		}
		if kind == noteBuildID && string(notes[12:12+name]) == "GNU\x00" {
			return notes[data : data+size]
		}
		notes = notes[min(next, uint64(len(notes))):]
	}
	return nil
}

// commandLine is /proc/cmdline, byte for byte.
func (r root) commandLine() ([]byte, error) { return r.file("proc/cmdline") }

// initrd is what there is to know of the initrd that the boot loader gave.
type initrd struct {
	From    string                `json:"from"` // the file that tells
	Size    uint64                `json:"size"`
	Digests map[rtmr.Alg]rtmr.Hex `json:"digests,omitempty"` // of the content, where the kernel has kept it
	Note    string                `json:"note,omitempty"`
}

// notKept says why an initrd's content is not measured.
const notKept = "the kernel has not kept the content, of which nothing is measured (retain_initrd)"

// initrd is the initrd's content, where the kernel has kept it (retain_initrd;
// Documentation/ABI/testing/sysfs-firmware-initrd, of December 2023), and else its size, where somebody told the kernel of it.
func (r root) initrd() ([]byte, error) {
	for _, look := range []func() (*initrd, error){r.keptInitrd, r.bootParams, r.chosen} {
		if found, err := look(); err != nil {
			return nil, err
		} else if found != nil {
			return json.Marshal(found)
		}
	}
	return nil, nil
}

func (r root) keptInitrd() (*initrd, error) {
	const name = "sys/firmware/initrd"
	file, err := os.Open(filepath.Join(string(r), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sha256, sha384 := rtmr.SHA256.New(), rtmr.SHA384.New()
	n, err := io.Copy(io.MultiWriter(sha256, sha384), file)
	return &initrd{From: "/" + name, Size: uint64(n), Digests: map[rtmr.Alg]rtmr.Hex{rtmr.SHA256: sha256.Sum(nil), rtmr.SHA384: sha384.Sum(nil)}}, err
}

// Offsets of the boot parameters of x86, little-endian u32 (Documentation/arch/x86/
// zero-page.rst, arch/x86/include/uapi/asm/bootparam.h): the size's two halves.
const (
	bootRamdiskSize    = 0x21C
	bootExtRamdiskSize = 0x0C4
)

func (r root) bootParams() (*initrd, error) {
	const name = "sys/kernel/boot_params/data"
	data, err := r.file(name)
	if err != nil || len(data) < bootRamdiskSize+4 {
		return nil, err
	}
	low, high := binary.LittleEndian.Uint32(data[bootRamdiskSize:]), binary.LittleEndian.Uint32(data[bootExtRamdiskSize:])
	return sized(name, uint64(high)<<32|uint64(low)), nil
}

// chosen is the device tree's (Documentation/devicetree/bindings, chosen): big-endian,
// of one or two cells each.
func (r root) chosen() (*initrd, error) {
	const name = "proc/device-tree/chosen/linux,initrd-"
	start, err := r.file(name + "start")
	if err != nil || start == nil {
		return nil, err
	}
	end, err := r.file(name + "end")
	if err != nil {
		return nil, err
	}
	from, ok := cells(start)
	to, ok2 := cells(end)
	if !ok || !ok2 || to < from {
		return nil, fmt.Errorf("%sstart and end: %x and %x, expected one or two cells each", name, start, end)
	}
	return sized(name+"end", to-from), nil
}

func cells(b []byte) (n uint64, ok bool) {
	switch len(b) {
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), true
	case 8:
		return binary.BigEndian.Uint64(b), true
	}
	return 0, false
}

func sized(name string, size uint64) *initrd {
	found := &initrd{From: "/" + name, Size: size}
	if size > 0 {
		found.Note = notKept
	}
	return found
}

// machineFiles are those of one line that say what machine this is, and the same for
// all of a kind: no serial numbers and no UUIDs.
var machineFiles = []string{
	"sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_family", "sys/class/dmi/id/product_name", "sys/class/dmi/id/product_version", "sys/class/dmi/id/product_sku",
	"sys/class/dmi/id/board_vendor", "sys/class/dmi/id/board_name", "sys/class/dmi/id/board_version",
	"sys/class/dmi/id/bios_vendor", "sys/class/dmi/id/bios_version", "sys/class/dmi/id/bios_date", "sys/class/dmi/id/bios_release",
	"sys/hypervisor/type", "sys/kernel/security/lockdown",
	"sys/firmware/ipl/ipl_type", "sys/firmware/ipl/loadparm", "sys/firmware/ipl/secure", "sys/firmware/ipl/has_secure",
	"sys/firmware/uv/prot_virt_guest", "sys/firmware/uv/prot_virt_host",
}

// machineBlobs are those of which a hash is told.
var machineBlobs = []string{"sys/firmware/fdt"}

// cpuWords are what of /proc/cpuinfo is told, as x86, arm64 and s390 have it.
var cpuWords = []string{"vendor_id", "cpu family", "model", "model name", "stepping", "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"}

// machine is a JSON object of files' names and what is in them.
func (r root) machine() ([]byte, error) {
	facts := make(map[string]string)
	for _, name := range machineFiles {
		data, err := r.file(name)
		if err != nil {
			return nil, err
		}
		if data != nil {
			facts["/"+name] = rtmr.Escape(strings.TrimRight(string(data), "\n"))
		}
	}
	for _, name := range machineBlobs {
		data, err := r.file(name)
		if err != nil {
			return nil, err
		}
		if data != nil {
			facts["/"+name] = "sha384:" + hex.EncodeToString(rtmr.SHA384.AppendHash(nil, data))
		}
	}
	info, err := r.file("proc/cpuinfo")
	if err != nil {
		return nil, err
	}
	for word, value := range cpu(info) {
		facts["/proc/cpuinfo: "+word] = rtmr.Escape(value)
	}
	if len(facts) == 0 {
		return nil, nil
	}
	return json.Marshal(facts)
}

// cpu returns the words of the first processor.
func cpu(info []byte) map[string]string {
	words := make(map[string]string)
	for line := range bytes.Lines(info) {
		name, value, _ := strings.Cut(string(line), ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		for _, word := range cpuWords {
			if _, first := words[word]; name == word && !first {
				words[word] = value
			}
		}
		if name == "flags" { // of x86
			for _, flag := range strings.Fields(value) {
				if flag == "hypervisor" {
					words["flag hypervisor"] = "set"
				}
			}
		}
	}
	return words
}

// ownEnd is the type of the event behind the others, which names them: what a helper of
// another version would measure, or what is another value by now, is not measured in
// this boot.
const ownEnd = OwnType + "end"

// endPCR is where the others' end is.
const endPCR = 15

// measureOwn extends the own events, but for those that a helper of another version
// extended that died among them.
func (h *Helper) measureOwn(ctx context.Context, p *past) error {
	if p.ownDone {
		return nil
	}
	types := slices.Sorted(maps.Keys(p.own))
	var batch []rtmr.Measurement
	for _, event := range h.cfg.Own {
		if m := h.ownMeasurement(event); !p.own[event.Type] && !m.NoAction {
			batch = append(batch, m)
			types = append(types, event.Type)
		}
	}
	if len(types) == 0 {
		return nil
	}
	data, err := json.Marshal(types)
	if err != nil {
		return err
	}
	end := h.ownMeasurement(OwnEvent{ownEnd, endPCR, data})
	h.cfg.Log.Info("own events", "events", types)
	return h.extendBoot(ctx, append(batch, end))
}

// ownMeasurement returns the event as a measurement, with a digest for each bank.
func (h *Helper) ownMeasurement(event OwnEvent) rtmr.Measurement {
	m := rtmr.Measurement{Entry: appEntry{event.Type, event.Data}}
	m.Register, _ = event.PCR.Register()
	if _, ok := h.description(m.Register); !ok {
		m.Register, _ = event.PCR.CC()
	}
	info, ok := h.description(m.Register)
	if !ok || !info.Writable {
		return rtmr.Measurement{NoAction: true}
	}
	for _, a := range info.Banks {
		if a.Available() {
			m.Digests = append(m.Digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, event.Data)})
		}
	}
	return m
}
