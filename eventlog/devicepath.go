package eventlog

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// devicePath renders a device path as the UEFI text form does (EDK2's
// UefiDevicePathLib/DevicePathToText.c), but with a file's path in File(..) and
// GUIDs in lower case. A node
// without a rendering here is Path(type,subtype,hex); what cannot be a node is
// shown in hexadecimal, and ends the text.
//
// A path is nodes of u8 type | u8 subtype | u16 length | data, where the
// length is that of the whole node (UEFI 2.10 §10.3.1).
func devicePath(b []byte) string {
	var s strings.Builder
	for separator := ""; len(b) > 0 && s.Len() < maxDetail; {
		f := fields{rest: b}
		n := pathNode{kind: uint16(f.u8())<<8 | uint16(f.u8())}
		size := f.u16()
		n.data = f.bytes(uint64(max(size, 4) - 4))
		if f.bad || size < 4 {
			s.WriteString(separator + "(malformed: " + preview(b) + ")")
			break
		}
		b = f.rest
		switch n.kind {
		case endOfPath:
			return s.String()
		case endOfInstance:
			separator = ","
			continue
		}
		s.WriteString(separator + n.String())
		separator = "/"
	}
	return s.String()
}

const (
	endOfInstance = 0x7F01
	endOfPath     = 0x7FFF
)

// pathNode is one node: its type and subtype in one number, and its data.
type pathNode struct {
	kind uint16
	data []byte
}

// nodeTexts renders the nodes by type and subtype. The sections of UEFI 2.10
// are §10.3.2 for 01 (hardware), §10.3.3 for 02 (ACPI), §10.3.4 for 03
// (messaging), §10.3.5 for 04 (media) and §10.3.6 for 05 (BIOS boot).
var nodeTexts = map[uint16]func(f *fields) string{
	0x0101: pciText,
	0x0102: numbersText("PcCard", 1),
	0x0103: memoryText,
	0x0104: vendorText("VenHw"),
	0x0105: numbersText("Ctrl", 4),
	0x0201: acpiText,
	0x0203: numbersText("AcpiAdr", 4),
	0x0301: ataText,
	0x0302: numbersText("Scsi", 2, 2),
	0x0305: numbersText("USB", 1, 1),
	0x0306: numbersText("I2O", 4),
	0x030A: vendorText("VenMsg"),
	0x030B: macText,
	0x030C: ipv4Text,
	0x030D: ipv6Text,
	0x030F: numbersText("UsbClass", 2, 2, 1, 1, 1),
	0x0311: numbersText("Unit", 1),
	0x0312: numbersText("Sata", 2, 2, 2),
	0x0314: numbersText("Vlan", 2),
	0x0317: nvmeText,
	0x0318: uriText,
	0x031A: numbersText("SD", 1),
	0x031D: numbersText("eMMC", 1),
	0x0401: hardDriveText,
	0x0402: numbersText("CDROM", 4, 8, 8),
	0x0403: vendorText("VenMedia"),
	0x0404: fileText,
	0x0405: guidText("Media"),
	0x0406: guidText("FvFile"),
	0x0407: guidText("Fv"),
	0x0408: offsetText,
	0x0409: ramDiskText,
	0x0501: biosText,
}

func (n pathNode) String() string {
	if text, ok := nodeTexts[n.kind]; ok {
		f := fields{rest: n.data}
		if s := text(&f); !f.bad {
			return s
		}
	}
	data := n.data[:min(len(n.data), 64)]
	dots := ""
	if len(data) < len(n.data) {
		dots = ".."
	}
	return fmt.Sprintf("Path(%d,%d,%x%s)", n.kind>>8, n.kind&0xFF, data, dots)
}

// numbersText renders a node of unsigned numbers with these sizes in bytes.
func numbersText(name string, sizes ...int) func(f *fields) string {
	return func(f *fields) string {
		s := name + "("
		for i, size := range sizes {
			if i > 0 {
				s += ","
			}
			s += fmt.Sprintf("0x%x", f.number(size))
		}
		return s + ")"
	}
}

func (f *fields) number(size int) (n uint64) {
	for i, c := range f.bytes(uint64(size)) {
		n |= uint64(c) << (8 * i)
	}
	return n
}

// guidText renders a node that is a GUID.
func guidText(name string) func(f *fields) string {
	return func(f *fields) string { return name + "(" + f.guid().String() + ")" }
}

// vendorText renders a GUID and whatever data its owner put behind it.
func vendorText(name string) func(f *fields) string {
	return func(f *fields) string {
		s := name + "(" + f.guid().String()
		if len(f.rest) > 0 {
			s += "," + hex.EncodeToString(f.rest[:min(len(f.rest), 64)])
		}
		return s + ")"
	}
}

// pciText: the function stands before the device in the node and behind it in
// the text.
func pciText(f *fields) string {
	function, device := f.u8(), f.u8()
	return fmt.Sprintf("Pci(0x%x,0x%x)", device, function)
}

func memoryText(f *fields) string {
	return fmt.Sprintf("MemoryMapped(0x%x,0x%x,0x%x)", f.u32(), f.u64(), f.u64())
}

// acpiText renders a device by its EISA identifier: the low half of _HID is
// "PNP" in five bits a letter, 0x41D0.
func acpiText(f *fields) string {
	const pnp = 0x41D0
	hid, uid := f.u32(), f.u32()
	if hid&0xFFFF != pnp {
		return fmt.Sprintf("Acpi(0x%08x,0x%x)", hid, uid)
	}
	switch hid >> 16 {
	case 0x0A03:
		return fmt.Sprintf("PciRoot(0x%x)", uid)
	case 0x0A08:
		return fmt.Sprintf("PcieRoot(0x%x)", uid)
	case 0x0604:
		return fmt.Sprintf("Floppy(0x%x)", uid)
	case 0x0301:
		return fmt.Sprintf("Keyboard(0x%x)", uid)
	case 0x0501:
		return fmt.Sprintf("Serial(0x%x)", uid)
	case 0x0401:
		return fmt.Sprintf("ParallelPort(0x%x)", uid)
	}
	return fmt.Sprintf("Acpi(PNP%04X,0x%x)", hid>>16, uid)
}

func ataText(f *fields) string {
	secondary, slave, lun := f.u8(), f.u8(), f.u16()
	return fmt.Sprintf("Ata(%s,%s,0x%x)",
		[]string{"Primary", "Secondary"}[min(secondary, 1)],
		[]string{"Master", "Slave"}[min(slave, 1)], lun)
}

// macText: the address field has 32 bytes, of which Ethernet (interface types
// 0 and 1) uses six.
func macText(f *fields) string {
	address, iface := f.bytes(32), f.u8()
	if iface <= 1 && !f.bad {
		address = address[:6]
	}
	return fmt.Sprintf("MAC(%x,0x%x)", address, iface)
}

// ipv4Text: u32 local and remote address | u16 ports | u16 protocol | u8
// static, and since UEFI 2.3 gateway and mask.
func ipv4Text(f *fields) string {
	local, remote := ipText(f, 4), ipText(f, 4)
	f.u32()
	protocol, static := protocolText(f.u16()), f.u8()
	origin := []string{"DHCP", "Static"}[min(static, 1)]
	return fmt.Sprintf("IPv4(%s,%s,%s,%s)", remote, protocol, origin, local)
}

func ipv6Text(f *fields) string {
	local, remote := ipText(f, 16), ipText(f, 16)
	f.u32()
	protocol, origin := protocolText(f.u16()), f.u8()
	kind := []string{"Static", "StatelessAutoConfigure", "StatefulAutoConfigure"}[min(origin, 2)]
	return fmt.Sprintf("IPv6(%s,%s,%s,%s)", remote, protocol, kind, local)
}

func ipText(f *fields, size uint64) string {
	address, _ := netip.AddrFromSlice(f.bytes(size))
	return address.String()
}

func protocolText(p uint16) string {
	switch p {
	case 6:
		return "TCP"
	case 17:
		return "UDP"
	}
	return fmt.Sprintf("0x%x", p)
}

// nvmeText: u32 namespace | EUI-64, the last byte first.
func nvmeText(f *fields) string {
	namespace, eui := f.u32(), f.u64()
	var parts []string
	for i := 7; i >= 0; i-- {
		parts = append(parts, fmt.Sprintf("%02x", byte(eui>>(8*i))))
	}
	return fmt.Sprintf("NVMe(0x%x,%s)", namespace, strings.Join(parts, "-"))
}

func uriText(f *fields) string {
	if len(f.rest) > 0 && !isText(f.rest) {
		f.bad = true
	}
	return "Uri(" + string(f.rest) + ")"
}

// hardDriveText: u32 partition | u64 start | u64 blocks | signature[16] | u8
// partition format | u8 signature type.
func hardDriveText(f *fields) string {
	const mbr, gpt = 1, 2
	partition, start, blocks := f.u32(), f.u64(), f.u64()
	signature := f.guid()
	f.u8()
	id := "None"
	switch f.u8() {
	case mbr:
		id = fmt.Sprintf("MBR,0x%02x%02x%02x%02x", signature[3], signature[2], signature[1], signature[0])
	case gpt:
		id = "GPT," + signature.String()
	}
	return fmt.Sprintf("HD(%d,%s,0x%x,0x%x)", partition, id, start, blocks)
}

func fileText(f *fields) string {
	if len(f.rest) > 2 && !isUTF16(f.rest) {
		f.bad = true
	}
	return "File(" + utf16Text(f.rest) + ")"
}

func offsetText(f *fields) string {
	f.u32()
	return fmt.Sprintf("Offset(0x%x,0x%x)", f.u64(), f.u64())
}

func ramDiskText(f *fields) string {
	start, end, kind, instance := f.u64(), f.u64(), f.guid(), f.u16()
	return fmt.Sprintf("RamDisk(0x%x,0x%x,%d,%s)", start, end, instance, kind)
}

// biosText: u16 device type | u16 status | description in ASCII with a NUL.
func biosText(f *fields) string {
	kind := f.u16()
	f.u16()
	description, _, _ := bytes.Cut(f.rest, []byte{0})
	name := fmt.Sprintf("0x%x", kind)
	if known := []string{"", "Floppy", "HD", "CDROM", "PCMCIA", "USB", "Network"}; kind > 0 && int(kind) < len(known) {
		name = known[kind]
	}
	return fmt.Sprintf("BBS(%s,%s)", name, textOrHex(description))
}
