package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"

	"tallystick/rtmr"
)

// snpLayout is which byte of a TCB_VERSION is the version of which firmware, the
// lowest byte first; "" is reserved. The names are the specification's, TCB_VERSION
// of document 56860.
type snpLayout [8]string

var (
	milanTCB = snpLayout{"BOOT_LOADER", "TEE", "", "", "", "", "SNP", "MICROCODE"} // Genoa's too
	turinTCB = snpLayout{"FMC", "BOOT_LOADER", "TEE", "SNP", "", "", "", "MICROCODE"}
)

// layout returns the layout of the report's TCB_VERSIONs. It is the processor's,
// which version 2 does not state; a Turin has a CHIP_ID of 8 bytes, and others
// one of 64.
func (p *SNPReport) layout() *snpLayout {
	short := allZero(p.ChipID[turinHWID:]) && !allZero(p.ChipID)
	if p.CPUIDFamily >= familyTurin || p.Version < abi.ReportVersion3 && short {
		return &turinTCB
	}
	return &milanTCB
}

const (
	familyMilan = 0x19 // Milan's and Genoa's
	familyTurin = 0x1A
	turinHWID   = 8
)

// productLine names the processor as its certificates' issuers do (AMD's VCEK
// Certificate and KDS Interface Specification, document 57230, "Determining the
// Product Name"); "" where the report does not say, or it is not known here.
func (p *SNPReport) productLine() string {
	switch family, model := p.CPUIDFamily, p.CPUIDModel; {
	case family == familyMilan && model <= 0x0F:
		return "Milan"
	case family == familyMilan && (model <= 0x1F || model >= 0xA0 && model <= 0xAF): // the latter are called Bergamo and Siena
		return "Genoa"
	case family == familyTurin && model <= 0x11:
		return "Turin"
	}
	return ""
}

// snpExtensions are what AMD writes in a VCEK's or VLEK's certificate about the
// key (document 57230). go-sev-guest's reader refuses Turin's, which have FMC's
// version and a shorter HWID.
type snpExtensions struct {
	tcb   [10]int // by the last arc of 1.3.6.1.4.1.3704.1.3: -1 where it is not there
	hwID  []byte  // nil where it is not there
	cspID string  // whose VLEK it is, as AMD knows them
}

// The security versions' last arcs.
const (
	splBootLoader, splTEE, splSNP = 1, 2, 3
	splMicrocode, splFMC          = 8, 9
)

var splOf = map[string]int{"BOOT_LOADER": splBootLoader, "TEE": splTEE, "SNP": splSNP, "MICROCODE": splMicrocode, "FMC": splFMC}

var oidSPL = kds.OidBlSpl[:len(kds.OidBlSpl)-1]

// snpExtensionsOf reads a certificate's extensions. The errors name the object
// identifier.
func snpExtensionsOf(cert *x509.Certificate) (*snpExtensions, error) {
	e := &snpExtensions{}
	for i := range e.tcb {
		e.tcb[i] = -1
	}
	for _, ext := range cert.Extensions {
		last := ext.Id[max(len(ext.Id)-1, 0):]
		var err error
		switch {
		case ext.Id.Equal(kds.OidHwid):
			e.hwID, err = hwID(ext.Value)
		case ext.Id.Equal(kds.OidCspID):
			err = exactly(ext.Value, &e.cspID, "ia5")
		case ext.Id[:max(len(ext.Id)-1, 0)].Equal(oidSPL) && last[0] > 0 && last[0] < len(e.tcb):
			spl := &e.tcb[last[0]]
			if err = exactly(ext.Value, spl, ""); err == nil && (*spl < 0 || *spl > 0xFF) {
				err = fmt.Errorf("%d, expected 0 to 255", *spl)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ext.Id, err)
		}
	}
	return e, nil
}

func exactly(der []byte, into any, params string) error {
	rest, err := asn1.UnmarshalWithParams(der, into, params)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes follow the value", len(rest))
	}
	return err
}

// hwID reads a chip's identifier, which AMD writes without a type: 8 bytes of a
// Turin, else 64.
func hwID(value []byte) ([]byte, error) {
	if n := len(value); n == turinHWID || n == abi.ChipIDSize {
		return value, nil
	}
	var octets []byte
	if err := exactly(value, &octets, ""); err != nil || len(octets) != turinHWID && len(octets) != abi.ChipIDSize {
		return nil, fmt.Errorf("a HWID of %d bytes, expected %d or %d", len(value), turinHWID, abi.ChipIDSize)
	}
	return octets, nil
}

// tcbVersion puts the versions together as the report has them.
func (e *snpExtensions) tcbVersion(layout *snpLayout) (tcb uint64, err error) {
	if has, want := e.tcb[splFMC] >= 0, layout == &turinTCB; has != want {
		return 0, fmt.Errorf("the certificate states a version of FMC: %t, and the report's processor has one: %t", has, want)
	}
	for i, name := range layout {
		if name == "" {
			continue
		}
		spl := e.tcb[splOf[name]]
		if spl < 0 {
			return 0, fmt.Errorf("the certificate states no version of %s (%s.%d)", name, oidSPL, splOf[name])
		}
		tcb |= uint64(spl) << (8 * i)
	}
	for _, spl := range []int{4, 5, 6, 7} { // reserved, as in the report
		if e.tcb[spl] > 0 {
			return 0, fmt.Errorf("the certificate states a version %d of %s.%d, which is reserved", e.tcb[spl], oidSPL, spl)
		}
	}
	return tcb, nil
}

// issuedFor holds what AMD writes in the certificate's extensions against the
// report: a VCEK's chip, and the firmware versions that both keys are derived
// from; and its issuer, which is of one line of processors, against the
// processor's.
func (p *SNPReport) issuedFor(leaf *x509.Certificate) error {
	ext, err := snpExtensionsOf(leaf)
	if err != nil {
		return fmt.Errorf("the certificate's extensions: %w", err)
	}
	if err := p.isHolder(ext); err != nil {
		return err
	}
	tcb, err := ext.tcbVersion(p.layout())
	if err != nil {
		return err
	}
	if tcb != p.ReportedTCB {
		return fmt.Errorf("the certificate is for the TCB %016x, the report's REPORTED_TCB is %016x", tcb, p.ReportedTCB)
	}
	issuer := leaf.Issuer.CommonName
	if line := p.productLine(); line != "" && issuer != "SEV-"+line && issuer != "SEV-VLEK-"+line {
		return fmt.Errorf("the certificate's issuer is %s, the report's processor is a %s", issuer, line)
	}
	return nil
}

// isHolder tells whether a VCEK is the chip's, and whether a VLEK has what makes
// it one: it is a provider's, and on all of its machines.
func (p *SNPReport) isHolder(ext *snpExtensions) error {
	vlek := p.signer() == abi.VlekReportSigner
	switch {
	case vlek && ext.cspID == "":
		return errors.New("the certificate names no CSP_ID, whose VLEK it is")
	case vlek && ext.hwID != nil:
		return errors.New("the certificate is of one chip, and a VLEK's is not")
	case vlek:
		return nil
	case ext.cspID != "":
		return errors.New("the certificate names a CSP_ID, and a VCEK's does not")
	case ext.hwID == nil:
		return errors.New("the certificate names no chip (HWID)")
	case allZero(p.ChipID): // masked by the host
		return nil
	case !bytes.Equal(p.ChipID[:len(ext.hwID)], ext.hwID) || !allZero(p.ChipID[len(ext.hwID):]):
		return fmt.Errorf("the certificate is of the chip %x, the report of %s", ext.hwID, rtmr.Hex(p.ChipID))
	}
	return nil
}
