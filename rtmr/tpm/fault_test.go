package tpm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"tallystick/rtmr"
	"tallystick/rtmr/tpm"
)

// faulty is a TPM whose answers to one kind of command are a fault's.
type faulty struct {
	transport.TPM
	mu      sync.Mutex
	command tpm2.TPMCC
	fault   func(command []byte) ([]byte, error)
	times   int  // how often the fault still is
	dead    bool // no command is answered
	count   map[tpm2.TPMCC]int
}

var errLost = errors.New("the answer is lost")

// Send is transport.TPM's.
func (f *faulty) Send(command []byte) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return nil, errLost
	}
	cc := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	f.count[cc]++
	if cc == f.command && f.times > 0 {
		f.times--
		return f.fault(command)
	}
	return f.TPM.Send(command)
}

func openFaulty(t *testing.T, banks ...string) (*tpm.Device, *faulty) {
	t.Helper()
	f := &faulty{TPM: startSwtpm(t, banks...), count: map[tpm2.TPMCC]int{}}
	d, err := tpm.New(f, "a socket")
	if err != nil {
		t.Fatal(err)
	}
	return d, f
}

// code is a response that is no more than a code.
func code(c tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(c))
}

// TestFault: what an extend says of itself is what happened to the register.
func TestFault(t *testing.T) {
	d, f := openFaulty(t, "sha1", "sha256")
	info, _ := (&rtmr.Description{Registers: d.Describe().Registers}).Register(pcr10)
	lose := func(command []byte) ([]byte, error) { return nil, errLost }
	execute := func(then func(response []byte) ([]byte, error)) func([]byte) ([]byte, error) {
		return func(command []byte) ([]byte, error) {
			response, err := f.TPM.Send(command)
			if err != nil {
				t.Error(err)
			}
			return then(response)
		}
	}
	answer := func(c tpm2.TPMRC) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) { return code(c), nil }
	}
	die := func([]byte) ([]byte, error) { f.dead = true; return nil, errLost }
	others := func([]byte) ([]byte, error) {
		other := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 10, Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA1, Digest: make([]byte, 20)}}}}
		if _, err := other.Execute(f.TPM); err != nil {
			t.Error(err)
		}
		return nil, errLost
	}
	const failure = tpm2.TPMRCFailure
	for _, c := range []struct {
		name     string
		fault    func([]byte) ([]byte, error)
		times    int
		extended bool
		want     error // nil: no error
	}{
		{"lost before it came to the TPM", lose, 1, false, errLost},
		{"lost after", execute(func([]byte) ([]byte, error) { return nil, errLost }), 1, true, nil},
		{"cut off in its header, after", execute(func(r []byte) ([]byte, error) { return r[:9], nil }), 1, true, nil},
		{"cut off in its parameters, after", execute(func(r []byte) ([]byte, error) { return r[:12], nil }), 1, true, nil},
		{"empty, after", execute(func([]byte) ([]byte, error) { return nil, nil }), 1, true, nil},
		{"empty, before", func([]byte) ([]byte, error) { return nil, nil }, 1, false, rtmr.ErrShort},
		{"longer than it says, after", execute(func(r []byte) ([]byte, error) { return append(r, 0), nil }), 1, true, nil},
		{"of another tag, after", execute(func(r []byte) ([]byte, error) { r[0] = 0x55; return r, nil }), 1, true, nil},
		{"without a session, after", execute(func([]byte) ([]byte, error) { return code(0), nil }), 1, true, nil},
		{"retry", answer(tpm2.TPMRCRetry), 3, true, nil},
		{"testing", answer(tpm2.TPMRCTesting), 2, true, nil},
		{"yielded, and retry by the resource manager's layer", answer(tpm2.TPMRCYielded), 1, true, nil},
		{"retry for ever", answer(tpm2.TPMRCRetry), 1 << 30, false, rtmr.ErrBusy},
		{"locality", answer(tpm2.TPMRCLocality), 1, false, rtmr.ErrNotWritable},
		{"password", answer(tpm2.TPMRCBadAuth + 0x900), 1, false, rtmr.ErrDenied},
		{"no such command, by the kernel", answer(tpm2.TPMRCCommandCode + 0x000B0000), 1, false, rtmr.ErrNotSupported},
		{"canceled", answer(tpm2.TPMRCCanceled), 1, false, rtmr.ErrBusy},
		{"failure, after", execute(func([]byte) ([]byte, error) { return code(failure), nil }), 1, true, nil},
		{"failure, before", answer(failure), 1, false, failure},
		{"lost, while others extend", others, 1, false, rtmr.ErrUnknown},
		{"dead", die, 1, false, rtmr.ErrUnknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, err := d.Read(ctx, pcr10)
			if err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			f.command, f.fault, f.times = tpm2.TPMCCPCRExtend, c.fault, c.times
			f.mu.Unlock()
			digests := hashes(info, c.name)
			err = d.Extend(ctx, pcr10, digests)
			f.times = 0
			if !errors.Is(err, c.want) {
				t.Errorf("%v, expected %v", err, c.want)
			}
			if unknown := errors.Is(err, rtmr.ErrUnknown); unknown != (c.want == rtmr.ErrUnknown) || unknown && errors.Is(err, rtmr.ErrBusy) {
				t.Errorf("%v", err)
			}
			if c.want == rtmr.ErrUnknown {
				return
			}
			after, err := d.Read(ctx, pcr10)
			if err != nil {
				t.Fatal(err)
			}
			if c.extended {
				for _, digest := range digests {
					h := digest.Alg.New()
					h.Write(before[digest.Alg][pcr10])
					h.Write(digest.Sum)
					before[digest.Alg][pcr10] = h.Sum(nil)
				}
			}
			for a, bank := range before {
				if !bytes.Equal(bank[pcr10], after[a][pcr10]) {
					t.Errorf("%s is %s, expected %s", a, after[a][pcr10], bank[pcr10])
				}
			}
		})
	}
	if err := d.Extend(ctx, pcr10, hashes(info, "x")); !errors.Is(err, errLost) || errors.Is(err, rtmr.ErrUnknown) {
		t.Errorf("a TPM that was gone before: %v, expected an error that is not ErrUnknown", err)
	}
}

// TestReadFault: a read gives what the TPM has, or an error.
func TestReadFault(t *testing.T) {
	d, f := openFaulty(t, "sha1", "sha256", "sha384")
	f.command = tpm2.TPMCCPCRRead
	want, err := d.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(list tpm2.TPMLPCRSelection) func([]byte) ([]byte, error) {
		return func([]byte) ([]byte, error) {
			r, err := tpm2.PCRRead{PCRSelectionIn: list}.Execute(f.TPM)
			if err != nil {
				return nil, err
			}
			body := tpm2.Marshal(r.PCRSelectionOut)
			body = append(binary.BigEndian.AppendUint32(nil, r.PCRUpdateCounter), body...)
			body = append(body, tpm2.Marshal(r.PCRValues)...)
			out := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, uint32(10+len(body)))
			return append(append(out, 0, 0, 0, 0), body...), nil
		}
	}
	pcrs := func(alg tpm2.TPMIAlgHash, pcrs ...uint) tpm2.TPMSPCRSelection {
		return tpm2.TPMSPCRSelection{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)}
	}
	for _, c := range []struct {
		name  string
		fault func([]byte) ([]byte, error)
		want  error
		text  string
	}{
		{"less than it was asked for", ask(tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{pcrs(tpm2.TPMAlgSHA1, 0)}}), nil, ""},
		{"nothing", ask(tpm2.TPMLPCRSelection{}), rtmr.ErrShort, "gives no value of sha1:pcr0"},
		{"something else", ask(tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{pcrs(tpm2.TPMAlgSHA1, 20)}}), errAny, "sha1:pcr20, which was not asked for"},
		{"lost", func([]byte) ([]byte, error) { return nil, errLost }, errLost, ""},
		{"short", func([]byte) ([]byte, error) { return code(0)[:6], nil }, rtmr.ErrShort, "6 bytes"},
		{"no body", func([]byte) ([]byte, error) { return code(0), nil }, errAny, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.fault, f.times = c.fault, 1
			got, err := d.Read(ctx)
			f.times = 0
			if !errors.Is(err, c.want) && !(c.want == errAny && err != nil) || !strings.Contains(fmt.Sprint(err), c.text) && c.text != "" {
				t.Errorf("%v, expected %v that says %q", err, c.want, c.text)
			}
			if c.want == nil && fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v, expected %v", got, want)
			}
		})
	}
}

var errAny = errors.New("an error")

// TestReadMoving: a read of all registers is of one moment, and the reader of
// one that never rests is told.
func TestReadMoving(t *testing.T) {
	d, f := openFaulty(t, "sha1", "sha256", "sha384")
	all := d.Describe().Registers
	extend := func(pcr uint32) {
		for _, digest := range hashes(all[pcr], "moved") {
			cmd := tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
				Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMIAlgHash(digest.Alg), Digest: digest.Sum}}}}
			if _, err := cmd.Execute(f.TPM); err != nil {
				t.Error(err)
			}
		}
	}
	f.command = tpm2.TPMCCPCRRead
	reads := 0
	f.fault = func(command []byte) ([]byte, error) {
		if reads++; reads%2 == 0 { // between one command and the next, in the first and the last register
			extend(0)
			extend(15)
		}
		return f.TPM.Send(command)
	}
	f.times = 20
	values, err := d.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range all {
		for _, a := range info.Banks {
			if (info.Register.Index() == 0 || info.Register.Index() == 15) && !bytes.Equal(values[a][all[0].Register], values[a][all[15].Register]) {
				t.Errorf("%s: pcr0 and pcr15 were extended alike, and are of two moments", a)
			}
		}
	}
	f.times = 1 << 30
	started := time.Now()
	if _, err := d.Read(ctx); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("after %v: %v, expected ErrBusy", time.Since(started), err)
	}
	if _, err := d.Read(ctx, pcr10); err != nil {
		t.Errorf("one register alone: %v", err)
	}
	k, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Null)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	f.command = tpm2.TPMCCQuote
	f.fault = func(command []byte) ([]byte, error) { extend(0); return f.TPM.Send(command) }
	if _, err := d.Quote(ctx, k, nil, nil); !errors.Is(err, rtmr.ErrBusy) {
		t.Errorf("a quote of registers that move: %v, expected ErrBusy", err)
	}
	f.times = 2
	q, err := d.Quote(ctx, k, []byte("nonce"), []rtmr.Alg{rtmr.SHA256})
	if err != nil {
		t.Fatal(err)
	}
	verify(t, q, []byte("nonce"))
	if f.count[tpm2.TPMCCQuote] < 4 {
		t.Errorf("%d quotes", f.count[tpm2.TPMCCQuote])
	}
}

// TestContext: a TPM that asks for patience is not waited for by who has none;
// an extend that has begun is settled all the same.
func TestContext(t *testing.T) {
	d, f := openFaulty(t, "sha256")
	f.command, f.times = tpm2.TPMCCPCRExtend, 1<<30
	short, cancel := context.WithCancel(ctx)
	f.fault = func([]byte) ([]byte, error) { cancel(); return code(tpm2.TPMRCRetry), nil }
	if err := d.Extend(short, pcr10, hashes(d.Describe().Registers[10], "x")); !errors.Is(err, rtmr.ErrBusy) || errors.Is(err, rtmr.ErrUnknown) {
		t.Errorf("%v, expected ErrBusy", err)
	}
	short, cancel = context.WithCancel(ctx)
	f.fault = func(command []byte) ([]byte, error) { cancel(); f.TPM.Send(command); return nil, errLost }
	if err := d.Extend(short, pcr10, hashes(d.Describe().Registers[10], "x")); err != nil {
		t.Errorf("%v, expected it to be found extended", err)
	}
}

// TestDead: what is at the other end ends.
func TestDead(t *testing.T) {
	s := startSwtpm(t, "sha256")
	d, err := tpm.New(s, "a socket")
	if err != nil {
		t.Fatal(err)
	}
	s.command.Process.Kill()
	s.command.Wait()
	if _, err := d.Read(ctx); err == nil {
		t.Error("a TPM that has ended is read")
	}
	if err := d.Extend(ctx, pcr10, hashes(d.Describe().Registers[10], "x")); err == nil || errors.Is(err, rtmr.ErrUnknown) {
		t.Errorf("%v, expected an error that is not ErrUnknown: it was gone before", err)
	}
	if _, err := tpm.New(s, "a socket"); !strings.Contains(fmt.Sprint(err), "TPM at a socket") {
		t.Errorf("%v", err)
	}
	var closer io.Closer = d
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
}
