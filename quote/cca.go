package quote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"tallystick/rtmr"
)

// CCAToken is an Arm CCA attestation token, or a virtCCA one, as its bytes say:
// nothing in it has been checked. Open checks it. The slices point into the data
// that was parsed.
//
// The layout is that of Arm's Realm Management Monitor specification (DEN0137)
// §A7.2.3: a CBOR map of a realm token, which the monitor signed with the realm
// attestation key (RAK), and a platform token, which the platform's root of trust
// signed with the CCA platform attestation key (CPAK), and which has the RAK's
// hash.
type CCAToken struct {
	// Tag is the collection's: 399 of the specification's version 1, 907 of
	// version 2.
	Tag      uint64
	Realm    CCARealm
	Platform *CCAPlatform // nil in virtCCA's token of the first form

	// VirtCCA is set where the token has what Huawei's virtCCA alone writes:
	// claims in bytes within the payload, or a RAK that is an RSA key
	// (SubjectPublicKeyInfo) or a point on P-521. Its claims are read more
	// leniently, as its own verifiers do.
	VirtCCA bool

	Unread []string // what stands in the token and is not read: a collection's entries and claims
}

// CCARealm are the claims of a realm token (§A7.2.3.1), with their labels.
type CCARealm struct {
	CCASigned
	Profile          string      // 265; "" in the first tokens, which have none
	Challenge        rtmr.Hex    // 10: 64 bytes, by the realm
	InstanceID       rtmr.Hex    // 256: 33 bytes that begin 01; nil before version 2
	PersonalizationV rtmr.Hex    // 44235: 64 bytes (RPV), by the realm's host
	HashAlgID        string      // 44236, in IANA's spelling: sha-256
	Hash             rtmr.Alg    // that algorithm
	PublicKey        rtmr.Hex    // 44237: the RAK, a COSE_Key or a point x ‖ y behind 04
	RIM              rtmr.Hex    // 44238: as many bytes as Hash has
	REM              [4]rtmr.Hex // 44239: the same each
	KeyHashAlgID     string      // 44240: of the RAK's hash in the platform token
	KeyHash          rtmr.Alg    // that algorithm
	MECPolicy        *uint64     // 44243: 0 shared, 1 private; nil before version 2
	LFAPolicy        *uint64     // 44244: 0 disallow, 1 allow live firmware activation; nil where there is none
	DevicesTokenHash rtmr.Hex    // 44257: 32, 48 or 64 bytes; nil where there is none
}

// CCAPlatform are the claims of a platform token (§A7.2.3.2; §A7.2.3.3 in version
// 2), with their labels.
type CCAPlatform struct {
	CCASigned
	Profile             string         // 265
	Challenge           rtmr.Hex       // 10: the RAK's hash: 32, 48 or 64 bytes
	InstanceID          rtmr.Hex       // 256: of the CPAK: 33 bytes that begin 01
	ClientID            *uint64        // 2394: 1, the realm management security domain; nil before version 2
	Lifecycle           uint16         // 2395
	ImplementationID    rtmr.Hex       // 2396: 32 bytes
	SwComponents        []CCAComponent // 2399
	VerificationService string         // 2400; "" where there is none
	Config              rtmr.Hex       // 2401
	HashAlgID           string         // 2402
	ManufacturingConfig rtmr.Hex       // 2403; nil where there is none
}

// CCAComponent is a software component of a platform token.
type CCAComponent struct {
	Type        string   // 1; "" where there is none
	Measurement rtmr.Hex // 2: 32, 48 or 64 bytes
	Version     string   // 4; "" where there is none
	SignerID    rtmr.Hex // 5: 32, 48 or 64 bytes
	HashAlgID   string   // 6; "" where there is none, and the platform's holds
}

// The collection's tags and labels (§A7.2.3). Before there was a tag of its own,
// 399 stood for one.
const (
	ccaCollection1 = 399
	ccaCollection2 = 907

	ccaPlatformToken = 44234
	ccaRealmToken    = 44241

	// The CoAP content format of application/eat+cwt, by which version 2 says what
	// an entry of the collection is (RATS Conceptual Messages Wrapper).
	ccaContentFormat = 263
	ccaMediaType     = "application/eat+cwt"
)

// The profiles that are read.
const (
	ccaPlatformLegacy = "http://arm.com/CCA-SSD/1.0.0"
	ccaPlatform1      = "tag:arm.com,2023:cca_platform#1.0.0"
	ccaPlatform2      = "tag:arm.com,2024:cca_platform#2.0.0"
	ccaRealm1         = "tag:arm.com,2023:realm#1.0.0"
	ccaRealm2         = "tag:arm.com,2024:realm#2.0.0"
)

// isCCA tells a token by the collection's tag and the map behind it.
func isCCA(data []byte) bool {
	return len(data) > 3 && data[0] == 0xD9 && data[3]>>5 == cborMap &&
		(binary.BigEndian.Uint16(data[1:]) == ccaCollection1 || binary.BigEndian.Uint16(data[1:]) == ccaCollection2)
}

// ParseCCA reads a token of Arm CCA or virtCCA: CBOR of definite lengths, the
// realm and the platform token in it each a COSE_Sign1, tagged or not, in bytes, as
// they are, or in a conceptual message wrapper's record. Zeros may follow.
//
// The error names the offset and the claim. It wraps ErrUnsupported where a
// profile, an algorithm or a header is not read here.
func ParseCCA(data []byte) (*CCAToken, error) {
	r := &cborReader{data: data}
	p := &CCAToken{Tag: r.tag("the collection's tag")}
	if r.err == nil && p.Tag != ccaCollection1 && p.Tag != ccaCollection2 {
		return nil, fmt.Errorf("%w: offset 0: tag %d, expected %d or %d", ErrUnsupported, p.Tag, ccaCollection1, ccaCollection2)
	}
	var realm, platform *cborReader
	p.unread("collection", r.each("collection", func(label int64) bool {
		switch label {
		case ccaRealmToken:
			realm = r.token("realm token")
		case ccaPlatformToken:
			platform = r.token("platform token")
		default:
			return false
		}
		return true
	}))
	if r.err == nil && allZero(r.data[r.off:]) {
		r.off = len(r.data) // buffers have a fixed size
	}
	switch err := r.end("the token"); {
	case err != nil:
		return nil, err
	case realm == nil:
		return nil, fmt.Errorf("offset 3: the collection has no realm token (%d)", ccaRealmToken)
	}
	if err := p.parseRealm(realm); err != nil {
		return nil, err
	}
	if platform == nil {
		return p, nil
	}
	return p, p.parsePlatform(platform)
}

func (p *CCAToken) unread(where string, labels []string) {
	for _, label := range labels {
		p.Unread = append(p.Unread, where+" "+label)
	}
}

// token returns an entry of the collection: bytes that hold a COSE_Sign1, such
// bytes in an array behind their content format, or the COSE_Sign1 itself.
func (r *cborReader) token(field string) *cborReader {
	initial, ok := r.peek()
	switch {
	case !ok || initial>>5 == cborBytes:
		return r.nested(field)
	case initial>>5 != cborArray || initial&0x1F == 4:
		start := r.off
		r.skip(field, cborDeepest)
		return &cborReader{data: r.data[start:r.off], base: r.base + start, err: r.err}
	}
	at := r.off
	n := r.array(field)
	if r.err == nil && n != 2 && n != 3 {
		r.fail(at, field, "an array of %d items, expected 2 or 3 (a wrapper's type, value and indicator) or 4 (COSE_Sign1)", n)
	}
	r.contentFormat(field + "'s type")
	inner := r.nested(field)
	if n == 3 {
		r.uint(field+"'s indicator", 1<<31)
	}
	inner.err = r.err
	return inner
}

func (r *cborReader) contentFormat(field string) {
	at := r.off
	if initial, _ := r.peek(); initial>>5 != cborText {
		if format := r.uint(field, 0xFFFF); r.err == nil && format != ccaContentFormat {
			r.fail(at, field, "%d, expected %d (%s)", format, ccaContentFormat, ccaMediaType)
		}
		return
	}
	media := r.text(field)
	if name, _, _ := strings.Cut(media, ";"); r.err == nil && strings.TrimSpace(name) != ccaMediaType {
		r.fail(at, field, "%s, expected %s", quoted(media), ccaMediaType)
	}
}

// openCCA opens bytes that isCCA recognised.
func openCCA(data []byte, opts *Options) (*Quote, error) {
	p, err := ParseCCA(data)
	if err != nil {
		return nil, err
	}
	if p.VirtCCA {
		return openVirtCCA(p, opts)
	}
	if err := opts.only("an Arm CCA token", "cca-key"); err != nil {
		return nil, err
	}
	keys, err := parseCCAKeys(opts.CCAKey)
	if err != nil {
		return nil, fmt.Errorf("the platform attestation key given: %w", err)
	}
	q := p.quote(CCA)
	if p.Platform != nil && (p.Platform.Profile == ccaPlatformLegacy) != (p.Realm.Profile == "") {
		q.Warnings = append(q.Warnings, fmt.Sprintf("the profiles are of different versions: the platform's is %s, the realm's is %s", p.Platform.Profile, quoted(p.Realm.Profile)))
	}
	signature := p.Realm.signature()
	chain, cpak := p.chain(keys)
	binding := p.binding()
	if signature.Status == Verified && chain.Status == Verified && binding.Status == Verified {
		chain = p.secondOpinion(chain, cpak)
	}
	q.Links = append([]Link{signature, chain, binding}, p.policy()...)
	return q, q.challenge(p, opts.Nonce)
}

// quote is what the token says.
func (p *CCAToken) quote(kind Kind) *Quote {
	q := &Quote{Kind: kind, Values: p.Realm.values(), Facts: p.facts(), asked: asked{reportData: p.Realm.Challenge, field: "cca-realm-challenge"}}
	if n := len(p.Unread); n > 0 {
		const most = 8
		more := ""
		if n > most {
			more = fmt.Sprintf(", and %d more", n-most)
		}
		q.Warnings = append(q.Warnings, "not read: "+strings.Join(p.Unread[:min(n, most)], ", ")+more)
	}
	return q
}

// challenge holds the realm's challenge against the nonce. A shorter one stands
// there followed by zeros (§A7.2.2).
func (q *Quote) challenge(p *CCAToken, nonce []byte) error {
	link, err := fieldNonce("cca-realm-challenge", p.Realm.Challenge, nonce)
	q.Links = append(q.Links, link)
	return err
}

// values are the registers of a realm, in its one bank.
func (c *CCARealm) values() rtmr.Values {
	values := rtmr.Values{}
	values.Set(c.Hash, rtmr.RIM, c.RIM)
	for i, rem := range c.REM {
		reg, _ := rtmr.Index(i).REM()
		values.Set(c.Hash, reg, rem)
	}
	return values
}

// signature checks the realm token's signature by the key that it has itself:
// who vouches for that key is the binding's to tell, and the chain's.
func (c *CCARealm) signature() Link {
	key, err := c.key()
	if err != nil {
		return Link{Signature, Failed, "the realm token's key: " + err.Error()}
	}
	if err := c.verify(key); err != nil {
		return Link{Signature, Failed, fmt.Sprintf("the realm token is not signed by the key in it (RAK): %s", err)}
	}
	return Link{Signature, Verified, fmt.Sprintf("the realm token, %s by the key in it (RAK)", c.algorithm())}
}

// chain checks that the platform token is signed by a key that was given.
func (p *CCAToken) chain(keys []ccaKey) (Link, *ccaKey) {
	if p.Platform == nil {
		return Link{Chain, Missing, "the token has no platform token, and nothing else vouches for the realm's key"}, nil
	}
	if len(keys) == 0 {
		return Link{Chain, Missing, fmt.Sprintf("no CCA platform attestation key (CPAK) was given, the one of the instance %s, which the platform's maker has", p.Platform.InstanceID)}, nil
	}
	candidates := keysOf(p.Platform, keys)
	if len(candidates) == 0 {
		return Link{Chain, Missing, fmt.Sprintf("of the keys given, %d, none is of the instance %s and implementation %s", len(keys), p.Platform.InstanceID, p.Platform.ImplementationID)}, nil
	}
	var err error
	for i := range candidates {
		if err = p.Platform.verify(candidates[i].key); err == nil {
			return Link{Chain, Verified, fmt.Sprintf("the platform token, %s by the given platform attestation key%s", p.Platform.algorithm(), candidates[i].name())}, &candidates[i]
		}
	}
	return Link{Chain, Failed, fmt.Sprintf("the platform token is not signed by the platform attestation key given: %s", err)}, nil
}

// binding checks that the platform vouches for the realm's key.
func (p *CCAToken) binding() Link {
	if p.Platform == nil {
		return Link{Binding, Missing, "no platform token has the hash of the realm's key (RAK)"}
	}
	if want := rtmr.Hex(p.Realm.KeyHash.AppendHash(nil, p.Realm.PublicKey)); !bytes.Equal(want, p.Platform.Challenge) {
		return Link{Binding, Failed, fmt.Sprintf("cca-platform-challenge is %s, expected the realm key's %s, %s", p.Platform.Challenge, p.Realm.KeyHash, want)}
	}
	return Link{Binding, Verified, fmt.Sprintf("cca-platform-challenge is the %s of the realm's key (RAK)", p.Realm.KeyHash)}
}

// ccaLifecycles are the states of a platform by the lifecycle's high byte
// (§A7.2.3.2.6).
var ccaLifecycles = map[uint16]string{
	0x00: "unknown", 0x10: "assembly-and-test", 0x20: "cca-platform-rot-provisioning", 0x30: "secured",
	0x40: "non-cca-platform-rot-debug", 0x50: "recoverable-cca-platform-rot-debug", 0x60: "decommissioned",
}

func (p *CCAPlatform) state() string {
	if state, ok := ccaLifecycles[p.Lifecycle>>8]; ok {
		return state
	}
	return "reserved"
}

// policy tells of a platform that is not in the state in which it keeps others
// out of its realms. There is no link where there is no platform token.
func (p *CCAToken) policy() []Link {
	if p.Platform == nil {
		return nil
	}
	state := p.Platform.state()
	text := fmt.Sprintf("cca-platform-lifecycle is %#04x, %s", p.Platform.Lifecycle, state)
	if state != "secured" {
		return []Link{{Policy, Failed, text + ", expected secured (0x3000 to 0x30ff)"}}
	}
	return []Link{{Policy, Verified, text}}
}

// facts are the claims that are no registers, in the specification's names.
func (p *CCAToken) facts() (facts []Fact) {
	add := func(name, value string) {
		if value != "" {
			facts = append(facts, Fact{name, rtmr.Escape(value)})
		}
	}
	number := func(name string, value *uint64) {
		if value != nil {
			add(name, fmt.Sprint(*value))
		}
	}
	if c := p.Platform; c != nil {
		add("cca-platform-profile", c.Profile)
		add("cca-platform-challenge", c.Challenge.String())
		add("cca-platform-implementation-id", c.ImplementationID.String())
		add("cca-platform-instance-id", c.InstanceID.String())
		add("cca-platform-config", c.Config.String())
		add("cca-platform-lifecycle", fmt.Sprint(c.Lifecycle))
		add("cca-platform-lifecycle.state", c.state())
		for i, s := range c.SwComponents {
			name := fmt.Sprintf("cca-platform-sw-components.%d.", i)
			add(name+"component-type", s.Type)
			add(name+"measurement-value", s.Measurement.String())
			add(name+"version", s.Version)
			add(name+"signer-id", s.SignerID.String())
			add(name+"hash-algo-id", s.HashAlgID)
		}
		add("cca-platform-verification-service", c.VerificationService)
		add("cca-platform-hash-algo-id", c.HashAlgID)
		add("cca-platform-manufacturing-config", c.ManufacturingConfig.String())
		number("cca-platform-client-id", c.ClientID)
	}
	c := &p.Realm
	add("cca-realm-profile", c.Profile)
	add("cca-realm-challenge", c.Challenge.String())
	add("cca-realm-instance-id", c.InstanceID.String())
	add("cca-realm-personalization-value", c.PersonalizationV.String())
	add("cca-realm-hash-algo-id", c.HashAlgID)
	add("cca-realm-public-key", c.PublicKey.String())
	add("cca-realm-public-key-hash-algo-id", c.KeyHashAlgID)
	number("cca-realm-mec-policy", c.MECPolicy)
	number("cca-realm-lfa-policy", c.LFAPolicy)
	add("cca-realm-devices-token-hash", c.DevicesTokenHash.String())
	return facts
}
