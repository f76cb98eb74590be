package quote_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"slices"
	"testing"

	"tallystick/internal/s390test"
	"tallystick/quote"
)

// Two exchange files and their protection keys. The requests are by pvattest create
// of s390-tools 2.32 (the implementation in C): the first with --x-phkh-img and
// --x-phkh-att, the second with --x-no-nonce. The responses to them were computed in
// Python (hashlib, hmac, cryptography) from the host's private key, for the header of
// patternHeader, and pvattest verify accepts both.
const (
	goldenResponse = "707661747465737400000100000002740000000000000000000001900000004000000040000001d00000004000000210000000140000025000000010" +
		"000002640000000000000000000001000000019076802b03ff55b9c0bacc3f0500000000000000000000000100000000000000507000000000000000" +
		"000000010000000000000000000000000000000000000063eb5bdebcbdfd289a90b4e690b278451071cc49cf4c1fb2dac27aa848a72f9f2e5c544009" +
		"9cced8a895003712b0c971390ee179e96af33ed5b04445d2f8733635000000000000000000000000000000055b3ecb490488ee7ad0572d536c00083d" +
		"283ac6e43df3c1466ff2beeeb8b0ffeb2435c585a5f88c92acd45ddbdef7fc72a502dec7f6fb201e2baa44923eed0dc2d90285903a91c966515d6fab" +
		"ba5c8ccfe9fe62a683293dc5e9d0abfd7ada94843ab98a88b84bce7bc20764dbe7b7d02761c20ecd27b374d096b6fca21a91ab4fc693a618efc1e2cd" +
		"ca1a0f8e395a4113b0bda352ebf3ad4417bde7ebaf255f4099cea2fb55309aa792bb907f315d891d6bde04621f53501c72aec824a52d0480c0e26ac8" +
		"0f4fd7f2161d340160c4c4515bc3bec10837a157f3f720805b44ca9b9dba85bb46b5659e7fda1f472df49226b13665f8d068a19ae768f5a213c75c7f" +
		"8fc688c2f04f2c008d828d832d136add860dce28827a527632ac8bc9b4eff055cb4e9b45f13a9cb0aa433ca63163684c0a0a0a0a0a0a0a0a0a0a0a0a" +
		"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0ad90285903a91c966515d6fabba5c8ccfe9fe62a683293dc5e9d0abfd7ada94840707070707070707" +
		"070707070707070707070707505152535455565758595a5b5c5d5e5f"
	goldenKey  = "abc43a78452bd21da3c43e6e5c5746904fd0bdc34f071c04479a055db2d32252"
	goldenBare = "707661747465737400000100000002100000000000000000000001800000004000000040000001c00000000000000000000000000000000000000010" +
		"0000020000000000000000000000010000000180d4c3a01b4b0ff511c1272b1e00000000000000000000000100000000000000400000000000000000" +
		"000000010000000000000000000000000000000000000126ff51287cc0e92a0c010a5e45602be07a29f50ef7d8a5410f5b455afb32e5be2930c85ae4" +
		"143e64bcfcd402db5ebe07fcca1f4c92499d065fdaa284c6586f86b700000000000000000000000000000113d244b58823b9774337979c5bf377e364" +
		"2ddf04ec6c06fc0666876ccb02e328f7c277fb7cc20a9789f5d766a51148f8c9939a1015d7ea2ac21a5727687d6860d3d90285903a91c966515d6fab" +
		"ba5c8ccfe9fe62a683293dc5e9d0abfd7ada9484c69353c572044ad816000836846701616c65cdd0e0037c8bfd7c198993ea24870d98e203c94285b8" +
		"71e0de3a95410c4c6c8dde9c0e849cced73817ee518f33111a2a3a6ede2c45d8d98961238179a635a53fce1f6eba5bf8f1088b45dead2454a42bb5d4" +
		"a6945410695f638f3fb7829890822f0dd98268f1a8518b34c45e0751d274a118afcca4781cb6097a35f31775357519f48b0c1d77b26646039b75ce65" +
		"11d9bc72e04ec8e258b7fa89365e0855c978c867e99a81fa6132dd5cf939cdee505152535455565758595a5b5c5d5e5f"
	goldenBareKey = "9196cf31c5263d41bf43549638de8ab1ede616c1718e1c3d8dc6b61300fb8653"
)

// patternHeader is a header of one key slot with a byte in each field: as the
// published measurements have it, PLD 01.., ALD 02.., TLD 03.. and the tag 04...
func patternHeader() []byte {
	of := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	return slices.Concat([]byte("IBMSecEx\x00\x00\x01\x00\x00\x00\x02\x80"), of(0x0c, 12), of(0, 4),
		unhex("0000000000000001"+"0000000000000080"+"0000000000000005"+"00000000000000e0"), of(0x0d, 160),
		of(1, 64), of(2, 64), of(3, 64), of(0x0a, 80), of(0x0b, 128), of(4, 16))
}

func TestS390Golden(t *testing.T) {
	opts := quote.Options{S390: quote.S390Options{Header: patternHeader(), Key: unhex(goldenKey)}}
	q := open(t, unhex(goldenResponse), opts)
	if !q.Trusted() || q.Kind != quote.S390 || q.Version != 1 {
		t.Errorf("%s %d: %+v", q.Kind, q.Version, q.Links)
	}
	for name, want := range map[string]string{
		"CUID": "505152535455565758595a5b5c5d5e5f", "user_data": "0707070707070707070707070707070707070707",
		"PAF": "0x7000000000000000", "PAF.NONCE": "1", "PAF.PHKH_ATT": "1", "PAF.SECRET_STORE_HASH": "0", "NKS": "1",
		"PCF": "0x00000000000000e0", "PCF.PCKMO_ECC": "1", "PCF.ALLOW_DUMPING": "0",
		"image_phkh":       "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",
		"attestation_phkh": "d90285903a91c966515d6fabba5c8ccfe9fe62a683293dc5e9d0abfd7ada9484", // by hashlib
	} {
		if got := fact(q, name); got != want {
			t.Errorf("%s is %q, expected %s", name, got, want)
		}
	}
	opts.Nonce = unhex("aee461a1bf9422f4c9af168bafe9c4a8") // decrypted in Python
	status(t, open(t, unhex(goldenResponse), opts), quote.Nonce, quote.Verified, "the ARCB's nonce")

	bare := open(t, unhex(goldenBare), quote.Options{S390: quote.S390Options{Header: patternHeader(), Key: unhex(goldenBareKey)}})
	if !bare.Trusted() || fact(bare, "PAF.NONCE") != "0" || fact(bare, "image_phkh") != "" || fact(bare, "user_data") != "" {
		t.Errorf("%+v", bare)
	}
}

// What s390-tools publishes: four measurements (rust/pv/src/uvattest/attest.rs), and
// a request with the keys that it was made with (rust/pv/src/uvattest/arcb.rs, of
// which the hash stands here: rust/pv/tests/assets/exp/arcb.bin, with that of its key
// slot in keyslot.bin).
func TestS390Published(t *testing.T) {
	repeat := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	user, nonce, additional := repeat(7, 256), repeat(8, 16), repeat(9, 128)
	for name, c := range map[string]struct {
		user, nonce, additional []byte
		want                    string
	}{
		"measurement_all": {user, nonce, additional,
			"88794c62cce7bcf26216deb3f48f13fea6374b6d7e35bcc5c2ce68121db6f45dfc8c171856463549408bf8e7d1aca11efad0a878af97dc9e21a1fc2a32f3a675"},
		"measurement_user_add": {user, nil, additional,
			"fbd4f738a390edd947cd4f11af3a2f3bab2fdf8bf89bf81beb495117f4382cf42f0730c8c7d9e3ca27fb25adfceb21224f57fdb398dcf41a83c146e6a23db760"},
		"measurement_add": {nil, nil, additional,
			"63671fbf295036eb1023ea71f7182e7d6343dc7b2da584e824d0a7d198ab9cded756c93b39050ffb764555b01f88cb82017a6a15c7e0bafc6005f1e4f78aa124"},
		"measurement_minimal": {nil, nil, nil,
			"c5c34c93835d1ec23f5c2d778dfa20129b11b305601742cb2f38e0ed9894dcdb73fc8695ab6a8dbad0744073ddc81a5eaafa52e4a15af8deb8d761091922847f"},
	} {
		request := s390test.NewRequest(name, 0, s390test.Key("host").PublicKey())
		request.MeasurementKey = repeat(0x41, 64)
		if c.nonce != nil {
			request.Flags, request.Nonce = s390test.Nonce, c.nonce
		}
		data := s390test.Exchange(request.ARCB(), s390test.Response{Measurement: unhex(c.want), Additional: c.additional, UserData: c.user, CUID: repeat(5, 16)})
		for _, key := range [][]byte{request.ProtectionKey, request.MeasurementKey} {
			q := open(t, data, quote.Options{Nonce: c.nonce, S390: quote.S390Options{Header: patternHeader(), Key: key}})
			if status(t, q, quote.Signature, quote.Verified, "HMAC-SHA512"); !q.Trusted() {
				t.Errorf("%s: %+v", name, q.Links)
			}
		}
	}
}

// publishedRequest is that request, made by the keys that are published.
func publishedRequest(t *testing.T) (*s390test.Request, *ecdh.PublicKey) {
	t.Helper()
	host, err := ecdh.P521().NewPublicKey(unhex("04" +
		"0176881cd84b8b6de7123c7e900edf78e7f7b684999146b1263ba8b86c8447f08ab6d469c2b128ed9e1c35015805acd3d30233d39122f7e2f8aa1c2b147b7883b406" +
		"00c34556c25cf92f29ce66bd44114d6b7b3c78e13a3f90bdb90040f6876e5262f778a61a937d1b34802eb257e34e0672dd5f2a347addaa282035092a70c35c2e7973"))
	if err != nil {
		t.Fatal(err)
	}
	owner, err := ecdh.P521().NewPrivateKey(append([]byte{0, 1}, bytes.Repeat([]byte{0x88}, 64)...))
	if err != nil {
		t.Fatal(err)
	}
	return &s390test.Request{
		Owner: owner, ProtectionKey: bytes.Repeat([]byte{0x17}, 32), MeasurementKey: bytes.Repeat([]byte{0x77}, 64),
		Nonce: bytes.Repeat([]byte{0xab}, 16), IV: bytes.Repeat([]byte{0x55}, 12),
		Flags: s390test.Nonce | s390test.ImageKey | s390test.HostKey, Hosts: []*ecdh.PublicKey{host},
	}, host
}

// TestS390PublishedRequest: the tests' own requests are what s390-tools makes, to the
// byte, and what is published opens by its protection key, and by its owner's key.
func TestS390PublishedRequest(t *testing.T) {
	request, host := publishedRequest(t)
	arcb := request.ARCB()
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"arcb.bin":    {arcb, "8eefb020aea5b26d6da24d601636cb3cf034825f71e81c7b1f29c4dfffcaa8a7"},
		"keyslot.bin": {arcb[0xE0:][:80], "26da705b572e6578c679e75f152268ae720145b15b00728dc84533a5816b235c"},
	} {
		if sum := sha256.Sum256(c.data); hex.EncodeToString(sum[:]) != c.want {
			t.Errorf("%s: %x", name, c.data)
		}
	}
	parsed, err := quote.ParseS390Request(arcb)
	if err != nil {
		t.Fatal(err)
	}
	if parsed.Version != 0x100 || parsed.Flags != request.Flags || parsed.Algorithm != 1 || len(parsed.Slots) != 1 ||
		!bytes.Equal(parsed.CustomerKey, arcb[0x40:0xE0]) || !bytes.Equal(parsed.Slots[0].HostKeyHash, s390test.PHKH(host)) {
		t.Errorf("%+v", parsed)
	}
	additional := slices.Concat(bytes.Repeat([]byte{0x0a}, 32), s390test.PHKH(host))
	r := s390test.Response{Additional: additional, CUID: bytes.Repeat([]byte{5}, 16)}
	r.Measurement = s390test.Measure(request.MeasurementKey, patternHeader(), r.CUID, nil, request.Nonce, additional)
	for _, opts := range map[string]quote.S390Options{
		"protection key": {Key: request.ProtectionKey},
		"owner's key":    {OwnerKey: s390test.PEM(request.Owner), HostKeys: selfSigned(t, host)},
	} {
		opts.Header = patternHeader()
		q := open(t, s390test.Exchange(arcb, r), quote.Options{Nonce: request.Nonce, S390: opts})
		status(t, q, quote.Signature, quote.Verified, "")
		status(t, q, quote.Nonce, quote.Verified, "the ARCB's nonce")
	}
}

// selfSigned is a certificate of a key that nobody vouches for, in PEM.
func selfSigned(t *testing.T, key *ecdh.PublicKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: s390test.Day, NotAfter: s390test.Day.AddDate(1, 0, 0)}
	return certPEM(must(x509.CreateCertificate(rand.Reader, template, template, s390test.Public(key), s390test.ECDSA(s390test.Key("signer")))))
}
