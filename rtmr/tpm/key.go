package tpm

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"tallystick/rtmr"
)

// KeyType is a key's algorithm.
type KeyType uint8

// The types: for attestation keys ECDSA on P-256 and RSASSA of 2048 bits, both
// with SHA-256; for endorsement keys those of TCG's templates.
const (
	ECC KeyType = iota
	RSA
)

// Hierarchy is the seed of the TPM's that a primary key is derived from.
type Hierarchy uint8

const (
	// Endorsement gives the same key as long as the TPM keeps its identity.
	Endorsement Hierarchy = iota
	// Owner gives the same key until the TPM is cleared.
	Owner
	// Null gives another key after each boot.
	Null
)

var hierarchies = map[Hierarchy]tpm2.TPMHandle{Endorsement: tpm2.TPMRHEndorsement, Owner: tpm2.TPMRHOwner, Null: tpm2.TPMRHNull}

// Key is an attestation key: one that signs what the TPM made, and nothing else.
type Key struct {
	d      *Device
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
	loaded bool // by this Device, which has to flush it
}

// Public returns the key's TPMT_PUBLIC, which is what tally's --key takes.
func (k *Key) Public() []byte { return tpm2.Marshal(k.public) }

// Name returns the key's name: the 16-bit algorithm, then the digest of Public.
func (k *Key) Name() []byte { return k.name.Buffer }

// Close removes the key from the TPM's memory. A persistent one stays.
func (k *Key) Close() error {
	if !k.loaded {
		return nil
	}
	k.loaded = false
	return k.d.flush(k.handle)
}

// flush removes an object from the TPM's memory, also where the context of the
// call that made it has ended.
func (d *Device) flush(handle tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(call{context.Background(), d}); err != nil {
		return fmt.Errorf("flush 0x%08x: %w", uint32(handle), explain(err))
	}
	return nil
}

func (k *Key) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}
}

var signing = tpm2.TPMAObject{
	FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true,
}

// attestation are the templates of attestation keys.
var attestation = map[KeyType]tpm2.TPMTPublic{
	ECC: {
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: signing,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
	},
	RSA: {
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: signing,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
	},
}

// PrimaryKey derives an attestation key from one of the TPM's seeds: the same
// key each time, with nothing to store. The hierarchy must have no password. A TPM
// without the algorithm is ErrNotSupported.
func (d *Device) PrimaryKey(ctx context.Context, t KeyType, h Hierarchy) (*Key, error) {
	key, err := d.primary(ctx, hierarchies[h], attestation[t])
	if err != nil {
		return nil, fmt.Errorf("attestation key: %w", err)
	}
	return key, nil
}

func (d *Device) primary(ctx context.Context, parent tpm2.TPMHandle, template tpm2.TPMTPublic) (*Key, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := tpm2.CreatePrimary{PrimaryHandle: parent, InPublic: tpm2.New2B(template)}.Execute(call{ctx, d})
	if err != nil {
		return nil, explain(err)
	}
	return d.key(r.ObjectHandle, r.Name, r.OutPublic, true)
}

// key makes a Key of what the TPM has loaded, or flushes that.
func (d *Device) key(handle tpm2.TPMHandle, name tpm2.TPM2BName, area tpm2.TPM2BPublic, loaded bool) (*Key, error) {
	k := &Key{d: d, handle: handle, name: name, loaded: loaded}
	public, err := area.Contents()
	if err == nil {
		k.public = *public
		return k, nil
	}
	return nil, errors.Join(fmt.Errorf("the key's public area: %w", err), k.Close())
}

// Stored is a key as it is kept outside its TPM, which alone can load it.
type Stored struct {
	Public  []byte // TPMT_PUBLIC
	Private []byte // TPM2B_PRIVATE without its size, encrypted by the TPM
}

// NewKey makes a new attestation key below the TPM's storage key, which it loads,
// and returns what LoadKey takes. The owner hierarchy must have no password.
func (d *Device) NewKey(ctx context.Context, t KeyType) (*Key, Stored, error) {
	k, stored, err := d.newKey(ctx, t)
	if err != nil {
		return nil, Stored{}, fmt.Errorf("new attestation key: %w", err)
	}
	return k, stored, nil
}

func (d *Device) newKey(ctx context.Context, t KeyType) (*Key, Stored, error) {
	parent, err := d.storageKey(ctx)
	if err != nil {
		return nil, Stored{}, err
	}
	defer parent.Close()
	r, err := tpm2.Create{ParentHandle: parent.auth(), InPublic: tpm2.New2B(attestation[t])}.Execute(call{ctx, d})
	if err != nil {
		return nil, Stored{}, explain(err)
	}
	public, err := r.OutPublic.Contents()
	if err != nil {
		return nil, Stored{}, err
	}
	stored := Stored{tpm2.Marshal(*public), r.OutPrivate.Buffer}
	k, err := d.load(ctx, parent, stored)
	return k, stored, err
}

// LoadKey loads a key of NewKey's.
func (d *Device) LoadKey(ctx context.Context, s Stored) (*Key, error) {
	parent, err := d.storageKey(ctx)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	defer parent.Close()
	k, err := d.load(ctx, parent, s)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	return k, nil
}

func (d *Device) load(ctx context.Context, parent *Key, s Stored) (*Key, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("public area: %w", err)
	}
	area := tpm2.New2B(*public)
	r, err := tpm2.Load{ParentHandle: parent.auth(), InPrivate: tpm2.TPM2BPrivate{Buffer: s.Private}, InPublic: area}.Execute(call{ctx, d})
	if err != nil {
		return nil, explain(err)
	}
	return d.key(r.ObjectHandle, r.Name, area, true)
}

// storageKey derives the TPM's storage key, by TCG's template: it is the same
// until the TPM is cleared.
func (d *Device) storageKey(ctx context.Context) (*Key, error) {
	k, err := d.primary(ctx, tpm2.TPMRHOwner, tpm2.ECCSRKTemplate)
	if errors.Is(err, rtmr.ErrNotSupported) {
		k, err = d.primary(ctx, tpm2.TPMRHOwner, tpm2.RSASRKTemplate)
	}
	if err != nil {
		return nil, fmt.Errorf("storage key: %w", err)
	}
	return k, nil
}

// PersistentKey returns the key that the TPM keeps at a handle, 0x81000000 and
// up. It must be an attestation key without a password.
func (d *Device) PersistentKey(ctx context.Context, handle uint32) (*Key, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(handle)}.Execute(call{ctx, d})
	if err != nil {
		return nil, fmt.Errorf("key 0x%08x: %w", handle, explain(err))
	}
	k, err := d.key(tpm2.TPMHandle(handle), r.Name, r.OutPublic, false)
	if err != nil {
		return nil, fmt.Errorf("key 0x%08x: %w", handle, err)
	}
	if a := k.public.ObjectAttributes; !a.SignEncrypt || !a.Restricted || a.Decrypt {
		return nil, fmt.Errorf("key 0x%08x: %w: it is no attestation key (restricted, signing)", handle, rtmr.ErrNotSupported)
	}
	return k, nil
}
