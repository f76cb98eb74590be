package quote_test

import (
	"bytes"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/proto/sevsnp"
	sevtest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/testdata"
	"github.com/google/go-sev-guest/verify/trust"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// in2025 is when every real certificate here was valid.
var in2025 = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

// snpPair is a real report with its VCEK's certificate, DER.
type snpPair struct {
	name         string
	report, vcek []byte
	version      int
	stepping     uint32 // of the chip: Milan-B0 is 0
}

// snpPairs are go-sev-guest's (version 2) and, if it is here, the corpus'
// (version 3, in an HCL report).
func snpPairs(t testing.TB) []snpPair {
	t.Helper()
	pairs := []snpPair{{name: "go-sev-guest", report: testdata.AttestationBytes, vcek: testdata.VcekBytes, version: 2, stepping: 0}}
	if hcl, ok := corpusFile(t, "azure-snp/hcl_report.bin"); ok {
		vcek, _ := corpusFile(t, "azure-snp/vcek.bin")
		pairs = append(pairs, snpPair{name: "azure-snp", report: hcl[32:][:abi.ReportSize], vcek: vcek, version: 3})
	}
	return pairs
}

func corpusFile(t testing.TB, name string) ([]byte, bool) {
	t.Helper()
	path, ok := testlogs.Shared(t, "corpus", filepath.FromSlash(name))
	if !ok {
		return nil, false
	}
	return testlogs.Read(t, path), true
}

// statuses writes a quote's links as "signature=verified chain=missing", all but
// the policy, which TestSNPDebug is of.
func statuses(q *quote.Quote) string {
	var s []string
	for _, l := range q.Links {
		if l.Name == quote.Policy {
			continue
		}
		s = append(s, l.Name+"="+string(l.Status))
	}
	return strings.Join(s, " ")
}

func amdPEM(ders ...[]byte) (out []byte) {
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func factNamed(q *quote.Quote, name string) string {
	i := slices.IndexFunc(q.Facts, func(f quote.Fact) bool { return f.Name == name })
	if i < 0 {
		return ""
	}
	return q.Facts[i].Value
}

// Real reports verify, whichever way their certificate comes; go-sev-guest says
// so too.
func TestSNP(t *testing.T) {
	for _, pair := range snpPairs(t) {
		for form, hardware := range map[string][]byte{
			"der":           pair.vcek,
			"pem":           amdPEM(pair.vcek),
			"der_chain":     slices.Concat(pair.vcek, certDER(t, trust.AskArkMilanVcekBytes)),
			"pem_chain":     slices.Concat(amdPEM(pair.vcek), trust.AskArkMilanVcekBytes),
			"pem_ask_first": slices.Concat(trust.AskArkMilanVcekBytes, amdPEM(pair.vcek)),
		} {
			t.Run(pair.name+"/"+form, func(t *testing.T) {
				q, err := quote.Open(pair.report, quote.Options{Hardware: hardware, Time: in2025})
				if err != nil {
					t.Fatal(err)
				}
				if got := statuses(q); got != "signature=verified chain=verified nonce=not-checked" || q.Trusted() == debugged(pair.report) {
					t.Errorf("%s: %v", got, q.Links)
				}
				launch := rtmr.Values{rtmr.SHA384: {rtmr.Launch: pair.report[0x90:0xC0]}}
				if q.Kind != quote.SNP || q.Version != pair.version || !reflect.DeepEqual(q.Values, launch) {
					t.Errorf("kind %s, version %d, values %v", q.Kind, q.Version, q.Values)
				}
			})
		}
		if err := sevGuestVerifies(t, pair); err != nil {
			t.Errorf("%s: go-sev-guest does not verify it: %v", pair.name, err)
		}
	}
}

func sevGuestVerifies(t testing.TB, pair snpPair) error {
	t.Helper()
	report, err := abi.ReportToProto(pair.report)
	if err != nil {
		t.Fatal(err)
	}
	ask, ark, err := kds.ParseProductCertChain(trust.AskArkMilanVcekBytes)
	if err != nil {
		t.Fatal(err)
	}
	return verify.SnpAttestation(&sevsnp.Attestation{
		Report:           report,
		CertificateChain: &sevsnp.CertificateChain{VcekCert: pair.vcek, AskCert: ask, ArkCert: ark},
	}, &verify.Options{DisableCertFetching: true, Now: in2025,
		Product: &sevsnp.SevProduct{Name: sevsnp.SevProduct_SEV_PRODUCT_MILAN, MachineStepping: wrapperspb.UInt32(pair.stepping)}})
}

// numbered is a report in which no two bytes of a field are alike, where
// go-sev-guest's own leaves zeros.
func numbered(version uint32, opts *sevtest.TestReportOptions) []byte {
	raw := sevtest.CreateRawReport(opts)
	n := byte(1)
	for _, field := range [][2]int{{0x10, 0x30}, {0x38, 0x40}, {0x110, 0x188}, {0x1A0, 0x1EB}, {0x1EC, 0x1EF}, {0x1F0, 0x1F8}, {0x1F8, 0x208}} {
		if field[0] == 0x1F8 && version < 5 {
			continue // reserved
		}
		for i := field[0]; i < field[1]; i++ {
			raw[i] = n
			n++
		}
	}
	raw[0x40] = 0xA5 // PLATFORM_INFO
	return raw[:]
}

// The fields, against go-sev-guest's parser.
func TestParseSNP(t *testing.T) {
	reports := map[string][]byte{}
	for _, pair := range snpPairs(t) {
		reports[pair.name] = pair.report
	}
	for version := uint32(2); version <= 5; version++ {
		raw := numbered(version, &sevtest.TestReportOptions{Version: version, ReportData: []byte("data"), FMS: 0x00a00f11,
			SignerInfo: abi.SignerInfo{SigningKey: abi.VlekReportSigner}})
		reports["version_"+string('0'+rune(version))] = raw[:abi.ReportSize]
	}
	for name, report := range reports {
		t.Run(name, func(t *testing.T) {
			got, err := quote.ParseSNP(report)
			if err != nil {
				t.Fatal(err)
			}
			want, err := abi.ReportToProto(report)
			if err != nil {
				t.Fatal(err)
			}
			if got.Version != want.Version || got.GuestSVN != want.GuestSvn || got.Policy != want.Policy || got.VMPL != want.Vmpl ||
				got.SignatureAlgo != want.SignatureAlgo || got.SignerInfo != want.SignerInfo || got.ReportedTCB != want.ReportedTcb {
				t.Errorf("got %+v, want %v", got, want)
			}
			for field, pair := range map[string][2]uint64{
				"CURRENT_TCB": {got.CurrentTCB, want.CurrentTcb}, "COMMITTED_TCB": {got.CommittedTCB, want.CommittedTcb}, "LAUNCH_TCB": {got.LaunchTCB, want.LaunchTcb},
				"PLATFORM_INFO": {got.PlatformInfo, want.PlatformInfo}, "LAUNCH_MIT_VECTOR": {got.LaunchMitVector, want.LaunchMitVector},
				"CURRENT_MIT_VECTOR": {got.CurrentMitVector, want.CurrentMitVector},
				"CURRENT":            {firmware(got.Current), uint64(want.CurrentMajor<<16 | want.CurrentMinor<<8 | want.CurrentBuild)},
				"COMMITTED":          {firmware(got.Committed), uint64(want.CommittedMajor<<16 | want.CommittedMinor<<8 | want.CommittedBuild)},
				"CPUID":              {uint64(abi.FmsToCpuid1Eax(got.CPUIDFamily, got.CPUIDModel, got.CPUIDStepping)), uint64(want.Cpuid1EaxFms)},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s: got %x, want %x", field, pair[0], pair[1])
				}
			}
			for field, pair := range map[string][2][]byte{
				"REPORT_DATA": {got.ReportData, want.ReportData}, "MEASUREMENT": {got.Measurement, want.Measurement},
				"HOST_DATA": {got.HostData, want.HostData}, "CHIP_ID": {got.ChipID, want.ChipId}, "ID_KEY_DIGEST": {got.IDKeyDigest, want.IdKeyDigest},
				"FAMILY_ID": {got.FamilyID, want.FamilyId}, "IMAGE_ID": {got.ImageID, want.ImageId}, "AUTHOR_KEY_DIGEST": {got.AuthorKeyDigest, want.AuthorKeyDigest},
				"REPORT_ID": {got.ReportID, want.ReportId}, "REPORT_ID_MA": {got.ReportIDMA, want.ReportIdMa},
				"what is signed": {got.Signed, abi.SignedComponent(report)},
			} {
				if !bytes.Equal(pair[0], pair[1]) {
					t.Errorf("%s: got %x, want %x", field, pair[0], pair[1])
				}
			}
			if q, err := quote.Open(report, quote.Options{}); err != nil || q.Kind != quote.SNP {
				t.Errorf("not recognised: %v %v", q, err)
			}
		})
	}
}

func firmware(f quote.SNPFirmware) uint64 {
	return uint64(f.Major)<<16 | uint64(f.Minor)<<8 | uint64(f.Build)
}

// Each forgery, and the link that tells of it.
func TestSNPForged(t *testing.T) {
	for _, pair := range snpPairs(t) {
		other := otherVCEK(t, pair)
		for name, c := range map[string]struct {
			edit func(report []byte)
			opts quote.Options
			want string
		}{
			"no_certificate":       {nil, quote.Options{Hardware: []byte{}}, "signature=missing chain=missing nonce=not-checked"},
			"report_data":          {flipAt(0x50), quote.Options{}, "signature=failed chain=verified nonce=not-checked"},
			"measurement":          {flipAt(0x90), quote.Options{}, "signature=failed chain=verified nonce=not-checked"},
			"signature":            {flipAt(0x2A0), quote.Options{}, "signature=failed chain=verified nonce=not-checked"},
			"tcb":                  {flipAt(0x180), quote.Options{}, "signature=failed chain=failed nonce=not-checked"},
			"chip":                 {flipAt(0x1A0), quote.Options{}, "signature=failed chain=failed nonce=not-checked"},
			"unsigned":             {func(b []byte) { b[0x48] |= 7 << 2 }, quote.Options{}, "signature=failed chain=failed nonce=not-checked"},
			"says_vlek":            {func(b []byte) { b[0x48] |= 1 << 2 }, quote.Options{}, "signature=failed chain=failed nonce=not-checked"},
			"algorithm_0":          {func(b []byte) { b[0x34] = 0 }, quote.Options{}, "signature=failed chain=verified nonce=not-checked"},
			"before_it_was_issued": {nil, quote.Options{Time: in2025.AddDate(-10, 0, 0)}, "signature=verified chain=failed nonce=not-checked"},
			"expired":              {nil, quote.Options{Time: in2025.AddDate(10, 0, 0)}, "signature=verified chain=failed nonce=not-checked"},
			"vcek_of_another_chip": {nil, quote.Options{Hardware: other}, "signature=failed chain=failed nonce=not-checked"},
			"own_authority":        {nil, quote.Options{Hardware: ownChain(t)}, "signature=failed chain=failed nonce=not-checked"},
			"issuers_alone":        {nil, quote.Options{Hardware: trust.AskArkMilanVcekBytes}, "signature=failed chain=failed nonce=not-checked"},
			"wrong_nonce":          {nil, quote.Options{Nonce: []byte{1, 2, 3}}, "signature=verified chain=verified nonce=failed"},
		} {
			if other == nil && name == "vcek_of_another_chip" {
				continue
			}
			t.Run(pair.name+"/"+name, func(t *testing.T) {
				report := slices.Clone(pair.report)
				if c.edit != nil {
					c.edit(report)
				}
				if c.opts.Hardware == nil {
					c.opts.Hardware = pair.vcek
				}
				if c.opts.Time.IsZero() {
					c.opts.Time = in2025
				}
				q, err := quote.Open(report, c.opts)
				if err != nil {
					t.Fatal(err)
				}
				if got := statuses(q); got != c.want || q.Trusted() {
					t.Errorf("%s, want %s; trusted %v: %v", got, c.want, q.Trusted(), q.Links)
				}
			})
		}
	}
}

func flipAt(offset int) func([]byte) { return func(b []byte) { b[offset] ^= 1 } }

// certDER returns the certificates of a PEM file, one behind the other.
func certDER(t testing.TB, data []byte) (out []byte) {
	t.Helper()
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		out = append(out, block.Bytes...)
	}
	return out
}

// otherVCEK is another real chip's certificate, nil if only one is here.
func otherVCEK(t testing.TB, p snpPair) []byte {
	for _, other := range snpPairs(t) {
		if other.name != p.name {
			return other.vcek
		}
	}
	return nil
}

// ownChain is a whole chain in AMD's names, of an authority that is not AMD.
func ownChain(t testing.TB) []byte {
	t.Helper()
	s := ownSigner(t)
	return amdPEM(s.Vcek.Raw, s.Ask.Raw, s.Ark.Raw)
}

func ownSigner(t testing.TB) *sevtest.AmdSigner {
	t.Helper()
	s, err := sevtest.DefaultTestOnlyCertChain("Milan-B1", in2025)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A report that an authority of one's own signs has a good signature, and no
// chain: control that the two questions are apart.
func TestSNPOwnAuthority(t *testing.T) {
	s := ownSigner(t)
	report, table := ownReport(t, s, make([]byte, 64)), certTable(t, s)
	for name, c := range map[string]struct {
		data []byte
		opts quote.Options
	}{
		"given":        {report, quote.Options{Hardware: ownChain(t), Time: in2025}},
		"in_the_table": {slices.Concat(report, table), quote.Options{Time: in2025}},
	} {
		q, err := quote.Open(c.data, c.opts)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := statuses(q); got != "signature=verified chain=failed nonce=not-checked" || q.Trusted() {
			t.Errorf("%s: %s %v", name, got, q.Links)
		}
	}
}

func ownReport(t testing.TB, s *sevtest.AmdSigner, reportData []byte) []byte {
	t.Helper()
	raw := sevtest.CreateRawReport(&sevtest.TestReportOptions{Version: 2, ReportData: reportData})
	report := raw[:abi.ReportSize]
	r, sig, err := s.Sign(abi.SignedComponent(report))
	if err == nil {
		err = abi.SetSignature(r, sig, report)
	}
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func certTable(t testing.TB, s *sevtest.AmdSigner) []byte {
	t.Helper()
	table, err := s.CertTableBytes()
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A real report with its real certificate in a table behind it.
func TestSNPCertificateTable(t *testing.T) {
	for _, pair := range snpPairs(t) {
		table := make([]byte, 2*24, 2*24+len(pair.vcek))
		binary.LittleEndian.PutUint32(table[16:], uint32(len(table)))
		binary.LittleEndian.PutUint32(table[20:], uint32(len(pair.vcek)))
		table = append(table, pair.vcek...)
		q, err := quote.Open(slices.Concat(pair.report, table, make([]byte, 4096)), quote.Options{Time: in2025})
		if err != nil || q.Trusted() == debugged(pair.report) {
			t.Errorf("%s: %v %v", pair.name, q, err)
		}
	}
}

// go-sev-guest adds offset and length in 32 bits: such an entry makes it panic.
func TestSNPCertificateTableMalformed(t *testing.T) {
	report := testdata.AttestationBytes
	entry := func(offset, length uint32) []byte {
		e := bytes.Repeat([]byte{1}, 24)
		binary.LittleEndian.PutUint32(e[16:], offset)
		binary.LittleEndian.PutUint32(e[20:], length)
		return e
	}
	for name, table := range map[string][]byte{
		"sum_overflows":  slices.Concat(entry(0xFFFFFFFF, 2), make([]byte, 24)),
		"out_of_range":   slices.Concat(entry(48, 1), make([]byte, 24)),
		"cut":            {1, 2, 3},
		"many":           bytes.Repeat(entry(0, 24), 1000),
		"never_ends":     entry(0, 24)[:23],
		"length_is_huge": slices.Concat(entry(0, 0xFFFFFFFF), make([]byte, 24)),
	} {
		q, err := quote.Open(slices.Concat(report, table), quote.Options{})
		if err == nil || !strings.Contains(err.Error(), "certificate table") {
			t.Errorf("%s: %v %v", name, q, err)
		}
	}
}

func TestSNPNonce(t *testing.T) {
	nonce := []byte("a nonce of the verifier")
	report := ownReport(t, ownSigner(t), nonce)
	for name, c := range map[string]struct {
		nonce []byte
		want  quote.Status
	}{
		"exact":       {append(slices.Clone(nonce), make([]byte, 64-len(nonce))...), quote.Verified},
		"shorter":     {nonce, quote.Verified},
		"prefix_only": {nonce[:4], quote.Failed},
	} {
		q, err := quote.Open(report, quote.Options{Nonce: c.nonce})
		if err != nil {
			t.Fatal(err)
		}
		if l, _ := q.Link(quote.Nonce); l.Status != c.want {
			t.Errorf("%s: %v", name, l)
		}
	}
	if _, err := quote.Open(report, quote.Options{Nonce: make([]byte, 65)}); err == nil {
		t.Error("a nonce of 65 bytes was taken")
	}
}

func TestSNPTruncated(t *testing.T) {
	report := testdata.AttestationBytes
	for n := range report {
		if q, err := quote.ParseSNP(report[:n]); err == nil {
			t.Fatalf("%d bytes were read as %v", n, q)
		}
		if q, err := quote.Open(report[:n], quote.Options{}); err == nil {
			t.Fatalf("%d bytes were opened as %s", n, q.Kind)
		}
	}
}

func TestSNPVersionNotRead(t *testing.T) {
	for _, version := range []byte{6, 255} {
		report := slices.Clone(testdata.AttestationBytes)
		report[0] = version
		if _, err := quote.Open(report, quote.Options{}); !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "VERSION") {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

func TestSNPHardwareIsNoCertificate(t *testing.T) {
	for _, hardware := range [][]byte{{1}, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), testdata.AttestationBytes} {
		if q, err := quote.Open(testdata.AttestationBytes, quote.Options{Hardware: hardware}); err == nil {
			t.Errorf("%.10x was taken for a certificate: %v", hardware, q)
		}
	}
}

// debugged reports whether a report's policy lets the host debug the guest, as
// go-sev-guest's own does.
func debugged(report []byte) bool { return report[0x0A]&8 != 0 }

// TestSNPDebug: a guest that its host may debug is not to be trusted, whoever
// signed its report, and no option makes it so.
func TestSNPDebug(t *testing.T) {
	n := 0
	for _, pair := range snpPairs(t) {
		q, err := quote.Open(pair.report, quote.Options{Hardware: pair.vcek, Time: in2025, SkipSignature: true})
		if err != nil {
			t.Fatal(err)
		}
		want := quote.Verified
		if debugged(pair.report) {
			want = quote.Failed
			n++
		}
		if l, _ := q.Link(quote.Policy); l.Status != want || q.Trusted() != (want == quote.Verified) {
			t.Errorf("%s: POLICY %s: %v", pair.name, factNamed(q, "POLICY"), q.Links)
		}
	}
	if n == 0 {
		t.Error("no report of a guest under debug")
	}
}

func FuzzSNP(f *testing.F) {
	f.Add(testdata.AttestationBytes, testdata.VcekBytes)
	f.Add(slices.Concat(testdata.AttestationBytes, certTable(f, ownSigner(f))), []byte{})
	raw := sevtest.CreateRawReport(&sevtest.TestReportOptions{Version: 5})
	f.Add(raw[:abi.ReportSize], amdPEM(testdata.VcekBytes))
	f.Fuzz(func(t *testing.T, data, hardware []byte) {
		q, err := quote.Open(data, quote.Options{Hardware: hardware, Time: in2025})
		if err != nil || q.Kind != quote.SNP {
			return
		}
		p, err := quote.ParseSNP(data)
		if err != nil {
			t.Fatalf("opened, and not parsed: %v", err)
		}
		// AMD signed one report that is known here, and nobody can make another.
		if q.Trusted() && !bytes.Equal(p.Signed, abi.SignedComponent(testdata.AttestationBytes)) {
			t.Fatalf("a forged report is trusted: %v", q.Links)
		}
		if len(p.Signed)+512+len(p.Certificates) != len(data) {
			t.Fatal("bytes were lost")
		}
	})
}
