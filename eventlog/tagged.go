package eventlog

import (
	"bytes"
	"fmt"
)

// tagged is a TCG_PCClientTaggedEvent (EDK2's
// IndustryStandard/UefiTcgPlatform.h): u32 id | u32 size | data[size],
// little-endian.
type tagged struct {
	id   uint32
	data []byte
}

// Tags in EV_EVENT_TAG events. The Linux EFI stub's are in
// drivers/firmware/efi/libstub/efistub.h, systemd's in
// src/fundamental/tpm2-pcr.h, the Windows loader's (SIPA: bit 31 not measured,
// bit 30 an aggregate; bits 16 to 23 the kind, 1 a container of further tags) in
// the Windows SDK's wbcl.h.
const (
	tagAAEL             = 0x4141454c // "AAEL" in ASCII; CoCo guest-components
	tagLinuxInitrd      = 0x8F3B22EC
	tagLinuxLoadOptions = 0x8F3B22ED

	tagSIPATrustBoundary = 0x40010001
	tagSIPAELAM          = 0x40010002
	tagSIPALoadedModule  = 0x40010003
	tagSIPATrustPoint    = 0xC0010004 // in EV_NO_ACTION
	tagSIPAKSR           = 0x40010005
	tagSIPAKSRSigned     = 0x40010006
)

var tagNames = map[uint32]string{
	tagLinuxInitrd:       "Linux initrd",
	tagLinuxLoadOptions:  "Linux load options",
	tagSIPATrustBoundary: "SIPA TrustBoundary",
	tagSIPAELAM:          "SIPA ELAMAggregation",
	tagSIPALoadedModule:  "SIPA LoadedModuleAggregation",
	tagSIPATrustPoint:    "SIPA TrustPointAggregation",
	tagSIPAKSR:           "SIPA KSRAggregation",
	tagSIPAKSRSigned:     "SIPA KSRSignedMeasurementAggregation",
	0xF5BC582A:           "systemd loader.conf",
	0x6C46F751:           "systemd devicetree addon",
	0x49DFFE0F:           "systemd initrd addon",
	0xDAC08E1A:           "systemd ucode addon",
	0x13AED6DB:           "systemd UKI profile",
	0xD5CB7CBC:           "systemd SMBIOS type 1",
	0xE0D47BC8:           "systemd SMBIOS type 2",
	0xC0B3BD23:           "systemd SMBIOS type 11",
}

// parseTagged parses a tagged event that fills data.
func parseTagged(data []byte) (tagged, bool) {
	f := fields{rest: data}
	id, size := f.u32(), f.u32()
	t := tagged{id: id, data: f.bytes(uint64(size))}
	return t, !f.bad && len(f.rest) == 0
}

// isSIPAContainer reports whether this is one of the containers in which the
// Windows loader measures, into PCR 12 to 14, what it decided.
func (t tagged) isSIPAContainer() bool {
	return t.id == tagSIPATrustBoundary || t.id == tagSIPAELAM || t.id == tagSIPALoadedModule
}

func (t tagged) String() string {
	if domain, operation, content, ok := t.aael(); ok {
		return fmt.Sprintf("AAEL %s %s %s", domain, operation, content)
	}
	name := fmt.Sprintf("tag 0x%08x", t.id)
	if known, ok := tagNames[t.id]; ok {
		name += " (" + known + ")"
	}
	return name + ": " + textOrHex(t.data)
}

// AAEL returns the parts of a CoCo attestation agent's event: its data are a
// tagged event of the text "Domain Operation Content". Only the content may
// have spaces. ok is false for any other event.
func (e *Event) AAEL() (domain, operation, content string, ok bool) {
	if e.EventType != EVEventTag {
		return "", "", "", false
	}
	t, ok := parseTagged(e.EventData)
	if !ok {
		return "", "", "", false
	}
	return t.aael()
}

func (t tagged) aael() (domain, operation, content string, ok bool) {
	parts := bytes.SplitN(t.data, []byte{' '}, 3)
	if t.id != tagAAEL || len(parts) != 3 {
		return "", "", "", false
	}
	return string(parts[0]), string(parts[1]), string(parts[2]), true
}
