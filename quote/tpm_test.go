package quote_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/testlogs"
	"tallystick/quote"
	"tallystick/rtmr"
)

// capture is one quote of the lab's machines, and the values that its TPM held.
type capture struct {
	testlogs.TPMQuote
	Machine string
	Held    rtmr.Values
}

// captures returns the quotes of every capture: two keys, three banks each.
func captures(t testing.TB) (all []capture) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range testlogs.Machines(t) {
		for _, q := range m.Quotes {
			if key := string(q.Attest) + q.Name; !seen[key] {
				seen[key] = true
				all = append(all, capture{q, m.Name, m.Held})
			}
		}
	}
	if len(all) == 0 {
		t.Skip("../shared/lab/captures is not here")
	}
	return all
}

// open opens a quote that has to be well-formed.
func open(t testing.TB, data []byte, opts quote.Options) *quote.Quote {
	t.Helper()
	q, err := quote.Open(data, opts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// status checks a link's status, and that its text has a word.
func status(t testing.TB, q *quote.Quote, name string, want quote.Status, word string) {
	t.Helper()
	l, ok := q.Link(name)
	if !ok || l.Status != want || !strings.Contains(l.Text, word) {
		t.Errorf("%s: %s %q, expected %s with %q", name, l.Status, l.Text, want, word)
	}
}

// TestCaptures: every quote of every machine verifies, selects PCR 0 to 10 of
// its bank, and is over the values that the TPM held.
func TestCaptures(t *testing.T) {
	for _, c := range captures(t) {
		t.Run(c.Machine+"/"+c.Name, func(t *testing.T) {
			q := open(t, c.Attest, quote.Options{Signature: c.Signature, Key: c.Key, Nonce: c.Nonce})
			status(t, q, quote.Signature, quote.Verified, "sha256")
			status(t, q, quote.Chain, quote.NotChecked, "taken as it is")
			status(t, q, quote.Nonce, quote.Verified, "")
			if l, ok := q.Link(quote.Binding); ok {
				t.Errorf("bound without values: %v", l)
			}
			if len(q.Composites) != 1 || len(q.Composites[0].Selection) != 11 || q.Composites[0].Selection[10].String() != c.Bank.String()+":pcr10" {
				t.Fatalf("composites %v", q.Composites)
			}
			if err := q.Bind(c.Held); err != nil {
				t.Fatal(err)
			}
			status(t, q, quote.Binding, quote.Verified, "hash to")
			if len(q.Values) != 1 || len(q.Values[c.Bank]) != 11 || len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], c.Bank.String()+":pcr11..pcr23") {
				t.Errorf("values %v, warnings %q", q.Values, q.Warnings)
			}
			if !q.Trusted() || q.Kind != quote.TPM {
				t.Error("not trusted")
			}
		})
	}
}

// TestForgeries: what a forger may change in a quote, and what says so.
func TestForgeries(t *testing.T) {
	all := captures(t)
	i := slices.IndexFunc(all, func(c capture) bool { return c.Name == "quote-ecc-sha256" })
	c, other := all[i], all[(i+6)%len(all)]
	if bytes.Equal(c.Key, other.Key) {
		t.Fatal("one key in two machines")
	}
	good := quote.Options{Signature: c.Signature, Key: c.Key, Nonce: c.Nonce}
	with := func(change func(*quote.Options)) quote.Options {
		o := good
		change(&o)
		return o
	}
	for name, test := range map[string]struct {
		attest []byte
		opts   quote.Options
		link   string
		status quote.Status
	}{
		"wrong_nonce":          {c.Attest, with(func(o *quote.Options) { o.Nonce = flip(c.Nonce, 0) }), quote.Nonce, quote.Failed},
		"nonce_with_zeros":     {c.Attest, with(func(o *quote.Options) { o.Nonce = append(bytes.Clone(c.Nonce), 0) }), quote.Nonce, quote.Failed},
		"nonce_cut_off":        {c.Attest, with(func(o *quote.Options) { o.Nonce = c.Nonce[:31] }), quote.Nonce, quote.Failed},
		"empty_nonce":          {c.Attest, with(func(o *quote.Options) { o.Nonce = []byte{} }), quote.Nonce, quote.Failed},
		"other_machine's_key":  {c.Attest, with(func(o *quote.Options) { o.Key = other.Key }), quote.Signature, quote.Failed},
		"key_of_another_kind":  {c.Attest, with(func(o *quote.Options) { o.Key = all[i-3].Key }), quote.Signature, quote.Failed},
		"flipped_signature":    {c.Attest, with(func(o *quote.Options) { o.Signature = flip(c.Signature, 20) }), quote.Signature, quote.Failed},
		"signature_of_another": {c.Attest, with(func(o *quote.Options) { o.Signature = all[i+1].Signature }), quote.Signature, quote.Failed},
		"no_signature":         {c.Attest, with(func(o *quote.Options) { o.Signature = nil }), quote.Signature, quote.Missing},
		"no_key":               {c.Attest, with(func(o *quote.Options) { o.Key = nil }), quote.Signature, quote.Missing},
		"signature's_hash":     {c.Attest, with(func(o *quote.Options) { o.Signature = put(c.Signature, 3, 0x04) }), quote.Signature, quote.Failed},
		"flipped_digest":       {flip(c.Attest, len(c.Attest)-1), good, quote.Signature, quote.Failed},
		"flipped_selection":    {flip(c.Attest, bytes.Index(c.Attest, []byte{3, 0xff, 7, 0})+1), good, quote.Signature, quote.Failed},
		"flipped_nonce":        {flip(c.Attest, 45), good, quote.Signature, quote.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, test.attest, test.opts)
			status(t, q, test.link, test.status, "")
			if q.Trusted() {
				t.Error("trusted")
			}
			disagreeWithCheckquote(t, test.attest, test.opts)
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func put(b []byte, at int, v byte) []byte {
	b = bytes.Clone(b)
	b[at] = v
	return b
}

// TestMalformed: what is no quote at all, with the place.
func TestMalformed(t *testing.T) {
	good := software(t, ecc256).attest(allOf(rtmr.SHA256), []byte("nonce"), valuesOf(rtmr.SHA256))
	at := func(pattern ...byte) int {
		i := bytes.Index(good, pattern)
		if i < 0 {
			t.Fatalf("no %x in %x", pattern, good)
		}
		return i
	}
	selection := at(0, 0, 0, 1, 0, 0x0b, 3)
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"certify":                     {put(good, 5, 0x17), "offset 4: type: 0x8017 (certify), expected 0x8018"},
		"other_magic":                 {put(good, 0, 0xfe), "unsupported"},
		"other_magic_in_a_TPM2B":      {append([]byte{0, byte(len(good))}, put(good, 0, 0xfe)...), "unsupported"},
		"one_byte_after":              {append(bytes.Clone(good), 0), "1 bytes follow the structure"},
		"three_bytes_after_a_TPM2B":   {append(append([]byte{0, byte(len(good))}, good...), 1, 2, 3), "3 bytes follow the structure"},
		"TPM2B_that_is_too_long":      {append([]byte{0, byte(len(good)) + 1}, good...), "takes"},
		"trailing_bytes_in_a_TPM2B":   {append(append([]byte{0, byte(len(good)) + 2}, good...), 1, 2), "2 bytes follow the structure"},
		"safe_2":                      {put(good, at([]byte("nonce")...)+5+8+4+4, 2), "safe: 2, expected 0 or 1"},
		"4_billion_selections":        {append(append(bytes.Clone(good[:selection]), 0xff, 0xff, 0xff, 0xff), good[selection+4:]...), "pcrSelect's count: 4294967295 selections"},
		"bitmap_of_2":                 {put(good, selection+6, 2), "sizeofSelect: 2, expected 3 or more"},
		"bitmap_of_0":                 {put(good, selection+6, 0), "sizeofSelect: 0, expected 3 or more"},
		"pcr_24":                      {slices.Insert(put(good, selection+6, 4), selection+10, 1), "selects PCR 24, expected 0 to 23"},
		"pcr_2039":                    {slices.Insert(put(good, selection+6, 255), selection+10, append(make([]byte, 251), 0x80)...), "selects PCR 2039"},
		"qualified_signer_of_a_64_KB": {put(good, 6, 0xff), "qualifiedSigner: takes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := quote.Open(test.data, quote.Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, expected %q", err, test.want)
			}
		})
	}
	for n := range good {
		if q, err := quote.Open(good[:n], quote.Options{}); err == nil {
			t.Errorf("cut off at %d: %v", n, q.Facts)
		} else if n > 4 && !strings.Contains(err.Error(), "offset ") {
			t.Errorf("cut off at %d: %v", n, err)
		}
	}
}

// TestSelections: bitmaps longer than 3 bytes, banks in no order, a bank that
// stands twice, and none: the composite is over the values in that very order.
func TestSelections(t *testing.T) {
	values := valuesOf(rtmr.SHA1, rtmr.SHA256, rtmr.SHA384)
	key := software(t, rsa2048)
	for name, test := range map[string]struct {
		selection []bank
		want      string
	}{
		"one_bank":               {[]bank{{rtmr.SHA256, 3, []int{0, 7, 23}}}, "sha256:pcr0 sha256:pcr7 sha256:pcr23"},
		"bitmap_of_4":            {[]bank{{rtmr.SHA256, 4, []int{8, 16}}}, "sha256:pcr8 sha256:pcr16"},
		"bitmap_of_255":          {[]bank{{rtmr.SHA1, 255, []int{10}}}, "sha1:pcr10"},
		"sha256_before_sha1":     {[]bank{{rtmr.SHA256, 3, []int{1, 2}}, {rtmr.SHA1, 3, []int{0}}}, "sha256:pcr1 sha256:pcr2 sha1:pcr0"},
		"sha384_sha1_sha256":     {[]bank{{rtmr.SHA384, 3, []int{5}}, {rtmr.SHA1, 3, []int{5}}, {rtmr.SHA256, 3, []int{5}}}, "sha384:pcr5 sha1:pcr5 sha256:pcr5"},
		"a_bank_twice":           {[]bank{{rtmr.SHA256, 3, []int{4, 9}}, {rtmr.SHA256, 3, []int{0, 4}}}, "sha256:pcr4 sha256:pcr9 sha256:pcr0 sha256:pcr4"},
		"an_empty_bank_in_front": {[]bank{{rtmr.SHA1, 3, nil}, {rtmr.SHA256, 3, []int{4}}}, "sha256:pcr4"},
		"nothing":                {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			attest := key.attest(test.selection, []byte("n"), values)
			q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic(), Nonce: []byte("n")})
			got := []string{}
			for _, s := range q.Composites[0].Selection {
				got = append(got, s.String())
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("selects %s, expected %s", got, test.want)
			}
			if err := q.Bind(values); err != nil {
				t.Fatal(err)
			}
			status(t, q, quote.Binding, quote.Verified, "")
			status(t, q, quote.Signature, quote.Verified, "")
			if name == "bitmap_of_255" {
				return // tpm2-tss takes no more than 4
			}
			agreeWithCheckquote(t, attest, key.sign(t, attest), key.tpmtPublic(), []byte("n"))
		})
	}
}

// TestBind: values that are others, too few, or too many.
func TestBind(t *testing.T) {
	key := software(t, ecc256)
	held := valuesOf(rtmr.SHA256)
	attest := key.attest([]bank{{rtmr.SHA256, 3, []int{0, 1}}}, nil, held)
	opts := quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic()}
	pcr0, pcr1 := rtmr.MustParse("pcr0"), rtmr.MustParse("pcr1")

	swapped := rtmr.Values{rtmr.SHA256: {pcr0: held[rtmr.SHA256][pcr1], pcr1: held[rtmr.SHA256][pcr0]}}
	q := open(t, attest, opts)
	if err := q.Bind(swapped); err != nil {
		t.Fatal(err)
	}
	status(t, q, quote.Binding, quote.Failed, "the quote signs sha256:"+hex.EncodeToString(q.Composites[0].Digest.Sum))

	q = open(t, attest, opts)
	if err := q.Bind(rtmr.Values{rtmr.SHA256: {pcr0: held[rtmr.SHA256][pcr0]}}); err != nil {
		t.Fatal(err)
	}
	status(t, q, quote.Binding, quote.Missing, "sha256:pcr1")
	if q.Trusted() {
		t.Error("trusted with a value that is missing")
	}
	if err := q.Bind(held); err != nil { // a second try replaces the first
		t.Fatal(err)
	}
	status(t, q, quote.Binding, quote.Verified, "")
	if len(q.Values[rtmr.SHA256]) != 2 || !q.Trusted() {
		t.Errorf("values %v", q.Values)
	}

	if err := q.Bind(rtmr.Values{rtmr.SHA256: {pcr0: make([]byte, 20)}}); err == nil || len(q.Values[rtmr.SHA256]) != 2 {
		t.Errorf("a value of 20 bytes: %v", err)
	}
	if err := (&quote.Quote{Kind: quote.TDX}).Bind(held); err == nil {
		t.Error("bound to a quote without a composite")
	}
}

// TestSchemes: each signing scheme in each hash, in the structure and plain,
// with the key in each form; the composite is in the scheme's hash.
func TestSchemes(t *testing.T) {
	values := valuesOf(rtmr.SHA1)
	for _, scheme := range []string{"rsassa", "rsapss", "ecdsa"} {
		for _, hash := range []rtmr.Alg{rtmr.SHA1, rtmr.SHA256, rtmr.SHA384, rtmr.SHA512} {
			key := softwareScheme(t, scheme, hash)
			attest := key.attest(allOf(rtmr.SHA1), []byte("nonce"), values)
			tpm2b := append([]byte{byte(len(attest) >> 8), byte(len(attest))}, attest...)
			for form, public := range key.forms(t) {
				for _, signature := range [][]byte{key.sign(t, attest), key.plain(t, attest)} {
					q := open(t, tpm2b, quote.Options{Signature: signature, Key: public, Nonce: []byte("nonce")})
					status(t, q, quote.Signature, quote.Verified, hash.String())
					if got := q.Composites[0].Digest.Alg; got != hash {
						t.Errorf("%s with %s, key as %s: the composite is %s", scheme, hash, form, got)
					}
					if err := q.Bind(values); err != nil {
						t.Fatal(err)
					}
					status(t, q, quote.Binding, quote.Verified, "")
				}
			}
		}
	}
}

// TestDigestOfAnotherHash: the signature is good, but no TPM signs so: it hashes
// the registers and the attestation in one hash.
func TestDigestOfAnotherHash(t *testing.T) {
	values := valuesOf(rtmr.SHA256)
	weak, strong := softwareScheme(t, "rsassa", rtmr.SHA1), softwareScheme(t, "rsassa", rtmr.SHA256)
	attest := weak.attest(allOf(rtmr.SHA256), nil, values)
	q := open(t, attest, quote.Options{Signature: strong.sign(t, attest), Key: strong.forms(t)["PEM"]})
	status(t, q, quote.Signature, quote.Failed, "pcrDigest has 20 bytes, and the scheme's hash gives 32")
	if q.Trusted() {
		t.Error("trusted")
	}
	// Nor with another hash or scheme than the one that the key has.
	attest = weak.attest(allOf(rtmr.SHA256), nil, values)
	q = open(t, attest, quote.Options{Signature: weak.sign(t, attest), Key: strong.tpmtPublic()})
	status(t, q, quote.Signature, quote.Failed, "the key's own hash is sha256")
	q = open(t, attest, quote.Options{Signature: weak.sign(t, attest), Key: softwareScheme(t, "rsapss", rtmr.SHA1).tpmtPublic()})
	status(t, q, quote.Signature, quote.Failed, "the key's own scheme is rsapss")
	q = open(t, attest, quote.Options{Signature: weak.sign(t, attest), Key: weak.tpmtPublic()})
	status(t, q, quote.Signature, quote.Verified, "rsassa with sha1")
	if len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "sha1") {
		t.Errorf("warnings %q", q.Warnings)
	}
}

// TestSignatureCutOff: at every length, and with bytes after it.
func TestSignatureCutOff(t *testing.T) {
	for _, key := range []*softwareKey{software(t, ecc256), software(t, rsa2048)} {
		attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
		for _, signature := range [][]byte{key.sign(t, attest), key.plain(t, attest)} {
			for n := range len(signature) + 2 {
				cut := append(bytes.Clone(signature), 0)
				if n == len(signature) {
					continue
				}
				q, err := quote.Open(attest, quote.Options{Signature: cut[:min(n, len(cut))], Key: key.tpmtPublic()})
				if err == nil {
					if l, _ := q.Link(quote.Signature); l.Status == quote.Verified || q.Trusted() {
						t.Errorf("%d of %d bytes verify: %s", n, len(signature), l.Text)
					}
				}
			}
		}
	}
}

// TestKeyAttributes: a key that may sign what its owner made up is told.
func TestKeyAttributes(t *testing.T) {
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	q := open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic()})
	if len(q.Warnings) != 0 {
		t.Errorf("warnings %q", q.Warnings)
	}
	key.unrestricted = true
	q = open(t, attest, quote.Options{Signature: key.sign(t, attest), Key: key.tpmtPublic()})
	if len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "fixedTPM, restricted") {
		t.Errorf("warnings %q", q.Warnings)
	}
	short := software(t, rsa1024)
	attest = short.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	q = open(t, attest, quote.Options{Signature: short.sign(t, attest), Key: short.tpmtPublic()})
	if len(q.Warnings) != 1 || !strings.Contains(q.Warnings[0], "RSA with 1024 bits") {
		t.Errorf("warnings %q", q.Warnings)
	}
}

// TestKeyForms: keys that are none, or not all of the file.
func TestKeyForms(t *testing.T) {
	key := software(t, ecc256)
	public := key.tpmtPublic()
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	for name, data := range map[string][]byte{
		"text":               []byte("ak.ctx"),
		"one_byte_after":     append(bytes.Clone(public), 0),
		"point_off_curve":    flip(public, len(public)-1),
		"unknown_curve":      put(public, len(public)-32-2-32-2-2-1, 0x20),
		"pem_without_end":    []byte("-----BEGIN PUBLIC KEY-----\nAAAA"),
		"pem_of_private_key": []byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"),
		"pem_of_garbage":     []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"der_of_garbage":     {0x30, 0x01, 0x00},
	} {
		if q, err := quote.Open(attest, quote.Options{Key: data}); err == nil {
			t.Errorf("%s: %v", name, q.Links)
		}
	}
	for n := range public {
		if q, err := quote.Open(attest, quote.Options{Key: public[:n]}); err == nil && n > 0 {
			t.Errorf("cut off at %d: %v", n, q.Links)
		}
	}
}

// TestSkipSignature: an unsigned quote passes, and says so.
func TestSkipSignature(t *testing.T) {
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	q := open(t, attest, quote.Options{SkipSignature: true})
	status(t, q, quote.Signature, quote.Skipped, "--insecure-skip-signature")
	status(t, q, quote.Chain, quote.Skipped, "--insecure-skip-signature")
	if q.Composites[0].Digest.Alg != rtmr.SHA256 || !q.Trusted() {
		t.Errorf("%v, %v", q.Composites, q.Links)
	}
}

// TestCorpus: other people's quotes. Their keys are not published with them (the
// one on Azure stands in its HCL report), but their values are.
func TestCorpus(t *testing.T) {
	for _, c := range []struct{ dir, attest, signature, values string }{
		{"tpm-failed-pcr0", "good-quote.bin", "good-signature.bin", "good-pcrs.json"},
		{"tpm-failed-pcr0", "failed-quote.bin", "failed-signature.bin", "failed-pcrs.json"},
		{"azure-snp", "tpm_quote.msg", "tpm_quote.sig", "pcrs.json"},
	} {
		dir, ok := testlogs.Shared(t, "corpus", c.dir)
		if !ok {
			t.Skip("../shared/corpus is not here")
		}
		read := func(name string) []byte { return testlogs.Read(t, filepath.Join(dir, name)) }
		q := open(t, read(c.attest), quote.Options{Signature: read(c.signature)})
		status(t, q, quote.Signature, quote.Missing, "no key")
		if err := q.Bind(labValues(t, read(c.values))); err != nil {
			t.Fatal(err)
		}
		status(t, q, quote.Binding, quote.Verified, "")
		if c.dir == "tpm-failed-pcr0" {
			if err := q.Bind(labValues(t, read("good-pcrs.json"))); err != nil {
				t.Fatal(err)
			}
			want := map[string]quote.Status{"good-quote.bin": quote.Verified, "failed-quote.bin": quote.Failed}[c.attest]
			status(t, q, quote.Binding, want, "")
		}
	}
}

// tool returns a command that the test needs.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	command, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian package %s)", name, pkg)
	}
	return command
}

// TestUnsupported: the error can be told from a malformed quote's.
func TestUnsupported(t *testing.T) {
	key := software(t, ecc256)
	attest := key.attest(allOf(rtmr.SHA256), nil, valuesOf(rtmr.SHA256))
	ecdaa := put(key.sign(t, attest), 1, 0x1a)
	if _, err := quote.Open(attest, quote.Options{Signature: ecdaa}); !errors.Is(err, quote.ErrUnsupported) || !strings.Contains(err.Error(), "0x001a") {
		t.Errorf("%v", err)
	}
}
