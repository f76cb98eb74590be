package eventlog

import (
	"fmt"

	"tallystick/rtmr"
)

// Event is one record of a TCG log: TCG_PCR_EVENT or TCG_PCR_EVENT2 (EDK2's
// IndustryStandard/UefiTcgPlatform.h), or CC_EVENT, which is the latter with a
// CC-MR index (UEFI 2.10 §38.1). It implements rtmr.Entry.
//
// Only the digests are measured. EventType and EventData are whatever the log
// says, and whoever wrote the log may have lied: Verify tells where the data
// explain a digest.
type Event struct {
	MRIndex   uint32        // the record's index field: a PCR index, or a CCMRIndex in a CC log
	EventType EventType     // untrusted
	Digests   []rtmr.Digest // one a bank, in the record's order
	EventData []byte        // untrusted; at most as long as the log; nil where the log leaves them out

	unrecorded bool // the digests are not the log's: they were made from the data
}

// Type returns the event type's name, such as "EV_SEPARATOR".
func (e *Event) Type() string { return e.EventType.String() }

// Data returns the event data, as they are in the record.
func (e *Event) Data() []byte { return e.EventData }

// EventType says what an event's data are, and what its digest is a digest of.
type EventType uint32

// Event types of TCG PFP 1.05 §10.4.1; of 1.06, which added EV_POST_CODE2,
// EV_EFI_GPT_EVENT2 and the last two of SPDM; and of dstack.
const (
	EVPrebootCert              EventType = 0x00000000
	EVPostCode                 EventType = 0x00000001
	EVUnused                   EventType = 0x00000002
	EVNoAction                 EventType = 0x00000003
	EVSeparator                EventType = 0x00000004
	EVAction                   EventType = 0x00000005
	EVEventTag                 EventType = 0x00000006
	EVSCRTMContents            EventType = 0x00000007
	EVSCRTMVersion             EventType = 0x00000008
	EVCPUMicrocode             EventType = 0x00000009
	EVPlatformConfigFlags      EventType = 0x0000000A
	EVTableOfDevices           EventType = 0x0000000B
	EVCompactHash              EventType = 0x0000000C
	EVIPL                      EventType = 0x0000000D
	EVIPLPartitionData         EventType = 0x0000000E
	EVNonhostCode              EventType = 0x0000000F
	EVNonhostConfig            EventType = 0x00000010
	EVNonhostInfo              EventType = 0x00000011
	EVOmitBootDeviceEvents     EventType = 0x00000012
	EVPostCode2                EventType = 0x00000013
	EVEFIEventBase             EventType = 0x80000000
	EVEFIVariableDriverConfig  EventType = 0x80000001
	EVEFIVariableBoot          EventType = 0x80000002
	EVEFIBootServicesApp       EventType = 0x80000003
	EVEFIBootServicesDriver    EventType = 0x80000004
	EVEFIRuntimeServicesDriver EventType = 0x80000005
	EVEFIGPTEvent              EventType = 0x80000006
	EVEFIAction                EventType = 0x80000007
	EVEFIPlatformFirmwareBlob  EventType = 0x80000008
	EVEFIHandoffTables         EventType = 0x80000009
	EVEFIPlatformFirmwareBlob2 EventType = 0x8000000A
	EVEFIHandoffTables2        EventType = 0x8000000B
	EVEFIVariableBoot2         EventType = 0x8000000C
	EVEFIGPTEvent2             EventType = 0x8000000D
	EVEFIHCRTMEvent            EventType = 0x80000010
	EVEFIVariableAuthority     EventType = 0x800000E0
	EVEFISPDMFirmwareBlob      EventType = 0x800000E1
	EVEFISPDMFirmwareConfig    EventType = 0x800000E2
	EVEFISPDMDevicePolicy      EventType = 0x800000E3
	EVEFISPDMDeviceAuthority   EventType = 0x800000E4

	// EVDstack is dstack's run-time event in RTMR3. Its EventData here is
	// name ‖ ":" ‖ payload, and its digest H(le32(type) ‖ ":" ‖ EventData), or
	// in version 2 that of a JSON object.
	EVDstack EventType = 0x08000001
)

var typeNames = map[EventType]string{
	EVPrebootCert:              "EV_PREBOOT_CERT",
	EVPostCode:                 "EV_POST_CODE",
	EVUnused:                   "EV_UNUSED",
	EVNoAction:                 "EV_NO_ACTION",
	EVSeparator:                "EV_SEPARATOR",
	EVAction:                   "EV_ACTION",
	EVEventTag:                 "EV_EVENT_TAG",
	EVSCRTMContents:            "EV_S_CRTM_CONTENTS",
	EVSCRTMVersion:             "EV_S_CRTM_VERSION",
	EVCPUMicrocode:             "EV_CPU_MICROCODE",
	EVPlatformConfigFlags:      "EV_PLATFORM_CONFIG_FLAGS",
	EVTableOfDevices:           "EV_TABLE_OF_DEVICES",
	EVCompactHash:              "EV_COMPACT_HASH",
	EVIPL:                      "EV_IPL",
	EVIPLPartitionData:         "EV_IPL_PARTITION_DATA",
	EVNonhostCode:              "EV_NONHOST_CODE",
	EVNonhostConfig:            "EV_NONHOST_CONFIG",
	EVNonhostInfo:              "EV_NONHOST_INFO",
	EVOmitBootDeviceEvents:     "EV_OMIT_BOOT_DEVICE_EVENTS",
	EVPostCode2:                "EV_POST_CODE2",
	EVEFIVariableDriverConfig:  "EV_EFI_VARIABLE_DRIVER_CONFIG",
	EVEFIVariableBoot:          "EV_EFI_VARIABLE_BOOT",
	EVEFIBootServicesApp:       "EV_EFI_BOOT_SERVICES_APPLICATION",
	EVEFIBootServicesDriver:    "EV_EFI_BOOT_SERVICES_DRIVER",
	EVEFIRuntimeServicesDriver: "EV_EFI_RUNTIME_SERVICES_DRIVER",
	EVEFIGPTEvent:              "EV_EFI_GPT_EVENT",
	EVEFIAction:                "EV_EFI_ACTION",
	EVEFIPlatformFirmwareBlob:  "EV_EFI_PLATFORM_FIRMWARE_BLOB",
	EVEFIHandoffTables:         "EV_EFI_HANDOFF_TABLES",
	EVEFIPlatformFirmwareBlob2: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
	EVEFIHandoffTables2:        "EV_EFI_HANDOFF_TABLES2",
	EVEFIVariableBoot2:         "EV_EFI_VARIABLE_BOOT2",
	EVEFIGPTEvent2:             "EV_EFI_GPT_EVENT2",
	EVEFIHCRTMEvent:            "EV_EFI_HCRTM_EVENT",
	EVEFIVariableAuthority:     "EV_EFI_VARIABLE_AUTHORITY",
	EVEFISPDMFirmwareBlob:      "EV_EFI_SPDM_FIRMWARE_BLOB",
	EVEFISPDMFirmwareConfig:    "EV_EFI_SPDM_FIRMWARE_CONFIG",
	EVEFISPDMDevicePolicy:      "EV_EFI_SPDM_DEVICE_POLICY",
	EVEFISPDMDeviceAuthority:   "EV_EFI_SPDM_DEVICE_AUTHORITY",
	EVDstack:                   "DSTACK_RUNTIME_EVENT",
}

// String returns the type's name, or "EV_0x00000abc" for one without.
func (t EventType) String() string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return fmt.Sprintf("EV_0x%08x", uint32(t))
}

// ParseEventType reads a name as String writes it.
func ParseEventType(s string) (EventType, error) {
	for t, name := range typeNames {
		if name == s {
			return t, nil
		}
	}
	var n uint32
	if _, err := fmt.Sscanf(s, "EV_0x%08x", &n); err == nil && EventType(n).String() == s {
		return EventType(n), nil
	}
	return 0, fmt.Errorf("unknown event type %q", s)
}

// CCMRIndex is the index of a measurement register in a CC event log and in
// CEL content type 108: 0 is MRTD (UEFI 2.10 §38.4.1) or RIM (§38.4.3), 1 is
// RTMR0 or REM0, and so on to 4. It is one more than rtmr.Index. That section
// ends at 3; 4 is RTMR3 by EDK2's Protocol/CcMeasurement.h.
type CCMRIndex uint32

// Register returns the TDX register of that index; ok is false above 4.
func (i CCMRIndex) Register() (r rtmr.Register, ok bool) {
	if i == 0 {
		return rtmr.MRTD, true
	}
	return rtmr.Index(i - 1).RTMR()
}

// CCMR returns a register's CC-MR index, the inverse of Register; ok is false
// for a PCR. Realm registers count as TDX's do.
func CCMR(r rtmr.Register) (i CCMRIndex, ok bool) {
	switch r.Kind() {
	case rtmr.KindMRTD, rtmr.KindRIM:
		return 0, true
	case rtmr.KindRTMR, rtmr.KindREM:
		return CCMRIndex(r.Index()) + 1, true
	}
	return 0, false
}

// locality returns the locality from which PCR 0 began if this event tells it.
func (e *Event) locality() uint8 {
	const signature = "StartupLocality\x00"
	switch e.EventType {
	case EVNoAction: // TCG_EfiStartupLocalityEvent, 17 bytes (TCG PFP 1.04 §9.4.5.3)
		if len(e.EventData) == len(signature)+1 && string(e.EventData[:len(signature)]) == signature {
			return e.EventData[len(signature)]
		}
	case EVEFIHCRTMEvent: // an H-CRTM starts PCR 0 at 00..04 (TPM 2.0 Part 1 §34.3)
		if e.MRIndex == 0 {
			return 4
		}
	}
	return 0
}

// Measurement returns the event as a measurement of register r.
func (e *Event) Measurement(r rtmr.Register) rtmr.Measurement {
	m := rtmr.Measurement{
		Register: r,
		Digests:  e.Digests,
		NoAction: e.EventType == EVNoAction,
		Entry:    e,
	}
	if r.Kind() == rtmr.KindPCR && r.Index() == 0 {
		m.Locality = e.locality()
	}
	return m
}
