package quote

import (
	"fmt"
	"slices"
	"strings"

	"tallystick/rtmr"
)

// claim reads one claim's value, which is called name.
type claim struct {
	name     string
	read     func(r *cborReader, name string)
	optional bool
}

// claims reads a map of claims, and makes one that is not optional and not there
// an error. One that is optional may be null, as ccatoken writes a realm's profile
// that it has not.
func (r *cborReader) claims(set string, known map[int64]claim) (unread []string) {
	at, seen := r.off, map[int64]bool{}
	unread = r.each(set, func(label int64) bool {
		c, ok := known[label]
		if !ok {
			return false
		}
		seen[label] = true
		if initial, _ := r.peek(); c.optional && initial == cborNull {
			r.off++
			return true
		}
		c.read(r, c.name)
		return true
	})
	var missing []string
	for label, c := range known {
		if !c.optional && !seen[label] {
			missing = append(missing, fmt.Sprintf("%s (%d)", c.name, label))
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		r.fail(at, set, "no %s", strings.Join(missing, ", no "))
	}
	return unread
}

func bytesClaim(name string, into *rtmr.Hex, optional bool, sizes ...int) claim {
	return claim{name, func(r *cborReader, name string) { *into = r.bytes(name, sizes...) }, optional}
}

func textClaim(name string, into *string, optional bool) claim {
	return claim{name, func(r *cborReader, name string) { *into = r.text(name) }, optional}
}

func numberClaim(name string, into **uint64, most uint64) claim {
	return claim{name, func(r *cborReader, name string) { n := r.uint(name, most); *into = &n }, true}
}

// ueidClaim is an EAT UEID of the type RAND, which Arm's have to be.
func ueidClaim(name string, into *rtmr.Hex, optional bool) claim {
	return claim{name, func(r *cborReader, name string) {
		at := r.off
		*into = r.bytes(name, 33)
		if r.err == nil && (*into)[0] != 1 {
			r.fail(at, name, "begins %02x, expected 01", (*into)[0])
		}
	}, optional}
}

// ccaHashes are hash algorithms in IANA's spelling (Named Information Hash
// Algorithm Registry).
var ccaHashes = map[string]rtmr.Alg{"sha-256": rtmr.SHA256, "sha-384": rtmr.SHA384, "sha-512": rtmr.SHA512}

var ccaHashSizes = []int{32, 48, 64}

// parseRealm reads the realm token.
func (p *CCAToken) parseRealm(r *cborReader) error {
	c := &p.Realm
	payload := c.parse(r, "realm token")
	p.VirtCCA = c.wrapped
	p.unread("realm claim", payload.claims("realm claims", map[int64]claim{
		10:    bytesClaim("cca-realm-challenge", &c.Challenge, false, 64),
		256:   ueidClaim("cca-realm-instance-id", &c.InstanceID, true),
		265:   textClaim("cca-realm-profile", &c.Profile, true),
		44235: bytesClaim("cca-realm-personalization-value", &c.PersonalizationV, false, 64),
		44236: textClaim("cca-realm-hash-algo-id", &c.HashAlgID, false),
		44237: bytesClaim("cca-realm-public-key", &c.PublicKey, false),
		44238: bytesClaim("cca-realm-initial-measurement", &c.RIM, false, ccaHashSizes...),
		44239: {name: "cca-realm-extensible-measurements", read: c.readREM},
		44240: textClaim("cca-realm-public-key-hash-algo-id", &c.KeyHashAlgID, false),
		44243: numberClaim("cca-realm-mec-policy", &c.MECPolicy, 1),
		44244: numberClaim("cca-realm-lfa-policy", &c.LFAPolicy, 1),
		44257: bytesClaim("cca-realm-devices-token-hash", &c.DevicesTokenHash, true, ccaHashSizes...),
	}))
	if err := payload.end("the realm claims"); err != nil {
		return err
	}
	p.VirtCCA = p.VirtCCA || isVirtCCAKey(c.PublicKey)
	c.der = p.VirtCCA
	if !p.VirtCCA && !slices.Contains([]string{"", ccaRealm1, ccaRealm2}, c.Profile) {
		return fmt.Errorf("%w: offset %d: cca-realm-profile %s, expected none, %s or %s", ErrUnsupported, payload.base, quoted(c.Profile), ccaRealm1, ccaRealm2)
	}
	for _, alg := range []struct {
		name string
		id   *string
		alg  *rtmr.Alg
	}{
		{"cca-realm-hash-algo-id", &c.HashAlgID, &c.Hash}, {"cca-realm-public-key-hash-algo-id", &c.KeyHashAlgID, &c.KeyHash},
	} {
		if p.VirtCCA {
			*alg.id = strings.TrimRight(*alg.id, "\x00")
		}
		var ok bool
		if *alg.alg, ok = ccaHashes[*alg.id]; !ok {
			return fmt.Errorf("offset %d: %s: %s, expected sha-256, sha-384 or sha-512", payload.base, alg.name, quoted(*alg.id))
		}
	}
	return c.checkSizes(payload.base)
}

// checkSizes holds the measurements' sizes against their algorithm's.
func (c *CCARealm) checkSizes(base int) error {
	for i, value := range append([]rtmr.Hex{c.RIM}, c.REM[:]...) {
		name := "cca-realm-initial-measurement"
		if i > 0 {
			name = fmt.Sprintf("cca-realm-extensible-measurements %d", i-1)
		}
		if len(value) != c.Hash.Size() {
			return fmt.Errorf("offset %d: %s: %d bytes, expected %d of %s", base, name, len(value), c.Hash.Size(), c.HashAlgID)
		}
	}
	return nil
}

func (c *CCARealm) readREM(r *cborReader, name string) {
	at := r.off
	if n := r.array(name); r.err == nil && n != len(c.REM) {
		r.fail(at, name, "%d, expected %d", n, len(c.REM))
	}
	for i := range c.REM {
		c.REM[i] = r.bytes(fmt.Sprintf("%s %d", name, i), ccaHashSizes...)
	}
}

// parsePlatform reads the platform token.
func (p *CCAToken) parsePlatform(r *cborReader) error {
	c := &CCAPlatform{}
	c.der = p.VirtCCA
	p.Platform = c
	payload := c.parse(r, "platform token")
	p.unread("platform claim", payload.claims("platform claims", map[int64]claim{
		10:   bytesClaim("cca-platform-challenge", &c.Challenge, false, ccaHashSizes...),
		256:  ueidClaim("cca-platform-instance-id", &c.InstanceID, false),
		265:  textClaim("cca-platform-profile", &c.Profile, false),
		2394: numberClaim("cca-platform-client-id", &c.ClientID, 1<<31),
		2395: {name: "cca-platform-lifecycle", read: func(r *cborReader, name string) { c.Lifecycle = uint16(r.uint(name, 0xFFFF)) }},
		2396: bytesClaim("cca-platform-implementation-id", &c.ImplementationID, false, 32),
		2399: {name: "cca-platform-sw-components", read: p.readComponents},
		2400: textClaim("cca-platform-verification-service", &c.VerificationService, true),
		2401: bytesClaim("cca-platform-config", &c.Config, false),
		2402: textClaim("cca-platform-hash-algo-id", &c.HashAlgID, false),
		2403: bytesClaim("cca-platform-manufacturing-config", &c.ManufacturingConfig, true),
	}))
	if err := payload.end("the platform claims"); err != nil {
		return err
	}
	if !p.VirtCCA && !slices.Contains([]string{ccaPlatformLegacy, ccaPlatform1, ccaPlatform2}, c.Profile) {
		return fmt.Errorf("%w: offset %d: cca-platform-profile %s, expected %s, %s or %s", ErrUnsupported, payload.base, quoted(c.Profile), ccaPlatformLegacy, ccaPlatform1, ccaPlatform2)
	}
	return nil
}

func (p *CCAToken) readComponents(r *cborReader, name string) {
	at := r.off
	n := r.array(name)
	if r.err == nil && n == 0 {
		r.fail(at, name, "an empty array, expected components")
	}
	for i := range n {
		if r.err != nil {
			return
		}
		name := fmt.Sprintf("%s %d", name, i)
		s := CCAComponent{}
		signer := ccaHashSizes
		if p.VirtCCA {
			signer = nil
		}
		p.unread(name, r.claims(name, map[int64]claim{
			1: textClaim(name+" component-type", &s.Type, true),
			2: bytesClaim(name+" measurement-value", &s.Measurement, false, ccaHashSizes...),
			4: textClaim(name+" version", &s.Version, true),
			5: bytesClaim(name+" signer-id", &s.SignerID, p.VirtCCA, signer...),
			6: textClaim(name+" hash-algo-id", &s.HashAlgID, true),
		}))
		p.Platform.SwComponents = append(p.Platform.SwComponents, s)
	}
}
