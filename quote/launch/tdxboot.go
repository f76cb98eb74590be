package launch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"tallystick/rtmr"
)

// The types of events, in the log's words.
const (
	evSeparator   = "EV_SEPARATOR"
	evEventTag    = "EV_EVENT_TAG"
	evConfigFlags = "EV_PLATFORM_CONFIG_FLAGS"
	evDriver      = "EV_EFI_VARIABLE_DRIVER_CONFIG"
	evBoot        = "EV_EFI_VARIABLE_BOOT"
	evApplication = "EV_EFI_BOOT_SERVICES_APPLICATION"
	evAction      = "EV_EFI_ACTION"
	evBlob        = "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	evTables      = "EV_EFI_HANDOFF_TABLES2"
	evGPT         = "EV_EFI_GPT_EVENT"
	evIPL         = "EV_IPL"
)

var (
	efiGlobal        = MustGUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
	efiSecurity      = MustGUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
	secureBootEnable = MustGUID("f0a30bc7-af08-4556-99c4-001009c93a44")
	dxeVolume        = MustGUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1")
	uiApp            = MustGUID("462caa21-7614-4503-836e-8ab6f4662331")
)

// acpiNames are QEMU's files that the firmware measures, in its order.
var acpiNames = [3]string{"etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables"}

// HostShare is what of a log the host decides and no file tells: the digests of
// TD_HOB and of the ACPI tables.
type HostShare struct {
	TDHOB rtmr.Hex
	ACPI  [3]rtmr.Hex
}

// ReadHostShare takes the host's share from the log of a TD. Whoever uses it
// believes the log in this: what the digests are of has to be looked at by other
// means.
//
// It is an error if the log has none, or if it does not begin as a TD's log does,
// or has more or fewer tables than QEMU hands over.
func ReadHostShare(log iter.Seq2[rtmr.Measurement, error]) (h HostShare, err error) {
	tables := 0
	for m, err := range log {
		if err != nil {
			return HostShare{}, err
		}
		if m.NoAction || m.Register != tdRegisters[0] {
			continue
		}
		switch m.Entry.Type() {
		case evTables:
			if h.TDHOB != nil {
				return HostShare{}, fmt.Errorf("entry %d: a second %s in rtmr0, expected one", m.Index, evTables)
			}
			h.TDHOB, err = sha384Of(&m)
		case evConfigFlags:
			if tables == len(h.ACPI) {
				return HostShare{}, fmt.Errorf("entry %d: a fourth %s in rtmr0, expected three: %v", m.Index, evConfigFlags, acpiNames)
			}
			h.ACPI[tables], err = sha384Of(&m)
			tables++
		}
		if err != nil {
			return HostShare{}, fmt.Errorf("entry %d: %w", m.Index, err)
		}
	}
	switch {
	case h.TDHOB == nil:
		return HostShare{}, fmt.Errorf("no %s in rtmr0: it is not the log of a TD whose firmware is OVMF", evTables)
	case tables != len(h.ACPI):
		return HostShare{}, fmt.Errorf("%d of %s in rtmr0, expected three: %v", tables, evConfigFlags, acpiNames)
	}
	return h, nil
}

func sha384Of(m *rtmr.Measurement) (rtmr.Hex, error) {
	for _, d := range m.Digests {
		if d.Alg == rtmr.SHA384 {
			return append(rtmr.Hex(nil), d.Sum...), nil
		}
	}
	return nil, errors.New("no SHA-384 digest, which a TD's log has")
}

// boot lists what is measured from where something is booted, in order, and folds
// all events (edk2 OvmfPkg/Tcg/TdTcg2Dxe; the order is that of the logs).
func (t *TDX) boot(m *TDXMeasurement) error {
	if len(t.Kernel) == 0 {
		return t.bootDisk(m)
	}
	if err := t.kernelEvents(m); err != nil {
		return err
	}
	switch {
	case t.EDK2 >= edk2Host:
		m.without(tdRegisters[0], fmt.Sprintf("firmware of edk2 %d and later measures QEMU's boot menu, boot order and SMBIOS tables into it, for which no rule is built in", edk2Host))
	case t.secureBoot() == SecureBootOn:
		m.without(tdRegisters[0], "with Secure Boot the certificate that vouches for the kernel is measured into it, for which no rule is built in")
	default:
		m.fold(tdRegisters[0])
	}
	m.fold(tdRegisters[1])
	m.fold(tdRegisters[2])
	return nil
}

// firmwareEvents are those before anything is booted.
func (t *TDX) firmwareEvents(m *TDXMeasurement, list []byte) {
	hob := TDXEvent{Register: tdRegisters[0], Type: evTables, Name: "TD_HOB"}
	t.host(&hob, list, t.Log.TDHOB, "the machine's memory")
	m.Events = append(m.Events, hob)
	if volume, err := t.volume(); err != nil {
		m.unknown(tdRegisters[0], evBlob, "CFV", err)
	} else {
		m.add(tdRegisters[0], evBlob, "CFV", "the image", volume)
	}
	t.secureVariables(m)
	m.add(tdRegisters[0], evSeparator, "separator", "constant", make([]byte, 4))
	for i, name := range acpiNames {
		e := TDXEvent{Register: tdRegisters[0], Type: evConfigFlags, Name: name}
		t.host(&e, t.ACPI[i], t.Log.ACPI[i], name+" of the host")
		m.Events = append(m.Events, e)
	}
}

// volume is the configuration volume that the firmware measures.
func (t *TDX) volume() ([]byte, error) {
	sections := t.Firmware.of(TDVFCFV)
	if len(sections) != 1 {
		return nil, fmt.Errorf("the image has %d CFV sections, and firmware with one is known", len(sections))
	}
	return t.Firmware.data(sections[0]), nil
}

// variables are those of the volume.
func (t *TDX) variables() ([]Variable, error) {
	volume, err := t.volume()
	if err != nil {
		return nil, err
	}
	variables, err := ParseVariables(volume)
	if err != nil {
		return nil, fmt.Errorf("the image's CFV: %w", err)
	}
	return variables, nil
}

// host fills in an event of the host's share, from data if they are known, else from
// the log.
func (t *TDX) host(e *TDXEvent, data []byte, logged rtmr.Hex, from string) {
	e.From = from
	switch {
	case data != nil:
		e.Digest = rtmr.SHA384.AppendHash(nil, data)
		if logged != nil && !bytes.Equal(logged, e.Digest) {
			e.Other = logged
		}
	case logged != nil:
		e.Digest, e.From, e.FromLog = logged, "the log, which nothing confirms", true
	}
}

// secureVariables measures the variables of Secure Boot, whether they are set or
// not, and dbt if it is (edk2 MeasureAllSecureVariables).
func (t *TDX) secureVariables(m *TDXMeasurement) {
	variables, err := t.variables()
	if err != nil {
		m.unknown(tdRegisters[0], evDriver, "SecureBoot and its keys", err)
		return
	}
	from := "the image"
	if t.SecureBoot != SecureBootFromImage {
		from = "as stated"
	}
	value := map[SecureBoot][]byte{SecureBootOff: {0}, SecureBootOn: {1}}[t.secureBoot()]
	m.add(tdRegisters[0], evDriver, "SecureBoot", from, variableData(Variable{efiGlobal, "SecureBoot", value}))
	for _, v := range []Variable{{Vendor: efiGlobal, Name: "PK"}, {Vendor: efiGlobal, Name: "KEK"}, {Vendor: efiSecurity, Name: "db"}, {Vendor: efiSecurity, Name: "dbx"}, {Vendor: efiSecurity, Name: "dbt"}} {
		v.Data = variable(variables, v.Vendor, v.Name)
		if v.Name == "dbt" && v.Data == nil {
			continue
		}
		m.add(tdRegisters[0], evDriver, v.Name, "the image", variableData(v))
	}
}

// secureBoot is the state that the firmware comes up in.
func (t *TDX) secureBoot() SecureBoot {
	if t.SecureBoot != SecureBootFromImage {
		return t.SecureBoot
	}
	variables, err := t.variables()
	if err != nil || len(variable(variables, efiGlobal, "PK")) == 0 {
		return SecureBootNotSet
	}
	if enable := variable(variables, secureBootEnable, "SecureBootEnable"); len(enable) == 1 && enable[0] == 0 {
		return SecureBootOff
	}
	return SecureBootOn
}

// variable returns a variable's data, nil if there is none.
func variable(variables []Variable, vendor GUID, name string) []byte {
	for _, v := range variables {
		if v.Vendor == vendor && v.Name == name {
			return v.Data
		}
	}
	return nil
}

// kernelEvents are those of a kernel that QEMU hands over.
func (t *TDX) kernelEvents(m *TDXMeasurement) error {
	kernel := TDXEvent{Register: tdRegisters[1], Type: evApplication, Name: "kernel", From: "the kernel"}
	pe, err := ParsePE(t.Kernel)
	if err != nil {
		return &PartError{"kernel", err}
	}
	image, why, err := t.measuredKernel()
	if err != nil {
		return &PartError{"kernel", err}
	}
	if why != "" {
		kernel.From = why
	} else {
		pe.Image = image // the same, but for what QEMU wrote to its headers
		kernel.Digest = pe.Authenticode(rtmr.SHA384)
	}
	m.Events = append(m.Events, kernel)
	variables := tdRegisters[0]
	if t.EDK2 < edk2BootVariables {
		variables = tdRegisters[1]
	}
	m.add(variables, evBoot, "BootOrder", "constant", []byte{0, 0})
	m.add(variables, evBoot, "Boot0000", "constant", bootUiApp())
	t.calling(m)
	if _, unified := pe.Find(".linux"); unified {
		err = t.unifiedKernel(m, "kernel", pe)
	} else {
		t.stubEvents(m)
	}
	m.exit()
	return err
}

// unifiedKernel are the events of a unified kernel image that was loaded.
func (t *TDX) unifiedKernel(m *TDXMeasurement, name string, pe *PE) error {
	stub, kernel, err := unifiedEvents(pe)
	if err == nil && (t.Initrd != nil || t.CommandLine != "") {
		err = errors.New("QEMU hands over an initrd or a command line beside the image's own")
	}
	if err != nil {
		m.unknown(tdRegisters[2], evIPL, "what the stub of the unified kernel image measures", err)
	}
	m.Events = append(m.Events, stub...)
	if _, err := m.innerKernel(name, pe); err != nil {
		return err
	}
	m.Events = append(m.Events, kernel...)
	return nil
}

// calling are the events when the firmware goes on to what it boots.
func (t *TDX) calling(m *TDXMeasurement) {
	m.add(tdRegisters[1], evAction, "calling what is booted", "constant", []byte("Calling EFI Application from Boot Option"))
	second := tdRegisters[1]
	if t.EDK2 < edk2Separator {
		second = tdRegisters[0]
	}
	m.add(second, evSeparator, "separator", "constant", make([]byte, 4))
}

// exit are the events when the kernel leaves the firmware behind.
func (m *TDXMeasurement) exit() {
	for _, text := range []string{"Exit Boot Services Invocation", "Exit Boot Services Returned with Success"} {
		m.add(tdRegisters[1], evAction, "exiting boot services", "constant", []byte(text))
	}
}

// bootDisk lists what is measured when the TD boots from a disk, which gives RTMR1
// if the disk and what is loaded are known, and RTMR2 if that is a unified kernel
// image and nothing else.
func (t *TDX) bootDisk(m *TDXMeasurement) error {
	m.without(tdRegisters[0], "the TD boots from a disk, and the boot variables and a loader's share are not in the image")
	if len(t.Loaded) == 0 {
		m.without(tdRegisters[1], "the TD boots from a disk: the partition table and what is loaded are measured, and were not given")
		m.without(tdRegisters[2], "the TD boots from a disk: what is loaded measures what it does, and was not given")
		return nil
	}
	t.calling(m)
	table, err := GPTEvent(t.Disk)
	if err != nil {
		return &PartError{"disk", err}
	}
	m.add(tdRegisters[1], evGPT, "partition table", "the disk", table)
	unified, err := t.load(m)
	if err != nil {
		return err
	}
	m.exit()
	if t.EDK2 < edk2BootVariables {
		m.without(tdRegisters[1], fmt.Sprintf("firmware before edk2 %d measures the boot variables into it, which are not in the image", edk2BootVariables))
	} else {
		m.fold(tdRegisters[1])
	}
	if unified {
		m.fold(tdRegisters[2])
	} else {
		m.without(tdRegisters[2], "the TD boots from a disk by a loader, which measures what it does")
	}
	return nil
}

// load lists what is loaded from the disk, and reports whether it is a unified
// kernel image alone.
func (t *TDX) load(m *TDXMeasurement) (unified bool, err error) {
	for i, image := range t.Loaded {
		name := fmt.Sprintf("loaded image %d", i+1)
		pe, err := ParsePE(image)
		if err != nil {
			return false, &PartError{name, err}
		}
		m.Events = append(m.Events, TDXEvent{Register: tdRegisters[1], Type: evApplication, Name: name, Digest: pe.Authenticode(rtmr.SHA384), From: "the image"})
		if _, unified = pe.Find(".linux"); unified && len(t.Loaded) == 1 {
			return true, t.unifiedKernel(m, name, pe)
		}
		if _, err := m.innerKernel(name, pe); err != nil {
			return false, err
		}
	}
	return false, nil
}

// innerKernel measures what an image's stub loads from inside it, if the image is a
// unified kernel image, and reports whether it is one.
func (m *TDXMeasurement) innerKernel(name string, pe *PE) (unified bool, err error) {
	s, unified := pe.Find(".linux")
	if !unified {
		return false, nil
	}
	data := s.Data
	if int64(s.VirtualSize) < int64(len(data)) {
		data = data[:s.VirtualSize] // what follows aligns the file
	}
	inner, err := ParsePE(data)
	if err != nil {
		return true, &PartError{name, fmt.Errorf("section .linux at offset %#x: %w", s.offset, err)}
	}
	m.Events = append(m.Events, TDXEvent{Register: tdRegisters[1], Type: evApplication, Name: "kernel in .linux", Digest: inner.Authenticode(rtmr.SHA384), From: "the " + name})
	return true, nil
}

// measuredKernel is the kernel as the firmware gets it, or why that is not known.
func (t *TDX) measuredKernel() (image []byte, why string, err error) {
	if !t.patches() {
		return t.Kernel, "", nil
	}
	if t.Initrd != nil && t.Memory == 0 {
		return nil, "QEMU writes the initrd's place into it, which follows from the machine's memory", nil
	}
	if !isLinux(t.Kernel) {
		return t.Kernel, "", nil // a unified image has no header to write to
	}
	image, err = patchSetup(t.Kernel, t.initrdSize(), t.CommandLine, qemuLowMemory(t.Memory))
	return image, "", err
}

func (t *TDX) initrdSize() int64 {
	if t.Initrd == nil {
		return 0
	}
	return t.Initrd.Size
}

// stubEvents are those of Linux's EFI stub (drivers/firmware/efi/libstub,
// efi_measure_tagged_event), which measures the data alone.
func (t *TDX) stubEvents(m *TDXMeasurement) {
	options := loadOptions(t.CommandLine, t.Initrd != nil, t.EDK2 >= edk2Host)
	if options == nil {
		m.Events = append(m.Events, TDXEvent{Register: tdRegisters[2], Type: evEventTag, Name: "command line", From: "there is none, for which no rule is built in"})
	} else {
		m.add(tdRegisters[2], evEventTag, "command line", "the command line", options)
	}
	if t.Initrd != nil {
		m.Events = append(m.Events, TDXEvent{Register: tdRegisters[2], Type: evEventTag, Name: "initrd", Digest: t.Initrd.Digest, From: "the initrd"})
	}
}

// loadOptions is the command line as the firmware hands it to the kernel: UTF-16
// with a NUL, and with the initrd's name in it (edk2
// OvmfPkg/Library/GenericQemuLoadImageLib).
func loadOptions(commandLine string, initrd, before bool) []byte {
	switch {
	case initrd && before:
		commandLine = "initrd=initrd " + commandLine
	case initrd:
		commandLine += " initrd=initrd"
	case commandLine == "":
		return nil
	}
	var b []byte
	for i := range len(commandLine) {
		b = binary.LittleEndian.AppendUint16(b, uint16(commandLine[i]))
	}
	return append(b, 0, 0)
}

// bootUiApp is the boot option that OVMF makes for its setup screen, the only one
// there is when QEMU hands over a kernel and no disk can be booted:
// EFI_LOAD_OPTION (UEFI 2.10, 3.1.3), active, hidden, an application.
func bootUiApp() []byte {
	le := binary.LittleEndian
	const active, hidden, application = 1, 8, 0x100
	path := append([]byte{4, 7, 20, 0}, dxeVolume[:]...) // MEDIA_PIWG_FW_VOL_DP
	path = append(path, 4, 6, 20, 0)                     // MEDIA_PIWG_FW_FILE_DP
	path = append(path, uiApp[:]...)
	path = append(path, 0x7f, 0xff, 4, 0)
	b := le.AppendUint32(nil, active|hidden|application)
	b = le.AppendUint16(b, uint16(len(path)))
	for _, c := range "UiApp\x00" {
		b = le.AppendUint16(b, uint16(c))
	}
	return append(b, path...)
}

// unknown appends an event whose digest is not known.
func (m *TDXMeasurement) unknown(r rtmr.Register, kind, name string, why error) {
	m.Events = append(m.Events, TDXEvent{Register: r, Type: kind, Name: name, From: why.Error()})
}

// add appends an event of which the measured data are known.
func (m *TDXMeasurement) add(r rtmr.Register, kind, name, from string, data []byte) {
	m.Events = append(m.Events, TDXEvent{Register: r, Type: kind, Name: name, Digest: rtmr.SHA384.AppendHash(nil, data), From: from})
}
