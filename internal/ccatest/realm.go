package ccatest

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/rtmr"
)

// Realm is what a realm with firmware and IMA has logged, and its registers.
type Realm struct {
	CCEL   []byte      // in its one bank, as edk2 writes it
	IMA    []byte      // the kernel's list, in SHA-1
	Booted rtmr.Values // by the CC log alone
	Values rtmr.Values // by both, IMA's in rem2
}

// NewRealm makes logs of real ones: the CC log has the events of a machine's TPM log
// (fixtures/four-banks-6.12), at the index that UEFI 2.10 §38.4.1 gives their
// PCRs, and the IMA list is of a kernel without a TPM (fixtures/no-tpm-6.12). The
// registers are folded here by hand, and by no code of the project's.
func NewRealm(t testing.TB, alg rtmr.Alg) Realm {
	t.Helper()
	h := map[rtmr.Alg]crypto.Hash{rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384, rtmr.SHA512: crypto.SHA512}[alg]
	rem := [4][]byte{}
	for i := range rem {
		rem[i] = testlogs.Zeros(h)
	}
	var events []testlogs.Event
	for _, e := range bootEvents(testlogs.Read(t, testlogs.Fixture(t, "four-banks-6.12", "boot.bin")), uint16(alg), h.Size()) {
		switch pcr := e.Index; {
		case e.Type == testlogs.NoAction || pcr == 0:
			continue
		case pcr == 1 || pcr == 7:
			e.Index = 1
		case pcr <= 6:
			e.Index = 2
		default:
			e.Index = 3
		}
		events = append(events, e)
		rem[e.Index-1] = testlogs.Fold(h, rem[e.Index-1], e.Digests[0].Sum)
	}
	r := Realm{
		CCEL: append(testlogs.TCG2([]uint16{uint16(alg)}, events...), bytes.Repeat([]byte{0xFF}, 4096)...),
		IMA:  testlogs.Read(t, testlogs.Fixture(t, "no-tpm-6.12", "ima.bin")),
	}
	r.Booted, r.Values = rtmr.Values{}, rtmr.Values{}
	for i, value := range rem {
		reg, _ := rtmr.Index(i).REM()
		r.Booted.Set(alg, reg, value)
		r.Values.Set(alg, reg, value)
	}
	r.Values.Set(alg, rtmr.MustParse("rem2"), FoldIMA(h, rem[2], r.IMA))
	return r
}

// bootEvents reads a crypto-agile log: of each event, the digest in one algorithm.
func bootEvents(log []byte, alg uint16, size int) (events []testlogs.Event) {
	le := binary.LittleEndian
	sizes := map[uint16]int{4: 20, 0x0B: 32, 0x0C: 48, 0x0D: 64}
	log = log[32+le.Uint32(log[28:]):] // the record that says how to read the others
	for len(log) >= 12 {
		e := testlogs.Event{Index: le.Uint32(log), Type: le.Uint32(log[4:])}
		n := le.Uint32(log[8:])
		for log = log[12:]; n > 0; n-- {
			a := le.Uint16(log)
			if a == alg {
				e.Digests = []testlogs.Digest{{Alg: a, Sum: log[2:][:size]}}
			}
			log = log[2+sizes[a]:]
		}
		e.Data = log[4:][:le.Uint32(log)]
		log = log[4+len(e.Data):]
		events = append(events, e)
	}
	return events
}

// FoldIMA extends a register by a list's entries: by the hash of their template
// data, or by ones where an entry is a violation (security/integrity/ima/ima_queue.c).
func FoldIMA(h crypto.Hash, value, list []byte) []byte {
	le := binary.LittleEndian
	for len(list) > 0 {
		violation := bytes.Equal(list[4:24], make([]byte, 20))
		list = list[24:]
		list = list[4+le.Uint32(list):] // the template's name
		data := list[4:][:le.Uint32(list)]
		list = list[4+len(data):]
		digest := testlogs.Hash(h, data)
		if violation {
			digest = bytes.Repeat([]byte{0xFF}, h.Size())
		}
		value = testlogs.Fold(h, value, digest)
	}
	return value
}
