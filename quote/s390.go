package quote

import (
	"errors"
	"fmt"
)

// S390Options are what an IBM Z Secure Execution guest's attestation response is held
// against. The Ultravisor answers with a MAC by a key that it was sent, so only who
// made the request, or was given its secrets, can check the response, and whoever
// can check one can make one.
type S390Options struct {
	// Header is the Secure Execution header of the image that the guest should run,
	// alone or in the image: see ParseS390Header. The measurement is over its digests,
	// and is good for no other header: then PLD is the register launch. An image's pages
	// are held against its header: see ParseS390Image.
	Header []byte

	// Key is the request's protection key (ARPK), 32 bytes, which opens its ARCB. 64
	// bytes are the measurement key itself: then the ARCB stays closed, its flags say
	// nothing, and Options.Nonce has to be the request's own if it has one.
	Key []byte
	// OwnerKey is, in place of Key, the private key by which the request's protection
	// key was encrypted for its hosts: P-521, PEM or DER. It takes HostKeys.
	OwnerKey []byte
	// HostKeys are host key documents, PEM or one in DER. Every key slot of the request
	// then has to be for one of them, and each host key hash that the guest's machine
	// added to the measurement.
	HostKeys []byte
	// Roots are what HostKeys lead to: certificates and revocation lists, in PEM.
	// Without it they are taken as they are.
	Roots []byte

	// Measurement, Additional, UserData and CUID are parts of a response that came
	// in files of their own, beside the ARCB or an exchange file without them.
	Measurement, Additional, UserData, CUID []byte
}

// s390Flags are the options' names at the command.
var s390Flags = []string{"s390-header", "s390-key", "s390-owner-key", "s390-hkd", "s390-roots",
	"s390-measurement", "s390-additional", "s390-user-data", "s390-cuid"}

// openS390Exchange opens bytes that isS390Exchange recognised.
func openS390Exchange(data []byte, opts *Options) (*Quote, error) {
	e, err := ParseS390Exchange(data)
	if err != nil {
		return nil, err
	}
	return openS390(e, opts)
}

// openS390Parts opens an ARCB whose response came in files of its own.
func openS390Parts(data []byte, opts *Options) (*Quote, error) {
	return openS390(&S390Exchange{Version: s390Version1, Request: data}, opts)
}

func openS390(e *S390Exchange, opts *Options) (*Quote, error) {
	if err := opts.only("a Secure Execution attestation", s390Flags...); err != nil {
		return nil, err
	}
	if err := e.complete(&opts.S390); err != nil {
		return nil, err
	}
	request, err := ParseS390Request(e.Request)
	if err != nil {
		return nil, fmt.Errorf("the ARCB: %w", err)
	}
	given, err := parseS390Options(opts)
	if err != nil {
		return nil, err
	}
	r := &s390Response{S390Exchange: e, request: request, given: given}
	return r.quote(opts)
}

// complete adds the parts that came in files of their own, and reports what of a
// response is not there.
func (e *S390Exchange) complete(o *S390Options) error {
	for _, part := range []struct {
		flag string
		from []byte
		to   *[]byte
		most int
	}{
		{"measurement", o.Measurement, &e.Measurement, s390MaxOutput}, {"additional", o.Additional, &e.Additional, s390MaxOutput},
		{"user-data", o.UserData, &e.UserData, s390MaxUserData}, {"cuid", o.CUID, &e.CUID, s390CUIDSize},
	} {
		switch {
		case len(part.from) == 0:
		case len(*part.to) > 0:
			return fmt.Errorf("--s390-%s was given, and the exchange file has its own", part.flag)
		case len(part.from) > part.most:
			return fmt.Errorf("--s390-%s has %d bytes, expected %d at most", part.flag, len(part.from), part.most)
		default:
			*part.to = part.from
		}
	}
	switch {
	case len(e.Request) == 0:
		return errors.New("no ARCB: what was asked is not there")
	case len(e.Measurement) == 0:
		return errors.New("no measurement: a request that no guest has answered, expected what pvattest perform writes (or --s390-measurement and --s390-cuid)")
	case len(e.CUID) != s390CUIDSize:
		return fmt.Errorf("a config UID of %d bytes, expected %d", len(e.CUID), s390CUIDSize)
	}
	return nil
}

// s390Given are the options, parsed.
type s390Given struct {
	header    *S390Header // nil if none was given
	hosts     []s390HostKey
	authority *s390Authority
	key       []byte // a protection key or a measurement key
	opensBy   func(r *S390Request) ([]byte, error)
}

func parseS390Options(opts *Options) (g *s390Given, err error) {
	o := &opts.S390
	g = &s390Given{key: o.Key}
	switch byOwner := len(o.OwnerKey) > 0; {
	case byOwner && len(o.Key) > 0:
		return nil, errors.New("--s390-key and --s390-owner-key were given, expected one of them")
	case byOwner && len(o.HostKeys) == 0:
		return nil, errors.New("--s390-owner-key was given without --s390-hkd, the document of the host key that it goes with")
	case len(o.Roots) > 0 && len(o.HostKeys) == 0:
		return nil, errors.New("--s390-roots was given without --s390-hkd, the host key documents that lead to them")
	case len(o.Key) == s390MACSize && len(o.HostKeys) > 0:
		return nil, errors.New("--s390-hkd was given beside a measurement key, with which the ARCB and its key slots stay unproven: expected a request protection key of 32 bytes")
	case len(o.Key) != 0 && len(o.Key) != s390KeySize && len(o.Key) != s390MACSize:
		return nil, fmt.Errorf("--s390-key has %d bytes, expected %d (a request protection key, as pvattest create --arpk writes it) or %d (a measurement key)", len(o.Key), s390KeySize, s390MACSize)
	}
	if len(o.Header) > 0 {
		if g.header, err = ParseS390Header(o.Header); err != nil {
			return nil, fmt.Errorf("--s390-header: %w", err)
		}
	}
	if len(o.HostKeys) > 0 {
		if g.hosts, err = parseS390HostKeys(o.HostKeys); err != nil {
			return nil, err
		}
	}
	if len(o.Roots) > 0 {
		if g.authority, err = parseS390Roots(o.Roots); err != nil {
			return nil, err
		}
	}
	return g, g.chooseKey(o)
}

// chooseKey says how the request is opened; opensBy stays nil if it is not.
func (g *s390Given) chooseKey(o *S390Options) error {
	switch {
	case len(o.OwnerKey) > 0:
		owner, err := parseS390OwnerKey(o.OwnerKey)
		if err != nil {
			return err
		}
		g.opensBy = func(r *S390Request) ([]byte, error) { return r.protectionKey(owner, g.hosts) }
	case len(o.Key) == s390KeySize:
		g.opensBy = func(*S390Request) ([]byte, error) { return o.Key, nil }
	}
	return nil
}
