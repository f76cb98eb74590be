package tpm_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-attestation/attest"
	"github.com/google/go-tpm/tpm2"

	"tallystick/quote"
	"tallystick/rtmr"
	"tallystick/rtmr/devicetest"
	"tallystick/rtmr/tpm"
)

var (
	ctx   = context.Background()
	pcr10 = rtmr.MustParse("pcr10")
	pcr23 = rtmr.MustParse("pcr23")
)

// allocations are sets of banks that TPMs have.
var allocations = [][]string{{"sha256"}, {"sha512"}, {"sha1", "sha256", "sha384"}, {"sha1", "sha256", "sha384", "sha512"}}

func TestDevice(t *testing.T) {
	for _, banks := range allocations {
		t.Run(strings.Join(banks, ","), func(t *testing.T) { devicetest.Run(t, openSwtpm(t, banks...)) })
	}
}

// TestDescribe holds the description against the PC Client Platform TPM Profile:
// 24 PCRs, of which locality 0 cannot extend 17 to 22, and can reset 16 and 23.
func TestDescribe(t *testing.T) {
	d := openSwtpm(t, "sha1", "sha384")
	description := d.Describe()
	if !strings.Contains(description.Name, "a socket, IBM SW TPM, firmware ") {
		t.Errorf("%q", description.Name)
	}
	if len(description.Registers) != 24 {
		t.Fatalf("%d registers", len(description.Registers))
	}
	for i, info := range description.Registers {
		want := rtmr.RegisterInfo{Register: rtmr.MustParse(fmt.Sprint("pcr", i)), Banks: []rtmr.Alg{rtmr.SHA1, rtmr.SHA384}, Writable: i < 17 || i > 22}
		if fmt.Sprint(info) != fmt.Sprint(want) {
			t.Errorf("%+v, expected %+v", info, want)
		}
	}
	if got := fmt.Sprint(d.Resettable()); got != "[pcr16 pcr23]" {
		t.Errorf("resettable: %s", got)
	}
	values, err := d.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range description.Registers {
		for _, a := range info.Banks {
			if got := values[a][info.Register]; !bytes.Equal(got, info.Register.ResetValue(a)) {
				t.Errorf("%s %s is %s after a reset", a, info.Register, got)
			}
		}
	}
}

func TestVersion12(t *testing.T) {
	if _, err := tpm.New(startSwtpm(t, "1.2"), "a socket"); !errors.Is(err, rtmr.ErrNotSupported) || !strings.Contains(fmt.Sprint(err), "TPM 1.2") {
		t.Errorf("%v, expected ErrNotSupported that says TPM 1.2", err)
	}
}

// keys are every way to an attestation key.
func keys(t *testing.T, d *tpm.Device) map[string]*tpm.Key {
	t.Helper()
	all := map[string]*tpm.Key{}
	add := func(name string, k *tpm.Key, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = k
	}
	k, err := d.PrimaryKey(ctx, tpm.RSA, tpm.Endorsement)
	add("rsa", k, err)
	k, stored, err := d.NewKey(ctx, tpm.ECC)
	add("new", k, err)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := d.LoadKey(ctx, stored)
	add("stored", again, err)
	if !bytes.Equal(again.Public(), k.Public()) || !bytes.Equal(again.Name(), k.Name()) {
		t.Error("the key that was stored comes back as another")
	}
	delete(all, "new")
	return all
}

// TestPrimaryKey: each hierarchy has a key of its own, the same each time.
func TestPrimaryKey(t *testing.T) {
	d := openSwtpm(t, "sha256")
	seen := map[string]tpm.Hierarchy{}
	for range 2 {
		for _, h := range []tpm.Hierarchy{tpm.Endorsement, tpm.Owner, tpm.Null} {
			k, err := d.PrimaryKey(ctx, tpm.ECC, h)
			if err != nil {
				t.Fatal(err)
			}
			if of, ok := seen[string(k.Public())]; ok && of != h {
				t.Errorf("hierarchy %d has the key of %d", h, of)
			}
			seen[string(k.Public())] = h
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(seen) != 3 {
		t.Errorf("%d keys, expected 3", len(seen))
	}
}

// TestQuote has quotes verified by package quote and go-attestation, with the
// values that came with them.
func TestQuote(t *testing.T) {
	d := openSwtpm(t, "sha1", "sha256", "sha384")
	if err := d.Extend(ctx, pcr10, hashes(d.Describe().Registers[10], "x")); err != nil {
		t.Fatal(err)
	}
	nonce := []byte("nonce")
	for name, k := range keys(t, d) {
		for _, banks := range [][]rtmr.Alg{nil, {rtmr.SHA256}, {rtmr.SHA384, rtmr.SHA1}} {
			for _, registers := range [][]rtmr.Register{nil, {pcr23, pcr10}} {
				t.Run(fmt.Sprint(name, banks, registers), func(t *testing.T) {
					q, err := d.Quote(ctx, k, nonce, banks, registers...)
					if err != nil {
						t.Fatal(err)
					}
					verify(t, q, nonce)
					n := 24
					if registers != nil {
						n = len(registers)
					}
					for a, bank := range q.Values {
						if len(bank) != n || banks != nil && !slices.Contains(banks, a) {
							t.Errorf("%d values in %s", len(bank), a)
						}
					}
					if len(q.Values) == 0 {
						t.Error("no values")
					}
				})
			}
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
}

// verify holds a quote against its values, by others' code too.
func verify(t *testing.T, q *tpm.Quote, nonce []byte) {
	t.Helper()
	opened, err := quote.Open(q.Attest, quote.Options{Signature: q.Signature, Key: q.Key, Nonce: nonce})
	if err != nil {
		t.Fatal(err)
	}
	if err := opened.Bind(q.Values); err != nil {
		t.Fatal(err)
	}
	for _, l := range opened.Links {
		if (l.Name == quote.Signature || l.Name == quote.Nonce || l.Name == quote.Binding) && l.Status != quote.Verified {
			t.Errorf("%+v", l)
		}
	}
	for a, bank := range q.Values {
		for r, value := range bank {
			if !bytes.Equal(opened.Values[a][r], value) {
				t.Errorf("%s %s: the quote has %s, expected %s", a, r, opened.Values[a][r], value)
			}
		}
	}
	ak, err := attest.ParseAKPublic(q.Key)
	if err != nil {
		t.Fatal(err)
	}
	if len(q.Values) != 1 { // go-attestation takes one bank
		return
	}
	var pcrs []attest.PCR
	for a, bank := range q.Values {
		h, err := tpm2.TPMAlgID(a).Hash()
		if err != nil {
			t.Fatal(err)
		}
		for r, value := range bank {
			pcrs = append(pcrs, attest.PCR{Index: r.Index(), Digest: value, DigestAlg: h})
		}
	}
	if err := ak.Verify(attest.Quote{Quote: q.Attest, Signature: q.Signature}, pcrs, nonce); err != nil {
		t.Errorf("go-attestation: %v", err)
	}
}

// TestCheckquote: tpm2_checkquote verifies a quote of several banks, and refuses it
// with another nonce.
func TestCheckquote(t *testing.T) {
	checkquote, err := exec.LookPath("tpm2_checkquote")
	if err != nil {
		t.Skip("tpm2_checkquote is not installed (Debian package tpm2-tools)")
	}
	d := openSwtpm(t, "sha1", "sha256", "sha384")
	for _, kind := range []tpm.KeyType{tpm.ECC, tpm.RSA} {
		k, err := d.PrimaryKey(ctx, kind, tpm.Endorsement)
		if err != nil {
			t.Fatal(err)
		}
		q, err := d.Quote(ctx, k, []byte{1, 2, 3}, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		save := func(name string, data []byte) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		args := []string{"-m", save("attest", q.Attest), "-s", save("signature", q.Signature), "-u", save("key", q.Key), "-g", "sha256"}
		if out, err := exec.Command(checkquote, append(args, "-q", "010203")...).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if err := exec.Command(checkquote, append(args, "-q", "010204")...).Run(); err == nil {
			t.Error("it verifies another nonce")
		}
	}
}

// TestPersistentKey: a key that the TPM keeps stays there; one that decrypts is
// no attestation key.
func TestPersistentKey(t *testing.T) {
	const handle, endorsing = 0x81000010, 0x81010001
	s := startSwtpm(t, "sha256")
	d, err := tpm.New(s, "a socket")
	if err != nil {
		t.Fatal(err)
	}
	keep := func(transient tpm2.TPMHandle, name tpm2.TPM2BName, persistent tpm2.TPMHandle) {
		evict := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: transient, Name: name}, PersistentHandle: persistent}
		if _, err := evict.Execute(s); err != nil {
			t.Fatal(err)
		}
		if _, err := (tpm2.FlushContext{FlushHandle: transient}).Execute(s); err != nil {
			t.Fatal(err)
		}
	}
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(s)
	if err != nil {
		t.Fatal(err)
	}
	keep(ek.ObjectHandle, ek.Name, endorsing)
	made, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Owner)
	if err != nil {
		t.Fatal(err)
	}
	keep(0x80000000, tpm2.TPM2BName{Buffer: made.Name()}, handle) // the first that a TPM loads

	if _, err := d.PersistentKey(ctx, endorsing); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("an endorsement key: %v, expected ErrNotSupported", err)
	}
	for range 2 {
		k, err := d.PersistentKey(ctx, handle)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Public(), made.Public()) || !bytes.Equal(k.Name(), made.Name()) {
			t.Error("it is another key")
		}
		q, err := d.Quote(ctx, k, []byte("nonce"), nil)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, q, []byte("nonce"))
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuoteRefused(t *testing.T) {
	d := openSwtpm(t, "sha256")
	k, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Null)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Quote(ctx, k, nil, []rtmr.Alg{rtmr.SHA384}); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("a bank that is not there: %v", err)
	}
	if _, err := d.Quote(ctx, k, nil, nil, rtmr.MustParse("rtmr0")); !errors.Is(err, rtmr.ErrNotSupported) {
		t.Errorf("a register that is not there: %v", err)
	}
	if _, err := d.Quote(ctx, k, make([]byte, 100), nil); !errors.Is(err, tpm2.TPMRCSize) {
		t.Errorf("a long nonce: %v, expected TPM_RC_SIZE", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PersistentKey(ctx, 0x81000001); !errors.Is(err, tpm2.TPMRCHandle) {
		t.Errorf("a handle without a key: %v, expected TPM_RC_HANDLE", err)
	}
	stored := func() tpm.Stored {
		k, stored, err := d.NewKey(ctx, tpm.ECC)
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		return stored
	}()
	stored.Private[10] ^= 1
	if _, err := d.LoadKey(ctx, stored); err == nil {
		t.Error("a damaged key is loaded")
	}
	stored.Public = stored.Public[:7]
	if _, err := d.LoadKey(ctx, stored); err == nil {
		t.Error("half a key is loaded")
	}
}

// TestPassword: who has not a hierarchy's password is denied its keys, and no more.
func TestPassword(t *testing.T) {
	s := startSwtpm(t, "sha256")
	d, err := tpm.New(s, "a socket")
	if err != nil {
		t.Fatal(err)
	}
	change := tpm2.HierarchyChangeAuth{AuthHandle: tpm2.TPMRHOwner, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}
	if _, err := change.Execute(s); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.NewKey(ctx, tpm.ECC); !errors.Is(err, rtmr.ErrDenied) {
		t.Errorf("a new key: %v, expected ErrDenied", err)
	}
	k, err := d.PrimaryKey(ctx, tpm.ECC, tpm.Endorsement)
	if err != nil {
		t.Fatalf("a key of another hierarchy: %v", err)
	}
	k.Close()
}

// TestHandles: nothing is left in the TPM, which has room for three keys.
func TestHandles(t *testing.T) {
	d := openSwtpm(t, "sha256")
	for range 5 {
		k, stored, err := d.NewKey(ctx, tpm.ECC)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Quote(ctx, k, nil, nil); err != nil {
			t.Fatal(err)
		}
		k.Close()
		if k, err = d.LoadKey(ctx, stored); err != nil {
			t.Fatal(err)
		}
		credential(t, d, k)
		k.Close()
	}
}

// credential has the TPM give a secret back, and refuse another key's.
func credential(t *testing.T, d *tpm.Device, k *tpm.Key) {
	t.Helper()
	for _, kind := range []tpm.KeyType{tpm.ECC, tpm.RSA} {
		public, err := d.EndorsementKey(ctx, kind)
		if err != nil {
			t.Fatal(err)
		}
		area, err := tpm2.Unmarshal[tpm2.TPMTPublic](public)
		if err != nil {
			t.Fatal(err)
		}
		ek, err := tpm2.ImportEncapsulationKey(area)
		if err != nil {
			t.Fatal(err)
		}
		sent := []byte("for this TPM alone")
		id, secret, err := tpm2.CreateCredential(rand.Reader, ek, k.Name(), sent)
		if err != nil {
			t.Fatal(err)
		}
		returned, err := d.Activate(ctx, k, kind, id, secret)
		if err != nil || !bytes.Equal(returned, sent) {
			t.Errorf("%q, %v", returned, err)
		}
		other := slices.Clone(k.Name())
		other[5] ^= 1
		if id, secret, err = tpm2.CreateCredential(rand.Reader, ek, other, sent); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Activate(ctx, k, kind, id, secret); err == nil {
			t.Error("a credential for another key is activated")
		}
	}
}

func hashes(info rtmr.RegisterInfo, text string) (digests []rtmr.Digest) {
	for _, a := range info.Banks {
		digests = append(digests, rtmr.Digest{Alg: a, Sum: a.AppendHash(nil, []byte(text))})
	}
	return digests
}
