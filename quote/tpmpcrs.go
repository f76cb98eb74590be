package quote

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"tallystick/rtmr"
)

// Sizes of C structures that tpm2-tools writes as they lie in memory
// (tpm2-tss, tss2_tpm2_types.h, on a machine with ordinary alignment).
const (
	maxSelections   = 16                   // TPM2_NUM_PCR_BANKS
	selectionSize   = 2 + 1 + 4 + 1        // TPMS_PCR_SELECTION: hash, sizeofSelect, pcrSelect[4], padding
	maxBitmap       = 4                    // TPM2_PCR_SELECT_MAX
	digestSize      = 2 + 64               // TPM2B_DIGEST: size, buffer[64]
	digestsPerList  = 8                    // of a TPML_DIGEST, which TPM2_PCR_Read returns at a time
	digestListSize  = 4 + 8*digestSize     // TPML_DIGEST: count, digests[8]
	serializedStart = 4 + 16*selectionSize // TPML_PCR_SELECTION: count, pcrSelections[16]
)

// ParseTPM2ToolsPCRs reads the register values that tpm2_quote and tpm2_pcrread
// write with -o in the format "serialized", their default, which is C structures
// in little-endian, or "marshaled", which is the same in the TPM's own encoding
// (tpm2-tools, lib/pcr.c). The format "values" has no names of registers and is
// not read. Nothing vouches for the values: see [Quote.Bind].
func ParseTPM2ToolsPCRs(data []byte) (rtmr.Values, error) {
	b := bigEndian(data)
	var selection []rtmr.Selected
	var digests [][]byte
	if isTPM2ToolsPCRs(data) {
		selection, digests = serializedPCRs(b)
	} else {
		selection = pcrSelections(b)
		digests = marshaledDigests(b)
	}
	if err := b.end("the structure"); err != nil {
		return nil, fmt.Errorf("tpm2-tools' PCR file: %w", err)
	}
	if len(digests) != len(selection) {
		return nil, fmt.Errorf("tpm2-tools' PCR file: %d values, expected %d for %s", len(digests), len(selection), selectionText(selection))
	}
	values := rtmr.Values{}
	for i, s := range selection {
		if size := s.Alg.Size(); size != 0 && len(digests[i]) != size {
			return nil, fmt.Errorf("tpm2-tools' PCR file: value %d is %s's and has %d bytes, expected %d", i, s, len(digests[i]), size)
		}
		one := rtmr.Values{s.Alg: {s.Register: digests[i]}}
		if err := mergeValues(values, one); err != nil {
			return nil, fmt.Errorf("tpm2-tools' PCR file: %w", err)
		}
	}
	return values, nil
}

// isTPM2ToolsPCRs tells the format "serialized" by its sizes: the count of
// selections, and the count of lists, which the file's length has to fit.
func isTPM2ToolsPCRs(data []byte) bool {
	if len(data) < serializedStart+4 {
		return false
	}
	selections := binary.LittleEndian.Uint32(data)
	lists := binary.LittleEndian.Uint32(data[serializedStart:])
	return selections > 0 && selections <= maxSelections &&
		int64(len(data)) == serializedStart+4+int64(lists)*digestListSize
}

// serializedPCRs reads the structures of a file that isTPM2ToolsPCRs told.
func serializedPCRs(b *fields) (selection []rtmr.Selected, digests [][]byte) {
	le := binary.LittleEndian
	count := le.Uint32(b.bytes("count", 4))
	for i := range maxSelections {
		field := fmt.Sprintf("pcrSelections[%d]", i)
		s := b.bytes(field, selectionSize)
		if i >= int(count) {
			continue
		}
		size := s[2]
		if size > maxBitmap {
			b.fail(b.off-selectionSize+2, field+".sizeofSelect", "%d, expected %d at most", size, maxBitmap)
			return nil, nil
		}
		bitmap := bigEndian(b.data)
		bitmap.off = b.off - selectionSize + 3 + int(size)
		selection = appendSelected(selection, bitmap, rtmr.Alg(le.Uint16(s)), s[3:3+size], field)
		if bitmap.err != nil {
			b.err = bitmap.err
			return nil, nil
		}
	}
	lists := le.Uint32(b.bytes("the count of lists", 4))
	for i := range int(lists) {
		field := fmt.Sprintf("pcr_values[%d]", i)
		at := b.off
		list := b.bytes(field, digestListSize)
		count := le.Uint32(list)
		if count > digestsPerList {
			b.fail(at, field+".count", "%d, expected %d at most", count, digestsPerList)
			return nil, nil
		}
		for k := range int(count) {
			d := list[4+k*digestSize:][:digestSize]
			size := le.Uint16(d)
			if int(size) > digestSize-2 {
				b.fail(at+4+k*digestSize, fmt.Sprintf("%s.digests[%d].size", field, k), "%d, expected %d at most", size, digestSize-2)
				return nil, nil
			}
			digests = append(digests, bytes.Clone(d[2:2+size]))
		}
	}
	return selection, digests
}

// marshaledDigests reads a count of TPML_DIGEST, and those.
func marshaledDigests(b *fields) (digests [][]byte) {
	lists := b.u32("the count of lists")
	for i := 0; i < int(lists) && b.err == nil; i++ {
		field := fmt.Sprintf("pcr_values[%d]", i)
		count := b.u32(field + ".count")
		for k := 0; k < int(count) && b.err == nil; k++ {
			digests = append(digests, b.sized(fmt.Sprintf("%s.digests[%d]", field, k)))
		}
	}
	return digests
}
