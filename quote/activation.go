package quote

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// Activation is what a verifier keeps of a credential activation, by which a
// TPM proves that an attestation key is in the same TPM as an endorsement key
// (TPM 2.0 Part 1, "Credential Protection"): the verifier encrypts a secret to
// the endorsement key and the attestation key's name, and only a TPM that holds
// both gives the secret back.
//
// In JSON keys, certificates and blobs are base64; names, secrets and the seed
// are hexadecimal. The
// fields credential and secret are those of go-attestation's
// EncryptedCredential, so that its JSON with the other fields added is a record.
type Activation struct {
	// EKCertificate is the endorsement key's certificate (PEM or DER), EKPublic
	// its TPM2B_PUBLIC or TPMT_PUBLIC. One of them is needed, here or in
	// Options.EKCert; both have to be of one key.
	EKCertificate []byte `json:"ekCertificate,omitempty"`
	EKPublic      []byte `json:"ekPublic,omitempty"`
	// AKPublic is the attestation key's TPM2B_PUBLIC or TPMT_PUBLIC, AKName its
	// name: the 16-bit algorithm, then the digest. One of them is needed; with
	// AKPublic alone the name is computed.
	AKPublic []byte   `json:"akPublic,omitempty"`
	AKName   rtmr.Hex `json:"akName,omitempty"`
	// Credential is what TPM2_MakeCredential put out, the TPM2B_ID_OBJECT and
	// the TPM2B_ENCRYPTED_SECRET, with or without their sizes.
	Credential      []byte `json:"credential"`
	EncryptedSecret []byte `json:"secret"`
	// Sent is the secret that was encrypted, Returned what the TPM gave back.
	Sent     rtmr.Hex `json:"sent"`
	Returned rtmr.Hex `json:"returned"`
	// Seed, where the verifier kept it, is what the credential's keys were
	// derived from: with it the credential is computed again.
	Seed rtmr.Hex `json:"seed,omitempty"`
}

// ParseActivation reads a record's JSON.
func ParseActivation(data []byte) (*Activation, error) {
	var a Activation
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, jsonError(err)
	}
	for _, field := range []struct {
		name  string
		value []byte
	}{
		{"credential", a.Credential}, {"secret", a.EncryptedSecret}, {"sent", a.Sent}, {"returned", a.Returned},
	} {
		if len(field.value) == 0 {
			return nil, fmt.Errorf("no field %q", field.name)
		}
	}
	if len(a.AKPublic) == 0 && len(a.AKName) == 0 {
		return nil, errors.New(`neither field "akPublic" nor "akName"`)
	}
	return &a, nil
}

// activationChain tells whether the record ties the key to an endorsement key,
// and that one's certificate leads to a root.
func activationChain(key *tpmKey, opts *Options) Link {
	failed := func(err error) Link { return Link{Chain, Failed, err.Error()} }
	a, err := ParseActivation(opts.Activation)
	if err != nil {
		return failed(fmt.Errorf("the activation record: %w", err))
	}
	if len(opts.EKCert) > 0 {
		a.EKCertificate = opts.EKCert
	}
	said, err := a.verify(key)
	if err != nil {
		return failed(fmt.Errorf("the activation record: %w", err))
	}
	switch {
	case len(a.EKCertificate) == 0:
		return Link{Chain, Missing, said + "; no certificate of that endorsement key was given (--ek-cert)"}
	case len(opts.EKRoots) == 0:
		return Link{Chain, Missing, said + "; no roots were given (--ek-roots) for the endorsement key's certificate"}
	}
	endorsed, err := endorsement(a.EKCertificate, opts)
	if err != nil {
		return failed(err)
	}
	return Link{Chain, Verified, endorsed + "; " + said}
}

// verify checks all of the record that can be checked offline, and says how
// much that is.
func (a *Activation) verify(key *tpmKey) (said string, err error) {
	ek, err := a.endorsementKey()
	if err != nil {
		return "", err
	}
	name, err := a.keyName(key)
	if err != nil {
		return "", err
	}
	if subtle.ConstantTimeCompare(a.Sent, a.Returned) != 1 {
		return "", errors.New("the secret that came back is not the one that was sent")
	}
	if len(a.Seed) == 0 {
		return "an activation record ties the key to the endorsement key, on the verifier's own word: without the seed its credential cannot be computed again", nil
	}
	if err := a.recompute(ek, name); err != nil {
		return "", err
	}
	return "an activation record ties the key to the endorsement key: its credential is what the seed, the key's name and the secret give", nil
}

// endorsementKey returns the endorsement key, by its structure where that is known.
func (a *Activation) endorsementKey() (*tpmKey, error) {
	var keys []*tpmKey
	if len(a.EKPublic) > 0 {
		ek, err := parseTPMKey(a.EKPublic)
		if err != nil {
			return nil, fmt.Errorf("ekPublic: %w", err)
		}
		keys = append(keys, ek)
	}
	if len(a.EKCertificate) > 0 {
		certs, err := parseCertificates(a.EKCertificate)
		if err != nil {
			return nil, fmt.Errorf("the EK certificate: %w", err)
		}
		ek, err := keyOf(certs[0].PublicKey)
		if err != nil {
			return nil, fmt.Errorf("the EK certificate: %w", err)
		}
		keys = append(keys, ek)
	}
	switch {
	case len(keys) == 0:
		return nil, errors.New("it has no endorsement key, and no EK certificate was given")
	case len(keys) == 2 && !keys[0].equal(keys[1]):
		return nil, errors.New("ekPublic is another key than the EK certificate's")
	}
	return keys[0], nil
}

// keyName returns the attestation key's name, having made sure that it is the
// name of the key that signed the quote.
func (a *Activation) keyName(key *tpmKey) ([]byte, error) {
	name, lacks := []byte(a.AKName), key.lacks()
	if len(a.AKPublic) > 0 {
		ak, err := parseTPMKey(a.AKPublic)
		switch {
		case err != nil:
			return nil, fmt.Errorf("akPublic: %w", err)
		case ak.area == nil:
			return nil, errors.New("akPublic: expected TPM2B_PUBLIC or TPMT_PUBLIC, of which the name is a hash")
		case len(name) > 0 && !bytes.Equal(name, ak.name):
			return nil, fmt.Errorf("akName is %x, akPublic has the name %x", name, ak.name)
		case !ak.equal(key):
			return nil, errors.New("akPublic is another key than the quote's")
		}
		name, lacks = ak.name, ak.lacks()
	}
	switch {
	case len(lacks) > 0:
		// A TPM activates a credential for any of its keys, those too that sign
		// what their owner made up.
		return nil, fmt.Errorf("the key lacks the attributes %s: that it is in the TPM does not make what it signs the TPM's own", strings.Join(lacks, ", "))
	case key.area != nil && !bytes.Equal(key.name, name):
		return nil, fmt.Errorf("it is of the key named %x, the quote's key has the name %x", name, key.name)
	case key.area == nil && len(a.AKPublic) == 0:
		return nil, errors.New("it has the key's name alone, and the quote's key came without the structure that has a name")
	}
	return name, nil
}

// recompute makes the credential again, as TPM2_MakeCredential does:
//
//	encIdentity = CFB(KDFa(nameAlg, seed, "STORAGE", name, -, keyBits), TPM2B(secret))
//	identityObject = TPM2B(HMAC(KDFa(nameAlg, seed, "INTEGRITY", -, -, hashBits), encIdentity ‖ name)) ‖ encIdentity
//
// with the endorsement key's nameAlg and symmetric cipher (Part 1, "Credential
// Protection"). That the encrypted secret is of this seed only the endorsement
// key could tell.
func (a *Activation) recompute(ek *tpmKey, name []byte) error {
	hashAlg, keyBits, err := protection(ek)
	if err != nil {
		return err
	}
	hash, err := hashAlg.Hash()
	if err != nil {
		return fmt.Errorf("ekPublic: nameAlg: %w", err)
	}
	block, err := aes.NewCipher(tpm2.KDFa(hash, a.Seed, "STORAGE", name, nil, keyBits))
	if err != nil {
		return fmt.Errorf("ekPublic: symmetric.keyBits: %w", err)
	}
	identity := append(binary.BigEndian.AppendUint16(nil, uint16(len(a.Sent))), a.Sent...)
	cfbEncrypt(block, identity)
	mac := hmac.New(hash.New, tpm2.KDFa(hash, a.Seed, "INTEGRITY", nil, nil, 8*hash.Size()))
	mac.Write(identity)
	mac.Write(name)
	want := binary.BigEndian.AppendUint16(nil, uint16(hash.Size()))
	want = append(mac.Sum(want), identity...)
	if got, _ := unwrap2B(a.Credential); !bytes.Equal(got, want) {
		return fmt.Errorf("credential is not what the seed, the key's name and the secret give: %x, expected %x", got, want)
	}
	return nil
}

// protection returns what protects a credential for the endorsement key. One
// that is known by its certificate alone has the low-range templates' (TCG EK
// Credential Profile, templates L-1 and L-2): SHA-256 and AES-128.
func protection(ek *tpmKey) (tpm2.TPMAlgID, int, error) {
	if ek.area == nil {
		return tpm2.TPMAlgSHA256, 128, nil
	}
	key, err := tpm2.ImportEncapsulationKey(ek.area)
	if err != nil {
		return 0, 0, fmt.Errorf("ekPublic: %w", err)
	}
	symmetric := key.SymmetricParameters()
	if symmetric.Algorithm != tpm2.TPMAlgAES {
		return 0, 0, fmt.Errorf("%w: ekPublic: symmetric.algorithm: 0x%04x, expected 0x0006 (aes)", ErrUnsupported, uint16(symmetric.Algorithm))
	}
	bits, err1 := symmetric.KeyBits.AES()
	mode, err2 := symmetric.Mode.AES()
	if err := errors.Join(err1, err2); err != nil {
		return 0, 0, errors.New("ekPublic: " + strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if *mode != tpm2.TPMAlgCFB {
		return 0, 0, fmt.Errorf("%w: ekPublic: symmetric.mode: 0x%04x, expected 0x0043 (cfb)", ErrUnsupported, uint16(*mode))
	}
	return key.NameAlg(), int(*bits), nil
}

// cfbEncrypt encrypts in place with an initialisation vector of zeros. The
// standard library's CFB is deprecated, for it does not authenticate; here an
// HMAC does.
func cfbEncrypt(block cipher.Block, data []byte) {
	register := make([]byte, block.BlockSize())
	for i := 0; i < len(data); i += len(register) {
		block.Encrypt(register, register)
		n := subtle.XORBytes(data[i:], data[i:], register)
		copy(register, data[i:i+n])
	}
}
