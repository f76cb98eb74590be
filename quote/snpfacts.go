package quote

import (
	"fmt"
	"strconv"
)

// bitField is a flag or a number in a word of the report, by the name that the
// specification gives it: the bits first to last, counted from the lowest.
type bitField struct {
	name        string
	first, last int
}

func flag(name string, bit int) bitField { return bitField{name, bit, bit} }

func (f bitField) of(word uint64) uint64 {
	return word >> f.first & (1<<(f.last-f.first+1) - 1)
}

// snpPolicyFields are POLICY's, Guest Policy of document 56860. Bit 17 is always
// set.
var snpPolicyFields = []bitField{
	{"ABI_MINOR", 0, 7}, {"ABI_MAJOR", 8, 15}, flag("SMT", 16), flag("MIGRATE_MA", 18), flag("DEBUG", 19),
	flag("SINGLE_SOCKET", 20), flag("CXL_ALLOW", 21), flag("MEM_AES_256_XTS", 22), flag("RAPL_DIS", 23),
	flag("CIPHERTEXT_HIDING_DRAM", 24), flag("PAGE_SWAP_DISABLE", 25),
}

// snpPlatformFields are PLATFORM_INFO's.
var snpPlatformFields = []bitField{
	flag("SMT_EN", 0), flag("TSME_EN", 1), flag("ECC_EN", 2), flag("RAPL_DIS", 3),
	flag("CIPHERTEXT_HIDING_DRAM_EN", 4), flag("ALIAS_CHECK_COMPLETE", 5), flag("TIO_EN", 7),
}

var snpSignerFields = []bitField{flag("AUTHOR_KEY_EN", 0), flag("MASK_CHIP_KEY", 1), {"SIGNING_KEY", 2, 4}}

// wordFacts are a word in hexadecimal, and each of its fields as WORD.FIELD in
// decimal.
func wordFacts(name string, word uint64, fields []bitField) []Fact {
	facts := []Fact{{name, fmt.Sprintf("%#x", word)}}
	for _, f := range fields {
		facts = append(facts, decimal(name+"."+f.name, f.of(word)))
	}
	return facts
}

func decimal[N uint8 | uint32 | uint64](name string, n N) Fact {
	return Fact{name, strconv.FormatUint(uint64(n), 10)}
}

// tcbFacts are a TCB_VERSION, and the version of each firmware in it.
func (p *SNPReport) tcbFacts(name string, tcb uint64) []Fact {
	facts := []Fact{{name, fmt.Sprintf("%016x", tcb)}}
	for i, part := range p.layout() {
		if part != "" {
			facts = append(facts, decimal(name+"."+part, uint8(tcb>>(8*i))))
		}
	}
	return facts
}

func (f SNPFirmware) facts(name string) []Fact {
	return []Fact{decimal(name+"_MAJOR", f.Major), decimal(name+"_MINOR", f.Minor), decimal(name+"_BUILD", f.Build)}
}

// facts are the report's fields by their own names, in order of their offsets.
func (p *SNPReport) facts() (facts []Fact) {
	add := func(more ...Fact) { facts = append(facts, more...) }
	add(decimal("GUEST_SVN", p.GuestSVN))
	add(wordFacts("POLICY", p.Policy, snpPolicyFields)...)
	add(Fact{"FAMILY_ID", p.FamilyID.String()}, Fact{"IMAGE_ID", p.ImageID.String()}, decimal("VMPL", p.VMPL))
	add(p.tcbFacts("CURRENT_TCB", p.CurrentTCB)...)
	add(wordFacts("PLATFORM_INFO", p.PlatformInfo, snpPlatformFields)...)
	for _, f := range snpSignerFields {
		add(decimal(f.name, f.of(uint64(p.SignerInfo))))
	}
	add(Fact{"REPORT_DATA", p.ReportData.String()}, Fact{"MEASUREMENT", p.Measurement.String()}, Fact{"HOST_DATA", p.HostData.String()},
		Fact{"ID_KEY_DIGEST", p.IDKeyDigest.String()}, Fact{"AUTHOR_KEY_DIGEST", p.AuthorKeyDigest.String()},
		Fact{"REPORT_ID", p.ReportID.String()}, Fact{"REPORT_ID_MA", p.ReportIDMA.String()})
	add(p.tcbFacts("REPORTED_TCB", p.ReportedTCB)...)
	if p.Version >= 3 {
		add(decimal("CPUID_FAM_ID", p.CPUIDFamily), decimal("CPUID_MOD_ID", p.CPUIDModel), decimal("CPUID_STEP", p.CPUIDStepping))
	}
	add(Fact{"CHIP_ID", p.ChipID.String()})
	add(p.tcbFacts("COMMITTED_TCB", p.CommittedTCB)...)
	add(p.Current.facts("CURRENT")...)
	add(p.Committed.facts("COMMITTED")...)
	add(p.tcbFacts("LAUNCH_TCB", p.LaunchTCB)...)
	if p.Version >= 5 {
		add(Fact{"LAUNCH_MIT_VECTOR", fmt.Sprintf("%#x", p.LaunchMitVector)}, Fact{"CURRENT_MIT_VECTOR", fmt.Sprintf("%#x", p.CurrentMitVector)})
	}
	return facts
}
