package quote_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	sevtest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/verify/testdata"

	"tallystick/quote"
)

// amdLine is an authority in AMD's place for one line of processors, which
// makes what go-sev-guest's cannot: a Turin's certificates, and revocation lists.
// The extensions are those of real certificates of either kind.
type amdLine struct {
	t        testing.TB
	line     string
	key      *ecdsa.PrivateKey // that signs reports
	ark, ask *ecdsa.PrivateKey
	root     *x509.Certificate
	issuer   *x509.Certificate
}

func newAMD(t testing.TB, line string) *amdLine {
	t.Helper()
	a := &amdLine{t: t, line: line}
	for i, key := range []**ecdsa.PrivateKey{&a.ark, &a.ask, &a.key} {
		*key = fixedECC(line+strconv.Itoa(i), elliptic.P384())
	}
	ca := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: in2025.AddDate(-1, 0, 0), NotAfter: in2025.AddDate(1, 0, 0),
		}
	}
	root := ca("ARK-" + line)
	a.root = mustCertificate(t, create(t, root, root, a.ark.Public(), a.ark))
	a.issuer = mustCertificate(t, create(t, ca("SEV-"+line), a.root, a.ask.Public(), a.ark))
	return a
}

// roots are what to trust in place of AMD's.
func (a *amdLine) roots() []byte { return amdPEM(a.root.Raw, a.issuer.Raw) }

// ext are a certificate's extensions by the last arcs of 1.3.6.1.4.1.3704.1: 3.x
// security versions, 4 the chip, 5 the provider.
type ext struct {
	spl  map[int]int
	hwID []byte
	csp  string
}

// issue makes a certificate for the key that signs reports.
func (a *amdLine) issue(name string, e ext) []byte {
	a.t.Helper()
	marshal := func(v any, params string) []byte {
		b, err := asn1.MarshalWithParams(v, params)
		if err != nil {
			a.t.Fatal(err)
		}
		return b
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(0), Subject: pkix.Name{CommonName: name}, NotBefore: in2025.AddDate(-1, 0, 0), NotAfter: in2025.AddDate(1, 0, 0)}
	add := func(id asn1.ObjectIdentifier, value []byte) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Value: value})
	}
	add(kds.OidStructVersion, marshal(1, ""))
	add(kds.OidProductName1, marshal(a.line, "ia5"))
	for arc := range 10 {
		if v, ok := e.spl[arc]; ok {
			add(append(slices.Clone(kds.OidBlSpl[:9]), arc), marshal(v, ""))
		}
	}
	if e.hwID != nil {
		add(kds.OidHwid, e.hwID)
	}
	if e.csp != "" {
		add(kds.OidCspID, marshal(e.csp, "ia5"))
	}
	return create(a.t, c, a.issuer, a.key.Public(), a.ask)
}

// report signs a report.
func (a *amdLine) report(edit func(b []byte)) []byte {
	a.t.Helper()
	raw := sevtest.CreateRawReport(&sevtest.TestReportOptions{Version: 5})
	raw[0x0A] &^= 8 // debugging
	report := raw[:abi.ReportSize]
	edit(report)
	digest := sha512.Sum384(report[:0x2A0])
	r, s, err := ecdsa.Sign(rand.Reader, a.key, digest[:])
	if err == nil {
		err = abi.SetSignature(r, s, report)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return report
}

// crl is a revocation list of an authority's.
func crl(t testing.TB, issuer *x509.Certificate, key crypto.Signer, from time.Time, serials ...int64) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: from, NextUpdate: from.AddDate(0, 1, 0)}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: from})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func crlPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

var (
	turinChip = []byte{1, 2, 3, 4, 5, 6, 7, 8}
	milanChip = slices.Repeat([]byte{9}, 64)
	turinSPL  = map[int]int{9: 1, 1: 2, 2: 3, 3: 4, 5: 0, 6: 0, 7: 0, 8: 250}
	milanSPL  = map[int]int{1: 2, 2: 3, 3: 4, 4: 0, 5: 0, 6: 0, 7: 0, 8: 250}
)

// asTurin and asGenoa make a report one of such a processor, with the TCB of the
// security versions above: FMC 1, boot loader 2, TEE 3, SNP 4, microcode 250.
func asTurin(b []byte) {
	copy(b[0x188:], []byte{0x1A, 0x02, 0x01})
	copy(b[0x180:], []byte{1, 2, 3, 4, 0, 0, 0, 250})
	copy(b[0x1A0:0x1E0], make([]byte, 64))
	copy(b[0x1A0:], turinChip)
}

func asGenoa(b []byte) {
	copy(b[0x188:], []byte{0x19, 0x11, 0x01})
	copy(b[0x180:], []byte{2, 3, 0, 0, 0, 0, 4, 250})
	copy(b[0x1A0:], milanChip)
}

func without(m map[int]int, arc int) map[int]int { return with(m, arc, -1) }

func with(m map[int]int, arc, value int) map[int]int {
	out := map[int]int{}
	for k, v := range m {
		out[k] = v
	}
	if delete(out, arc); value >= 0 {
		out[arc] = value
	}
	return out
}

// TestSNPCertificateOf: the certificate's chip, security versions and line of
// processors are the report's, in the layout of either generation.
func TestSNPCertificateOf(t *testing.T) {
	turin, genoa := newAMD(t, "Turin"), newAMD(t, "Genoa")
	vlek := func(edit func([]byte)) func([]byte) {
		return func(b []byte) { edit(b); b[0x48] = 1 << 2 }
	}
	edited := func(edit func([]byte), at int, v byte) func([]byte) {
		return func(b []byte) { edit(b); b[at] = v }
	}
	for name, c := range map[string]struct {
		amd    *amdLine
		report func(b []byte)
		cert   string
		ext    ext
		says   string // of the chain that fails; "" if it holds
	}{
		"turin":                    {turin, asTurin, "SEV-VCEK", ext{turinSPL, turinChip, ""}, ""},
		"genoa":                    {genoa, asGenoa, "SEV-VCEK", ext{milanSPL, milanChip, ""}, ""},
		"bergamo":                  {genoa, edited(asGenoa, 0x189, 0xA0), "SEV-VCEK", ext{milanSPL, milanChip, ""}, ""},
		"turin_version_2":          {turin, func(b []byte) { asTurin(b); copy(b[0x188:], []byte{0, 0, 0}); b[0] = 2 }, "SEV-VCEK", ext{turinSPL, turinChip, ""}, ""},
		"genoa_masked_chip":        {genoa, func(b []byte) { asGenoa(b); clear(b[0x1A0:0x1E0]) }, "SEV-VCEK", ext{milanSPL, milanChip, ""}, ""},
		"chip_as_an_octet_string":  {genoa, asGenoa, "SEV-VCEK", ext{milanSPL, append([]byte{4, 64}, milanChip...), ""}, ""},
		"turin_vlek":               {turin, vlek(asTurin), "SEV-VLEK", ext{turinSPL, nil, "a provider"}, ""},
		"another_chip":             {turin, edited(asTurin, 0x1A7, 0), "SEV-VCEK", ext{turinSPL, turinChip, ""}, "of the chip 0102030405060708, the report of 01020304050607"},
		"chip_goes_on":             {turin, edited(asTurin, 0x1A8, 1), "SEV-VCEK", ext{turinSPL, turinChip, ""}, "of the chip 0102030405060708, the report of 0102030405060708"},
		"another_fmc":              {turin, edited(asTurin, 0x180, 2), "SEV-VCEK", ext{turinSPL, turinChip, ""}, "for the TCB fa00000004030201, the report's REPORTED_TCB is fa00000004030202"},
		"another_snp":              {turin, asTurin, "SEV-VCEK", ext{with(turinSPL, 3, 5), turinChip, ""}, "for the TCB fa00000005030201"},
		"another_microcode":        {genoa, asGenoa, "SEV-VCEK", ext{with(milanSPL, 8, 249), milanChip, ""}, "for the TCB f904000000000302"},
		"reserved_in_the_report":   {genoa, edited(asGenoa, 0x182, 1), "SEV-VCEK", ext{milanSPL, milanChip, ""}, "REPORTED_TCB is fa04000000010302"},
		"reserved_in_the_other":    {genoa, edited(asGenoa, 0x182, 1), "SEV-VCEK", ext{with(milanSPL, 4, 1), milanChip, ""}, "1.3.6.1.4.1.3704.1.3.4, which is reserved"},
		"fmc_of_a_genoa":           {genoa, asGenoa, "SEV-VCEK", ext{with(milanSPL, 9, 1), milanChip, ""}, "a version of FMC: true"},
		"turin_without_fmc":        {turin, asTurin, "SEV-VCEK", ext{without(turinSPL, 9), turinChip, ""}, "a version of FMC: false"},
		"no_version_of_snp":        {genoa, asGenoa, "SEV-VCEK", ext{without(milanSPL, 3), milanChip, ""}, "no version of SNP (1.3.6.1.4.1.3704.1.3.3)"},
		"no_version_at_all":        {genoa, asGenoa, "SEV-VCEK", ext{nil, milanChip, ""}, "no version of BOOT_LOADER"},
		"version_out_of_range":     {genoa, asGenoa, "SEV-VCEK", ext{with(milanSPL, 3, 256), milanChip, ""}, "1.3.6.1.4.1.3704.1.3.3: 256, expected 0 to 255"},
		"chip_of_7_bytes":          {turin, asTurin, "SEV-VCEK", ext{turinSPL, turinChip[:7], ""}, "a HWID of 7 bytes, expected 8 or 64"},
		"no_chip":                  {turin, asTurin, "SEV-VCEK", ext{turinSPL, nil, ""}, "names no chip"},
		"vcek_with_a_provider":     {turin, asTurin, "SEV-VCEK", ext{turinSPL, turinChip, "a provider"}, "names a CSP_ID, and a VCEK's does not"},
		"vlek_without_one":         {turin, vlek(asTurin), "SEV-VLEK", ext{turinSPL, nil, ""}, "names no CSP_ID"},
		"vlek_of_a_chip":           {turin, vlek(asTurin), "SEV-VLEK", ext{turinSPL, turinChip, "a provider"}, "is of one chip, and a VLEK's is not"},
		"genoa_by_turin's_issuer":  {turin, asGenoa, "SEV-VCEK", ext{milanSPL, milanChip, ""}, "issuer is SEV-Turin, the report's processor is a Genoa"},
		"milan_by_genoa's_issuer":  {genoa, edited(asGenoa, 0x189, 1), "SEV-VCEK", ext{milanSPL, milanChip, ""}, "issuer is SEV-Genoa, the report's processor is a Milan"},
		"of_a_processor_to_come":   {turin, edited(asTurin, 0x189, 0x50), "SEV-VCEK", ext{turinSPL, turinChip, ""}, ""},
		"turin's_versions_as_zen3": {turin, edited(asTurin, 0x188, 0x19), "SEV-VCEK", ext{turinSPL, turinChip, ""}, "a version of FMC: true"},
	} {
		t.Run(name, func(t *testing.T) {
			q, err := quote.Open(c.amd.report(c.report), quote.Options{Hardware: c.amd.issue(c.cert, c.ext), SNPRoots: c.amd.roots(), Time: in2025})
			if err != nil {
				t.Fatal(err)
			}
			status(t, q, quote.Signature, quote.Verified, "")
			if c.says != "" {
				status(t, q, quote.Chain, quote.Failed, c.says)
			} else {
				status(t, q, quote.Chain, quote.Verified, "no revocation list was given")
			}
			if q.Trusted() != (c.says == "") {
				t.Errorf("trusted is %t: %v", q.Trusted(), q.Links)
			}
			if want := c.ext.csp; c.says == "" && factNamed(q, "CSP_ID") != want {
				t.Errorf("CSP_ID %q, expected %q", factNamed(q, "CSP_ID"), want)
			}
		})
	}
}

// TestSNPManyCertificates: of a file with the certificates of many machines the
// report's own is taken, and of a table too.
func TestSNPManyCertificates(t *testing.T) {
	a := newAMD(t, "Turin")
	var many [][]byte
	for i := range 5 {
		many = append(many, a.issue("SEV-VCEK", ext{with(turinSPL, 3, i+2), turinChip, ""}), a.issue("SEV-VCEK", ext{turinSPL, []byte{byte(i), 2, 3, 4, 5, 6, 7, 8}, ""}))
	}
	report := a.report(asTurin)
	for name, hardware := range map[string][]byte{"pem": amdPEM(many...), "der": slices.Concat(many...), "table": tableOf(many...)} {
		q := open(t, report, quote.Options{Hardware: hardware, SNPRoots: a.roots(), Time: in2025})
		if !q.Trusted() {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
	q := open(t, report, quote.Options{Hardware: amdPEM(many[1:3]...), SNPRoots: a.roots(), Time: in2025})
	status(t, q, quote.Chain, quote.Failed, "the certificate is of the chip 0002030405060708")
}

// tableOf is a certificate table, as the host gives it to its guest.
func tableOf(entries ...[]byte) (table []byte) {
	at := 24 * (len(entries) + 1)
	for i, e := range entries {
		table = append(table, slices.Repeat([]byte{byte(i + 1)}, 16)...)
		table = binary.LittleEndian.AppendUint32(table, uint32(at))
		table = binary.LittleEndian.AppendUint32(table, uint32(len(e)))
		at += len(e)
	}
	return append(append(table, make([]byte, 24)...), slices.Concat(entries...)...)
}

// TestSNPRevocation: a root's list, beside the certificate or in the table behind
// the report, and what is wrong with it.
func TestSNPRevocation(t *testing.T) {
	a, other := newAMD(t, "Turin"), newAMD(t, "Genoa")
	cert, report := a.issue("SEV-VCEK", ext{turinSPL, turinChip, ""}), a.report(asTurin)
	ask := a.issuer.SerialNumber.Int64()
	for name, c := range map[string]struct {
		list []byte
		want quote.Status
		says string
	}{
		"empty":              {crl(t, a.root, a.ark, in2025), quote.Verified, "the revocation list of ARK-Turin, of 2025-06-01, has none of these"},
		"of_others":          {crl(t, a.root, a.ark, in2025, ask+1, 0), quote.Verified, ""}, // 0 is the serial number of every VCEK, whose issuer is not the root
		"the_issuer":         {crl(t, a.root, a.ark, in2025, 5, ask), quote.Failed, "ARK-Turin revoked SEV-Turin on 2025-06-01"},
		"expired":            {crl(t, a.root, a.ark, in2025.AddDate(0, -1, -1)), quote.Failed, "is for 2025-04-30 to 2025-05-30"},
		"of_the_future":      {crl(t, a.root, a.ark, in2025.AddDate(0, 0, 1)), quote.Failed, "is for 2025-06-02 to"},
		"another_root's":     {crl(t, other.root, other.ark, in2025), quote.Failed, "none is signed by ARK-Turin"},
		"by_the_issuer":      {crl(t, a.issuer, a.ask, in2025), quote.Failed, "none is signed by ARK-Turin"},
		"in_the_root's_name": {crl(t, a.root, other.ark, in2025), quote.Failed, "none is signed by ARK-Turin"},
	} {
		if name == "in_the_root's_name" { // which Go would not sign
			c.list = crl(t, a.root, a.ark, in2025)
			c.list[len(c.list)-1] ^= 1
		}
		for form, opened := range map[string]func() *quote.Quote{
			"beside": func() *quote.Quote {
				return open(t, report, quote.Options{Hardware: slices.Concat(amdPEM(cert), crlPEM(c.list)), SNPRoots: a.roots(), Time: in2025})
			},
			"table": func() *quote.Quote {
				return open(t, slices.Concat(report, tableOf(c.list, cert, []byte("neither"))), quote.Options{SNPRoots: a.roots(), Time: in2025})
			},
		} {
			q := opened()
			status(t, q, quote.Collateral, c.want, c.says)
			if q.Trusted() != (c.want == quote.Verified) {
				t.Errorf("%s, %s: trusted is %t", name, form, q.Trusted())
			}
		}
	}
	q := open(t, report, quote.Options{Hardware: slices.Concat(amdPEM(cert), crlPEM(crl(t, a.root, a.ark, in2025))), Time: in2025})
	status(t, q, quote.Collateral, quote.Missing, "no chain")
	if _, err := quote.Open(report, quote.Options{Hardware: pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: cert})}); err == nil {
		t.Error("a certificate was taken for a revocation list")
	}
}

// TestSNPFacts: fields by the specification's names, for people and for what is
// required of them; the numbers are go-sev-guest's.
func TestSNPFacts(t *testing.T) {
	p, _ := abi.ParseSnpPolicy(0)
	p.ABIMajor, p.ABIMinor, p.SMT, p.CXLAllowed, p.PageSwapDisable = 1, 55, true, true, true
	report := slices.Clone(numbered(5, &sevtest.TestReportOptions{Version: 5})[:abi.ReportSize])
	binary.LittleEndian.PutUint64(report[8:], abi.SnpPolicyToBytes(p))
	binary.LittleEndian.PutUint32(report[0x48:], abi.ComposeSignerInfo(abi.SignerInfo{SigningKey: abi.VlekReportSigner, AuthorKeyEn: true}))
	binary.LittleEndian.PutUint32(report[0x30:], 3)
	for layout, edit := range map[string]func([]byte){"milan": func([]byte) {}, "turin": func(b []byte) { b[0x188] = 0x1A }} {
		report := slices.Clone(report)
		edit(report)
		q := open(t, report, quote.Options{})
		want := map[string]string{
			"POLICY.ABI_MAJOR": "1", "POLICY.ABI_MINOR": "55", "POLICY.SMT": "1", "POLICY.MIGRATE_MA": "0", "POLICY.DEBUG": "0",
			"POLICY.SINGLE_SOCKET": "0", "POLICY.CXL_ALLOW": "1", "POLICY.MEM_AES_256_XTS": "0", "POLICY.RAPL_DIS": "0",
			"POLICY.CIPHERTEXT_HIDING_DRAM": "0", "POLICY.PAGE_SWAP_DISABLE": "1",
			"VMPL": "3", "SIGNING_KEY": "1", "AUTHOR_KEY_EN": "1", "MASK_CHIP_KEY": "0",
			"PLATFORM_INFO": "0xa5", "PLATFORM_INFO.SMT_EN": "1", "PLATFORM_INFO.TSME_EN": "0", "PLATFORM_INFO.ECC_EN": "1",
			"PLATFORM_INFO.RAPL_DIS": "0", "PLATFORM_INFO.CIPHERTEXT_HIDING_DRAM_EN": "0", "PLATFORM_INFO.ALIAS_CHECK_COMPLETE": "1", "PLATFORM_INFO.TIO_EN": "1",
			"REPORT_ID": hex.EncodeToString(report[0x140:0x160]), "FAMILY_ID": hex.EncodeToString(report[0x10:0x20]),
		}
		for name, at := range map[string]int{"CURRENT_TCB": 0x38, "REPORTED_TCB": 0x180, "COMMITTED_TCB": 0x1E0, "LAUNCH_TCB": 0x1F0} {
			parts := kds.DecomposeTCBVersion(kds.TCBVersion(binary.LittleEndian.Uint64(report[at:])))
			for part, v := range map[string]uint8{"BOOT_LOADER": parts.BlSpl, "TEE": parts.TeeSpl, "SNP": parts.SnpSpl, "MICROCODE": parts.UcodeSpl} {
				want[name+"."+part] = strconv.Itoa(int(v))
			}
			if want[name+".FMC"] = ""; layout == "turin" {
				for i, part := range []string{"FMC", "BOOT_LOADER", "TEE", "SNP"} {
					want[name+"."+part] = strconv.Itoa(int(report[at+i]))
				}
			}
		}
		for name, value := range want {
			if got := factNamed(q, name); got != value {
				t.Errorf("%s: %s is %q, expected %q", layout, name, got, value)
			}
		}
	}
	// What a version does not have is not shown as zeros.
	q := open(t, testdata.AttestationBytes, quote.Options{})
	for _, name := range []string{"CPUID_FAM_ID", "LAUNCH_MIT_VECTOR", "CURRENT_MIT_VECTOR", "CSP_ID"} {
		if got := factNamed(q, name); got != "" {
			t.Errorf("%s of version 2 is %q", name, got)
		}
	}
}

// TestSNPReserved: what a later firmware says where this version has nothing is
// told of, and changes nothing.
func TestSNPReserved(t *testing.T) {
	a := newAMD(t, "Turin")
	cert := a.issue("SEV-VCEK", ext{turinSPL, turinChip, ""})
	for _, at := range []int{0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F} {
		q := open(t, a.report(func(b []byte) { asTurin(b); b[at] = 1 }), quote.Options{Hardware: cert, SNPRoots: a.roots(), Time: in2025})
		if !q.Trusted() || len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "which version 5 reserves") {
			t.Errorf("%#x: trusted is %t, warnings %q", at, q.Trusted(), q.Warnings)
		}
	}
	q := open(t, a.report(func(b []byte) { asTurin(b); b[0], b[0x1F8] = 4, 1 }), quote.Options{})
	if len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "from 0x1f8 to 0x29f, which version 4 reserves") {
		t.Errorf("version 4: %q", q.Warnings)
	}
}

// TestSNPForms: as people paste it, and a report that the host asked for.
func TestSNPForms(t *testing.T) {
	report := testdata.AttestationBytes
	for name, data := range map[string][]byte{
		"hexadecimal": []byte(hex.EncodeToString(report) + "\n"), "base64": []byte(base64.StdEncoding.EncodeToString(report)),
	} {
		if q := open(t, data, quote.Options{Hardware: testdata.VcekBytes, Time: in2025}); q.Kind != quote.SNP {
			t.Errorf("%s: %s", name, q.Kind)
		} else {
			status(t, q, quote.Chain, quote.Verified, "")
		}
	}
	a := newAMD(t, "Turin")
	q := open(t, a.report(func(b []byte) { asTurin(b); binary.LittleEndian.PutUint32(b[0x30:], quote.SNPHostVMPL) }), quote.Options{})
	if got := factNamed(q, "VMPL"); got != "4294967295" {
		t.Errorf("VMPL %s", got)
	}
}
