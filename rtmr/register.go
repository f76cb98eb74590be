package rtmr

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Kind is a family of registers.
type Kind uint8

// The families. KindNone is the zero value: "no register".
const (
	KindNone   Kind = iota
	KindMRTD        // TDX: the TD's build-time measurement
	KindRIM         // Arm CCA: the realm's initial measurement
	KindLaunch      // SEV, SEV-SNP: the launch digest, an SNP report's MEASUREMENT; s390: PLD
	KindPCR         // TPM: platform configuration registers 0..23
	KindRTMR        // TDX: run-time measurement registers 0..3
	KindREM         // Arm CCA: realm extensible measurements 0..3

	// RISC-V's CoVE: a TVM's initial measurements 0..7, which are fixed once it is
	// finalized, and its runtime measurements 0..17 (RISC-V CoVE specification, TVM
	// Measurements). These are their names; no evidence and no log of a TVM is read
	// here.
	KindTVMInitial
	KindTVMRuntime
)

// PCR is the index of a TPM's platform configuration register, 0 to 23.
type PCR uint32

// Index is the 0-based index of a run-time register: 2 is RTMR2, or REM2 in a
// realm. It is not the index that CCEL uses (eventlog.CCMRIndex, which is
// 1-based) and not a PCR index.
type Index uint32

// Register names one measurement register. The zero value is no register.
// Registers are comparable and order by Compare.
type Register struct {
	kind  Kind
	index uint8
}

// The static registers: measured once at launch, never extended by a guest.
var (
	MRTD = Register{kind: KindMRTD}
	RIM  = Register{kind: KindRIM}
	// Launch is SHA-384 over what SEV-SNP's firmware was told to measure (56860,
	// SNP_LAUNCH_UPDATE), and SHA-256 in SEV and SEV-ES (55766, LAUNCH_MEASURE); and
	// SHA-512 over the pages of a Secure Execution image, its header's PLD.
	Launch = Register{kind: KindLaunch}
)

// NumPCRs is how many PCRs a PC Client TPM has; NumRTMRs how many run-time
// registers a TD and a realm have.
const (
	NumPCRs  = 24
	NumRTMRs = 4

	// The most that a TVM has: an implementation may have fewer.
	NumTVMInitial = 8
	NumTVMRuntime = 18
)

// Register returns the PCR's register; ok is false above 23.
func (p PCR) Register() (r Register, ok bool) {
	if p >= NumPCRs {
		return Register{}, false
	}
	return Register{KindPCR, uint8(p)}, true
}

// CC returns the register into which a measurement meant for this PCR goes in
// a TD: PCR 0 to MRTD, 1 and 7 to RTMR0, 2-6 to RTMR1, 8-15 to RTMR2
// (UEFI 2.10 §38.4.1). ok is false above 15, where there is no rule.
func (p PCR) CC() (r Register, ok bool) {
	switch {
	case p == 0:
		return MRTD, true
	case p == 1 || p == 7:
		return Register{KindRTMR, 0}, true
	case p <= 6:
		return Register{KindRTMR, 1}, true
	case p <= 15:
		return Register{KindRTMR, 2}, true
	}
	return Register{}, false
}

// RTMR returns TDX's register of that index; ok is false above 3.
func (i Index) RTMR() (r Register, ok bool) {
	if i >= NumRTMRs {
		return Register{}, false
	}
	return Register{KindRTMR, uint8(i)}, true
}

// REM returns the Arm CCA register of that index; ok is false above 3.
func (i Index) REM() (r Register, ok bool) {
	if i >= NumRTMRs {
		return Register{}, false
	}
	return Register{KindREM, uint8(i)}, true
}

// TVMInitial returns the initial measurement register of a CoVE TVM of that index;
// ok is false above 7.
func (i Index) TVMInitial() (r Register, ok bool) {
	if i >= NumTVMInitial {
		return Register{}, false
	}
	return Register{KindTVMInitial, uint8(i)}, true
}

// TVMRuntime returns the runtime measurement register of a CoVE TVM of that index;
// ok is false above 17.
func (i Index) TVMRuntime() (r Register, ok bool) {
	if i >= NumTVMRuntime {
		return Register{}, false
	}
	return Register{KindTVMRuntime, uint8(i)}, true
}

// Realm returns the Arm CCA register that stands where TDX has r: REM0 to REM3
// for RTMR0 to RTMR3, RIM for MRTD. Any other register is returned as it is.
func (r Register) Realm() Register {
	switch r.kind {
	case KindMRTD:
		return RIM
	case KindRTMR:
		return Register{KindREM, r.index}
	}
	return r
}

// MustParse is ParseRegister for names in source code; it panics on an error.
func MustParse(name string) Register {
	r, err := ParseRegister(name)
	if err != nil {
		panic(err)
	}
	return r
}

// ParseRegister reads the spelling that String writes.
func ParseRegister(s string) (Register, error) {
	switch s {
	case "mrtd":
		return MRTD, nil
	case "rim":
		return RIM, nil
	case "launch":
		return Launch, nil
	}
	if i := strings.IndexAny(s, "0123456789"); i > 0 {
		n, err := strconv.ParseUint(s[i:], 10, 8)
		canonical := err == nil && strconv.FormatUint(n, 10) == s[i:]
		var r Register
		ok := false
		switch s[:i] {
		case "pcr":
			r, ok = PCR(n).Register()
		case "rtmr":
			r, ok = Index(n).RTMR()
		case "rem":
			r, ok = Index(n).REM()
		case "tvm-initial":
			r, ok = Index(n).TVMInitial()
		case "tvm-runtime":
			r, ok = Index(n).TVMRuntime()
		}
		if ok && canonical {
			return r, nil
		}
	}
	return Register{}, fmt.Errorf("unknown register %q, expected pcr0..pcr23, rtmr0..rtmr3, rem0..rem3, tvm-initial0..tvm-initial7, tvm-runtime0..tvm-runtime17, mrtd, rim or launch", s)
}

// Kind returns the register's family.
func (r Register) Kind() Kind { return r.kind }

// Index returns the register's 0-based index within its family.
func (r Register) Index() int { return int(r.index) }

// IsZero reports whether this is no register at all.
func (r Register) IsZero() bool { return r == Register{} }

// Static reports whether the register is fixed at launch and cannot be extended.
func (r Register) Static() bool {
	return r.kind >= KindMRTD && r.kind <= KindLaunch || r.kind == KindTVMInitial
}

// String returns the one spelling of the register: "pcr10", "rtmr2", "mrtd";
// "-" for the zero value.
func (r Register) String() string {
	switch r.kind {
	case KindMRTD:
		return "mrtd"
	case KindRIM:
		return "rim"
	case KindLaunch:
		return "launch"
	case KindPCR:
		return "pcr" + strconv.Itoa(int(r.index))
	case KindRTMR:
		return "rtmr" + strconv.Itoa(int(r.index))
	case KindREM:
		return "rem" + strconv.Itoa(int(r.index))
	case KindTVMInitial:
		return "tvm-initial" + strconv.Itoa(int(r.index))
	case KindTVMRuntime:
		return "tvm-runtime" + strconv.Itoa(int(r.index))
	}
	return "-"
}

// MarshalText makes a Register a JSON string or object key.
func (r Register) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Register) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRegister(string(text))
	return err
}

// Compare orders registers: static ones, PCRs, RTMRs, REMs, a TVM's, each by index.
func (r Register) Compare(s Register) int {
	return cmp.Or(cmp.Compare(r.kind, s.kind), cmp.Compare(r.index, s.index))
}

// ResetValue returns the register's value after a reset, before anything was
// extended: zeros, but for the PCRs 17 to 22, which are all ones until a
// dynamic launch sets them to zeros (PC Client Platform TPM Profile, PCR Initial
// and Reset Values).
func (r Register) ResetValue(a Alg) []byte {
	if r.dynamic() {
		return bytes.Repeat([]byte{0xFF}, a.Size())
	}
	return make([]byte, a.Size())
}

// StartValue returns the value from which the first extend of a log folds. It
// differs from ResetValue for the PCRs 17 to 22 alone: only a dynamic launch
// can have made them extendable, and that sets them to zeros.
func (r Register) StartValue(a Alg) []byte { return make([]byte, a.Size()) }

func (r Register) dynamic() bool {
	return r.kind == KindPCR && r.index >= 17 && r.index <= 22
}
