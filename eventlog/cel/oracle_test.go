package cel_test

import (
	"bytes"
	"crypto"
	"testing"

	gecel "github.com/google/go-eventlog/cel"
	"github.com/google/go-eventlog/register"

	"tallystick/eventlog/cel"
	"tallystick/rtmr"
)

// cosContent makes a COS record by go-eventlog's means.
type cosContent struct {
	typ  uint8
	text string
}

func (c cosContent) TLV() (gecel.TLV, error) {
	inner, err := gecel.TLV{Type: c.typ, Value: []byte(c.text)}.MarshalBinary()
	return gecel.TLV{Type: 80, Value: inner}, err
}

func (c cosContent) GenerateDigest(alg crypto.Hash) ([]byte, error) {
	tlv, err := c.TLV()
	if err != nil {
		return nil, err
	}
	b, err := tlv.MarshalBinary()
	h := alg.New()
	h.Write(b)
	return h.Sum(nil), err
}

// TestReadGoEventlog: go-eventlog writes a log and says to what value each
// register was extended; ours reads and folds it.
func TestReadGoEventlog(t *testing.T) {
	for _, test := range []struct {
		name  string
		log   gecel.CEL
		index int
		reg   string
		alg   crypto.Hash
		bank  rtmr.Alg
	}{
		{"pcr", gecel.NewPCR(), 13, "pcr13", crypto.SHA256, rtmr.SHA256},
		{"ccmr", gecel.NewConfComputeMR(), 4, "rtmr3", crypto.SHA384, rtmr.SHA384},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := make([]byte, test.bank.Size())
			extend := func(alg crypto.Hash, index int, digest []byte) error {
				h := alg.New()
				h.Write(want)
				h.Write(digest)
				want = h.Sum(nil)
				return nil
			}
			for i := range 12 {
				content := cosContent{uint8(i), "value"}
				if err := test.log.AppendEvent(content, []crypto.Hash{test.alg}, test.index, extend); err != nil {
					t.Fatal(err)
				}
			}
			var buf bytes.Buffer
			if err := test.log.EncodeCEL(&buf); err != nil {
				t.Fatal(err)
			}
			if f, ok := cel.Detect(buf.Bytes()); !ok || f != cel.TLV {
				t.Errorf("detected %s, %t", f, ok)
			}
			got := make([]byte, test.bank.Size())
			r := cel.NewReader(&buf, cel.TLV)
			for m, err := range r.Measurements() {
				if err != nil {
					t.Fatal(err)
				}
				test.bank.Extend(got, m.Digests[0].Sum)
				if c, _ := m.Entry.Verify(m.Digests[0]); c != rtmr.Verified || m.Register.String() != test.reg {
					t.Errorf("entry %d in %s: %s %s", m.Index, m.Register, m.Entry.Type(), c)
				}
			}
			if !bytes.Equal(got, want) || len(r.Warnings()) != 0 {
				t.Errorf("folded to %x, go-eventlog extended to %x; warnings %q", got, want, r.Warnings())
			}
		})
	}
}

// TestGoEventlogReadsOurs: the other way round.
func TestGoEventlogReadsOurs(t *testing.T) {
	var log bytes.Buffer
	w := cel.NewWriter(&log, cel.TLV)
	value := make([]byte, 48)
	for i := range 5 {
		sum := bytes.Repeat([]byte{byte(i)}, 48)
		rtmr.SHA384.Extend(value, sum)
		err := w.Write(rtmr.Measurement{
			Register: rtmr.MustParse("rtmr2"),
			Digests:  []rtmr.Digest{{Alg: rtmr.SHA384, Sum: sum}},
			Entry:    foreignEntry{"event", []byte{byte(i)}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	theirs, err := gecel.DecodeToCEL(&log)
	if err != nil {
		t.Fatal(err)
	}
	if theirs.MRType() != gecel.CCMRType || len(theirs.Records()) != 5 {
		t.Fatalf("type %d, %d records", theirs.MRType(), len(theirs.Records()))
	}
	// 0-based in the bank: go-eventlog adds one to make it a CC-MR index.
	bank := register.RTMRBank{RTMRs: []register.RTMR{{Index: 2, Digest: value}}}
	if err := theirs.Replay(bank); err != nil {
		t.Error(err)
	}
	bank.RTMRs[0].Digest = make([]byte, 48)
	if err := theirs.Replay(bank); err == nil {
		t.Error("a wrong register value was accepted")
	}
}
