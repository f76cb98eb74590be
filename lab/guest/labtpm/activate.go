//go:build linux

package main

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// activate decrypts a credential, which takes the endorsement key that it was
// encrypted to and the attestation key that it names, in this TPM.
func activate(tpm transport.TPM, name string, credential, secret []byte) ([]byte, error) {
	ak, err := createKey(tpm, name)
	if err != nil {
		return nil, err
	}
	defer tpm2.FlushContext{FlushHandle: ak.ObjectHandle}.Execute(tpm)
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	defer tpm2.FlushContext{FlushHandle: ek.ObjectHandle}.Execute(tpm)
	r, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, byEndorsement)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(tpm)
	if err != nil {
		return nil, fmt.Errorf("activate: %w", err)
	}
	return r.CertInfo.Buffer, nil
}

// byEndorsement satisfies the policy of endorsement keys: PolicySecret of the
// endorsement hierarchy (TCG EK Credential Profile 2.6 §B.3.3).
func byEndorsement(tpm transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(tpm)
	return err
}
