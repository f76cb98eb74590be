package quote_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"tallystick/evidence"
	"tallystick/internal/readertest"
	"tallystick/internal/s390test"
	"tallystick/quote"
	"tallystick/rtmr"
)

var (
	s390Host, s390Other = s390test.Key("host"), s390test.Key("another host")
	s390Header          = s390test.Header("an image", s390Host.PublicKey())
	s390User            = []byte("what the guest says")
)

const s390All = s390test.Nonce | s390test.ImageKey | s390test.HostKey | s390test.Secrets | s390test.Firmware

// s390Round is a request with its response, for the same header.
type s390Round struct {
	request  *s390test.Request
	arcb     []byte
	response s390test.Response
}

func newS390Round(flags uint64, userData []byte) s390Round {
	r := s390test.NewRequest("a request", flags, s390Host.PublicKey())
	arcb := r.ARCB()
	return s390Round{r, arcb, s390test.Answer(s390Host, arcb, s390Header, userData)}
}

func (r s390Round) exchange() []byte { return s390test.Exchange(r.arcb, r.response) }

func (r s390Round) options() quote.Options {
	return quote.Options{Nonce: r.request.Nonce, S390: quote.S390Options{Header: s390Header, Key: r.request.ProtectionKey}}
}

// TestS390: every set of flags, with and without user data.
func TestS390(t *testing.T) {
	for bits := range 32 {
		flags := uint64(bits) << (63 - 5)
		for _, user := range [][]byte{nil, s390User, bytes.Repeat([]byte{7}, 256)} {
			r := newS390Round(flags, user)
			opts := r.options()
			if flags&s390test.Nonce == 0 {
				opts.Nonce = nil
			}
			q := open(t, r.exchange(), opts)
			checkLines(t, q)
			if !q.Trusted() || len(q.Warnings) != 0 || fact(q, "user_data") != rtmr.Hex(user).String() {
				t.Errorf("flags %#x: %+v, %q", flags, q.Links, q.Warnings)
			}
			if got := q.Values[rtmr.SHA512][rtmr.Launch]; !bytes.Equal(got, s390Header[0xE0:0x120]) {
				t.Errorf("launch is %s", got)
			}
			for name, want := range map[string]struct {
				flag  uint64
				value []byte
			}{
				"image_phkh": {s390test.ImageKey, s390test.PHKH(s390Host.PublicKey())}, "attestation_phkh": {s390test.HostKey, s390test.PHKH(s390Host.PublicKey())},
				"secret_store_hash": {s390test.Secrets, bytes.Repeat([]byte{0x5e}, 64)}, "firmware_state": {s390test.Firmware, bytes.Repeat([]byte{0xf3}, 320)},
			} {
				if value := rtmr.Hex(want.value).String(); flags&want.flag == 0 && fact(q, name) != "" || flags&want.flag != 0 && fact(q, name) != value {
					t.Errorf("flags %#x: %s is %q", flags, name, fact(q, name))
				}
			}
		}
	}
}

// TestS390EveryByte: no byte of a response can be another, but for the file's
// reserved ones; nor of what the measurement has of the header.
func TestS390EveryByte(t *testing.T) {
	r := newS390Round(s390All, s390User)
	data, opts := r.exchange(), r.options()
	for i := range data {
		q, err := quote.Open(flip(data, i), opts)
		if reserved := i >= 16 && i < 24; err == nil && q.Trusted() != reserved {
			t.Errorf("byte %#x: trusted is %t: %+v", i, q.Trusted(), q.Links)
		}
	}
	for i := range s390Header {
		opts.S390.Header = flip(s390Header, i)
		q, err := quote.Open(data, opts)
		measured := i >= 0xE0 && i < 0x1A0 || i >= len(s390Header)-16
		sizes := i < 0x10 || i >= 0x20 && i < 0x30 // magic, version, PHS; NKS and SEA
		if (err != nil) != sizes || err == nil && q.Trusted() == measured {
			t.Errorf("byte %#x of the header: %v, %+v", i, err, q)
		}
	}
	for i := range r.request.ProtectionKey {
		opts := r.options()
		opts.S390.Key = flip(opts.S390.Key, i)
		q := open(t, data, opts)
		status(t, q, quote.Chain, quote.Failed, "does not open")
		status(t, q, quote.Signature, quote.Missing, "no measurement key")
	}
}

// TestS390Forged: each forgery, and the link that tells of it.
func TestS390Forged(t *testing.T) {
	good := newS390Round(s390All, s390User)
	other := s390test.NewRequest("another request", s390All, s390Host.PublicKey())
	own := s390test.NewRequest("a request", s390All, s390Other.PublicKey())
	for name, c := range map[string]struct {
		edit func(r *s390Round, o *quote.Options)
		link string
		want quote.Status
		says string
	}{
		"another image": {func(r *s390Round, o *quote.Options) {
			o.S390.Header = s390test.Header("another image", s390Host.PublicKey())
		}, quote.Signature, quote.Failed, "the guest runs another image"},
		"no header": {func(r *s390Round, o *quote.Options) { o.S390.Header = nil }, quote.Signature, quote.Missing, "--s390-header"},
		"no key":    {func(r *s390Round, o *quote.Options) { o.S390.Key = nil }, quote.Chain, quote.Missing, "--s390-key"},
		"another request's key": {func(r *s390Round, o *quote.Options) { o.S390.Key = other.ProtectionKey },
			quote.Chain, quote.Failed, "does not open"},
		"another request's response": {func(r *s390Round, o *quote.Options) {
			r.response = s390test.Answer(s390Host, other.ARCB(), s390Header, s390User)
		}, quote.Signature, quote.Failed, "answers another request"},
		"another request": {func(r *s390Round, o *quote.Options) {
			r.arcb = other.ARCB()
			r.response = s390test.Answer(s390Host, r.arcb, s390Header, s390User)
		}, quote.Chain, quote.Failed, "another request's"},
		"a request of the attacker's for his own host": {func(r *s390Round, o *quote.Options) {
			own.ProtectionKey = bytes.Repeat([]byte{1}, 32)
			r.arcb = own.ARCB()
			r.response = s390test.Answer(s390Other, r.arcb, s390Header, s390User)
		}, quote.Chain, quote.Failed, "another request's"},
		"another guest":      {func(r *s390Round, o *quote.Options) { r.response.CUID = bytes.Repeat([]byte{1}, 16) }, quote.Signature, quote.Failed, ""},
		"other user data":    {func(r *s390Round, o *quote.Options) { r.response.UserData = []byte("what the host says.") }, quote.Signature, quote.Failed, ""},
		"no user data":       {func(r *s390Round, o *quote.Options) { r.response.UserData = nil }, quote.Signature, quote.Failed, ""},
		"longer user data":   {func(r *s390Round, o *quote.Options) { r.response.UserData = append(s390User[:19:19], 0) }, quote.Signature, quote.Failed, ""},
		"shorter additional": {func(r *s390Round, o *quote.Options) { r.response.Additional = r.response.Additional[:400] }, quote.Signature, quote.Failed, ""},
		"no additional data": {func(r *s390Round, o *quote.Options) { r.response.Additional = nil }, quote.Binding, quote.Failed, "ends 0 bytes into image_phkh, expected 32"},
		"host keys swapped": {func(r *s390Round, o *quote.Options) {
			a := r.response.Additional
			copy(a, s390test.PHKH(s390Other.PublicKey()))
		}, quote.Signature, quote.Failed, ""},
		"additional data moved into the user data": {func(r *s390Round, o *quote.Options) {
			r.response.UserData = slices.Concat(r.response.UserData, r.request.Nonce, r.response.Additional[:100])
			r.response.Additional = r.response.Additional[100:]
		}, quote.Signature, quote.Failed, ""},
		"a short measurement": {func(r *s390Round, o *quote.Options) { r.response.Measurement = r.response.Measurement[:63] }, quote.Signature, quote.Failed, "63 bytes, expected 64"},
		"a long measurement":  {func(r *s390Round, o *quote.Options) { r.response.Measurement = append(r.response.Measurement, 0) }, quote.Signature, quote.Failed, "65 bytes, expected 64"},
		"flags that make less of the additional data": {func(r *s390Round, o *quote.Options) {
			binary.BigEndian.PutUint64(r.arcb[0x30:], s390test.Nonce|s390test.Secrets)
		}, quote.Chain, quote.Failed, "was altered"},
		"another nonce": {func(r *s390Round, o *quote.Options) { o.Nonce = other.Nonce }, quote.Nonce, quote.Failed, "neither the ARCB's nonce nor the user data"},
		"measured without the nonce": {func(r *s390Round, o *quote.Options) {
			r.response.Measurement = s390test.Measure(r.request.MeasurementKey, s390Header, r.response.CUID, s390User, nil, r.response.Additional)
		}, quote.Signature, quote.Failed, ""},
		"another measurement key": {func(r *s390Round, o *quote.Options) { o.S390.Key = other.MeasurementKey }, quote.Signature, quote.Failed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, opts := good, good.options()
			r.arcb, r.response.Additional = bytes.Clone(r.arcb), bytes.Clone(r.response.Additional)
			c.edit(&r, &opts)
			q := open(t, r.exchange(), opts)
			checkLines(t, q)
			status(t, q, c.link, c.want, c.says)
			if q.Trusted() || len(q.Values) != 0 && c.link == quote.Signature {
				t.Errorf("trusted: %t: %+v, %v", q.Trusted(), q.Links, q.Values)
			}
		})
	}
}

// TestS390ForgerNotHelped: what a wrong measurement should have been is not told, nor
// the request's nonce: whoever sent it would send that next.
func TestS390ForgerNotHelped(t *testing.T) {
	r := newS390Round(s390All, s390User)
	right := rtmr.Hex(r.response.Measurement).String()
	r.response.Measurement = flip(r.response.Measurement, 0)
	opts := r.options()
	opts.Nonce = []byte{1}
	q := open(t, r.exchange(), opts)
	for _, l := range q.Links {
		if strings.Contains(l.Text, right[2:10]) || strings.Contains(l.Text, rtmr.Hex(r.request.Nonce).String()[:8]) {
			t.Errorf("%+v", l)
		}
	}
}

// TestS390Nonce: where a verifier's nonce may stand.
func TestS390Nonce(t *testing.T) {
	short := []byte{0xca, 0xfe}
	r := newS390Round(s390All, slices.Concat(short, make([]byte, 30)))
	padded := r
	request := *r.request
	request.Nonce = slices.Concat(short, make([]byte, 14))
	padded.request, padded.arcb = &request, request.ARCB()
	padded.response = s390test.Answer(s390Host, padded.arcb, s390Header, nil)
	bare := newS390Round(0, nil)
	for name, c := range map[string]struct {
		round s390Round
		key   []byte
		nonce []byte
		want  quote.Status
		says  string
	}{
		"none":                   {r, r.request.ProtectionKey, nil, quote.NotChecked, "at least newer than the request"},
		"the request's":          {r, r.request.ProtectionKey, r.request.Nonce, quote.Verified, "the ARCB's nonce"},
		"the request's, shorter": {padded, r.request.ProtectionKey, short, quote.Verified, "the ARCB's nonce"},
		"in the user data":       {r, r.request.ProtectionKey, short, quote.Verified, "the user data is the given nonce of 2 bytes"},
		"part of the request's":  {r, r.request.ProtectionKey, r.request.Nonce[:8], quote.Failed, ""},
		"longer than both":       {r, r.request.ProtectionKey, bytes.Repeat([]byte{1}, 256), quote.Failed, ""},
		"of a request without":   {bare, r.request.ProtectionKey, r.request.Nonce, quote.Failed, ""},
		"closed":                 {r, r.request.MeasurementKey, r.request.Nonce, quote.Verified, "the measurement is over the given nonce"},
		"closed and none":        {bare, r.request.MeasurementKey, r.request.Nonce, quote.Failed, ""},
	} {
		opts := c.round.options()
		opts.Nonce, opts.S390.Key = c.nonce, c.key
		q := open(t, c.round.exchange(), opts)
		if status(t, q, quote.Nonce, c.want, c.says); q.Trusted() != (c.want != quote.Failed) {
			t.Errorf("%s: %+v", name, q.Links)
		}
	}
	opts := r.options()
	opts.Nonce = make([]byte, 257)
	if _, err := quote.Open(r.exchange(), opts); err == nil || !strings.Contains(err.Error(), "257 bytes, and there is room for 16 in an ARCB and 256 in user data") {
		t.Error(err)
	}
}

// TestS390Closed: with the measurement key alone, the ARCB's flags are nobody's, so
// the additional data is shown and not said to be anything.
func TestS390Closed(t *testing.T) {
	r := newS390Round(s390All, s390User)
	relabelled := bytes.Clone(r.arcb)
	binary.BigEndian.PutUint64(relabelled[0x30:], s390test.Nonce|s390test.Firmware|s390test.Secrets)
	for _, arcb := range [][]byte{r.arcb, relabelled} {
		opts := r.options()
		opts.S390.Key = r.request.MeasurementKey
		q := open(t, s390test.Exchange(arcb, r.response), opts)
		status(t, q, quote.Chain, quote.NotChecked, "the ARCB stays closed")
		if !q.Trusted() || fact(q, "additional_data") != rtmr.Hex(r.response.Additional).String() || fact(q, "image_phkh")+fact(q, "firmware_state")+fact(q, "PAF")+fact(q, "PAF.NONCE")+fact(q, "NKS") != "" {
			t.Errorf("%+v", q)
		}
		requirement, _ := quote.ParseRequirement("PAF.FIRMWARE_STATE=1")
		q.Require(requirement)
		status(t, q, quote.Required, quote.Missing, "no field PAF.FIRMWARE_STATE")
	}
	opts := r.options()
	opts.Nonce, opts.S390.Key = r.request.Nonce[:15], r.request.MeasurementKey
	status(t, open(t, r.exchange(), opts), quote.Signature, quote.Missing, "expected 16 bytes")
}

// TestS390Parts: a response in files of its own is the same.
func TestS390Parts(t *testing.T) {
	r := newS390Round(s390All, s390User)
	whole := open(t, r.exchange(), r.options())
	opts := r.options()
	opts.S390.Measurement, opts.S390.Additional = r.response.Measurement, r.response.Additional
	opts.S390.UserData, opts.S390.CUID = r.response.UserData, r.response.CUID
	for name, data := range map[string][]byte{"ARCB": r.arcb, "the request's exchange file": s390test.Exchange(r.arcb, s390test.Response{})} {
		q := open(t, data, opts)
		if !q.Trusted() || !slices.Equal(q.Links, whole.Links) || !slices.Equal(q.Facts, whole.Facts) {
			t.Errorf("%s: %+v", name, q)
		}
		swapped := opts
		swapped.S390.CUID, swapped.S390.UserData = r.response.CUID, []byte("what the host says.")
		status(t, open(t, data, swapped), quote.Signature, quote.Failed, "")
	}
	for says, edit := range map[string]func(o *quote.S390Options, data *[]byte){
		"no measurement: a request that no guest has answered":              func(o *quote.S390Options, _ *[]byte) { o.Measurement = nil },
		"a config UID of 0 bytes, expected 16":                              func(o *quote.S390Options, _ *[]byte) { o.CUID = nil },
		"a config UID of 15 bytes, expected 16":                             func(o *quote.S390Options, _ *[]byte) { o.CUID = o.CUID[:15] },
		"--s390-cuid has 17 bytes, expected 16 at most":                     func(o *quote.S390Options, _ *[]byte) { o.CUID = make([]byte, 17) },
		"--s390-user-data has 257 bytes, expected 256 at most":              func(o *quote.S390Options, _ *[]byte) { o.UserData = make([]byte, 257) },
		"--s390-additional has 32769 bytes, expected 32768 at most":         func(o *quote.S390Options, _ *[]byte) { o.Additional = make([]byte, 0x8001) },
		"--s390-measurement was given, and the exchange file has its own":   func(_ *quote.S390Options, data *[]byte) { *data = r.exchange() },
		"the ARCB: offset 224: PHKH of key slot 0: takes 32 bytes, and 10 ": func(_ *quote.S390Options, data *[]byte) { *data = sized(r.arcb[:234]) },
	} {
		data, o := r.arcb, opts
		edit(&o.S390, &data)
		if q, err := quote.Open(data, o); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v, %v, expected %s", q, err, says)
		}
	}
}

// sized is a request cut off, with the size that it has.
func sized(arcb []byte) []byte {
	arcb = bytes.Clone(arcb)
	binary.BigEndian.PutUint32(arcb[12:], uint32(len(arcb)))
	return arcb
}

// TestS390HostKeys: for whose machines a request is, and who says so.
func TestS390HostKeys(t *testing.T) {
	ibm := s390test.NewAuthority(s390test.SigningName())
	armonk := s390test.SigningName()
	armonk.Locality = []string{"Armonk"}
	impostor := s390test.SigningName()
	impostor.CommonName = "A customer of the same root"
	host, other := ibm.Document(7, s390Host.PublicKey()), ibm.Document(8, s390Other.PublicKey())
	roots := slices.Concat(ibm.Roots(), ibm.Lists())
	one := newS390Round(s390All, s390User)
	two := one
	two.request = s390test.NewRequest("a request", s390All, s390Other.PublicKey(), s390Host.PublicKey())
	two.arcb = two.request.ARCB()
	two.response = s390test.Answer(s390Host, two.arcb, s390Header, s390User)
	for name, c := range map[string]struct {
		round       s390Round
		hkd, roots  []byte
		days        int
		links, says string
	}{
		"good": {one, host, roots, 0, "signature=verified chain=verified collateral=verified nonce=verified binding=verified", "leads to a given root"},
		"good, of two": {two, slices.Concat(host, other), roots, 0,
			"signature=verified chain=verified collateral=verified nonce=verified binding=verified", "its key slots (2) are for"},
		"no lists":        {one, host, ibm.Roots(), 0, "signature=verified chain=verified collateral=not-checked nonce=verified binding=verified", "no revocation lists"},
		"no roots":        {one, host, nil, 0, "signature=verified chain=not-checked nonce=verified binding=verified", "taken as they are"},
		"a slot more":     {two, host, roots, 0, "signature=verified chain=failed collateral=verified nonce=verified binding=verified", "key slot 0 is for the host key"},
		"another machine": {one, other, roots, 0, "signature=verified chain=failed collateral=verified nonce=verified binding=failed", "no given host key document has that key"},
		"revoked":         {one, host, slices.Concat(ibm.Roots(), ibm.Lists(9, 7)), 0, "signature=verified chain=verified collateral=failed nonce=verified binding=verified", "serial number 7, is revoked"},
		"another revoked": {one, host, slices.Concat(ibm.Roots(), ibm.Lists(9)), 0, "signature=verified chain=verified collateral=verified nonce=verified binding=verified", ""},
		"old lists":       {one, host, roots, 31, "signature=verified chain=verified collateral=missing nonce=verified binding=verified", "no current revocation list by"},
		"expired":         {one, host, roots, 400, "signature=verified chain=failed collateral=missing nonce=verified binding=verified", "valid from 2025-01-01 to 2027-01-01"},
		"not yet":         {one, host, roots, -400, "signature=verified chain=failed collateral=missing nonce=verified binding=verified", "valid from"},
		"signed by nobody": {one, selfSigned(t, s390Host.PublicKey()), roots, 0,
			"signature=verified chain=failed collateral=missing nonce=verified binding=verified", "not signed by the given key of IBM's"},
		"Armonk": {one, host, s390test.NewAuthority(armonk).Roots(), 0,
			"signature=verified chain=verified collateral=not-checked nonce=verified binding=verified", ""},
		"another root": {one, host, slices.Concat(ibm.Roots()[:len(certPEM(ibm.Signing.Raw))], certPEM(ibm.Issuer.Raw), selfSigned(t, s390Other.PublicKey())), 0,
			"signature=verified chain=failed collateral=missing nonce=verified binding=verified", "IBM's host key signing key: "},
	} {
		t.Run(name, func(t *testing.T) {
			opts := c.round.options()
			opts.Time = s390test.Day.AddDate(0, 0, c.days)
			opts.S390.HostKeys, opts.S390.Roots = c.hkd, c.roots
			q := open(t, c.round.exchange(), opts)
			checkLines(t, q)
			good := !strings.Contains(c.links, "failed") && !strings.Contains(c.links, "missing")
			if got := statuses(q); got != c.links || q.Trusted() != good {
				t.Errorf("%s, trusted is %t: %+v", got, q.Trusted(), q.Links)
			}
			if !slices.ContainsFunc(q.Links, func(l quote.Link) bool { return strings.Contains(l.Text, c.says) }) {
				t.Errorf("nothing says %q: %+v", c.says, q.Links)
			}
		})
	}
	opts := one.options()
	opts.S390.HostKeys, opts.S390.Roots = host, s390test.NewAuthority(impostor).Roots()
	if _, err := quote.Open(one.exchange(), opts); err == nil || !strings.Contains(err.Error(), "expected a self-signed certificate, and that of IBM's host key signing service") {
		t.Error(err)
	}
}

// TestS390SigningName: the root signs for others, who are not IBM's signing service
// for lacking in its name.
func TestS390SigningName(t *testing.T) {
	r := newS390Round(s390All, s390User)
	for name, edit := range map[string]func(n *pkix.Name){
		"country":      func(n *pkix.Name) { n.Country = []string{"DE"} },
		"state":        func(n *pkix.Name) { n.Province = []string{"Old York"} },
		"town":         func(n *pkix.Name) { n.Locality = []string{"Boeblingen"} },
		"organization": func(n *pkix.Name) { n.Organization = []string{"International Business Machines Corp."} },
		"unit":         func(n *pkix.Name) { n.OrganizationalUnit = []string{"IBM Z Host Key Signing Service ."} },
		"two units":    func(n *pkix.Name) { n.OrganizationalUnit = append(n.OrganizationalUnit, "Key Signing Service") },
		"name":         func(n *pkix.Name) { n.CommonName = "International" },
		"more":         func(n *pkix.Name) { n.StreetAddress = []string{"1 New Orchard Road"} },
	} {
		subject := s390test.SigningName()
		edit(&subject)
		a := s390test.NewAuthority(subject)
		opts := r.options()
		opts.S390.HostKeys, opts.S390.Roots = a.Document(7, s390Host.PublicKey()), a.Roots()
		if q, err := quote.Open(r.exchange(), opts); err == nil {
			t.Errorf("%s: %+v", name, q.Links)
		}
	}
}

// TestS390Owner: the owner's private key and a host's document open the request.
func TestS390Owner(t *testing.T) {
	ibm := s390test.NewAuthority(s390test.SigningName())
	host, other := ibm.Document(7, s390Host.PublicKey()), ibm.Document(8, s390Other.PublicKey())
	r := newS390Round(s390All, s390User)
	two := r
	two.request = s390test.NewRequest("a request", s390All, s390Other.PublicKey(), s390Host.PublicKey())
	two.arcb = two.request.ARCB()
	two.response = s390test.Answer(s390Host, two.arcb, s390Header, s390User)
	altered := r
	altered.arcb = flip(r.arcb, 0xE0+40)
	for name, c := range map[string]struct {
		round s390Round
		owner []byte
		hkd   []byte
		chain quote.Status
		says  string
	}{
		"good":             {r, s390test.PEM(r.request.Owner), host, quote.Verified, "the ARCB opens"},
		"good, of two":     {two, s390test.PEM(r.request.Owner), slices.Concat(other, host), quote.Verified, "its key slots (2)"},
		"one of two":       {two, s390test.PEM(r.request.Owner), host, quote.Failed, "key slot 0 is for the host key"},
		"another owner":    {r, s390test.PEM(s390Other), host, quote.Failed, "the owner's key begins"},
		"another host":     {r, s390test.PEM(r.request.Owner), other, quote.Failed, "no key slot of the ARCB is for a given host key document"},
		"an altered slot":  {altered, s390test.PEM(r.request.Owner), host, quote.Failed, "key slot 0 does not open"},
		"the host's own":   {r, s390test.PEM(s390Host), host, quote.Failed, "the owner's key begins"},
		"with parameters":  {r, append([]byte("-----BEGIN EC PARAMETERS-----\nBgUrgQQAIw==\n-----END EC PARAMETERS-----\n"), s390test.PEM(r.request.Owner)...), host, quote.Verified, ""},
		"its certificates": {r, append(bytes.Clone(host), s390test.PEM(r.request.Owner)...), host, quote.Verified, ""},
	} {
		opts := c.round.options()
		opts.Time = s390test.Day
		opts.S390.Key, opts.S390.OwnerKey, opts.S390.HostKeys, opts.S390.Roots = nil, c.owner, c.hkd, ibm.Roots()
		q := open(t, c.round.exchange(), opts)
		status(t, q, quote.Chain, c.chain, c.says)
		if q.Trusted() != (c.chain == quote.Verified) {
			t.Errorf("%s: %+v", name, q.Links)
		}
	}
	// The key opens every request of its owner's, so without a nonce it may be an old one.
	opts := r.options()
	opts.Nonce, opts.S390.Key, opts.S390.OwnerKey, opts.S390.HostKeys = nil, nil, s390test.PEM(r.request.Owner), host
	status(t, open(t, r.exchange(), opts), quote.Nonce, quote.NotChecked, "opens old requests as well")
}

// TestS390Warnings: a host key that the image or the request was not made for, and
// additional data that no known flag asks for.
func TestS390Warnings(t *testing.T) {
	r := newS390Round(s390All, nil)
	header := s390test.Header("an image", s390Other.PublicKey())
	r.response.Additional = slices.Concat(r.response.Additional, []byte{1, 2, 3})
	copy(r.response.Additional[32:], s390test.PHKH(s390Other.PublicKey()))
	r.response.Measurement = s390test.Measure(r.request.MeasurementKey, header, r.response.CUID, nil, r.request.Nonce, r.response.Additional)
	opts := r.options()
	opts.S390.Header = header
	q := open(t, r.exchange(), opts)
	if !q.Trusted() || len(q.Warnings) != 3 || fact(q, "unrecognized") != "010203" {
		t.Errorf("%q, %+v", q.Warnings, q)
	}
	for i, says := range []string{"image_phkh is ", "attestation_phkh is ", "3 bytes more than the flags"} {
		if !strings.HasPrefix(strings.TrimPrefix(q.Warnings[i], "the additional data has "), says) {
			t.Errorf("%q, expected %s", q.Warnings[i], says)
		}
	}
}

// TestS390OptionsClash: what cannot be given together, or is of another size or kind.
func TestS390OptionsClash(t *testing.T) {
	r := newS390Round(s390All, s390User)
	hkd := selfSigned(t, s390Host.PublicKey())
	p256 := software(t, ecc256).pkix(t)
	for says, edit := range map[string]func(o *quote.Options){
		"expected one of them":                                       func(o *quote.Options) { o.S390.OwnerKey = []byte{1} },
		"--s390-owner-key was given without --s390-hkd":              func(o *quote.Options) { o.S390.Key, o.S390.OwnerKey = nil, []byte{1} },
		"--s390-roots was given without --s390-hkd":                  func(o *quote.Options) { o.S390.Roots = []byte{1} },
		"--s390-hkd was given beside a measurement key":              func(o *quote.Options) { o.S390.Key, o.S390.HostKeys = r.request.MeasurementKey, hkd },
		"--s390-key has 33 bytes, expected 32":                       func(o *quote.Options) { o.S390.Key = make([]byte, 33) },
		"--s390-header: 5 bytes that begin 6865616465: neither":      func(o *quote.Options) { o.S390.Header = []byte("heade") },
		"the host key documents: neither PEM nor DER":                func(o *quote.Options) { o.S390.HostKeys = []byte("no") },
		"host key document 1: a key of the kind ECDSA, expected ECC": func(o *quote.Options) { o.S390.HostKeys = thePlatform().options().TDXRoots },
		"the roots of host key documents: neither PEM nor DER":       func(o *quote.Options) { o.S390.HostKeys, o.S390.Roots = hkd, []byte("no") },
		"the owner's key: neither PKCS #8 nor SEC 1":                 func(o *quote.Options) { o.S390.Key, o.S390.HostKeys, o.S390.OwnerKey = nil, hkd, p256 },
		"--key was given, and a Secure Execution attestation":        func(o *quote.Options) { o.Key = []byte{1} },
		"--report was given, and a Secure Execution attestation":     func(o *quote.Options) { o.Report = []byte{1} },
		"--hardware was given, and a Secure Execution attestation":   func(o *quote.Options) { o.Hardware = []byte{1} },
		"--snp-roots was given, and a Secure Execution attestation":  func(o *quote.Options) { o.SNPRoots = []byte{1} },
	} {
		opts := r.options()
		edit(&opts)
		if q, err := quote.Open(r.exchange(), opts); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v, %v, expected %s", q, err, says)
		}
	}
	all := quote.S390Options{Header: []byte{1}, Key: []byte{1}, OwnerKey: []byte{1}, HostKeys: []byte{1}, Roots: []byte{1}, Measurement: []byte{1}, Additional: []byte{1}, UserData: []byte{1}, CUID: []byte{1}}
	for flag, o := range map[string]quote.S390Options{
		"header": {Header: all.Header}, "key": {Key: all.Key}, "owner-key": {OwnerKey: all.OwnerKey}, "hkd": {HostKeys: all.HostKeys}, "roots": {Roots: all.Roots},
		"measurement": {Measurement: all.Measurement}, "additional": {Additional: all.Additional}, "user-data": {UserData: all.UserData}, "cuid": {CUID: all.CUID},
	} {
		for name, data := range map[string][]byte{"SNP": realQuotes(t)[0].data, "software TPM": softQuote(t).Attest} {
			if _, err := quote.Open(data, quote.Options{S390: o}); err == nil || !strings.Contains(err.Error(), "--s390-"+flag+" was given, and ") {
				t.Errorf("%s: --s390-%s: %v", name, flag, err)
			}
		}
	}
}

// TestS390Malformed: what is no exchange file, request or header, with the place.
func TestS390Malformed(t *testing.T) {
	r := newS390Round(s390All, s390User)
	exchange := r.exchange()
	put32 := func(b []byte, at int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.BigEndian.PutUint32(b[at:], v)
		return b
	}
	parseExchange := func(b []byte) error { _, err := quote.ParseS390Exchange(b); return err }
	parseRequest := func(b []byte) error { _, err := quote.ParseS390Request(b); return err }
	parseHeader := func(b []byte) error { _, err := quote.ParseS390Header(b); return err }
	inImage := func(at int, header []byte) []byte { return slices.Concat(make([]byte, at), header) }
	for says, err := range map[string]error{
		"offset 0: magic: takes 8 bytes, and 3 are left":                          parseExchange([]byte("pva")),
		`offset 0: magic: 7076617474657378, expected "pvattest"`:                  parseExchange([]byte("pvattesx")),
		"offset 8: version: takes 4 bytes, and 0 are left":                        parseExchange([]byte("pvattest")),
		"unsupported quote: offset 8: version 0x200, expected 0x100":              parseExchange(put32(exchange, 8, 0x200)),
		"offset 12: size: 1, and the file has ":                                   parseExchange(put32(exchange, 12, 1)),
		"offset 24: serialized ARCB: 1048577 bytes, expected 1048576 at most":     parseExchange(put32(exchange, 24, 0x100001)),
		"offset 28: serialized ARCB: stands at 63, within the header of 64 bytes": parseExchange(put32(exchange, 28, 63)),
		"offset 32: measurement: 64 bytes at 4294967295, and the file has ":       parseExchange(put32(exchange, 36, 0xFFFFFFFF)),
		"offset 48: user data: 257 bytes, expected 256 at most":                   parseExchange(put32(exchange, 48, 257)),
		"offset 56: config UID: 17 bytes, expected 16 at most":                    parseExchange(put32(exchange, 56, 17)),
		"offset 56: config UID: 15 bytes, expected 16":                            parseExchange(put32(exchange, 56, 15)),
		"offset 12: size: takes 4 bytes, and 2 are left":                          parseExchange(exchange[:14]),

		"offset 0: magic: 0000000000000001, expected zeros":                                parseRequest(put(r.arcb, 7, 1)),
		"unsupported quote: offset 8: version 0x101, expected 0x100":                       parseRequest(put(r.arcb, 11, 1)),
		"offset 12: size: 7, and there are 400 bytes":                                      parseRequest(put32(r.arcb, 12, 7)),
		"offset 39: NKS: no key slot, expected one at least":                               parseRequest(sized(append(put(r.arcb[:0xE0], 39, 0), r.arcb[0xE0+80:]...))),
		"offset 304: PHKH of key slot 1: takes 32 bytes, and 31 are left":                  parseRequest(sized(put(r.arcb[:335], 39, 2))),
		"offset 304: the encrypted area: takes 4294967311 bytes, and 96 are left":          parseRequest(put32(r.arcb, 44, 0xFFFFFFFF)),
		"offset 399: the end: 1 bytes follow the request's tag":                            parseRequest(put32(r.arcb, 44, 79)),
		"offset 44: SEA: 80 bytes, expected 64 of a request with PAF 0x0000000000000000":   parseRequest(put(r.arcb, 0x30, 0)[:400]),
		"unsupported quote: offset 56: MAI: measurement algorithm 2, expected 1 (HMAC-SHA": parseRequest(put(r.arcb, 0x3b, 2)),

		"unsupported quote: offset 8: a header of version 0x0, expected 0x100":            parseHeader(put32(s390Header, 8, 0)),
		"offset 12: PHS: 641 bytes, expected 416 of the head, 1 key slots of 80, SEA 128": parseHeader(put32(s390Header, 12, 641)),
		"offset 12: PHS: 640 bytes, expected 416 of the head, 9223372036854775809 key":    parseHeader(put(s390Header, 0x20, 0x80)),
		"offset 12: PHS: 640 bytes, expected 416 of the head, 1 key slots of 80, SEA 922": parseHeader(put(s390Header, 0x28, 0x80)),
		"offset 640: 1 bytes follow the header":                                           parseHeader(append(bytes.Clone(s390Header), 0)),
		"offset 624: the tag: takes 16 bytes, and 15 are left":                            parseHeader(s390Header[:639]),
		"offset 224: PLD: takes 64 bytes, and 6 are left":                                 parseHeader(s390Header[:230]),
		"NKS: no key slot":                            parseHeader(s390test.Header("x")),
		"0 bytes that begin : neither":                parseHeader(nil),
		"98944 bytes that begin 0000000000000000":     parseHeader(inImage(0x18000, s390Header)),
		"65536 bytes that begin 0000000000000000":     parseHeader(make([]byte, 65536)),
		"offset 81976: PCF: takes 8 bytes, and 5 are": parseHeader(inImage(0x14000, s390Header[:0x3d])),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), says) {
			t.Errorf("%v, expected %s", err, says)
		}
		if err != nil && errors.Is(err, quote.ErrUnsupported) != strings.HasPrefix(says, "unsupported") {
			t.Errorf("%v: ErrUnsupported", err)
		}
	}
}

// TestS390Image: a header is found in an image, by its page or by the metadata.
func TestS390Image(t *testing.T) {
	want, err := quote.ParseS390Header(s390Header)
	if err != nil {
		t.Fatal(err)
	}
	if want.Version != 0x100 || want.Flags != 0xe0 || !bytes.Equal(want.TLD, s390Header[0x160:0x1A0]) || !bytes.Equal(want.Tag, s390Header[len(s390Header)-16:]) ||
		len(want.HostKeyHashes) != 1 || !bytes.Equal(want.HostKeyHashes[0], s390test.PHKH(s390Host.PublicKey())) {
		t.Errorf("%+v", want)
	}
	image := func(at int, metadata bool) []byte {
		b := make([]byte, at+len(s390Header)+5000)
		copy(b[at:], s390Header)
		if metadata {
			copy(b[0xC000:], "SeImgLnx")
			binary.BigEndian.PutUint64(b[0xC008:], uint64(at))
			b[0xC013] = 1
		}
		return b
	}
	for at, metadata := range map[int]bool{0x1000: false, 0x14000: false, 0x17000: false, 0x14: true, 0x99999: true} {
		if at < 0xC000 && metadata {
			at += 0xD000
		}
		got, err := quote.ParseS390Header(image(at, metadata))
		if err != nil || !bytes.Equal(got.PLD, want.PLD) || !bytes.Equal(got.Tag, want.Tag) {
			t.Errorf("%#x: %+v, %v", at, got, err)
		}
	}
	bad := image(0x20000, true)
	binary.BigEndian.PutUint64(bad[0xC008:], 0x20001)
	if _, err := quote.ParseS390Header(bad); err == nil || !strings.Contains(err.Error(), "offset 49160: the image's metadata has its header at 131073") {
		t.Error(err)
	}
	binary.BigEndian.PutUint64(bad[0xC008:], 1<<63)
	if _, err := quote.ParseS390Header(bad); err == nil {
		t.Error("a header beyond the image")
	}
}

// TestS390Soft: a response stands for a software TPM's quote by its user data.
func TestS390Soft(t *testing.T) {
	soft, other := softQuote(t), softQuote(t)
	bound, another := soft.ReportData(), other.ReportData()
	for name, c := range map[string]struct {
		user []byte
		edit func(o *quote.Options)
		want quote.Status
		says string
	}{
		"64 bytes":        {bound[:], nil, quote.Verified, "the user data is the binding of the quote's nonce"},
		"256 bytes":       {slices.Concat(bound[:], make([]byte, 192)), nil, quote.Verified, "the user data is the binding"},
		"more behind it":  {slices.Concat(bound[:], make([]byte, 191), []byte{1}), nil, quote.Failed, "the user data is "},
		"63 bytes":        {bound[:63], nil, quote.Failed, "the user data is "},
		"no user data":    {nil, nil, quote.Failed, "the user data is "},
		"another quote's": {another[:], nil, quote.Failed, "expected the binding"},
		"no key":          {bound[:], func(o *quote.Options) { o.Key = nil }, quote.Missing, "whose name the user data is a hash over"},
	} {
		r := newS390Round(s390All, c.user)
		opts := softOptions(soft, nil)
		opts.Report, opts.S390 = r.exchange(), r.options().S390
		if c.edit != nil {
			c.edit(&opts)
		}
		q := open(t, soft.Attest, opts)
		if q.Trusted() != (c.want == quote.Verified) || q.Inside == nil || q.Inside.Kind != quote.S390 {
			t.Fatalf("%s: %+v", name, q)
		}
		status(t, q, quote.Chain, c.want, "the s390 report")
		status(t, q.Inside, quote.Binding, c.want, c.says)
		if _, ok := q.Inside.Link(quote.Nonce); ok || len(q.Warnings) != 0 {
			t.Errorf("%s: %+v, %q", name, q.Inside.Links, q.Warnings)
		}
	}
	r := newS390Round(s390All, bound[:])
	b := &evidence.Bundle{Attest: soft.Attest, Signature: soft.Signature, Public: soft.Public, Report: r.exchange()}
	if q := open(t, must(b.Marshal()), quote.Options{Nonce: softNonce, S390: r.options().S390}); !q.Trusted() || q.Inside.Kind != quote.S390 {
		t.Errorf("in a bundle: %+v", q)
	}
	opts := softOptions(soft, nil)
	opts.Report, opts.S390 = r.exchange(), r.options().S390
	opts.S390.Header = s390test.Header("another image", s390Host.PublicKey())
	if q := open(t, soft.Attest, opts); q.Trusted() {
		t.Errorf("%+v", q.Inside.Links)
	}
}

func FuzzParseS390Exchange(f *testing.F) {
	f.Add(newS390Round(s390All, s390User).exchange())
	f.Add(s390test.Exchange(newS390Round(0, nil).arcb, s390test.Response{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := quote.ParseS390Exchange(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		for _, part := range [][]byte{e.Request, e.Measurement, e.Additional, e.UserData, e.CUID} {
			if len(part) > 0 && !bytes.Contains(data[0x40:], part) {
				t.Errorf("a part that is not behind the header: %x", part)
			}
		}
	})
}

// FuzzParseS390Request: what is parsed, put together again, are the bytes.
func FuzzParseS390Request(f *testing.F) {
	f.Add(newS390Round(s390All, nil).arcb)
	f.Add(s390test.NewRequest("x", 0, s390Host.PublicKey(), s390Other.PublicKey()).ARCB())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := quote.ParseS390Request(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		slots := slices.Clone(data[:0xE0])
		for _, slot := range r.Slots {
			slots = slices.Concat(slots, slot.HostKeyHash, slot.Wrapped)
		}
		if !bytes.HasPrefix(data, slots) || !bytes.Equal(r.CustomerKey, data[0x40:0xE0]) || binary.BigEndian.Uint64(data[0x30:]) != r.Flags {
			t.Errorf("%+v of %x", r, data)
		}
	})
}

func FuzzParseS390Header(f *testing.F) {
	f.Add(s390Header)
	f.Add(patternHeader())
	f.Add(slices.Concat(make([]byte, 0x1000), s390Header))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := quote.ParseS390Header(data)
		if err != nil {
			readertest.CheckLine(t, err.Error(), 64)
			return
		}
		if !bytes.Contains(data, slices.Concat(h.PLD, h.ALD, h.TLD)) || !bytes.Contains(data, h.Tag) || len(h.PLD) != 64 || len(h.Tag) != 16 {
			t.Errorf("%+v of %x", h, data)
		}
	})
}

// FuzzOpenS390: whatever is done to a response, it is trusted only with the very
// parts that were measured.
func FuzzOpenS390(f *testing.F) {
	r := newS390Round(s390All, s390User)
	opts := r.options()
	f.Add(r.exchange(), []byte(nil), []byte(nil))
	f.Add(r.arcb, r.response.Measurement, r.response.CUID)
	f.Add(s390test.Exchange(r.arcb, s390test.Response{}), r.response.Measurement, r.response.CUID)
	f.Fuzz(func(t *testing.T, data, measurement, cuid []byte) {
		opts := opts
		opts.S390.Measurement, opts.S390.CUID = measurement, cuid
		q, err := quote.Open(data, opts)
		if err != nil || q.Kind != quote.S390 {
			return
		}
		checkLines(t, q)
		want := open(t, r.exchange(), r.options())
		if q.Trusted() && !slices.Equal(q.Facts, want.Facts) {
			t.Errorf("trusted: %+v", q.Facts)
		}
	})
}
