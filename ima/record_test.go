package ima_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/ima"
	"tallystick/rtmr"
)

// Record by record, every list of the project's machines is what the Reader makes of
// it, in each bank.
func TestParseRecord(t *testing.T) {
	lists, err := filepath.Glob("../fixtures/*/*ima*.bin")
	if err != nil || len(lists) < 50 {
		t.Fatal(len(lists), err)
	}
	banks := []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512}
	for _, path := range lists {
		list, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := ima.NewReader(bytes.NewReader(list), ima.Options{Banks: banks})
		if err != nil {
			t.Fatal(path, err)
		}
		var e ima.Entry
		rest := list
		for m, err := range r.Measurements() {
			if err != nil {
				t.Fatal(path, err)
			}
			n, err := r.Layout().ParseRecord(rest, &e)
			if n == 0 || err != nil {
				t.Fatalf("%s: entry %d: %d bytes, %v", path, m.Index, n, err)
			}
			if short, err := r.Layout().ParseRecord(rest[:n-1], new(ima.Entry)); short != 0 || err != nil {
				t.Fatalf("%s: entry %d, cut short: %d, %v", path, m.Index, short, err)
			}
			if reg, ok := e.Register(); !ok || reg != m.Register || e.Type() != m.Entry.Type() || !bytes.Equal(e.Data(), m.Entry.Data()) {
				t.Fatalf("%s: entry %d is %s %s", path, m.Index, reg, e.Detail())
			}
			for _, a := range banks {
				i := slices.IndexFunc(m.Digests, func(d rtmr.Digest) bool { return d.Alg == a })
				if got := e.AppendExtended([]byte("x"), a); string(got) != "x"+string(m.Digests[i].Sum) {
					t.Fatalf("%s: entry %d: %s %x, want %s", path, m.Index, a, got, m.Digests[i])
				}
			}
			rest = rest[n:]
		}
		if len(rest) > 0 {
			t.Errorf("%s: %d bytes left", path, len(rest))
		}
	}
}

// A policy's rule may name a PCR that no TPM has, 24 to 63: the record is parsed, and
// has no register.
func TestParseRecordOfNoPCR(t *testing.T) {
	l := ima.Layout{Alg: rtmr.SHA1, Order: binary.LittleEndian}
	data := l.AppendField(l.AppendField(nil, append([]byte("sha1:\x00"), make([]byte, 20)...)), []byte("/x\x00"))
	record, err := l.AppendRecord(nil, 10, ima.NewEntry("ima-ng", data, l.Order))
	if err != nil {
		t.Fatal(err)
	}
	for pcr, want := range map[uint32]struct{ parsed, has bool }{10: {true, true}, 23: {true, true}, 24: {true, false}, 63: {true, false}, 64: {false, false}} {
		binary.LittleEndian.PutUint32(record, pcr)
		var e ima.Entry
		n, err := l.ParseRecord(record, &e)
		if (n == len(record) && err == nil) != want.parsed {
			t.Errorf("PCR %d: %d bytes, %v", pcr, n, err)
		}
		if _, has := e.Register(); want.parsed && has != want.has {
			t.Errorf("PCR %d: has a register: %t", pcr, has)
		}
		r, err := ima.NewReader(bytes.NewReader(record), ima.Options{})
		if (err == nil) != want.parsed {
			t.Errorf("PCR %d: %v", pcr, err)
		}
		if err != nil {
			continue
		}
		for m, err := range r.Measurements() {
			if err != nil || m.NoAction == want.has || m.Register.IsZero() == want.has {
				t.Errorf("PCR %d: %+v, %v", pcr, m, err)
			}
		}
		if told := strings.Contains(strings.Join(r.Warnings(), "\n"), "1 entries name a PCR above 23"); told == want.has {
			t.Errorf("PCR %d: warnings %q", pcr, r.Warnings())
		}
	}
}
