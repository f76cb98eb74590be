// Package tpm is a TPM's platform configuration registers as an [rtmr.Device],
// and its quotes of them. The TPM is the kernel's, whoever it belongs to: a chip,
// the firmware, the hypervisor, an SVSM, or a process behind the vTPM proxy.
//
//	d, err := tpm.Open(tpm.Options{})
//	err = d.Extend(ctx, rtmr.MustParse("pcr23"), digests)
//	key, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Endorsement)
//	q, err := d.Quote(ctx, key, nonce, nil)
//
// # Which registers
//
// The TPM says which PCRs it keeps in which banks (its PCR allocation), and
// which of them can be extended from where the kernel sends its commands,
// locality 0. A bank that keeps none is not active. Those that anyone can reset
// are Resettable: what they hold is no proof.
//
// # Extends
//
// All banks of a register are extended by one command, and so together or not at
// all. The register is read first: where it is not known what became of the
// command, because the kernel timed out or the TPM's answer is damaged, reading
// it again settles that, and only where it does not is the error an
// [rtmr.ErrUnknown]. That costs one more command for each extend.
package tpm
