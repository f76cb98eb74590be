package quote

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// Bounds on RSA keys: longer ones take long to verify with, and shorter ones
// than minRSABits are warned of.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

// tpmKey is a key of a TPM: an attestation key, or an endorsement key.
type tpmKey struct {
	public crypto.PublicKey    // *rsa.PublicKey or *ecdsa.PublicKey
	certs  []*x509.Certificate // of the key, and those that lead on, if it came so

	// What follows is known of a key that came as the TPM's own structure.
	area   *tpm2.TPMTPublic
	name   []byte    // nameAlg ‖ H(TPMT_PUBLIC)
	scheme sigScheme // 0 if it signs by any
	hash   rtmr.Alg  // of the scheme
}

// parseTPMKey reads a key as PEM or DER (a PKIX public key, or a certificate
// with those that lead on from it), or as TPM2B_PUBLIC or TPMT_PUBLIC.
func parseTPMKey(data []byte) (*tpmKey, error) {
	switch inner, from := unwrap2B(data); {
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return parsePEMKey(data)
	case isTPMTPublic(inner):
		key, err := parseTPMTPublic(inner)
		if err != nil {
			return nil, fmt.Errorf("TPMT_PUBLIC at offset %d: %w", from, err)
		}
		return key, nil
	case len(data) > 0 && data[0] == 0x30: // a DER SEQUENCE
		return parseDERKey(data)
	}
	return nil, fmt.Errorf("%w: a key of %d bytes that begin %.8x, expected PEM, DER, TPM2B_PUBLIC or TPMT_PUBLIC of an RSA or ECC key", ErrUnsupported, len(data), data)
}

func parsePEMKey(data []byte) (*tpmKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("PEM: no block ends, or its base64 is wrong")
	}
	switch block.Type {
	case "CERTIFICATE":
		certs, err := parseCertificates(data)
		if err != nil {
			return nil, err
		}
		return keyOfCertificate(certs)
	case "PUBLIC KEY":
		return parseDERKey(block.Bytes)
	}
	return nil, fmt.Errorf("%w: PEM of type %q, expected PUBLIC KEY or CERTIFICATE", ErrUnsupported, rtmr.Escape(block.Type))
}

func parseDERKey(der []byte) (*tpmKey, error) {
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		return keyOf(public)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, errors.New("DER: neither a public key nor a certificate: " + rtmr.Escape(err.Error()))
	}
	return keyOfCertificate([]*x509.Certificate{cert})
}

// keyOf makes a key of a public key that is known without its TPM's structure.
func keyOf(public crypto.PublicKey) (*tpmKey, error) {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() > maxRSABits {
			return nil, fmt.Errorf("%w: an RSA key of %d bits, expected %d at most", ErrUnsupported, k.N.BitLen(), maxRSABits)
		}
	case *ecdsa.PublicKey:
	default:
		return nil, fmt.Errorf("%w: a key of type %T, expected RSA or ECDSA", ErrUnsupported, public)
	}
	return &tpmKey{public: public}, nil
}

func keyOfCertificate(certs []*x509.Certificate) (*tpmKey, error) {
	key, err := keyOf(certs[0].PublicKey)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key.certs = certs
	return key, nil
}

// isTPMTPublic tells a TPMT_PUBLIC of a key pair by its type.
func isTPMTPublic(data []byte) bool {
	if len(data) < 10 {
		return false
	}
	typ := tpm2.TPMAlgID(binary.BigEndian.Uint16(data))
	return typ == tpm2.TPMAlgRSA || typ == tpm2.TPMAlgECC
}

// parseTPMTPublic reads the structure by go-tpm, and makes sure that it is all
// of the data: a key's name is the hash of these bytes.
func parseTPMTPublic(data []byte) (*tpmKey, error) {
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](data)
	if err != nil {
		return nil, err
	}
	if again := tpm2.Marshal(area); !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%d bytes, of which %d are the structure's: cut off, or followed by others", len(data), len(again))
	}
	nameAlg := rtmr.Alg(area.NameAlg)
	if !nameAlg.Available() {
		return nil, fmt.Errorf("%w: nameAlg: %s", ErrUnsupported, nameAlg)
	}
	public, scheme, err := publicOf(area)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(public)
	if err != nil {
		return nil, err
	}
	key.area = area
	key.name = nameAlg.AppendHash(binary.BigEndian.AppendUint16(nil, uint16(nameAlg)), data)
	key.scheme, key.hash = signingScheme(scheme)
	return key, nil
}

// asymScheme is the scheme of an RSA or ECC key.
type asymScheme struct {
	id      tpm2.TPMAlgID
	details *tpm2.TPMUAsymScheme
}

// publicOf returns the key itself. Coordinates stand in a TPM2B without their
// leading zeros, or with them.
func publicOf(area *tpm2.TPMTPublic) (crypto.PublicKey, asymScheme, error) {
	if area.Type == tpm2.TPMAlgRSA {
		parms, err1 := area.Parameters.RSADetail()
		modulus, err2 := area.Unique.RSA()
		if err := errors.Join(err1, err2); err != nil {
			return nil, asymScheme{}, err
		}
		if len(modulus.Buffer) == 0 || parms.Exponent > 1<<31-1 {
			return nil, asymScheme{}, fmt.Errorf("unique.rsa: a modulus of %d bytes with the exponent %d is no key", len(modulus.Buffer), parms.Exponent)
		}
		public, err := tpm2.RSAPub(parms, modulus)
		return public, asymScheme{parms.Scheme.Scheme, &parms.Scheme.Details}, err
	}
	parms, err1 := area.Parameters.ECCDetail()
	point, err2 := area.Unique.ECC()
	if err := errors.Join(err1, err2); err != nil {
		return nil, asymScheme{}, err
	}
	public, err := eccPublic(parms.CurveID, point)
	return public, asymScheme{parms.Scheme.Scheme, &parms.Scheme.Details}, err
}

func eccPublic(id tpm2.TPMECCCurve, point *tpm2.TPMSECCPoint) (crypto.PublicKey, error) {
	curve := map[tpm2.TPMECCCurve]elliptic.Curve{
		tpm2.TPMECCNistP224: elliptic.P224(),
		tpm2.TPMECCNistP256: elliptic.P256(),
		tpm2.TPMECCNistP384: elliptic.P384(),
		tpm2.TPMECCNistP521: elliptic.P521(),
	}[id]
	if curve == nil {
		return nil, fmt.Errorf("%w: curveID: 0x%04x, expected a NIST curve", ErrUnsupported, uint16(id))
	}
	size := (curve.Params().BitSize + 7) / 8
	uncompressed := []byte{4}
	for _, c := range [][]byte{point.X.Buffer, point.Y.Buffer} {
		c = bytes.TrimLeft(c, "\x00")
		if len(c) > size {
			return nil, fmt.Errorf("unique.ecc: a coordinate of %d bytes on a curve of %d", len(c), size)
		}
		uncompressed = append(uncompressed, make([]byte, size-len(c))...)
		uncompressed = append(uncompressed, c...)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(curve, uncompressed)
	if err != nil {
		return nil, fmt.Errorf("unique.ecc: no point on %s", curve.Params().Name)
	}
	return public, nil
}

// signingScheme returns the one scheme by which the key signs, zeros if it has none.
func signingScheme(s asymScheme) (sigScheme, rtmr.Alg) {
	switch s.id {
	case tpm2.TPMAlgRSASSA:
		if d, err := s.details.RSASSA(); err == nil {
			return rsassa, rtmr.Alg(d.HashAlg)
		}
	case tpm2.TPMAlgRSAPSS:
		if d, err := s.details.RSAPSS(); err == nil {
			return rsapss, rtmr.Alg(d.HashAlg)
		}
	case tpm2.TPMAlgECDSA:
		if d, err := s.details.ECDSA(); err == nil {
			return ecdsaS, rtmr.Alg(d.HashAlg)
		}
	}
	return 0, 0
}

// String says what the key is, for people.
func (k *tpmKey) String() string {
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("an RSA key of %d bits", p.N.BitLen())
	case *ecdsa.PublicKey:
		return "an ECC key on " + p.Curve.Params().Name
	}
	return "no key"
}

// equal reports whether both are the same public key.
func (k *tpmKey) equal(l *tpmKey) bool {
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return p.Equal(l.public)
	case *ecdsa.PublicKey:
		return p.Equal(l.public)
	}
	return false
}

// facts are what the key's structure says of it.
func (k *tpmKey) facts() []Fact {
	facts := []Fact{{"key", k.String()}}
	if k.area != nil {
		facts = append(facts, Fact{"keyName", fmt.Sprintf("%x", k.name)})
	}
	return facts
}

// warnings tell what makes an attestation key worth less: one that is not
// restricted signs a TPMS_ATTEST that its owner made up, one
// that is not fixed to its TPM may be copied out of it.
func (k *tpmKey) warnings() (warnings []string) {
	if p, ok := k.public.(*rsa.PublicKey); ok && p.N.BitLen() < minRSABits {
		warnings = append(warnings, fmt.Sprintf("the key is RSA with %d bits, which is too short", p.N.BitLen()))
	}
	if lacks := k.lacks(); len(lacks) > 0 {
		warnings = append(warnings, "the key lacks the attributes "+strings.Join(lacks, ", ")+": what it signs need not be a TPM's own")
	}
	return warnings
}

// lacks names the attributes of an attestation key that the key's structure,
// if it is known, does not have.
func (k *tpmKey) lacks() (lacks []string) {
	if k.area == nil {
		return nil
	}
	for _, attribute := range []struct {
		name string
		set  bool
	}{
		{"fixedTPM", k.area.ObjectAttributes.FixedTPM},
		{"fixedParent", k.area.ObjectAttributes.FixedParent},
		{"sensitiveDataOrigin", k.area.ObjectAttributes.SensitiveDataOrigin},
		{"restricted", k.area.ObjectAttributes.Restricted},
		{"sign", k.area.ObjectAttributes.SignEncrypt},
	} {
		if !attribute.set {
			lacks = append(lacks, attribute.name)
		}
	}
	return lacks
}
