package quote_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"tallystick/internal/readertest"
	"tallystick/internal/s390test"
	"tallystick/quote"
)

// TestS390ImageGolden: an image of the layout that genprotimg of s390-tools 2.32 gave
// a kernel of 70000 bytes, a command line, an initrd of 30001 and its loader. ALD and
// TLD are those of the header that it wrote; PLD, of zeros in the pages' place, is by
// sha512sum. (All three of the image itself were met, with its real pages.)
func TestS390ImageGolden(t *testing.T) {
	image, header := s390test.Image("an image", []s390test.Component{
		{Tweak: 0xd350745a72de, Address: 0x15000, Pages: make([]byte, 0x12000)},
		{Tweak: 0x1b92f9e0c4bb8, Address: 0x27000, Pages: make([]byte, 0x1000)},
		{Tweak: 0x2c5c052c0ebb9, Address: 0x28000, Pages: make([]byte, 0x8000)},
		{Tweak: 0x3370e7f953377, Address: 0x30000, Pages: make([]byte, 0x2000)},
	}, s390Host.PublicKey())
	i, err := quote.ParseS390Image(image)
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2][]byte{
		"PLD": {i.PLD, unhex("4c6c7eced3d1e25f86dc49eadc2fe2e9ec3dcc0d869604d8ee7aad77d4f2b4ebf4159e4222a54020d95475149e3c8652489a18a3ebd2adbb7ccc502f955603ab")},
		"ALD": {i.ALD, unhex("11dba2482b6c9e4a080197df6929c7b56cfbd54ac4240b3c2a7c7cafd0398a61af703378b8ce3443df9d902d61cc61b0f8655c77f332bd0790a76b9b775933fa")},
		"TLD": {i.TLD, unhex("9afd94269d961a6617624e7c15beae9d1dd0bef9fec7bd61576b1619e43217fa743ef61534bce37d6ba8bab285402da297b1a7a32d60dff4e83d7cab795943e4")},
		"tag": {i.Header.Tag, header[len(header)-16:]},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			t.Errorf("%s is %x, expected %x", name, pair[0], pair[1])
		}
	}
	if i.Pages != 29 || len(i.Components) != 4 || i.Components[2] != (quote.S390Component{Tweak: 0x2c5c052c0ebb9, Address: 0x28000, Size: 0x8000}) || i.Check() != nil {
		t.Errorf("%d pages, %v, %v", i.Pages, i.Components, i.Check())
	}
}

// s390ImageRound is a guest's answer, and the image that it runs.
func s390ImageRound(t testing.TB) (exchange, image []byte, opts quote.Options) {
	image, header := s390test.SmallImage("an image", s390Host.PublicKey())
	r := newS390Round(s390All, s390User)
	r.response = s390test.Answer(s390Host, r.arcb, header, s390User)
	return r.exchange(), image, r.options()
}

// TestS390ImagePages: no byte of an image's pages can be another, nor where they
// stand, nor how they are encrypted.
func TestS390ImagePages(t *testing.T) {
	exchange, image, opts := s390ImageRound(t)
	opts.S390.Header = image
	q := open(t, exchange, opts)
	if status(t, q, quote.Binding, quote.Verified, "the 6 pages of the given image"); !q.Trusted() {
		t.Errorf("%+v", q.Links)
	}
	const block = s390test.HeaderAt - 0x1000
	put64 := func(at int, v uint64) []byte {
		b := bytes.Clone(image)
		binary.BigEndian.PutUint64(b[at:], v)
		return b
	}
	swapped := bytes.Clone(image)
	copy(swapped[block+136:], image[block+160:block+184])
	copy(swapped[block+160:], image[block+136:block+160])
	for name, c := range map[string]struct {
		image []byte
		want  quote.Status
		says  string
	}{
		"first byte":       {flip(image, 0x15000), quote.Failed, "PLD of the image's pages is "},
		"last byte":        {flip(image, 0x1AFFF), quote.Failed, "PLD of the image's pages is "},
		"a tweak":          {put64(block+136, 7), quote.Failed, "TLD of the image's pages is "},
		"an address":       {put64(block+136+8, 0x16000), quote.Failed, "of the image's pages is "},
		"an order":         {swapped, quote.Failed, "of the image's pages is "},
		"a shorter part":   {put64(block+136+16, 0x1000), quote.Failed, "have 5 pages, its header's NEP is 6"},
		"one part less":    {put(image, block+8+111, 2), quote.Failed, "have 3 pages, its header's NEP is 6"},
		"outside":          {flip(image, 0x100), quote.Verified, ""},
		"no block":         {put(image, block+12, 4), quote.NotChecked, "offset 77836: the block's type: 4, expected 5 (PV)"},
		"beyond the image": {put64(block+136+8, 1<<63), quote.NotChecked, "component 0: 8192 bytes at 9223372036854775808, expected whole pages"},
		"part of a page":   {put64(block+136+16, 0x1001), quote.NotChecked, "component 0: 4097 bytes"},
		"too long":         {put64(block+136+16, 1<<62), quote.NotChecked, "component 0: "},
	} {
		opts.S390.Header = c.image
		q := open(t, exchange, opts)
		status(t, q, quote.Binding, c.want, c.says)
		status(t, q, quote.Signature, quote.Verified, "")
		if checkLines(t, q); q.Trusted() == (c.want == quote.Failed) {
			t.Errorf("%s: %+v", name, q.Links)
		}
	}
	opts.S390.Header = flip(image, s390test.HeaderAt+0xE0)
	q = open(t, exchange, opts)
	status(t, q, quote.Signature, quote.Failed, "")
	status(t, q, quote.Binding, quote.Failed, "PLD of the image's pages is ")

	// What else is bound stands beside it, and the worse counts.
	opts.S390.Header, opts.S390.HostKeys = image, selfSigned(t, s390Host.PublicKey())
	status(t, open(t, exchange, opts), quote.Binding, quote.Verified, "TLD; of given host key documents: image_phkh")
	opts.S390.Header = flip(image, 0x15000)
	status(t, open(t, exchange, opts), quote.Binding, quote.Failed, "PLD of the image's pages is ")
}

func TestParseS390Image(t *testing.T) {
	image, header := s390test.SmallImage("an image", s390Host.PublicKey())
	const block = s390test.HeaderAt - 0x1000
	// Later images say where header and block are.
	moved := slices.Concat(image, make([]byte, 0x1000))
	copy(moved[len(image):], image[block:block+0x1000])
	clear(moved[block:][:0x1000])
	copy(moved[0xC000:], "SeImgLnx")
	binary.BigEndian.PutUint64(moved[0xC008:], s390test.HeaderAt)
	binary.BigEndian.PutUint64(moved[0xC014:], uint64(len(image)))
	if i, err := quote.ParseS390Image(moved); err != nil || i.Check() != nil {
		t.Errorf("%+v, %v", i, err)
	}
	binary.BigEndian.PutUint64(moved[0xC014:], 1<<63)
	many := bytes.Clone(image)
	binary.BigEndian.PutUint32(many[block+8+108:], 1<<31)
	for says, err := range map[string]error{
		"a Secure Execution header without its image":                                    imageError(header),
		"0 bytes that begin : neither":                                                   imageError(nil),
		"offset 49172: the IPL parameter block is to stand at 9223372036854775808":       imageError(moved),
		"offset 78032: component 3: 0 bytes at 0, expected whole pages in an image of":   imageError(many),
		"offset 81976: PCF: takes 8 bytes, and 5 are left":                               imageError(image[:s390test.HeaderAt+0x3d]),
		"offset 77940: number of components: none, expected one at least":                imageError(put(image, block+8+111, 0)),
		"offset 77960: component 0: 8192 bytes at 86016, expected whole pages in an ima": imageError(image[:0x16000]),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%v, expected %s", err, says)
		}
	}
}

func imageError(data []byte) error {
	_, err := quote.ParseS390Image(data)
	return err
}

// FuzzParseS390Image: an image that is as its header says has the digests of the one
// that was made.
func FuzzParseS390Image(f *testing.F) {
	image, _ := s390test.SmallImage("an image", s390Host.PublicKey())
	want, err := quote.ParseS390Image(image)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image)
	f.Add(image[:0x16000])
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := quote.ParseS390Image(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		if i.Pages > uint64(len(data)/4096) {
			t.Errorf("%d pages of %d bytes", i.Pages, len(data))
		}
		if bytes.Equal(i.Header.PLD, want.PLD) && bytes.Equal(i.Header.ALD, want.ALD) && bytes.Equal(i.Header.TLD, want.TLD) && i.Check() == nil && !slices.Equal(i.Components, want.Components) {
			t.Errorf("%v", i.Components)
		}
	})
}
