package quote_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"tallystick/quote"
	"tallystick/rtmr"
)

// sevPlatform is a platform of SEV's, with keys of AMD's formats: certificates are put
// together by hand from the tables of document 55766. That such certificates are
// read as AMD's own are, was tried on those of a Naples and of a Rome, which the
// virtee project publishes: both lead to the root keys that are known here.
type sevPlatform struct {
	ark, ask           *rsa.PrivateKey
	oca, pek, cek, pdh *ecdsa.PrivateKey
	root               []byte // an X.509 certificate of the ARK
	made               map[string][]byte
}

var theSEVPlatform = sync.OnceValue(func() *sevPlatform {
	p := &sevPlatform{ark: fixedRSA("sev ark", 2048), ask: fixedRSA("sev ask", 2048)}
	for name, key := range map[string]**ecdsa.PrivateKey{"oca": &p.oca, "pek": &p.pek, "cek": &p.cek, "pdh": &p.pdh} {
		*key = fixedECC("sev "+name, elliptic.P384())
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ARK-Test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: in2025.AddDate(-1, 0, 0), NotAfter: in2025.AddDate(1, 0, 0)}
	p.root = amdPEM(must(x509.CreateCertificate(rand.Reader, c, c, p.ark.Public(), p.ark)))
	return p
})

func little(n *big.Int, size int) []byte {
	b := n.FillBytes(make([]byte, size))
	slices.Reverse(b)
	return b
}

func sevDigest(algo uint32, body []byte) (crypto.Hash, []byte) {
	if algo&0x100 != 0 {
		sum := sha512.Sum384(body)
		return crypto.SHA384, sum[:]
	}
	sum := sha256.Sum256(body)
	return crypto.SHA256, sum[:]
}

// sevSign signs as AMD's firmware does: numbers are little-endian.
func sevSign(key crypto.Signer, algo uint32, body []byte) (signature []byte) {
	hash, digest := sevDigest(algo, body)
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			panic(err)
		}
		return append(little(r, 72), little(s, 72)...)
	}
	signature = must(rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
	slices.Reverse(signature)
	return signature
}

type sevSigner struct {
	usage, algo uint32
	key         crypto.Signer
}

// sevCertificate is a certificate of a platform's key.
func sevCertificate(usage, algo uint32, key *ecdsa.PrivateKey, signers ...sevSigner) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x824)
	le.PutUint32(b, 1)
	b[4], b[5] = 0, 24
	le.PutUint32(b[8:], usage)
	le.PutUint32(b[12:], algo)
	le.PutUint32(b[16:], map[elliptic.Curve]uint32{elliptic.P256(): 1, elliptic.P384(): 2}[key.Curve])
	copy(b[20:], little(key.X, 72))
	copy(b[92:], little(key.Y, 72))
	for i := range 2 {
		at := 0x414 + i*0x208
		le.PutUint32(b[at:], 0x1000) // none
		if i < len(signers) {
			le.PutUint32(b[at:], signers[i].usage)
			le.PutUint32(b[at+4:], signers[i].algo)
			copy(b[at+8:], sevSign(signers[i].key, signers[i].algo, b[:0x414]))
		}
	}
	return b
}

// amdCertificate is a certificate of an authority's.
func amdCertificate(usage uint32, key, by *rsa.PrivateKey) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0x40)
	le.PutUint32(b, 1)
	le.PutUint32(b[0x24:], usage)
	le.PutUint32(b[0x38:], 2048)
	le.PutUint32(b[0x3C:], 2048)
	b = append(b, little(big.NewInt(int64(key.E)), 256)...)
	b = append(b, little(key.N, 256)...)
	return append(b, sevSign(by, 1, b)...)
}

// certs are the platform's certificates, and the authorities', by name.
func (p *sevPlatform) certs() map[string][]byte {
	if p.made == nil {
		p.made = p.make()
	}
	return maps.Clone(p.made)
}

func (p *sevPlatform) make() map[string][]byte {
	return map[string][]byte{
		"ark": amdCertificate(0, p.ark, p.ark), "ask": amdCertificate(0x13, p.ask, p.ark),
		"cek": sevCertificate(0x1004, 2, p.cek, sevSigner{0x13, 1, p.ask}),
		"oca": sevCertificate(0x1001, 2, p.oca, sevSigner{0x1001, 2, p.oca}),
		"pek": sevCertificate(0x1002, 2, p.pek, sevSigner{0x1001, 2, p.oca}, sevSigner{0x1004, 2, p.cek}),
		"pdh": sevCertificate(0x1003, 3, p.pdh, sevSigner{0x1002, 2, p.pek}),
	}
}

func joined(certs map[string][]byte) (all []byte) {
	for _, name := range []string{"pdh", "pek", "oca", "cek", "ask", "ark"} {
		all = append(all, certs[name]...)
	}
	return all
}

// report signs an attestation report.
func (p *sevPlatform) report(algo uint32, edit func(b []byte)) []byte {
	le := binary.LittleEndian
	b := make([]byte, 0xD0)
	copy(b, "a nonce of 16 by")
	copy(b[0x10:], bytes.Repeat([]byte{0x5A}, 32))
	le.PutUint32(b[0x30:], 0x27)
	le.PutUint32(b[0x34:], 0x1002)
	le.PutUint32(b[0x38:], algo)
	if edit != nil {
		edit(b)
	}
	copy(b[0x40:], sevSign(p.pek, algo, b[:0x34]))
	return b
}

func (p *sevPlatform) options() quote.Options {
	return quote.Options{Hardware: joined(p.certs()), SNPRoots: p.root, Time: in2025, Nonce: []byte("a nonce of 16 by")}
}

// TestSEVReport: a report in each form, by either hash.
func TestSEVReport(t *testing.T) {
	p := theSEVPlatform()
	for _, algo := range []uint32{2, 0x102} {
		report := p.report(algo, nil)
		b64 := base64.StdEncoding.EncodeToString(report)
		for form, data := range map[string][]byte{
			"binary": report, "base64": []byte(b64), "hexadecimal": []byte(hex.EncodeToString(report)),
			"QEMU's": []byte(`{"return": {"data": "` + b64 + `"}}`), "data alone": []byte(`{"data": "` + b64 + `"}`),
		} {
			q := open(t, data, p.options())
			if got, want := statuses(q), "signature=verified chain=verified nonce=verified"; got != want || !q.Trusted() || q.Kind != quote.SEV {
				t.Errorf("%s: %s: %s, trusted %t: %v", form, q.Kind, got, q.Trusted(), q.Links)
			}
			status(t, q, quote.Chain, quote.Verified, "PEK, CEK, ASK, ARK-Test (a given root)")
			if launch := q.Launch()[rtmr.SHA256][rtmr.Launch]; !bytes.Equal(launch, report[0x10:0x30]) || factNamed(q, "POLICY.ES") != "1" {
				t.Errorf("%s: launch %s", form, launch)
			}
		}
	}
	// Without the issuers, where the roots that are given have an ASK in X.509.
	certs := p.certs()
	delete(certs, "ark")
	delete(certs, "ask")
	delete(certs, "oca")
	o := p.options()
	ark := mustCertificate(t, certDER(t, p.root))
	for name, want := range map[string]bool{"SEV-Test": true, "SEV-VLEK-Test": false} {
		ask := create(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: in2025.AddDate(-1, 0, 0), NotAfter: in2025.AddDate(1, 0, 0)}, ark, p.ask.Public(), p.ark)
		o.Hardware, o.SNPRoots = joined(certs), append(amdPEM(ask), p.root...)
		if q := open(t, p.report(2, nil), o); q.Trusted() != want {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
}

// TestSEVReportForged: each byte of what is signed, and each certificate on the way.
func TestSEVReportForged(t *testing.T) {
	p := theSEVPlatform()
	report := p.report(2, nil)
	o := p.options()
	for i := range report {
		q, err := quote.Open(flip(report, i), o)
		if err == nil && q.Trusted() {
			t.Errorf("byte %#x matters not", i)
		}
	}
	stranger := &sevPlatform{ark: rsa2048().(*rsa.PrivateKey), ask: p.ark, oca: p.pdh, cek: p.pdh, pek: p.pdh, pdh: p.pdh}
	for name, c := range map[string]struct {
		edit func(certs map[string][]byte, o *quote.Options)
		link string
		want quote.Status
		says string
	}{
		"no_certificates": {func(c map[string][]byte, o *quote.Options) { clear(c) }, quote.Signature, quote.Missing, "no PEK given"},
		"no_PEK":          {func(c map[string][]byte, o *quote.Options) { delete(c, "pek") }, quote.Chain, quote.Missing, "0 certificates of a PEK and 1 of a CEK"},
		"no_CEK":          {func(c map[string][]byte, o *quote.Options) { delete(c, "cek") }, quote.Chain, quote.Missing, "1 certificates of a PEK and 0 of a CEK"},
		"two_PEKs":        {func(c map[string][]byte, o *quote.Options) { c["pek"] = append(c["pek"], c["pek"]...) }, quote.Chain, quote.Missing, "2 certificates of a PEK"},
		"no_ASK":          {func(c map[string][]byte, o *quote.Options) { delete(c, "ask") }, quote.Chain, quote.Failed, "no ASK was given that signed the CEK"},
		"no_ARK":          {func(c map[string][]byte, o *quote.Options) { delete(c, "ark") }, quote.Chain, quote.Failed, "leads to no root that is trusted"},
		"another_PEK":     {func(c map[string][]byte, o *quote.Options) { c["pek"] = stranger.certs()["pek"] }, quote.Chain, quote.Failed, "PEK is not signed by this CEK"},
		"PEK_by_OCA_alone": {func(c map[string][]byte, o *quote.Options) {
			c["pek"] = sevCertificate(0x1002, 2, p.pek, sevSigner{0x1001, 2, p.oca})
		}, quote.Chain, quote.Failed, "PEK has no signature of a CEK"},
		"PEK_by_another_OCA": {func(c map[string][]byte, o *quote.Options) { c["oca"] = stranger.certs()["oca"] }, quote.Chain, quote.Failed, "PEK is not signed by this OCA"},
		"CEK_by_the_OCA": {func(c map[string][]byte, o *quote.Options) {
			c["cek"] = sevCertificate(0x1004, 2, p.cek, sevSigner{0x13, 2, p.oca})
		}, quote.Chain, quote.Failed, "the algorithm is 0x2, and the key is RSA"},
		"CEK_by_another_ASK": {func(c map[string][]byte, o *quote.Options) {
			c["cek"] = sevCertificate(0x1004, 2, p.cek, sevSigner{0x13, 1, stranger.ask})
		}, quote.Chain, quote.Failed, "CEK is not signed by this ASK: it does not verify"},
		"ASK_by_another_ARK": {func(c map[string][]byte, o *quote.Options) { c["ask"] = amdCertificate(0x13, p.ask, stranger.ark) }, quote.Chain, quote.Failed, "ASK is not signed by this ARK"},
		"a_stranger's_root": {func(c map[string][]byte, o *quote.Options) {
			c["ask"], c["ark"] = amdCertificate(0x13, p.ask, stranger.ark), amdCertificate(0, stranger.ark, stranger.ark)
		}, quote.Chain, quote.Failed, "leads to no root that is trusted"},
		"AMD's_roots": {func(c map[string][]byte, o *quote.Options) { o.SNPRoots = nil }, quote.Chain, quote.Failed, "leads to no root that is trusted"},
		"PEK_is_a_PDH": {func(c map[string][]byte, o *quote.Options) {
			c["pek"] = sevCertificate(0x1002, 3, p.pek, sevSigner{0x1004, 2, p.cek})
		}, quote.Signature, quote.Failed, "the key is for no signatures"},
		"signed_by_another_key": {func(c map[string][]byte, o *quote.Options) {
			c["pek"] = sevCertificate(0x1002, 2, p.oca, sevSigner{0x1001, 2, p.oca}, sevSigner{0x1004, 2, p.cek})
		}, quote.Signature, quote.Failed, "not by the PEK: it does not verify"},
		"nonce": {func(c map[string][]byte, o *quote.Options) { o.Nonce = []byte("another") }, quote.Nonce, quote.Failed, "MNONCE is"},
	} {
		certs, o := p.certs(), o
		c.edit(certs, &o)
		o.Hardware = joined(certs)
		q := open(t, report, o)
		if status(t, q, c.link, c.want, c.says); q.Trusted() {
			t.Errorf("%s: trusted: %v", name, q.Links)
		}
	}
	q := open(t, p.report(2, func(b []byte) { b[0x30] = 0x26 }), p.options())
	status(t, q, quote.Policy, quote.Failed, "debugging (NODBG is 0)")
}

// TestSEVPlatform: certificates show that a platform is not genuine, and never that a
// launch measurement's key is known to it.
func TestSEVPlatform(t *testing.T) {
	p, l := theSEVPlatform(), sevLaunches["libvirt"]
	for name, c := range map[string]struct {
		edit func(certs map[string][]byte)
		want quote.Status
		says string
	}{
		"genuine":      {func(map[string][]byte) {}, quote.NotChecked, "genuine (PDH, PEK, CEK, ASK, ARK-Test (a given root)); that the TIK's session"},
		"no_PDH":       {func(c map[string][]byte) { delete(c, "pdh") }, quote.Missing, "0 certificates of a PDH"},
		"another's":    {func(c map[string][]byte) { c["pdh"] = sevCertificate(0x1003, 3, p.pdh, sevSigner{0x1002, 2, p.oca}) }, quote.Failed, "PDH is not signed by this PEK"},
		"no_CEK":       {func(c map[string][]byte) { delete(c, "cek") }, quote.Missing, "0 of a CEK"},
		"PDH_of_a_CEK": {func(c map[string][]byte) { c["pdh"] = sevCertificate(0x1003, 3, p.pdh, sevSigner{0x1004, 2, p.cek}) }, quote.Failed, "PDH has no signature of a PEK"},
	} {
		certs, o := p.certs(), l.options()
		c.edit(certs)
		o.Hardware, o.SNPRoots, o.Time = joined(certs), p.root, in2025
		q := open(t, unhex(l.blob), o)
		if status(t, q, quote.Chain, c.want, c.says); q.Trusted() != (c.want == quote.NotChecked) {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
}

// TestSEVCertsMalformed: each field of a certificate that cannot be.
func TestSEVCertsMalformed(t *testing.T) {
	p := theSEVPlatform()
	certs, report := p.certs(), p.report(2, nil)
	le := func(cert string, at int, v uint32) []byte {
		b := slices.Clone(certs[cert])
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"cut":              {certs["pek"][:0x823], "certificate 0: offset 1572: SIG2: takes 512 bytes, and 511 are left"},
		"second_cut":       {slices.Concat(certs["cek"], certs["pek"][:3]), "certificate 1: offset 2084: VERSION: takes 4 bytes, and 3 are left"},
		"version":          {le("pek", 0, 2), "offset 0: VERSION: 2, expected 1"},
		"usage":            {le("pek", 8, 0x1005), "KEY_USAGE: "},
		"curve":            {le("pek", 16, 3), "offset 16: PUBKEY: curve 3, expected 1 (P-256) or 2 (P-384)"},
		"no_point":         {le("pek", 20, 1), "PUBKEY: no point on P-384"},
		"wide_coordinate":  {put(certs["pek"], 20+71, 1), "PUBKEY: a coordinate beyond the curve"},
		"amd_usage":        {le("ask", 0x24, 0x14), "offset 36: KEY_USAGE: 0x14, expected 0 (ARK) or 0x13 (ASK)"},
		"amd_size":         {le("ask", 0x3C, 0xFFFFFFFF), "offset 56: PUBEXP_SIZE: 2048 and MODULUS_SIZE 4294967295 bits, expected"},
		"amd_sizes_differ": {le("ask", 0x3C, 4096), "expected 2048 or 4096, and both alike"},
		"amd_exponent":     {put(certs["ask"], 0x40+8, 1), "are no key"},
		"amd_modulus":      {put(certs["ask"], 0x40+511, 0), "are no key"},
		"amd_cut":          {certs["ask"][:500], "MODULUS: takes 256 bytes"},
		"amd_no_signature": {certs["ask"][:0x40+512], "SIGNATURE: takes 256 bytes, and 0 are left"},
		"pem":              {p.root, "certificate 0: offset 0: VERSION"},
	} {
		o := p.options()
		o.Hardware = c.data
		q, err := quote.Open(report, o)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, expected %s", name, q, err, c.says)
		}
	}
	// AMD published a root without its signature.
	o, own := p.options(), p.certs()
	own["ark"] = own["ark"][:0x40+512]
	o.Hardware = joined(own)
	if q := open(t, report, o); !q.Trusted() {
		t.Errorf("%v", q.Links)
	}
	if _, err := quote.ParseSEVReport(report[:0xCF]); err == nil {
		t.Error("207 bytes were read")
	}
	if _, err := quote.ParseSEVReport(put(report, 0x34, 3)); err == nil || !strings.Contains(err.Error(), "SIG_USAGE 0x1003") {
		t.Error(err)
	}
}

// FuzzSEVReport: whatever certificates and report, what is trusted was signed.
func FuzzSEVReport(f *testing.F) {
	p := theSEVPlatform()
	report, certs := p.report(2, nil), p.certs()
	f.Add(report, joined(certs))
	f.Add([]byte(`{"return":{"data":"`+base64.StdEncoding.EncodeToString(report)+`"}}`), joined(certs))
	f.Add(p.report(0x102, nil), slices.Concat(certs["pek"], certs["cek"]))
	o := p.options()
	f.Fuzz(func(t *testing.T, data, hardware []byte) {
		o := o
		o.Hardware = hardware
		q, err := quote.Open(data, o)
		if err != nil || q.Kind != quote.SEV {
			return
		}
		checkLines(t, q)
		if q.Trusted() && (factNamed(q, "LAUNCH_DIGEST") != strings.Repeat("5a", 32) || !bytes.Contains(hardware, certs["pek"][:0x414])) {
			t.Errorf("trusted: %v", q.Links)
		}
	})
}
