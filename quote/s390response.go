package quote

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"slices"

	"tallystick/rtmr"
)

// s390Response is a response with its request, and what both are held against.
type s390Response struct {
	*S390Exchange
	request *S390Request
	given   *s390Given
	opened  bool // the ARCB was, so that its flags and slots are its owner's
}

func (r *s390Response) quote(opts *Options) (*Quote, error) {
	q := &Quote{Kind: S390, Version: int(r.Version >> 8), asked: asked{reportData: r.bound(), field: "the user data"}}
	secrets, chain := r.open(opts)
	q.Facts = r.facts()
	signature := r.signature(secrets, chain)
	nonce, err := r.nonce(secrets, signature, opts.Nonce)
	if err != nil {
		return nil, err
	}
	q.Links = []Link{signature, chain}
	if signature.Status == Verified {
		q.Values = rtmr.Values{rtmr.SHA512: {rtmr.Launch: r.given.header.PLD}}
	}
	if r.opened && r.given.authority != nil {
		q.Links = append(q.Links, r.revocation(opts))
	}
	q.Links = append(q.Links, nonce)
	if pages := s390Pages(opts.S390.Header); pages != nil {
		q.Links = append(q.Links, *pages)
	}
	r.additional(q)
	return q, nil
}

// open opens the request, and tells in the link Chain what its key is worth. The
// secrets are nil if there is no measurement key.
func (r *s390Response) open(opts *Options) (*s390Secrets, Link) {
	switch {
	case r.given.opensBy == nil && len(r.given.key) == 0:
		return nil, Link{Chain, Missing, "no key was given that opens the ARCB (--s390-key, or --s390-owner-key with --s390-hkd), which only the request's maker has"}
	case r.given.opensBy == nil:
		secrets := &s390Secrets{key: r.given.key}
		if r.request.has(s390FlagNonce) {
			secrets.nonce = opts.Nonce
		}
		return secrets, Link{Chain, NotChecked, "the measurement key was given and is taken as it is; the ARCB stays closed, so its flags are anybody's"}
	}
	key, err := r.given.opensBy(r.request)
	if err != nil {
		return nil, Link{Chain, Failed, err.Error()}
	}
	secrets, err := r.request.open(key)
	if err != nil {
		return nil, Link{Chain, Failed, err.Error()}
	}
	r.opened = true
	return secrets, r.chain(opts)
}

// chain tells for whose machines the opened request is: who has a host key of it has
// the measurement key.
func (r *s390Response) chain(opts *Options) Link {
	opens := func(rest string) string {
		return fmt.Sprintf("the ARCB opens with the request's protection key; "+rest, len(r.request.Slots))
	}
	if len(r.given.hosts) == 0 {
		return Link{Chain, NotChecked, opens("whether its key slots (%d) are for IBM Z machines was for its maker to check: no host key document was given (--s390-hkd)")}
	}
	for i, slot := range r.request.Slots {
		if !slices.ContainsFunc(r.given.hosts, func(h s390HostKey) bool { return bytes.Equal(h.hash, slot.HostKeyHash) }) {
			return Link{Chain, Failed, fmt.Sprintf("key slot %d is for the host key %s, of which no document was given: who has that key could have made the measurement", i, slot.HostKeyHash)}
		}
	}
	if r.given.authority == nil {
		return Link{Chain, NotChecked, opens("its key slots (%d) are for given host key documents, which are taken as they are (no --s390-roots)")}
	}
	for _, host := range r.given.hosts {
		if _, err := r.given.authority.verify(host.document, opts.now()); err != nil {
			return Link{Chain, Failed, fmt.Sprintf("the document of the host key %s: %s", host.hash, err)}
		}
	}
	return Link{Chain, Verified, opens("its key slots (%d) are for host key documents by IBM's signing service, whose key leads to a given root")}
}

// revocation holds the host keys' documents against revocation lists.
func (r *s390Response) revocation(opts *Options) (link Link) {
	for i, host := range r.given.hosts {
		one := Link{Collateral, Missing, fmt.Sprintf("the document of the host key %s leads to no root", host.hash)}
		if chain, err := r.given.authority.verify(host.document, opts.now()); err == nil {
			one = r.given.authority.revocation(chain, opts.now())
		}
		if i == 0 {
			link = one
		} else {
			link = both(link, one)
		}
	}
	return link
}

// signature checks the measurement. What it should have been is not told: who sent
// another could send that.
func (r *s390Response) signature(secrets *s390Secrets, chain Link) Link {
	switch {
	case r.given.header == nil:
		return Link{Signature, Missing, "no header was given (--s390-header): the measurement is a MAC over the digests of the image that it is to be held against"}
	case secrets == nil:
		return Link{Signature, Missing, "no measurement key: " + chain.Text}
	case r.request.has(s390FlagNonce) && len(secrets.nonce) != s390NonceSize:
		return Link{Signature, Missing, fmt.Sprintf("the measurement is over the request's nonce, which is in the closed ARCB: expected %d bytes as the nonce beside a measurement key", s390NonceSize)}
	case len(r.Measurement) != s390MACSize:
		return Link{Signature, Failed, fmt.Sprintf("the measurement has %d bytes, expected %d of HMAC-SHA512", len(r.Measurement), s390MACSize)}
	}
	over := fmt.Sprintf("the header's PLD, ALD, TLD and tag, CUID, user data of %d bytes, nonce of %d and additional data of %d", len(r.UserData), len(secrets.nonce), len(r.Additional))
	if !hmac.Equal(r.measure(secrets), r.Measurement) {
		return Link{Signature, Failed, "not the HMAC-SHA512 by the request's measurement key over " + over + ": the guest runs another image, answers another request, or the response was altered"}
	}
	return Link{Signature, Verified, "HMAC-SHA512 by the request's measurement key over " + over + "; symmetric: only who has the request's secrets can check it, and could have made it"}
}

// measure is what the Ultravisor computes of a guest (s390-tools,
// rust/pv/src/uvattest/attest.rs):
//
//	PLD ‖ ALD ‖ TLD ‖ tag ‖ CUID ‖ be16(len(user)) ‖ 0000 ‖ be32(len(additional)) ‖ user ‖ nonce ‖ additional
func (r *s390Response) measure(secrets *s390Secrets) []byte {
	h, mac := r.given.header, hmac.New(sha512.New, secrets.key)
	for _, part := range [][]byte{
		h.PLD, h.ALD, h.TLD, h.Tag, r.CUID,
		binary.BigEndian.AppendUint16(nil, uint16(len(r.UserData))), {0, 0}, binary.BigEndian.AppendUint32(nil, uint32(len(r.Additional))),
		r.UserData, secrets.nonce, r.Additional,
	} {
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// nonce looks for the verifier's nonce where there is room for one: in the ARCB,
// whose maker chose it, and in the user data, by the guest. The ARCB's is not told.
func (r *s390Response) nonce(secrets *s390Secrets, signature Link, nonce []byte) (Link, error) {
	switch {
	case len(nonce) == 0 && len(r.given.hosts) > 0 && len(r.given.key) == 0:
		return Link{Nonce, NotChecked, "no nonce given, and the owner's key opens old requests as well"}, nil
	case len(nonce) == 0:
		return Link{Nonce, NotChecked, "no nonce given; the response is at least newer than the request whose key it takes"}, nil
	case len(nonce) > s390MaxUserData:
		return Link{}, fmt.Errorf("the nonce has %d bytes, and there is room for %d in an ARCB and %d in user data", len(nonce), s390NonceSize, s390MaxUserData)
	case r.opened && len(secrets.nonce) > 0 && padded(secrets.nonce, nonce):
		return Link{Nonce, Verified, "the ARCB's nonce is the given one"}, nil
	case len(r.UserData) > 0 && padded(r.UserData, nonce):
		return Link{Nonce, Verified, fmt.Sprintf("the user data is the given nonce of %d bytes", len(nonce))}, nil
	case !r.opened && secrets != nil && len(secrets.nonce) > 0 && signature.Status == Verified:
		return Link{Nonce, Verified, "the measurement is over the given nonce"}, nil
	}
	return Link{Nonce, Failed, "neither the ARCB's nonce nor the user data is the given one"}, nil
}

// padded reports whether a field holds a nonce, and zeros behind it.
func padded(field, nonce []byte) bool {
	return len(nonce) <= len(field) && bytes.Equal(field[:len(nonce)], nonce) && allZero(field[len(nonce):])
}

// bound is what the guest asked for, where a software TPM's binding of 64 bytes may
// stand: user data that is longer has to be zeros behind it.
func (r *s390Response) bound() rtmr.Hex {
	if n := sha512.Size; len(r.UserData) > n && allZero(r.UserData[n:]) {
		return r.UserData[:n]
	}
	return r.UserData
}
