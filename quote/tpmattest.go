package quote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tallystick/rtmr"
)

// TPM 2.0 Part 2 §6.2 and §6.9.
const (
	tpmGenerated   = 0xff544347 // TPM_GENERATED_VALUE
	tpmAttestQuote = 0x8018     // TPM_ST_ATTEST_QUOTE
)

// attestTypes are the structures that a TPM signs (Part 2 §6.9).
var attestTypes = map[uint16]string{
	0x8014: "nv", 0x8015: "command audit", 0x8016: "session audit", 0x8017: "certify", tpmAttestQuote: "quote",
	0x8019: "time", 0x801a: "creation", 0x801c: "nv digest",
}

// tpmAttest is a TPMS_ATTEST of type quote (Part 2 §10.12.8).
type tpmAttest struct {
	raw             []byte // the TPMS_ATTEST, which is what is signed
	qualifiedSigner []byte
	extraData       []byte // the nonce, as it was sent
	clock           uint64 // milliseconds
	resetCount      uint32
	restartCount    uint32
	safe            bool
	firmwareVersion uint64
	selection       []rtmr.Selected // in the order in which the TPM hashed them
	pcrDigest       []byte
}

// isTPMAttest tells a TPMS_ATTEST, or a TPM2B_ATTEST, by its magic.
func isTPMAttest(data []byte) bool { return hasMagic(data) || isTPM2BAttest(data) }

func hasMagic(data []byte) bool {
	return len(data) >= 4 && binary.BigEndian.Uint32(data) == tpmGenerated
}

func isTPM2BAttest(data []byte) bool { return len(data) > 2 && hasMagic(data[2:]) && !hasMagic(data) }

// parseTPMAttest reads a TPMS_ATTEST or TPM2B_ATTEST. Whatever it returns
// without an error is a quote to its last byte.
func parseTPMAttest(data []byte) (*tpmAttest, error) {
	b := bigEndian(data)
	if isTPM2BAttest(data) {
		switch size, left := int(b.u16("size")), len(data)-2; {
		case size < left:
			return nil, fmt.Errorf("offset %d: the end: %d bytes follow the structure", 2+size, left-size)
		case size > left:
			return nil, fmt.Errorf("offset 2: attestationData: takes %d bytes, and %d are left", size, left)
		}
	}
	a := &tpmAttest{raw: data[b.off:]}
	a.header(b, tpmAttestQuote)
	a.selection = pcrSelections(b)
	a.pcrDigest = b.sized("pcrDigest")
	return a, b.end("the structure")
}

// header reads what all attestation structures begin with, and returns which of
// the expected types it is.
func (a *tpmAttest) header(b *fields, types ...uint16) (typ uint16) {
	at := b.off
	if magic := b.u32("magic"); magic != tpmGenerated {
		b.fail(at, "magic", "0x%08x, expected 0x%08x, by which a TPM marks what it made itself", magic, uint32(tpmGenerated))
	}
	at = b.off
	if typ = b.u16("type"); !slices.Contains(types, typ) {
		expected := make([]string, len(types))
		for i, t := range types {
			expected[i] = fmt.Sprintf("0x%04x for a %s", t, attestTypes[t])
		}
		b.fail(at, "type", "0x%04x%s, expected %s", typ, inParens(attestTypes[typ]), strings.Join(expected, ", or "))
	}
	a.qualifiedSigner = b.sized("qualifiedSigner")
	a.extraData = b.sized("extraData")
	a.clock = b.u64("clock")
	a.resetCount = b.u32("resetCount")
	a.restartCount = b.u32("restartCount")
	at = b.off
	safe := b.u8("safe")
	if safe > 1 { // TPMI_YES_NO
		b.fail(at, "safe", "%d, expected 0 or 1", safe)
	}
	a.safe = safe == 1
	a.firmwareVersion = b.u64("firmwareVersion")
	return typ
}

// pcrSelections reads a TPML_PCR_SELECTION as the list of values that the TPM
// hashes: bank by bank as they stand, a bank that stands twice twice, and
// within each by rising index (Part 1, "Selecting Multiple PCR").
func pcrSelections(b *fields) (selection []rtmr.Selected) {
	const smallest = 2 + 1 + 3 // of a TPMS_PCR_SELECTION
	at := b.off
	count := b.u32("pcrSelect's count")
	if left := len(b.data) - b.off; int64(count)*smallest > int64(left) {
		b.fail(at, "pcrSelect's count", "%d selections take %d bytes at least, and %d are left", count, int64(count)*smallest, left)
	}
	for i := 0; i < int(count) && b.err == nil; i++ {
		field := "pcrSelections[" + strconv.Itoa(i) + "]"
		alg := rtmr.Alg(b.u16(field + ".hash"))
		at := b.off
		size := b.u8(field + ".sizeofSelect")
		if size < 3 && b.err == nil { // PCR_SELECT_MIN of a TPM with 24 PCRs
			b.fail(at, field+".sizeofSelect", "%d, expected 3 or more", size)
		}
		selection = appendSelected(selection, b, alg, b.bytes(field+".pcrSelect", int64(size)), field)
	}
	return selection
}

// appendSelected adds the registers of one bank's bitmap, whose bit n%8 of byte
// n/8 is PCR n (Part 2 §10.6.1).
func appendSelected(selection []rtmr.Selected, b *fields, alg rtmr.Alg, bitmap []byte, field string) []rtmr.Selected {
	for n := range 8 * len(bitmap) {
		if bitmap[n/8]>>(n%8)&1 == 0 {
			continue
		}
		register, ok := rtmr.PCR(n).Register()
		if !ok {
			b.fail(b.off-len(bitmap)+n/8, field+".pcrSelect", "selects PCR %d, expected 0 to %d", n, rtmr.NumPCRs-1)
			return selection
		}
		selection = append(selection, rtmr.Selected{Alg: alg, Register: register})
	}
	return selection
}

// facts are the fields, in their own names.
func (a *tpmAttest) facts() []Fact {
	return []Fact{
		{"magic", fmt.Sprintf("0x%08x TPM_GENERATED_VALUE", uint32(tpmGenerated))},
		{"type", fmt.Sprintf("0x%04x TPM_ST_ATTEST_QUOTE", tpmAttestQuote)},
		{"qualifiedSigner", fmt.Sprintf("%x", a.qualifiedSigner)},
		{"extraData", fmt.Sprintf("%x", a.extraData)},
		{"clock", strconv.FormatUint(a.clock, 10) + " ms"},
		{"resetCount", strconv.FormatUint(uint64(a.resetCount), 10)},
		{"restartCount", strconv.FormatUint(uint64(a.restartCount), 10)},
		{"safe", strconv.FormatBool(a.safe)},
		{"firmwareVersion", fmt.Sprintf("0x%016x", a.firmwareVersion)},
		{"pcrSelect", selectionText(a.selection)},
		{"pcrDigest", fmt.Sprintf("%x", a.pcrDigest)},
	}
}

// nonce holds extraData against what the verifier sent. A TPM signs it with its
// length, so nothing may follow it.
func (a *tpmAttest) nonce(sent []byte) Link {
	switch {
	case sent == nil:
		return Link{Nonce, NotChecked, fmt.Sprintf("no nonce was given; extraData is %x", a.extraData)}
	case bytes.Equal(sent, a.extraData):
		return Link{Nonce, Verified, "extraData is the nonce"}
	}
	return Link{Nonce, Failed, fmt.Sprintf("extraData is %x, the nonce is %x", a.extraData, sent)}
}

// selectionText writes a selection as tpm2_quote's -l takes it: "sha1:0,1+sha256:7".
func selectionText(selection []rtmr.Selected) string {
	var s strings.Builder
	for i, sel := range selection {
		// An index that does not rise begins another selection of the same bank.
		more := i > 0 && selection[i-1].Alg == sel.Alg && selection[i-1].Register.Index() < sel.Register.Index()
		switch {
		case more:
			s.WriteByte(',')
		case i > 0:
			s.WriteByte('+')
		}
		if !more {
			s.WriteString(sel.Alg.String() + ":")
		}
		s.WriteString(strconv.Itoa(sel.Register.Index()))
	}
	if s.Len() == 0 {
		return "nothing"
	}
	return s.String()
}

// selects reports whether a composite is over that register of that bank.
func selects(composites []rtmr.Composite, s rtmr.Selected) bool {
	return slices.ContainsFunc(composites, func(c rtmr.Composite) bool { return slices.Contains(c.Selection, s) })
}

func inParens(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}
