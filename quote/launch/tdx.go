package launch

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// TDXHost is a VMM that launches TDs. They differ in the order of MRTD, in the list
// of memory that they hand over, and in what they make of a kernel.
type TDXHost string

// The hosts.
const (
	// TDXQEMU is QEMU from 10.2 with Linux from 6.16: page by page, the kernel as it is.
	TDXQEMU TDXHost = "qemu"
	// TDXQEMU101 is QEMU 10.1: the same, but it writes to the kernel's setup header. It
	// has the kernel as it is too, which edk2 from 202505 takes.
	TDXQEMU101 TDXHost = "qemu-10.1"
	// TDXQEMU9 is QEMU 9 as distributions patched it for TDX: page by page, the kernel
	// with its setup header written to.
	TDXQEMU9 TDXHost = "qemu-9"
	// TDXQEMU8 is QEMU 8 as distributions patched it: section by section, the kernel
	// with its setup header written to.
	TDXQEMU8 TDXHost = "qemu-8"
	// TDXGCE is Google's: page by page, a list of memory of its own, no kernel.
	TDXGCE TDXHost = "gce"
	// TDXGCEAll is Google's as it was first, which extended every section, the list of
	// memory too, so that MRTD depends on the machine's size.
	TDXGCEAll TDXHost = "gce-all"
)

// TDXHosts are all of them.
var TDXHosts = []TDXHost{TDXQEMU, TDXQEMU101, TDXQEMU9, TDXQEMU8, TDXGCE, TDXGCEAll}

func (h TDXHost) qemu() bool {
	return h == TDXQEMU || h == TDXQEMU101 || h == TDXQEMU9 || h == TDXQEMU8
}

// patches reports whether the firmware gets a kernel to whose setup header the host
// has written.
func (t *TDX) patches() bool {
	switch t.Host {
	case TDXQEMU8, TDXQEMU9:
		return true
	case TDXQEMU101:
		return t.EDK2 < edk2Host
	}
	return false
}

func (h TDXHost) order() PageOrder {
	if h == TDXQEMU8 {
		return SectionTwice
	}
	return PageByPage
}

// Initrd is what is measured of an initrd.
type Initrd struct {
	Size   int64
	Digest rtmr.Hex // SHA-384
}

// ReadInitrd reads an initrd to its end. It is an error if there is nothing: QEMU
// hands over none then.
func ReadInitrd(r io.Reader) (*Initrd, error) {
	h := rtmr.SHA384.New()
	size, err := io.Copy(h, r)
	if err == nil && size == 0 {
		err = errors.New("the initrd is empty")
	}
	if err != nil {
		return nil, err
	}
	return &Initrd{size, h.Sum(nil)}, nil
}

// SecureBoot is the variable of that name, as the firmware sets it when it starts.
type SecureBoot uint8

const (
	// SecureBootFromImage is On if the image has a PK and SecureBootEnable does not
	// forbid it, and otherwise NotSet.
	SecureBootFromImage SecureBoot = iota
	SecureBootNotSet               // the firmware was built without Secure Boot
	SecureBootOff                  // it was built with it, and has no PK
	SecureBootOn
)

// The releases of edk2 from which a TD measures other things.
const (
	// edk2BootVariables measures boot variables into RTMR0, and not into RTMR1.
	edk2BootVariables = 202302
	// edk2Separator measures the second separator into RTMR1, and not into RTMR0.
	edk2Separator = 202408
	// edk2Host measures QEMU's boot menu and boot order and the SMBIOS tables, takes
	// QEMU's file etc/boot/kernel where there is one, and puts initrd=initrd before the
	// command line, and not behind it.
	edk2Host = 202505
)

// DefaultEDK2 is the release that TDX takes if it is given none.
const DefaultEDK2 = 202502

// TDX is a TD that is to be launched: the firmware, and what of the host's share is
// known.
type TDX struct {
	Firmware *TDVF
	Host     TDXHost // "" for TDXQEMU
	EDK2     int     // the release that the firmware was built from, year and month; 0 for DefaultEDK2

	Memory      uint64 // of the machine, bytes; 0 if not known
	EarlyAccept bool   // a GCE machine whose firmware accepts all memory
	SecureBoot  SecureBoot

	// Kernel and Initrd are what QEMU's -kernel and -initrd name, CommandLine what
	// -append says. Without a kernel the TD boots from a disk.
	Kernel      []byte
	Initrd      *Initrd
	CommandLine string

	// Disk is the beginning of the disk that the TD boots from, with its GPT, GPTBytes
	// at most, and Loaded the images that firmware and loaders load from it, in order:
	// shim, GRUB and the kernel, or a unified kernel image. Of one of these the kernel
	// inside need not be given.
	Disk   []byte
	Loaded [][]byte

	// ACPI is what QEMU has as etc/table-loader, etc/acpi/rsdp and etc/acpi/tables.
	ACPI [3][]byte

	// Log has what is not known otherwise, from a log of such a TD: see HostShare.
	Log HostShare
}

// TDXEvent is a measurement that firmware or kernel make.
type TDXEvent struct {
	Register rtmr.Register
	Type     string   // the event's type in a log
	Name     string   // what is measured
	Digest   rtmr.Hex // SHA-384; nil if it is not known
	From     string   // what gave the digest, or what would
	FromLog  bool     // nothing gave it but the log
	Other    rtmr.Hex // what the log has, where that is another digest
}

// NotPredicted is a register without a prediction.
type NotPredicted struct {
	Register rtmr.Register
	Why      string
}

// TDXMeasurement is what a TD is expected to hold.
type TDXMeasurement struct {
	Sections     []TDVFMeasured
	Events       []TDXEvent // in the order of the log
	Values       rtmr.Values
	NotPredicted []NotPredicted
}

// tdRegisters are those that firmware, loader and kernel extend.
var tdRegisters = [...]rtmr.Register{rtmr.MustParse("rtmr0"), rtmr.MustParse("rtmr1"), rtmr.MustParse("rtmr2")}

// PartError is an error in one of the things that a guest is launched with.
type PartError struct {
	Part string // "firmware"; of a TD "kernel", "disk", or "loaded image 1" and so on; "SVSM"
	Err  error
}

func (e *PartError) Error() string { return e.Part + ": " + e.Err.Error() }

// Unwrap returns Err.
func (e *PartError) Unwrap() error { return e.Err }

// Measure gives MRTD, and RTMR0 to RTMR2 as far as they follow from what is known.
//
// A register is in Values only if every digest that is folded into it is there;
// otherwise NotPredicted says which is not, and what would give it. It is an
// error if what is given cannot be launched, such as an image with sections that
// the host refuses, or a kernel that is no PE image: a *PartError, if it is about one
// of the things that were given.
func (t TDX) Measure() (*TDXMeasurement, error) {
	t.Host, t.EDK2 = cmp.Or(t.Host, TDXQEMU), cmp.Or(t.EDK2, DefaultEDK2)
	if !slices.Contains(TDXHosts, t.Host) {
		return nil, fmt.Errorf("host %q, expected one of %q", t.Host, TDXHosts)
	}
	if len(t.Kernel) > 0 && !t.Host.qemu() {
		return nil, fmt.Errorf("a kernel was given, and %s boots from disks alone", t.Host)
	}
	if len(t.Kernel) > 0 && (len(t.Disk) > 0 || len(t.Loaded) > 0) {
		return nil, errors.New("a kernel was given, and a disk or what is loaded from it, and a TD boots the one or the other")
	}
	if (len(t.Disk) > 0) != (len(t.Loaded) > 0) {
		return nil, errors.New("of a disk and what is loaded from it one was given, and both are measured")
	}
	if strings.ContainsRune(t.CommandLine, 0) {
		return nil, errors.New("the command line has a zero byte")
	}
	if len(t.Kernel) == 0 && (t.Initrd != nil || t.CommandLine != "") {
		return nil, errors.New("an initrd or a command line was given, and no kernel that QEMU would hand over with it")
	}
	m := &TDXMeasurement{Values: rtmr.Values{}}
	list, err := t.memoryList()
	if err == nil {
		err = t.build(m, list)
	}
	if err != nil {
		return nil, &PartError{"firmware", err}
	}
	t.firmwareEvents(m, list)
	if err := t.boot(m); err != nil {
		return nil, err
	}
	return m, nil
}

// memoryList is TD_HOB's content, nil if the memory is not known.
func (t *TDX) memoryList() ([]byte, error) {
	switch {
	case t.Memory == 0:
		return nil, nil
	case t.Host.qemu():
		return t.Firmware.qemuHOB(t.Memory)
	}
	return t.Firmware.gceHOB(t.Memory, t.EarlyAccept)
}

// build gives MRTD.
func (t *TDX) build(m *TDXMeasurement, list []byte) (err error) {
	if t.Host == TDXGCEAll && list == nil {
		m.NotPredicted = append(m.NotPredicted, NotPredicted{rtmr.MRTD, "this host measures its list of memory into it: the memory's size is needed"})
		return nil
	}
	if err := t.accepts(); err != nil {
		return err
	}
	var content []byte
	if t.Host == TDXGCEAll {
		content = append(slices.Clone(list), endOfHOB()...)
	}
	mrtd, sections, err := t.Firmware.mrtd(t.Host.order(), t.Host == TDXGCEAll, content)
	if err != nil {
		return err
	}
	m.Sections = sections
	m.Values.Set(rtmr.SHA384, rtmr.MRTD, mrtd)
	return nil
}

// accepts is an error if the host refuses a section of the image.
func (t *TDX) accepts() error {
	for i, s := range t.Firmware.Sections {
		if s.Type > TDVFTempMem && t.Host != TDXQEMU9 && t.Host != TDXQEMU8 {
			return fmt.Errorf("section %d (%s): %s launches no image that has one, expected BFV, CFV, TD_HOB or TempMem", i, s.Type, t.Host)
		}
	}
	return nil
}

// fold adds a register to the values, if all that is extended into it is known.
func (m *TDXMeasurement) fold(r rtmr.Register) {
	value := r.ResetValue(rtmr.SHA384)
	for _, e := range m.Events {
		if e.Register != r {
			continue
		}
		if e.Digest == nil {
			m.without(r, fmt.Sprintf("%s is not known: %s", e.Name, e.From))
			return
		}
		rtmr.SHA384.Extend(value, e.Digest)
	}
	m.Values.Set(rtmr.SHA384, r, value)
}

func (m *TDXMeasurement) without(r rtmr.Register, why string) {
	m.NotPredicted = append(m.NotPredicted, NotPredicted{r, why})
}
