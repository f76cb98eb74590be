package quote_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	tdxtesting "github.com/google/go-tdx-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"
	"github.com/google/go-tdx-guest/verify"

	"tallystick/internal/testlogs"
	"tallystick/quote"
)

// intelCollateral is that of go-tdx-guest's quote, as Intel's service answered
// in June 2023.
func intelCollateral(t testing.TB) fstest.MapFS {
	t.Helper()
	chain := ""
	for _, value := range tdxtesting.TcbInfoHeader {
		chain = value[0]
	}
	return fstest.MapFS{
		"tcb":     {Data: testdata.TcbInfoBody},
		"qe":      {Data: testdata.QeIdentityBody},
		"headers": {Data: []byte("HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: " + chain + "\r\nContent-Type: application/json\r\n\r\n")},
		"pckcrl":  {Data: testdata.PckCrlBody},
		"root":    {Data: testdata.RootCrlBody},
	}
}

var june2023 = time.Date(2023, 7, 1, 1, 0, 0, 0, time.UTC)

// Intel's own files: signatures, revocations and QE are in order. The platform
// is of before the first TCB level, as go-tdx-guest finds, too.
func TestCollateralOfIntel(t *testing.T) {
	q := open(t, testdata.RawQuote, quote.Options{Time: june2023, Collateral: intelCollateral(t)})
	l, _ := q.Link(quote.Collateral)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(testlogs.Read(t, filepath.Join(testlogs.ModuleDir(t, testlogs.GoTDXGuest), "verify", "trusted_root.pem")))
	opts := &verify.Options{TrustedRoots: roots, GetCollateral: true, CheckRevocations: true, Getter: tdxtesting.TestGetter,
		Now: &verify.TimeSet{PckCertChain: june2023, TcbInfo: june2023, QeIdentity: june2023, PckCrl: june2023, RootCaCrl: june2023}}
	theirs := verify.RawTdxQuote(testdata.RawQuote, opts)
	if theirs == nil || !strings.Contains(theirs.Error(), "no matching TCB level found") {
		t.Errorf("go-tdx-guest: %v", theirs)
	}
	for _, part := range []string{"the platform reaches none of the 2 TCB levels: CPUSVN 0303", "QE UpToDate", "neither Intel SGX PCK Certificate nor its CA is revoked"} {
		if !strings.Contains(l.Text, part) {
			t.Errorf("%s: expected %q", l.Text, part)
		}
	}
	if l.Status != quote.Failed || strings.Contains(l.Text, "refuses") || q.Trusted() || len(q.Warnings) > 1 {
		t.Errorf("%v, trusted is %v, warnings %q", l, q.Trusted(), q.Warnings)
	}
}

// openWith opens a good quote with collateral.
func openWith(t testing.TB, files fstest.MapFS) (*quote.Quote, quote.Link) {
	t.Helper()
	p := thePlatform()
	opts := p.options()
	opts.Collateral = files
	q := open(t, p.sign(p.forgery(4, 0)), opts)
	wantLinks(t, q, map[string]quote.Status{quote.Signature: quote.Verified, quote.Chain: quote.Verified})
	l, _ := q.Link(quote.Collateral)
	if q.Trusted() != (l.Status == quote.Verified) {
		t.Errorf("trusted is %v, with collateral %s", q.Trusted(), l.Status)
	}
	return q, l
}

func TestCollateral(t *testing.T) {
	for _, v := range [][2]uint16{{4, 0}, {5, 2}, {5, 3}} {
		p := thePlatform()
		opts := p.options()
		opts.Collateral = p.collateral().files()
		q := open(t, p.sign(p.forgery(v[0], v[1])), opts)
		wantLinks(t, q, map[string]quote.Status{quote.Collateral: quote.Verified})
		if !q.Trusted() || len(q.Warnings) > 0 {
			t.Errorf("version %d: %v, warnings %q", v[0], q.Links, q.Warnings)
		}
	}
}

func TestCollateralStatus(t *testing.T) {
	level := func(status string) func(c *collateral) {
		return func(c *collateral) { c.levels[0]["tcbStatus"] = status }
	}
	module := func(status string) func(c *collateral) {
		return func(c *collateral) { c.module[0]["tcbStatus"] = status }
	}
	qe := func(status string) func(c *collateral) {
		return func(c *collateral) { c.ids[0]["tcbStatus"] = status }
	}
	both := func(a, b func(c *collateral)) func(c *collateral) {
		return func(c *collateral) { a(c); b(c) }
	}
	for name, test := range map[string]struct {
		edit func(c *collateral)
		want quote.Status
		text string
	}{
		"hardening needed":                  {level("SWHardeningNeeded"), quote.Verified, "TCB SWHardeningNeeded"},
		"configuration needed":              {level("ConfigurationNeeded"), quote.Verified, "TCB ConfigurationNeeded"},
		"both needed":                       {level("ConfigurationAndSWHardeningNeeded"), quote.Verified, "TCB ConfigurationAndSWHardeningNeeded"},
		"out of date":                       {level("OutOfDate"), quote.Failed, "TCB OutOfDate"},
		"out of date, configuration":        {level("OutOfDateConfigurationNeeded"), quote.Failed, "TCB OutOfDateConfigurationNeeded"},
		"revoked":                           {level("Revoked"), quote.Failed, "TCB Revoked"},
		"module out of date":                {module("OutOfDate"), quote.Failed, "TCB OutOfDate"},
		"module revoked":                    {module("Revoked"), quote.Failed, "TCB Revoked"},
		"configuration, module out of date": {both(level("ConfigurationNeeded"), module("OutOfDate")), quote.Failed, "TCB OutOfDateConfigurationNeeded"},
		"out of date, module up to date":    {both(level("OutOfDate"), module("UpToDate")), quote.Failed, "TCB OutOfDate"},
		"hardening, module up to date":      {both(level("SWHardeningNeeded"), module("UpToDate")), quote.Verified, "TCB SWHardeningNeeded"},
		"QE out of date":                    {qe("OutOfDate"), quote.Failed, "QE OutOfDate"},
		"QE revoked":                        {qe("Revoked"), quote.Failed, "QE Revoked"},
		"platform below the first level":    {func(c *collateral) { c.levels[0] = tcbLevelJSON([]byte{6}, 0, nil, "UpToDate") }, quote.Failed, "TCB OutOfDate"},
		"PCE below the first level":         {func(c *collateral) { c.levels[0] = tcbLevelJSON(nil, forgedPCESVN+1, nil, "UpToDate") }, quote.Failed, "TCB OutOfDate"},
		"late microcode below":              {func(c *collateral) { c.levels[0] = tcbLevelJSON(nil, 0, []byte{0, 0, 6}, "UpToDate") }, quote.Failed, "TCB OutOfDate"},
		"the module's SVN is not compared":  {func(c *collateral) { c.levels[0] = tcbLevelJSON(nil, 0, []byte{99, 99}, "UpToDate") }, quote.Verified, "TCB UpToDate"},
		"below all levels": {func(c *collateral) {
			c.levels = c.levels[:1]
			c.levels[0] = tcbLevelJSON([]byte{6}, 0, nil, "UpToDate")
		}, quote.Failed, "reaches none of the 1 TCB levels"},
		"no levels":                          {func(c *collateral) { c.levels = nil }, quote.Failed, "reaches none of the 0 TCB levels"},
		"module below the first level":       {func(c *collateral) { c.module[0]["tcb"] = map[string]any{"isvsvn": 5} }, quote.Failed, "INTEL-SA-00001"},
		"a level of three components":        {func(c *collateral) { c.levels[0]["tcb"].(map[string]any)["sgxtcbcomponents"] = []any{} }, quote.Failed, "0 SGX and 16 TDX components"},
		"QE below all levels":                {func(c *collateral) { c.ids = c.ids[:1]; c.ids[0]["tcb"] = map[string]any{"isvsvn": 9} }, quote.Failed, "the QE of SVN 4 reaches none"},
		"QE of another signer":               {func(c *collateral) { c.qe["mrsigner"] = strings.Repeat("00", 32) }, quote.Failed, "the QE's MRSIGNER is dcdc"},
		"QE of another product":              {func(c *collateral) { c.qe["isvprodid"] = 1 }, quote.Failed, "ISVPRODID is 2, Intel's is 1"},
		"QE with a debug attribute required": {func(c *collateral) { c.qe["attributes"] = "13000000000000000000000000000000" }, quote.Failed, "the QE's ATTRIBUTES"},
		"QE of another MISCSELECT":           {func(c *collateral) { c.qe["miscselect"] = "01000000" }, quote.Failed, "the QE's MISCSELECT"},
		"QE identity of version 1":           {func(c *collateral) { c.qe["version"] = 1 }, quote.Failed, "QE identity of version 1"},
		"TCB info of version 2":              {func(c *collateral) { c.tcb["version"] = 2 }, quote.Failed, "TCB info of version 2"},
		"PCK revoked":                        {func(c *collateral) { c.revokedByCA = []*big.Int{big.NewInt(1), thePlatform().pck.SerialNumber} }, quote.Failed, "Intel SGX PCK Certificate 1004 is revoked since"},
		"CA revoked":                         {func(c *collateral) { c.revokedByRoot = []*big.Int{thePlatform().ca.SerialNumber} }, quote.Failed, "Intel SGX PCK Platform CA 1002 is revoked"},
		"TCB signer revoked":                 {func(c *collateral) { c.revokedByRoot = []*big.Int{thePlatform().tcb.SerialNumber} }, quote.Failed, "Intel SGX TCB Signing 1003 is revoked"},
		"others revoked":                     {func(c *collateral) { c.revokedByCA = []*big.Int{big.NewInt(1), big.NewInt(2)} }, quote.Verified, "is revoked"},
		"PCK's list by another key":          {func(c *collateral) { c.caCRL = certify("Intel SGX PCK Platform CA", true, thePlatform().root, nil) }, quote.Failed, "list of Intel SGX PCK Platform CA is not signed by it"},
		"root's list by another key":         {func(c *collateral) { c.rootCRL = certify("Intel SGX Root CA", true, nil, nil) }, quote.Failed, "list of Intel SGX Root CA is not signed by it"},
		"signed by another key":              {func(c *collateral) { c.signer = thePlatform().ca }, quote.Failed, "TCB info: not signed by Intel SGX TCB Signing"},
		"TCB info expired":                   {func(c *collateral) { c.tcb["nextUpdate"] = "2026-05-31T00:00:00Z" }, quote.Failed, "TCB info expired on 2026-05-31T00:00:00Z"},
		"TCB info of tomorrow":               {func(c *collateral) { c.tcb["issueDate"] = "2026-06-02T00:00:00Z" }, quote.Failed, "TCB info is of 2026-06-02T00:00:00Z, after 2026-06-01"},
		"QE identity expired":                {func(c *collateral) { c.qe["nextUpdate"] = "2026-05-31T00:00:00Z" }, quote.Failed, "QE identity expired"},
		"TCB info of SGX":                    {func(c *collateral) { c.tcb["id"] = "SGX" }, quote.Missing, "for want of a TDX TCB info of FMSPC 0060f0000000"},
		"TCB info of another platform":       {func(c *collateral) { c.tcb["fmspc"] = "00906ED50000" }, quote.Missing, "for want of a TDX TCB info of FMSPC 0060f0000000"},
		"identity of SGX's QE":               {func(c *collateral) { c.qe["id"] = "QE" }, quote.Missing, "for want of the identity TD_QE"},
	} {
		t.Run(name, func(t *testing.T) {
			c := thePlatform().collateral()
			test.edit(c)
			q, l := openWith(t, c.files())
			if l.Status != test.want || !strings.Contains(l.Text, test.text) {
				t.Errorf("%s: %s\nexpected %s, %q", l.Status, l.Text, test.want, test.text)
			}
			if needed := strings.Contains(test.text, "Needed") && test.want == quote.Verified; needed != (len(q.Warnings) == 1) {
				t.Errorf("warnings %q", q.Warnings)
			}
		})
	}
}

// A TDX module that Intel did not sign.
func TestCollateralModule(t *testing.T) {
	p := thePlatform()
	for name, test := range map[string]struct {
		edit func(body []byte)
		want quote.Status
		text string
	}{
		"another signer":      {func(b []byte) { b[64] = 1 }, quote.Failed, "MRSIGNERSEAM is 01"},
		"other attributes":    {func(b []byte) { b[112] = 1 }, quote.Failed, "SEAMATTRIBUTES is 01"},
		"unknown version":     {func(b []byte) { b[1] = 9 }, quote.Failed, "no identity of the TDX module TDX_09"},
		"version 0, old SVN":  {func(b []byte) { b[0], b[1] = 4, 0 }, quote.Failed, "TCB OutOfDate"},
		"version 0, SVN of 5": {func(b []byte) { b[0], b[1] = 5, 0 }, quote.Verified, "TCB UpToDate"},
	} {
		f := p.forgery(5, 3)
		test.edit(f.body)
		opts := p.options()
		opts.Collateral = p.collateral().files()
		q := open(t, p.sign(f), opts)
		if l, _ := q.Link(quote.Collateral); l.Status != test.want || !strings.Contains(l.Text, test.text) {
			t.Errorf("%s: %v", name, l)
		}
	}
}

// One file missing: what it is for is told, and the rest is checked; but who gives
// a folder counts on all of it.
func TestCollateralMissing(t *testing.T) {
	for file, text := range map[string]string{
		"tcb.json":   "not checked: the TCB level, for want of a TDX TCB info",
		"qe.json":    "not checked: the QE, for want of the identity TD_QE",
		"chain.pem":  "for want of its issuer chain with the certificate Intel SGX TCB Signing",
		"pckcrl":     "not checked: revocation of Intel SGX PCK Certificate, for want of the list of Intel SGX PCK Platform CA",
		"rootca.crl": "not checked: revocation of Intel SGX PCK Platform CA, for want of the list of Intel SGX Root CA",
	} {
		files := thePlatform().collateral().files()
		delete(files, file)
		if _, l := openWith(t, files); l.Status != quote.Missing || !strings.Contains(l.Text, text) {
			t.Errorf("without %s: %v", file, l)
		}
	}
	if _, l := openWith(t, fstest.MapFS{}); l.Status != quote.Missing {
		t.Errorf("an empty folder: %v", l)
	}
	opts := thePlatform().options()
	opts.Collateral = fstest.MapFS{".": {Data: []byte("a file")}}
	if _, err := quote.Open(thePlatform().sign(thePlatform().forgery(4, 0)), opts); err == nil {
		t.Error("a folder that cannot be read is no error")
	}
}

// The certificates outlive the collateral.
func TestCollateralTime(t *testing.T) {
	p := thePlatform()
	for name, at := range map[string]time.Time{"a month later": forgedAt.AddDate(0, 1, 0), "a month before": forgedAt.AddDate(0, -1, 0)} {
		opts := p.options()
		opts.Time, opts.Collateral = at, p.collateral().files()
		q := open(t, p.sign(p.forgery(4, 0)), opts)
		wantLinks(t, q, map[string]quote.Status{quote.Chain: quote.Verified, quote.Collateral: quote.Failed})
		l, _ := q.Link(quote.Collateral)
		said := "expired on 2026-06-21T12:00:00Z"
		if at.Before(forgedAt) {
			said = "is of 2026-05-22T12:00:00Z, after"
		}
		for _, what := range []string{"TCB info ", "QE identity ", "list of Intel SGX Root CA ", "list of Intel SGX PCK Platform CA "} {
			if !strings.Contains(l.Text, what+said) {
				t.Errorf("%s: %s\nexpected %q", name, l.Text, what+said)
			}
		}
	}
}

// What Intel did not sign must not get past what it did.
func TestCollateralForgery(t *testing.T) {
	c := thePlatform().collateral()
	c.levels[0]["tcbStatus"] = "OutOfDate"
	bad := c.files()["tcb.json"].Data
	c.levels[0]["tcbStatus"] = "UpToDate"
	var good map[string]json.RawMessage
	if err := json.Unmarshal(c.files()["tcb.json"].Data, &good); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		tcb  string
		text string
	}{
		"status edited":       {strings.Replace(string(bad), `"tcbStatus":"OutOfDate"`, `"tcbStatus":"UpToDate"`, 1), "not signed by Intel SGX TCB Signing"},
		"a second key":        {strings.TrimSuffix(string(bad), "}") + `,"TCBINFO":` + string(good["tcbInfo"]) + "}", "TCB OutOfDate"},
		"a second key before": {`{"TCBInfo":` + string(good["tcbInfo"]) + "," + string(bad[1:]), "TCB OutOfDate"},
		"the same key twice":  {strings.TrimSuffix(string(bad), "}") + `,"tcbInfo":` + string(good["tcbInfo"]) + "}", "not signed by Intel SGX TCB Signing"},
		"no signature":        {`{"tcbInfo":` + string(good["tcbInfo"]) + "}", "its signature is not 64 bytes"},
	} {
		files := c.files()
		files["tcb.json"] = &fstest.MapFile{Data: []byte(test.tcb)}
		if _, l := openWith(t, files); l.Status != quote.Failed || !strings.Contains(l.Text, test.text) {
			t.Errorf("%s: %v, expected %q", name, l, test.text)
		}
	}
	// A signer that the trusted root did not certify, and one of another name.
	p := thePlatform()
	for name, signer := range map[string]*signer{
		"self-signed":   certify("Intel SGX TCB Signing", false, nil, nil),
		"under its own": certify("Intel SGX TCB Signing", false, certify("Intel SGX Root CA", true, nil, nil), nil),
	} {
		c := p.collateral()
		c.signer = signer
		files := c.files()
		files["chain.pem"] = &fstest.MapFile{Data: pemOf(signer, p.root)}
		if _, l := openWith(t, files); l.Status != quote.Failed || !strings.Contains(l.Text, "unknown authority") {
			t.Errorf("%s: %v", name, l)
		}
	}
	c = p.collateral()
	c.signer = p.pck
	files := c.files()
	files["chain.pem"] = &fstest.MapFile{Data: pemOf(p.pck, p.ca, p.root)}
	if _, l := openWith(t, files); l.Status == quote.Verified {
		t.Errorf("signed by the PCK: %v", l)
	}
}

// The forms in which tools leave the same files.
func TestCollateralForms(t *testing.T) {
	p := thePlatform()
	original := p.collateral().files()
	data := func(name string) []byte { return original[name].Data }
	header := "SGX-Enclave-Identity-Issuer-Chain: " + strings.ReplaceAll(url.QueryEscape(string(pemOf(p.tcb, p.root))), "+", "%20")
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, data("tcb.json"), "", "\t"); err != nil {
		t.Fatal(err)
	}
	crlPEM := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: data("pckcrl")})
	file := func(b []byte) *fstest.MapFile { return &fstest.MapFile{Data: b} }
	for name, edit := range map[string]func(files fstest.MapFS){
		"pretty-printed":       func(f fstest.MapFS) { f["tcb.json"] = file(pretty.Bytes()) },
		"lists in PEM":         func(f fstest.MapFS) { f["pckcrl"] = file(crlPEM) },
		"lists in hexadecimal": func(f fstest.MapFS) { f["rootca.crl"] = file([]byte(hex.EncodeToString(data("rootca.crl")))) },
		"headers of curl -D":   func(f fstest.MapFS) { f["chain.pem"] = file([]byte("HTTP/2 200\r\n" + header + "\r\n\r\n")) },
		"curl -i": func(f fstest.MapFS) {
			delete(f, "chain.pem")
			f["qe.json"] = file([]byte("HTTP/2 200\r\n" + header + "\r\n\r\n" + string(data("qe.json"))))
		},
		"the signer in DER":  func(f fstest.MapFS) { f["chain.pem"] = file(p.tcb.Raw) },
		"a link":             func(f fstest.MapFS) {},
		"all in one PEM":     func(f fstest.MapFS) { f["pckcrl"] = file(append(crlPEM, pemOf(p.tcb)...)); delete(f, "chain.pem") },
		"a subfolder beside": func(f fstest.MapFS) { f["old/tcb.json"] = file([]byte("not read")) },
		"another platform's": func(f fstest.MapFS) {
			c := p.collateral()
			c.tcb["fmspc"] = "00906ED50000"
			c.levels = nil
			f["a.json"] = c.files()["tcb.json"]
		},
		"an older one": func(f fstest.MapFS) {
			c := p.collateral()
			c.tcb["issueDate"] = "2026-01-01T00:00:00Z"
			c.tcb["nextUpdate"] = "2026-02-01T00:00:00Z"
			f["a.json"] = c.files()["tcb.json"]
		},
		"DCAP's in one object": func(f fstest.MapFS) {
			clear(f)
			f["collateral.json"] = file(dcapBundle(t, original))
		},
	} {
		files := p.collateral().files()
		// The same documents, since signatures are not the same twice.
		for name := range files {
			files[name] = original[name]
		}
		edit(files)
		if q, l := openWith(t, files); l.Status != quote.Verified || len(q.Warnings) > 0 {
			t.Errorf("%s: %v, warnings %q", name, l, q.Warnings)
		}
	}
}

// dcapBundle puts all in one object, as sgx_ql_qve_collateral_t has it.
func dcapBundle(t *testing.T, files fstest.MapFS) []byte {
	t.Helper()
	bundle := map[string]any{
		"tcb_info_issuer_chain": string(files["chain.pem"].Data), "qe_identity_issuer_chain": string(files["chain.pem"].Data),
		"pck_crl_issuer_chain": string(pemOf(thePlatform().ca, thePlatform().root)),
		"root_ca_crl":          hex.EncodeToString(files["rootca.crl"].Data), "pck_crl": hex.EncodeToString(files["pckcrl"].Data),
	}
	for key, part := range map[string]struct{ file, name string }{"tcb_info": {"tcb.json", "tcbInfo"}, "qe_identity": {"qe.json", "enclaveIdentity"}} {
		var doc map[string]json.RawMessage
		if err := json.Unmarshal(files[part.file].Data, &doc); err != nil {
			t.Fatal(err)
		}
		bundle[key] = string(doc[part.name])
		var signature string
		json.Unmarshal(doc["signature"], &signature)
		bundle[key+"_signature"] = signature
	}
	return must(json.Marshal(bundle))
}

// What is none of it, the user hears of.
func TestCollateralWarnings(t *testing.T) {
	for name, content := range map[string]string{
		"README.md": "# Collateral\n", "empty": "", "cut.json": `{"tcbInfo":{"id":`, "other.json": `{"a":1}`, "status.json": `{"tcbInfo":{"tcbLevels":[{"tcbStatus":"Fine"}]}}`,
		"bad.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cut.pem": "-----BEGIN CERTIFICATE-----\nAAAA", "zeros": "0000", "\x1b[31m": "x",
		"twice.txt": "A: -----BEGIN%20\n\nB: -----BEGIN%20",
	} {
		files := thePlatform().collateral().files()
		files[name] = &fstest.MapFile{Data: []byte(content)}
		c, err := quote.ReadTDXCollateral(files)
		if err != nil || len(c.Warnings) != 1 || strings.ContainsAny(c.Warnings[0], "\n\x1b") {
			t.Errorf("%q: %q, %v", name, c.Warnings, err)
		}
	}
	many := fstest.MapFS{}
	for i := range 1001 {
		many[fmt.Sprint(i)] = &fstest.MapFile{}
	}
	if _, err := quote.ReadTDXCollateral(many); err == nil {
		t.Error("1001 files are read")
	}
}
