package quote_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"tallystick/quote"
)

// A TDX platform of the tests' own: a root that the tests trust, its CAs, a PCK
// and a quoting enclave. What Intel's certificates look like, those in
// go-tdx-guest's quotes show.

// forgedAt is when all of it is valid.
var forgedAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

type platform struct {
	root, ca, pck, tcb *signer
	attestation        *ecdsa.PrivateKey
}

// signer is a certificate and its key.
type signer struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// thePlatform is made once: quotes by it differ only in what a test edits.
var thePlatform = sync.OnceValue(func() *platform {
	p := &platform{attestation: newKey()}
	p.root = certify("Intel SGX Root CA", true, nil, nil)
	p.ca = certify("Intel SGX PCK Platform CA", true, p.root, nil)
	p.tcb = certify("Intel SGX TCB Signing", false, p.root, nil)
	p.pck = certify("Intel SGX PCK Certificate", false, p.ca, sgxExtension())
	return p
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// newKey makes the same keys in every run, so that a fuzz target's workers trust
// what the process that wrote the seeds has signed.
func newKey() *ecdsa.PrivateKey {
	keys++
	scalar := sha256.Sum256(fmt.Appendf(nil, "a key of tallystick's tests, number %d", keys))
	return must(ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:]))
}

var keys int

var serial int64 = 0x1000

// certify makes a certificate; a nil issuer signs itself.
func certify(name string, ca bool, issuer *signer, extra []pkix.Extension) *signer {
	serial++
	s := &signer{key: newKey()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Tests"}},
		NotBefore:    forgedAt.AddDate(-1, 0, 0), NotAfter: forgedAt.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, IsCA: ca,
		SubjectKeyId:          big.NewInt(serial).Bytes(),
		CRLDistributionPoints: []string{"https://crl.example/root.der"},
		SignatureAlgorithm:    x509.ECDSAWithSHA256, ExtraExtensions: extra,
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	if issuer == nil {
		issuer = &signer{template, s.key}
		template.AuthorityKeyId = template.SubjectKeyId
	}
	s.Certificate = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, issuer.Certificate, &s.key.PublicKey, issuer.key))))
	return s
}

// The platform's TCB, as its PCK certificate and its quotes state it.
var (
	forgedFMSPC  = []byte{0, 0x60, 0xF0, 0, 0, 0}
	forgedCPUSVN = []byte{5, 5, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0}
	forgedSVN    = []byte{4, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

const forgedPCESVN = 11

// sgxExtension is the PCK certificate's: PPID, TCB, PCEID, FMSPC (Intel SGX PCK
// Certificate and CRL Profile Specification).
func sgxExtension() []pkix.Extension {
	oid := func(rest ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, rest...)
	}
	type field struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	tcb := []field{}
	for i, svn := range forgedCPUSVN {
		tcb = append(tcb, field{oid(2, i+1), int(svn)})
	}
	tcb = append(tcb, field{oid(2, 17), forgedPCESVN}, field{oid(2, 18), forgedCPUSVN})
	all := []field{{oid(1), make([]byte, 16)}, {oid(2), tcb}, {oid(3), []byte{0, 0}}, {oid(4), forgedFMSPC}}
	return []pkix.Extension{{Id: oid(), Value: must(asn1.Marshal(all))}}
}

// forgery is a quote before it is signed.
type forgery struct {
	header      []byte // 48 bytes
	body        []byte
	bodyType    uint16 // version 5
	qeReport    []byte
	authData    []byte
	certType    uint16 // of the PCK certification data
	chain       []byte
	outerType   uint16
	trailing    []byte
	attestation *ecdsa.PrivateKey
}

func (p *platform) forgery(version, bodyType uint16) *forgery {
	f := &forgery{bodyType: bodyType, outerType: 6, certType: 5, attestation: p.attestation}
	f.header = append(le16(version), 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0)
	f.header = append(f.header, unhex("939a7233f79c4ca9940a0db3957f0607")...)
	f.header = append(f.header, make([]byte, 20)...)
	f.body = make([]byte, map[uint16]int{0: 584, 2: 584, 3: 648}[bodyType])
	for i := range f.body {
		f.body[i] = byte(i*7 + i>>8) // so that no two fields are the same
	}
	copy(f.body, forgedSVN)
	clear(f.body[64:120])  // MRSIGNERSEAM, SEAMATTRIBUTES: Intel's module
	clear(f.body[120:128]) // TDATTRIBUTES
	f.qeReport = make([]byte, 384)
	copy(f.qeReport[48:], unhex("11000000000000000000000000000000"))
	copy(f.qeReport[128:], bytes.Repeat([]byte{0xDC}, 32)) // MRSIGNER
	f.qeReport[256], f.qeReport[258] = 2, 4                // ISVPRODID, ISVSVN
	f.authData = []byte("authentication data")
	f.chain = pemOf(p.pck, p.ca, p.root)
	return f
}

// sign makes the quote.
func (p *platform) sign(f *forgery) []byte {
	signed := slices.Clone(f.header)
	if f.header[0] == 5 {
		signed = append(signed, le16(f.bodyType)...)
		signed = append(signed, le32(len(f.body))...)
	}
	signed = append(signed, f.body...)
	key := must(f.attestation.PublicKey.Bytes())[1:]
	bound := sha256.Sum256(append(slices.Clone(key), f.authData...))
	copy(f.qeReport[320:], bound[:])

	cert := slices.Concat(f.qeReport, rawSign(p.pck.key, f.qeReport), le16(uint16(len(f.authData))), f.authData, le16(f.certType), le32(len(f.chain)), f.chain)
	auth := slices.Concat(rawSign(f.attestation, signed), key, le16(f.outerType), le32(len(cert)), cert)
	return slices.Concat(signed, le32(len(auth)), auth, f.trailing)
}

// options trust the tests' root, at the time when everything is valid.
func (p *platform) options() quote.Options {
	return quote.Options{TDXRoots: pemOf(p.root), Time: forgedAt}
}

func rawSign(key *ecdsa.PrivateKey, data []byte) []byte {
	sum := sha256.Sum256(data)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		panic(err)
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

func pemOf(certs ...*signer) (b []byte) {
	for _, c := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

func le16(n uint16) []byte  { return binary.LittleEndian.AppendUint16(nil, n) }
func le32(n int) []byte     { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }
func unhex(s string) []byte { return must(hex.DecodeString(s)) }

// collateral is what Intel would publish about the platform: the names are
// those of the JSON.
type collateral struct {
	tcb, qe             map[string]any
	levels, module, ids []map[string]any // TCB levels: platform, TDX module, QE
	revokedByCA         []*big.Int
	revokedByRoot       []*big.Int
	signer              *signer
	rootCRL, caCRL      *signer
}

func (p *platform) collateral() *collateral {
	issued, until := forgedAt.AddDate(0, 0, -10).Format(time.RFC3339), forgedAt.AddDate(0, 0, 20).Format(time.RFC3339)
	zeros := fmt.Sprintf("%096d", 0)
	c := &collateral{signer: p.tcb, rootCRL: p.root, caCRL: p.ca}
	c.levels = []map[string]any{
		tcbLevelJSON(forgedCPUSVN, forgedPCESVN, []byte{5, 0, 5}, "UpToDate"),
		tcbLevelJSON(make([]byte, 16), 0, nil, "OutOfDate"),
	}
	c.module = []map[string]any{
		{"tcb": map[string]any{"isvsvn": 4}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"},
		{"tcb": map[string]any{"isvsvn": 2}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "OutOfDate", "advisoryIDs": []string{"INTEL-SA-00001"}},
	}
	c.ids = []map[string]any{
		{"tcb": map[string]any{"isvsvn": 4}, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate"},
		{"tcb": map[string]any{"isvsvn": 1}, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "OutOfDate"},
	}
	c.tcb = map[string]any{
		"id": "TDX", "version": 3, "issueDate": issued, "nextUpdate": until, "fmspc": hex.EncodeToString(forgedFMSPC), "pceId": "0000",
		"tcbType": 0, "tcbEvaluationDataNumber": 18,
		"tdxModule": map[string]any{"mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"},
	}
	c.qe = map[string]any{
		"id": "TD_QE", "version": 2, "issueDate": issued, "nextUpdate": until, "tcbEvaluationDataNumber": 18,
		"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11000000000000000000000000000000",
		"attributesMask": "FBFFFFFFFFFFFFFF0000000000000000", "mrsigner": hex.EncodeToString(bytes.Repeat([]byte{0xDC}, 32)), "isvprodid": 2,
	}
	return c
}

func tcbLevelJSON(cpu []byte, pce int, tdx []byte, status string) map[string]any {
	components := func(svn []byte) (list []map[string]any) {
		for i := range 16 {
			n := 0
			if i < len(svn) {
				n = int(svn[i])
			}
			list = append(list, map[string]any{"svn": n})
		}
		return list
	}
	return map[string]any{
		"tcb":     map[string]any{"sgxtcbcomponents": components(cpu), "pcesvn": pce, "tdxtcbcomponents": components(tdx)},
		"tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": status,
	}
}

// files are the collateral as a folder of files.
func (c *collateral) files() fstest.MapFS {
	c.tcb["tcbLevels"] = c.levels
	zeros := fmt.Sprintf("%096d", 0)
	c.tcb["tdxModuleIdentities"] = []map[string]any{{"id": "TDX_01", "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF", "tcbLevels": c.module}}
	c.qe["tcbLevels"] = c.ids
	p := thePlatform()
	return fstest.MapFS{
		"tcb.json":   {Data: c.document("tcbInfo", c.tcb)},
		"qe.json":    {Data: c.document("enclaveIdentity", c.qe)},
		"chain.pem":  {Data: pemOf(p.tcb, p.root)},
		"pckcrl":     {Data: revocationList(c.caCRL, c.revokedByCA)},
		"rootca.crl": {Data: revocationList(c.rootCRL, c.revokedByRoot)},
	}
}

func (c *collateral) document(key string, body map[string]any) []byte {
	raw := must(json.Marshal(body))
	return fmt.Appendf(nil, `{"%s":%s,"signature":"%x"}`, key, raw, rawSign(c.signer.key, raw))
}

func revocationList(issuer *signer, serials []*big.Int) []byte {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: forgedAt.AddDate(0, 0, -10), NextUpdate: forgedAt.AddDate(0, 0, 20)}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: forgedAt.AddDate(0, 0, -11)})
	}
	return must(x509.CreateRevocationList(rand.Reader, list, issuer.Certificate, issuer.key))
}

// wantLinks compares the statuses of links.
func wantLinks(t testing.TB, q *quote.Quote, want map[string]quote.Status) {
	t.Helper()
	for name, status := range want {
		if l, ok := q.Link(name); !ok || l.Status != status {
			t.Errorf("link %s is %q (%s), expected %q", name, l.Status, l.Text, status)
		}
	}
}
