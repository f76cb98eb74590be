package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// notBegun tells the codes of commands that did nothing yet and may be sent
// again (Part 2, "TPM_RC Values", the warnings). The kernel repeats some of them
// by itself, and gives up (drivers/char/tpm/tpm-interface.c, tpm_transmit).
func notBegun(code tpm2.TPMRC) bool {
	switch code {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable:
		return true
	}
	return false
}

// meanings are what response codes are in package rtmr's words.
var meanings = []struct {
	code tpm2.TPMRC
	is   error
}{
	{tpm2.TPMRCRetry, rtmr.ErrBusy},
	{tpm2.TPMRCYielded, rtmr.ErrBusy},
	{tpm2.TPMRCTesting, rtmr.ErrBusy},
	{tpm2.TPMRCNVRate, rtmr.ErrBusy},
	{tpm2.TPMRCNVUnavailable, rtmr.ErrBusy},
	{tpm2.TPMRCCanceled, rtmr.ErrBusy},
	{tpm2.TPMRCObjectMemory, rtmr.ErrBusy},
	{tpm2.TPMRCSessionMemory, rtmr.ErrBusy},
	{tpm2.TPMRCSessionHandles, rtmr.ErrBusy},
	{tpm2.TPMRCObjectHandles, rtmr.ErrBusy},
	{tpm2.TPMRCMemory, rtmr.ErrBusy},
	{tpm2.TPMRCLocality, rtmr.ErrNotWritable},
	{tpm2.TPMRCBadAuth, rtmr.ErrDenied},
	{tpm2.TPMRCAuthFail, rtmr.ErrDenied},
	{tpm2.TPMRCAuthMissing, rtmr.ErrDenied},
	{tpm2.TPMRCAuthUnavailable, rtmr.ErrDenied},
	{tpm2.TPMRCPolicyFail, rtmr.ErrDenied},
	{tpm2.TPMRCNVAuthorization, rtmr.ErrDenied},
	{tpm2.TPMRCLockout, rtmr.ErrDenied},
	{tpm2.TPMRCDisabled, rtmr.ErrDenied},
	{tpm2.TPMRCHierarchy, rtmr.ErrDenied}, // it is disabled
	{tpm2.TPMRCCommandCode, rtmr.ErrNotSupported},
	{tpm2.TPMRCAsymmetric, rtmr.ErrNotSupported},
	{tpm2.TPMRCCurve, rtmr.ErrNotSupported},
	{tpm2.TPMRCKeySize, rtmr.ErrNotSupported},
	{tpm2.TPMRCScheme, rtmr.ErrNotSupported},
	{tpm2.TPMRCHash, rtmr.ErrNotSupported},
}

// layer masks what a response code has that is not the TPM's own but the
// kernel's resource manager (TCG TSS 2.0 Overview, "Response Code Layers";
// drivers/char/tpm/tpm2-space.c makes one).
const layer = 0x00FF0000

// explain adds to a TPM's response code what it is in package rtmr's words.
func explain(err error) error {
	code, ok := responded(err)
	if !ok {
		return err
	}
	for _, m := range meanings {
		if (code &^ layer).Is(m.code) {
			return fmt.Errorf("%w: %w", m.is, err)
		}
	}
	return err
}

// responded returns the response code that an error is, if the TPM gave one.
func responded(err error) (code tpm2.TPMRC, ok bool) { return code, errors.As(err, &code) }
