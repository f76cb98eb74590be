package quote

import (
	"fmt"

	"github.com/veraison/ccatoken"

	"tallystick/rtmr"
)

// secondOpinion asks ccatoken to verify a token of which every link holds: a
// refusal of its makes the chain Failed. It is asked in the form that it reads, a
// collection with the tag 399 of tagged messages in bytes, whose signatures are
// the same. It is not asked of what it cannot read, nor of a realm whose key was not
// read here: go-cose panics at a COSE_Key whose curve is no integer (v1.3.0-rc.1).
func (p *CCAToken) secondOpinion(chain Link, cpak *ccaKey) Link {
	if !p.ccatokenReads() {
		return chain
	}
	refused := func(err error) Link {
		return Link{Chain, Failed, "ccatoken refuses the token: " + rtmr.Escape(err.Error())}
	}
	ev := &ccatoken.Evidence{}
	if err := ev.UnmarshalCBOR(p.collection()); err != nil {
		return refused(err)
	}
	if err := ev.Verify(cpak.key); err != nil {
		return refused(fmt.Errorf("verification: %w", err))
	}
	return chain
}

// ccatokenReads reports whether ccatoken has this form: it knows neither version 2's
// profiles nor RFC 9864's algorithms, and takes a realm's key for a point just
// where the realm has no profile.
func (p *CCAToken) ccatokenReads() bool {
	for _, s := range []*CCASigned{&p.Realm.CCASigned, &p.Platform.CCASigned} {
		if scheme := coseSchemes[s.Algorithm]; int64(scheme.alg) != s.Algorithm || s.wrapped {
			return false
		}
	}
	point := p.Realm.PublicKey[0] == 4
	return p.Realm.Profile != ccaRealm2 && p.Platform.Profile != ccaPlatform2 && (p.Realm.Profile == "") == point
}

// collection writes the token as version 1 of the specification has it.
func (p *CCAToken) collection() []byte {
	out := []byte{0xD9, ccaCollection1 >> 8, ccaCollection1 & 0xFF, 0xA2}
	out = appendCBORBytes(append(out, 0x19, ccaPlatformToken>>8, ccaPlatformToken&0xFF), p.Platform.message())
	return appendCBORBytes(append(out, 0x19, ccaRealmToken>>8, ccaRealmToken&0xFF), p.Realm.message())
}

// message writes the COSE_Sign1 with its tag, and without the headers that are
// not signed.
func (s *CCASigned) message() []byte {
	out := appendCBORBytes([]byte{0xC0 | coseSign1, 0x84}, s.Protected)
	out = appendCBORBytes(append(out, 0xA0), s.Payload)
	return appendCBORBytes(out, s.Sig)
}
