package eventlog

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"strings"
)

// variable is a UEFI_VARIABLE_DATA structure (TCG PFP 1.05 §10.2.6):
// guid | u64 name length in characters | u64 data length | name in UTF-16
// without a NUL | data, little-endian.
type variable struct {
	guid  guid
	name  []byte // UTF-16LE
	data  []byte
	extra int // bytes that the event has behind the structure
}

func parseVariable(b []byte) (variable, bool) {
	f := fields{rest: b}
	v := variable{guid: f.guid()}
	nameLen, dataLen := f.u64(), f.u64()
	if nameLen > uint64(len(f.rest)/2) {
		return variable{}, false
	}
	v.name = f.bytes(2 * nameLen)
	v.data = f.bytes(dataLen)
	v.extra = len(f.rest)
	return v, !f.bad
}

// The namespaces of variables that firmware and shim measure (EDK2's
// Guid/GlobalVariable.h and Guid/ImageAuthentication.h; shim's lib/guid.c;
// systemd's Boot Loader Interface).
var (
	guidGlobal   = guid{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	guidSecurity = guid{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	guidShim     = guid{0x50, 0xab, 0x5d, 0x60, 0x46, 0xe0, 0x00, 0x43, 0xab, 0xb6, 0x3d, 0xd8, 0x10, 0xdd, 0x8b, 0x23}
	guidLoader   = guid{0x82, 0xb0, 0x67, 0x4a, 0x4c, 0x0a, 0xcf, 0x41, 0xb6, 0xc7, 0x44, 0x0b, 0x29, 0xbb, 0x8c, 0x4f}
)

var namespaces = map[guid]string{
	guidGlobal:   "EFI_GLOBAL",
	guidSecurity: "IMAGE_SECURITY_DATABASE",
	guidShim:     "SHIM_LOCK",
	guidLoader:   "LOADER",
}

// name returns a namespace's name, or the GUID.
func (g guid) name() string {
	if s, ok := namespaces[g]; ok {
		return s
	}
	return g.String()
}

// flagVariables are the variables that are one byte, 0 or 1.
var flagVariables = map[string]bool{
	"SecureBoot": true, "SetupMode": true, "AuditMode": true, "DeployedMode": true,
	"MokListTrusted": true, "MokSBState": true, "MokDBState": true,
}

// signatureLists are the variables that hold EFI_SIGNATURE_LIST structures.
var signatureLists = map[string]bool{
	"PK": true, "KEK": true, "db": true, "dbx": true, "dbr": true, "dbt": true,
	"PKDefault": true, "KEKDefault": true, "dbDefault": true, "dbxDefault": true,
	"MokList": true, "MokListX": true, "MokListRT": true, "MokListXRT": true,
}

func (v variable) detail(authority bool) string {
	name := utf16Text(v.name)
	return v.guid.name() + "-" + name + ": " + v.value(name, authority)
}

// value renders the variable's data by what its name says they are. In an
// authority event they are the one signature that vouched for an image.
func (v variable) value(name string, authority bool) string {
	known := v.guid == guidGlobal || v.guid == guidSecurity || v.guid == guidShim
	var s string
	var ok bool
	switch {
	case !known:
	case authority && !flagVariables[name] && name != "SbatLevel":
		s, ok = signature(v.data)
	case flagVariables[name]:
		s, ok = flag(v.data)
	case signatureLists[name]:
		s, ok = signatureDatabase(v.data)
	case strings.HasSuffix(name, "Order"), name == "BootNext", name == "BootCurrent":
		s, ok = optionNumbers(v.data)
	case isLoadOption(name):
		s, ok = loadOption(v.data)
	}
	if ok {
		return s
	}
	return textOrHex(v.data)
}

func flag(b []byte) (string, bool) {
	switch {
	case len(b) == 0:
		return "not set", true
	case len(b) == 1 && b[0] == 0:
		return "disabled", true
	case len(b) == 1 && b[0] == 1:
		return "enabled", true
	}
	return "", false
}

// optionNumbers renders an array of u16, as BootOrder is.
func optionNumbers(b []byte) (string, bool) {
	if len(b)%2 != 0 || len(b) > maxDetail {
		return "", false
	}
	var numbers []string
	for ; len(b) > 0; b = b[2:] {
		numbers = append(numbers, fmt.Sprintf("%04X", binary.LittleEndian.Uint16(b)))
	}
	return strings.Join(numbers, ","), true
}

// isLoadOption reports whether a variable is Boot####, Driver####, SysPrep####
// or PlatformRecovery#### (EDK2's Guid/GlobalVariable.h).
func isLoadOption(name string) bool {
	kind := strings.TrimRight(name, "0123456789ABCDEF")
	if len(name) < 4 || len(name)-len(kind) < 4 {
		return false
	}
	switch name[:len(name)-4] {
	case "Boot", "Driver", "SysPrep", "PlatformRecovery":
		return true
	}
	return false
}

// loadOption renders an EFI_LOAD_OPTION (UEFI 2.10 §3.1.3): u32 attributes |
// u16 length of the paths | description in UTF-16 with a NUL | paths |
// optional data.
func loadOption(b []byte) (string, bool) {
	const active = 1
	f := fields{rest: b}
	attributes, pathLen := f.u32(), f.u16()
	n := uint64(0)
	for n+2 <= uint64(len(f.rest)) && (f.rest[n] != 0 || f.rest[n+1] != 0) {
		n += 2
	}
	description := utf16Text(f.bytes(n))
	f.bytes(2)
	path := f.bytes(uint64(pathLen))
	if f.bad {
		return "", false
	}
	s := fmt.Sprintf("\"%s\" %s", description, devicePath(path))
	if attributes&active == 0 {
		s += " (inactive)"
	}
	if len(f.rest) > 0 {
		s += ", optional data: " + textOrHex(f.rest)
	}
	return s, true
}

// Types of signatures (UEFI 2.10 §32.4.1).
var (
	guidX509   = guid{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	guidSHA256 = guid{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
)

const (
	ownerSize = 16      // of EFI_SIGNATURE_DATA's SignatureOwner
	maxCert   = 8 << 10 // certificates above that are not looked into
	maxCerts  = 8       // so many are named
)

// signatureDatabase counts what a chain of EFI_SIGNATURE_LIST structures holds
// (UEFI 2.10 §32.4.1): guid type | u32 list size | u32 header size | u32
// signature size | header | signatures, each an owner's GUID and data.
func signatureDatabase(b []byte) (string, bool) {
	var certs, hashes, others int
	var subjects []string
	f := fields{rest: b}
	for len(f.rest) > 0 {
		kind := f.guid()
		listSize, headerSize, size := uint64(f.u32()), uint64(f.u32()), uint64(f.u32())
		const header = 16 + 3*4
		if listSize < header+headerSize || size < ownerSize {
			return "", false
		}
		f.bytes(headerSize)
		signatures := f.bytes(listSize - header - headerSize)
		if f.bad || uint64(len(signatures))%size != 0 {
			return "", false
		}
		n := len(signatures) / int(size)
		switch kind {
		case guidX509:
			certs += n
			for ; len(signatures) > 0 && len(subjects) < maxCerts; signatures = signatures[size:] {
				subjects = append(subjects, certificate(signatures[ownerSize:size]))
			}
		case guidSHA256:
			hashes += n
		default:
			others += n
		}
	}
	return countSignatures(certs, hashes, others, subjects), true
}

func countSignatures(certs, hashes, others int, subjects []string) string {
	var parts []string
	if certs > 0 {
		names := strings.Join(subjects, "; ")
		if len(subjects) < certs {
			names += "; .."
		}
		parts = append(parts, plural(certs, "certificate", "certificates")+" ("+names+")")
	}
	if hashes > 0 {
		parts = append(parts, plural(hashes, "SHA-256 hash", "SHA-256 hashes"))
	}
	if others > 0 {
		parts = append(parts, plural(others, "other signature", "other signatures"))
	}
	if len(parts) == 0 {
		return "empty"
	}
	return strings.Join(parts, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// signature renders an EFI_SIGNATURE_DATA: the owner's GUID and a certificate
// or a SHA-256 hash. shim leaves out the owner of its own certificate, and so
// do older shims that of db's.
func signature(b []byte) (string, bool) {
	if isCertificate(b) {
		return certificate(b), true
	}
	if len(b) < ownerSize {
		return "", false
	}
	owner, data := guid(b[:ownerSize]), b[ownerSize:]
	switch {
	case isCertificate(data):
		return "owner " + owner.String() + ", " + certificate(data), true
	case len(data) == 32:
		return fmt.Sprintf("owner %s, SHA-256 hash %x", owner, data), true
	}
	return "", false
}

// isCertificate reports whether b begins as DER of a certificate's size does:
// a SEQUENCE with a two-byte length that b has room for.
func isCertificate(b []byte) bool {
	return len(b) >= 4 && b[0] == 0x30 && b[1] == 0x82 &&
		int(binary.BigEndian.Uint16(b[2:]))+4 <= len(b)
}

// certificate names a DER certificate by its subject.
func certificate(der []byte) string {
	if len(der) <= maxCert {
		if c, err := x509.ParseCertificate(der); err == nil {
			return c.Subject.String()
		}
	}
	return fmt.Sprintf("unreadable certificate, %d bytes", len(der))
}
