// Package attester signs quotes of the registers of package bpf, as a TPM 2.0
// does: what comes out, tpm2_checkquote, go-attestation and tally verify.
//
// [New] makes an attestation key, which lives as long as the process.
// [Attester.Quote] signs register values; [Quote.ReportData] is what to ask the
// hardware's report for, without which the key is on its own word:
//
//	a, err := attester.New(attester.Options{})
//	q, err := a.Quote(snapshot.Values(), selection, nonce)
//	report, err := hardware(q.ReportData())
//
// docs/evidence.md specifies both.
//
// # The key
//
// In a confidential guest what leaves memory leaves the guest: the host has the
// disk that is swapped to. So New locks all memory of the process, that of
// now and of later, and the kernel dumps no core of it and lets no process
// without CAP_SYS_PTRACE attach to it. It is all memory and not the key's own
// page, for crypto/ecdsa copies a key in Go's heap and its goroutines' stacks,
// and nothing can wipe the copies: not memfd_secret(2), which would hold one
// more of them, and package runtime/secret is an experiment that a build has to
// opt into.
//
// It does not protect the key from root in the guest, which may trace a process
// and read its memory (to deny that is a guard's matter), nor from the kernel,
// a hibernation image or a crash kernel's dump.
package attester

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
	"tallystick/softtpm"
)

// Attester holds an attestation key. Its methods may be called from any number
// of goroutines at once.
type Attester struct {
	key    atomic.Pointer[ecdsa.PrivateKey] // nil when closed
	public []byte
	name   []byte
	signer tpm2.TPM2BName // the qualified name
}

// Options say how the key is kept. The zero value is the default.
type Options struct {
	// InsecureUnlocked leaves the process as it is: the key may reach swap and
	// core dumps. It is for tests, and for where there is nothing to protect.
	InsecureUnlocked bool
}

// New makes an attestation key, ECDSA on P-256 with SHA-256, after it has locked
// the memory of the process, which stays locked.
//
// It needs Linux 4.4, and returns a *rtmr.NotSupportedError elsewhere. It
// returns rtmr.ErrDenied where the process may not lock all memory that it may
// come to need: that takes CAP_IPC_LOCK, or an unlimited RLIMIT_MEMLOCK
// (systemd's LimitMEMLOCK=infinity), and the process has to keep what it has of
// them, or Go ends it when it gets no more memory.
func New(opts Options) (*Attester, error) {
	if !opts.InsecureUnlocked {
		if err := lockMemory(); err != nil {
			return nil, fmt.Errorf("lock memory for the attestation key: %w", err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the attestation key: %w", err)
	}
	a := &Attester{}
	if err := a.describe(&key.PublicKey); err != nil {
		return nil, fmt.Errorf("describe the attestation key: %w", err)
	}
	a.key.Store(key)
	return a, nil
}

// Close forgets the key; later quotes are os.ErrClosed. Go wipes no memory: its
// last copy goes when its memory is used again, or the process ends.
func (a *Attester) Close() error {
	a.key.Store(nil)
	return nil
}

// Public returns the key's TPMT_PUBLIC.
func (a *Attester) Public() []byte { return slices.Clone(a.public) }

// Name returns the key's Name: TPM_ALG_SHA256, big-endian, then the SHA-256 of
// its TPMT_PUBLIC.
func (a *Attester) Name() []byte { return slices.Clone(a.name) }

// describe makes the key's TPMT_PUBLIC and its names. The key has the attributes
// of an attestation key: restricted, it signs nothing that has not come
// from the TPM itself. It is where TPM 2.0 has keys that no reset survives: a
// primary object of the null hierarchy, whose qualified name is
// H(handle ‖ name) (TPM 2.0 Part 1, "Names").
func (a *Attester) describe(key *ecdsa.PublicKey) error {
	point, err := key.Bytes() // 04 ‖ X ‖ Y
	if err != nil {
		return err
	}
	size := (len(point) - 1) / 2
	public := tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+size]},
			Y: tpm2.TPM2BECCParameter{Buffer: point[1+size:]},
		}),
	}
	name, err := tpm2.ObjectName(&public)
	if err != nil {
		return err
	}
	null := tpm2.HandleName(tpm2.TPMRHNull)
	a.public, a.name = tpm2.Marshal(public), name.Buffer
	a.signer.Buffer = hashed(slices.Concat(null.Buffer, name.Buffer))
	return nil
}

// hashed returns a name's form: TPM_ALG_SHA256 ‖ SHA-256 of the data.
func hashed(data []byte) []byte {
	return rtmr.SHA256.AppendHash([]byte{byte(rtmr.SHA256 >> 8), byte(rtmr.SHA256 & 0xff)}, data)
}

// Quote is a signed quote. Attest, Signature and Public are what tpm2_quote
// calls message, signature (in its format "tss") and public, byte for byte what
// belongs in files.
type Quote struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // TPMT_SIGNATURE: ECDSA, SHA-256
	Public    []byte // TPMT_PUBLIC
	Name      []byte // the key's

	Nonce     []byte          // extraData
	Selection []rtmr.Selected // in the order in which the values were hashed
}

// ReportData returns what a hardware's report has to hold in its 64 bytes of
// REPORT_DATA (REPORTDATA, inblob) to stand for the quote.
func (q *Quote) ReportData() [64]byte { return softtpm.Binding(q.Nonce, q.Name, q.Attest) }

// Quote signs the selected registers' values, which should be of one moment, as
// a Snapshot's are. The banks are hashed in the order in which the selection
// first names them, and within a bank by rising index, as a TPM does; a
// register named twice counts once. The nonce has up to 64 bytes, and none
// leaves freshness out.
//
// It is an error to select nothing, what is no PCR, or what has no value.
func (a *Attester) Quote(values rtmr.Values, selection []rtmr.Selected, nonce []byte) (*Quote, error) {
	key := a.key.Load()
	switch {
	case key == nil:
		return nil, fmt.Errorf("quote: the attester is closed: %w", os.ErrClosed)
	case len(nonce) > softtpm.MaxNonce:
		return nil, fmt.Errorf("quote: the nonce has %d bytes, expected %d at most", len(nonce), softtpm.MaxNonce)
	}
	q := &Quote{Public: a.Public(), Name: a.Name(), Nonce: slices.Clone(nonce)}
	var err error
	if q.Selection, err = ordered(selection); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	if q.Attest, err = a.attest(values, q.Selection, nonce); err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	if q.Signature, err = sign(key, q.Attest); err != nil {
		return nil, fmt.Errorf("sign the quote: %w", err)
	}
	return q, nil
}

// ordered returns a selection as a TPM hashes it: bank by bank, as they are
// first named, and by rising index.
func ordered(selection []rtmr.Selected) ([]rtmr.Selected, error) {
	var banks []rtmr.Alg
	for _, s := range selection {
		if s.Register.Kind() != rtmr.KindPCR {
			return nil, fmt.Errorf("%s was selected, expected a PCR", s)
		}
		if !slices.Contains(banks, s.Alg) {
			banks = append(banks, s.Alg)
		}
	}
	if len(banks) == 0 {
		return nil, errors.New("no register was selected")
	}
	selection = slices.SortedFunc(slices.Values(selection), func(s, t rtmr.Selected) int {
		return cmp.Or(cmp.Compare(slices.Index(banks, s.Alg), slices.Index(banks, t.Alg)), s.Register.Compare(t.Register))
	})
	return slices.Compact(selection), nil
}

// attest makes the TPMS_ATTEST over an ordered selection. A TPM obfuscates
// resetCount, restartCount and firmwareVersion for a key of the null hierarchy,
// for they tell one machine from another; here they are the same everywhere.
func (a *Attester) attest(values rtmr.Values, selection []rtmr.Selected, nonce []byte) ([]byte, error) {
	const signing = rtmr.SHA256 // the scheme's hash is also the one over the PCRs (Part 3, TPM2_Quote)
	composite := rtmr.Composite{Selection: selection, Digest: rtmr.Digest{Alg: signing}}
	digest, err := composite.Of(values)
	if err != nil {
		return nil, err
	}
	up, err := sinceBoot()
	if err != nil {
		return nil, fmt.Errorf("read the clock: %w", err)
	}
	return tpm2.Marshal(tpm2.TPMSAttest{
		Magic:           tpm2.TPMGeneratedValue,
		Type:            tpm2.TPMSTAttestQuote,
		QualifiedSigner: a.signer,
		ExtraData:       tpm2.TPM2BData{Buffer: nonce},
		ClockInfo:       tpm2.TPMSClockInfo{Clock: uint64(up.Milliseconds()), Safe: true},
		FirmwareVersion: softtpm.FirmwareVersion,
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{
			PCRSelect: pcrSelect(selection),
			PCRDigest: tpm2.TPM2BDigest{Buffer: digest},
		}),
	}), nil
}

// pcrSelect writes an ordered selection as a TPM's, a bitmap a bank.
func pcrSelect(selection []rtmr.Selected) (list tpm2.TPMLPCRSelection) {
	for len(selection) > 0 {
		bank := selection[0].Alg
		var pcrs []uint
		for len(selection) > 0 && selection[0].Alg == bank {
			pcrs, selection = append(pcrs, uint(selection[0].Register.Index())), selection[1:]
		}
		list.PCRSelections = append(list.PCRSelections, tpm2.TPMSPCRSelection{
			Hash: tpm2.TPMAlgID(bank), PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
		})
	}
	return list
}

func sign(key *ecdsa.PrivateKey, attest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, rtmr.SHA256.AppendHash(nil, attest))
	if err != nil {
		return nil, err
	}
	size := (key.Curve.Params().BitSize + 7) / 8
	return tpm2.Marshal(tpm2.TPMTSignature{
		SigAlg: tpm2.TPMAlgECDSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash:       tpm2.TPMAlgSHA256,
			SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, size))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, size))},
		}),
	}), nil
}
