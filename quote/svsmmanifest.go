package quote

import (
	"bytes"
	"errors"
	"fmt"

	"tallystick/rtmr"
)

// SVSMManifest is what an SVSM says of its services, as its bytes say: nothing in
// it has been checked. Open checks it. The slices point into the data that was
// parsed.
//
// An SVSM is asked for one service's manifest, or for those of all services in a
// table (Secure VM Service Module for SEV-SNP Guests, document 58019, "Attestation
// Protocol", Services Manifest; the vTPM's is in "vTPM Protocol", Attestation).
// Linux gives either in configfs' manifestblob.
type SVSMManifest struct {
	Services []SVSMService // of the table; nil where the manifest is the vTPM's alone

	// Version is of the vTPM's manifest. 0: the endorsement key's TPMT_PUBLIC, and
	// nothing else. 1: be32 1, be32 the number of keys, and as many TPM2B_PUBLIC,
	// attestation keys among them, which the SVSM has derived itself.
	Version int
	Keys    []rtmr.Hex // TPMT_PUBLIC each, one in version 0

	keys []*tpmKey
}

// SVSMService is an entry of a services manifest: its GUID as text, and its
// manifest, which may be empty.
type SVSMService struct {
	GUID     string
	Manifest rtmr.Hex
}

// The GUIDs as they stand in a manifest: their first three fields little-endian.
var (
	svsmServices = []byte{0xbb, 0x9e, 0x84, 0x63, 0x92, 0x3d, 0x70, 0x46, 0xa1, 0xff, 0x58, 0xf9, 0xc9, 0x4b, 0x87, 0xbb} // 63849ebb-3d92-4670-a1ff-58f9c94b87bb
	svsmVTPM     = []byte{0xeb, 0xf1, 0x76, 0xc4, 0x23, 0x01, 0xa5, 0x45, 0x96, 0x41, 0xb4, 0xe7, 0xdd, 0xe5, 0xbf, 0xe3} // c476f1eb-0123-45a5-9641-b4e7dde5bfe3
)

func guidText(b []byte) string {
	return fmt.Sprintf("%02x%02x%02x%02x-%02x%02x-%02x%02x-%x-%x", b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8:10], b[10:16])
}

// ParseSVSMManifest reads the vTPM's manifest, or a table with one. The error
// names the offset and the field, and wraps ErrUnsupported where the manifest is
// of a version that is not read here, or has a key of another type than RSA or ECC.
func ParseSVSMManifest(data []byte) (*SVSMManifest, error) {
	m := &SVSMManifest{}
	vtpm, base := data, 0
	if bytes.HasPrefix(data, svsmServices) {
		var err error
		if vtpm, base, err = m.services(data); err != nil {
			return nil, err
		}
	}
	if err := m.vtpm(vtpm, base); err != nil {
		return nil, fmt.Errorf("the vTPM's manifest: %w", err)
	}
	return m, nil
}

// services reads a table: GUID, le32 its size, le32 the number of services; for
// each a GUID, and le32 where its manifest stands in the table, le32 its size. It
// returns the vTPM's manifest, and its offset.
func (m *SVSMManifest) services(data []byte) (vtpm []byte, base int, err error) {
	const entry = 24
	b := littleEndian(data)
	b.bytes("GUID", 16)
	at := b.off
	if size := b.u32("size"); b.err == nil && uint64(size) != uint64(len(data)) {
		b.fail(at, "size", "%d, and the manifest has %d bytes", size, len(data))
	}
	at = b.off
	count := b.u32("number of services")
	if left := len(data) - b.off; b.err == nil && int64(count)*entry > int64(left) {
		b.fail(at, "number of services", "%d take %d bytes, and %d are left", count, int64(count)*entry, left)
	}
	first := entry * (1 + int64(count)) // after the last entry
	found := false
	for i := 0; i < int(count) && b.err == nil; i++ {
		field := fmt.Sprintf("services[%d]", i)
		guid, at := b.bytes(field+".GUID", 16), b.off
		offset, size := int64(b.u32(field+".offset")), int64(b.u32(field+".size"))
		if b.err != nil {
			break
		}
		if offset < first || offset+size > int64(len(data)) {
			b.fail(at, field, "a manifest of %d bytes at %d, expected it from %d to %d", size, offset, first, len(data))
			break
		}
		manifest := data[offset:][:size:size]
		m.Services = append(m.Services, SVSMService{guidText(guid), manifest})
		if !bytes.Equal(guid, svsmVTPM) {
			continue
		}
		if found {
			b.fail(at, field+".GUID", "the vTPM's comes twice")
		}
		found, vtpm, base = true, manifest, int(offset)
	}
	if b.err == nil && !found {
		return nil, 0, fmt.Errorf("offset %d: %d services, and none is the vTPM, %s", entry, count, guidText(svsmVTPM))
	}
	return vtpm, base, b.err
}

// vtpm reads the vTPM's own manifest, which stands at base.
func (m *SVSMManifest) vtpm(data []byte, base int) error {
	b := bigEndian(data)
	b.base = base
	switch {
	case len(data) == 0:
		return fmt.Errorf("offset %d: it is empty, expected the endorsement key's TPMT_PUBLIC", base)
	case isTPMTPublic(data):
		return m.add(data, base)
	}
	if m.Version = int(b.u32("version")); b.err == nil && m.Version != 1 {
		return fmt.Errorf("%w: offset %d: it begins %.8x, expected the endorsement key's TPMT_PUBLIC, of an RSA or ECC key, or version 1", ErrUnsupported, base, data)
	}
	at := b.off
	count := b.u32("number of keys")
	if left := len(data) - b.off; b.err == nil && int64(count)*2 > int64(left) {
		b.fail(at, "number of keys", "%d take %d bytes at least, and %d are left", count, int64(count)*2, left)
	}
	for i := 0; i < int(count) && b.err == nil; i++ {
		at := b.off
		if public := b.sized(fmt.Sprintf("keys[%d]", i)); b.err == nil {
			if err := m.add(public, base+at+2); err != nil {
				return err
			}
		}
	}
	if b.err == nil && count == 0 {
		return fmt.Errorf("offset %d: number of keys: none", base+at)
	}
	return b.end("the last key")
}

// add takes a key's TPMT_PUBLIC.
func (m *SVSMManifest) add(public []byte, at int) error {
	if !isTPMTPublic(public) {
		return fmt.Errorf("%w: offset %d: a key that begins %.4x, expected the TPMT_PUBLIC of an RSA or ECC key", ErrUnsupported, at, public)
	}
	key, err := parseTPMTPublic(public)
	if err != nil {
		return fmt.Errorf("offset %d: TPMT_PUBLIC: %w", at, err)
	}
	m.Keys, m.keys = append(m.Keys, public), append(m.keys, key)
	return nil
}

// holds returns the manifest's key of that structure, nil if it has none.
func (m *SVSMManifest) holds(public []byte) *tpmKey {
	for i, k := range m.Keys {
		if bytes.Equal(k, public) {
			return m.keys[i]
		}
	}
	return nil
}

// endorsement returns the endorsement key: the one that is of use, of those in the
// manifest.
func (m *SVSMManifest) endorsement(use ekUse) (*tpmKey, error) {
	var lacking []string
	for _, k := range m.keys {
		if lacking = use.lacks(k); len(lacking) == 0 {
			return k, nil
		}
	}
	if len(m.keys) > 1 {
		return nil, fmt.Errorf("none of the manifest's %d keys is an endorsement key that may %s", len(m.keys), use)
	}
	return nil, errors.New("the manifest's endorsement key " + lacks(lacking))
}

func (m *SVSMManifest) facts() []Fact {
	facts := []Fact{{"vTPM manifest version", fmt.Sprint(m.Version)}}
	for _, s := range m.Services {
		facts = append(facts, Fact{"service", fmt.Sprintf("%s, %d bytes", s.GUID, len(s.Manifest))})
	}
	for _, k := range m.keys {
		facts = append(facts, Fact{"vTPM key", fmt.Sprintf("%s, name %x", k, k.name)})
	}
	return facts
}
