package eventlog

import (
	"bytes"

	"tallystick/rtmr"
)

// Verify tells whether the event data explain d, which must be one of the
// event's digests. What a digest is a digest of depends on the event's type
// (TCG PFP 1.05 §10.4.1) and, for some, on who logged it:
//
//   - The type's data are what was measured, as every firmware does it:
//     Verified or Contradicts.
//   - The data only name what was measured (an image, a blob, a file), or may:
//     Verified if they happen to hash to d, else CannotCheck.
//   - The log held no digest and its reader made d from the data: CannotCheck.
//
// The type itself is not measured. Whoever forges the data can forge the type
// too, and turn Contradicts into CannotCheck, but into Verified only with data
// that d is a digest of. For EV_EFI_VARIABLE_BOOT that is the variable's
// contents alone: its name and GUID stay unproven.
//
// Nothing is allocated where the first rule of the type holds.
func (e *Event) Verify(d rtmr.Digest) (c rtmr.Check, computed []byte) {
	if e.unrecorded || !d.Alg.Available() || len(d.Sum) != d.Alg.Size() || e.EventData == nil {
		return rtmr.CannotCheck, nil
	}
	switch e.EventType {
	case EVSCRTMVersion, EVAction, EVEFIAction, EVEFIGPTEvent, EVEFIVariableBoot2:
		return mustBe(d, e.EventData)
	case EVSeparator:
		return e.verifySeparator(d)
	case EVEFIVariableDriverConfig:
		return e.verifyDriverConfig(d)
	case EVEFIVariableBoot:
		return e.verifyVariableBoot(d)
	case EVEFIVariableAuthority:
		return e.verifyAuthority(d)
	case EVIPL:
		return e.verifyIPL(d)
	case EVEventTag:
		return e.verifyTag(d)
	case EVDstack:
		return e.verifyDstack(d)
	}
	if measuresElsewhere[e.EventType] {
		return rtmr.CannotCheck, nil
	}
	return mayBe(d, e.EventData)
}

// measuresElsewhere has the types whose digest is of something that the log
// does not hold: a PE image's Authenticode digest, firmware volumes, tables in
// memory. EV_NO_ACTION has no digest at all, only zeros.
var measuresElsewhere = map[EventType]bool{
	EVNoAction:                 true,
	EVPostCode:                 true,
	EVPostCode2:                true,
	EVSCRTMContents:            true,
	EVCPUMicrocode:             true,
	EVEFIBootServicesApp:       true,
	EVEFIBootServicesDriver:    true,
	EVEFIRuntimeServicesDriver: true,
	EVEFIPlatformFirmwareBlob:  true,
	EVEFIPlatformFirmwareBlob2: true,
	EVEFIHandoffTables:         true,
	EVEFIHandoffTables2:        true,
	EVEFIHCRTMEvent:            true,
}

// mustBe is the check of a type whose digest genuine firmware always computes
// over main, or over one of the others where a known producer deviates.
func mustBe(d rtmr.Digest, main []byte, others ...[]byte) (rtmr.Check, []byte) {
	if hashesTo(d, main) {
		return rtmr.Verified, nil
	}
	if c, _ := mayBe(d, others...); c == rtmr.Verified {
		return c, nil
	}
	return rtmr.Contradicts, d.Alg.AppendHash(nil, main)
}

// mayBe is the check of a type whose data need not be what was measured.
func mayBe(d rtmr.Digest, candidates ...[]byte) (rtmr.Check, []byte) {
	for _, data := range candidates {
		if hashesTo(d, data) {
			return rtmr.Verified, nil
		}
	}
	return rtmr.CannotCheck, nil
}

func hashesTo(d rtmr.Digest, data []byte) bool {
	var buf [rtmr.MaxDigestSize]byte
	return bytes.Equal(d.Alg.AppendHash(buf[:0], data), d.Sum)
}

// separatorError is what firmware measures in place of a separator when
// measuring went wrong (TCG PFP 1.05 §10.4.1).
var separatorError = []byte{1, 0, 0, 0}

// verifySeparator checks the four bytes of a separator: 00000000, FFFFFFFF, or
// "WBCL" from the Windows loader. An error's data describe it in the
// manufacturer's own way, and its digest is of the value 1; data that say that
// all was well contradict it.
func (e *Event) verifySeparator(d rtmr.Digest) (rtmr.Check, []byte) {
	c, computed := mustBe(d, e.EventData)
	well := len(e.EventData) == 4 && (allAre(e.EventData, 0) || allAre(e.EventData, 0xFF))
	if c == rtmr.Contradicts && !well && hashesTo(d, separatorError) {
		return rtmr.CannotCheck, nil
	}
	return c, computed
}

// verifyDriverConfig checks a UEFI_VARIABLE_DATA structure, hashed whole.
// Lenovo's firmware with a TPM 1.2 (seen: N1FET43W) hashes the variable's data
// alone. That is accepted in a SHA-1 log only: elsewhere it would let a forger
// wrap a genuine event's data in a variable of another name.
func (e *Event) verifyDriverConfig(d rtmr.Digest) (rtmr.Check, []byte) {
	v, ok := parseVariable(e.EventData)
	if ok && len(e.Digests) == 1 && d.Alg == rtmr.SHA1 {
		return mustBe(d, e.EventData, v.data)
	}
	return mustBe(d, e.EventData)
}

// verifyVariableBoot checks a boot variable. EDK2 hashes the variable's data
// (SecurityPkg/Tcg/Tcg2Dxe, MeasureVariable), and so do most others; some
// workstations' firmware hashes the whole structure (go-eventlog's
// arch-linux-workstation and glinux-alex), as is the rule for
// EV_EFI_VARIABLE_BOOT2 (U-Boot's lib/efi_loader/efi_tcg2.c).
func (e *Event) verifyVariableBoot(d rtmr.Digest) (rtmr.Check, []byte) {
	v, ok := parseVariable(e.EventData)
	if !ok {
		return mustBe(d, e.EventData)
	}
	return mustBe(d, v.data, e.EventData)
}

// shimExtra is how many bytes an older shim logs behind a variable.
const shimExtra = 6

// verifyAuthority checks a UEFI_VARIABLE_DATA structure, hashed whole.
//
// Older shims hash five bytes of C structure padding behind the variable
// (tpm.c, tpm_measure_variable, before the structure was packed in 2019), and
// log one byte more than they hash: so the event data run six bytes past the
// variable's end, the last not measured.
func (e *Event) verifyAuthority(d rtmr.Digest) (rtmr.Check, []byte) {
	v, ok := parseVariable(e.EventData)
	if ok && v.extra == shimExtra {
		return mustBe(d, e.EventData, e.EventData[:len(e.EventData)-1])
	}
	return mustBe(d, e.EventData)
}

// verifyIPL checks what boot loaders log: GRUB's strings, which are always
// hashed, and names of files, variables and sections, whose contents are.
func (e *Event) verifyIPL(d rtmr.Digest) (rtmr.Check, []byte) {
	if text, withNUL, ok := grubString(e.EventData); ok {
		return mustBe(d, text, withNUL)
	}
	if c, _ := mayBe(d, e.EventData); c == rtmr.Verified || !isUTF16(e.EventData) {
		return c, nil
	}
	return e.verifyUTF16(d)
}

// grubPrefixes tell what kind of string GRUB measured. The prefix is logged
// and not measured. Those with a colon are GRUB's since 2.04
// (grub-core/commands/tpm.c), the others Red Hat's before that.
var grubPrefixes = [][]byte{
	[]byte("grub_cmd: "),
	[]byte("kernel_cmdline: "),
	[]byte("module_cmdline: "),
	[]byte("grub_cmd "),
	[]byte("grub_kernel_cmdline "),
}

// grubString returns what GRUB may have hashed of a logged string: without the
// NUL behind it, or (Red Hat's "grub_cmd") with it. Builds descended from
// Red Hat's (Alibaba Cloud Linux) log one stray byte behind the NUL. Anything
// longer there is no GRUB's doing, and is made part of the text, which then
// hashes to nothing genuine.
func grubString(data []byte) (text, withNUL []byte, ok bool) {
	for _, prefix := range grubPrefixes {
		s, found := bytes.CutPrefix(data, prefix)
		if !found {
			continue
		}
		n := bytes.IndexByte(s, 0)
		if n < 0 || len(s)-n > 2 {
			return s, s, true
		}
		return s[:n], s[:n+1], true
	}
	return nil, nil, false
}

// verifyUTF16 checks the strings of systemd-boot and systemd-stub: a kernel
// command line, hashed without its NUL or, by older versions, with it (and the
// oldest log one byte less than they hash); and a PE section's name, logged in
// UTF-16 and hashed in ASCII with its NUL (docs/TPM2_PCR_MEASUREMENTS.md).
// Other strings, and a section's second event, name what was measured.
func (e *Event) verifyUTF16(d rtmr.Digest) (rtmr.Check, []byte) {
	const sectionName = 8 // of PE, in characters
	text := bytes.TrimRight(e.EventData, "\x00")
	if len(text)%2 == 1 { // the high byte of the last character
		text = e.EventData[:len(text)+1]
	}
	if c, _ := mayBe(d, text); c == rtmr.Verified {
		return c, nil
	}
	if len(e.EventData)%2 == 1 {
		return mayBe(d, append(bytes.Clone(text), 0, 0))
	}
	if len(text) > 2*sectionName {
		return rtmr.CannotCheck, nil
	}
	var ascii [sectionName + 1]byte
	for i := range len(text) / 2 {
		ascii[i] = text[2*i]
	}
	return mayBe(d, ascii[:len(text)/2+1])
}

// verifyTag checks a TCG_PCClientTaggedEvent. CoCo's AAEL and the Windows
// loader's containers are hashed whole; the Linux EFI stub and systemd log a
// name and hash the contents.
func (e *Event) verifyTag(d rtmr.Digest) (rtmr.Check, []byte) {
	t, ok := parseTagged(e.EventData)
	if ok && (t.id == tagAAEL || t.isSIPAContainer()) {
		return mustBe(d, e.EventData)
	}
	return mayBe(d, e.EventData)
}
