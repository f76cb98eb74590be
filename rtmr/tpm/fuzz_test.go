package tpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tallystick/rtmr"
	"tallystick/rtmr/tpm"
)

// replayed is a TPM that gives answers from a recording, each after its size in
// 16 bits, whatever it is asked.
type replayed struct{ left []byte }

// Send is transport.TPM's.
func (r *replayed) Send([]byte) ([]byte, error) {
	if len(r.left) < 2 {
		return nil, io.EOF
	}
	n := int(binary.BigEndian.Uint16(r.left))
	if n > len(r.left)-2 {
		return nil, io.ErrUnexpectedEOF
	}
	answer := r.left[2 : 2+n]
	r.left = r.left[2+n:]
	if notBegun(answer) { // such a command is sent again after a while
		return nil, io.EOF
	}
	return slices.Clone(answer), nil
}

func notBegun(answer []byte) bool {
	if len(answer) < 10 {
		return false
	}
	switch tpm2.TPMRC(binary.BigEndian.Uint32(answer[6:])) {
	case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate, tpm2.TPMRCNVUnavailable:
		return true
	}
	return false
}

// recorder records answers as replayed takes them.
type recorder struct {
	transport.TPM
	answers bytes.Buffer
}

// Send is transport.TPM's.
func (r *recorder) Send(command []byte) ([]byte, error) {
	answer, err := r.TPM.Send(command)
	if err == nil && !notBegun(answer) {
		r.answers.Write(binary.BigEndian.AppendUint16(nil, uint16(len(answer))))
		r.answers.Write(answer)
	}
	return answer, err
}

// session is what FuzzAnswers has a TPM do, each step where those before it went
// well. It returns how many did.
func session(t *testing.T, over transport.TPM) int {
	d, err := tpm.New(over, "fuzzing")
	if err != nil {
		return 0
	}
	description := d.Describe()
	for _, info := range description.Registers {
		if len(info.Banks) == 0 || !slices.IsSorted(info.Banks) || len(slices.Compact(slices.Clone(info.Banks))) != len(info.Banks) {
			t.Errorf("%s: banks %v", info.Register, info.Banks)
		}
	}
	values, err := d.Read(ctx)
	if err != nil {
		return 1
	}
	if err := values.Validate(); err != nil {
		t.Error(err)
	}
	for _, info := range description.Registers {
		for _, a := range info.Banks {
			if _, ok := values[a][info.Register]; !ok {
				t.Errorf("no value of %s in %s", info.Register, a)
			}
		}
	}
	info := description.Registers[0]
	err = d.Extend(ctx, info.Register, hashes(rtmr.RegisterInfo{Banks: slices.DeleteFunc(slices.Clone(info.Banks), func(a rtmr.Alg) bool { return !a.Available() })}, "x"))
	if err != nil {
		return 2
	}
	k, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Null)
	if err != nil {
		return 3
	}
	q, err := d.Quote(ctx, k, []byte("nonce"), nil)
	if err != nil {
		return 4
	}
	if err := q.Values.Validate(); err != nil {
		t.Error(err)
	}
	if _, err := d.EKCertificates(ctx); err != nil {
		return 5
	}
	return 6
}

// FuzzAnswers: whatever a TPM answers, and in a guest it is somebody else's, what
// comes of it is an error or a device that keeps its promises.
func FuzzAnswers(f *testing.F) {
	f.Fuzz(func(t *testing.T, recording []byte) { session(t, &replayed{recording}) })
}

// TestSession: a real TPM goes through all that FuzzAnswers tries, and so does
// its recording, whose quote is of the same values.
func TestSession(t *testing.T) {
	r := &recorder{TPM: startSwtpm(t, "sha1", "sha256")}
	if n := session(t, r); n != 6 {
		t.Fatalf("the TPM came to step %d", n)
	}
	over := &replayed{r.answers.Bytes()}
	if n := session(t, over); n != 6 || len(over.left) != 0 {
		t.Errorf("the recording came to step %d, with %d bytes left", n, len(over.left))
	}
	if _, err := tpm.New(&replayed{}, "nowhere"); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}
