package quote_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"tallystick/quote"
	"tallystick/rtmr"
)

// digestsOf returns the selected values in lists of eight, as TPM2_PCR_Read does.
func digestsOf(selection []bank, values rtmr.Values) (lists [][]rtmr.Hex) {
	var all []rtmr.Hex
	for _, b := range selection {
		for _, i := range b.pcrs {
			register, _ := rtmr.PCR(i).Register()
			all = append(all, values[b.alg][register])
		}
	}
	for len(all) > 8 {
		lists, all = append(lists, all[:8]), all[8:]
	}
	return append(lists, all)
}

// serialized writes tpm2-tools' C structures.
func serialized(selection []bank, values rtmr.Values) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(selection)))
	for i := range 16 {
		one := make([]byte, 8)
		if i < len(selection) {
			le.PutUint16(one, uint16(selection[i].alg))
			one[2] = byte(selection[i].size)
			for _, n := range selection[i].pcrs {
				one[3+n/8] |= 1 << (n % 8)
			}
		}
		b = append(b, one...)
	}
	lists := digestsOf(selection, values)
	b = le.AppendUint32(b, uint32(len(lists)))
	for _, list := range lists {
		b = le.AppendUint32(b, uint32(len(list)))
		for i := range 8 {
			one := make([]byte, 66)
			if i < len(list) {
				le.PutUint16(one, uint16(len(list[i])))
				copy(one[2:], list[i])
			}
			b = append(b, one...)
		}
	}
	return b
}

// marshaled writes the same as the TPM does.
func marshaled(selection []bank, values rtmr.Values) []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, uint32(len(selection)))
	for _, s := range selection {
		bitmap := make([]byte, s.size)
		for _, n := range s.pcrs {
			bitmap[n/8] |= 1 << (n % 8)
		}
		b = append(append(be.AppendUint16(b, uint16(s.alg)), byte(s.size)), bitmap...)
	}
	lists := digestsOf(selection, values)
	b = be.AppendUint32(b, uint32(len(lists)))
	for _, list := range lists {
		b = be.AppendUint32(b, uint32(len(list)))
		for _, value := range list {
			b = append(be.AppendUint16(b, uint16(len(value))), value...)
		}
	}
	return b
}

// TestTPM2ToolsPCRs: both formats, to the last byte. TestSwtpm reads what the
// tools wrote, and TestCheckquotePCRs has them read what is put together here.
func TestTPM2ToolsPCRs(t *testing.T) {
	held := valuesOf(rtmr.SHA1, rtmr.SHA256)
	selection := []bank{{rtmr.SHA256, 3, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, {rtmr.SHA1, 4, []int{23}}}
	key := software(t, ecc256)
	attest := key.attest(selection, []byte("n"), held)
	for name, data := range map[string][]byte{"serialized": serialized(selection, held), "marshaled": marshaled(selection, held)} {
		values, err := quote.ParseTPM2ToolsPCRs(data)
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, attest, quote.Options{})
		if err := q.Bind(values); err != nil {
			t.Fatal(err)
		}
		status(t, q, quote.Binding, quote.Verified, "")
		if !reflect.DeepEqual(q.Values, values) || len(values[rtmr.SHA256]) != 11 || len(values[rtmr.SHA1]) != 1 {
			t.Errorf("%s: %v", name, values)
		}
		for n := range data {
			if v, err := quote.ParseTPM2ToolsPCRs(data[:n]); err == nil {
				t.Errorf("%s cut off at %d: %v", name, n, v)
			}
		}
		if v, err := quote.ParseTPM2ToolsPCRs(append(bytes.Clone(data), 0)); err == nil {
			t.Errorf("%s and a byte: %v", name, v)
		}
	}
}

// TestCheckquotePCRs: tpm2_checkquote takes the same file for the quote's values,
// and not with one value changed.
func TestCheckquotePCRs(t *testing.T) {
	command := tool(t, "tpm2_checkquote", "tpm2-tools")
	held := valuesOf(rtmr.SHA1, rtmr.SHA256)
	selection := []bank{{rtmr.SHA256, 3, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}}, {rtmr.SHA1, 4, []int{23}}}
	key := software(t, ecc256)
	attest := key.attest(selection, []byte("n"), held)
	file := serialized(selection, held)
	for _, test := range []struct {
		pcrs []byte
		want quote.Status
	}{{file, quote.Verified}, {flip(file, 150), quote.Failed}} {
		path := filepath.Join(t.TempDir(), "pcrs")
		if err := os.WriteFile(path, test.pcrs, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := checkquote(t, command, attest, key.sign(t, attest), key.tpmtPublic(), []byte("n"), "-f", path)
		if (err == nil) != (test.want == quote.Verified) {
			t.Errorf("%s: tpm2_checkquote: %v\n%s", test.want, err, out)
		}
		values, err := quote.ParseTPM2ToolsPCRs(test.pcrs)
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, attest, quote.Options{})
		if err := q.Bind(values); err != nil {
			t.Fatal(err)
		}
		status(t, q, quote.Binding, test.want, "")
	}
}

// TestMalformedPCRs: files with a fault, and where it is.
func TestMalformedPCRs(t *testing.T) {
	held := valuesOf(rtmr.SHA256)
	good := serialized([]bank{{rtmr.SHA256, 3, []int{0, 1}}}, held)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"a_value_too_few":    {put(good, 136, 1), "1 values, expected 2 for sha256:0,1"},
		"nine_values":        {put(good, 136, 9), "offset 136: pcr_values[0].count: 9"},
		"value_of_65":        {put(good, 140, 65), "offset 140: pcr_values[0].digests[0].size: 65"},
		"value_of_20":        {put(good, 140, 20), "sha256:pcr0's and has 20 bytes, expected 32"},
		"bitmap_of_5":        {put(good, 6, 5), "offset 6: pcrSelections[0].sizeofSelect: 5"},
		"pcr_24":             {put(put(good, 6, 4), 10, 1), "offset 10: pcrSelections[0].pcrSelect: selects PCR 24"},
		"two_values_for_one": {serialized([]bank{{rtmr.SHA256, 3, []int{0}}, {rtmr.SHA256, 3, []int{1}}}, held), ""},
		"empty":              {nil, "offset 0"},
	} {
		data := test.data
		if name == "two_values_for_one" {
			data = put(data, 4+8+3, 1) // both select PCR 0 now
			test.want = "sha256:pcr0 has two values"
		}
		if v, err := quote.ParseTPM2ToolsPCRs(data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v, expected %q", name, v, err, test.want)
		}
	}
}
