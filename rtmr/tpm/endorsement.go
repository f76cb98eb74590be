package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tallystick/rtmr"
)

// endorsement are TCG's templates of endorsement keys (EK Credential Profile,
// templates L-2 and L-1).
var endorsement = map[KeyType]tpm2.TPMTPublic{ECC: tpm2.ECCEKTemplate, RSA: tpm2.RSAEKTemplate}

// EndorsementKey returns the TPMT_PUBLIC of the endorsement key that TCG's
// template gives: what a credential for Activate is encrypted to.
func (d *Device) EndorsementKey(ctx context.Context, t KeyType) ([]byte, error) {
	k, err := d.primary(ctx, tpm2.TPMRHEndorsement, endorsement[t])
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	return k.Public(), k.Close()
}

// Activate has the TPM decrypt a credential's secret, which it does if it holds
// both the endorsement key that the credential was encrypted to and an attestation
// key of the name that it was made for. The credential is a TPMS_ID_OBJECT, the
// secret a TPM2B_ENCRYPTED_SECRET without its size.
func (d *Device) Activate(ctx context.Context, k *Key, ek KeyType, credential, secret []byte) ([]byte, error) {
	endorsing, err := d.primary(ctx, tpm2.TPMRHEndorsement, endorsement[ek])
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	defer endorsing.Close()
	r, err := tpm2.ActivateCredential{
		ActivateHandle: k.auth(),
		KeyHandle:      tpm2.AuthHandle{Handle: endorsing.handle, Name: endorsing.name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, byEndorsement)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(call{ctx, d})
	if err != nil {
		return nil, fmt.Errorf("activate: %w", explain(err))
	}
	return r.CertInfo.Buffer, nil
}

// byEndorsement satisfies the policy of endorsement keys: PolicySecret of the
// endorsement hierarchy (TCG EK Credential Profile 2.6 §B.3.3).
func byEndorsement(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(tpm)
	return err
}

// certificates are the NV indices of endorsement keys' certificates (TCG EK
// Credential Profile 2.6 §2.2.1.4 and §2.2.1.5).
var certificates = map[string]tpm2.TPMHandle{
	"rsa2048": 0x01c00002, "ecc256": 0x01c0000a, "ecc384": 0x01c00016, "rsa3072": 0x01c0001c,
}

// EKCertificates returns the certificates that the TPM holds of its endorsement
// keys, DER, by the keys' types: "rsa2048", "ecc256", "ecc384", "rsa3072". A TPM
// may hold none.
func (d *Device) EKCertificates(ctx context.Context) (map[string][]byte, error) {
	found := map[string][]byte{}
	for name, index := range certificates {
		cert, err := readNV(call{ctx, d}, index)
		switch {
		case err == nil:
			found[name] = cert
		case !absent(err):
			return nil, fmt.Errorf("certificate of the endorsement key %s: %w", name, explain(err))
		}
	}
	return found, nil
}

// absent reports whether an NV index is not there, or nothing was written to it.
func absent(err error) bool {
	return errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCNVUninitialized)
}

// readNV reads an NV index whole.
func readNV(c call, index tpm2.TPMHandle) ([]byte, error) {
	r, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
	if err != nil {
		return nil, err
	}
	about, err := r.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	by := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	if about.Attributes.AuthRead {
		by = tpm2.AuthHandle{Handle: index, Name: r.NVName, Auth: tpm2.PasswordAuth(nil)}
	}
	const most = 512 // that a read gives
	var out []byte
	for len(out) < int(about.DataSize) {
		part, err := tpm2.NVRead{AuthHandle: by, NVIndex: tpm2.NamedHandle{Handle: index, Name: r.NVName},
			Size: min(most, about.DataSize-uint16(len(out))), Offset: uint16(len(out))}.Execute(c)
		if err != nil {
			return nil, err
		}
		if len(part.Data.Buffer) == 0 {
			return nil, fmt.Errorf("%w: %d of %d bytes of NV index 0x%08x", rtmr.ErrShort, len(out), about.DataSize, uint32(index))
		}
		out = append(out, part.Data.Buffer...)
	}
	return out, nil
}
