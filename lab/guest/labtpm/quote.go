//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tallystick/lab/internal/evidence"
)

type bank struct {
	name string
	alg  tpm2.TPMIAlgHash
}

type selection struct {
	banks []bank
	pcrs  []uint // in rising order, as a TPM digests them
}

var algorithms = map[string]tpm2.TPMIAlgHash{
	"sha1": tpm2.TPMAlgSHA1, "sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384, "sha512": tpm2.TPMAlgSHA512,
}

// keyTemplates are restricted signing keys: what they sign, the TPM made.
var keyTemplates = map[string]tpm2.TPMTPublic{
	"rsa": {
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: signing,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
	},
	"ecc": {
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: signing,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
	},
}

var signing = tpm2.TPMAObject{
	FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
}

// certificates are the NV indices of endorsement keys' certificates (TCG EK
// Credential Profile 2.6 §2.2.1.4 and §2.2.1.5).
var certificates = map[string]tpm2.TPMHandle{
	"rsa2048": 0x01c00002, "ecc256": 0x01c0000a, "ecc384": 0x01c00016, "rsa3072": 0x01c0001c,
}

// errMoved says that a PCR was extended between its reading and its quote.
var errMoved = errors.New("the PCRs kept moving")

// collect reads and quotes the PCRs. The values are those that were quoted: if a
// PCR moves meanwhile, all is done again.
func collect(tpm transport.TPM, nonce []byte, s selection) (*evidence.Evidence, error) {
	e := &evidence.Evidence{Nonce: nonce, Keys: map[string][]byte{}, EKCerts: map[string][]byte{}}
	handles := map[string]tpm2.AuthHandle{}
	for _, name := range []string{"rsa", "ecc"} {
		key, err := createKey(tpm, name)
		if err != nil {
			return nil, err
		}
		defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(tpm)
		public, err := key.OutPublic.Contents()
		if err != nil {
			return nil, err
		}
		e.Keys[name] = tpm2.Marshal(*public)
		handles[name] = tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)}
	}
	for name, index := range certificates {
		if cert, err := readNV(tpm, index); err == nil {
			e.EKCerts[name] = cert
		}
	}
	for range 20 {
		err := quoteAll(tpm, e, handles, s)
		if err != errMoved {
			return e, err
		}
	}
	return nil, errMoved
}

// createKey makes an attestation key. It is derived from the TPM's seed, so that
// each time it is the same one.
func createKey(tpm transport.TPM, name string) (*tpm2.CreatePrimaryResponse, error) {
	template, ok := keyTemplates[name]
	if !ok {
		return nil, fmt.Errorf("key %q: expected rsa or ecc", name)
	}
	key, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(template)}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return key, nil
}

func quoteAll(tpm transport.TPM, e *evidence.Evidence, keys map[string]tpm2.AuthHandle, s selection) error {
	e.Values, e.Quotes = map[string]map[string]string{}, nil
	values := map[string][]byte{} // by bank, the PCRs one after another
	for _, b := range s.banks {
		e.Values[b.name] = map[string]string{}
		for _, pcr := range s.pcrs {
			value, err := readPCR(tpm, b.alg, pcr)
			if err != nil {
				return err
			}
			e.Values[b.name][fmt.Sprintf("pcr%d", pcr)] = fmt.Sprintf("%x", value)
			values[b.name] = append(values[b.name], value...)
		}
	}
	for _, name := range []string{"rsa", "ecc"} {
		sets := [][]bank{s.banks} // all together, and each
		for _, b := range s.banks {
			sets = append(sets, []bank{b})
		}
		for i, set := range sets {
			q := evidence.Quote{Key: name, Bank: set[0].name}
			if i == 0 {
				q.Bank = "all"
			}
			var all []byte
			for _, b := range set {
				all = append(all, values[b.name]...)
			}
			if err := quote(tpm, keys[name], e.Nonce, set, s.pcrs, all, &q); err != nil {
				return err
			}
			e.Quotes = append(e.Quotes, q)
		}
	}
	return nil
}

// quote makes one quote, of PCRs that were seen to have the values.
func quote(tpm transport.TPM, key tpm2.AuthHandle, nonce []byte, banks []bank, pcrs []uint, values []byte, q *evidence.Quote) error {
	var list tpm2.TPMLPCRSelection
	for _, b := range banks {
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{Hash: b.alg, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)})
	}
	r, err := tpm2.Quote{SignHandle: key, QualifyingData: tpm2.TPM2BData{Buffer: nonce},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull}, PCRSelect: list}.Execute(tpm)
	if err != nil {
		return fmt.Errorf("quote: %w", err)
	}
	attest, err := r.Quoted.Contents()
	if err != nil {
		return err
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(values); !bytes.Equal(info.PCRDigest.Buffer, sum[:]) {
		return errMoved
	}
	q.Attest, q.Signature = tpm2.Marshal(*attest), tpm2.Marshal(r.Signature)
	return nil
}

func readPCR(tpm transport.TPM, alg tpm2.TPMIAlgHash, pcr uint) ([]byte, error) {
	r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(pcr)}}}}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("PCR %d: %w", pcr, err)
	}
	if len(r.PCRValues.Digests) != 1 {
		return nil, fmt.Errorf("PCR %d: the TPM has no such bank", pcr)
	}
	return r.PCRValues.Digests[0].Buffer, nil
}

// readNV reads an NV index whole.
func readNV(tpm transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	about, err := public.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	const most = 512 // that a read gives
	var out []byte
	for len(out) < int(about.DataSize) {
		r, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       min(most, about.DataSize-uint16(len(out))), Offset: uint16(len(out)),
		}.Execute(tpm)
		if err != nil {
			return nil, err
		}
		out = append(out, r.Data.Buffer...)
	}
	return out, nil
}
