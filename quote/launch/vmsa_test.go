package launch_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"

	"tallystick/internal/launchtest"
	"tallystick/quote/launch"
)

// The pages are those that sev-snp-measure --dump-vmsa wrote, by their SHA-256:
// 0.0.13, and where it says so 0.0.9 or 0.0.12. The first processor's, and the
// second's, which starts at 0x80B004.
func TestVMSA(t *testing.T) {
	for _, c := range []struct {
		name          string
		snp           launch.SNP
		first, second string
	}{
		{"QEMU", launch.SNP{VCPUs: launch.VCPUs{Signature: epycV4}}, vmsaQEMU[0], vmsaQEMU[1]},
		{"QEMU, FPU not written, 0.0.9", launch.SNP{VCPUs: launch.VCPUs{Signature: epycV4, FPU: launch.FPUZero}}, vmsaZeroFPU[0], vmsaZeroFPU[1]},
		{"EC2", launch.SNP{VMM: launch.EC2}, vmsaEC2[0], vmsaEC2[1]},
		{"EC2 of 2023, 0.0.12", launch.SNP{VMM: launch.EC2Initial}, vmsaEC2Initial[0], vmsaEC2Initial[1]},
		{"GCE", launch.SNP{VMM: launch.GCE}, vmsaGCE[0], vmsaGCE[1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.snp.Firmware, c.snp.VCPUs.Count = launchtest.Generic().Build(), 3
			m := first(c.snp.Measure())
			vmsas := m.Parts[len(m.Parts)-3:]
			for i, want := range []string{c.first, c.second, c.second} {
				if p := vmsas[i]; p.Content.String() != want || p.Type != launch.PageVMSA || p.GPA != 0xFFFFFFFFF000 || p.Size != launch.PageSize {
					t.Errorf("%+v\nexpected %s", p, want)
				}
			}
		})
	}
}

// saveArea is the start of a VMSA as AMD's table B-4 lists its fields, one after
// another.
type saveArea struct {
	Segments [10]struct {
		Selector, Attributes uint16
		Limit                uint32
		Base                 uint64
	}
	SSP         [4]uint64
	UCET        uint64
	_           [2]byte
	VMPL, CPL   byte
	_           [4]byte
	EFER        uint64
	_           [104]byte
	XSS, CR4    uint64
	CR3, CR0    uint64
	DR7, DR6    uint64
	RFLAGS, RIP uint64
	DR          [8]uint64 // DR0 to DR3, and their masks
	_           [24]byte
	RSP         uint64
	SCET        [3]uint64
	RAX         uint64
	MSRs        [9]uint64 // STAR .. CR2
	_           [32]byte
	GPAT        uint64
	Debug       [5]uint64
	_           [80]byte
	PKRU        uint32
	TSCAUX      uint32
	_           [24]byte
	RCX, RDX    uint64
	RBX         uint64
	_           uint64
	Registers   [11]uint64 // RBP .. R15
	_           [16]byte
	Exit        [4]uint64
	Features    uint64
	Control     [6]uint64
	XCR0        uint64
	_           [16]byte
	X87DP       uint64
	MXCSR       uint32
	FTW, FSW    uint16
	FCW         uint16
}

func rawVMSA(base uint64, rip, rdx uint64) []byte {
	a := saveArea{EFER: 0x1000, CR4: 0x40, CR0: 0x10, DR7: 0x400, DR6: 0xFFFF0FF0, RFLAGS: 2, RIP: rip, GPAT: 0x0007040600070406, RDX: rdx, Features: 1, XCR0: 1, MXCSR: 0x1F80, FCW: 0x37F}
	for i, attributes := range []uint16{0x93, 0x9B, 0x93, 0x93, 0x93, 0x93, 0, 0x82, 0, 0x8B} {
		a.Segments[i].Attributes, a.Segments[i].Limit = attributes, 0xFFFF
	}
	a.Segments[1].Selector, a.Segments[1].Base = 0xF000, base
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, &a); err != nil {
		panic(err)
	}
	return append(b.Bytes(), make([]byte, launch.PageSize-b.Len())...)
}

// VMSAs that are given are measured as they are; two of them stand for all.
func TestRawVMSAs(t *testing.T) {
	raw := slices.Concat(rawVMSA(0xFFFF0000, 0xFFF0, epycV4), rawVMSA(0x800000, 0xB004, epycV4))
	for _, count := range []int{2, 4, 240} {
		want := first(launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: count, Signature: epycV4}}.Measure())
		got := first(launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: count, Raw: raw}}.Measure())
		if !bytes.Equal(got.Digest, want.Digest) {
			t.Errorf("%d processors: %s, expected %s", count, got.Digest, want.Digest)
		}
	}
	one := first(launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 1, Raw: raw[:launch.PageSize]}}.Measure())
	if want := first(launch.SNP{Firmware: launchtest.AmdSev().Build(), VCPUs: launch.VCPUs{Count: 1, Signature: epycV4}}.Measure()); !bytes.Equal(one.Digest, want.Digest) {
		t.Errorf("one: %s, expected %s", one.Digest, want.Digest)
	}
	// SEV-ES: SHA-256 of image and pages.
	firmware := launchtest.AmdSev().Build()
	es := first(launch.SEV{Firmware: firmware, VCPUs: &launch.VCPUs{Count: 2, Raw: raw}}.Measure())
	if want := sha256.Sum256(append(firmware, raw...)); !bytes.Equal(es.Digest, want[:]) {
		t.Errorf("SEV-ES: %s, expected %s", es.Digest, hex.EncodeToString(want[:]))
	}
}

// Images from before the GUIDed table have the SEV-ES reset block alone in its
// place (QEMU, sev_es_find_reset_vector).
func TestResetBlockAlone(t *testing.T) {
	old := make([]byte, launch.PageSize)
	guid := launch.MustGUID(launchtest.Reset)
	at := len(old) - launchtest.AfterTable - 22
	binary.LittleEndian.PutUint32(old[at:], 0x80B004)
	binary.LittleEndian.PutUint16(old[at+4:], 22)
	copy(old[at+6:], guid[:])
	es := launch.SEV{Firmware: old, VCPUs: &launch.VCPUs{Count: 2, Signature: epycV4}}
	m := first(es.Measure())
	want := first(launch.SEV{Firmware: launchtest.AmdSev().Build(), VCPUs: es.VCPUs}.Measure())
	for i := 1; i <= 2; i++ {
		if !bytes.Equal(m.Parts[i].Content, want.Parts[i].Content) {
			t.Errorf("%s: %s, expected %s", m.Parts[i].Name, m.Parts[i].Content, want.Parts[i].Content)
		}
	}
	old[at+4] = 17
	if _, err := es.Measure(); err == nil {
		t.Error("a reset block below its header's size is accepted")
	}
	binary.LittleEndian.PutUint16(old[at+4:], 0xFFFF)
	if _, err := es.Measure(); err == nil {
		t.Error("a reset block beyond the image is accepted")
	}
	if _, err := (launch.SNP{Firmware: old, VCPUs: *es.VCPUs}).Measure(); err == nil {
		t.Error("SEV-SNP without a GUIDed table is accepted")
	}
}

var (
	vmsaQEMU       = [2]string{"591598a62aa556861a392da67feab71a919975d97a579eb1df12503178c9cbb3", "4ffee74d299a5d74748460fd6238d5cdbb7da2fe1c12476a9bf3c8ecdbdcd905"}
	vmsaZeroFPU    = [2]string{"ccb411482e4753359b61ded18c81436182dda0b416b34fef408bf6a6dab1c991", "2435579f36ab6a67a57d2f4b7770a25c51c1cfd30b3a4509887577d98076a969"}
	vmsaEC2        = [2]string{"d6c9d0409668043e96874082e992eb1a08393f1ad6f3c1be450e51bc2cc66004", "ce413781191b8f11f8cf1a4a5d9d7f9824356c02390b47ea0d33976bc2430b90"}
	vmsaEC2Initial = [2]string{"2e34ba6b30c36f8e07af06d7376c2398ecd65a75e2115ae5620fe856685261f0", "3531ece91b35b97ccf16590102a5a72dc9390b1211bbbc0c403f9cd123ee0aa6"}
	vmsaGCE        = [2]string{"a2b1355de1e1f11159d4cfaa28a748c6d19f63b330a7cb09696eda0c5f2f8ab8", "e62b24c0430d685360090aa7362d89bc9009a43794cdd274a57abb8fada49344"}
)
