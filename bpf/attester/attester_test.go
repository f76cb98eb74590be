package attester_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"tallystick/bpf/attester"
	"tallystick/quote"
	"tallystick/rtmr"
)

func newAttester(t testing.TB) *attester.Attester {
	t.Helper()
	a, err := attester.New(attester.Options{InsecureUnlocked: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pcr(i int) rtmr.Register { return rtmr.MustParse(fmt.Sprint("pcr", i)) }

// values are of all registers in all banks of package bpf, no two alike.
func values() rtmr.Values {
	v := rtmr.Values{}
	for _, alg := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384} {
		v[alg] = map[rtmr.Register]rtmr.Hex{}
		for i := range rtmr.NumPCRs {
			v[alg][pcr(i)] = alg.AppendHash(nil, []byte(alg.String()+pcr(i).String()))
		}
	}
	return v
}

func selected(alg rtmr.Alg, pcrs ...int) (s []rtmr.Selected) {
	for _, i := range pcrs {
		s = append(s, rtmr.Selected{Alg: alg, Register: pcr(i)})
	}
	return s
}

func all(alg rtmr.Alg) []rtmr.Selected {
	var pcrs []int
	for i := range rtmr.NumPCRs {
		pcrs = append(pcrs, i)
	}
	return selected(alg, pcrs...)
}

// selections are what a quote may be asked for, and what comes of it: the
// bitmaps as TPM 2.0 Part 2 has them (PCR n is bit n%8 of byte n/8), and the
// list as tpm2-tools writes it.
var selections = map[string]struct {
	asked   []rtmr.Selected
	bitmaps []tpm2.TPMSPCRSelection
	list    string
}{
	"one": {
		selected(rtmr.SHA256, 10),
		[]tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0, 4, 0}}}, "sha256:10",
	},
	"sha384, the last": {
		selected(rtmr.SHA384, 23),
		[]tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA384, PCRSelect: []byte{0, 0, 0x80}}}, "sha384:23",
	},
	"sha1, all": {
		all(rtmr.SHA1),
		[]tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA1, PCRSelect: []byte{0xff, 0xff, 0xff}}},
		"sha1:0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
	},
	"falling": {
		selected(rtmr.SHA256, 10, 7, 0),
		[]tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0x81, 4, 0}}}, "sha256:0,7,10",
	},
	"banks as given": {
		slices.Concat(selected(rtmr.SHA384, 0, 1), selected(rtmr.SHA1, 2), selected(rtmr.SHA256, 3)),
		[]tpm2.TPMSPCRSelection{
			{Hash: tpm2.TPMAlgSHA384, PCRSelect: []byte{3, 0, 0}}, {Hash: tpm2.TPMAlgSHA1, PCRSelect: []byte{4, 0, 0}},
			{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{8, 0, 0}},
		},
		"sha384:0,1+sha1:2+sha256:3",
	},
	"banks mixed, and a register twice": {
		slices.Concat(selected(rtmr.SHA256, 9), selected(rtmr.SHA1, 2), selected(rtmr.SHA256, 3, 9)),
		[]tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{8, 2, 0}}, {Hash: tpm2.TPMAlgSHA1, PCRSelect: []byte{4, 0, 0}}},
		"sha256:3,9+sha1:2",
	},
}

// TestQuote: go-tpm reads what was asked for, and crypto/ecdsa verifies it.
func TestQuote(t *testing.T) {
	a := newAttester(t)
	for name, c := range selections {
		t.Run(name, func(t *testing.T) {
			nonce := []byte(name)
			q, err := a.Quote(values(), c.asked, nonce)
			if err != nil {
				t.Fatal(err)
			}
			stated := unmarshal[tpm2.TPMSAttest](t, q.Attest)
			info, err := stated.Attested.Quote()
			if err != nil {
				t.Fatal(err)
			}
			if stated.Magic != tpm2.TPMGeneratedValue || stated.FirmwareVersion != 0x74616c6c79737401 || !bytes.Equal(stated.ExtraData.Buffer, nonce) {
				t.Errorf("%+v", stated)
			}
			if c := stated.ClockInfo; c.Clock == 0 || c.ResetCount != 0 || c.RestartCount != 0 || !c.Safe {
				t.Errorf("clockInfo %+v", c)
			}
			if !slices.EqualFunc(info.PCRSelect.PCRSelections, c.bitmaps, func(a, b tpm2.TPMSPCRSelection) bool {
				return a.Hash == b.Hash && bytes.Equal(a.PCRSelect, b.PCRSelect)
			}) {
				t.Errorf("pcrSelect %+v, expected %+v", info.PCRSelect.PCRSelections, c.bitmaps)
			}
			if want := sha256.Sum256(inOrder(t, c.list)); !bytes.Equal(info.PCRDigest.Buffer, want[:]) {
				t.Errorf("pcrDigest %x, expected %x", info.PCRDigest.Buffer, want)
			}
			verify(t, q)
			checkNames(t, q, stated.QualifiedSigner.Buffer)
		})
	}
}

func unmarshal[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](t *testing.T, data []byte) *T {
	t.Helper()
	v, err := tpm2.Unmarshal[T, P](data)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// inOrder are the values of a list in tpm2-tools' form, one after another.
func inOrder(t *testing.T, list string) (b []byte) {
	t.Helper()
	for _, bank := range strings.Split(list, "+") {
		name, indices, _ := strings.Cut(bank, ":")
		alg, err := rtmr.ParseAlg(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, index := range strings.Split(indices, ",") {
			b = append(b, values()[alg][rtmr.MustParse("pcr"+index)]...)
		}
	}
	return b
}

// verify checks the signature by the key that the structures state.
func verify(t *testing.T, q *attester.Quote) {
	t.Helper()
	public := unmarshal[tpm2.TPMTPublic](t, q.Public)
	point, err1 := public.Unique.ECC()
	signature := unmarshal[tpm2.TPMTSignature](t, q.Signature)
	ec, err2 := signature.Signature.ECDSA()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, point.X.Buffer, point.Y.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(q.Attest)
	if !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer)) {
		t.Error("the signature does not verify")
	}
	if len(ec.SignatureR.Buffer) != 32 || len(ec.SignatureS.Buffer) != 32 || ec.Hash != tpm2.TPMAlgSHA256 {
		t.Errorf("signature %+v", ec)
	}
	if a := public.ObjectAttributes; a != (tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true}) {
		t.Errorf("attributes %+v", a)
	}
}

// checkNames computes name and qualified name from the bytes, by TPM 2.0 Part 1,
// "Names": H is nameAlg ‖ hash, and 0x40000007 TPM_RH_NULL.
func checkNames(t *testing.T, q *attester.Quote, qualified []byte) {
	t.Helper()
	sum := sha256.Sum256(q.Public)
	name := append([]byte{0, 0x0b}, sum[:]...)
	if !bytes.Equal(q.Name, name) {
		t.Errorf("name %x, expected %x", q.Name, name)
	}
	sum = sha256.Sum256(append([]byte{0x40, 0, 0, 7}, name...))
	if want := append([]byte{0, 0x0b}, sum[:]...); !bytes.Equal(qualified, want) {
		t.Errorf("qualifiedSigner %x, expected %x", qualified, want)
	}
}

// TestCheckquote: tpm2_checkquote verifies every selection, and nothing that
// was changed.
func TestCheckquote(t *testing.T) {
	command, err := exec.LookPath("tpm2_checkquote")
	if err != nil {
		t.Skip("tpm2_checkquote is not installed (Debian package tpm2-tools)")
	}
	a, other := newAttester(t), newAttester(t)
	for name, c := range selections {
		t.Run(name, func(t *testing.T) {
			nonce := bytes.Repeat([]byte(name[:1]), 32)
			q, err := a.Quote(values(), c.asked, nonce)
			if err != nil {
				t.Fatal(err)
			}
			check := func(attest, signature, public, nonce []byte, values ...byte) (string, error) {
				return checkquote(t, command, c.list, attest, signature, public, nonce, values)
			}
			held := inOrder(t, c.list)
			if len(c.asked) > 7 {
				held = nil // version 5.4 loses count of more values
			}
			if out, err := check(q.Attest, q.Signature, q.Public, nonce, held...); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for what, forged := range map[string]func() (string, error){
				"nonce":     func() (string, error) { return check(q.Attest, q.Signature, q.Public, flip(nonce, 31), held...) },
				"key":       func() (string, error) { return check(q.Attest, q.Signature, other.Public(), nonce, held...) },
				"signature": func() (string, error) { return check(q.Attest, flip(q.Signature, 40), q.Public, nonce, held...) },
				"digest": func() (string, error) {
					return check(flip(q.Attest, len(q.Attest)-1), q.Signature, q.Public, nonce, held...)
				},
				"value": func() (string, error) { return check(q.Attest, q.Signature, q.Public, nonce, flip(held, 0)...) },
			} {
				if held == nil && what == "value" {
					continue
				}
				if out, err := forged(); err == nil {
					t.Errorf("another %s passes:\n%s", what, out)
				}
			}
		})
	}
}

// checkquote runs tpm2_checkquote, with the values that the list names, one after
// another, if there are any.
func checkquote(t *testing.T, command, list string, attest, signature, public, nonce, values []byte) (string, error) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-g", "sha256", "-q", hex.EncodeToString(nonce)}
	files := map[string][]byte{"-m": attest, "-s": signature, "-u": public}
	if values != nil {
		args, files["-f"] = append(args, "-l", list), values
	}
	for flag, data := range files {
		path := filepath.Join(dir, flag[1:])
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, flag, path)
	}
	out, err := exec.Command(command, args...).CombinedOutput()
	return string(out), err
}

func flip(b []byte, i int) []byte {
	b = slices.Clone(b)
	b[i] ^= 1
	return b
}

// TestGoAttestation: it verifies a quote of each selection of one bank, which
// is all that it takes, and no other nonce or value.
func TestGoAttestation(t *testing.T) {
	a := newAttester(t)
	hashes := map[rtmr.Alg]crypto.Hash{rtmr.SHA1: crypto.SHA1, rtmr.SHA256: crypto.SHA256, rtmr.SHA384: crypto.SHA384}
	for name, c := range selections {
		if strings.Contains(c.list, "+") {
			continue
		}
		nonce := []byte(name)
		q, err := a.Quote(values(), c.asked, nonce)
		if err != nil {
			t.Fatal(err)
		}
		key, err := attest.ParseAKPublic(q.Public)
		if err != nil {
			t.Fatal(err)
		}
		var pcrs []attest.PCR
		for _, s := range q.Selection {
			pcrs = append(pcrs, attest.PCR{Index: s.Register.Index(), Digest: values()[s.Alg][s.Register], DigestAlg: hashes[s.Alg]})
		}
		theirs := attest.Quote{Quote: q.Attest, Signature: q.Signature}
		if err := key.Verify(theirs, pcrs, nonce); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := key.Verify(theirs, pcrs, flip(nonce, 0)); err == nil {
			t.Errorf("%s: another nonce passes", name)
		}
		pcrs[0].Digest[0] ^= 1
		if err := key.Verify(theirs, pcrs, nonce); err == nil {
			t.Errorf("%s: another value passes", name)
		}
	}
}

// TestOpen: package quote reads the same of it, and believes the values.
func TestOpen(t *testing.T) {
	a := newAttester(t)
	for name, c := range selections {
		q, err := a.Quote(values(), c.asked, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		read, err := quote.Open(q.Attest, quote.Options{Signature: q.Signature, Key: q.Public, Nonce: []byte(name), AcceptSelfAsserted: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := read.Bind(values()); err != nil {
			t.Fatal(err)
		}
		if !read.Trusted() || !slices.Equal(read.Composites[0].Selection, q.Selection) || len(read.Warnings) != 1 {
			t.Errorf("%s: trusted is %v: %v, %v", name, read.Trusted(), read.Links, read.Warnings)
		}
	}
}

// TestNonce: all 64 bytes that the report has room for, and not one more.
func TestNonce(t *testing.T) {
	a := newAttester(t)
	for _, n := range []int{0, 1, 64} {
		q, err := a.Quote(values(), all(rtmr.SHA256), make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		if got := unmarshal[tpm2.TPMSAttest](t, q.Attest).ExtraData.Buffer; len(got) != n {
			t.Errorf("extraData has %d bytes, expected %d", len(got), n)
		}
	}
	if _, err := a.Quote(values(), all(rtmr.SHA256), make([]byte, 65)); err == nil || !strings.Contains(err.Error(), "65 bytes, expected 64 at most") {
		t.Error(err)
	}
}

func TestQuoteErrors(t *testing.T) {
	a := newAttester(t)
	short := values()
	short[rtmr.SHA256][pcr(3)] = make(rtmr.Hex, 20)
	for _, c := range []struct {
		values    rtmr.Values
		selection []rtmr.Selected
		want      string
	}{
		{values(), nil, "no register was selected"},
		{values(), []rtmr.Selected{{Alg: rtmr.SHA384, Register: rtmr.MustParse("rtmr2")}}, "sha384:rtmr2 was selected, expected a PCR"},
		{values(), []rtmr.Selected{{Alg: rtmr.SHA256}}, "expected a PCR"},
		{values(), selected(rtmr.SHA512, 1), "no value of sha512:pcr1"},
		{rtmr.Values{}, selected(rtmr.SHA256, 1), "no value of sha256:pcr1"},
		{short, selected(rtmr.SHA256, 3), "sha256:pcr3 has 20 bytes, expected 32"},
	} {
		if q, err := a.Quote(c.values, c.selection, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, %v, expected %s", c.selection, q, err, c.want)
		}
	}
}

// TestClose: the key is gone, while others ask for quotes too.
func TestClose(t *testing.T) {
	a := newAttester(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				if _, err := a.Quote(values(), all(rtmr.SHA384), nil); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

// TestKeys: no two attesters have one key.
func TestKeys(t *testing.T) {
	if bytes.Equal(newAttester(t).Name(), newAttester(t).Name()) {
		t.Error("two attesters, one key")
	}
}
