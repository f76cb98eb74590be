package quote

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// A platform's certificates are of a format of AMD's own (document 55766, the
// appendices on certificate formats), and so are those of AMD's two authorities: numbers are
// little-endian, RSA's and ECDSA's too. The platform's chain is
//
//	PEK, by OCA and CEK; CEK, by ASK; ASK, by ARK
//
// where CEK is the chip's key, and the OCA, its owner's, anybody's.

// sevKeyUsage says what a key is for, and whose a signature is.
type sevKeyUsage uint32

const (
	sevARK sevKeyUsage = 0x0000
	sevASK sevKeyUsage = 0x0013
	sevOCA sevKeyUsage = 0x1001
	sevPEK sevKeyUsage = 0x1002
	sevPDH sevKeyUsage = 0x1003
	sevCEK sevKeyUsage = 0x1004
)

func (u sevKeyUsage) String() string {
	switch u {
	case sevARK:
		return "ARK"
	case sevASK:
		return "ASK"
	case sevOCA:
		return "OCA"
	case sevPEK:
		return "PEK"
	case sevPDH:
		return "PDH"
	case sevCEK:
		return "CEK"
	}
	return fmt.Sprintf("usage %#x", uint32(u))
}

// sevAlgo is an algorithm: bit 8 is SHA-384's, else SHA-256.
type sevAlgo uint32

const sevRSA, sevECDSA, sevECDH, sevSHA384 sevAlgo = 1, 2, 3, 0x100

func (a sevAlgo) hash() rtmr.Alg {
	if a&sevSHA384 != 0 {
		return rtmr.SHA384
	}
	return rtmr.SHA256
}

const (
	sevCertSize    = 0x824
	sevCertBody    = 0x414 // what a platform's certificate is signed over
	sevSignSize    = 512
	sevNumberSize  = 72 // of ECDSA's
	sevAMDCertBody = 0x40
)

// sevCert is a certificate of either format.
type sevCert struct {
	usage  sevKeyUsage
	public crypto.PublicKey // nil of a key that signs nothing
	body   []byte           // what is signed
	sigs   []sevSignature
}

type sevSignature struct {
	usage sevKeyUsage // of the key that signed
	algo  sevAlgo
	value []byte
}

// parseSEVCerts reads certificates of both formats, one behind the other, in any
// order: as sevctl export and AMD's ask_ark files have them. The error names the
// offset and the field.
func parseSEVCerts(data []byte) (certs []*sevCert, err error) {
	for at := 0; at < len(data); {
		b := littleEndian(data[at:])
		b.base = at
		parse := parseAMDCert
		if len(b.data) >= 12 && sevKeyUsage(binary.LittleEndian.Uint32(b.data[8:]))-sevOCA <= sevCEK-sevOCA {
			parse = parseSEVCert
		}
		cert := parse(b)
		if b.err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs), b.err)
		}
		certs = append(certs, cert)
		at += b.off
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}

// parseSEVCert reads a platform's certificate, SEV_CERT.
func parseSEVCert(b *fields) *sevCert {
	c := &sevCert{}
	sevVersion(b)
	b.bytes("API version", 4)
	c.usage = sevKeyUsage(b.u32("PUBKEY_USAGE"))
	algo, at := sevAlgo(b.u32("PUBKEY_ALGO")), b.off
	key := b.bytes("PUBKEY", sevCertBody-0x10)
	if b.err == nil && algo&^sevSHA384 == sevECDSA {
		var err error
		if c.public, err = sevECCKey(key); err != nil {
			b.fail(at, "PUBKEY", "%s", err)
		}
	}
	c.body = b.data[:min(sevCertBody, len(b.data))]
	for i := range 2 {
		s := sevSignature{usage: sevKeyUsage(b.u32(fmt.Sprintf("SIG%d_USAGE", i+1)))}
		s.algo = sevAlgo(b.u32(fmt.Sprintf("SIG%d_ALGO", i+1)))
		s.value = b.bytes(fmt.Sprintf("SIG%d", i+1), sevSignSize)
		c.sigs = append(c.sigs, s)
	}
	return c
}

func sevVersion(b *fields) {
	if v := b.u32("VERSION"); b.err == nil && v != 1 {
		b.fail(b.off-4, "VERSION", "%d, expected 1", v)
	}
}

// parseAMDCert reads an authority's certificate, AMD_CERT: its RSA key has 2048 bits
// or 4096, and is signed with SHA-256 or SHA-384 by them.
func parseAMDCert(b *fields) *sevCert {
	c := &sevCert{}
	sevVersion(b)
	b.bytes("KEY_ID", 16)
	b.bytes("CERTIFYING_ID", 16)
	c.usage = sevKeyUsage(b.u32("KEY_USAGE"))
	if b.err == nil && c.usage != sevARK && c.usage != sevASK {
		b.fail(b.off-4, "KEY_USAGE", "%#x, expected 0 (ARK) or 0x13 (ASK), or a platform's certificate", uint32(c.usage))
	}
	b.bytes("reserved", 16)
	at := b.off
	exponentBits, bits := b.u32("PUBEXP_SIZE"), b.u32("MODULUS_SIZE")
	if b.err == nil && (bits != 2048 && bits != 4096 || exponentBits != bits) {
		b.fail(at, "PUBEXP_SIZE", "%d and MODULUS_SIZE %d bits, expected 2048 or 4096, and both alike", exponentBits, bits)
	}
	if b.err != nil {
		return nil
	}
	size := int64(bits / 8)
	exponent, modulus := sevNumber(b.bytes("PUBEXP", size)), sevNumber(b.bytes("MODULUS", size))
	c.body = b.data[:b.off]
	if b.err == nil && (exponent.BitLen() > 31 || exponent.Int64() < 3 || modulus.BitLen() != int(bits)) {
		b.fail(at, "MODULUS", "%d bits with the exponent %s are no key", modulus.BitLen(), exponent)
	}
	c.public = &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}
	signature := sevSignature{usage: sevARK, algo: sevRSA}
	if bits == 4096 {
		signature.algo |= sevSHA384
	}
	if left := len(b.data) - b.off; c.usage == sevARK && left == 0 {
		return c // AMD's Naples ARK was published without its signature, and is known by its key
	}
	signature.value = b.bytes("SIGNATURE", size)
	c.sigs = []sevSignature{signature}
	return c
}

// sevNumber reads a little-endian number.
func sevNumber(b []byte) *big.Int {
	b = slices.Clone(b)
	slices.Reverse(b)
	return new(big.Int).SetBytes(b)
}

// sevECCKey reads a public key: le32 the curve, and its coordinates.
func sevECCKey(b []byte) (crypto.PublicKey, error) {
	curve := map[uint32]elliptic.Curve{1: elliptic.P256(), 2: elliptic.P384()}[binary.LittleEndian.Uint32(b)]
	if curve == nil {
		return nil, fmt.Errorf("curve %d, expected 1 (P-256) or 2 (P-384)", binary.LittleEndian.Uint32(b))
	}
	size := (curve.Params().BitSize + 7) / 8
	point := []byte{4}
	for i := range 2 {
		n := sevNumber(b[4+i*sevNumberSize:][:sevNumberSize])
		if n.BitLen() > 8*size {
			return nil, errors.New("a coordinate beyond the curve")
		}
		point = append(point, n.FillBytes(make([]byte, size))...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, errors.New("no point on " + curve.Params().Name)
	}
	return public, nil
}

// verify checks a signature of a key's. The salt of RSA-PSS has the hash's size, and
// is taken as it is.
func (s *sevSignature) verify(body []byte, by crypto.PublicKey) error {
	digest := s.algo.hash().AppendHash(nil, body)
	switch public := by.(type) {
	case *rsa.PublicKey:
		if s.algo&^sevSHA384 != sevRSA || len(s.value) < public.Size() {
			return fmt.Errorf("the algorithm is %#x, and the key is RSA", uint32(s.algo))
		}
		value := slices.Clone(s.value[:public.Size()])
		slices.Reverse(value)
		return notVerified(rsa.VerifyPSS(public, cryptoHash[s.algo.hash()], digest, value, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto}))
	case *ecdsa.PublicKey:
		if s.algo&^sevSHA384 != sevECDSA || len(s.value) < 2*sevNumberSize {
			return fmt.Errorf("the algorithm is %#x, and the key is ECC", uint32(s.algo))
		}
		if !ecdsa.Verify(public, digest, sevNumber(s.value[:sevNumberSize]), sevNumber(s.value[sevNumberSize:2*sevNumberSize])) {
			return errors.New("it does not verify")
		}
		return nil
	}
	return errors.New("the key is for no signatures")
}

// signedBy checks that one of the certificate's signatures is by such a key.
func (c *sevCert) signedBy(by *sevCert) error {
	err := fmt.Errorf("%s has no signature of a %s", c.usage, by.usage)
	for _, s := range c.sigs {
		if s.usage != by.usage {
			continue
		}
		if err = s.verify(c.body, by.public); err == nil {
			return nil
		}
		err = fmt.Errorf("%s is not signed by this %s: %w", c.usage, by.usage, err)
	}
	return err
}

// sevARKs are the SHA-256 of the moduli, big-endian, of those of AMD's root keys of
// which there is no X.509 certificate: AMD's ask_ark_naples.cert and ask_ark_rome.cert.
// The exponents are 65537.
var sevARKs = map[string]string{
	"5f452a21949dbb87cf60a8d02278b74a63ba40d4420a47ac34463c43de6a8379": "Naples",
	"f16657b74dd870045b040ea20583f098018e5b2f98ecff99c9f6fefdc5ecb2ca": "Rome",
}

// sevRoots are the root keys that are trusted, and issuers that need not be given.
type sevRoots struct {
	names   map[string]string // of the roots, by modulusHash
	issuers map[string]*sevCert
}

// trustedSEVRoots are AMD's, which are the same keys as SEV-SNP's, where that has
// them; or those that were given in their place.
func trustedSEVRoots(opts *Options) (*sevRoots, error) {
	snp, err := trustedSNPRoots(opts)
	if err != nil {
		return nil, err
	}
	r := &sevRoots{names: map[string]string{}, issuers: map[string]*sevCert{}}
	for _, root := range snp.own {
		if public, ok := root.PublicKey.(*rsa.PublicKey); ok {
			r.names[rsaID(public)] = fmt.Sprintf("%s (%s)", snpName(root), snp.whose)
		}
	}
	if len(opts.SNPRoots) == 0 {
		for hash, line := range sevARKs {
			r.names[hash+":65537"] = fmt.Sprintf("ARK-%s (%s)", line, snp.whose)
		}
	}
	for _, issuer := range snp.issuers {
		if strings.HasPrefix(issuer.Subject.CommonName, "SEV-VLEK") {
			continue // certifies VLEKs
		}
		chain, err := snp.verify(issuer, nil, opts.now())
		if public, ok := issuer.PublicKey.(*rsa.PublicKey); ok && err == nil {
			r.issuers[fmt.Sprintf("%s (%s)", snpName(chain[len(chain)-1]), snp.whose)] = &sevCert{usage: sevASK, public: public}
		}
	}
	return r, nil
}

// rsaID tells RSA keys apart: by the hash of the modulus, and the exponent.
func rsaID(key *rsa.PublicKey) string {
	sum := sha256.Sum256(key.N.Bytes())
	return fmt.Sprintf("%x:%d", sum, key.E)
}

func sevCertsOf(certs []*sevCert, usage sevKeyUsage) []*sevCert {
	return slices.DeleteFunc(slices.Clone(certs), func(c *sevCert) bool { return c.usage != usage })
}

// chain leads a PEK to a root, and says by what.
func (r *sevRoots) chain(certs []*sevCert) (pek *sevCert, link Link) {
	failed := func(err error) Link { return Link{Chain, Failed, err.Error()} }
	peks, ceks := sevCertsOf(certs, sevPEK), sevCertsOf(certs, sevCEK)
	if len(peks) != 1 || len(ceks) != 1 {
		return nil, Link{Chain, Missing, fmt.Sprintf("%d certificates of a PEK and %d of a CEK, expected one each (--hardware)", len(peks), len(ceks))}
	}
	pek, cek := peks[0], ceks[0]
	if err := pek.signedBy(cek); err != nil {
		return pek, failed(err)
	}
	for _, oca := range sevCertsOf(certs, sevOCA) {
		if err := pek.signedBy(oca); err != nil {
			return pek, failed(err)
		}
	}
	root, err := r.endorsed(cek, sevCertsOf(certs, sevASK), sevCertsOf(certs, sevARK))
	if err != nil {
		return pek, failed(err)
	}
	return pek, Link{Chain, Verified, "PEK, CEK, ASK, " + root}
}

// endorsed leads a CEK to a root, by an ASK that was given or one that is known.
func (r *sevRoots) endorsed(cek *sevCert, asks, arks []*sevCert) (root string, err error) {
	err = errors.New("no ASK was given that signed the CEK")
	for _, ask := range asks {
		if err = cek.signedBy(ask); err != nil {
			continue
		}
		for _, ark := range arks {
			name, trusted := r.names[rsaID(ark.public.(*rsa.PublicKey))]
			if err = ask.signedBy(ark); err == nil && trusted {
				return name, nil
			}
		}
		if err == nil {
			err = errors.New("the ASK that was given leads to no root that is trusted")
		}
	}
	for name, ask := range r.issuers {
		if cek.signedBy(ask) == nil {
			return name, nil
		}
	}
	return "", err
}
